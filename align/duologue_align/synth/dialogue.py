"""One dialogue from (seed, split, number) alone: plan, compose, mix, describe."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from duologue.types import FRAME_SAMPLES, SAMPLE_RATE_HZ
from duologue_align.synth.augment import AGENT_LEVEL_DB, Augmentation, augment, draw_augmentation
from duologue_align.synth.chat import user_text
from duologue_align.synth.composer import Composer
from duologue_align.synth.pieces import Speaker
from duologue_align.synth.repertoire import written_repertoire
from duologue_align.synth.timeline import SIDES, Behaviour, DialoguePlan, Side, Timeline
from duologue_align.synth.timing import HumanTiming, human_timing
from duologue_align.synth.voices import AGENT, users_of

SHORTEST_S, LONGEST_S = 60.0, 120.0
SPLITS = ("train", "test")
SPREADING_STEPS = (0.6180339887, 0.4142135624)
"""Irrational steps, of the golden ratio and of the square root of two: multiples modulo 1 fill [0, 1) evenly."""

WELL_BEHAVED_SHARE = 0.6
"""Share of the dialogues in which the agent makes no fault."""
FAULTY = Behaviour(
    takes_over_pauses=0.15,
    answers_late=0.12,
    misses_turns=0.03,
    skips_backchannels=0.25,
    talks_over_interruptions=0.25,
    stops_for_backchannels=0.15,
)
"""The agent of the others."""
SPEAKERS: dict[Side, str] = {"agent": "SPEAKER_MAIN", "user": "SPEAKER_USER"}
"""What moshi-finetune calls the agent, and what we call the user beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialogue:
    """A finished dialogue.

    Attributes:
        stereo: int16, shape [n, 2], 24 kHz; the agent in column 0, the user in column 1.
        alignments: The words of both sides in moshi-finetune's form, the agent's first, and their phones.
        facts: Ground truth and settings, ready for JSON.
    """

    stereo: npt.NDArray[np.int16]
    alignments: dict[str, Any]
    facts: dict[str, Any]


def duration_s(seed: int, split: str, number: int) -> float:
    """Return the length of dialogue `number`, a whole number of frames, without composing it."""
    frames = _rng(seed, split, number, 0).uniform(SHORTEST_S, LONGEST_S) * SAMPLE_RATE_HZ // FRAME_SAMPLES
    return float(frames * FRAME_SAMPLES / SAMPLE_RATE_HZ)


def make_dialogue(seed: int, split: str, number: int, speaker: Speaker, *, is_clean: bool = False) -> Dialogue:
    """Make dialogue `number`.

    Args:
        seed: Of the whole data set.
        split: "train" or "test": which texts and which user voices.
        number: From 0.
        speaker: Who speaks.
        is_clean: Whether the user is heard as synthesised; the dialogue is otherwise the same.

    Raises:
        MissingExtraError: chitchat-dataset is not installed.
    """
    rng = _rng(seed, split, number, 1)
    timing = human_timing()
    # Spread evenly over the dialogues instead of drawn for each, the rates of a small data set are human too.
    shares = (_rng(seed, split, 0, 3).random(2) + number * np.array(SPREADING_STEPS)) % 1.0
    plan = draw_plan(duration_s(seed, split, number), split, timing, rng, talkativeness=shares)
    drawn = draw_augmentation(rng)
    augmentation = Augmentation(level_db=AGENT_LEVEL_DB) if is_clean else drawn
    composer = Composer(
        plan, speaker=speaker, timing=timing, repertoire=written_repertoire(), lines=user_text(split), rng=rng
    )
    timeline = composer.compose()
    agent, user = (mix(timeline, side, plan.duration_s) for side in ("agent", "user"))
    heard = augment(user, agent, augmentation, _rng(seed, split, number, 2))
    stereo = np.stack([agent, heard], axis=1)
    facts = {"number": number, "seed": seed, "split": split, **_describe(plan, timeline, augmentation)}
    return Dialogue(
        stereo=(np.clip(stereo, -1, 1) * 32767).astype(np.int16),
        alignments={
            "alignments": _word_rows(timeline, plan.duration_s),
            "phones": _phone_rows(timeline, plan.duration_s),
        },
        facts=facts,
    )


def draw_plan(
    length_s: float,
    split: str,
    timing: HumanTiming,
    rng: np.random.Generator,
    *,
    talkativeness: npt.NDArray[np.float64],
) -> DialoguePlan:
    """Draw a dialogue's user, manners and rates; the backchannel rates of two people differ as those of humans do.

    Args:
        length_s: Length of the dialogue.
        split: Which user voices.
        timing: Human figures.
        rng: Source of the choices.
        talkativeness: Share of humans who backchannel less than the user and than the agent, shape [2], in [0, 1].
    """
    voices = users_of(split)
    behaviour = Behaviour() if rng.random() < WELL_BEHAVED_SHARE else FAULTY
    return DialoguePlan(
        duration_s=length_s,
        user=voices[int(rng.integers(len(voices)))],
        behaviour=behaviour,
        user_backchannels_per_min=timing.quantile("backchannels_per_speech_min", float(talkativeness[0])),
        agent_backchannels_per_min=max(1.5, timing.quantile("backchannels_per_speech_min", float(talkativeness[1]))),
        interruption_share=float(rng.uniform(0.05, 0.3)),
    )


def mix(timeline: Timeline, side: Side, length_s: float) -> npt.NDArray[np.float32]:
    """Return a side's channel, float32, shape [n]; speech past the end of the recording is cut."""
    channel = np.zeros(round(length_s * SAMPLE_RATE_HZ), dtype=np.float32)
    for placed in timeline.placed:
        if placed.side == side:
            begin = round(placed.start_s * SAMPLE_RATE_HZ)
            room = channel[begin : begin + len(placed.piece.pcm)]
            room += placed.piece.pcm[: len(room)] * np.float32(1 / 32768)
    return channel


def _describe(plan: DialoguePlan, timeline: Timeline, augmentation: Augmentation) -> dict[str, Any]:
    length_s = plan.duration_s
    happened = sorted(timeline.happened, key=lambda event: event.start_s)
    said = sorted(timeline.said, key=lambda turn: turn.start_s)
    return {
        "duration_s": length_s,
        "voices": {"agent": AGENT.name, "user": plan.user.name},
        "behaviour": asdict(plan.behaviour),
        "is_well_behaved": plan.behaviour == Behaviour(),
        "augmentation": asdict(augmentation),
        "turns": [_rounded(asdict(turn)) for turn in said if turn.start_s < length_s],
        "events": [_rounded(asdict(event)) for event in happened if event.start_s < length_s],
        "spans": {
            side: [[round(start, 3), round(end, 3)] for start, end in timeline.spans(side, length_s)] for side in SIDES
        },
    }


def _word_rows(timeline: Timeline, length_s: float) -> list[list[Any]]:
    return [
        [word.text, [round(word.start_s, 3), round(word.end_s, 3)], label]
        for side, label in SPEAKERS.items()
        for word in timeline.words(side, length_s)
    ]


def _phone_rows(timeline: Timeline, length_s: float) -> list[list[Any]]:
    rows = (
        (phone.name, round(phone.start_s, 3), round(phone.end_s, 3), SPEAKERS[side])
        for side in SIDES
        for phone in timeline.phones(side, length_s)
    )
    return [[name, [start_s, end_s], speaker] for name, start_s, end_s, speaker in rows if start_s < end_s]


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()}


def _rng(seed: int, split: str, number: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng([seed, SPLITS.index(split), number, purpose])
