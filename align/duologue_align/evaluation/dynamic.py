"""Evaluation with a user who reacts: conversations of an agent with simulated people, beside scripted agents."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from duologue.audio.files import write_wav
from duologue.errors import ConfigError
from duologue.metrics.summary import build_report
from duologue.metrics.types import InteractivityReport
from duologue.replacing import replace_file
from duologue.types import FRAME_MS, FRAME_RATE_HZ, FRAME_SAMPLES, Pcm
from duologue_align.evaluation.contestant import Contestant
from duologue_align.evaluation.ears import Ears
from duologue_align.evaluation.measures import DYNAMIC, Tally, read_figures
from duologue_align.evaluation.part import Part
from duologue_align.evaluation.person import Manners, Person, Turn
from duologue_align.evaluation.quality import Quality
from duologue_align.evaluation.rivals import Opener, PersonTalker, SessionTalker, Talker, scripted_talkers
from duologue_align.evaluation.take import heard, place_words, spoken_spans
from duologue_align.evaluation.voices import Voice
from duologue_align.judge.judge import Answer
from duologue_align.rewards.exchange import find_events
from duologue_align.rewards.situation import spans_to_activity
from duologue_align.segments.mining import digest
from duologue_align.sft.outcome import exchanges
from duologue_align.statistics import Resampling

FOLDER = "conversations"
PERSON = "simulated person"
"""Contestant that is a second simulated person: what human timing alone reaches with this user."""
SHOWN = 3
"""Conversations of the agent on the page."""
FORMAT = 2
"""Version of the user's and the partner's behaviour; it changes when the same seed gives another conversation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicOptions:
    """How to converse.

    Attributes:
        conversations: With each contestant; number k has voice k and seed k.
        seconds: Length of each.
        seed: Of everything; conversation k takes seed + k.
        realtime: Pace the frames at 80 ms and count those that come late.
    """

    conversations: int = 20
    seconds: float = 60.0
    seed: int = 0
    realtime: bool = False

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ConfigError: A value is out of range.
        """
        if self.conversations < 1:
            raise ConfigError(f"conversations is {self.conversations}; give 1 or more")
        if not 5 <= self.seconds <= 3600:
            raise ConfigError(f"seconds is {self.seconds}; give 5 to 3600")
        if self.seed < 0:
            raise ConfigError(f"seed is {self.seed}; give 0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A finished conversation.

    Attributes:
        user_spans_s: Where the user sounded, exactly.
        agent_spans_s: Where the agent did, by loudness.
        duration_s: Length.
        turns: What the user said.
        transcript: The agent's text, (time in seconds, piece).
        late_frames: Frames that were not done when their 80 ms were over, or None if nobody paced them.
        audio: The recording, relative to the report; "" if none was written.
    """

    user_spans_s: tuple[tuple[float, float], ...]
    agent_spans_s: tuple[tuple[float, float], ...]
    duration_s: float
    turns: tuple[Turn, ...]
    transcript: tuple[tuple[float, str], ...]
    late_frames: int | None = None
    audio: str = ""

    def report(self) -> InteractivityReport:
        """Measure it by the event rules of `duologue.metrics`."""
        ticks = round(self.duration_s * 100)
        user, agent = (spans_to_activity(spans, ticks) for spans in (self.user_spans_s, self.agent_spans_s))
        return build_report(find_events(user, agent), self.duration_s, agent_detector="level")


@dataclass(frozen=True, slots=True)
class Picture:
    """A conversation to be shown: whose, and which."""

    contestant: str
    number: int
    conversation: Conversation


def converse(talker: Talker, user: Person, seconds: float, *, realtime: bool = False) -> tuple[Conversation, Pcm]:
    """Let a talker and a simulated person talk.

    Args:
        talker: The agent's side: it answers the user's frame in the same step, as a session does.
        user: The simulated user: it has heard the agent up to the frame before.
        seconds: Length.
        realtime: Pace the frames at 80 ms.

    Returns:
        The conversation and its stereo recording, left the agent and right the user, shape [n, 2].
    """
    frames = round(seconds * FRAME_RATE_HZ)
    stereo = np.zeros((frames, FRAME_SAMPLES, 2), dtype=np.float32)
    transcript: list[tuple[float, str]] = []
    agent_frame, text, late = np.zeros(FRAME_SAMPLES, dtype=np.float32), "", 0
    started = time.perf_counter()
    for index in range(frames):
        user_frame, said = user.step(agent_frame, text)
        agent_frame, text = talker.step(user_frame, said)
        stereo[index, :, 0], stereo[index, :, 1] = agent_frame, user_frame
        if text:
            transcript.append((index / FRAME_RATE_HZ, text))
        if realtime:
            wait_s = started + (index + 1) * FRAME_MS / 1000 - time.perf_counter()
            late += wait_s < 0
            time.sleep(max(0.0, wait_s))
    user.close()
    recording = stereo.reshape(-1, 2)
    conversation = Conversation(
        user_spans_s=tuple(sorted(user.spans_s)),
        agent_spans_s=spoken_spans(heard(np.ascontiguousarray(recording[:, 0]))),
        duration_s=frames / FRAME_RATE_HZ,
        turns=tuple(user.turns),
        transcript=tuple(transcript),
        late_frames=late if realtime else None,
    )
    return conversation, recording


def evaluate_dynamic(
    contestants: Sequence[Contestant],
    voices: Sequence[Voice],
    options: DynamicOptions | None = None,
    *,
    partners: Sequence[Voice] = (),
    out: Path | None = None,
    quality: Quality | None = None,
    ears: Ears | None = None,
    progress: Any = None,
) -> Part:
    """Let agents converse with simulated users and measure what they do.

    Args:
        contestants: The agents; the first is compared with everything else.
        voices: The users' material.
        options: How.
        partners: Material of the simulated person beside the agents, number k in conversation k; none leaves it out.
        out: Where conversations are kept and found again; None keeps nothing.
        quality: Judge of the replies, or None.
        ears: Recogniser that tells what the agents said, and the users where nobody wrote it down; None takes the
            agents' inner monologue.
        progress: Called with each iterable of work, such as `tqdm`; None shows nothing.

    Raises:
        ConfigError: There is no voice, or an option is refused.
    """
    options = options or DynamicOptions()
    if not voices:
        raise ConfigError("there is no voice for the simulated user")
    everybody = _openers(contestants, partners, options.seed)
    signatures = {c.name: c.signature for c in contestants}
    todo = [(name, number) for name in everybody for number in range(options.conversations)]
    found: dict[str, list[Conversation]] = {name: [] for name in everybody}
    for name, number in progress(todo) if progress else todo:
        voice = voices[number % len(voices)]
        listener = ears if name in signatures else None
        found[name].append(_one(name, number, everybody[name], voice, options, out, signatures.get(name), listener))
    tallies = {name: [_tally(conversation) for conversation in own] for name, own in found.items()}
    if quality is not None:
        for name in signatures:
            _judge(found[name], tallies[name], quality)
    resampling = Resampling(options.conversations, voices=len(voices))
    return Part.compare(
        "dynamic",
        {name: read_figures(own, resampling) for name, own in tallies.items()},
        conversations=options.conversations,
        pictures=[
            Picture(name, number, conversation)
            for name in signatures
            for number, conversation in enumerate(found[name][:SHOWN])
        ],
    )


def tally_conversations(
    contestant: Contestant,
    voices: Sequence[Voice],
    options: DynamicOptions,
    *,
    out: Path | None = None,
    quality: Quality | None = None,
    progress: Any = None,
) -> list[Tally]:
    """Let one agent converse as in `evaluate_dynamic`; return what each conversation adds to the figures.

    Conversation k is with voice k modulo their number, as there, so that runs of one agent after another can be pooled.
    """
    opener = _openers([contestant], [], options.seed)[contestant.name]
    numbers = range(options.conversations)
    found = [
        _one(contestant.name, k, opener, voices[k % len(voices)], options, out, contestant.signature)
        for k in (progress(numbers) if progress else numbers)
    ]
    tallies = [_tally(conversation) for conversation in found]
    if quality is not None:
        _judge(found, tallies, quality)
    return tallies


def _openers(contestants: Sequence[Contestant], partners: Sequence[Voice], first: int) -> dict[str, Opener]:
    def of_agent(contestant: Contestant) -> Opener:
        return lambda seconds, seed: SessionTalker(contestant.agent, seed)

    everybody: dict[str, Opener] = {contestant.name: of_agent(contestant) for contestant in contestants}
    if partners:
        everybody[PERSON] = lambda seconds, seed: PersonTalker(partners[(seed - first) % len(partners)], seed)
    return everybody | dict(scripted_talkers())


def _one(
    name: str,
    number: int,
    opener: Opener,
    voice: Voice,
    options: DynamicOptions,
    out: Path | None,
    signature: str | None,
    ears: Ears | None = None,
) -> Conversation:
    seed = options.seed + number
    place = out / FOLDER / name.replace(" ", "-") / f"{number:03d}.json" if out is not None else None
    what = [FORMAT, signature, seed, options.seconds, options.realtime, voice.name, _material(voice)]
    key = digest([*what, ears.name] if ears else what)
    there = None if place is None or signature == "" else _read(place, key)
    if there is not None:
        return there
    rng = np.random.default_rng([seed, 1])
    user = Person(voice, Manners.of_user(rng), rng)
    with opener(options.seconds, seed) as talker:
        conversation, recording = converse(talker, user, options.seconds, realtime=options.realtime)
    if ears is not None:
        conversation = _by_ear(conversation, recording, ears)
    if place is None:
        return conversation
    place.parent.mkdir(parents=True, exist_ok=True)
    write_wav(place.with_suffix(".wav"), recording)
    audio = place.with_suffix(".wav").relative_to(out or place).as_posix()
    content = {**asdict(conversation), "audio": audio}
    replace_file(place, json.dumps({"signature": key, "conversation": content}).encode())
    return _plain(content)


def _by_ear(conversation: Conversation, recording: Pcm, ears: Ears) -> Conversation:
    agent, user = (np.ascontiguousarray(recording[:, side]) for side in (0, 1))
    turns = [
        turn if turn.text else replace(turn, text=ears.words(user, turn.start_s, turn.end_s))
        for turn in conversation.turns
    ]
    return replace(conversation, transcript=tuple(ears.transcript(agent)), turns=tuple(turns))


def _tally(conversation: Conversation) -> Tally:
    tally = Tally()
    tally.add_report(DYNAMIC, conversation.report())
    if conversation.late_frames is not None:
        tally.add("floor", "late_share", conversation.late_frames, round(conversation.duration_s * FRAME_RATE_HZ))
    return tally


def _judge(conversations: Sequence[Conversation], tallies: Sequence[Tally], quality: Quality) -> None:
    answers = [list(_answers(conversation)) for conversation in conversations]
    scores = iter(quality.score([answer for own in answers for answer in own]))
    for own, tally in zip(answers, tallies, strict=True):
        for _ in own:
            tally.add("turn", "judge", next(scores))


def _answers(conversation: Conversation) -> Iterator[Answer]:
    turns: list[Mapping[str, Any]] = [
        {"side": "user", "start_s": turn.start_s, "end_s": turn.end_s, "text": turn.text} for turn in conversation.turns
    ]
    placed = place_words(conversation.transcript, conversation.agent_spans_s)
    said = [(word.start_s, f" {word.text}") for word in placed]
    for exchange in exchanges(turns, said, dialogue="", with_unanswered=True):
        if exchange.user:
            yield Answer(exchange.user, exchange.reply)


def _material(voice: Voice) -> list[Any]:
    return [[utterance.text, round(utterance.speech_s, 3)] for utterance in (*voice.turns, *voice.backchannels)]


def _read(place: Path, key: str) -> Conversation | None:
    try:
        content = json.loads(place.read_text(encoding="utf-8"))
        is_same = content["signature"] == key and place.with_suffix(".wav").is_file()
        return _plain(content["conversation"]) if is_same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _plain(content: Mapping[str, Any]) -> Conversation:
    return Conversation(
        user_spans_s=tuple((start, end) for start, end in content["user_spans_s"]),
        agent_spans_s=tuple((start, end) for start, end in content["agent_spans_s"]),
        duration_s=content["duration_s"],
        turns=tuple(Turn(**turn) for turn in content["turns"]),
        transcript=tuple((at_s, piece) for at_s, piece in content["transcript"]),
        late_frames=content["late_frames"],
        audio=content["audio"],
    )
