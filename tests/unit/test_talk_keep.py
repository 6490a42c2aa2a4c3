"""What a live conversation leaves behind, and how its options are read."""

from __future__ import annotations

import io
import json
import math
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from duologue.audio.devices import DeviceInfo
from duologue.audio.driver import PortAudioSpec
from duologue.audio.echo import EchoAgent
from duologue.audio.fake import FakeSpec
from duologue.cli import main
from duologue.errors import ConfigError, DeviceError
from duologue.metrics.summary import build_report
from duologue.session import Session
from duologue.talk import devices
from duologue.talk.choice import AgentChoice, seed_for
from duologue.talk.control import Take
from duologue.talk.device_choice import device_spec, next_device
from duologue.talk.jsonl import LineWriter, stream_lines
from duologue.talk.keep import keep, partial_recording
from duologue.types import FRAME_SAMPLES
from talk_case import frame, setup, stats


def _take(agent: str, first_frame: int) -> Take:
    return Take(agent=agent, report=build_report([], 1.0), transcript=[(0.5, " hello")], first_frame=first_frame)


def test_each_take_keeps_its_report_and_its_sound(tmp_path: Path) -> None:
    recording = partial_recording(tmp_path / "tapes")
    pcm = np.random.default_rng(0).integers(-9000, 9000, (10 * FRAME_SAMPLES, 2)).astype(np.int16)
    soundfile.write(recording, pcm, 24_000)
    takes = [_take("first", 0), _take("second", 3), _take("third", 7)]
    files = keep(takes, tmp_path / "out", note="a note", recording=recording)
    parts = []
    for folder in (tmp_path / "tapes" / name for name in ("earlier-1", "earlier-2", ".")):
        part, rate_hz = soundfile.read(folder / "conversation.wav", dtype="int16")
        assert rate_hz == 24_000
        parts.append(part)
    assert [len(part) // FRAME_SAMPLES for part in parts] == [3, 4, 3]
    assert np.array_equal(np.concatenate(parts), pcm)
    assert not recording.exists()
    assert [path.is_file() for path in files] == [True] * 3
    page = (tmp_path / "out" / "earlier-2" / "report.html").read_text()
    assert "second" in page
    assert "../../tapes/earlier-2/conversation.wav" in page
    assert json.loads((tmp_path / "out" / "report.json").read_text())["duration_s"] == 1.0


def test_without_a_recording_there_is_no_sound(tmp_path: Path) -> None:
    keep([_take("only", 0)], tmp_path, note="", recording=None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]
    assert "<audio" not in (tmp_path / "report.html").read_text()


def test_a_recording_that_broke_off_is_named_and_left(tmp_path: Path) -> None:
    recording = partial_recording(tmp_path)
    with pytest.raises(ConfigError, match="broke off"):
        keep([_take("only", 0)], tmp_path / "out", note="", recording=recording)
    assert recording.exists()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot record there"):
        partial_recording(tmp_path / "file" / "below")


class _Noted(EchoAgent):
    __slots__ = ("seeds",)

    def session(self, *, seed: int = 0) -> Session:
        seeds.append((self.note, seed))
        return super().session()


seeds: list[tuple[str, int]] = []


def test_the_seed_carries_the_choice() -> None:
    choice = AgentChoice([_Noted(note="a"), _Noted(note="b"), _Noted(note="c")])
    for index in (0, 2, 1):
        choice.session(seed=seed_for(index, 17, 3)).close()
        assert choice.note == "abc"[index]
    assert seeds == [("a", 17), ("c", 17), ("b", 17)]


def test_devices_are_chosen_by_index_name_or_faked(tmp_path: Path, demo_user: Path) -> None:
    assert device_spec("3", "USB") == PortAudioSpec(input=3, output="USB")
    assert device_spec(None, None) == PortAudioSpec()
    assert device_spec(None, "USB", "JACK") == PortAudioSpec(output="USB", host_api="JACK")
    assert device_spec("fake", None) == FakeSpec()
    assert device_spec("fake:demo", "fake") == FakeSpec(user=str(demo_user))
    assert device_spec(f"fake:{demo_user}", None) == FakeSpec(user=str(demo_user))
    for arguments, message in (
        (("fake", "1"), "leave out --output 1"),
        ((None, "fake"), "needs --input fake"),
        ((f"fake:{tmp_path}/no.wav", None), "no such recording"),
    ):
        with pytest.raises(ConfigError, match=message):
            device_spec(*arguments)


def test_lines_are_json_whatever_they_hold() -> None:
    stream = io.StringIO()
    writer = LineWriter(stream)
    writer.write_setup(setup(), seed=3)
    writer.write_event(frame(0))
    writer.write_stats(stats(drift_ppm=math.nan))
    writer.write_report(build_report([], 2.0), ["a"])
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["type"] for line in lines] == ["ready", "frame", "stats", "report"]
    assert lines[0]["device"]["input_name"] == "mic"
    assert lines[1]["user_dbfs"] is None
    assert lines[1]["agent_dbfs"] == -20.0
    assert lines[2]["drift_ppm"] is None
    assert "cdf" not in lines[2]["resample"]
    assert lines[3]["report"]["duration_s"] == 2.0
    stream.close()
    writer.write("frame")
    assert writer.is_broken


class _Live:
    """A conversation that tells one frame and goes on."""

    is_running = True

    def on(self, kind: str, handler: object) -> None:
        assert callable(handler)
        handler(frame(0))

    def stats(self) -> object:
        return stats()


def test_lines_end_with_the_time_a_signal_or_the_reader() -> None:
    stream = io.StringIO()
    stream_lines(_Live(), LineWriter(stream), threading.Event(), seconds=0.01)  # type: ignore[arg-type]
    assert [json.loads(line)["type"] for line in stream.getvalue().splitlines()] == ["frame", "stats"]
    stop = threading.Event()
    stop.set()
    stream = io.StringIO()
    stream_lines(_Live(), LineWriter(stream), stop, seconds=None)  # type: ignore[arg-type]
    assert stream.getvalue().count("\n") == 1
    stream.close()
    stream_lines(_Live(), LineWriter(stream), threading.Event(), seconds=None)  # type: ignore[arg-type]


FOUND = [
    DeviceInfo(
        index=0,
        name="Mic",
        host_api="ALSA",
        input_channels=1,
        output_channels=0,
        default_hz=48e3,
        is_default_input=True,
    ),
    DeviceInfo(index=12, name="A longer name", host_api="JACK", input_channels=2, output_channels=2, default_hz=24e3),
]


def test_devices_are_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("duologue.audio.devices.list_devices", lambda: FOUND)
    assert main(["devices"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].split() == ["i", "0", "Mic", "ALSA", "1", "0", "48000"]
    assert len({line.index("ALSA" if "ALSA" in line else "JACK") for line in printed[1:3]}) == 1
    assert main(["devices", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[1]["name"] == "A longer name"
    assert "No sound device" in devices.device_table([])


def _device(index: int, name: str, host_api: str, inputs: int, outputs: int) -> DeviceInfo:
    return DeviceInfo(
        index=index, name=name, host_api=host_api, input_channels=inputs, output_channels=outputs, default_hz=48_000.0
    )


DEVICES = [
    _device(0, "USB", "ALSA", 1, 2),
    _device(1, "HDMI", "ALSA", 0, 2),
    _device(2, "default", "ALSA", 2, 2),
    _device(3, "default", "JACK", 2, 2),
    _device(4, "PortAudio", "JACK", 2, 2),
]


def test_the_next_device_goes_round_and_leaves_the_other_side() -> None:
    spec: object = PortAudioSpec(input="USB", output=0)
    rounds = [("input", "USB", (2, 0)), ("input", "default", (3, 0)), ("input", "default", ("USB", 0))]
    for side, name, wanted in [*rounds, ("output", "USB", ("USB", "HDMI"))]:
        spec = next_device(spec, side, name, lambda: DEVICES)  # type: ignore[arg-type]
        assert isinstance(spec, PortAudioSpec)
        assert (spec.input, spec.output) == wanted
    spec = PortAudioSpec(input="USB")
    gone = next_device(spec, "input", "unplugged", lambda: DEVICES)
    assert isinstance(gone, PortAudioSpec)
    assert gone.input == "USB"


def test_devices_of_one_name_are_all_reached() -> None:
    twins = [_device(index, name, "ALSA", 1, 0) for index, name in enumerate(["USB", "USB", "Built-in"])]
    spec, name, met = PortAudioSpec(input="Built-in"), "Built-in", []
    for _ in range(4):
        found = next_device(spec, "input", name, lambda: twins)
        assert isinstance(found, PortAudioSpec)
        spec = found
        met.append(found.input)
        name = twins[found.input].name if isinstance(found.input, int) else str(found.input)
    assert met == [0, 1, "Built-in", 0]
    twins[1] = replace(twins[1], is_default_input=True)
    default = next_device(PortAudioSpec(), "input", "USB", lambda: twins)
    assert isinstance(default, PortAudioSpec)
    assert default.input == "Built-in"


def test_no_other_device_is_said() -> None:
    with pytest.raises(DeviceError, match="no other microphone"):
        next_device(PortAudioSpec(), "input", "USB", lambda: DEVICES[:2])
    with pytest.raises(DeviceError, match="no other loudspeaker"):
        next_device(PortAudioSpec(), "output", "gone", lambda: [])
    with pytest.raises(ConfigError, match="start without --input fake"):
        next_device(FakeSpec(), "output", "fake", lambda: DEVICES)


def test_every_talk_is_recorded_into_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recordings: list[Path] = []

    def refuse(_options: object, _config: object, recording: Path) -> None:
        recordings.append(recording)
        raise DeviceError("no device")

    monkeypatch.setattr("duologue.talk.command._open", refuse)
    (tmp_path / "c.toml").write_text(f'record = "{tmp_path / "calls"}"\n')
    options = ["talk", "--json", "--config", str(tmp_path / "c.toml")]
    for more in ([], [], ["--record", str(tmp_path / "tapes")]):
        main(options + more)
    first, second, named = (path.parent for path in recordings)
    assert first != second
    assert first.parent == second.parent == tmp_path / "calls"
    assert named == tmp_path / "tapes"


def test_a_talk_that_never_began_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_options: object, _config: object, recording: Path) -> None:
        assert recording.is_file()
        raise DeviceError("no device")

    monkeypatch.setattr("duologue.talk.command._open", refuse)
    (tmp_path / "mine").mkdir()
    for folder in ("deep/in/there", "mine", "mine/new"):
        assert main(["talk", "--json", "--record", str(tmp_path / folder)]) == 2
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]
