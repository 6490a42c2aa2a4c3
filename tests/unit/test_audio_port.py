"""The port from Python: exact copies through the driver's callback, counters, refusals."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from duologue._native import AudioPort, VariableResampler, audio_port_bytes, monotonic_ns
from duologue.audio.port import SharedPort, read_counters, summarise
from duologue.errors import AudioError, ConfigError, StreamError


@pytest.fixture
def shared() -> Iterator[SharedPort]:
    made = SharedPort()
    made.port.configure(input_hz=24_000, output_hz=24_000)
    yield made
    made.close()


def _noise(count: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(-1, 1, count).astype(np.float32)


def test_samples_pass_bit_for_bit_through_two_mappings(shared: SharedPort) -> None:
    other = SharedPort(shared.name)
    sound = _noise(480)
    assert shared.port.write_output(sound) == 480
    played = other.port.drive(sound, 480)
    assert np.array_equal(played, sound)
    assert np.array_equal(shared.port.read_input(10_000), sound)
    other.close()


def test_stamps_are_on_the_monotonic_clock(shared: SharedPort) -> None:
    before = monotonic_ns()
    shared.port.drive(_noise(240), 240)
    in_count, in_ns, out_count, out_ns = shared.port.clocks()
    assert before <= in_ns == out_ns <= monotonic_ns()
    assert (in_count, out_count) == (240, 0)
    assert shared.port.last_call_ns == in_ns


def test_every_real_call_is_told_once(shared: SharedPort) -> None:
    port = shared.port
    before = monotonic_ns()
    for flags in (0, 2 | 4, 0):
        port.drive(_noise(240), 240, flags=flags)
    number, calls = port.calls_since(0, 1)
    assert number == 3
    assert calls[:, 2].tolist() == [6, 0]
    assert before <= calls[0, 0] <= calls[1, 0] <= monotonic_ns()
    assert (calls[:, 1] > 0).all()
    assert port.calls_since(0, number)[1].shape == (0, 3)
    assert port.calls_since(1, 0)[0] == 0
    with pytest.raises(ConfigError, match="0 and 1"):
        port.calls_since(2, 0)


def test_muted_interrupted_and_missing_audio_is_counted(shared: SharedPort) -> None:
    port = shared.port
    port.write_output(_noise(720))
    port.is_muted = True
    assert port.silence_queued() == (0, 720)
    port.drive(_noise(480), 480)
    port.drive(_noise(480), 480)
    counters = read_counters(port)
    assert counters.silenced_samples == 720
    assert counters.concealed_output_samples == 240
    assert counters.concealed_events == 1
    assert not port.read_input(960).any()
    assert counters.callbacks[0].calls == 2
    assert counters.callbacks[0].gap.count == 1
    assert 0 < counters.callbacks[0].body.max_ms < 1000


def test_waiting_ends_with_the_samples_or_the_time(shared: SharedPort) -> None:
    assert shared.port.wait_input(1, 0.01) == 0
    shared.port.drive(_noise(100), 0)
    assert shared.port.wait_input(100, 10.0) == 100


def test_dropping_keeps_the_newest(shared: SharedPort) -> None:
    sound = _noise(1000)
    shared.port.drive(sound, 0)
    assert shared.port.drop_input(300) == 700
    assert shared.port.drop_input(300) == 0
    assert np.array_equal(shared.port.read_input(1000), sound[700:])


def test_wrong_memory_and_values_are_refused(shared: SharedPort) -> None:
    with pytest.raises(StreamError, match="holds no audio port"):
        AudioPort(bytearray(audio_port_bytes(1024)))
    with pytest.raises(ConfigError, match="power of two"):
        AudioPort(bytearray(1 << 20), capacity=1000)
    with pytest.raises(ConfigError, match="rates must be positive"):
        shared.port.configure(input_hz=0, output_hz=24_000)
    with pytest.raises(AudioError, match="float32"):
        shared.port.write_output(np.zeros(3))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="out of range"):
        VariableResampler(24_000, 10)


def test_a_histogram_gives_its_quantiles() -> None:
    counts = np.zeros(320, dtype=np.uint64)
    # 20 octaves above 1 ns is 1.05 ms.
    counts[160], counts[168] = 99, 1
    summary = summarise(counts, 2_100_000)
    assert summary.count == 100
    assert summary.p50_ms == pytest.approx(1.05, rel=0.13)
    assert summary.max_ms == 2.1
    assert summarise(np.zeros(320, dtype=np.uint64), 0).p99_ms == 0


@pytest.mark.parametrize("rates", [(48_000, 24_000), (24_000, 48_000), (44_100, 24_000), (24_000, 16_000)])
def test_the_variable_resampler_is_exact_in_the_voice_band_with_little_delay(rates: tuple[int, int]) -> None:
    time_s = np.arange(rates[0]) / rates[0]
    voice = sum(0.1 * np.sin(2 * np.pi * hz * time_s + hz) for hz in (200, 700, 1500, 2900)).astype(np.float32)
    resampler = VariableResampler(*rates)
    output = resampler.process(voice)
    assert 1e3 * resampler.lookahead / rates[0] <= 2.0
    time_s = np.arange(len(output)) / rates[1]
    expected = sum(0.1 * np.sin(2 * np.pi * hz * time_s + hz) for hz in (200, 700, 1500, 2900))
    error = np.mean((output - expected)[500:-500] ** 2) / np.mean(expected**2)
    assert 10 * np.log10(error) < -75


def test_above_the_new_band_nothing_folds_back() -> None:
    time_s = np.arange(48_000) / 48_000
    output = VariableResampler(48_000, 24_000).process(np.sin(2 * np.pi * 15_000 * time_s).astype(np.float32))
    assert 20 * np.log10(np.abs(output[500:-500]).max()) < -70


def test_memory_that_is_still_looked_into_goes_without_a_word() -> None:
    code = "from duologue.audio.port import SharedPort\nshared = SharedPort()\nport = shared.port\nshared.close()\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
