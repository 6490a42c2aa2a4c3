"""A deterministic signal with the build of speech, for calibrating untrained codecs where no recording may ship."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from duologue.types import SAMPLE_RATE_HZ, Pcm

_FORMANTS_HZ = np.array([[270, 860], [840, 2300], [1700, 3000], [3000, 4200]], dtype=np.float64)
_BANDWIDTHS_HZ = np.array([90.0, 120.0, 180.0, 260.0])
_FORMANT_GAINS = np.array([1.0, 0.6, 0.35, 0.2])
_CONTROL_HZ = 100


def speechlike(duration_s: float, *, seed: int, sample_rate_hz: int = SAMPLE_RATE_HZ) -> Pcm:
    """Synthesise voiced sounds with moving pitch and formants, hisses, and pauses.

    Args:
        duration_s: Length in seconds.
        seed: The same seed gives the same samples.
        sample_rate_hz: Samples per second.

    Returns:
        Samples, float32, shape [T], RMS about 0.1.
    """
    rng = np.random.default_rng(seed)
    points = int(duration_s * _CONTROL_HZ) + 2
    samples = int(duration_s * sample_rate_hz)
    pitch_hz, formants_hz, voiced, hiss = _controls(points, rng)
    at = np.arange(samples) / sample_rate_hz * _CONTROL_HZ

    def track(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.interp(at, np.arange(points), values)

    f0 = track(pitch_hz)
    phase = 2 * np.pi * np.cumsum(f0) / sample_rate_hz
    centres = np.stack([track(formants_hz[:, i]) for i in range(4)])
    voice = np.zeros(samples)
    for harmonic in range(1, 33):
        frequency = harmonic * f0
        gain = np.zeros(samples)
        for centre, width, level in zip(centres, _BANDWIDTHS_HZ, _FORMANT_GAINS, strict=True):
            gain += level / (1.0 + ((frequency - centre) / width) ** 2)
        voice += np.where(frequency < 0.45 * sample_rate_hz, gain, 0.0) * np.sin(harmonic * phase)
    noise = rng.standard_normal(samples + 1)
    signal = track(voiced) * voice + 0.5 * track(hiss) * np.diff(noise) + 0.002 * noise[:-1]
    signal *= 0.1 / np.sqrt(np.mean(signal**2))
    return np.clip(signal, -1.0, 1.0).astype(np.float32)


def _controls(points: int, rng: np.random.Generator) -> tuple[npt.NDArray[np.float64], ...]:
    """Draw pitch [P], formants [P, 4], voicing [P] and hiss [P], constant within sounds, then smoothed."""
    pitch = np.empty(points)
    formants = np.empty((points, 4))
    voiced = np.zeros(points)
    hiss = np.zeros(points)
    base_hz = rng.uniform(90, 230)
    start = 0
    while start < points:
        stop = min(points, start + int(rng.integers(5, 20)))
        kind = rng.random()
        pitch[start:stop] = base_hz * rng.uniform(0.8, 1.3)
        formants[start:stop] = rng.uniform(_FORMANTS_HZ[:, 0], _FORMANTS_HZ[:, 1])
        voiced[start:stop] = rng.uniform(0.3, 1.0) if kind < 0.65 else 0.0
        hiss[start:stop] = rng.uniform(0.2, 1.0) if 0.55 < kind < 0.85 else 0.0
        if rng.random() < 0.05:
            base_hz = rng.uniform(90, 230)
        start = stop
    kernel = np.hanning(9)[1:-1] / np.hanning(9).sum()

    def smooth(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.convolve(np.pad(values, len(kernel) // 2, mode="edge"), kernel, mode="valid")[:points]

    return smooth(pitch), np.stack([smooth(formants[:, i]) for i in range(4)], axis=1), smooth(voiced), smooth(hiss)
