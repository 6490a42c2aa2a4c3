"""What echo cancellation gives and what it takes: the echo's reduction, and the user's loss while both speak.

    python benchmarks/audio_aec.py [--quick] [--json PATH]

A recorded voice is the agent; its echo comes back from a synthetic room (loudspeaker distortion, 60 ms, decaying noise
as impulse response, -65 dB noise). A second recording, other passages of the same voice a quarter higher in pitch, is
the user, who starts while the agent speaks. Without AEC3, with AEC3 at the sound's full level (the
rival), and with it as `EchoCanceller` runs it, quieter, in the same run:

    echo reduction     power of the microphone over its power after cancelling, agent alone, the last 5 s
    user level         gain of the user's own signal in double-talk, by projection on the clean user
    user found         share of the clean user's speech that the user's speech detector still finds in double-talk
    false speech       share of the time that the detector finds a user while the agent speaks alone
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from machine import cpu_name, git_hash, versions

from duologue.audio.canceller import ADDED_DELAY_MS, WORKING_LEVEL, EchoCanceller
from duologue.audio.files import AudioFile
from duologue.audio.resample import resample
from duologue.metrics.meter import measure
from duologue.types import FRAME_SAMPLES, SAMPLE_RATE_HZ, Pcm

VOICE = Path(__file__).parents[1] / "runtime" / "duologue" / "data" / "demo_user.flac"
ALONE_S = 12
BOTH_S = 12


@dataclass
class Row:
    """One condition at one echo level."""

    echo_db: float
    canceller: str
    echo_reduction_db: float
    user_level_db: float
    user_found: float
    false_speech: float
    us_per_frame: float


def room(agent: Pcm, echo_db: float) -> Pcm:
    generator = np.random.default_rng(3)
    taps = round(0.25 * SAMPLE_RATE_HZ)
    response = generator.standard_normal(taps) * np.exp(-6.9 * np.arange(taps) / taps)
    delay = round(0.060 * SAMPLE_RATE_HZ)
    size = 1 << int(np.ceil(np.log2(len(agent) + taps)))
    echo = np.fft.irfft(np.fft.rfft(np.tanh(2 * agent), size) * np.fft.rfft(response, size), size)
    echo = np.concatenate([np.zeros(delay), echo])[: len(agent)]
    echo *= np.sqrt(np.mean(agent**2) / np.mean(echo**2)) * 10 ** (echo_db / 20)
    return (echo + 10 ** (-65 / 20) * generator.standard_normal(len(agent))).astype(np.float32)


def spoken(pcm: Pcm) -> Pcm:
    """Leave the pauses out, so that there is always speech."""
    frames = pcm[: len(pcm) // 480 * 480].reshape(-1, 480)
    return frames[np.sqrt(np.mean(frames**2, axis=1)) > 0.01].reshape(-1)


def speech_share(pcm: Pcm) -> float:
    """Share of the time in which the user's detector finds speech."""
    share = measure(pcm, np.zeros_like(pcm), SAMPLE_RATE_HZ).user.speech_share.value
    return share or 0.0


CANCELLERS: dict[str, float | None] = {"none": None, "AEC3 at full level": 1.0, "AEC3 as here": WORKING_LEVEL}


def measure_at(echo_db: float, name: str) -> Row:
    voice = spoken(AudioFile(VOICE).read(SAMPLE_RATE_HZ))
    total = (ALONE_S + BOTH_S) * SAMPLE_RATE_HZ // FRAME_SAMPLES * FRAME_SAMPLES
    agent = np.resize(voice, total)
    user = np.zeros(total, dtype=np.float32)
    begin = ALONE_S * SAMPLE_RATE_HZ
    higher = resample(voice, 30_000, SAMPLE_RATE_HZ)
    user[begin:] = np.resize(np.roll(higher, len(higher) // 3), total - begin)
    microphone = np.clip(room(agent, echo_db) + user, -1, 1)
    level = CANCELLERS[name]
    canceller = EchoCanceller(level=level) if level is not None else None
    begun = time.thread_time()
    frames = zip(microphone.reshape(-1, FRAME_SAMPLES), agent.reshape(-1, FRAME_SAMPLES), strict=True)
    heard = np.concatenate(
        [canceller.process(*frame, device_delay_ms=60) if canceller else frame[0] for frame in frames]
    )
    spent_us = 1e6 * (time.thread_time() - begun) / (total // FRAME_SAMPLES)
    held = round(ADDED_DELAY_MS / 1e3 * SAMPLE_RATE_HZ) if canceller else 0
    heard = np.concatenate([heard[held:], np.zeros(held, dtype=np.float32)])
    alone = slice(begin - 5 * SAMPLE_RATE_HZ, begin)
    both = slice(begin, total - held)
    return Row(
        echo_db=echo_db,
        canceller=name,
        echo_reduction_db=10 * float(np.log10(np.mean(microphone[alone] ** 2) / np.mean(heard[alone] ** 2))),
        user_level_db=_projected_level(user[both], heard[both]),
        user_found=speech_share(heard[both]) / speech_share(user[both]),
        false_speech=speech_share(heard[alone]),
        us_per_frame=spent_us if canceller else 0.0,
    )


def _projected_level(user: Pcm, heard: Pcm) -> float:
    # By the spectra, because the canceller's high-pass bends phases: gain of what is coherent with the user.
    size = 1024
    count = len(user) // size
    users, heards = (np.fft.rfft(x[: count * size].reshape(count, size)) for x in (user, heard))
    cross = np.abs(np.sum(heards * np.conj(users), axis=0))
    power = np.sum(np.abs(users) ** 2, axis=0)
    return 20 * float(np.log10(np.sum(cross) / np.sum(power)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one echo level instead of four")
    parser.add_argument("--json", type=Path, help="also write the last line there")
    options = parser.parse_args()
    print(f"{cpu_name()}; budget 80 ms a frame; canceller adds {ADDED_DELAY_MS} ms to the user's audio\n")
    print("| echo dB | canceller | echo reduction dB | user level dB | user found | false speech | us/frame |")
    print("|---|---|---|---|---|---|---|")
    rows = []
    for echo_db in (-6.0,) if options.quick else (6.0, 0.0, -6.0, -20.0):
        for name in CANCELLERS:
            row = measure_at(echo_db, name)
            rows.append(row)
            print(
                f"| {echo_db:.0f} | {row.canceller} | {row.echo_reduction_db:.1f} | {row.user_level_db:.1f} "
                f"| {row.user_found:.2f} | {row.false_speech:.2f} | {row.us_per_frame:.0f} |",
                flush=True,
            )
    result = {"benchmark": "audio_aec", "machine": cpu_name(), "git": git_hash(), "versions": versions()}
    line = json.dumps({**result, "rows": [asdict(row) for row in rows]})
    if options.json is not None:
        options.json.write_text(line + "\n", encoding="utf-8")
    print(line)


if __name__ == "__main__":
    main()
