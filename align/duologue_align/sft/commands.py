"""The commands `tokenizer`, `encode` and `sft`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from duologue.errors import ConfigError, MissingExtraError


def add_commands(commands: Any) -> None:
    """Add the three commands to an argument parser's subparsers."""
    tokenizer = commands.add_parser("tokenizer", help="train the text tokenizer on what the agent says")
    tokenizer.add_argument("--data", type=Path, required=True, metavar="DATA", help="a data.jsonl, or its folder")
    tokenizer.add_argument("--out", type=Path, required=True, metavar="FILE", help="where tokenizer.model goes")
    tokenizer.add_argument("--pieces", type=int, default=1024, metavar="N", help="vocabulary (default: 1024)")
    tokenizer.add_argument("--text", type=Path, metavar="FILE", help="further text to learn from, one sentence a line")
    tokenizer.set_defaults(command=_tokenizer)

    encode = commands.add_parser(
        "encode", help="turn dialogues into codes", description="Encode dialogues; run again to go on."
    )
    encode.add_argument("--data", type=Path, required=True, metavar="DATA", help="a data.jsonl, or its folder")
    encode.add_argument("--codec", type=Path, required=True, metavar="FILE", help="mimi.safetensors")
    encode.add_argument(
        "--codec-config", type=Path, metavar="FILE", help="its configuration (default: mimi_config.json beside it)"
    )
    encode.add_argument("--tokenizer", type=Path, required=True, metavar="FILE", help="tokenizer.model")
    encode.add_argument("--out", type=Path, required=True, metavar="CODES", help="folder to create or to continue")
    encode.add_argument("--jobs", type=int, default=1, metavar="N", help="processes (default: 1)")
    encode.add_argument("--quiet", action="store_true", help="no progress bar")
    encode.set_defaults(command=_encode)

    sft = commands.add_parser("sft", help="train a language model on encoded dialogues, from nothing or from a bundle")
    sft.add_argument(
        "config", nargs="?", default="duologue-mini", metavar="CONFIG", help="preset: a TOML file or a name"
    )
    sft.add_argument("--data", type=Path, required=True, metavar="CODES", help="what `encode --out` wrote")
    sft.add_argument("--valid", type=Path, metavar="CODES", help="held-out dialogues (default: a share of --data)")
    sft.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    sft.add_argument("--init", type=Path, metavar="BUNDLE", help="begin with the weights of this model folder")
    sft.add_argument("--resume", action="store_true", help="go on from the newest checkpoint, if there is one")
    sft.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda if there is one")
    sft.add_argument("--threads", type=int, default=os.cpu_count() or 1, metavar="N", help="cores of torch on a CPU")
    sft.add_argument("--steps", type=int, metavar="N", help="the same as --set run.steps=N")
    sft.add_argument("--minutes", type=float, metavar="M", help="the same as --set run.minutes=M")
    sft.add_argument(
        "--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="change a value of the preset"
    )
    sft.add_argument("--quiet", action="store_true", help="no progress bar")
    sft.set_defaults(command=_sft)


def _tokenizer(options: argparse.Namespace) -> int:
    from duologue.replacing import replace_file
    from duologue_align.sft.dialogues import read_manifest
    from duologue_align.sft.tokenizer import spoken_lines, train_tokenizer

    lines = list(spoken_lines(read_manifest(options.data)))
    if options.text is not None:
        try:
            lines += options.text.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{options.text}: cannot be read as text ({error})") from error
    model = train_tokenizer(lines, pieces=options.pieces)
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        replace_file(options.out, model)
    except OSError as error:
        raise ConfigError(f"{options.out}: cannot be written ({error.strerror}); give another --out") from error
    sys.stdout.write(f"{options.out}: {options.pieces} pieces from {len(lines)} lines\n")
    return 0


def _encode(options: argparse.Namespace) -> int:
    from duologue_align.sft.encode import EncodeJob, encode_dialogues

    job = EncodeJob(
        data=options.data,
        codec=options.codec,
        codec_config=options.codec_config,
        tokenizer=options.tokenizer,
        out=options.out,
    )
    started = time.perf_counter()
    index = encode_dialogues(job, jobs=options.jobs, show_progress=_has_bar(options))
    hours, took_s = index.frames / 12.5 / 3600, time.perf_counter() - started
    sys.stdout.write(f"{options.out}: {len(index.dialogues)} dialogues, {hours:.2f} h, in {took_s:.0f} s\n")
    return 0


def _sft(options: argparse.Namespace) -> int:
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "align") from error
    from duologue_align.sft.run import train
    from duologue_align.sft.settings import SftSettings

    torch.set_num_threads(max(1, options.threads))
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("there is no CUDA device here; use --device cpu")
    changes = list(options.set)
    for name in ("steps", "minutes"):
        if getattr(options, name) is not None:
            changes.append(f"run.{name}={getattr(options, name)}")
    result = train(
        SftSettings.load(options.config, changes),
        options.data,
        options.out,
        valid=options.valid,
        device=device,
        start=options.init,
        is_resumed=options.resume,
        show_progress=_has_bar(options),
        tell=_tell,
    )
    row = {"step": result.step, "is_finished": result.is_finished, "valid": result.valid}
    if os.environ.get("RANK", "0") == "0":
        sys.stdout.write(json.dumps({**row, "bundle": str(result.bundle) if result.bundle else None}) + "\n")
    return 0


def _has_bar(options: argparse.Namespace) -> bool:
    return not options.quiet and sys.stderr.isatty()


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
