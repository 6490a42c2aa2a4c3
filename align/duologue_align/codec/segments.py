"""Clips to train on: item n depends on the seed and n alone, so a run can stop anywhere and go on with the next."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from duologue.types import FRAME_SAMPLES, SAMPLE_RATE_HZ, Pcm
from duologue_align.codec.phones import SLOTS, UNKNOWN, Labels, PhoneInventory
from duologue_align.codec.recordings import Track

_FRAME_S = FRAME_SAMPLES / SAMPLE_RATE_HZ
_DRAWS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Alteration:
    """How clips are altered; the codec codes what comes out, not what went in.

    Attributes:
        lowest_gain_db: Least gain.
        highest_gain_db: Most gain; no clip is made to exceed full scale.
        noise_share: Share of clips with added noise, white to brown.
        lowest_noise_dbfs: Quietest noise.
        highest_noise_dbfs: Loudest noise.
        silent_share: Share of clips that may be without speech.
        silence_dbfs: Loudness under which a clip is without speech.
    """

    lowest_gain_db: float = -12.0
    highest_gain_db: float = 6.0
    noise_share: float = 0.3
    lowest_noise_dbfs: float = -80.0
    highest_noise_dbfs: float = -40.0
    silent_share: float = 0.08
    silence_dbfs: float = -45.0


@dataclass(frozen=True, slots=True)
class Batch:
    """Clips and what is said in them.

    Attributes:
        pcm: Shape [B, 1, T].
        labels: Phone classes, shape [B, frames, SLOTS]; UNKNOWN where nobody wrote any.
        is_framed: Whether a clip begins on a frame of its recording, shape [B].
    """

    pcm: Tensor
    labels: Tensor
    is_framed: Tensor

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        parts = (self.pcm, self.labels, self.is_framed)
        return Batch(*(part.to(device, non_blocking=True) for part in parts))


class Segments:
    """Draws clips, each from a place chosen by length of track, mostly where somebody speaks."""

    def __init__(
        self,
        tracks: Sequence[Track],
        *,
        frames: int,
        seed: int,
        inventory: PhoneInventory | None = None,
        alteration: Alteration | None = None,
        framed_channel: int = -1,
    ) -> None:
        """Set up.

        Args:
            tracks: Where clips come from.
            frames: Frames per clip.
            seed: Of the draws.
            inventory: Classes of the labels; None labels nothing.
            alteration: None leaves the recordings as they are.
            framed_channel: Channel whose clips begin on the frames of the recordings; -1 for none.
        """
        self.tracks = list(tracks)
        self.frames = frames
        self.seed = seed
        self.inventory = inventory
        self.alteration = alteration
        self.framed_channel = framed_channel
        self._ends = np.cumsum([track.duration_s for track in self.tracks])

    def item(self, number: int) -> tuple[Pcm, Labels, bool]:
        """Return clip `number`: samples, shape [T]; classes, shape [frames, SLOTS]; whether it begins on a frame."""
        rng = np.random.default_rng([self.seed, number])
        settings = self.alteration or Alteration()
        may_be_silent = rng.random() < settings.silent_share
        for _ in range(_DRAWS):
            track, begin_s = self._place(rng)
            pcm = track.read(begin_s, self.frames * FRAME_SAMPLES)
            if may_be_silent or _level_dbfs(pcm) > settings.silence_dbfs:
                break
        if self.alteration is not None:
            pcm = _alter(pcm, self.alteration, rng)
        return pcm, self._labels(track, begin_s), track.channel == self.framed_channel

    def batch(self, numbers: Sequence[int]) -> Batch:
        """Return some clips."""
        pcm, labels, is_framed = zip(*(self.item(number) for number in numbers), strict=True)
        return Batch(
            torch.from_numpy(np.stack(pcm))[:, None], torch.from_numpy(np.stack(labels)), torch.tensor(is_framed)
        )

    def _place(self, rng: np.random.Generator) -> tuple[Track, float]:
        track = self.tracks[int(np.searchsorted(self._ends, rng.random() * self._ends[-1], side="right"))]
        begin_s = float(rng.random() * max(0.0, track.duration_s - self.frames * _FRAME_S))
        return track, int(begin_s / _FRAME_S) * _FRAME_S if track.channel == self.framed_channel else begin_s

    def _labels(self, track: Track, begin_s: float) -> Labels:
        phones = None if self.inventory is None else track.phones()
        if phones is None or self.inventory is None:
            return np.full((self.frames, SLOTS), UNKNOWN, dtype=np.int64)
        slots = self.inventory.slots(phones, begin_s, self.frames * SLOTS, _FRAME_S / SLOTS)
        return slots.reshape(self.frames, SLOTS)


class Prefetcher:
    """Makes the next batches on threads of its own; the order does not depend on how many there are."""

    def __init__(self, segments: Segments, batch_size: int, *, first_item: int, workers: int) -> None:
        """Start.

        Args:
            segments: Where clips come from.
            batch_size: Clips per batch.
            first_item: Number of the first clip.
            workers: Threads, 0 to make each batch when it is asked for.
        """
        self._segments = segments
        self._size = batch_size
        self._next = first_item
        self._depth = workers + 2
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="clips") if workers else None
        self._waiting: deque[Future[Batch]] = deque()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._pool is None:
            return self._segments.batch(self._numbers())
        while len(self._waiting) < self._depth:
            self._waiting.append(self._pool.submit(self._segments.batch, self._numbers()))
        return self._waiting.popleft().result()

    def _numbers(self) -> range:
        begin = self._next
        self._next += self._size
        return range(begin, self._next)

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


def _level_dbfs(pcm: Pcm) -> float:
    return float(10 * np.log10(np.mean(np.square(pcm), dtype=np.float64) + 1e-12))


def _alter(pcm: Pcm, settings: Alteration, rng: np.random.Generator) -> Pcm:
    gain = 10 ** (rng.uniform(settings.lowest_gain_db, settings.highest_gain_db) / 20)
    peak = float(np.abs(pcm).max())
    out = pcm * np.float32(min(gain, 0.99 / peak if peak > 0 else gain))
    if rng.random() < settings.noise_share:
        level = 10 ** (rng.uniform(settings.lowest_noise_dbfs, settings.highest_noise_dbfs) / 20)
        out = out + _noise(len(pcm), rng) * np.float32(level)
    altered: Pcm = np.clip(out, -1.0, 1.0).astype(np.float32)
    return altered


def _noise(samples: int, rng: np.random.Generator) -> Pcm:
    """Return noise of RMS 1 whose power falls by 0 to 6 dB an octave."""
    size = 1 << (samples - 1).bit_length()
    spectrum = np.fft.rfft(rng.standard_normal(size, dtype=np.float32))
    spectrum[1:] *= np.arange(1, len(spectrum)) ** -rng.uniform(0.0, 1.0)
    spectrum[0] = 0
    noise = np.fft.irfft(spectrum)[:samples]
    return np.asarray(noise / (np.sqrt(np.mean(noise**2)) + 1e-9), dtype=np.float32)
