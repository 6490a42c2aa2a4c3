"""The simulated user: does it wait, pause, backchannel, interrupt, yield and react, and always alike?"""

from __future__ import annotations

import time

import numpy as np
import pytest

from duologue.errors import ConfigError
from duologue.metrics.degenerate import render_speech
from duologue.types import FRAME_RATE_HZ, FRAME_SAMPLES, SAMPLE_RATE_HZ, Pcm
from duologue_align.evaluation.dynamic import (
    PERSON,
    Conversation,
    DynamicOptions,
    _answers,
    _tally,
    converse,
    evaluate_dynamic,
)
from duologue_align.evaluation.person import Manners, Person, Turn
from duologue_align.evaluation.rivals import Endpointer, Plain, scripted_talkers
from duologue_align.evaluation.voices import Utterance, Voice, recorded_voices, synthetic_voices
from duologue_align.judge.judge import Answer
from duologue_align.segments.segment import Segment
from duologue_align.statistics import Resampling
from synth_fakes import LINES, ToneSpeaker

SECONDS = 40.0


def sound(seconds: float) -> Pcm:
    return render_speech([(0.0, seconds)], seconds)


def voice(name: str = "v") -> Voice:
    turns = tuple(Utterance((sound(1.2), sound(1.0 + 0.2 * k)), f"turn number {k}.") for k in range(4))
    return Voice(name=name, turns=turns, backchannels=(Utterance((sound(0.35),), "mm-hm"),))


def manners(*, backchannels_per_min: float = 5.0, interruption_share: float = 0.0) -> Manners:
    return Manners(backchannels_per_min=backchannels_per_min, interruption_share=interruption_share, opens_after_s=0.5)


def person(seed: int = 0, **settings: float) -> Person:
    return Person(voice(), manners(**settings), np.random.default_rng(seed))


class Speaks(Plain):
    """Sounds in given spans and says given words when each begins."""

    def __init__(self, spans: list[tuple[float, float]], text: str = "") -> None:
        self._pcm = render_speech(spans, SECONDS + 1)
        self._starts = {int(start * FRAME_RATE_HZ) for start, _ in spans}
        self._text, self._frame = text, 0

    def step(self, user: Pcm, text: str = "") -> tuple[Pcm, str]:
        begin = self._frame * FRAME_SAMPLES
        said = self._text if self._frame in self._starts else ""
        self._frame += 1
        return self._pcm[begin : begin + FRAME_SAMPLES], said


def talk(talker: Speaks, user: Person, seconds: float = SECONDS) -> Conversation:
    return converse(talker, user, seconds)[0]


class Slow(Plain):
    """Takes 0.12 s for each of its first two frames, 0.04 s too long."""

    def __init__(self) -> None:
        self._left = 2

    def step(self, user: Pcm, text: str = "") -> tuple[Pcm, str]:
        self._left -= 1
        if self._left >= 0:
            time.sleep(0.12)
        return np.zeros(FRAME_SAMPLES, dtype=np.float32), ""


def test_real_time_is_kept_and_late_frames_are_counted() -> None:
    began = time.perf_counter()
    paced, _ = converse(Slow(), person(), 0.8, realtime=True)
    assert time.perf_counter() - began >= 0.8
    assert paced.late_frames is not None
    assert paced.late_frames >= 2
    assert _tally(paced).sums["floor", "late_share"] == (paced.late_frames, 10)
    hurried, _ = converse(Speaks([]), person(), 0.8)
    assert hurried.late_frames is None
    assert ("floor", "late_share") not in _tally(hurried).sums


def test_with_a_silent_agent_it_pauses_as_people_do_and_speaks_again_after_a_while() -> None:
    found = talk(Speaks([]), person())
    assert len(found.turns) >= 4
    assert found.turns[0].start_s == pytest.approx(0.56, abs=0.09)
    for before, after in zip(found.turns, found.turns[1:], strict=False):
        assert 2.4 <= after.start_s - before.end_s <= 5.2
    pauses = [b[0] - a[1] for a, b in zip(found.user_spans_s, found.user_spans_s[1:], strict=False)]
    inside = [pause for pause in pauses if pause < 1.5]
    assert len(inside) >= 4
    assert all(0.2 <= pause <= 1.0 for pause in inside)
    assert found.report().turn.missed_rate.value == 1.0


def test_it_waits_while_the_agent_speaks_and_answers_after_it() -> None:
    complete = [talk(Speaks([(0.1, 6.0)], " Hello."), person(k, backchannels_per_min=0.01), 10.0) for k in range(8)]
    open_ended = [
        talk(Speaks([(0.1, 6.0)], " Hello and"), person(k, backchannels_per_min=0.01), 10.0) for k in range(8)
    ]
    delays = [[f.turns[0].start_s - 6.0 for f in found] for found in (complete, open_ended)]
    assert min(delays[0]) >= 0.15
    assert max(delays[0]) <= 2.4
    assert np.median(delays[1]) > np.median(delays[0]) + 0.3, "it waits longer when the words are not complete"


def test_it_backchannels_and_interrupts_long_turns() -> None:
    listener = talk(Speaks([(0.1, 39.0)]), person(backchannels_per_min=12.0)).report()
    assert listener.interruption.yield_rate.count == 0
    assert 3 <= listener.selectivity.selectivity.count <= 12
    interrupter = talk(Speaks([(0.1, 39.0)]), person(interruption_share=1.0))
    assert interrupter.turns[0].is_interruption
    assert 1.2 <= interrupter.turns[0].start_s <= 6.3
    report = interrupter.report()
    assert report.interruption.yield_rate.value == 0.0, "who never stops does not yield"
    assert report.interruption.yield_rate.count >= 1


def test_it_yields_to_whoever_talks_over_it_but_not_to_an_mm_hm() -> None:
    over = [talk(Speaks([(1.2, 12.0)]), person(k), 6.0).turns[0] for k in range(8)]
    cut = [turn for turn in over if turn.text == ""]
    assert 5 <= len(cut) < len(over), "most, not all, give way"
    assert all(1.0 <= turn.end_s - 1.2 <= 2.6 for turn in cut)
    brief = [talk(Speaks([(1.2, 1.6)]), person(k), 6.0).turns[0] for k in range(6)]
    assert all(turn.text for turn in brief)


def test_the_same_seed_gives_the_same_conversation_and_another_one_another() -> None:
    first, again, other = (converse(Endpointer(0.5, 3.0), person(seed), SECONDS) for seed in (1, 1, 2))
    assert first[0] == again[0]
    assert np.array_equal(first[1], again[1])
    assert first[0] != other[0]
    assert first[1].shape == (round(SECONDS * SAMPLE_RATE_HZ), 2)


def test_a_second_person_converses_better_than_whoever_understands_nothing() -> None:
    part = evaluate_dynamic(
        [], [voice("a"), voice("b")], DynamicOptions(conversations=3, seconds=30.0), partners=[voice("c")]
    )
    assert list(part.figures) == [PERSON, *scripted_talkers()]

    def value(name: str, axis: str, figure: str) -> float:
        found = part.figures[name][axis, figure].interval.value
        return float("nan") if found is None else found

    assert value(PERSON, "turn", "answered_rate") > 0.8
    assert value("silent", "turn", "missed_rate") == 1.0
    assert value("always talking", "interruption", "yield_rate") == 0.0
    assert value("always talking", "turn", "answered_rate") < 0.1
    assert value("echo", "pause", "takeover_rate") > 0.5
    assert value("echo", "turn", "talked_over_rate") > 0.5
    assert value("endpointer 0.5 s", "turn", "answered_rate") > 0.9
    assert part.verdict("silent", ("turn", "answered_rate")) == "", "three conversations prove nothing"


def test_answers_are_words_that_sound_and_silence_is_an_answer_too() -> None:
    turns = tuple(
        Turn(start_s=at_s, end_s=at_s + 2.0, text=text, is_interruption=False)
        for at_s, text in ((0.0, "one"), (5.0, "two"))
    )
    found = Conversation(
        user_spans_s=(),
        agent_spans_s=((2.5, 3.5),),
        duration_s=12.0,
        turns=turns,
        transcript=((2.5, " heard"), (8.0, " unheard")),
    )
    assert list(_answers(found)) == [Answer("one", "heard"), Answer("two", "")]


def test_conversations_with_one_voice_are_drawn_together() -> None:
    parts = [(float(k % 2), 1.0) for k in range(20)]
    apart, together = Resampling(20).ratio(parts).interval, Resampling(20, voices=2).ratio(parts).interval
    assert (together.low, together.high) == (0.0, 1.0), "two voices are two samples"
    assert apart.low is not None
    assert apart.low > 0.2


def test_voices_are_cut_from_recordings(tmp_path_factory: pytest.TempPathFactory) -> None:
    from duologue_align.segments.dataset import MiningOptions, mine
    from duologue_align.segments.reader import read_segments
    from duologue_align.segments.rules import MiningRules
    from mine_cases import write_stereo

    folder = tmp_path_factory.mktemp("voices")
    write_stereo(folder / "in" / "a.wav")
    mine([folder / "in"], folder / "out", MiningOptions(rules=MiningRules(detector="level")))
    segments: list[Segment] = read_segments(folder / "out")
    (found,) = recorded_voices(segments)
    lengths = sorted(round(turn.speech_s, 1) for turn in found.turns)
    # The user's utterances of the example, two of them of two phrases, 0.1 s of margin each.
    assert lengths == [4.1, 5.7, 6.1, 6.6]
    assert [len(turn.phrases) for turn in found.turns].count(2) == 2
    assert [round(token.speech_s, 1) for token in found.backchannels] == [0.7]
    with pytest.raises(ConfigError, match="--user synth"):
        recorded_voices([])


def test_voices_are_synthesised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duologue_align.synth.chat.user_text", lambda split: LINES)
    first, again = (synthetic_voices(2, seed=3, speaker=ToneSpeaker()) for _ in range(2))
    assert [v.name for v in first] == ["t01-0", "t02-1"]
    assert all(len(v.turns) == 8 and v.backchannels for v in synthetic_voices(1, speaker=ToneSpeaker(), as_agent=True))
    assert [turn.text for turn in first[0].turns] == [turn.text for turn in again[0].turns]
    assert np.array_equal(first[0].turns[1].phrases[0], again[0].turns[1].phrases[0])
