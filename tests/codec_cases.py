"""Small codecs and input for the tests of the codec."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from duologue.codec import MimiConfig
from duologue.codec.speechlike import speechlike
from duologue.codec.untrained import write_untrained_mimi

SMALL = MimiConfig(
    n_filters=16, dimension=128, codebook_dim=64, d_model=128, num_heads=4, num_layers=2, dim_feedforward=512
)
"""The released layout at an eighth of the width, with the released context."""

TINY = MimiConfig(
    n_filters=8,
    dimension=32,
    codebook_dim=16,
    cardinality=128,
    total_codebooks=10,
    d_model=32,
    num_heads=2,
    num_layers=1,
    dim_feedforward=64,
    context=20,
)
"""For tests of behaviour, where the numbers do not matter; its window is full after ten frames."""


def write_mimi(folder: Path, config: MimiConfig = TINY) -> Path:
    """Write untrained weights for `config` into `folder`."""
    path = folder / "mimi.safetensors"
    write_untrained_mimi(path, config, seed=1)
    return path


def to_frames(pcm: npt.NDArray[np.float32], frame_samples: int = 1920) -> npt.NDArray[np.float32]:
    """Cut samples into whole frames, shape [N, frame_samples]."""
    return pcm[: len(pcm) // frame_samples * frame_samples].reshape(-1, frame_samples)


def synthetic_frames(duration_s: float, config: MimiConfig = TINY) -> npt.NDArray[np.float32]:
    """Speech-like frames that are not the calibration's."""
    pcm = speechlike(duration_s, seed=77, sample_rate_hz=config.sample_rate_hz)
    return to_frames(pcm, config.frame_samples)


def recorded_frames(path: Path, duration_s: float) -> npt.NDArray[np.float32]:
    """Frames of a recording at 24 kHz, from its start."""
    pcm, rate = soundfile.read(path, dtype="float32", always_2d=True)
    resampled = soxr.resample(pcm[:, 0], rate, 24_000)
    return to_frames(np.ascontiguousarray(resampled[: int(duration_s * 24_000)], dtype=np.float32))


def encode_all(codec: Any, frames: Iterable[npt.NDArray[np.float32]]) -> npt.NDArray[np.int32]:
    """Encode frames one by one: codes [N, K]."""
    return np.stack([codec.encode_step(frame) for frame in frames])


def decode_all(codec: Any, codes: Iterable[npt.NDArray[np.int32]]) -> npt.NDArray[np.float32]:
    """Decode codes one by one: samples [N, frame_samples]."""
    return np.stack([codec.decode_step(code) for code in codes])
