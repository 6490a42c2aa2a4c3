"""Write the model card of the default agent from what was measured.

    python benchmarks/model_card.py --bundle DIR --agent AGENT.json [--codec CODEC.json ...]
                                    [--base BASE.json] [--codec-run DIR] [--sft-run DIR]

AGENT.json is what `benchmarks/default_agent.py --json` wrote, CODEC.json what `duologue-align eval-codec --json` did;
the runs tell what the training cost. The card is align/model_card.md filled in, and goes to DIR/MODEL_CARD.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from readme_tables import markdown

import duologue
from duologue.errors import ConfigError, DuologueError
from duologue.model.storage import read_index
from duologue.replacing import replace_file
from duologue_align.sft.journal import read_journal
from duologue_align.sft.outcome import WANTED
from duologue_align.synth.dialogue import WELL_BEHAVED_SHARE

ROOT = Path(__file__).parents[1]
CARD = "MODEL_CARD.md"
MEANINGS = {
    "answered_within_2s": "share of user turns answered within 2 s",
    "fto_median_s": "median floor-transfer offset, s",
    "pause_takeover_rate": "share of user pauses in which it took the floor",
    "backchannels_per_min": "backchannels per minute of user speech",
    "yield_rate_2s": "share of interruptions to which it yields within 2 s",
    "speech_wer_vs_monologue": "word error rate of its speech against its inner monologue",
}
CODEC_WANTED = {
    "agent": (("wer_increase", -1.0, 0.05), ("dnsmos_decoded", 2.7, 5.0), ("vad_agreement", 0.95, 1.0)),
    "clean": (("wer_increase", -1.0, 0.15),),
    "unseen": (("wer_increase", -1.0, 0.15),),
}
"""What was wanted of each set of recordings: a figure, at least, at most."""
CODEC_COLUMNS = ("wer_original", "wer_decoded", "wer_increase", "vad_agreement", "dnsmos_original", "dnsmos_decoded")
LIMITS = (
    "English only, one synthetic voice, a few hundred replies; what it says about the world is not true.",
    "It heard synthetic users only. Real voices, accents, noise and crosstalk are outside of what it was trained on.",
    "It was judged by the timing of speech and by a recogniser, not by people.",
    "The synthetic users of the test never react to the agent; `duologue-align evaluate` has users that do.",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR")
    parser.add_argument("--agent", type=Path, required=True, metavar="AGENT.json")
    parser.add_argument("--base", type=Path, metavar="BASE.json", help="likewise, of the agent before its alignment")
    parser.add_argument("--codec", type=Path, action="append", default=[], metavar="CODEC.json")
    parser.add_argument("--codec-run", type=Path, metavar="DIR")
    parser.add_argument("--sft-run", type=Path, metavar="DIR")
    parser.add_argument(
        "--history", default="", metavar="TEXT", help="how these weights came about otherwise than by one such run"
    )
    options = parser.parse_args()
    try:
        card = render(options)
    except DuologueError as error:
        sys.stderr.write(f"model_card: error: {error}\n")
        return 2
    replace_file(options.bundle / CARD, card.encode())
    print(options.bundle / CARD)
    return 0


def render(options: argparse.Namespace) -> str:
    agent, codecs = read(options.agent), [read(path) for path in options.codec]
    base = read(options.base) if options.base else None
    template = (ROOT / "align" / "model_card.md").read_text(encoding="utf-8")
    return template.format(
        version=duologue.__version__,
        model_millions=millions(options.bundle / "model.safetensors"),
        codec_millions=millions(options.bundle / "mimi.safetensors"),
        well_behaved=f"{WELL_BEHAVED_SHARE:.0%}",
        commands=commands(),
        cost=cost(options.codec_run, options.sft_run),
        history=f" {options.history}" if options.history else "",
        users=agent["users"],
        seconds=f"{agent['seconds']:.0f}",
        seeds=", ".join(map(str, agent["seeds"])),
        date=agent["date"],
        git=agent["git"],
        behaviour=behaviour(agent, base),
        relevance_gain=number(agent["relevance_gain"], 3),
        relevance_turns=agent["relevance_turns"],
        relevance_p=number(agent["relevance_p_value"], 4),
        frame_p50=number(agent["frame_p50_ms"], 1),
        frame_p95=number(agent["frame_p95_ms"], 1),
        calls=calls(agent["calls"]),
        codec=codec_table(codecs),
        codebooks=codebooks(codecs),
        limits=limits(agent, codecs),
        files=file_list(options.bundle),
    )


def read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: is no result ({error}); write it with the benchmark's --json") from error
    return content


def number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def millions(path: Path) -> str:
    return f"{sum(math.prod(ref.shape) for ref in read_index(path).values()) / 1e6:.1f}"


def commands() -> str:
    script = ROOT / "align" / "train_default.sh"
    printed = subprocess.run([script, "--dry-run"], capture_output=True, text=True, check=True)
    return printed.stdout.strip()


def cost(codec_run: Path | None, sft_run: Path | None) -> str:
    parts = []
    if codec_run is not None and (rows := read_journal(codec_run)):
        parts.append(f"the codec {rows[-1]['step']} steps in {rows[-1]['minutes'] / 60:.1f} h")
    if sft_run is not None and (rows := [row for row in read_journal(sft_run) if "seconds" in row]):
        parts.append(f"the language model {rows[-1]['step']} steps in {rows[-1]['seconds'] / 3600:.1f} h")
    return ", ".join(parts) or "not recorded"


def behaviour(agent: Mapping[str, Any], base: Mapping[str, Any] | None) -> str:
    rivals = {"corpus": "the corpus's own agent", **{name: name for name in agent["others"] if name != "corpus"}}
    rows = []
    for name, (low, high) in WANTED.items():
        span = "-" if agent[name] is None else " to ".join(number(value) for value in agent[f"{name}_ci"])
        met = "yes" if agent["met"][name] else "no"
        others = [number(agent["others"][rival][name]) for rival in rivals]
        before = [] if base is None else [number(base[name])]
        rows.append([MEANINGS[name], number(agent[name]), span, f"{low:g} to {high:g}", met, *before, *others])
    earlier = [] if base is None else ["before alignment"]
    return markdown(["what", "value", "95 % CI", "wanted", "met", *earlier, *rivals.values()], rows).rstrip()


def calls(rows: Mapping[str, Mapping[str, float | None]]) -> str:
    if not rows:
        return "not measured."
    table = [[name, *(number(row.get(column)) for column in MEANINGS)] for name, row in rows.items()]
    return markdown(["call", *MEANINGS.values()], table).rstrip()


def codec_table(codecs: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for result in codecs:
        for name, row in result["sets"].items():
            cells = []
            for column in CODEC_COLUMNS:
                low, high = row["ci95"][column]
                cells.append("-" if row[column] is None else f"{row[column]:.3f} [{low:.3f}, {high:.3f}]")
            rows.append([name, f"{row['seconds']:.0f}", *cells])
    if not rows:
        return "not measured."
    return markdown(["speech", "seconds", *(column.replace("_", " ") for column in CODEC_COLUMNS)], rows).rstrip()


def codebooks(codecs: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        f"Entries used by {', '.join(result['sets'])}: " + ", ".join(f"{share:.0%}" for share in result["codebook_use"])
        for result in codecs
    ]
    return "\n".join(lines)


def limits(agent: Mapping[str, Any], codecs: Sequence[Mapping[str, Any]]) -> str:
    lines = list(LIMITS)
    for name, row in ((name, row) for result in codecs for name, row in result["sets"].items()):
        for column, least, most in CODEC_WANTED.get(name, ()):
            if row[column] is not None and not least <= row[column] <= most:
                wanted = f"at least {least}" if least > 0 else f"at most {most}"
                what = f"{column.replace('_', ' ')} of {name}"
                lines.insert(0, f"Its codec misses what was wanted: {what} {row[column]:.3f}, {wanted}.")
    if failed := [MEANINGS[name] for name, is_met in agent["met"].items() if not is_met]:
        lines.insert(0, f"It misses what was wanted of it here: {'; '.join(failed)}.")
    if agent["degenerate_matches"]:
        lines.insert(0, f"An agent that understands nothing does as well: {', '.join(agent['degenerate_matches'])}.")
    if agent["is_untrained"]:
        lines.insert(0, "These weights are untrained.")
    return "\n".join(f"* {line}" for line in lines)


def file_list(bundle: Path) -> str:
    files = [path for path in sorted(bundle.rglob("*")) if path.is_file() and path.name != CARD]
    digests = {path.relative_to(bundle).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return "\n".join(f"{digest}  {name}" for name, digest in digests.items())


if __name__ == "__main__":
    sys.exit(main())
