"""The commands `train-codec` and `eval-codec`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from duologue.errors import MissingExtraError
from duologue.replacing import replace_file


def add_commands(commands: Any) -> None:
    """Add the two commands to an argument parser's subparsers."""
    train = commands.add_parser("train-codec", help="train a small Mimi, or go on training one")
    _add_train_options(train)
    train.set_defaults(command=_train)
    evaluation = commands.add_parser("eval-codec", help="measure a codec on held-out speech")
    _add_eval_options(evaluation)
    evaluation.set_defaults(command=_evaluate)


def _add_train_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        type=Path,
        action="append",
        required=True,
        metavar="PATH",
        help="a data.jsonl, or a folder with one or of WAV and FLAC files; may be repeated",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    parser.add_argument(
        "--valid", type=Path, action="append", default=[], metavar="PATH", help="held-out data (default: a share)"
    )
    parser.add_argument("--channel", type=int, metavar="N", help="learn from this channel only (0 is the agent)")
    parser.add_argument("--config", default="mini", metavar="NAME|FILE", help="preset: mini (default), decoder, TOML")
    parser.add_argument("--init", type=Path, metavar="DIR", help="begin with this codec's shape and weights")
    parser.add_argument(
        "--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="change a value of the preset"
    )
    parser.add_argument("--steps", type=int, metavar="N", help="steps in all")
    parser.add_argument("--minutes", type=float, metavar="M", help="minutes of training in all, resumptions included")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint, if there is one")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda if there is one")
    parser.add_argument(
        "--threads", type=int, default=max(1, (os.cpu_count() or 1) - 1), help="cores of torch on a CPU"
    )
    parser.add_argument(
        "--workers", type=int, default=max(1, (os.cpu_count() or 1) // 2), help="threads that make clips"
    )
    parser.add_argument("--compile", action="store_true", help="compile the codec (CUDA)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _train(options: argparse.Namespace) -> int:
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "align") from error
    from duologue_align.codec.loop import RunOptions, train_codec
    from duologue_align.codec.settings import CodecTraining

    changes = list(options.set)
    if options.minutes is not None:
        changes += [f"run.minutes={float(options.minutes)}", f"run.steps={options.steps or 0}"]
    elif options.steps is not None:
        changes += [f"run.steps={options.steps}"]
    settings = CodecTraining.load(options.config, changes)
    result = train_codec(
        settings,
        RunOptions(
            data=options.data,
            out=options.out,
            valid=options.valid,
            channel=options.channel,
            init=options.init,
            resume=options.resume,
            device=options.device or ("cuda" if torch.cuda.is_available() else "cpu"),
            threads=options.threads,
            workers=options.workers,
            compile=options.compile,
            show_progress=not options.quiet and sys.stderr.isatty(),
        ),
    )
    _print_json(result)
    return 0


def _add_eval_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("codec", type=Path, metavar="DIR", help="folder with mimi.safetensors and mimi_config.json")
    parser.add_argument(
        "--data",
        action="append",
        required=True,
        metavar="NAME=PATH",
        help="a set of recordings under a name, for example agent=out/test; may be repeated",
    )
    parser.add_argument("--channel", type=int, metavar="N", help="read this channel only (0 is the agent)")
    parser.add_argument("--seconds", type=float, default=600.0, help="most audio of each set (default: 600)")
    parser.add_argument("--no-asr", action="store_true", help="skip word error rates")
    parser.add_argument("--no-quality", action="store_true", help="skip DNSMOS")
    parser.add_argument("--save", type=Path, metavar="DIR", help="write decoded recordings here")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the last line here")


def _evaluate(options: argparse.Namespace) -> int:
    from duologue_align.codec.evaluate import EvaluationOptions, evaluate_codec, table

    result = evaluate_codec(
        options.codec,
        dict(_named(item) for item in options.data),
        EvaluationOptions(
            channel=options.channel,
            seconds=options.seconds,
            with_asr=not options.no_asr,
            with_quality=not options.no_quality,
            save=options.save,
        ),
    )
    sys.stdout.write(table(result) + "\n")
    _print_json(result)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        replace_file(options.json, (json.dumps(result) + "\n").encode())
    return 0


def _named(item: str) -> tuple[str, Path]:
    name, separator, path = item.partition("=")
    return (name, Path(path)) if separator else (Path(item).name, Path(item))


def _print_json(result: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(result) + "\n")
