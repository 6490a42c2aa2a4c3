"""Do scripted agents that understand nothing earn more than a human? Every policy, component and axis, both presets.

    python benchmarks/hacking.py [TIMING.npz] [--judge NAME] [--quick] [--per-axis 100] [--json PATH]
                                 [--readme align/README.md]

Without a file the conversations are scripted from the bundled human timing. TIMING.npz says who spoke when in recorded
conversations (one row per IPU: conversation, channel, start_s, end_s); the rewards were designed on its even-numbered
conversations, the odd ones were held out. The table of the README is of the last source.

Intervals are 95 %, bootstrapped over conversations; "^" is significantly above the human-like policy on the same
situations, "v" significantly below. In scripted conversations the policies say words, and with --judge the answers are
judged; recorded ones come without words, and only timing is judged.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import git_hash, versions

from duologue_align.hacking.cases import Case, draw_cases, read_timing
from duologue_align.hacking.comparison import MEAN, Scores, describe, score_policies
from duologue_align.hacking.scripted import script_conversations
from duologue_align.hacking.verdict import Verdict, judge_policies
from duologue_align.hacking.words import Script
from duologue_align.judge.panel import JudgePanel
from duologue_align.policies import POLICIES
from duologue_align.presets import read_tables
from duologue_align.rewards import RewardPreset
from duologue_align.rewards.preset import PRESETS

QUICK_PER_AXIS = 50
SCRIPTED = "scripted"
MARKS = {"above": " ^", "below": " v", "level": ""}
UNCAPPED = "duologue, uncapped"
Findings = dict[str, tuple[Scores, Verdict]]


def load_presets() -> dict[str, RewardPreset]:
    """Return the two presets, and ours without its cap, to show what the rules are worth by themselves."""
    tables = read_tables(PRESETS["duologue"]) | {"preset": {"cap_at_reference": False}}
    presets = {name: RewardPreset.load(name) for name in PRESETS}
    return presets | {UNCAPPED: RewardPreset.from_dict(tables, name=UNCAPPED)}


def draw_sources(timing: Path | None, per_axis: int) -> dict[str, list[Case]]:
    """Return the cases of every source by its name, the most telling last."""
    sources = {SCRIPTED: draw_cases(script_conversations(40 * per_axis), per_axis)}
    if timing:
        for half, name in enumerate(("recorded, design half", "recorded, held-out half")):
            sources[name] = draw_cases(read_timing(timing, half=half), per_axis)
    return sources


def print_axis(scores: Scores, verdict: Verdict, axis: str) -> None:
    names = list(scores.preset.axes[axis].weights)  # type: ignore[index]
    count = len(scores.conversations[axis])
    print(f"\n{axis} ({count} situations)")
    print(f"{'policy':18s}{'total':>8s}{'minus human-like':>26s}  " + "".join(f"{name:>25s}" for name in names))
    for policy, totals in scores.totals[axis].items():
        difference = verdict.differences.get(policy, {}).get(axis)
        against = (
            f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]{MARKS[difference.verdict]:2s}"
            if difference
            else ""
        )
        cells = [format_component(list(values)) for values in zip(*scores.components[axis][policy], strict=True)]
        print(f"{policy:18s}{np.mean(totals):8.3f}{against:>26s}  " + "".join(f"{cell:>25s}" for cell in cells))


def format_component(values: list[float]) -> str:
    found = describe(values)
    return "-" if np.isnan(found.mean) else f"{found.mean:+.3f} [{found.low:+.2f}, {found.high:+.2f}]"


def render_table(findings: Findings) -> str:
    """Return the README's table: totals by policy and axis under both presets, with marks."""
    blocks = []
    for name in ("duologue", "paper"):
        scores, verdict = findings[name]
        head = ["policy", *scores.totals, MEAN]
        rows = [f"Preset `{name}`:\n", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
        for policy in POLICIES:
            means = {axis: float(np.mean(earned[policy])) for axis, earned in scores.totals.items()}
            means[MEAN] = float(np.mean(list(means.values())))
            marks = {axis: MARKS[found.verdict] for axis, found in verdict.differences.get(policy, {}).items()}
            cells = [f"{mean:.2f}{marks.get(axis, '')}" for axis, mean in means.items()]
            rows.append(f"| {policy} | {' | '.join(cells)} |")
        blocks.append("\n".join(rows))
    return "\n\n".join(blocks)


def write_readme(path: Path, table: str, command: str) -> None:
    """Replace what stands between the marks of the table in a README."""
    text = path.read_text(encoding="utf-8")
    block = f"<!-- table: hacking -->\n{table}\n\nMade by `{command}`.\n<!-- end -->"
    text, count = re.subn(r"<!-- table: hacking -->.*?<!-- end -->", lambda _: block, text, flags=re.DOTALL)
    if count != 1:
        raise SystemExit(f"{path}: holds {count} places <!-- table: hacking --> ... <!-- end -->; put in one")
    path.write_text(text, encoding="utf-8")


def summarise(results: dict[str, Findings], judge: str | None) -> dict[str, Any]:
    """Return what the last line of the output says; the figures before the sources are the worst over them."""
    verdicts = {source: {name: found[1] for name, found in findings.items()} for source, findings in results.items()}
    ours = [by_name["duologue"] for by_name in verdicts.values()]
    return {
        "judge": judge or "nobody",
        "wins_over_human_like": sum(len(verdict.wins) for verdict in ours),
        "min_axes_below_human_like": min(min(verdict.axes_below.values()) for verdict in ours),
        "all_means_below_human_like": not any(verdict.not_below_on_mean for verdict in ours),
        "wins_over_human_like_paper": max(len(by_name["paper"].wins) for by_name in verdicts.values()),
        "wins_over_human_like_uncapped": max(len(by_name[UNCAPPED].wins) for by_name in verdicts.values()),
        "sources": {
            source: {name: verdict.to_dict() for name, verdict in by_name.items()}
            for source, by_name in verdicts.items()
        },
        "git": git_hash(),
        "versions": versions(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("timing", type=Path, nargs="?", help="who spoke when in recorded conversations")
    parser.add_argument("--judge", metavar="NAME", help="panel that judges the answers in scripted conversations")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_PER_AXIS} situations of each axis")
    parser.add_argument("--per-axis", type=int, default=100, help="situations of each axis (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the last line here as well")
    parser.add_argument("--readme", type=Path, help="put the table of the last source between the marks of this file")
    args = parser.parse_args()

    per_axis = QUICK_PER_AXIS if args.quick else args.per_axis
    script = Script(JudgePanel.load(args.judge) if args.judge else None)
    results: dict[str, Findings] = {}
    for source, cases in draw_sources(args.timing, per_axis).items():
        results[source] = {}
        for name, preset in load_presets().items():
            began = time.perf_counter()
            scores = score_policies(preset, cases, POLICIES, script if source == SCRIPTED else None)
            verdict = judge_policies(scores)
            results[source][name] = scores, verdict
            print(f"\n=== {source}: preset {name} ({time.perf_counter() - began:.1f} s)")
            for axis in scores.totals:
                print_axis(scores, verdict, axis)
    if args.readme:
        source, findings = list(results.items())[-1]
        options = (" TIMING.npz" if args.timing else "") + (f" --judge {args.judge}" if args.judge else "")
        command = f"python benchmarks/hacking.py{options} --per-axis {per_axis} --readme {args.readme}"
        count = len(next(iter(findings["duologue"][0].conversations.values())))
        write_readme(args.readme, f"{source}, {count} situations of each axis.\n\n{render_table(findings)}", command)
    summary = summarise(results, args.judge)
    if args.json:
        args.json.write_text(json.dumps(summary), encoding="utf-8")
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
