"""The `duologue-align` command: synth, train-codec, tokenizer, encode, sft, mine, train, evaluate, export, and checks.

Exit codes: 0 done, 1 a check failed, 2 a wrong argument or setting, or a package missing, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from duologue.errors import DuologueError
from duologue_align.codec.commands import add_commands as add_codec_commands
from duologue_align.evaluation.commands import add_commands as add_evaluation_commands
from duologue_align.export.commands import add_commands as add_export_commands
from duologue_align.judge.commands import add_commands as add_judge_commands
from duologue_align.rl.commands import add_commands as add_rl_commands
from duologue_align.segments.commands import add_commands as add_segments_commands
from duologue_align.sft.commands import add_commands as add_sft_commands


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _build_parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except DuologueError as error:
        _complain(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        _complain("interrupted; run the same command again to go on")
        return 130


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="duologue-align", description="Data, training and alignment of duplex agents."
    )
    commands = parser.add_subparsers(required=True, metavar="command")

    synth = commands.add_parser(
        "synth", help="write synthetic two-channel dialogues", description="Write dialogues; run again to go on."
    )
    synth.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to create or to continue")
    synth.add_argument("--hours", type=float, required=True, metavar="H", help="hours of dialogue altogether")
    synth.add_argument("--seed", type=int, default=0, metavar="S", help="same seed, same dialogues (default: 0)")
    synth.add_argument("--jobs", type=int, default=1, metavar="N", help="processes (default: 1)")
    synth.add_argument(
        "--split", choices=("train", "test"), default="train", help="test: texts and user voices not in train"
    )
    synth.add_argument("--held-out", action="store_true", help="the same as --split test")
    synth.add_argument("--audio", choices=("wav", "flac"), default="wav", help="file format (default: wav)")
    synth.add_argument("--clean", action="store_true", help="users without room, noise, telephone and leakage")
    synth.add_argument(
        "--page", type=int, metavar="N", help="also write DIR/index.html with the first N dialogues to listen to"
    )
    synth.add_argument("--quiet", action="store_true", help="no progress bar")
    synth.set_defaults(command=_synth)

    check = commands.add_parser("synth-check", help="hold the timing of written dialogues against humans")
    check.add_argument("folder", type=Path, metavar="DIR", help="what `synth --out` wrote")
    check.add_argument("--all", action="store_true", help="measure the badly behaved agents too, and accept anything")
    check.add_argument("--json", action="store_true", help="print the figures as JSON")
    check.set_defaults(command=_synth_check)

    add_codec_commands(commands)
    add_sft_commands(commands)
    add_segments_commands(commands)
    add_judge_commands(commands)
    add_rl_commands(commands)
    add_export_commands(commands)
    add_evaluation_commands(commands)
    return parser


def _synth(options: argparse.Namespace) -> int:
    from duologue_align.synth.dataset import DatasetConfig, write_dataset
    from duologue_align.synth.page import write_page

    config = DatasetConfig(
        hours=options.hours,
        seed=options.seed,
        split="test" if options.held_out else options.split,
        audio=options.audio,
        is_clean=options.clean,
    )
    show_progress = not options.quiet and sys.stderr.isatty()
    rows = write_dataset(options.out, config, jobs=options.jobs, show_progress=show_progress)
    hours = sum(row["duration"] for row in rows) / 3600
    spent = os.times()
    cpu_s = spent.user + spent.system + spent.children_user + spent.children_system
    _say(f"{len(rows)} dialogues, {hours:.2f} h, {cpu_s:.0f} s of CPU in this run: {options.out / 'data.jsonl'}")
    if options.page:
        _say(f"Listen: {write_page(options.out, first=options.page, audio=config.audio)}")
    return 0


def _synth_check(options: argparse.Namespace) -> int:
    from duologue_align.synth.check import failures, measure_facts, table
    from duologue_align.synth.dataset import read_facts

    dialogues = [facts for facts in read_facts(options.folder) if options.all or facts["is_well_behaved"]]
    figures = measure_facts(dialogues)
    if not dialogues:
        _complain(f"{options.folder} has no well-behaved dialogue; write more hours")
        return 1
    summary = figures.summary()
    if options.json:
        _say(json.dumps({"dialogues": len(dialogues), "hours": figures.hours, **summary}))
    else:
        _say(f"{len(dialogues)} dialogues, {figures.hours:.2f} h\n{table(summary)}")
    failed = [] if options.all else failures(summary)
    for line in failed:
        _complain(line)
    return 1 if failed else 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _complain(text: str) -> None:
    sys.stderr.write(f"duologue-align: {text}\n")


if __name__ == "__main__":
    sys.exit(main())
