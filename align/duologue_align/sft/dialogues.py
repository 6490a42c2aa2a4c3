"""Dialogues in moshi-finetune's format: a data.jsonl of stereo recordings, and beside each one its words with times."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from duologue.audio.resample import resample
from duologue.errors import AudioError, ConfigError
from duologue.metrics.types import Side
from duologue.types import FRAME_SAMPLES, SAMPLE_RATE_HZ, Pcm

MANIFEST = "data.jsonl"
AGENT_LABEL = "SPEAKER_MAIN"
AGENT_CHANNEL, USER_CHANNEL = 0, 1


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """A word and when it sounds, in seconds."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A recording of two channels, the agent's (left) and the user's.

    Attributes:
        path: The recording.
        duration_s: Its length, as the manifest states it.
    """

    path: Path
    duration_s: float

    @property
    def name(self) -> str:
        """File name without its suffix, by which messages and shards call it."""
        return self.path.stem

    def channels(self) -> tuple[Pcm, Pcm]:
        """Return agent and user at 24 kHz, each float32 [n] with n a whole number of frames, the last one padded.

        Raises:
            AudioError: The file cannot be read, is not stereo, or holds values that are not finite.
        """
        try:
            samples, rate = soundfile.read(self.path, dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, OSError) as error:
            raise AudioError(f"{self.path}: not a readable recording ({error})") from error
        if samples.shape[1] != 2 or not len(samples):
            raise AudioError(f"{self.path}: has shape {samples.shape}; expected two channels, left agent, right user")
        if not np.isfinite(samples).all():
            raise AudioError(f"{self.path}: holds samples that are not finite; write it again")
        agent, user = (_whole_frames(samples[:, side], rate) for side in (AGENT_CHANNEL, USER_CHANNEL))
        return agent, user

    def words(self, side: Side = "agent") -> list[SpokenWord]:
        """Return a side's words in order of their start; those that end before they begin are left out.

        Args:
            side: "agent" for the words of SPEAKER_MAIN, "user" for those of anyone else.

        Raises:
            ConfigError: The alignment file is missing or malformed.
        """
        path = self.path.with_suffix(".json")
        try:
            rows = json.loads(path.read_text(encoding="utf-8"))["alignments"]
            words = [_word(row) for row in rows if (row[2] == AGENT_LABEL) == (side == "agent")]
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror}); every recording needs its words") from error
        except (ValueError, KeyError, TypeError, IndexError) as error:
            form = '{"alignments": [[word, [start_s, end_s], "SPEAKER_MAIN"], ...]}'
            raise ConfigError(f"{path}: expected {form} ({error})") from error
        return sorted((word for word in words if word.end_s > word.start_s), key=lambda word: word.start_s)


def read_manifest(source: str | Path) -> list[Dialogue]:
    """List the dialogues of a data set.

    Args:
        source: A data.jsonl with one {"path", "duration"} a line, paths relative to it; or the folder it lies in.

    Raises:
        ConfigError: The manifest is missing, malformed or empty.
    """
    path = Path(source) / MANIFEST if Path(source).is_dir() else Path(source)
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        found = [Dialogue(path.parent / row["path"], float(row["duration"])) for row in rows]
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); write one with: duologue-align synth") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f'{path}: every line must be {{"path": ..., "duration": ...}} ({error})') from error
    if not found:
        raise ConfigError(f"{path}: lists no dialogues; write some with: duologue-align synth")
    return found


def _word(row: Any) -> SpokenWord:
    text, (start_s, end_s), _ = row
    if not isinstance(text, str) or not np.isfinite([start_s, end_s]).all():
        raise ValueError(f"{row!r} is not a word with its times")
    return SpokenWord(text.strip(), float(start_s), float(end_s))


def _whole_frames(channel: Pcm, rate: int) -> Pcm:
    pcm = np.ascontiguousarray(channel)
    if rate != SAMPLE_RATE_HZ:
        pcm = resample(pcm, rate, SAMPLE_RATE_HZ)
    return np.pad(pcm, (0, -len(pcm) % FRAME_SAMPLES))
