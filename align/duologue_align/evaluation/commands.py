"""The command `evaluate`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def add_commands(commands: Any) -> None:
    """Add the command to an argument parser's subparsers."""
    parser = commands.add_parser(
        "evaluate",
        help="measure an agent with recorded and with simulated users",
        description="Measure an agent beside scripted ones; run the same command again to go on.",
    )
    parser.add_argument(
        "data", nargs="?", type=Path, metavar="DATA", help="a mined folder, or samples laid out as Full-Duplex-Bench's"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to create or to continue")
    parser.add_argument(
        "--agent", metavar="DIR", help="the agent: a bundle or hf://owner/name (default: the bundled one)"
    )
    parser.add_argument("--base", metavar="DIR", help="what it was aligned from; compared on the same conversations")
    parser.add_argument("--config", type=Path, metavar="FILE", help="agent settings, TOML or JSON")
    parser.add_argument("--only", choices=("static", "dynamic"), help="one of the two parts")
    parser.add_argument("--split", choices=("train", "dev", "test"), default="test", help="of a mined folder")
    parser.add_argument("--per-axis", type=int, default=40, metavar="N", help="segments of each axis (default: 40)")
    parser.add_argument("--seeds", type=int, default=2, metavar="N", help="sessions with each segment (default: 2)")
    parser.add_argument(
        "--lead", type=float, default=3.0, metavar="S", help="seconds the agent hears before a segment (default: 3)"
    )
    parser.add_argument("--preset", default="duologue", metavar="NAME", help="rewards, by name or TOML file")
    parser.add_argument("--conversations", type=int, default=20, metavar="N", help="with simulated users (default: 20)")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="S", help="of each conversation (default: 60)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the conversations (default: 0)")
    parser.add_argument(
        "--user",
        choices=("recorded", "synth"),
        help="what simulated users say (default: recorded, where there is some)",
    )
    parser.add_argument("--realtime", action="store_true", help="pace the conversations at 80 ms a frame")
    parser.add_argument(
        "--judge", metavar="NAME", help="panel that judges replies, or none (default: duologue, where it is installed)"
    )
    parser.add_argument(
        "--transcriber",
        default="inner-monologue",
        metavar="NAME",
        help="the agent's words by ear, and the user's where nobody wrote them down: whisper or whisper:FOLDER "
        "(default: inner-monologue, the agent's own text)",
    )
    parser.add_argument("--json", action="store_true", help="print the report as one line of JSON last")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(command=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    from duologue.config import AgentConfig
    from duologue_align.evaluation.contestant import AGENT, BASE, Contestant
    from duologue_align.evaluation.dynamic import DynamicOptions
    from duologue_align.evaluation.evaluate import Data, EvaluationOptions, best_judge, evaluate
    from duologue_align.evaluation.report import PAGE
    from duologue_align.evaluation.static import StaticOptions

    is_static = options.only != "dynamic" and (options.data is not None or options.only == "static")
    chosen = EvaluationOptions(
        static=StaticOptions(seeds=options.seeds, lead_s=options.lead, per_axis=options.per_axis, preset=options.preset)
        if is_static
        else None,
        dynamic=None
        if options.only == "static"
        else DynamicOptions(
            conversations=options.conversations,
            seconds=options.seconds,
            seed=options.seed,
            realtime=options.realtime,
        ),
        user=options.user,
        transcriber=options.transcriber,
        judge=best_judge() if options.judge is None else None if options.judge == "none" else options.judge,
    )
    data = None if options.data is None else Data.read(options.data, options.split)
    config = AgentConfig.load(options.config) if options.config else AgentConfig()
    contestants = [Contestant.load(AGENT, options.agent, config)]
    if options.base is not None:
        contestants.append(Contestant.load(BASE, options.base, config))
    is_shown = not options.quiet and sys.stderr.isatty()
    report = evaluate(contestants, data, chosen, out=options.out, progress=_bar if is_shown else None)
    if contestants[0].agent.note:
        sys.stdout.write(f"{contestants[0].agent.note}\n\n")
    sys.stdout.write(f"{report.text()}\n\n{options.out / PAGE}\n")
    if report.judge == "nobody" and options.judge is None:
        sys.stdout.write("replies were not judged: install duologue[judge] and what it names, or give --judge\n")
    if options.json:
        sys.stdout.write(json.dumps(report.to_dict()) + "\n")
    return 0


def _bar(work: Iterable[Any]) -> Iterable[Any]:
    from tqdm import tqdm

    bar: Iterable[Any] = tqdm(work, unit="item", desc="evaluate", file=sys.stderr, leave=False)
    return bar
