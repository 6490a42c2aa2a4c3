"""What alignment does to an agent: before and after, by axis, with 95 % intervals, and what each part of it is worth.

    python benchmarks/align.py [--results benchmarks/results/MACHINE/align]
    python benchmarks/align.py --run --model BUNDLE --segments MINED [--seeds 3] [--variants duologue ...]

Without --run it summarises the committed runs. --run repeats them, one after the other, and goes on where it was
stopped: per variant and seed a training, before and after compared on held-out test segments, and (--dynamic N)
N conversations of each with simulated users. The hours that the committed ones took are printed with them.

Variants train with the same model, segments, adapter and number of steps; what differs:

    duologue              our rewards                    without-judge          our rewards, nobody judges
    paper                 the paper's rewards            without-context        segments begin cold
    without-AXIS          our rewards but for one axis

Everyone is measured by the rewards `duologue`, on the same test segments: means over all seeds, resampled
by recorded conversation. An axis is improved if its intervals before and after do not overlap.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from machine import git_hash, versions

from duologue.replacing import replace_file
from duologue_align.rl.trial import summarise

AXES = ("pause", "turn", "backchannel", "interruption")
VARIANTS: Mapping[str, Sequence[str]] = {
    "duologue": (),
    "paper": ('reward.preset="paper"',),
    **{f"without-{axis}": (f"reward.axis_shares={{{axis} = 0}}",) for axis in AXES},
    "without-judge": ('reward.judge=""',),
    "without-context": ("data.context_share=0.0",),
}
RESULTS = Path(__file__).with_name("results") / "epyc-2-cores" / "align"
STAGES = ("before", "after")
Takes = dict[str, list[dict[str, Any]]]


def train_variant(args: argparse.Namespace, variant: str, seed: int) -> Path:
    """Train one variant, or go on with it; return the folder of the run."""
    import torch

    from duologue_align.rl.run import train
    from duologue_align.rl.settings import AlignSettings

    torch.set_num_threads(args.threads)
    out = args.work / f"{variant}-{seed}"
    changes = [f"model={args.model}", f"data.segments={json.dumps(str(args.segments))}", f"run.seed={seed}"]
    changes += [f"run.test_segments={args.test_segments}", f"reward.judge={json.dumps(args.judge)}"]
    changes += [f"run.test_judge={json.dumps(args.judge)}", *args.set, *VARIANTS[variant]]
    if args.steps:
        changes.append(f"run.steps={args.steps}")
    is_shown = sys.stderr.isatty()
    result = train(
        AlignSettings.load(args.config, changes), out, is_resumed=True, threads=args.threads, show_progress=is_shown,
        tell=lambda line: print(line, file=sys.stderr),
    )  # fmt: skip
    if not result.is_finished:
        raise SystemExit("stopped; run the same command again to go on")
    return out


def converse(args: argparse.Namespace, run: Path, seed: int) -> dict[str, Any]:
    """Let base and aligned agent converse with simulated users; return the figures of the evaluation's dynamic part."""
    from duologue_align.cli import main as align

    report = run / "evaluation" / "report.json"
    if not report.is_file():
        bundle = run / "bundle"
        if align(["export", str(run), "--base", str(args.model), "--out", str(bundle)]):
            raise SystemExit(f"{run}: export failed")
        command = ["evaluate", str(args.segments), "--agent", str(bundle), "--base", str(args.model)]
        command += ["--only", "dynamic", "--conversations", str(args.dynamic), "--seed", str(seed), "--quiet"]
        command += ["--judge", args.judge or "none", "--out", str(report.parent)]
        if align(command):
            raise SystemExit(f"{run}: evaluation failed")
    figures = json.loads(report.read_text(encoding="utf-8"))["dynamic"]["figures"]
    return {name: figures[name] for name in ("base", "agent")}


def keep(args: argparse.Namespace, variant: str, seed: int, run: Path) -> None:
    """Write what the summary needs of a run."""
    test = json.loads((run / "test.json").read_text(encoding="utf-8"))
    kept = {stage: [_trimmed(take) for take in test[stage]["takes"]] for stage in STAGES}
    content = {"variant": variant, "seed": seed, "seconds": test["seconds"], "settings": test["settings"], **kept}
    if args.dynamic:
        content["dynamic"] = converse(args, run, seed)
    args.results.mkdir(parents=True, exist_ok=True)
    replace_file(args.results / f"{variant}-{seed}.json", json.dumps(content).encode())


def _trimmed(take: dict[str, Any]) -> dict[str, Any]:
    judged = {name: value for name, value in take["components"].items() if name == "response_quality"}
    names = ("axis", "conversation", "rates", "fto_s")
    numbers = {name: round(take[name], 4) for name in ("total", "speech_share")}
    return {**{name: take[name] for name in names}, **numbers, "components": judged}


def read_results(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the runs by variant, in the order of `VARIANTS`."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    return {name: own for name in VARIANTS if (own := [run for run in found if run["variant"] == name])}


def summarise_variant(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the runs of one variant show together."""
    stages = {stage: summarise([take for run in runs for take in run[stage]]) for stage in STAGES}
    axes = {}
    for axis in stages["before"]["axes"]:
        before, after = (stages[stage]["axes"][axis] for stage in STAGES)
        axes[axis] = {"before": before, "after": after, "is_improved": after["low"] > before["high"]}
    judges = [stages[stage]["judge"]["value"] for stage in STAGES]
    rates = stages["after"]["rates"]
    return {
        "axes_improved": sum(axes[axis]["is_improved"] for axis in AXES if axis in axes),
        "axes": axes,
        "judge_delta": None if None in judges else judges[1] - judges[0],
        "judge": {stage: stages[stage]["judge"] for stage in STAGES},
        "yield_rate": rates["yield_rate_2s"]["value"],
        "backchannel_selectivity": rates["selectivity"]["value"],
        "rates": {stage: stages[stage]["rates"] for stage in STAGES},
        "fto_median_s": {stage: stages[stage]["fto_median_s"] for stage in STAGES},
        "speech_share": {stage: stages[stage]["speech_share"] for stage in STAGES},
        "seeds": len(runs),
        "hours": sum(run["seconds"] for run in runs) / 3600,
        "dynamic": _dynamic(runs),
    }


def _dynamic(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the seeds' mean of each figure with simulated users, base and aligned."""
    found = [run["dynamic"] for run in runs if "dynamic" in run]
    if not found:
        return None
    table: dict[str, Any] = {}
    for axis, figures in found[0]["agent"].items():
        for name in figures:
            pairs = [(run["base"].get(axis, {}).get(name), run["agent"].get(axis, {}).get(name)) for run in found]
            values = [
                (old["value"], new["value"])
                for old, new in pairs
                if old and new and None not in (old["value"], new["value"])
            ]
            if values:
                base, agent = (sum(column) / len(values) for column in zip(*values, strict=True))
                table.setdefault(axis, {})[name] = {"before": base, "after": agent, "seeds": len(values)}
    return table


def print_table(summaries: Mapping[str, Mapping[str, Any]]) -> None:
    axes = list(dict.fromkeys(axis for summary in summaries.values() for axis in summary["axes"]))
    print(f"{'variant':18s}{'seeds':>6s}{'hours':>7s}" + "".join(f"{axis:>28s}" for axis in axes) + f"{'judge':>16s}")
    for name, summary in summaries.items():
        cells = []
        for axis in axes:
            found = summary["axes"].get(axis)
            cells.append(f"{_cell(found):>28s}" if found else f"{'-':>28s}")
        delta = summary["judge_delta"]
        judge = "-" if delta is None else f"{delta:+.3f}"
        print(f"{name:18s}{summary['seeds']:6d}{summary['hours']:7.2f}" + "".join(cells) + f"{judge:>16s}")
    print("\nbefore > after [95 %] of the reward, 0 to 1; * where the intervals before and after do not overlap")
    for name, summary in summaries.items():
        pairs = [
            (key, *(summary["rates"][stage][key]["value"] for stage in STAGES)) for key in summary["rates"]["after"]
        ]
        pairs.append(("fto_median_s", *(summary["fto_median_s"][stage]["value"] for stage in STAGES)))
        pairs.append(("speech_share", *(summary["speech_share"][stage]["value"] for stage in STAGES)))
        print(f"{name}: " + ", ".join(f"{key} {_number(old)} > {_number(new)}" for key, old, new in pairs))


def _cell(found: Mapping[str, Any]) -> str:
    before, after = found["before"], found["after"]
    mark = "*" if found["is_improved"] else " "
    return f"{before['value']:.2f} > {after['value']:.2f} [{after['low']:.2f}, {after['high']:.2f}]{mark}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the runs are kept (%(default)s)")
    parser.add_argument("--run", action="store_true", help="repeat the runs first")
    parser.add_argument("--model", type=Path, help="the agent to begin with")
    parser.add_argument("--segments", type=Path, help="what `duologue-align mine` wrote")
    parser.add_argument("--config", default="duologue", help="settings of `duologue-align train` (%(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="change a setting")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="default: all")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each variant (%(default)s)")
    parser.add_argument("--steps", type=int, help="steps of each run (default: the config's)")
    parser.add_argument("--test-segments", type=int, default=40, help="test segments of each axis (%(default)s)")
    parser.add_argument("--judge", default="similarity", help='panel that judges replies, "" for none (%(default)s)')
    parser.add_argument("--dynamic", type=int, default=0, help="conversations with simulated users (%(default)s)")
    parser.add_argument("--work", type=Path, default=Path("out/align"), help="folder of the runs (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="cores (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the last line here as well")
    args = parser.parse_args()
    if args.run:
        if args.model is None or args.segments is None:
            parser.error("--run needs --model and --segments")
        for seed in range(args.seeds):
            for variant in args.variants:
                if not (args.results / f"{variant}-{seed}.json").is_file():
                    keep(args, variant, seed, train_variant(args, variant, seed))
    runs = read_results(args.results)
    if not runs:
        raise SystemExit(f"{args.results}: no runs are kept there; make some with --run --model ... --segments ...")
    summaries = {name: summarise_variant(own) for name, own in runs.items()}
    print_table(summaries)
    line = {**summaries, "git": git_hash(), "versions": versions()}
    if args.json:
        args.json.write_text(json.dumps(line), encoding="utf-8")
    print(json.dumps(line))


if __name__ == "__main__":
    main()
