"""The command `train`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from duologue.errors import ConfigError, MissingExtraError


def add_commands(commands: Any) -> None:
    """Add the command to an argument parser's subparsers."""
    train = commands.add_parser(
        "train",
        help="align a model on mined segments by reinforcement learning",
        description="Align a model on mined segments. Several processes share a step under torchrun.",
    )
    train.add_argument(
        "config", nargs="?", default="duologue", metavar="CONFIG", help="a TOML file, or the name duologue or paper"
    )
    train.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    train.add_argument(
        "--model", metavar="BUNDLE", help="model to begin with (default: the config's, or the default agent)"
    )
    train.add_argument("--segments", type=Path, metavar="MINED", help="the same as --set data.segments=MINED")
    train.add_argument("--steps", type=int, metavar="N", help="the same as --set run.steps=N")
    train.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="change a setting")
    train.add_argument("--resume", action="store_true", help="go on from the newest checkpoint, if there is one")
    train.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda if there is one")
    train.add_argument("--threads", type=int, default=os.cpu_count() or 1, metavar="N", help="cores of a CPU to use")
    train.add_argument("--quiet", action="store_true", help="no progress bar")
    train.set_defaults(command=_train)


def _train(options: argparse.Namespace) -> int:
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "align") from error
    from duologue_align.rl.run import train
    from duologue_align.rl.settings import AlignSettings

    threads = max(1, options.threads)
    torch.set_num_threads(threads)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("there is no CUDA device here; use --device cpu")
    changes = list(options.set)
    if options.model is not None:
        changes.append(f"model={options.model}")
    if options.segments is not None:
        changes.append(f"data.segments={json.dumps(str(options.segments))}")
    if options.steps is not None:
        changes.append(f"run.steps={options.steps}")
    result = train(
        AlignSettings.load(options.config, changes),
        options.out,
        device=device,
        is_resumed=options.resume,
        threads=threads,
        show_progress=not options.quiet and sys.stderr.isatty(),
        tell=_tell,
    )
    if os.environ.get("RANK", "0") == "0":
        row = {"step": result.step, "is_finished": result.is_finished, "adapter": str(result.adapter)}
        sys.stdout.write(json.dumps(row) + "\n")
    return 0


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
