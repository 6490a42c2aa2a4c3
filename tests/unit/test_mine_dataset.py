"""Whole folders mined with a tiny codec: what is written, what is reused, what is refused."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from codec_cases import TINY, write_mimi
from duologue.codec import Mimi
from duologue.errors import ConfigError, MissingExtraError, WeightsError
from duologue_align.corpus.conversation import Conversation
from duologue_align.segments import AXES, Segment, read_segments
from duologue_align.segments import dataset as dataset_module
from duologue_align.segments.codes import Codec, plan_stretches
from duologue_align.segments.dataset import MiningOptions, mine
from duologue_align.segments.engines import run_tasks
from duologue_align.segments.mining import MiningTask, Outcome, mine_conversation, split_of
from duologue_align.segments.page import render_page
from duologue_align.segments.rules import MiningRules
from duologue_align.segments.selection import Selection
from duologue_align.segments.summary import MiningSummary, summary_table
from mine_cases import AGENT, DURATION_S, USER, write_mono, write_stereo

RULES = MiningRules(detector="level", context_s=10.0)


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Codec:
    folder = tmp_path_factory.mktemp("codec")
    weights = write_mimi(folder)
    (folder / "mimi_config.json").write_text(json.dumps(TINY.to_dict()))
    return Codec.find(weights)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three usable conversations in three formats and rates, and four files that are none."""
    folder = tmp_path_factory.mktemp("source")
    write_stereo(folder / "one.flac", rate=24_000)
    write_stereo(folder / "deep" / "two.wav", rate=44_100)
    write_mono(folder / "three_agent.wav", AGENT, rate=8000, seed=1)
    write_mono(folder / "three_caller.wav", USER, rate=8000, seed=2)
    (folder / "noise.wav").write_bytes(b"RIFF....WAVEnot really")
    write_mono(folder / "mono.wav", USER)
    write_stereo(folder / "same.wav", user=USER, agent=USER)
    whole = write_stereo(folder / "cut.flac").read_bytes()
    (folder / "cut.flac").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture(scope="module")
def mined(source: Path, codec: Codec, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MiningSummary]:
    out = tmp_path_factory.mktemp("mined")
    return out, mine([source], out, MiningOptions(rules=RULES, codec=codec))


def test_good_files_are_mined_and_bad_ones_reported(mined: tuple[Path, MiningSummary]) -> None:
    out, summary = mined
    assert summary.conversations == 3
    assert summary.hours == pytest.approx(3 * DURATION_S / 3600)
    reasons = {item.name: item.reason for item in summary.bad}
    assert sorted(reasons) == ["cut", "mono", "noise", "same"]
    assert "not a readable recording" in reasons["noise"]
    assert "no channel 1" in reasons["mono"]
    assert "same sound" in reasons["same"]
    written = json.loads((out / "summary.json").read_text())
    assert {item["name"] for item in written["bad"]} == set(reasons)
    assert written["axes"]["pause"]["kept"] == summary.axes["pause"].kept
    assert written["mining"]["conversations"] == 3
    assert written["mining"]["hours_per_minute"] > 0
    assert str(source_name := "mono") in summary_table(summary)
    assert source_name in render_page(summary, read_segments(out))


def test_events_are_those_of_the_recording(mined: tuple[Path, MiningSummary]) -> None:
    """The scripted minute, in every format and rate, to 20 ms."""
    out, _ = mined
    for conversation in ("one", "deep/two", "three"):
        given = [s for s in read_segments(out) if s.conversation == conversation and not s.is_swapped]
        turn, back, hold, other = (
            next(s for s in given if s.axis == axis) for axis in ("turn", "backchannel", "hold", "interruption")
        )
        (transfer,) = turn.of_kind("floor_transfer")
        assert transfer.value_s == pytest.approx(0.2, abs=0.02)
        (said,) = back.of_kind("backchannel", "agent")
        assert (said.start_s, said.end_s) == (pytest.approx(22.0, abs=0.02), pytest.approx(22.5, abs=0.02))
        (pause,) = hold.of_kind("pause")
        assert (pause.start_s, pause.end_s) == (pytest.approx(33.0, abs=0.02), pytest.approx(33.5, abs=0.02))
        (begun,) = other.of_kind("interruption")
        assert begun.start_s == pytest.approx(50.0, abs=0.02)
        (stopped,) = other.of_kind("agent_yielded")
        assert stopped.value_s == pytest.approx(1.0, abs=0.03)


def test_windows_are_whole_frames_around_the_events(mined: tuple[Path, MiningSummary]) -> None:
    out, _ = mined
    segments = read_segments(out)
    assert {s.axis for s in segments} == set(AXES)
    assert any(s.is_swapped for s in segments)
    for segment in segments:
        assert segment.start_s == pytest.approx(segment.first_frame * 0.08)
        assert segment.frames == pytest.approx(segment.duration_s / 0.08)
        said = segment.of_kind("utterance")
        assert 0 <= min(event.start_s for event in said) - segment.start_s < 0.08
        assert 0 <= segment.end_s - max(event.end_s for event in said) < 0.08
        assert segment.user.path.is_absolute()
        spans = segment.user_spans + segment.agent_spans
        assert all(segment.start_s <= a < b <= segment.end_s for a, b in spans)


def test_all_segments_of_a_conversation_are_in_its_split(mined: tuple[Path, MiningSummary]) -> None:
    out, _ = mined
    for segment in read_segments(out):
        assert segment.split == split_of(segment.conversation, RULES)


def test_splits_have_their_shares() -> None:
    names = [f"conversation {number}" for number in range(4000)]
    splits = [split_of(name, MiningRules(dev_share=0.2, test_share=0.05)) for name in names]
    assert splits.count("dev") / 4000 == pytest.approx(0.2, abs=0.02)
    assert splits.count("test") / 4000 == pytest.approx(0.05, abs=0.01)


def test_codes_are_those_of_a_stream_that_begins_with_the_context(
    mined: tuple[Path, MiningSummary], codec: Codec
) -> None:
    out, _ = mined
    mimi = codec.load()
    segments = {s.axis + str(s.is_swapped): s for s in read_segments(out) if s.conversation == "three"}
    assert len(segments) > 5
    for segment in segments.values():
        context = segment.context_frames
        assert context >= min(segment.first_frame, 125)
        codes = segment.user_codes(context_frames=context)
        assert codes.shape == (8, context + segment.frames)
        pcm = segment.pcm("user", context_s=context * 0.08)
        stream = mimi.stream()
        expected = np.stack([stream.encode_step(frame) for frame in pcm.reshape(-1, 1920)], axis=1)
        assert np.array_equal(codes, expected)
        assert np.array_equal(segment.user_codes(), expected[:, context:])


def test_reading_by_split_and_set(mined: tuple[Path, MiningSummary]) -> None:
    out, summary = mined
    everything = read_segments(out)
    assert len({segment.id for segment in everything}) == len(everything)
    for axis in AXES:
        assert [s for s in everything if s.axis == axis] == read_segments(out, axis=axis)
        assert len(read_segments(out, axis=axis)) == summary.axes[axis].kept
    by_split = [read_segments(out, split=split) for split in ("train", "dev", "test")]  # type: ignore[arg-type]
    assert sorted(s.id for part in by_split for s in part) == sorted(s.id for s in everything)
    with pytest.raises(ConfigError, match="there is no split"):
        read_segments(out, split="valid")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="there is no set"):
        read_segments(out, axis="turns")  # type: ignore[arg-type]
    segment = everything[0]
    with pytest.raises(ConfigError, match="frames of context"):
        segment.user_codes(context_frames=segment.context_frames + 1)
    with pytest.raises(ConfigError, match="no codes were made"):
        replace(segment, codes_place=None).user_codes()


def test_a_damaged_manifest_or_codes_file_says_so(mined: tuple[Path, MiningSummary], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(mined[0], copy)
    segment = read_segments(copy)[0]
    assert segment.codes_place is not None
    (copy / segment.codes_place.file).write_bytes(b"\x08")
    with pytest.raises(WeightsError, match="mine again"):
        segment.user_codes()
    (copy / "segments.jsonl").write_text('{"axis": "pause"}\n')
    with pytest.raises(ConfigError, match="malformed"):
        read_segments(copy)
    with pytest.raises(ConfigError, match="duologue-align mine"):
        read_segments(tmp_path)


def test_a_second_run_does_nothing_again(
    mined: tuple[Path, MiningSummary], source: Path, codec: Codec, tmp_path: Path
) -> None:
    out = tmp_path / "again"
    shutil.copytree(mined[0], out)
    before = {path: path.stat().st_mtime_ns for path in (*out.glob("conversations/*"), *out.glob("codes/*"))}
    summary = mine([source], out, MiningOptions(rules=RULES, codec=codec))
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert (summary.mining.conversations, summary.mining.reused) == (0, 3)
    assert summary.encoding.conversations == 0
    assert (out / "segments.jsonl").read_bytes() == (mined[0] / "segments.jsonl").read_bytes()


def test_other_rules_do_not_listen_again(
    mined: tuple[Path, MiningSummary], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "again"
    shutil.copytree(mined[0], out)
    bad = {item.name for item in mined[1].bad}

    def refuse(user: object, agent: object, detector: str) -> None:
        from duologue.errors import AudioError

        raise AudioError("listened")

    monkeypatch.setattr("duologue_align.segments.mining.listen", refuse)
    summary = mine([source], out, MiningOptions(rules=replace(RULES, turn_min_s=4.5)))
    assert {item.name for item in summary.bad} == bad
    assert summary.axes["turn"].found >= mined[1].axes["turn"].found
    assert summary.mining.conversations == 3
    assert summary.mining.hours_per_minute is None


def test_an_interrupted_run_goes_on(
    source: Path, codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def stop_after_one(task: MiningTask) -> Outcome:
        if done:
            raise KeyboardInterrupt
        outcome = mine_conversation(task)
        if not outcome.error:
            done.append(outcome.name)
        return outcome

    monkeypatch.setattr(dataset_module, "mine_conversation", stop_after_one)
    with pytest.raises(KeyboardInterrupt):
        mine([source], tmp_path, MiningOptions(rules=RULES, codec=codec))
    assert not (tmp_path / "segments.jsonl").exists()
    monkeypatch.undo()
    summary = mine([source], tmp_path, MiningOptions(rules=RULES, codec=codec))
    assert (summary.mining.reused, summary.mining.conversations) == (1, 2)


def test_a_changed_recording_is_mined_again(tmp_path: Path) -> None:
    path = write_stereo(tmp_path / "in" / "a.wav")
    options = MiningOptions(rules=RULES)
    first = mine([path.parent], tmp_path / "out", options)
    write_stereo(path, user=[(1.0, 3.0), (3.4, 6.0)], agent=[])
    second = mine([path.parent], tmp_path / "out", options)
    assert first.axes["turn"].found == 1
    assert (second.axes["turn"].found, second.axes["pause"].found) == (0, 1)


def test_another_codec_encodes_again_and_nothing_else(
    mined: tuple[Path, MiningSummary], source: Path, codec: Codec, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(mined[0], tmp_path / "out"))
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "mimi.safetensors"
    tensors = load_file(codec.weights)
    save_file({name: -tensor for name, tensor in tensors.items()}, other)
    (tmp_path / "other" / "mimi_config.json").write_text(json.dumps(TINY.to_dict()))
    before = {s.id: s.user_codes() for s in read_segments(mined[0])}
    summary = mine([source], out, MiningOptions(rules=RULES, codec=Codec.find(other)))
    assert summary.mining.conversations == 0
    assert summary.mining.hours == 0
    assert summary.encoding.conversations == 3
    after = {s.id: s.user_codes() for s in read_segments(out)}
    assert after.keys() == before.keys()
    assert any(not np.array_equal(after[name], before[name]) for name in before)


def test_jobs_change_nothing(mined: tuple[Path, MiningSummary], source: Path, codec: Codec, tmp_path: Path) -> None:
    mine([source], tmp_path, MiningOptions(rules=RULES, codec=codec, jobs=2))
    assert (tmp_path / "segments.jsonl").read_bytes() == (mined[0] / "segments.jsonl").read_bytes()
    for file in mined[0].glob("codes/*"):
        assert (tmp_path / "codes" / file.name).read_bytes() == file.read_bytes()


def test_the_draw_is_of_n_and_depends_on_the_seed(mined: tuple[Path, MiningSummary]) -> None:
    segments = read_segments(mined[0])
    drawn = [_draw(segments, per_axis=1, seed=seed) for seed in range(8)]
    assert all(len(chosen) == len(AXES) for chosen in drawn)
    assert len({tuple(s.id for s in chosen) for chosen in drawn}) > 1
    assert _draw(segments[::-1], per_axis=1, seed=0) == drawn[0]
    two = _draw(segments, per_axis=2, seed=0)
    assert set(s.id for s in drawn[0]) < set(s.id for s in two), "a larger draw holds the smaller one"


def _draw(segments: Sequence[Segment], *, per_axis: int, seed: int) -> list[Segment]:
    selection = Selection(per_axis=per_axis, seed=seed)
    selection.add(segments)
    return selection.chosen()


def test_one_role(source: Path, tmp_path: Path) -> None:
    mine([source], tmp_path, MiningOptions(rules=replace(RULES, both_roles=False)))
    assert not any(segment.is_swapped for segment in read_segments(tmp_path))


def test_stretches_join_what_overlaps(mined: tuple[Path, MiningSummary]) -> None:
    segment = read_segments(mined[0], axis="hold")[0]
    side = "agent" if segment.is_swapped else "user"
    pieces = [replace(segment, start_s=start_s, end_s=start_s + 8.0) for start_s in (0.0, 16.0, 40.0)]
    assert plan_stretches(pieces, 8.0) == ((side, 0, 300), (side, 400, 600))


def test_what_cannot_be(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file or folder"):
        Codec.find(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"holds no mimi\.safetensors"):
        Codec.find(tmp_path)
    (tmp_path / "mimi.safetensors").write_bytes(b"nothing")
    with pytest.raises(WeightsError):
        mine([source], tmp_path / "out", MiningOptions(codec=Codec.find(tmp_path)))
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="is a file"):
        mine([source], tmp_path / "mimi.safetensors", MiningOptions(rules=RULES))
    for options in ({"per_axis": 0}, {"jobs": 0}):
        with pytest.raises(ConfigError, match="give 1 or more"):
            MiningOptions(**options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="unknown engine"):
        run_tasks(str, [1], engine="slurm")  # type: ignore[arg-type]


def test_an_unexpected_failure_of_one_conversation_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def burst(conversation: Conversation, activity: object, rules: MiningRules) -> None:
        raise RuntimeError("strange\nfile")

    path = write_stereo(tmp_path / "in" / "a.wav")
    monkeypatch.setattr("duologue_align.segments.mining._segments", burst)
    summary = mine([path.parent], tmp_path / "out", MiningOptions(rules=RULES))
    assert [(item.name, item.reason) for item in summary.bad] == [("a", "RuntimeError: strange file")]


def test_ray_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"duologue\[ray\]"):
        list(run_tasks(str, [1], engine="ray"))


def test_parquet_holds_the_same_segments(mined: tuple[Path, MiningSummary]) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    out, summary = mined
    assert summary.has_parquet
    ids = parquet.read_table(out / "segments.parquet").column("id").to_pylist()
    assert ids == [segment.id for segment in read_segments(out)]


def test_mimi_of_a_folder(codec: Codec) -> None:
    assert Codec.find(codec.weights.parent) == codec
    assert isinstance(codec.load(), Mimi)
