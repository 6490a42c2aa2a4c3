"""Choosing a device by index, name and host API, and what is said when that fails."""

from __future__ import annotations

import sys
from multiprocessing import Pipe
from pathlib import Path

import pytest

from duologue.audio import driver, live
from duologue.audio.devices import DeviceInfo, choose_device
from duologue.audio.driver import PortAudioSpec
from duologue.audio.port import SharedPort
from duologue.audio.portaudio import import_sounddevice
from duologue.audio.wire import Failure
from duologue.errors import DeviceError, MissingExtraError
from sound_libraries import require_sounddevice


def _device(index: int, name: str, host_api: str, inputs: int, outputs: int, **flags: bool) -> DeviceInfo:
    return DeviceInfo(
        index=index,
        name=name,
        host_api=host_api,
        input_channels=inputs,
        output_channels=outputs,
        default_hz=48_000,
        **flags,
    )


DEVICES = [
    _device(0, "HDA Intel: Analog", "ALSA", 2, 2),
    _device(1, "USB Headset", "ALSA", 1, 2, is_default_input=True),
    _device(2, "USB Headset", "JACK Audio Connection Kit", 1, 2),
    _device(3, "HDMI Monitor", "ALSA", 0, 8, is_default_output=True),
]


def test_nothing_named_takes_the_default_of_the_side() -> None:
    assert choose_device(DEVICES, None, "input").index == 1
    assert choose_device(DEVICES, None, "output").index == 3
    assert choose_device(DEVICES, None, "input", host_api="jack").index == 2


def test_an_index_or_a_part_of_a_name_is_enough() -> None:
    assert choose_device(DEVICES, 0, "input").index == 0
    assert choose_device(DEVICES, "hdmi", "output").index == 3
    assert choose_device(DEVICES, "usb headset", "input", host_api="JACK").index == 2


def test_a_whole_name_wins_over_a_part() -> None:
    devices = [_device(0, "mic", "JACK", 1, 0), _device(1, "mic 2", "JACK", 1, 0)]
    assert choose_device(devices, "mic", "input").index == 0


@pytest.mark.parametrize(
    ("wanted", "side", "host_api", "message"),
    [
        ("HDMI", "input", None, "no microphone is called 'HDMI'; choose one of: 0 'HDA Intel: Analog' (ALSA)"),
        (3, "input", None, "device 3 is no microphone here; choose one of: 0"),
        (9, "output", None, "device 9 is no loudspeaker here"),
        (
            "usb",
            "input",
            None,
            "'usb' fits several: 1 'USB Headset' (ALSA), 2 'USB Headset' (JACK Audio Connection Kit)",
        ),
        (None, "input", "CoreAudio", "no microphone in host API 'CoreAudio'; host APIs here: ALSA, JACK"),
    ],
)
def test_a_wrong_choice_says_what_there_is(wanted: object, side: str, host_api: str | None, message: str) -> None:
    with pytest.raises(DeviceError) as raised:
        choose_device(DEVICES, wanted, side, host_api=host_api)  # type: ignore[arg-type]
    assert message in str(raised.value)


def test_a_machine_without_sound_says_what_to_do() -> None:
    with pytest.raises(DeviceError, match="this machine has no loudspeaker; plug one in"):
        choose_device(DEVICES[:0], None, "output")


def test_without_sounddevice_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(MissingExtraError, match=r"duologue\[audio\]"):
        import_sounddevice()


def test_without_portaudio_the_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tmp_path.joinpath("sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DeviceError, match="apt-get install libportaudio2"):
        import_sounddevice()


def test_errors_of_the_driver_process_keep_their_class() -> None:
    error = Failure.of(MissingExtraError("sounddevice", "audio")).error()
    assert isinstance(error, MissingExtraError)
    assert "duologue[audio]" in str(error)
    assert "KeyError" in str(Failure.of(KeyError("x")).error())


def test_a_device_that_does_not_exist_is_refused_by_the_driver_process() -> None:
    require_sounddevice()
    shared = SharedPort()
    try:
        with pytest.raises(DeviceError):
            PortAudioSpec(input="no such microphone").open(shared)
    finally:
        shared.close()


def test_a_driver_process_that_dies_is_a_device_error() -> None:
    pipe, process = driver._start("list")
    process.kill()
    with pytest.raises(DeviceError, match=r"ended \(exit code -9\)"):
        driver._answer(pipe, process)


def test_whatever_the_driver_meets_reaches_the_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ValueError("odd device")

    for name in ("_quiet", "signal.signal", "os._exit"):
        monkeypatch.setattr(f"duologue.audio.driver.{name}", lambda *_: None)
    monkeypatch.setattr("duologue.audio.portaudio.query_devices", fail)
    ours, theirs = Pipe()
    driver._serve(theirs, "list")
    error = ours.recv()
    assert isinstance(error, DeviceError)
    assert "ValueError: odd device" in str(error)


def test_the_host_waits_longer_for_a_device_than_the_driver_may_take() -> None:
    assert live._DEVICE_ANSWER_S > 2 * driver.ANSWER_S + 2 * driver.STOP_S
