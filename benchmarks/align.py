"""What alignment does to an agent: before and after, by axis, with 95 % intervals, and what each part of it is worth.

    python benchmarks/align.py [--results benchmarks/results/MACHINE/align]
    python benchmarks/align.py --run --model BUNDLE --segments MINED [--test-folder MINED] [--variants duologue ...]

Without --run it summarises the committed runs. --run repeats those that were made otherwise (another model, other
segments, settings or code), one after the other, and goes on where it was stopped: per variant and seed a training,
before and after compared on test segments, and conversations of both with the same simulated users in every run. The
hours that the committed ones took are printed with them.

Variants train with the same model, segments, adapter and number of steps; what differs:

    duologue              our rewards                    without-judge          our rewards, nobody judges
    paper                 the paper's rewards            without-context        segments begin cold
    without-AXIS          our rewards but for one axis

Everyone is measured by the rules of the rewards `duologue`, without the judge, who stands beside them and is another
one than in training. Intervals are bootstrapped over seeds and recorded conversations together (simulated users: over
seeds and voices). An axis is improved if its intervals before and after do not overlap; the aim is reached if that
holds for all four axes with recorded and with simulated users and the judge's score did not fall significantly.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from align_figures import AXES, STAGES, print_table, summarise_variant
from align_picture import draw
from machine import git_hash, versions

from duologue.replacing import replace_file
from duologue_align.rl.grading import JUDGED

VARIANTS: Mapping[str, Sequence[str]] = {
    "duologue": (),
    "paper": ('reward.preset="paper"',),
    **{f"without-{axis}": (f"reward.axis_shares={{{axis} = 0}}",) for axis in AXES},
    "without-judge": ('reward.judge=""',),
    "without-context": ("data.context_share=0.0",),
}
RESULTS = Path(__file__).with_name("results") / "epyc-2-cores" / "align"
CODE = ("align/duologue_align", "runtime/duologue")
USERS_SEED = 1_000_000
"""Of the simulated users, whatever a run's own seed is."""


class Case:
    """One variant with one seed: what it is made of, its folder and its result."""

    def __init__(self, args: argparse.Namespace, variant: str, seed: int) -> None:
        from duologue_align.rl.settings import AlignSettings

        self._args = args
        changes = [f"model={args.model}", f"data.segments={json.dumps(str(args.segments))}", f"run.seed={seed}"]
        changes += [f"data.test_segments={json.dumps(str(args.test_folder))}", f"run.test_segments={args.per_axis}"]
        changes += [f"reward.judge={json.dumps(args.judge)}", f"run.test_judge={json.dumps(args.test_judge)}"]
        if args.steps:
            changes.append(f"run.steps={args.steps}")
        self.settings = AlignSettings.load(args.config, [*changes, *args.set, *VARIANTS[variant]])
        tables = self.settings.to_dict()
        # Places may change; what lies there may not.
        del tables["model"], tables["data"]["segments"], tables["data"]["test_segments"]
        users = {"conversations": args.dynamic, "seconds": args.seconds, "seed": USERS_SEED}
        trained = {"settings": tables, **args.contents}
        self.identity = {"git": args.code, "arguments": json.loads(json.dumps({**trained, "users": users}))}
        # Who converses with the agent afterwards trains nothing: more users take what there is.
        name = hashlib.sha256(json.dumps([args.code, trained], sort_keys=True).encode()).hexdigest()[:8]
        self.variant, self.seed = variant, seed
        self.run = args.work / f"{variant}-{seed}-{name}"
        self.result = args.results / f"{variant}-{seed}.json"

    def is_kept(self) -> bool:
        """Tell whether the result is there and was made in the same way."""
        if not self.result.is_file():
            return False
        found = json.loads(self.result.read_text(encoding="utf-8"))["identity"]
        return found["arguments"] == self.identity["arguments"] and (
            self._args.any_commit or found["git"] == self.identity["git"]
        )

    def train(self) -> None:
        """Train, or go on with it."""
        import torch

        from duologue_align.rl.run import train

        torch.set_num_threads(self._args.threads)
        result = train(
            self.settings, self.run, is_resumed=True, threads=self._args.threads, show_progress=sys.stderr.isatty(),
            tell=lambda line: print(line, file=sys.stderr),
        )  # fmt: skip
        if not (result.is_finished and (self.run / "test.json").is_file()):
            raise SystemExit("stopped; run the same command again to go on")

    def converse(self) -> dict[str, Any]:
        """Let base and aligned agent converse with the simulated users; return what each conversation adds up."""
        from duologue_align.evaluation.contestant import Contestant
        from duologue_align.evaluation.dynamic import DynamicOptions, tally_conversations
        from duologue_align.evaluation.evaluate import open_quality
        from duologue_align.evaluation.voices import recorded_voices
        from duologue_align.export.bundle import export_model, open_source
        from duologue_align.segments.reader import read_segments

        args, bundle = self._args, self.run / "bundle"
        if not bundle.is_dir():
            export_model(open_source(self.run, args.model), bundle, dtype="bfloat16")
        voices = recorded_voices(read_segments(args.test_folder or args.segments, split="test"))
        options = DynamicOptions(conversations=args.dynamic, seconds=args.seconds, seed=USERS_SEED)
        # The base is the same in all runs, and is heard once.
        places = {"before": (args.model, args.work / "base"), "after": (bundle, self.run / "users")}
        found: dict[str, Any] = {"voices": [voices[k % len(voices)].name for k in range(args.dynamic)]}
        for stage, (source, out) in places.items():
            out.mkdir(parents=True, exist_ok=True)
            quality = open_quality(args.test_judge, out) if args.test_judge else None
            contestant = Contestant.load(stage, str(source))
            tallies = tally_conversations(contestant, voices, options, out=out, quality=quality)
            found[stage] = [{"sums": _named(tally.sums), "values": _named(tally.values)} for tally in tallies]
        return found

    def keep(self) -> None:
        """Write what the summary needs."""
        test = json.loads((self.run / "test.json").read_text(encoding="utf-8"))
        content = {"variant": self.variant, "seed": self.seed, "identity": self.identity, "seconds": test["seconds"]}
        content |= {stage: [_trimmed(take) for take in test[stage]["takes"]] for stage in STAGES}
        if self._args.dynamic:
            content["dynamic"] = self.converse()
        self.result.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self.result, json.dumps(content).encode())


def _named(table: Mapping[tuple[str, str], Any]) -> dict[str, Any]:
    return {f"{axis}.{name}": value for (axis, name), value in table.items()}


def _trimmed(take: dict[str, Any]) -> dict[str, Any]:
    judged = {name: value for name, value in take["components"].items() if name == JUDGED}
    names = ("axis", "conversation", "rates", "fto_s")
    numbers = {name: None if take[name] is None else round(take[name], 4) for name in ("rules", "speech_share")}
    return {**{name: take[name] for name in names}, **numbers, "components": judged}


def code_version() -> str:
    """Return the last commit that changed what is measured here; "-dirty" after it if that is not all."""

    def git(*command: str) -> str:
        root = Path(__file__).parents[1]
        done = subprocess.run(["git", *command, "--", *CODE], cwd=root, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    return (git("log", "-1", "--format=%h") or "unknown") + ("-dirty" if git("status", "--porcelain") else "")


def contents_of(args: argparse.Namespace) -> dict[str, str]:
    """Return digests of model and segments."""
    test = args.test_folder or args.segments
    places = {"model": args.model / "model.safetensors", "segments": args.segments / "segments.jsonl"}
    places["test"] = test / "segments.jsonl"
    for path in places.values():
        if not path.is_file():
            raise SystemExit(f"{path} is missing; give a bundle with --model and mined folders with --segments")
    return {name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for name, path in places.items()}


def read_results(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the runs by variant, in the order of `VARIANTS`."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    return {name: own for name in VARIANTS if (own := [run for run in found if run["variant"] == name])}


def repeat(args: argparse.Namespace) -> None:
    """Make the runs that are missing or were made otherwise, seed by seed."""
    args.code, args.contents = code_version(), contents_of(args)
    for seed in range(args.seeds):
        for variant in args.variants:
            case = Case(args, variant, seed)
            if not case.is_kept():
                case.train()
                case.keep()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the runs are kept (%(default)s)")
    parser.add_argument("--run", action="store_true", help="repeat the runs first")
    parser.add_argument("--model", type=Path, help="the agent to begin with")
    parser.add_argument("--segments", type=Path, help="what `duologue-align mine` wrote")
    parser.add_argument(
        "--test-folder", type=Path, default="", help='what `mine` made of `synth --split test` (default: split "test")'
    )
    parser.add_argument("--config", default="duologue", help="settings of `duologue-align train` (%(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE", help="change a setting")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="default: all")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each variant (%(default)s)")
    parser.add_argument("--steps", type=int, help="steps of each run (default: the config's)")
    parser.add_argument("--per-axis", type=int, default=40, help="test segments of each axis (%(default)s)")
    parser.add_argument("--judge", default="similarity", help='panel of the training, "" for none (%(default)s)')
    parser.add_argument("--test-judge", default="log-prob", help='another panel to test by, "" for none (%(default)s)')
    parser.add_argument("--dynamic", type=int, default=20, help="conversations with simulated users (%(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each of these (%(default)s)")
    parser.add_argument("--any-commit", action="store_true", help="keep runs that older code made")
    parser.add_argument("--work", type=Path, default=Path("out/align"), help="folder of the runs (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="cores (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the last line here as well")
    parser.add_argument("--picture", type=Path, metavar="SVG", help="draw the rewards before and after")
    args = parser.parse_args()
    if args.run:
        if args.model is None or args.segments is None:
            parser.error("--run needs --model and --segments")
        if args.judge and args.judge == args.test_judge:
            parser.error("--test-judge must be another than --judge: who trained for a judge pleases it")
        repeat(args)
    runs = read_results(args.results)
    if not runs:
        raise SystemExit(f"{args.results}: no runs are kept there; make some with --run --model ... --segments ...")
    summaries = {name: summarise_variant(own) for name, own in runs.items()}
    print_table(summaries)
    if args.picture:
        replace_file(args.picture, draw(summaries).encode())
    line = {**summaries, "git": git_hash(), "versions": versions()}
    if args.json:
        args.json.write_text(json.dumps(line), encoding="utf-8")
    print(json.dumps(line))


if __name__ == "__main__":
    main()
