"""Encode the user side of the chosen segments with the native streaming Mimi.

Segments whose windows, with the context before them, overlap share one stretch of codes: a fresh stream begins at the
stretch's first frame and runs to its end, as the codec of a live conversation would that began there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from duologue.codec import Mimi, MimiConfig
from duologue.errors import ConfigError, DuologueError
from duologue.model.checkpoint import Checkpoint
from duologue.replacing import replacing
from duologue.types import FRAME_MS, FRAME_RATE_HZ
from duologue_align.corpus.audio import read_spans
from duologue_align.corpus.conversation import Channel
from duologue_align.segments.mining import Outcome, digest, file_stem
from duologue_align.segments.segment import CodesPlace, Segment, channel_row
from duologue_align.sft.encode import CODEBOOKS, encode_channel

FOLDER = "codes"

Stretch: TypeAlias = tuple[str, int, int]
"""(side of the corpus' roles: "user" or "agent", first frame, frame after the last)."""

_CodesTensor: TypeAlias = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """Which codec makes the codes.

    Attributes:
        weights: mimi.safetensors.
        config: Its configuration, or None for the released codec's.
    """

    weights: Path
    config: Path | None = None

    @classmethod
    def find(cls, path: Path | None) -> Codec:
        """Return the codec of a weights file or of a model folder; None is the bundled agent's.

        Raises:
            ConfigError: There is no codec there.
            WeightsError: The folder is not a model's.
        """
        if path is None:
            from duologue.agent import cache_folder, default_bundle
            from duologue.config import AgentConfig

            path = default_bundle(cache_folder(AgentConfig()))
        path = path.absolute()
        if not path.exists():
            raise ConfigError(f"{path}: no such file or folder; give mimi.safetensors or a model folder with --codec")
        if path.is_dir() and (path / "config.json").is_file():
            checkpoint = Checkpoint.open(path)
            if checkpoint.mimi_path is None:
                raise ConfigError(f"{path}: the model folder has no codec (mimi_name); give the file with --codec")
            return cls(weights=checkpoint.mimi_path, config=checkpoint.mimi_config_path)
        weights = path / "mimi.safetensors" if path.is_dir() else path
        if not weights.is_file():
            raise ConfigError(f"{path}: holds no mimi.safetensors; give the file with --codec")
        beside = weights.with_name("mimi_config.json")
        return cls(weights=weights, config=beside if beside.is_file() else None)

    def load(self) -> Mimi:
        """Load it.

        Raises:
            WeightsError: The weights cannot be read or do not fit.
            ConfigError: The configuration cannot be read.
        """
        return Mimi.load(
            self.weights, num_codebooks=CODEBOOKS, config=MimiConfig.from_file(self.config) if self.config else None
        )

    def signature(self) -> str:
        """Return a digest of weights and configuration."""
        content = self.weights.read_bytes() + (self.config.read_bytes() if self.config else b"")
        return hashlib.sha256(content).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodesTask:
    """The stretches of one conversation.

    Attributes:
        name: The conversation.
        user: Where its user is, by the corpus' roles.
        agent: Where its agent is.
        stretches: What to encode.
        codec: With which codec.
        codec_signature: Digest of it.
        audio_signature: Digest of the recordings.
        out: The mined folder.
    """

    name: str
    user: Channel
    agent: Channel
    stretches: tuple[Stretch, ...]
    codec: Codec
    codec_signature: str
    audio_signature: str
    out: Path

    @property
    def signature(self) -> str:
        """Digest of everything the file depends on."""
        where = [channel_row(self.user), channel_row(self.agent)]
        return digest([self.stretches, self.codec_signature, self.audio_signature, where])


def codes_file(name: str) -> str:
    """Return the file of a conversation's codes, relative to the mined folder."""
    return f"{FOLDER}/{file_stem(name)}.safetensors"


def plan_stretches(segments: Iterable[Segment], context_s: float) -> tuple[Stretch, ...]:
    """Return the stretches that hold the user sides of some segments of one conversation with their context."""
    context = round(context_s * FRAME_RATE_HZ)
    wanted = sorted(
        (_side(segment), max(0, segment.first_frame - context), segment.first_frame + segment.frames)
        for segment in segments
    )
    stretches: list[Stretch] = []
    for side, first, last in wanted:
        if stretches and stretches[-1][0] == side and first <= stretches[-1][2]:
            stretches[-1] = (side, stretches[-1][1], max(last, stretches[-1][2]))
        else:
            stretches.append((side, first, last))
    return tuple(stretches)


def place_codes(segment: Segment, stretches: Sequence[Stretch]) -> Segment:
    """Return the segment with the place of its codes."""
    for stretch in stretches:
        side, first, last = stretch
        if side == _side(segment) and first <= segment.first_frame and segment.first_frame + segment.frames <= last:
            place = CodesPlace(file=codes_file(segment.conversation), tensor=_tensor(stretch), first_frame=first)
            return replace(segment, codes_place=place)
    raise AssertionError(f"no stretch holds {segment.id}")


def encode_stretches(task: CodesTask) -> Outcome:
    """Write the codes of a conversation, unless they are there already; never raises for what a recording holds."""
    path = task.out / codes_file(task.name)
    audio_s = sum(last - first for _, first, last in task.stretches) * FRAME_MS / 1000
    try:
        if _is_written(path, task.signature):
            return Outcome(name=task.name, audio_s=audio_s, was_done=True)
        mimi = _load(task.codec, task.codec_signature)
        tensors = _encode(mimi, task, "user") | _encode(mimi, task, "agent")
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            save_file(tensors, partial, metadata={"signature": task.signature})
    except (DuologueError, OSError) as error:
        return Outcome(name=task.name, error=" ".join(str(error).split()))
    return Outcome(name=task.name, audio_s=audio_s, processed_s=audio_s)


@lru_cache(maxsize=1)
def _load(codec: Codec, signature: str) -> Mimi:
    return codec.load()


def _encode(mimi: Mimi, task: CodesTask, side: str) -> dict[str, _CodesTensor]:
    own = [stretch for stretch in task.stretches if stretch[0] == side]
    frame_s = FRAME_MS / 1000
    spans = [(first * frame_s, last * frame_s) for _, first, last in own]
    sounds = read_spans(task.user if side == "user" else task.agent, spans) if spans else []
    return {
        _tensor(stretch): encode_channel(mimi.stream(), pcm).astype(np.int16)
        for stretch, pcm in zip(own, sounds, strict=True)
    }


def _tensor(stretch: Stretch) -> str:
    return f"{stretch[0]}-{stretch[1]:06d}"


def _side(segment: Segment) -> str:
    return "agent" if segment.is_swapped else "user"


def _is_written(path: Path, signature: str) -> bool:
    try:
        with safe_open(path, framework="np") as file:
            return (file.metadata() or {}).get("signature") == signature
    except (OSError, SafetensorError):
        return False
