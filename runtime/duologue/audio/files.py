"""Recordings on disk: read in blocks with every sample checked, written beside and then renamed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import soundfile

from duologue.audio.resample import Resampler, check_rate
from duologue.errors import AudioError, ConfigError
from duologue.replacing import replacing
from duologue.types import SAMPLE_RATE_HZ, Pcm

MAX_LEVEL = 16.0
"""Largest sample we take, full scale being 1: beyond it (or NaN) something upstream is broken or wrongly scaled."""
_BLOCK_SAMPLES = 1 << 16


class AudioFile:
    """One channel of a recording (WAV, FLAC, Ogg, MP3), read in blocks so that its length does not matter."""

    def __init__(self, path: str | Path, *, channel: int | None = None) -> None:
        """Open the file.

        Args:
            path: The recording.
            channel: Which channel to read; needed only when there is more than one.

        Raises:
            AudioError: If the file is missing, empty, not audio, or the channel does not exist.
        """
        self.path = Path(path)
        if self.path.is_dir():
            raise AudioError(f"{self.path}: is a folder; give the path of one recording")
        if not self.path.is_file():
            raise AudioError(f"{self.path}: no such file; give the path of a recording (WAV, FLAC, Ogg or MP3)")
        try:
            self._file = soundfile.SoundFile(self.path)
        except (soundfile.LibsndfileError, TypeError, ValueError, OSError) as error:
            raise AudioError(f"{self.path}: not a readable recording ({error}); use WAV or FLAC") from error
        try:
            self.sample_rate_hz = check_rate(self._file.samplerate)
        except ConfigError as error:
            raise AudioError(f"{self.path}: {error}") from error
        self._channel = self._choose_channel(channel)
        self.samples: int = self._file.frames
        if self.samples <= 0:
            raise AudioError(f"{self.path}: the recording is empty; give one with at least one frame (80 ms) of sound")

    def _choose_channel(self, channel: int | None) -> int:
        channels: int = self._file.channels
        if channel is None and channels > 1:
            raise AudioError(f"{self.path}: {channels} channels; choose one of them, 0 to {channels - 1}")
        if channel is not None and not 0 <= channel < channels:
            raise AudioError(f"{self.path}: no channel {channel}; it has {channels}, numbered from 0")
        return channel or 0

    @property
    def duration_s(self) -> float:
        """Length of the recording, in seconds."""
        return self.samples / self.sample_rate_hz

    def blocks(self, sample_rate_hz: int = SAMPLE_RATE_HZ) -> Iterator[Pcm]:
        """Yield the recording at the asked rate, in blocks of any size.

        Raises:
            AudioError: If a sample is not finite or the file breaks off.
        """
        resampler = Resampler(self.sample_rate_hz, sample_rate_hz)
        remaining = -(-self.samples * sample_rate_hz // self.sample_rate_hz)
        position = 0
        self._file.seek(0)
        while position < self.samples:
            block = self._read(position)
            position += len(block)
            output = resampler.process(block)
            remaining -= len(output)
            yield output
        if remaining:
            yield resampler.flush()[:remaining]

    def frames(self, frame_samples: int, sample_rate_hz: int = SAMPLE_RATE_HZ) -> Iterator[Pcm]:
        """Yield whole frames, shape [frame_samples]; the last one is padded with silence."""
        pending = np.empty(0, dtype=np.float32)
        for block in self.blocks(sample_rate_hz):
            pending = np.concatenate([pending, block])
            whole = len(pending) // frame_samples * frame_samples
            yield from pending[:whole].reshape(-1, frame_samples)
            pending = pending[whole:]
        if len(pending):
            yield np.pad(pending, (0, frame_samples - len(pending)))

    def read(self, sample_rate_hz: int = SAMPLE_RATE_HZ) -> Pcm:
        """Return the whole recording, shape [n]."""
        return np.concatenate(list(self.blocks(sample_rate_hz)))

    def _read(self, position: int) -> Pcm:
        try:
            block = self._file.read(_BLOCK_SAMPLES, dtype="float32", always_2d=True)[:, self._channel]
        except soundfile.LibsndfileError as error:
            raise AudioError(
                f"{self.path}: broken at {position / self.sample_rate_hz:.2f} s ({error.error_string})"
            ) from error
        if not len(block):
            raise AudioError(
                f"{self.path}: truncated, ends at {position / self.sample_rate_hz:.2f} of {self.duration_s:.2f} s"
            )
        sane = np.abs(block) <= MAX_LEVEL
        if not sane.all():
            index = int(np.argmin(sane))
            at_s = (position + index) / self.sample_rate_hz
            raise AudioError(
                f"{self.path}: the sample at {at_s:.3f} s is {block[index]:g}, full scale is 1; "
                "repair or re-export the recording"
            )
        return np.ascontiguousarray(block)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> AudioFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def write_wav(path: str | Path, pcm: Pcm, sample_rate_hz: int = SAMPLE_RATE_HZ) -> None:
    """Write a 16-bit WAV, shape [n] or [n, channels]; nothing is left behind if it fails."""
    with replacing(path) as partial:
        soundfile.write(partial, pcm, sample_rate_hz, subtype="PCM_16", format="WAV")
