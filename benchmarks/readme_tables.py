"""Render the README's tables from the committed results, between its `<!-- table: NAME -->` and `<!-- end -->` marks.

    python benchmarks/readme_tables.py [--check]

With --check nothing is written; exit code 1 if the README does not show the committed results.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from duologue.metrics.bands import BANDS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results"
MARKS = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", flags=re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say whether the README is up to date")
    options = parser.parse_args()
    found = README.read_text(encoding="utf-8")
    wanted = MARKS.sub(lambda match: match[1] + render(match[2]) + match[3], found)
    if options.check:
        sys.exit("README.md does not show the committed results: make tables" if found != wanted else 0)
    README.write_text(wanted, encoding="utf-8")


def render(name: str) -> str:
    """Return one table with its caption, for every machine that has a result of that name."""
    parts = [
        TABLES[name](json.loads(path.read_text(encoding="utf-8"))) for path in sorted(RESULTS.glob(f"*/{name}.json"))
    ]
    return "\n".join(parts)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def align_table(result: dict[str, Any]) -> str:
    def cell(found: dict[str, Any]) -> str:
        before, after = found["before"], found["after"]
        mark = " *" if found.get("is_improved") else ""
        return f"{before['value']:.2f} → {after['value']:.2f} [{after['low']:.2f}, {after['high']:.2f}]{mark}"

    variants = {name: found for name, found in result.items() if isinstance(found, dict) and "axes" in found}
    axes = list(dict.fromkeys(axis for found in variants.values() for axis in found["axes"]))
    rows = []
    for name, found in variants.items():
        cells = [cell(found["axes"][axis]) if axis in found["axes"] else "" for axis in axes]
        rows.append([name, str(found["seeds"]), f"{found['hours']:.1f}", *cells, f"{found['judge_delta']:+.3f}"])
    header = ["rewards", "seeds", "hours", *(axis.replace("_", " ") for axis in axes), "judge"]
    live = {name: found["dynamic"] for name, found in variants.items() if found["dynamic"]}
    leading = ("pause", "turn", "backchannel", "interruption")
    talks = [
        [
            name,
            f"{variants[name]['seeds']} x {found['conversations']}",
            *(cell(found["axes"][axis]) for axis in leading),
        ]
        for name, found in live.items()
    ]
    titles = ["rewards", "conversations", "pauses taken", "answered within 2 s", "backchannels a minute", "yields"]
    rates = variants["duologue"]["rates"]
    names = {
        "answered_within_2s": "answered within 2 s",
        "pause_takeover_rate": "pauses taken",
        "backchannels_per_min": "backchannels a minute of user speech",
        "yield_rate_2s": "yields within 2 s",
        "selectivity": "talks on through the user's backchannel",
        "fto_median_s": "median offset, s",
    }
    kept = [
        [label, *(f"{rates[name][stage]['value']:.2f} [{rates[name][stage]['low']:.2f}, "
                  f"{rates[name][stage]['high']:.2f}]" for stage in ("before", "after"))]
        for name, label in names.items()
    ]  # fmt: skip
    return (
        "Rewards of held-out segments by the rules of our preset (0 to 1), before → after [95 % over seeds and "
        "recorded conversations]; * where the intervals do not overlap:\n\n"
        + markdown(header, rows)
        + "\nWhat our rewards change in the behaviour there:\n\n"
        + markdown(["", "before", "after"], kept)
        + "\nWith simulated users who react, seeds x conversations; backchannels are better the nearer to people's "
        f"{BANDS['backchannels_per_speech_min'].median} a minute of the other's speech:\n\n" + markdown(titles, talks)
    )


def align_throughput_table(result: dict[str, Any]) -> str:
    rows = []
    for row in result["rows"]:
        spent = {name: 1 / row[name] for name in ("rollout", "listen", "update")}
        shares = [f"{row[name]:.0f} ({share / sum(spent.values()):.0%})" for name, share in spent.items()]
        rows.append([str(row["batch"]), row["dtype"], *shares, f"{row['rollout'] / row['floor']:.0%}"])
    header = ["rows at once", "type", "rollout", "listening to it", "update", "rollout / what memory allows"]
    caption = (
        f"Speed of alignment, frames a second (share of a step's time), {result['device']}, {result['threads']} "
        f"thread(s), the shape {result['shape']}:\n`python benchmarks/align_throughput.py`\n"
    )
    return f"{caption}\n{markdown(header, rows)}"


def codec_table(result: dict[str, Any]) -> str:
    rows = []
    for threads, run in result["runs"].items():
        base = run["codecs"]["rustymimi"]["both"]["p50_ms"] if "rustymimi" in run["codecs"] else float("nan")
        for name, codec in run["codecs"].items():
            both = codec["both"]
            agreement = f"{codec['code_agreement']:.2%}" if "code_agreement" in codec else ""
            stages = [f"{codec[stage]['p50_ms']:.1f}" for stage in ("encode", "decode", "both")]
            cells = [name, threads, *stages, f"{both['p95_ms']:.1f}", f"{both['p99_ms']:.1f}"]
            rows.append([*cells, f"{base / both['p50_ms']:.1f}x", agreement])
    header = [
        "codec",
        "threads",
        "encode",
        "decode",
        "both",
        "both p95",
        "both p99",
        "rustymimi / it",
        "codes equal to ours",
    ]
    caption = (
        f"Full-size Mimi, 8 codebooks, ms per 80 ms frame (medians), {result['machine']}, {result['isa']}; "
        "all in one run. rustymimi's codes are compared until its attention window parts from moshi's (10 s).\n"
        "`python benchmarks/codec.py`\n"
    )
    return f"{caption}\n{markdown(header, rows)}"


def codec_precision_table(result: dict[str, Any]) -> str:
    rows = []
    for codec, precisions in result["results"].items():
        for precision, figures in precisions.items():
            same, own = figures["same_codes"], figures["own_codes"]
            cells = [f"{figures['all_equal']:.1%}", f"{figures['codes_equal'][0]:.1%}"]
            for sound in (same, own):
                cells += [f"{sound['si_sdr_db']:.0f} dB", f"{sound['mel_distance']:.3f}"]
            rows.append([codec, precision, *cells])
    header = [
        "codec",
        "weights",
        "codes equal",
        "first codebook",
        "same codes: SI-SDR",
        "log-mel",
        "own codes: SI-SDR",
        "log-mel",
    ]
    caption = (
        f"What smaller weights change against float32, {result['frames']} frames of real speech: codes, and the sound "
        "of the same codes and of its own (distance of log-mel spectra, natural). Attention keeps keys and values as "
        "halves in both. float32 is the default.\n`python benchmarks/codec_precision.py SPEECH.wav`\n"
    )
    return f"{caption}\n{markdown(header, rows)}"


def model_step_table(result: dict[str, Any]) -> str:
    rows = []
    for row in result["results"]:
        if "error" in row:
            continue
        times = [f"{row[key]:.2f}" for key in ("p50_ms", "p95_ms", "p99_ms", "max_ms")]
        rows.append([row["engine"], str(row["context"]), *times, f"{row['bandwidth_share']:.0%}"])
    header = ["engine", "context", "p50", "p95", "p99", "max", "share of memory bandwidth"]
    caption = (
        f"One model step, {result['shape']} shape, {result['weights']}, ms, {result['machine']}, "
        f"{result['threads']} thread(s); all in one run:\n"
        f"`python benchmarks/model_step.py --device {result['device']}`\n"
    )
    return f"{caption}\n{markdown(header, rows)}"


def degenerate_agents_table(result: dict[str, Any]) -> str:
    agents = result["agents"]
    header = ["agent", *next(iter(agents.values()))]
    rows = [
        [name, *("-" if value is None else f"{value:.2f}" for value in row.values())] for name, row in agents.items()
    ]
    caption = (
        "Agents that understand nothing, and the person who took that call, against the same user (a real "
        "phone call):\n`python benchmarks/degenerate_agents.py USER.wav AGENT.wav`\n"
    )
    return f"{caption}\n{markdown(header, rows)}"


def audio_gil_table(result: dict[str, Any]) -> str:
    rows = [
        [
            row["load"],
            row["way"],
            f"{row['clicks_heard']} of {row['clicks_said']}",
            f"{row['starved_ms'] / 1e3:.1f}",
            f"{row['lost_ms'] / 1e3:.1f}",
            str(row["flagged_blocks"]),
            f"{row['hold_ms_p50']:.0f}, {row['longest_hold_ms']:.0f}" if row["longest_hold_ms"] else "",
            f"{row['load_average']:.1f}",
        ]
        for row in result["rows"]
    ]
    header = [
        "program",
        "audio",
        "clicks heard",
        "output missing, s",
        "input lost, s",
        "flagged blocks",
        "hold p50, max, ms",
        "host's load",
    ]
    caption = (
        f"Clicks through an echo agent over JACK for {result['rows'][0]['seconds']:.0f} s while the program is idle or "
        "sorts a list in a loop, which holds the interpreter's lock; "
        f"{result['machine']}, {result['cores']} cores, with other work on them:\n`python benchmarks/audio_gil.py`\n"
    )
    return f"{caption}\n{markdown(header, rows)}"


def audio_aec_table(result: dict[str, Any]) -> str:
    rows = [
        [
            f"{row['echo_db']:+.0f} dB",
            row["canceller"],
            f"{row['echo_reduction_db']:.0f} dB",
            f"{row['user_level_db']:+.1f} dB",
            f"{row['user_found']:.0%}",
            f"{row['false_speech']:.0%}",
        ]
        for row in result["rows"]
    ]
    header = ["echo", "canceller", "echo taken", "user while both talk", "user's speech found", "false speech"]
    caption = (
        "Echo cancellation and what it costs the user who barges in, synthetic room, echo against the agent's level:\n"
        "`python benchmarks/audio_aec.py`\n"
    )
    return f"{caption}\n{markdown(header, rows)}"


def mouth_to_ear_table(result: dict[str, Any]) -> str:
    cells = [
        f"{result[key]:.1f}"
        for key in ("mouth_to_ear_ms", "frame_ms", "acoustic_delay_ms", "compute_ms", "overhead_ms")
    ]
    header = [
        "mouth to ear",
        "frame",
        "acoustic delay",
        "compute (p50)",
        "overhead: device, playout (at most 25)",
        "concealed",
        "xruns",
    ]
    caption = (
        f"The bundled agent over JACK, {result['block_ms']} ms blocks, ms, median once settled, "
        f"of {result['seconds']:.0f} s, {result['machine']}, {result['cores']} cores, "
        f"load {result['load_average']:.1f}:\n"
        "`python benchmarks/mouth_to_ear.py`\n"
    )
    cells += [f"{result['concealed_ms']:.1f}", str(result["xruns"])]
    return f"{caption}\n{markdown(header, [cells])}"


def audio_soak_table(result: dict[str, Any]) -> str:
    memory_mb, excess_ms = result["memory_mb"], result["excess_ms"]
    cells = [
        f"{result['minutes']:g}",
        f"{memory_mb['first']:.0f}, then within {result['memory_span_mb']:.1f}",
        f"{excess_ms['early']:+.1f}, then {excess_ms['late']:+.1f}",
        f"{result['drift_ppm']:.0f} (made: -200)",
        f"{result['lost_input_ms'] + result['dropped_user_ms']:.0f}",
        str(result["device_losses"]),
    ]
    header = ["minutes", "memory, MB", "lag over its target, ms", "drift found, ppm", "user lost, ms", "device lost"]
    caption = (
        f"The bundled agent over the fake device, {result['machine']}, {result['cores']} cores, "
        f"load {result['load_average']:.1f}:\n`{result['command']}`\n"
    )
    return f"{caption}\n{markdown(header, [cells])}"


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "align": align_table,
    "codec": codec_table,
    "codec_precision": codec_precision_table,
    "model_step": model_step_table,
    "degenerate_agents": degenerate_agents_table,
    "audio_gil": audio_gil_table,
    "audio_aec": audio_aec_table,
    "mouth_to_ear": mouth_to_ear_table,
    "audio_soak": audio_soak_table,
    "align_throughput": align_throughput_table,
}

if __name__ == "__main__":
    main()
