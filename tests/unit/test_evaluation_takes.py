"""What an agent did, in words with times and in Full-Duplex-Bench's files; the figures made of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duologue.audio.files import write_wav
from duologue.errors import ConfigError
from duologue.metrics.degenerate import render_speech
from duologue.types import SAMPLE_RATE_HZ
from duologue_align.corpus.conversation import Line
from duologue_align.evaluation.contestant import AGENT, BASE, HUMAN
from duologue_align.evaluation.evaluate import open_quality
from duologue_align.evaluation.fdb import (
    INDEX,
    TASKS,
    TRUTH,
    read_samples,
    read_take,
    sample_folders,
    write_index,
    write_take,
)
from duologue_align.evaluation.items import Item
from duologue_align.evaluation.quality import Quality
from duologue_align.evaluation.report import Report
from duologue_align.evaluation.static import choose_items, score_takes
from duologue_align.evaluation.take import Take, make_take, place_words
from duologue_align.judge.judge import Answer
from duologue_align.judge.panel import JudgePanel, Seat
from duologue_align.rewards.situation import Situation
from duologue_align.segments.segment import Axis
from duologue_align.sft.dialogues import SpokenWord
from duologue_align.statistics import Resampling, bootstrap, pooled_median, ratio
from judge_cases import LengthJudge

USER = ((0.5, 3.0), (3.5, 6.0))
HUMAN_SPANS = ((6.3, 11.0),)


def item(axis: Axis = "turn", number: int = 0, *, focus_s: tuple[float, float] = (0.5, 6.0)) -> Item:
    situation = Situation.from_spans(
        axis=axis, duration_s=12.0, user_spans_s=USER, reference_spans_s=HUMAN_SPANS, focus_s=focus_s
    )
    return Item(
        name=f"{axis}-{number}",
        conversation=f"call-{number}",
        situation=situation,
        has_reference=True,
        lines=(
            Line("user", 0.5, 3.0, "I lost my"),
            Line("user", 3.5, 6.0, "wallet today."),
            Line("agent", 6.3, 7, "Oh."),
        ),
        audio=lambda lead_s: np.zeros(round((12.0 + lead_s) * SAMPLE_RATE_HZ), dtype=np.float32),
    )


def words(*rows: tuple[str, float, float]) -> tuple[SpokenWord, ...]:
    return tuple(SpokenWord(*row) for row in rows)


def test_words_lie_where_they_sound() -> None:
    transcript = [(1.0, " I"), (1.08, " re"), (1.16, "mem"), (1.24, "ber."), (4.0, " mute"), (6.0, " Yes")]
    placed = place_words(transcript, [(1.04, 2.0), (6.24, 6.3)])
    assert [word.text for word in placed] == ["I", "remember.", "Yes"]
    assert placed[0] == SpokenWord("I", 1.04, 1.08)
    assert placed[1].start_s == 1.08
    assert placed[2] == SpokenWord("Yes", 6.24, 6.3)


def test_what_came_before_the_window_is_cut_off() -> None:
    pcm = render_speech([(1.0, 2.0), (4.0, 5.0)], 6.0)
    take, window = make_take(pcm, [(1.0, " before"), (4.0, " after")], lead_s=3.0)
    assert len(window) == 3 * SAMPLE_RATE_HZ
    assert take.spans_s == ((1.0, 2.0),)
    assert [(word.text, word.start_s) for word in take.words or ()] == [("after", 1.0)]


@pytest.mark.parametrize("axis", TASKS)
def test_what_is_written_is_read_back(axis: Axis, tmp_path: Path) -> None:
    take = Take(((6.5, 8.0),), words(("so", 2.0, 2.2), ("sorry", 6.5, 6.9)))
    pcm = np.zeros(12 * SAMPLE_RATE_HZ, dtype=np.float32)
    write_take(tmp_path / "x", item(axis, focus_s=(3.5, 6.0)), take, pcm, pcm, "sig")
    assert read_take(tmp_path / "x", "sig") == take
    assert read_take(tmp_path / "x", "other") is None
    chunks = json.loads((tmp_path / "x" / "output.json").read_text())["chunks"]
    assert chunks[-1] == {"text": "sorry", "timestamp": [6.5, 6.9]}
    # The benchmark hears only what follows an interruption.
    assert len(chunks) == (1 if axis == "interruption" else 2)


def test_samples_of_the_benchmark_become_items(tmp_path: Path, demo_user: Path) -> None:
    import soundfile

    pcm, rate = soundfile.read(demo_user, dtype="float32", frames=8 * 24_000)
    marks: dict[str, Any] = {
        "turn/1/turn_taking.json": [{"text": "[TURN-TAKING]", "timestamp": [5.0, 5.4]}],
        "int/1/interrupt.json": [{"context": "Tell me.", "interrupt": "Stop, please.", "timestamp": [2.0, 4.0]}],
        "pause/1/pause.json": [{"text": "[PAUSE]", "timestamp": [2.0, 2.5]}],
        "bc/1/transcription.json": [{"speaker": 0, "item": [{"text": "hi", "timestamp": [0.5, 0.7]}]}],
        "broken/1/interrupt.json": [],
    }
    for name, content in marks.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(json.dumps(content))
        write_wav((tmp_path / name).with_name("input.wav"), np.asarray(pcm).reshape(len(pcm), -1)[:, 0], rate)
    items, rejected = read_samples(tmp_path)
    assert {found.name: found.axis for found in items} == {
        "turn/1": "turn",
        "int/1": "interruption",
        "pause/1": "pause",
        "bc/1": "backchannel",
    }
    assert [entry.name for entry in rejected] == ["broken/1"]
    by_axis = {found.axis: found for found in items}
    assert by_axis["turn"].focus_s[1] == 5.0
    assert by_axis["interruption"].focus_s == (2.0, 4.0)
    assert by_axis["interruption"].user_words() == "Stop, please."
    assert len(by_axis["pause"].audio(1.0)) == by_axis["pause"].situation.ticks * 240 + SAMPLE_RATE_HZ
    silent: dict[str, list[list[Take]]] = {AGENT: [[Take((), ())] for _ in items]}
    part = score_takes(items, silent)
    assert HUMAN not in part.figures, "nobody knows what a human would have done"
    assert part.figures[AGENT]["pause", "fdb_tor_low"].interval.value == 0.0


def published_tor(chunks: list[dict[str, Any]]) -> int:
    """The rule of eval_pause_handling.py and eval_smooth_turn_taking.py, written from its description."""
    if not chunks:
        return 0
    length = chunks[-1]["timestamp"][1] - chunks[0]["timestamp"][0]
    return 0 if length < 1 and len(chunks) <= 3 else 1


@pytest.mark.parametrize(
    "said",
    [
        (),
        (("yes", 6.2, 6.5),),
        (("well", 6.2, 6.5), ("that", 6.6, 6.8), ("is", 6.8, 6.9), ("bad", 6.9, 7.1)),
        (("mm-hm", 2.0, 2.3), ("mm-hm", 8.0, 8.3)),
    ],
)
def test_our_figures_of_the_benchmark_are_those_its_rules_give_on_our_files(said: Any, tmp_path: Path) -> None:
    spans = tuple((start, end) for _, start, end in said)
    take = Take(spans, words(*said))
    for axis, name in (("pause", "fdb_tor_low"), ("turn", "fdb_tor_high"), ("interruption", "fdb_tor_high")):
        tested = item(axis, focus_s=(3.5, 6.0))
        pcm = np.zeros(12 * SAMPLE_RATE_HZ, dtype=np.float32)
        write_take(tmp_path / axis, tested, take, pcm, pcm, "")
        chunks = json.loads((tmp_path / axis / "output.json").read_text())["chunks"]
        found = score_takes([tested], {AGENT: [[take]]}).figures[AGENT]
        assert found[axis, name].interval.value == published_tor(chunks)
        if axis == "turn" and published_tor(chunks):
            marked = json.loads((tmp_path / axis / "turn_taking.json").read_text())[0]["timestamp"][0]
            latency = max(0.0, chunks[0]["timestamp"][0] - marked)
            assert found[axis, "fdb_latency_s"].interval.value == pytest.approx(latency)


def listened() -> Item:
    """A user who speaks for 12 s while the recorded human says mm-hm at 3.1 s and at 7.0 s."""
    situation = Situation.from_spans(
        axis="backchannel",
        duration_s=12.0,
        user_spans_s=[(0.5, 11.5)],
        reference_spans_s=[(3.1, 3.5), (7.0, 7.4)],
        focus_s=(0.5, 11.5),
    )
    return replace(item("backchannel"), name="listened", situation=situation, segment="call-0#ab-backchannel-000050")


def test_samples_are_numbered_and_the_truth_has_their_numbers(tmp_path: Path) -> None:
    mute = replace(item("backchannel", 1), has_reference=True)
    items = [item("turn", 0), listened(), item("turn", 1), mute]
    folders = sample_folders(items)
    assert all(folder.name.isdigit() for folder in folders.values()), "eval_backchannel.py skips other names"
    assert [folder.as_posix() for folder in folders.values()] == [
        "smooth_turn_taking/1",
        "backchannel/1",
        "smooth_turn_taking/2",
        "backchannel/2",
    ]
    write_index(tmp_path, items)
    index = json.loads((tmp_path / INDEX).read_text())
    assert index["backchannel"] == {"1": "call-0#ab-backchannel-000050", "2": mute.name}
    truth = json.loads((tmp_path / TRUTH).read_text())
    assert truth.keys() == index["backchannel"].keys()
    assert {place: share for place, share in enumerate(truth["1"]) if share} == {15: 0.5, 35: 0.5}
    assert sum(truth["2"]) == pytest.approx(1.0)
    assert len(truth["1"]) == len(truth["2"]) == 60


def test_samples_of_the_benchmark_keep_their_ids(tmp_path: Path) -> None:
    names = ("7", "icc_backchannel/7")
    items = [replace(item("backchannel"), name=name, source=tmp_path, has_reference=False) for name in names]
    assert [folder.as_posix() for folder in sample_folders(items).values()] == ["backchannel/7", "icc_backchannel/7"]
    write_index(tmp_path, items)
    assert not (tmp_path / TRUTH).exists(), "the benchmark has its own"


def test_backchannels_are_compared_with_those_of_the_recorded_human() -> None:
    tested = listened()
    said = {
        AGENT: Take(((3.1, 3.5), (7.0, 7.4)), words(("mm-hm", 3.1, 3.5), ("yeah", 7.0, 7.4))),
        BASE: Take(((1.1, 1.5), (9.0, 9.4)), words(("mm-hm", 1.1, 1.5), ("yeah", 9.0, 9.4))),
        "mute": Take((), ()),
    }
    figures = score_takes([tested], {name: [[take]] for name, take in said.items()}).figures
    distance = {name: figures[name]["backchannel", "fdb_jsd"].interval.value or 0.0 for name in (*said, HUMAN)}
    assert distance["mute"] == 1.0
    assert distance[BASE] == pytest.approx(np.sqrt(np.log(2)), abs=1e-3)
    assert 0.0 < distance[AGENT] < 0.6
    assert distance[HUMAN] == distance[AGENT]
    unknown = replace(tested, has_reference=False)
    assert ("backchannel", "fdb_jsd") not in score_takes([unknown], {AGENT: [[said[AGENT]]]}).figures[AGENT]


def test_good_and_bad_agents_are_told_apart_and_compared_in_pairs() -> None:
    items = [item("turn", number) for number in range(12)]
    good = [[Take(((6.4, 11.0),), words(("Where", 6.4, 6.7)))] for _ in items]
    mute = [[Take((), ())] for _ in items]
    part = score_takes(items, {AGENT: good, BASE: mute})
    assert part.figures[AGENT]["turn", "answered_rate"].interval.value == 1.0
    assert part.figures[BASE]["turn", "missed_rate"].interval.value == 1.0
    assert part.figures[AGENT]["turn", "fto_s"].interval.value == pytest.approx(0.4)
    assert part.verdict(BASE, ("turn", "reward")) == "worse"
    assert part.verdict(BASE, ("turn", "missed_rate")) == "worse"
    assert part.verdict("silent", ("turn", "answered_rate")) == "worse"
    assert part.verdict(BASE, ("turn", "fto_s")) == "", "an offset has no better direction"
    assert part.figures[HUMAN]["turn", "reward"].interval.value == part.figures[HUMAN]["mean", "reward"].interval.value
    mute_as_silent = [part.figures[name]["turn", "reward"].interval.value for name in (BASE, "silent")]
    assert mute_as_silent[0] == mute_as_silent[1], "having words must not move a reward of timing"
    report = Report(agents={AGENT: "x<y", BASE: "z"}, note="", data="d", static=part)
    assert "agent minus base" in report.text()
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["static"]["figures"]["silent"]["turn"]["answered_rate"] == {"value": 0.0, "ci": [0.0, 0.0], "n": 12}
    assert plain["static"]["verdicts"][BASE]["turn.reward"] == "worse"


def test_each_answer_is_judged_once_and_kept(tmp_path: Path) -> None:
    judge = LengthJudge()
    panel = JudgePanel({"similarity": (Seat(), judge)})
    items = [item("turn", number) for number in range(3)]
    said = words(("Where", 6.4, 6.7), ("was", 6.7, 6.9), ("it?", 6.9, 7.2))
    takes = {AGENT: [[Take(((6.4, 7.2),), said)] for _ in items], BASE: [[Take((), ())] for _ in items]}
    quality = Quality(panel, "fake", tmp_path / "judge.json")
    part = score_takes(items, takes, quality=quality)
    assert part.figures[BASE]["turn", "judge"].interval.value == 0.0, "who says nothing earns nothing"
    assert part.figures[AGENT]["turn", "judge"].count == 3
    kept = json.loads((tmp_path / "judge.json").read_text())
    assert len(kept) == 2
    assert "silent" in part.figures
    assert ("turn", "judge") not in part.figures["silent"]

    class Broken:
        def score(self, answers: list[Answer]) -> list[float]:
            raise AssertionError("asked again")

    again = Quality(Broken(), "fake", tmp_path / "judge.json")  # type: ignore[arg-type]
    score = again.score([Answer("I lost my wallet today.", "Where was it?")])[0]
    assert score == pytest.approx(part.figures[AGENT]["turn", "judge"].interval.value)

    class Fails:
        def score(self, answers: list[Answer]) -> list[float]:
            return [float("nan")] * len(answers)

    unknown = Answer("I lost my wallet today.", "Where was it last?")
    failed = Quality(Fails(), "fake", tmp_path / "judge.json")  # type: ignore[arg-type]
    assert failed.score([unknown]) == pytest.approx([float("nan")], nan_ok=True)
    assert len(json.loads((tmp_path / "judge.json").read_text())) == 2, "a failure is not kept"
    assert Quality(panel, "fake", tmp_path / "judge.json").score([unknown])[0] > 0, "it is asked again"


def test_scores_are_kept_by_what_the_panel_is_set_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUOLOGUE_JUDGE_URL", "http://localhost:9/v1")
    names = []
    for model in ("qwen2.5-7b", "qwen2.5-72b"):
        monkeypatch.setenv("DUOLOGUE_JUDGE_MODEL", model)
        names.append(open_quality("endpoint", None).name)
    changed = tmp_path / "mine.toml"
    for weight in (1.0, 2.0):
        changed.write_text(f"[rating]\nweight = {weight}\n")
        names.append(open_quality(str(changed), None).name)
    assert len(set(names)) == 4


def test_items_come_from_many_conversations() -> None:
    many = [item("turn", 0) for _ in range(1)]
    many = [replace(item("turn", k // 5), name=f"i{k}") for k in range(20)]
    chosen = choose_items(many, 4)
    assert len({found.conversation for found in chosen}) == 4
    assert choose_items(many, None) != chosen
    assert len(choose_items(many, None)) == 20


def test_shared_resamples_agree_with_the_plain_bootstrap() -> None:
    rng = np.random.default_rng(0)
    parts = [(float(rng.binomial(10, 0.3)), 10.0) for _ in range(40)]
    times = [list(rng.normal(0.3, 0.2, rng.integers(0, 4))) for _ in range(40)]
    resampling = Resampling(40, draws=4000)
    for ours, plain in (
        (resampling.ratio(parts).interval, bootstrap(parts, ratio)),
        (resampling.median(times).interval, bootstrap(times, pooled_median)),
    ):
        assert ours.value == plain.value
        assert (ours.low, ours.high) == pytest.approx((plain.low, plain.high), abs=0.03)
    assert resampling.ratio(parts).minus(resampling.ratio(parts)).interval.high == 0.0
    assert resampling.median([[] for _ in range(40)]).interval.value is None
    assert resampling.ratio([(0.0, 0.0)] * 40).interval.low is None


def test_nothing_to_evaluate_on_is_refused() -> None:
    from duologue_align.evaluation.static import StaticOptions, evaluate_static

    with pytest.raises(ConfigError, match="nothing to evaluate"):
        evaluate_static([], [], StaticOptions())
    for wrong in ({"seeds": 0}, {"lead_s": -1.0}, {"per_axis": 0}):
        with pytest.raises(ConfigError):
            StaticOptions(**wrong)  # type: ignore[arg-type]
