"""Mining through the command line: spoken dialogues against their script, every format, interrupts, Ray, real calls."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from duologue_align.cli import main
from duologue_align.segments import AXES, Segment, read_segments
from duologue_align.segments.rules import MiningRules
from duologue_align.segments.sets import find_segments
from duologue_align.segments.speech import analyse
from mine_cases import activity, write_stereo

ONSET_TOLERANCE_S, OFFSET_TOLERANCE_S = 0.15, 0.20
"""How far Silero's onsets and offsets may lie from the script's: its 5 to 95 % errors on hand-labelled speech."""


def _mine(source: Path, out: Path, *more: str) -> list[Segment]:
    assert main(["mine", str(source), "--out", str(out), "--quiet", *more]) == 0
    return read_segments(out)


@pytest.mark.parametrize("form", ["wav", "flac", "opus", "ogg", "mp3", "sph"])
def test_every_format(form: str, tmp_path: Path) -> None:
    write_stereo(tmp_path / "in" / f"a.{form}", rate=8000 if form == "sph" else 48_000)
    segments = _mine(tmp_path / "in", tmp_path / "out", "--codec", "none", "--set", "detector=level")
    (turn,) = [s for s in segments if s.axis == "turn" and not s.is_swapped]
    user, agent = turn.of_kind("utterance")
    assert [user.start_s, user.end_s] == pytest.approx([1.0, 7.0], abs=0.04)
    assert [agent.start_s, agent.end_s] == pytest.approx([7.2, 16.0], abs=0.04)


def test_what_is_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_stereo(tmp_path / "in" / "a.wav")
    (tmp_path / "in" / "b.wav").write_bytes(b"no sound")
    command = ["mine", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--set", "detector=level", "--quiet"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert all(axis in shown for axis in AXES)
    assert "b: " in shown
    assert "hours of audio a minute" in shown
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count('class="sample"') >= len(AXES)
    assert "http" not in page.replace("http://www.w3.org", "")
    assert all(s.user_codes().shape == (8, s.frames) for s in read_segments(tmp_path / "out"))
    assert main([*command, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary == json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["mining"]["reused"] == 1
    assert [item["name"] for item in summary["bad"]] == ["b"]


def test_nothing_usable_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"no sound")
    assert main(["mine", str(tmp_path), "--out", str(tmp_path / "out"), "--codec", "none"]) == 1
    assert main(["mine", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 2


def test_an_interrupted_command_goes_on(tmp_path: Path) -> None:
    for number in range(8):
        write_stereo(tmp_path / "in" / f"{number}.wav", rate=24_000, duration_s=20)
    out = tmp_path / "out"
    arguments = ["mine", str(tmp_path / "in"), "--out", str(out), "--codec", "none"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "duologue_align.cli", *arguments]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while len(list(out.glob("conversations/*.json"))) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    done = {path: path.stat().st_mtime_ns for path in out.glob("conversations/*.json")}
    assert process.returncode == 130, errors.decode()
    assert b"run the same command again" in errors
    assert 2 <= len(done) < 8
    assert main([*arguments, "--quiet"]) == 0
    assert done == {path: path.stat().st_mtime_ns for path in done}
    assert json.loads((out / "summary.json").read_text())["mining"]["reused"] == len(done)
    assert not list(out.rglob("*.partial"))


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Segment]]:
    """Four minutes of dialogue by the real synthesiser, with its script, and what is mined in it."""
    for package in ("hibari", "chitchat_dataset", "onnxruntime", "onnx"):
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("spoken")
    assert main(["synth", "--out", str(folder), "--hours", "0.06", "--seed", "12", "--quiet", "--audio", "flac"]) == 0
    return folder, _mine(folder / "data_stereo", folder / "mined", "--codec", "none", "--set", "turn_min_s=2")


def test_mined_events_are_the_scripted_ones(spoken: tuple[Path, list[Segment]]) -> None:
    folder, segments = spoken
    assert len(segments) >= 10
    onsets, offsets, backchannels = [], [], []
    for segment in segments:
        facts = json.loads((folder / "facts" / f"{segment.conversation}.json").read_text())
        for event in segment.events:
            if event.kind not in ("utterance", "backchannel", "pause"):
                continue
            side = {"user": "agent", "agent": "user"}[str(event.side)] if segment.is_swapped else str(event.side)
            speech = facts["spans"][side]
            starts, ends = ([span[edge] for span in speech] for edge in (0, 1))
            is_pause = event.kind == "pause"
            onsets.append(_distance(event.end_s if is_pause else event.start_s, starts))
            offsets.append(_distance(event.start_s if is_pause else event.end_s, ends))
            if event.kind == "backchannel":
                backchannels.append(_distance(event.start_s, _starts(facts, side)))
    assert _share(onsets, ONSET_TOLERANCE_S) >= 0.95
    assert _share(offsets, OFFSET_TOLERANCE_S) >= 0.95
    assert len(backchannels) >= 3
    assert _share(backchannels, 0.25) >= 0.75, "short answers are backchannels to timing, not to the script"


def test_mined_windows_are_those_of_the_script(spoken: tuple[Path, list[Segment]]) -> None:
    """The sets found in the scripted activity, against those found in the sound, edges to 0.35 s."""
    folder, segments = spoken
    mined = [(s.conversation, s.is_swapped, s.axis, s.start_s, s.end_s) for s in segments]
    scripted = []
    for path in sorted((folder / "facts").glob("*.json")):
        facts = json.loads(path.read_text())
        given = activity(facts["spans"]["user"], facts["spans"]["agent"], facts["duration_s"])
        for is_swapped in (False, True):
            talk = analyse(given.swapped() if is_swapped else given)
            found = find_segments(talk, MiningRules(turn_min_s=2.0))
            scripted += [(path.stem, is_swapped, s.axis, s.start_s, s.end_s) for s in found]
    assert _matched(scripted, mined) >= 0.8
    assert _matched(mined, scripted) >= 0.8


_Window = tuple[str, bool, str, float, float]


def _matched(wanted: Sequence[_Window], offered: Sequence[_Window]) -> float:
    def are_one(a: _Window, b: _Window) -> bool:
        return a[:3] == b[:3] and max(abs(a[3] - b[3]), abs(a[4] - b[4])) < 0.35

    return sum(any(are_one(a, b) for b in offered) for a in wanted) / len(wanted)


def _starts(facts: dict[str, Any], side: str) -> list[float]:
    return [event["start_s"] for event in facts["events"] if (event["kind"], event["side"]) == ("backchannel", side)]


def _distance(time_s: float, places: Sequence[float]) -> float:
    return min((abs(time_s - place) for place in places), default=float("inf"))


def _share(distances: Sequence[float], tolerance_s: float) -> float:
    return sum(distance <= tolerance_s for distance in distances) / len(distances)


def test_words_come_along(spoken: tuple[Path, list[Segment]]) -> None:
    turns = [segment for segment in spoken[1] if segment.axis == "turn"]
    assert turns
    for segment in turns:
        assert all(line.start_s < segment.end_s and line.end_s > segment.start_s for line in segment.lines)
        assert {line.side for line in segment.lines} == {"user", "agent"}


@pytest.mark.slow
def test_real_telephone_calls(shared_dir: Path, tmp_path: Path) -> None:
    segments = _mine(shared_dir / "data" / "real_calls", tmp_path)
    assert {s.conversation for s in segments} <= {"call40", "call49"}
    assert {"pause", "backchannel", "user_backchannel", "hold"} <= {s.axis for s in segments}
    given = next(s for s in segments if not s.is_swapped)
    assert given.user.path.name.endswith("_caller.wav")


@pytest.mark.slow
def test_a_ray_cluster_of_two_workers_finds_the_same(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'duologue[ray]'")
    for number in range(4):
        write_stereo(tmp_path / "in" / f"{number}.wav")
    (tmp_path / "in" / "bad.wav").write_bytes(b"no sound")
    more = ("--set", "detector=level")
    local = _mine(tmp_path / "in", tmp_path / "local", *more)
    cluster = _mine(tmp_path / "in", tmp_path / "ray", *more, "--engine", "ray", "--jobs", "2")
    assert [s.id for s in local] == [s.id for s in cluster]
    assert all((a.user_codes() == b.user_codes()).all() for a, b in zip(local, cluster, strict=True))
    summary = json.loads((tmp_path / "ray" / "summary.json").read_text())
    assert [item["name"] for item in summary["bad"]] == ["bad"]
    assert summary["mining"]["conversations"] == 4
