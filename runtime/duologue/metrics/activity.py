"""Speech activity of one side on the 10 ms grid, from 24 kHz audio as it comes.

Two detectors behind the same verbs: "speech" (Silero's network, for a microphone) and "level" (frame-exact loudness,
for audio that we generate ourselves). Ticks come out late by what a detector must wait for, never out of place: every
tick describes its own 10 ms, so event times carry no detector delay.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from duologue.audio.resample import Resampler, ResamplerState
from duologue.errors import ConfigError, StreamError
from duologue.metrics.silero import CHUNK_SAMPLES, RATE_HZ, SileroState, load_network
from duologue.types import SAMPLE_RATE_HZ, Pcm

Ticks = npt.NDArray[np.bool_]
"""Activity per tick of 10 ms, shape [n]."""

TICK_SAMPLES = SAMPLE_RATE_HZ // 100
"""Samples of one tick at 24 kHz."""

SPEECH_ON, SPEECH_OFF = 0.5, 0.35
"""Probability at which speech begins, and below which it ends. Source: silero-vad's defaults."""
SPEECH_ONSET_LAG, SPEECH_OFFSET_LAG = 3, 7
"""Ticks by which Silero tells onsets and offsets late: medians of +28 and +71 ms against hand labels (30 clips)."""
LEVEL_ON_DBFS, LEVEL_OFF_DBFS = -45.0, -51.0
"""Loudness of 10 ms at which "level" turns on, and below which it turns off: far under speech, far over codec hiss."""


@dataclass(slots=True)
class RunFilter:
    """Bridge short silences, drop short bursts; ticks come out as soon as they are certain.

    Attributes:
        bridge: Longest silence that counts as speech between speech, in ticks.
        drop: Bursts (after bridging) shorter than this count as silence, in ticks.
        is_on: Whether the last tick given out belonged to speech.
        held: Ticks taken in and not given out.
        burst: Ticks of `held` up to its last active one, while `is_on` is false.
    """

    bridge: int
    drop: int
    is_on: bool = False
    held: int = 0
    burst: int = 0

    def push(self, raw: Ticks) -> list[bool]:
        """Take raw ticks in and give certain ones out."""
        out: list[bool] = []
        for is_active in raw.tolist():
            self.held += 1
            if is_active:
                self._hear(out)
            elif self.is_on or self.burst:
                self._miss(out)
            else:
                self._give(out, False)
        return out

    def finish(self) -> list[bool]:
        """Give the rest out, as if silence followed."""
        out: list[bool] = []
        self._give(out, False)
        return out

    def _hear(self, out: list[bool]) -> None:
        self.burst = self.held
        if self.is_on or self.burst >= self.drop:
            self.is_on = True
            self._give(out, True)

    def _miss(self, out: list[bool]) -> None:
        silence = self.held if self.is_on else self.held - self.burst
        if silence > self.bridge:
            self.is_on = False
            self._give(out, False)

    def _give(self, out: list[bool], value: bool) -> None:
        out += [value] * self.held
        self.held = self.burst = 0


class ActivityDetector(Protocol):
    """What both detectors do."""

    name: str

    def push(self, pcm: Pcm) -> Ticks:
        """Take 24 kHz samples, float32, shape [n], and return the ticks that became certain."""
        ...

    def finish(self) -> Ticks:
        """Return the remaining ticks: afterwards there is one for every whole 10 ms of audio."""
        ...

    def snapshot(self) -> object:
        """Return a copy of the state, plain data."""
        ...

    def restore(self, snapshot: object) -> None:
        """Go back to a snapshot of the same kind of detector."""
        ...


@dataclass(slots=True)
class LevelState:
    """Memory of a `LevelDetector`: samples short of a tick, hysteresis and run filter."""

    rest: Pcm = field(default_factory=lambda: np.empty(0, dtype=np.float32))
    is_loud: bool = False
    runs: RunFilter = field(default_factory=lambda: RunFilter(bridge=10, drop=3))


class LevelDetector:
    """Activity by loudness: RMS of each 10 ms with hysteresis, silences to 0.1 s bridged, bursts below 30 ms cut."""

    name = "level"

    def __init__(self) -> None:
        self._state = LevelState()

    def push(self, pcm: Pcm) -> Ticks:
        """Take samples and return the ticks that became certain."""
        state = self._state
        samples = np.concatenate([state.rest, pcm])
        count = len(samples) // TICK_SAMPLES
        hops = samples[: count * TICK_SAMPLES].reshape(count, TICK_SAMPLES)
        state.rest = samples[count * TICK_SAMPLES :].copy()
        power = np.einsum("ij,ij->i", hops, hops, dtype=np.float64) / TICK_SAMPLES
        on, off = 10 ** (LEVEL_ON_DBFS / 10), 10 ** (LEVEL_OFF_DBFS / 10)
        loud = np.empty(count, dtype=np.bool_)
        for i, value in enumerate(power.tolist()):
            state.is_loud = value >= (off if state.is_loud else on)
            loud[i] = state.is_loud
        return _ticks(state.runs.push(loud))

    def finish(self) -> Ticks:
        """Return the remaining ticks."""
        return _ticks(self._state.runs.finish())

    def snapshot(self) -> LevelState:
        """Return a copy of the state."""
        return _copy_level(self._state)

    def restore(self, snapshot: object) -> None:
        """Go back to a snapshot.

        Raises:
            StreamError: The snapshot is of another detector.
        """
        if not isinstance(snapshot, LevelState):
            raise StreamError("this snapshot is of another activity detector; build the meter with the same detectors")
        self._state = _copy_level(snapshot)


@dataclass(slots=True)
class SpeechState:
    """Memory of a `SpeechDetector`.

    Attributes:
        resampler: State of the 24 to 16 kHz conversion, or None at the start.
        rest: Samples at 16 kHz short of a chunk.
        network: State of the network.
        samples: Samples at 24 kHz taken in.
        chunks: Chunks processed.
        is_speech: State of the hysteresis.
        runs: Run filter.
        recent: Filtered ticks whose lag is not yet compensated.
        given: Ticks given out.
    """

    resampler: ResamplerState | None = None
    rest: Pcm = field(default_factory=lambda: np.empty(0, dtype=np.float32))
    network: SileroState = field(default_factory=SileroState)
    samples: int = 0
    chunks: int = 0
    is_speech: bool = False
    runs: RunFilter = field(default_factory=lambda: RunFilter(bridge=10, drop=6))
    recent: list[bool] = field(default_factory=list)
    given: int = 0

    def copy(self) -> SpeechState:
        """Return an independent copy."""
        return replace(
            self, rest=self.rest.copy(), network=self.network.copy(), runs=replace(self.runs), recent=list(self.recent)
        )


class SpeechDetector:
    """Activity by Silero's network every 32 ms: hysteresis 0.5 / 0.35, silences up to 0.1 s bridged, bursts dropped.

    Bursts under 60 ms are dropped. A tick belongs to the chunk that its centre lies in; the network's median lag is
    taken out of onsets and offsets.
    """

    name = "speech"

    def __init__(self) -> None:
        self._network = load_network()
        self._resampler = Resampler(SAMPLE_RATE_HZ, RATE_HZ)
        self._state = SpeechState()

    def push(self, pcm: Pcm) -> Ticks:
        """Take samples and return the ticks that became certain."""
        self._state.samples += len(pcm)
        return self._take(self._resampler.process(pcm))

    def finish(self) -> Ticks:
        """Return the remaining ticks."""
        state = self._state
        missing = state.samples // TICK_SAMPLES - state.given
        # One chunk of silence completes the last chunk, the filters are then emptied and lag and overhang cut off.
        flushed = self._take(self._resampler.flush()).tolist()
        flushed += self._take(np.zeros(CHUNK_SAMPLES, dtype=np.float32)).tolist()
        state.recent += state.runs.finish() + [False] * SPEECH_OFFSET_LAG
        return _ticks((flushed + self._compensate())[:missing])

    def snapshot(self) -> SpeechState:
        """Return a copy of the state."""
        return replace(self._state.copy(), resampler=self._resampler.snapshot())

    def restore(self, snapshot: object) -> None:
        """Go back to a snapshot.

        Raises:
            StreamError: The snapshot is of another detector.
        """
        if not isinstance(snapshot, SpeechState) or snapshot.resampler is None:
            raise StreamError("this snapshot is of another activity detector; build the meter with the same detectors")
        self._resampler.restore(snapshot.resampler)
        self._state = snapshot.copy()

    def _take(self, pcm: Pcm) -> Ticks:
        state = self._state
        samples = np.concatenate([state.rest, pcm])
        count = len(samples) // CHUNK_SAMPLES
        for chunk in samples[: count * CHUNK_SAMPLES].reshape(count, CHUNK_SAMPLES):
            probability = self._network.step(chunk, state.network)
            state.is_speech = probability >= (SPEECH_OFF if state.is_speech else SPEECH_ON)
            ticks = _ticks_before(state.chunks + 1) - _ticks_before(state.chunks)
            state.chunks += 1
            state.recent += state.runs.push(np.full(ticks, state.is_speech))
        state.rest = samples[count * CHUNK_SAMPLES :].copy()
        return _ticks(self._compensate())

    def _compensate(self) -> list[bool]:
        """Move onsets and offsets of the recent ticks earlier by their lags: both looks ahead must see speech."""
        recent = self._state.recent
        count = max(0, len(recent) - SPEECH_OFFSET_LAG)
        out = [recent[i + SPEECH_ONSET_LAG] and recent[i + SPEECH_OFFSET_LAG] for i in range(count)]
        del recent[:count]
        self._state.given += count
        return out


_DETECTORS: dict[str, type[SpeechDetector] | type[LevelDetector]] = {
    "speech": SpeechDetector,
    "level": LevelDetector,
}


def make_detector(name: str) -> ActivityDetector:
    """Return a fresh detector by name: "speech" or "level".

    Raises:
        ConfigError: There is no detector of that name.
    """
    if name not in _DETECTORS:
        raise ConfigError(f"unknown activity detector {name!r}; use one of: {', '.join(_DETECTORS)}")
    return _DETECTORS[name]()


def _ticks_before(chunks: int) -> int:
    """Return how many ticks have their centre inside the first `chunks` chunks."""
    tick_samples = RATE_HZ // 100
    return (chunks * CHUNK_SAMPLES + tick_samples // 2 - 1) // tick_samples


def _ticks(values: list[bool]) -> Ticks:
    return np.array(values, dtype=np.bool_)


def _copy_level(state: LevelState) -> LevelState:
    return replace(state, rest=state.rest.copy(), runs=replace(state.runs))
