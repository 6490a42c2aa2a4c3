"""The command `judge-check`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from duologue_align.judge.agreement import Agreement
    from duologue_align.judge.labelled import LabelledAnswer


def add_commands(commands: Any) -> None:
    """Add the command to an argument parser's subparsers."""
    parser = commands.add_parser(
        "judge-check",
        help="measure how well the judges of replies agree with labelled ones",
        description="Measure how well judges tell good replies from off-topic, garbled, echoed and empty ones.",
    )
    parser.add_argument(
        "--judge",
        action="append",
        metavar="NAME",
        help="duologue, log-prob, similarity, endpoint, or a TOML file; may be given again (default: all four)",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting of each panel"
    )
    parser.add_argument("--labels", type=Path, metavar="FILE", help="labelled replies, JSONL (default: those bundled)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of local models (default: 1)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON last")
    parser.set_defaults(command=_judge_check)


def _judge_check(options: argparse.Namespace) -> int:
    from duologue.errors import ConfigError
    from duologue_align.judge.agreement import measure
    from duologue_align.judge.labelled import labelled_answers
    from duologue_align.judge.panel import PRESETS

    if options.threads < 1:
        raise ConfigError(f"--threads is {options.threads}; it must be at least 1")
    items = labelled_answers(options.labels)
    agreements: list[Agreement] = []
    unavailable: dict[str, str] = {}
    for name in dict.fromkeys(options.judge or PRESETS):
        panel, reason = _load(name, options.set, options.threads, is_asked_for=bool(options.judge))
        if panel is None:
            unavailable[name] = reason
        else:
            agreements.append(measure(Path(name).stem if name not in PRESETS else name, panel, items))
    best = max(
        (item for item in agreements if item.is_licensed and item.is_local), key=lambda item: item.figure, default=None
    )
    sys.stdout.write(_report(agreements, unavailable, items, best))
    if options.json:
        summary = {
            "answers": len(items),
            "judges": {item.name: item.to_dict() for item in agreements},
            "unavailable": unavailable,
            "default": None if best is None else best.name,
            "default_auc": None if best is None else best.figure,
        }
        sys.stdout.write(json.dumps(summary) + "\n")
    return 0 if agreements else 1


def _load(name: str, changes: Sequence[str], threads: int, *, is_asked_for: bool) -> tuple[Any, str]:
    from duologue.errors import MissingExtraError
    from duologue_align.judge.endpoint import MODEL_VARIABLE, URL_VARIABLE
    from duologue_align.judge.local_lm import LocalLmJudge
    from duologue_align.judge.panel import JudgePanel

    if (
        name == "endpoint"
        and not is_asked_for
        and not (os.environ.get(URL_VARIABLE) and os.environ.get(MODEL_VARIABLE))
    ):
        return None, f"set {URL_VARIABLE} and {MODEL_VARIABLE}"
    try:
        _limit_threads(threads)
        panel = JudgePanel.load(name, changes)
    except MissingExtraError as error:
        return None, str(error)
    for judge in panel.judges.values():
        # What another panel computed with the same model would make this one look cheaper.
        if isinstance(judge, LocalLmJudge):
            judge.forget()
    return panel, ""


def _limit_threads(threads: int) -> None:
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(threads)


def _report(
    agreements: Sequence[Agreement],
    unavailable: Mapping[str, str],
    items: Sequence[LabelledAnswer],
    best: Agreement | None,
) -> str:
    from duologue_align.judge.agreement import CONTRASTS
    from duologue_align.judge.labelled import LABELS

    counts = ", ".join(f"{sum(item.label == label for item in items)} {label}" for label in LABELS)
    lines = [
        f"{len(items)} labelled replies: {counts}",
        "area under the curve, good against each kind: 1 is perfect, 0.5 chance; 95 % interval; then without guards",
        "",
        "| judge | " + " | ".join(CONTRASTS) + " | CPU s a score | wall s |",
        "|---" * (len(CONTRASTS) + 3) + "|",
    ]
    for item in agreements:
        lines.append(_row(item.name, item.by_contrast, f"{item.cpu_s:.3f} | {item.wall_s:.3f}"))
        lines.append(_row("  without guards", item.by_contrast_unguarded, " | "))
    lines.append("")
    lines += [f"{item.name}: {', '.join(item.describe())}" for item in agreements]
    lines += [f"{name}: unavailable, {reason}" for name, reason in unavailable.items()]
    if best is not None:
        lines.append(f"best licensed local judge: {best.name}, {best.figure:.3f} on the mean of all kinds")
    return "\n".join(lines) + "\n"


def _row(name: str, areas: Mapping[str, Any], rest: str) -> str:
    cells = [
        "-" if area.value is None else f"{area.value:.3f} [{area.low:.2f}, {area.high:.2f}]" for area in areas.values()
    ]
    return f"| {name} | {' | '.join(cells)} | {rest} |"
