"""The published codecs behind the verbs of `MimiStream`, for parity tests and benchmarks."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from duologue.codec.config import MimiConfig
from duologue.errors import MissingExtraError, StreamError
from duologue.types import Codes, Pcm


class StreamingCodec(Protocol):
    """What every codec stream here can do."""

    def encode_step(self, frame: Pcm) -> Codes:
        """Encode samples [frame_samples] to codes [K]."""

    def decode_step(self, codes: Codes) -> Pcm:
        """Decode codes [K] to samples [frame_samples]."""

    def reset(self) -> None:
        """Return to the state of a new stream."""


class MoshiCodec:
    """moshi's PyTorch Mimi in streaming mode, on the CPU in float32.

    Args:
        path: Weights, safetensors.
        config: Shape of the codec; None is the released one.
        num_codebooks: How many codebooks to use.

    Raises:
        MissingExtraError: moshi or torch is not installed.

    Source: moshi 0.2.13, `loaders.get_mimi` and `MimiModel.streaming_forever`.
    """

    def __init__(self, path: str | Path, *, config: MimiConfig | None = None, num_codebooks: int = 8) -> None:
        try:
            import torch
            from moshi.models import loaders
        except ImportError as error:
            raise MissingExtraError("moshi", "reference") from error
        self._torch = torch
        shape = None if config is None else config.to_dict()
        self._model: Any = loaders.get_mimi(str(path), shape, num_codebooks=num_codebooks)
        self._model.streaming_forever(1)

    def encode_step(self, frame: Pcm) -> Codes:
        """Encode samples [frame_samples] to codes [K]."""
        with self._inference():
            codes = self._model.encode(self._torch.from_numpy(frame)[None, None])
        return np.asarray(codes[0, :, 0].numpy(), dtype=np.int32)

    def decode_step(self, codes: Codes) -> Pcm:
        """Decode codes [K] to samples [frame_samples]."""
        with self._inference():
            pcm = self._model.decode(self._torch.from_numpy(codes.astype(np.int64))[None, :, None])
        return np.asarray(pcm[0, 0].numpy(), dtype=np.float32)

    def reset(self) -> None:
        """Return to the state of a new stream."""
        self._model.reset_streaming()

    def _inference(self) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = self._torch.inference_mode()
        return context


class RustymimiCodec:
    """Kyutai's Rust Mimi, float32; it knows the released shape only and ends after `max_seq_len` steps.

    Args:
        path: Weights, safetensors.
        num_codebooks: How many codebooks to use.
        max_seq_len: Transformer steps (two per frame) that a stream may last; None is its default, 8192.

    Raises:
        MissingExtraError: rustymimi is not installed.

    Source: rustymimi 0.4.1, `Tokenizer.encode_step` and `decode_step`.
    """

    def __init__(self, path: str | Path, *, num_codebooks: int = 8, max_seq_len: int | None = None) -> None:
        try:
            import rustymimi
        except ImportError as error:
            raise MissingExtraError("rustymimi", "reference") from error
        self._tokenizer: Any = rustymimi.Tokenizer(
            str(path), num_codebooks=num_codebooks, dtype="f32", max_seq_len=max_seq_len
        )

    def encode_step(self, frame: Pcm) -> Codes:
        """Encode samples [frame_samples] to codes [K].

        Raises:
            StreamError: It gives none, as for a frame of another size.
        """
        codes = self._tokenizer.encode_step(np.ascontiguousarray(frame[None, None], dtype=np.float32))
        if codes is None:
            raise StreamError(f"rustymimi gave no codes for a frame of {len(frame)} samples; pass whole frames")
        return np.asarray(codes[0, :, 0], dtype=np.int32)

    def decode_step(self, codes: Codes) -> Pcm:
        """Decode codes [K] to samples [frame_samples].

        Raises:
            StreamError: It gives none.
        """
        pcm = self._tokenizer.decode_step(np.ascontiguousarray(codes[None, :, None], dtype=np.uint32))
        if pcm is None:
            raise StreamError("rustymimi gave no samples for one frame of codes")
        return np.asarray(pcm[0, 0], dtype=np.float32)

    def reset(self) -> None:
        """Return to the state of a new stream."""
        self._tokenizer.reset()
