"""What a simulated user can say, in one voice: turns and backchannels, cut from recordings or synthesised."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from duologue.errors import ConfigError
from duologue.metrics.timeline import TICK_S, UTTERANCE_BRIDGE
from duologue.types import SAMPLE_RATE_HZ, Pcm
from duologue_align.corpus.audio import read_spans
from duologue_align.corpus.conversation import Line
from duologue_align.segments.segment import Segment
from duologue_align.synth.phrasing import phrase
from duologue_align.synth.pieces import Sentence, Speaker
from duologue_align.synth.repertoire import split_sentences, written_repertoire
from duologue_align.synth.timing import human_timing
from duologue_align.synth.voices import AGENT, users_of
from duologue_align.synth.voices import Voice as Warp

LONGEST_S = 15.0
"""Longer recorded turns are left out: a conversation of a minute would hold little else."""
FEWEST_TURNS = 3
"""A recorded voice with fewer turns is left out while others have more."""
MARGIN_S = 0.05
"""Sound kept on both sides of a recorded phrase."""
TURNS = 8
"""Turns that a synthetic voice is given."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """Something to say.

    Attributes:
        phrases: Samples of its IPUs, 24 kHz; the pauses between them are drawn when it is said.
        text: The words, "" where nobody knows them.
    """

    phrases: tuple[Pcm, ...]
    text: str = ""

    @property
    def speech_s(self) -> float:
        """Length without pauses."""
        return sum(len(phrase) for phrase in self.phrases) / SAMPLE_RATE_HZ


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """One speaker's material.

    Attributes:
        name: Who it is.
        turns: What to say, in order.
        backchannels: Short things to say while the other speaks.
    """

    name: str
    turns: tuple[Utterance, ...]
    backchannels: tuple[Utterance, ...]


def recorded_voices(segments: Iterable[Segment]) -> list[Voice]:
    """Cut the users of mined segments out of their recordings, the talkative ones first.

    The user's side of each conversation is one voice, in the corpus' own roles where there are any. Backchannels that
    a voice lacks are borrowed from the others.

    Raises:
        ConfigError: No user says anything that could be a turn.
        AudioError: A recording cannot be read.
    """
    everything = list(segments)
    order = sorted(
        [segment for segment in everything if not segment.is_swapped] or everything,
        key=lambda segment: segment.conversation,
    )
    voices = [_cut(name, list(own)) for name, own in groupby(order, key=lambda segment: segment.conversation)]
    voices = sorted((voice for voice in voices if voice.turns), key=lambda voice: (-len(voice.turns), voice.name))
    if not voices:
        raise ConfigError("no recorded user says anything that could be a turn; use synthetic users: --user synth")
    voices = [voice for voice in voices if len(voice.turns) >= FEWEST_TURNS] or voices
    spare = tuple(token for voice in voices for token in voice.backchannels)
    return [voice if voice.backchannels else replace(voice, backchannels=spare) for voice in voices]


def synthetic_voices(
    count: int, *, seed: int = 0, speaker: Speaker | None = None, as_agent: bool = False
) -> list[Voice]:
    """Write lines and speak them: texts and voices of `duologue-align synth --split test`.

    Args:
        count: Voices.
        seed: Same seed, same voices.
        speaker: Who speaks; None is the synthesiser.
        as_agent: Use the agent's voice and its own repertoire.

    Raises:
        MissingExtraError: The synthesiser or the text source is not installed.
    """
    if speaker is None:
        from duologue_align.synth.speech import Synthesiser

        speaker = Synthesiser()
    return [_speak(speaker, np.random.default_rng([seed, index]), index, as_agent) for index in range(count)]


def _cut(name: str, segments: Sequence[Segment]) -> Voice:
    utterances: dict[float, tuple[tuple[float, float], ...]] = {}
    lines = sorted(
        {line for segment in segments for line in segment.lines if line.side == "user"}, key=lambda line: line.start_s
    )
    for segment in segments:
        for spans in _utterances(segment.user_spans):
            if _is_whole(spans, segment):
                utterances.setdefault(round(spans[0][0], 2), spans)
    found = [utterances[key] for key in sorted(utterances)]
    channel = segments[0].user
    wanted = [(max(0.0, start - MARGIN_S), end + MARGIN_S) for spans in found for start, end in spans]
    sounds = iter(read_spans(channel, wanted) if wanted else [])
    said = [(spans, Utterance(tuple(next(sounds) for _ in spans), _text(spans, lines))) for spans in found]
    longest_s = UTTERANCE_BRIDGE * TICK_S
    return Voice(
        name=name,
        turns=tuple(u for spans, u in said if longest_s < spans[-1][1] - spans[0][0] <= LONGEST_S),
        backchannels=tuple(u for spans, u in said if spans[-1][1] - spans[0][0] <= longest_s),
    )


def _is_whole(spans: Sequence[tuple[float, float]], segment: Segment) -> bool:
    """Tell whether an utterance is all there; what touches an edge of the window may be cut."""
    start_s, end_s = spans[0][0], spans[-1][1]
    named = [event for event in segment.events if event.side == "user" and event.kind in ("utterance", "backchannel")]
    begins = segment.start_s < start_s or any(event.start_s == start_s for event in named)
    return begins and (end_s < segment.end_s or any(event.end_s == end_s for event in named))


def _utterances(spans: Sequence[tuple[float, float]]) -> list[tuple[tuple[float, float], ...]]:
    groups: list[list[tuple[float, float]]] = []
    for span in spans:
        if groups and span[0] - groups[-1][-1][1] <= UTTERANCE_BRIDGE * TICK_S + 1e-9:
            groups[-1].append(span)
        else:
            groups.append([span])
    return [tuple(group) for group in groups]


def _text(spans: Sequence[tuple[float, float]], lines: Sequence[Line]) -> str:
    start_s, end_s = spans[0][0], spans[-1][1]
    inside = [line for line in lines if start_s - 0.3 <= (line.start_s + line.end_s) / 2 <= end_s + 0.3]
    is_whole = bool(inside) and inside[0].start_s <= start_s + 0.6 and inside[-1].end_s >= end_s - 0.6
    return " ".join(line.text for line in inside) if is_whole else ""


def _speak(speaker: Speaker, rng: np.random.Generator, index: int, as_agent: bool) -> Voice:
    repertoire = written_repertoire()
    warps = users_of("test")
    warp = AGENT if as_agent else warps[index % len(warps)]
    tokens = [repertoire.backchannel(rng) for _ in range(4)]
    return Voice(
        name=f"{warp.name}-{index}",
        turns=tuple(_utter(speaker, warp, text, rng, is_fluent=as_agent) for text in _texts(rng, as_agent)),
        backchannels=tuple(_utter(speaker, warp, token, rng, is_fluent=True) for token in tokens),
    )


def _texts(rng: np.random.Generator, as_agent: bool) -> list[str]:
    repertoire = written_repertoire()
    topics = sorted(repertoire.topics)
    if as_agent:
        picked = rng.permutation(topics)[:TURNS]
        pools = [[repertoire.topics[topic][kind] for kind in ("says", "asks")] for topic in picked]
        return [" ".join(str(lines[int(rng.integers(len(lines)))]) for lines in pool) for pool in pools]
    from duologue_align.synth.chat import user_text

    used: set[str] = set()
    texts = [repertoire.stock("user_openers", rng, used)]
    topic = topics[int(rng.integers(len(topics)))]
    while len(texts) < TURNS:
        texts.append(user_text("test").draw(rng, topic=topic).text)
        if rng.random() < 0.35:
            topic = topics[int(rng.integers(len(topics)))]
    return texts


def _utter(speaker: Speaker, warp: Warp, text: str, rng: np.random.Generator, *, is_fluent: bool) -> Utterance:
    planned: list[tuple[Sentence, bool]] = phrase(split_sentences(text), human_timing(), rng, is_fluent=is_fluent)
    pieces = [piece for sentence, _ in planned for piece in speaker.speak(warp, sentence)]
    return Utterance(tuple(piece.pcm.astype(np.float32) * np.float32(1 / 32768) for piece in pieces), text)
