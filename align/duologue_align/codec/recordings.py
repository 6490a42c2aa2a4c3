"""The mono streams that a data set holds, and reading parts of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from duologue.audio.resample import resample
from duologue.errors import AudioError, ConfigError
from duologue.types import SAMPLE_RATE_HZ, Pcm
from duologue_align.codec.phones import SPEAKERS, PhoneTrack, read_phones

MANIFEST = "data.jsonl"
_SUFFIXES = (".wav", ".flac")


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """One channel of one recording.

    Attributes:
        path: The recording.
        channel: Which of its channels.
        samples: Its length at its own rate.
        sample_rate_hz: Its own rate.
    """

    path: Path
    channel: int
    samples: int
    sample_rate_hz: int

    @property
    def duration_s(self) -> float:
        """Length, in seconds."""
        return self.samples / self.sample_rate_hz

    def read(self, begin_s: float, samples: int) -> Pcm:
        """Return `samples` samples at 24 kHz from `begin_s` on, padded with silence past the end.

        Raises:
            AudioError: The file cannot be read, or a sample is not finite.
        """
        begin = round(begin_s * self.sample_rate_hz)
        count = -(-samples * self.sample_rate_hz // SAMPLE_RATE_HZ)
        try:
            with soundfile.SoundFile(self.path) as file:
                file.seek(min(begin, self.samples))
                block = file.read(count, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, OSError) as error:
            raise AudioError(f"{self.path}: cannot be read at {begin_s:.2f} s ({error})") from error
        pcm: Pcm = np.ascontiguousarray(block[:, self.channel])
        if not np.isfinite(pcm).all():
            raise AudioError(f"{self.path}: holds samples that are not finite; write it again")
        if self.sample_rate_hz != SAMPLE_RATE_HZ and len(pcm):
            pcm = resample(pcm, self.sample_rate_hz, SAMPLE_RATE_HZ)
        return np.pad(pcm[:samples], (0, max(0, samples - len(pcm))))

    def phones(self) -> PhoneTrack | None:
        """Return the phones of this stream, or None if nobody wrote any.

        Raises:
            ConfigError: The alignment file is malformed.
        """
        speaker = SPEAKERS[self.channel] if self.channel < len(SPEAKERS) else f"SPEAKER_{self.channel}"
        return read_phones(self.path.with_suffix(".json"), speaker)


def list_tracks(sources: Sequence[str | Path], channel: int | None = None) -> list[Track]:
    """List the channels of every recording of some sources.

    Args:
        sources: Each a data.jsonl (one {"path", "duration"} a line, paths relative to it), or a folder with one, or a
            folder of WAV and FLAC files at any depth.
        channel: The only channel to list; None lists all.

    Raises:
        ConfigError: A source does not exist or holds no recordings, a line cannot be read, or no recording has that
            channel.
        AudioError: A recording cannot be opened.
    """
    tracks = [track for source in sources for path in _paths(Path(source)) for track in _channels(path)]
    if not tracks:
        raise ConfigError("no training data: give --data a data.jsonl or a folder of WAV or FLAC files")
    listed = [track for track in tracks if channel in (None, track.channel)]
    if not listed:
        raise ConfigError(f"{', '.join(map(str, sources))}: no recording has a channel {channel}")
    return listed


def split_tracks(tracks: Iterable[Track], held_out_share: float) -> tuple[list[Track], list[Track]]:
    """Split into training and held-out tracks by the names of the recordings, at least one recording in each.

    Raises:
        ConfigError: There is only one recording.
    """
    by_path: dict[Path, list[Track]] = {}
    for track in tracks:
        by_path.setdefault(track.path, []).append(track)
    # A recording's place depends on its name alone, so a data set may grow without moving any.
    order = sorted(by_path, key=lambda path: hashlib.sha256(path.name.encode()).digest())
    if len(order) < 2:
        raise ConfigError(f"{order[0] if order else 'the data'}: one recording cannot be split; give more, or --valid")
    count = min(max(1, round(len(order) * held_out_share)), len(order) - 1)
    held = set(order[:count])
    return [t for p in by_path if p not in held for t in by_path[p]], [
        t for p in by_path if p in held for t in by_path[p]
    ]


def _paths(source: Path) -> list[Path]:
    if source.is_dir() and not (source / MANIFEST).is_file():
        found = sorted(path for path in source.rglob("*") if path.suffix.lower() in _SUFFIXES)
        if not found:
            raise ConfigError(f"{source}: holds no {MANIFEST} and no WAV or FLAC files")
        return found
    manifest = source / MANIFEST if source.is_dir() else source
    try:
        lines = manifest.read_text(encoding="utf-8").splitlines()
        return [manifest.parent / json.loads(line)["path"] for line in lines if line.strip()]
    except OSError as error:
        raise ConfigError(f"{manifest}: cannot be read ({error.strerror}); give a {MANIFEST} or a folder") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f'{manifest}: every line must be {{"path": ..., "duration": ...}} ({error})') from error


def _channels(path: Path) -> list[Track]:
    try:
        info = soundfile.info(path)
    except (soundfile.LibsndfileError, OSError) as error:
        raise AudioError(f"{path}: not a readable recording ({error})") from error
    return [
        Track(path=path, channel=channel, samples=info.frames, sample_rate_hz=info.samplerate)
        for channel in range(info.channels)
        if info.frames > 0
    ]
