"""The streaming resampler against soxr, and its independence of the chunking."""

from __future__ import annotations

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from duologue.audio.resample import Resampler, resample
from duologue.errors import ConfigError, StreamError

RATES = [(8_000, 24_000), (16_000, 24_000), (44_100, 24_000), (48_000, 24_000), (24_000, 16_000), (24_000, 8_000)]


def _voice(rate_hz: int, seconds: float = 1.0) -> np.ndarray:
    time = np.arange(int(rate_hz * seconds)) / rate_hz
    return sum(0.1 * np.sin(2 * np.pi * f * time + f) for f in (200, 700, 1500, 2900)).astype(np.float32)


@pytest.mark.parametrize(("from_hz", "to_hz"), RATES)
def test_equals_soxr_in_the_voice_band(from_hz: int, to_hz: int) -> None:
    pcm = _voice(from_hz)
    ours, theirs = resample(pcm, from_hz, to_hz), soxr.resample(pcm, from_hz, to_hz, "VHQ")
    assert len(ours) == len(theirs)
    inner = slice(len(ours) // 10, -len(ours) // 10)
    error = np.mean((ours[inner] - theirs[inner]) ** 2) / np.mean(theirs[inner] ** 2)
    assert 10 * np.log10(error) < -80


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(RATES), st.lists(st.integers(0, 3000), min_size=1, max_size=30))
def test_output_does_not_depend_on_the_chunking(rates: tuple[int, int], sizes: list[int]) -> None:
    pcm = np.random.default_rng(0).standard_normal(sum(sizes) + 1).astype(np.float32)
    chunked, whole = Resampler(*rates), Resampler(*rates)
    pieces = [chunked.process(piece) for piece in np.split(pcm, np.cumsum(sizes))]
    expected = np.concatenate([whole.process(pcm), whole.flush()])
    assert np.array_equal(np.concatenate([*pieces, chunked.flush()]), expected)


def test_a_snapshot_continues_bit_for_bit() -> None:
    pcm = _voice(44_100)
    resampler = Resampler(44_100, 24_000)
    resampler.process(pcm[:10_001])
    state = resampler.snapshot()
    first = resampler.process(pcm[10_001:])
    resampler.restore(state)
    assert np.array_equal(resampler.process(pcm[10_001:]), first)


@pytest.mark.parametrize("rates", RATES)
def test_a_snapshot_of_other_rates_is_refused(rates: tuple[int, int]) -> None:
    other = Resampler(24_000, 44_100)
    other.process(np.zeros(1_000, dtype=np.float32))
    with pytest.raises(StreamError, match="not"):
        Resampler(*rates).restore(other.snapshot())


def test_equal_rates_pass_through_without_delay() -> None:
    pcm = _voice(24_000, 0.1)
    resampler = Resampler(24_000, 24_000)
    assert resampler.process(pcm) is pcm
    assert len(resampler.flush()) == 0
    assert resampler.delay_ms == 0


@pytest.mark.parametrize("rate_hz", [0, -8_000, 1_000, 10**7, 383_999, float("nan"), None, True, 24_000.0])
def test_an_impossible_rate_is_refused(rate_hz: int) -> None:
    with pytest.raises(ConfigError, match=r"out of range|usual sample rate"):
        Resampler(rate_hz, 24_000)


@pytest.mark.parametrize(("from_hz", "to_hz"), RATES)
def test_delay_is_at_most_2_ms(from_hz: int, to_hz: int) -> None:
    assert Resampler(from_hz, to_hz).delay_ms <= 2.0
