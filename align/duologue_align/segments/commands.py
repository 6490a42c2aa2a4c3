"""The command `mine`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

LAYOUTS = ("folder", "manifest", "fisher", "seamless", "candor", "lhotse")


def add_commands(commands: Any) -> None:
    """Add the command to an argument parser's subparsers."""
    parser = commands.add_parser(
        "mine",
        help="find segments for alignment in two-channel recordings",
        description="Mine two-channel recordings for segments; run the same command again to go on.",
    )
    parser.add_argument("source", nargs="+", type=Path, metavar="SOURCE", help="a folder of recordings or a manifest")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to create or to continue")
    parser.add_argument("--layout", choices=LAYOUTS, help="layout of the sources (default: folder, or manifest)")
    parser.add_argument(
        "--per-axis", type=int, default=2000, metavar="N", help="most segments of each set (default: 2000)"
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes (default: 1)")
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help="where the work is done")
    parser.add_argument(
        "--codec",
        metavar="PATH",
        help="mimi.safetensors or a model folder (default: the bundled agent's); none for no codes",
    )
    parser.add_argument("--rules", type=Path, metavar="FILE", help="thresholds, TOML (default: the paper's)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a threshold")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the draw when there are more (default: 0)")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(command=_mine)


def _mine(options: argparse.Namespace) -> int:
    from duologue_align.segments.codes import Codec
    from duologue_align.segments.dataset import PAGE, MiningOptions, mine
    from duologue_align.segments.rules import MiningRules
    from duologue_align.segments.summary import summary_table

    codec = None if options.codec == "none" else Codec.find(Path(options.codec) if options.codec else None)
    chosen = MiningOptions(
        layout=options.layout,
        rules=MiningRules.load(options.rules, options.set),
        per_axis=options.per_axis,
        seed=options.seed,
        jobs=options.jobs,
        engine=options.engine,
        codec=codec,
        show_progress=not options.quiet and sys.stderr.isatty(),
    )
    summary = mine(options.source, options.out, chosen)
    if options.json:
        sys.stdout.write(json.dumps(summary.to_dict()) + "\n")
    else:
        sys.stdout.write(f"{summary_table(summary)}\n{options.out / PAGE}\n")
        if not options.codec:
            sys.stdout.write("codes are those of the bundled agent's codec; give another with --codec\n")
    return 0 if summary.conversations else 1
