"""PortAudio through sounddevice, with the native callback in place of a Python one."""

from __future__ import annotations

from contextlib import suppress
from itertools import product
from typing import TYPE_CHECKING, Any

from duologue._native import AudioPort, audio_callback_address
from duologue.audio.device import StreamInfo
from duologue.audio.devices import DeviceInfo, choose_device
from duologue.errors import DeviceError, MissingExtraError
from duologue.types import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from duologue.audio.driver import PortAudioSpec

_RATES_HZ = (24_000, 48_000, 44_100, 16_000)
_Attempt = tuple[tuple[DeviceInfo, DeviceInfo], tuple[int, int], tuple[float, float], bool]


def import_sounddevice() -> Any:
    """Return the sounddevice module.

    Raises:
        MissingExtraError: If it is not installed.
        DeviceError: If it finds no PortAudio library.
    """
    try:
        import sounddevice  # type: ignore[import-untyped, unused-ignore]
    except ModuleNotFoundError as error:
        raise MissingExtraError("sounddevice", "audio") from error
    except OSError as error:
        raise DeviceError("PortAudio is not installed; on Debian: apt-get install libportaudio2") from error
    return sounddevice


def query_devices() -> list[DeviceInfo]:
    """List the devices that PortAudio sees now.

    Raises:
        MissingExtraError: If sounddevice is not installed.
        DeviceError: If PortAudio is missing or fails.
    """
    sounddevice = import_sounddevice()
    try:
        host_apis = sounddevice.query_hostapis()
        raw = sounddevice.query_devices()
        default_input, default_output = sounddevice.default.device
    except sounddevice.PortAudioError as error:
        raise DeviceError(f"PortAudio cannot list devices: {error}") from error
    if default_input < 0 or default_output < 0:
        ordered = sorted(host_apis, key=lambda api: len(api["devices"]), reverse=True)
        default_input = next((api["default_input_device"] for api in ordered if api["default_input_device"] >= 0), -1)
        default_output = next((a["default_output_device"] for a in ordered if a["default_output_device"] >= 0), -1)
    return [
        DeviceInfo(
            index=index,
            name=one["name"],
            host_api=host_apis[one["hostapi"]]["name"],
            input_channels=one["max_input_channels"],
            output_channels=one["max_output_channels"],
            default_hz=float(one["default_samplerate"]),
            is_default_input=index == default_input,
            is_default_output=index == default_output,
        )
        for index, one in enumerate(raw)
    ]


class Streams:
    """The one or two PortAudio streams of a conversation."""

    def __init__(self, streams: list[Any], info: StreamInfo) -> None:
        """Keep the opened streams."""
        self._streams, self.info = streams, info

    def start(self) -> None:
        """Let the audio flow.

        Raises:
            DeviceError: If PortAudio refuses.
        """
        sounddevice = import_sounddevice()
        try:
            for stream in self._streams:
                stream.start()
        except sounddevice.PortAudioError as error:
            raise DeviceError(f"the sound device does not start: {error}") from error

    def close(self) -> None:
        """Stop at once. Hangs when the sound server is dead, so call it from a thread that may be abandoned."""
        # Stopping instead of aborting would wait for the loudspeaker to drain, which a stalled sink never does.
        for stream in self._streams:
            with suppress(Exception):
                stream.abort()
                stream.close()


def open_streams(spec: PortAudioSpec, port: AudioPort) -> Streams:
    """Open what `spec` asks for and configure the port.

    Raises:
        MissingExtraError: If sounddevice is not installed.
        DeviceError: If a device does not exist or PortAudio refuses it.
    """
    failures: list[str] = []
    for pair, channels, rates_hz, is_split in _attempts(spec, query_devices()):
        port.configure(
            input_hz=rates_hz[0], output_hz=rates_hz[1], input_channels=channels[0], output_channels=channels[1]
        )
        try:
            streams = _open_at(spec, port, pair, channels, rates_hz, is_split)
        except DeviceError as error:
            failures.append(f"cannot open microphone {pair[0].name!r} with loudspeaker {pair[1].name!r}: {error}")
            continue
        return Streams(streams, _info(pair, rates_hz, streams, is_split))
    raise DeviceError(f"{failures[0]}; see duologue devices, or name a sample rate that the device has")


def _attempts(spec: PortAudioSpec, devices: list[DeviceInfo]) -> list[_Attempt]:
    likely: list[_Attempt] = []
    others: list[_Attempt] = []
    for pair in _candidate_pairs(spec, devices):
        is_split = spec.is_split if spec.is_split is not None else pair[0].host_api != pair[1].host_api
        usual_hz = {float(SAMPLE_RATE_HZ), *(device.default_hz for device in pair)}
        for channels, rates_hz in product(_candidate_channels(pair), _candidate_rates(spec, pair, is_split)):
            # A device that opens neither at our rate nor at its own is seldom there at all, and each attempt may cost
            # a second where one sound system is a client of another: the next pair first.
            (likely if usual_hz.issuperset(rates_hz) else others).append((pair, channels, rates_hz, is_split))
    return likely + others


def _candidate_pairs(spec: PortAudioSpec, devices: list[DeviceInfo]) -> list[tuple[DeviceInfo, DeviceInfo]]:
    def choose(host_api: str | None) -> tuple[DeviceInfo, DeviceInfo]:
        return (
            choose_device(devices, spec.input, "input", host_api=host_api),
            choose_device(devices, spec.output, "output", host_api=host_api),
        )

    pairs = [choose(spec.host_api)]
    if (spec.input, spec.output, spec.host_api) == (None, None, None):
        # A default may be a name behind which no server runs; what works elsewhere is better than nothing.
        for host_api in dict.fromkeys(device.host_api for device in devices):
            with suppress(DeviceError):
                pairs.append(choose(host_api))
    return list(dict.fromkeys(pairs))


def _candidate_channels(pair: tuple[DeviceInfo, DeviceInfo]) -> list[tuple[int, int]]:
    # One channel is all we use, but some hardware opens only with two.
    two = (min(2, pair[0].input_channels), min(2, pair[1].output_channels))
    return [(1, 1)] if two == (1, 1) else [(1, 1), two]


def _candidate_rates(
    spec: PortAudioSpec, pair: tuple[DeviceInfo, DeviceInfo], is_split: bool
) -> list[tuple[float, float]]:
    if spec.sample_rate_hz is not None:
        return [(float(spec.sample_rate_hz), float(spec.sample_rate_hz))]
    rates_hz = [(float(rate_hz), float(rate_hz)) for rate_hz in _RATES_HZ]
    if is_split or pair[0].default_hz == pair[1].default_hz:
        rates_hz.append((pair[0].default_hz, pair[1].default_hz))
    return rates_hz


def _open_at(
    spec: PortAudioSpec,
    port: AudioPort,
    pair: tuple[DeviceInfo, DeviceInfo],
    channels: tuple[int, int],
    rates_hz: tuple[float, float],
    is_split: bool,
) -> list[Any]:
    shared: dict[str, Any] = {"latency": spec.latency, "blocksize": spec.block_samples}
    if not is_split:
        indices = (pair[0].index, pair[1].index)
        return [_open("duplex", port, device=indices, channels=channels, samplerate=rates_hz[0], **shared)]
    streams: list[Any] = []
    try:
        for side, kind in enumerate(("input", "output")):
            device = pair[side].index
            stream = _open(kind, port, device=device, channels=channels[side], samplerate=rates_hz[side], **shared)
            streams.append(stream)
    except DeviceError:
        for stream in streams:
            stream.close()
        raise
    return streams


def _open(kind: str, port: AudioPort, **settings: Any) -> Any:
    sounddevice = import_sounddevice()
    try:
        # The public classes wrap the callback in Python; their base takes any C function by its address.
        return sounddevice._StreamBase(
            kind=kind,
            dtype="float32",
            callback=audio_callback_address(),
            userdata=sounddevice._ffi.cast("void*", port.address),
            wrap_callback=None,
            **settings,
        )
    except (sounddevice.PortAudioError, ValueError) as error:
        raise DeviceError(f"{error} (at {settings['samplerate']:.0f} Hz)") from error


def _info(
    pair: tuple[DeviceInfo, DeviceInfo], rates_hz: tuple[float, float], streams: list[Any], is_split: bool
) -> StreamInfo:
    latencies_s = (streams[0].latency, streams[-1].latency) if is_split else streams[0].latency
    # JACK with unconnected ports claims two days.
    claims_ms = [1e3 * latency_s if 0 <= latency_s <= 1 else 0.0 for latency_s in latencies_s]
    host_apis = dict.fromkeys(device.host_api for device in pair)
    return StreamInfo(
        input_name=pair[0].name,
        output_name=pair[1].name,
        host_api=" / ".join(host_apis),
        input_hz=rates_hz[0],
        output_hz=rates_hz[1],
        input_latency_ms=claims_ms[0],
        output_latency_ms=claims_ms[1],
        is_one_clock=not is_split,
    )
