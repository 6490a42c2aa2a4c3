"""Words by ear: a recogniser in place of the inner monologue, in evaluation and in training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from duologue.errors import ConfigError
from duologue.metrics.degenerate import render_speech
from duologue.types import SAMPLE_RATE_HZ, Pcm
from duologue_align.evaluation.contestant import AGENT, Contestant
from duologue_align.evaluation.dynamic import Conversation, _by_ear
from duologue_align.evaluation.ears import Ears
from duologue_align.evaluation.items import Item
from duologue_align.evaluation.person import Turn
from duologue_align.evaluation.quality import Quality
from duologue_align.evaluation.static import StaticOptions, evaluate_static
from duologue_align.evaluation.take import heard, place_words, spoken_spans
from duologue_align.judge.judge import Answer
from duologue_align.judge.transcriber import CallableTranscriber
from duologue_align.rewards.situation import Situation


def seconds(pcm: Pcm) -> str:
    """A recogniser that hears one word a second, and says how many seconds there are."""
    count = round(len(pcm) / SAMPLE_RATE_HZ)
    return " ".join(f"word{index}of{count}" for index in range(count))


EARS = Ears("seconds", CallableTranscriber(seconds))


class Panel:
    """Takes down what it is asked."""

    def __init__(self) -> None:
        self.asked: list[Answer] = []

    def score(self, answers: Sequence[Answer]) -> list[float]:
        self.asked += answers
        return [1.0] * len(answers)


class Session:
    """Sounds from the sixth second on and thinks something else than it says."""

    transcript = ((6.0, " thought"),)

    def __init__(self) -> None:
        self._frames = iter(render_speech([(6.0, 12.0)], 12.0).reshape(-1, 1920))

    def step(self, frame: Pcm) -> Any:
        return SimpleNamespace(pcm=next(self._frames), text="")

    def close(self) -> None:
        pass

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Speaks:
    """An agent that counts its sessions."""

    def __init__(self) -> None:
        self.sessions = 0

    def session(self, *, seed: int) -> Session:
        self.sessions += 1
        return Session()


def untold_turn() -> Item:
    """A user who speaks for 5 s; nobody wrote down what."""
    situation = Situation.from_spans(
        axis="turn", duration_s=12.0, user_spans_s=[(0.5, 5.5)], reference_spans_s=[(6.0, 12.0)], focus_s=(0.5, 5.5)
    )
    return Item(
        name="t",
        conversation="c",
        situation=situation,
        has_reference=True,
        lines=(),
        audio=lambda lead_s: np.zeros(round((12 + lead_s) * SAMPLE_RATE_HZ), dtype=np.float32),
    )


def test_heard_words_are_spread_over_the_time_that_sounds() -> None:
    pcm = render_speech([(1.0, 2.0), (2.9, 3.9), (7.0, 9.0)], 10.0)
    found = EARS.transcript(pcm)
    # The first two stretches are one utterance of 3 s, the pause in it sounds of nothing.
    assert [piece.strip() for _, piece in found] == ["word0of3", "word1of3", "word2of3", "word0of2", "word1of2"]
    assert [at_s for at_s, _ in found] == pytest.approx([1.0, 1.67, 3.23, 7.0, 8.0], abs=0.05)
    assert len(place_words(found, spoken_spans(heard(pcm)))) == len(found), "every word lies where there is sound"


def test_recorded_users_and_agents_are_judged_by_ear(tmp_path: Path) -> None:
    panel, agent = Panel(), Speaks()
    contestant = Contestant(name=AGENT, agent=agent, signature="s")  # type: ignore[arg-type]
    options = StaticOptions(seeds=1, lead_s=0.0)

    def run(ears: Ears | None) -> None:
        quality = Quality(panel, "stub")  # type: ignore[arg-type]
        evaluate_static([contestant], [untold_turn()], options, out=tmp_path, quality=quality, ears=ears)

    run(None)
    assert panel.asked == [], "nobody knows what the user said"
    run(EARS)
    user, reply = " ".join(f"word{n}of5" for n in range(5)), " ".join(f"word{n}of6" for n in range(6))
    assert panel.asked == [Answer(user, reply)]
    folder = tmp_path / "takes" / AGENT / "seed-0" / "smooth_turn_taking" / "1"
    assert json.loads((folder / "output.json").read_text())["text"] == reply
    run(EARS)
    assert agent.sessions == 2, "the takes of one recogniser are not those of another, and are found again"


def test_simulated_conversations_are_heard() -> None:
    agent, user = render_speech([(3.0, 5.0)], 6.0), render_speech([(0.0, 2.0)], 6.0)
    turns = [Turn(0.0, 2.0, text, is_interruption=False) for text in ("", "told")]
    said = Conversation(
        user_spans_s=((0.0, 2.0),),
        agent_spans_s=((3.0, 5.0),),
        duration_s=6.0,
        turns=tuple(turns),
        transcript=((3.0, " thought"),),
    )
    found = _by_ear(said, np.stack([agent, user], axis=1), EARS)
    assert [turn.text for turn in found.turns] == ["word0of2 word1of2", "told"]
    assert [piece for _, piece in found.transcript] == [" word0of2", " word1of2"]


def test_training_hears_the_user_once() -> None:
    pytest.importorskip("torch")
    from duologue_align.rewards import RewardPreset
    from duologue_align.rl.grading import Grader
    from duologue_align.rl.listener import Heard
    from duologue_align.rl.settings import RewardSettings

    panel = Panel()
    preset = RewardPreset.load("duologue")
    grader = Grader(preset, RewardSettings(judge="x", transcriber="seconds"), panel, EARS)  # type: ignore[arg-type]
    told: list[str] = []
    item = untold_turn()
    segment: Any = SimpleNamespace(
        id="s", axis="turn", start_s=0.0, lines=(), pcm=lambda side: (told.append(side), item.audio(0.0))[1]
    )
    said = Heard(activity=item.situation.reference, words=((6.1, " yes"),), pcm=np.zeros(0, dtype=np.float32))
    for _ in range(2):
        assert grader._marks(segment, item.situation, [said]) == [1.0]
    assert told == ["user"]
    assert panel.asked[0].user == " ".join(f"word{n}of5" for n in range(5))
    assert Grader(preset, RewardSettings(judge="x"), panel)._marks(segment, item.situation, [said]) == [None]  # type: ignore[arg-type]


def test_the_inner_monologue_needs_no_ears() -> None:
    assert Ears.open("inner-monologue") is None
    with pytest.raises(ConfigError, match="use inner-monologue, whisper"):
        Ears.open("parakeet")
