"""Put the user on a line: room, channel, leakage of the agent, noise, level. The agent's channel stays clean.

Rooms and channels are filters in one transform over the recording; noises are loops made once per process.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from duologue.types import SAMPLE_RATE_HZ

F32 = npt.NDArray[np.float32]

NOISES = ("white", "pink", "brown", "hum", "street")
LOOP_SAMPLES = 20 * SAMPLE_RATE_HZ
AGENT_LEVEL_DB = -20.0
"""RMS at which both sides are synthesised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """What is done to the user's channel of one dialogue.

    Attributes:
        level_db: RMS of the user's speech relative to full scale.
        reverberation_s: Time for the room to decay by 60 dB, or None for no room.
        direct_db: Level of the direct sound relative to the rest of the room.
        channel: "wide", "small" (a small microphone, 120 Hz to 7 kHz) or "telephone" (300 to 3400 Hz at 8 kHz).
        is_mu_law: Whether the telephone quantises with 8-bit mu-law.
        noise: One of `NOISES`, or None.
        snr_db: Level of the speech relative to the noise.
        leakage_db: Level of the agent in the user's channel relative to the agent, or None.
        leakage_delay_s: Delay of that leakage.
    """

    level_db: float
    reverberation_s: float | None = None
    direct_db: float = 6.0
    channel: str = "wide"
    is_mu_law: bool = False
    noise: str | None = None
    snr_db: float = 30.0
    leakage_db: float | None = None
    leakage_delay_s: float = 0.0


def draw_augmentation(rng: np.random.Generator) -> Augmentation:
    """Draw what happens to one dialogue's user channel."""
    has_room, has_noise, has_leakage = rng.random(3) < (0.55, 0.65, 0.3)
    channel = str(rng.choice(("wide", "small", "telephone"), p=(0.4, 0.25, 0.35)))
    return Augmentation(
        level_db=round(float(rng.uniform(-33, -15)), 2),
        reverberation_s=round(float(rng.uniform(0.12, 0.6)), 3) if has_room else None,
        direct_db=round(float(rng.uniform(0, 12)), 2),
        channel=channel,
        is_mu_law=channel == "telephone" and bool(rng.random() < 0.6),
        noise=str(rng.choice(NOISES)) if has_noise else None,
        snr_db=round(float(rng.uniform(6, 32)), 2),
        leakage_db=round(float(rng.uniform(-48, -28)), 2) if has_leakage else None,
        leakage_delay_s=round(float(rng.uniform(0.01, 0.15)), 4),
    )


def augment(user: F32, agent: F32, settings: Augmentation, rng: np.random.Generator) -> F32:
    """Return the user's channel as a far side would record it.

    Args:
        user: Clean speech of the user, shape [n], 24 kHz, RMS of speech -20 dB.
        agent: What the agent says, shape [n]; it may leak.
        settings: What to do.
        rng: Source of the room and of the noise's position.
    """
    mixed = user.copy()
    if settings.leakage_db is not None:
        delay = round(settings.leakage_delay_s * SAMPLE_RATE_HZ)
        mixed[delay:] += agent[: len(agent) - delay] * np.float32(10 ** (settings.leakage_db / 20))
    if settings.noise is not None and settings.channel != "wide":
        mixed += _noise(settings, len(mixed), rng)
    mixed = _filter(mixed, settings, rng)
    if settings.channel == "telephone" and settings.is_mu_law:
        mixed = _through_mu_law(mixed)
    if settings.noise is not None and settings.channel == "wide":
        mixed += _noise(settings, len(mixed), rng)
    gain = np.float32(10 ** ((settings.level_db - AGENT_LEVEL_DB) / 20))
    return np.asarray(np.clip(mixed * gain, -1.0, 1.0), dtype=np.float32)


def _noise(settings: Augmentation, samples: int, rng: np.random.Generator) -> F32:
    loop = noise_loop(settings.noise or "white")
    start = int(rng.integers(len(loop)))
    repeated = np.resize(np.roll(loop, -start), samples)
    return repeated * np.float32(10 ** ((AGENT_LEVEL_DB - settings.snr_db) / 20))


def _filter(pcm: F32, settings: Augmentation, rng: np.random.Generator) -> F32:
    if settings.reverberation_s is None and settings.channel == "wide":
        return pcm
    tail = 0 if settings.reverberation_s is None else round(settings.reverberation_s * SAMPLE_RATE_HZ)
    size = _fast_length(len(pcm) + tail)
    spectrum = np.fft.rfft(pcm, size)
    if settings.reverberation_s is not None:
        spectrum *= np.fft.rfft(room_response(settings.reverberation_s, settings.direct_db, rng), size)
    spectrum *= _channel_gain(settings.channel, size)
    return np.fft.irfft(spectrum, size)[: len(pcm)].astype(np.float32)


def room_response(reverberation_s: float, direct_db: float, rng: np.random.Generator) -> F32:
    """Return an impulse response: the direct sound at once, a few early reflections, a decaying noise tail; energy 1.

    Args:
        reverberation_s: Time in which the tail decays by 60 dB; also its length.
        direct_db: Energy of the direct sound relative to all the rest.
        rng: Source of the reflections.
    """
    samples = max(64, round(reverberation_s * SAMPLE_RATE_HZ))
    decay = np.exp(-6.9 * np.arange(samples) / samples).astype(np.float32)
    response = 0.3 * rng.standard_normal(samples, dtype=np.float32) * decay
    onset = round(0.004 * SAMPLE_RATE_HZ)
    response[:onset] = 0.0
    for _ in range(6):
        at = min(samples - 1, onset + int(rng.integers(round(0.03 * SAMPLE_RATE_HZ))))
        response[at] += float(rng.uniform(0.5, 1.5)) * decay[at]
    response /= np.sqrt(np.sum(response**2))
    response[0] = 10 ** (direct_db / 20)
    return np.asarray(response / np.sqrt(np.sum(response**2)), dtype=np.float32)


def _channel_gain(channel: str, size: int) -> F32:
    bands = {"wide": (0.0, 12_000.0), "small": (120.0, 7_000.0), "telephone": (300.0, 3_400.0)}
    low_hz, high_hz = bands[channel]
    if channel == "wide":
        return np.ones(size // 2 + 1, dtype=np.float32)
    frequency_hz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE_HZ)
    # Raised-cosine edges; nothing is left at 4 kHz, where sampling at 8 kHz would fold it back.
    rise = np.clip((frequency_hz - 0.7 * low_hz) / (0.3 * low_hz), 0, 1)
    fall = np.clip((high_hz + 500 - frequency_hz) / 500, 0, 1)
    return np.asarray((0.5 - 0.5 * np.cos(np.pi * rise)) * (0.5 - 0.5 * np.cos(np.pi * fall)), dtype=np.float32)


def _through_mu_law(pcm: F32) -> F32:
    """Sample band-limited speech at 8 kHz, quantise it to 8-bit mu-law, and interpolate it back to 24 kHz."""
    peak = max(float(np.abs(pcm).max()), 1e-6)
    sampled = pcm[::3] / peak
    compressed = np.sign(sampled) * np.log1p(255 * np.abs(sampled)) / np.log(256)
    quantised = np.rint(compressed * 127) / 127
    expanded = np.sign(quantised) * np.expm1(np.abs(quantised) * np.log(256)) / 255
    size = _fast_length(len(pcm))
    comb = np.zeros(size, dtype=np.float32)
    comb[: len(pcm) : 3] = 3 * peak * expanded
    spectrum = np.fft.rfft(comb)
    spectrum[int(size * 3_900 / SAMPLE_RATE_HZ) :] = 0
    return np.fft.irfft(spectrum, size)[: len(pcm)].astype(np.float32)


@cache
def noise_loop(kind: str) -> F32:
    """Return a 20 s loop of noise with RMS 1.

    Args:
        kind: One of `NOISES`: white, pink (-3 dB per octave), brown (-6), hum (50 Hz and harmonics over a little
            pink noise), street (brown noise that swells and fades).
    """
    rng = np.random.default_rng([NOISES.index(kind), 20])
    slope = {"white": 0.0, "pink": 0.5, "brown": 1.0, "hum": 0.5, "street": 1.0}[kind]
    frequency_hz = np.fft.rfftfreq(LOOP_SAMPLES, 1 / SAMPLE_RATE_HZ)
    spectrum = np.fft.rfft(rng.standard_normal(LOOP_SAMPLES, dtype=np.float32))
    loop = np.fft.irfft(spectrum / np.maximum(frequency_hz, 40.0) ** slope, LOOP_SAMPLES)
    loop /= np.sqrt(np.mean(loop**2))
    time_s = np.arange(LOOP_SAMPLES) / SAMPLE_RATE_HZ
    if kind == "hum":
        loop = 0.3 * loop + sum(np.sin(2 * np.pi * 50 * order * time_s) / order for order in (1, 2, 3, 5))
    if kind == "street":
        # Whole periods per loop, so that its ends meet.
        loop = loop * (1.0 + 0.7 * np.sin(2 * np.pi * 0.15 * time_s) * np.sin(2 * np.pi * 0.05 * time_s))
    return np.asarray(loop / np.sqrt(np.mean(loop**2)), dtype=np.float32)


def _fast_length(samples: int) -> int:
    """Return the least length >= samples whose only prime factors are 2, 3 and 5."""
    size = 1 << (samples - 1).bit_length()
    for three in range(8):
        for five in range(6):
            odd = 3**three * 5**five
            size = min(size, odd << max(0, (-(-samples // odd) - 1).bit_length()))
    return size
