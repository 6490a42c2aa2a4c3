"""Mimi, the streaming neural codec: weights that are shared and streams that are not."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias, cast, get_args

import numpy as np
import numpy.typing as npt

from duologue import _native
from duologue.codec.config import MimiConfig
from duologue.errors import ConfigError, StreamError
from duologue.types import Codes, Pcm

Window: TypeAlias = Literal["moshi", "exact", "rustymimi"]
"""How many keys a transformer step sees once `context` of them (10 s in the released codec) have gone by.

"exact": `context`, its own included, as the codec was trained. "moshi": as moshi streams, where the steps of a frame
are written into a ring of `context` slots before they attend, so the first of two steps sees `context` - 1.
"rustymimi": `context` + 1. Until then the three are the same.
"""

Precision: TypeAlias = Literal["float32", "float16", "int8"]
"""How weights are kept in memory; codebooks are always float32.

"float16": weights that a frame reads once (transformers and the innermost convolutions) take half the bytes; all sums
are float32. "int8": all but the layers at the waveform, one scale per output channel; where the processor multiplies
bytes (AVX-512 VNNI, NEON dot products) activations are rounded too, to 16 bits where weights are read once and to 8
elsewhere.
"""

MAX_THREADS = 2
"""Most threads that one stream runs on."""


class Mimi:
    """Immutable codec weights; any number of streams may share them, each on a thread of its own."""

    def __init__(self, weights: _native.MimiWeights, config: MimiConfig, *, threads: int) -> None:
        self._weights = weights
        self._config = config
        self._threads = threads

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        num_codebooks: int = 8,
        config: MimiConfig | None = None,
        threads: int = 1,
        isa: str = "",
        precision: Precision = "float32",
    ) -> Mimi:
        """Read a safetensors file in moshi's layout and pack its weights for this processor.

        Args:
            path: The file, float32 (float16 and bfloat16 are converted).
            num_codebooks: How many codebooks to use, the first ones of the file.
            config: Shape of the codec; None is the released one.
            threads: 1 or 2 threads per stream. The second thread starts with a stream, not here.
            isa: "scalar", "avx2", "avx512", "avx512vnni", "neon" or "neondot"; "" takes the environment variable
                DUOLOGUE_ISA, or else the fastest that this processor has.
            precision: How weights are kept: faster and smaller, or exact. The README has what each costs.

        Raises:
            WeightsError: The file is missing or truncated, or a tensor is missing, unknown or of another shape; the
                message names the tensor, what was expected and what was found.
            ConfigError: The configuration, `num_codebooks`, `threads`, `isa` or `precision` cannot be.

        Source: layout of moshi 0.2.13 `MimiModel`; architecture of arXiv 2410.00037 section 3.3.
        """
        config = MimiConfig() if config is None else config
        _check_threads(threads)
        shape = _native_config(config)
        weights = _native.MimiWeights(str(path), shape, num_codebooks=num_codebooks, isa=isa, precision=precision)
        return cls(weights, config, threads=threads)

    @property
    def config(self) -> MimiConfig:
        """Shape of the codec."""
        return self._config

    @property
    def num_codebooks(self) -> int:
        """Codebooks in use: the length of every code vector."""
        return self._weights.num_codebooks

    @property
    def cardinality(self) -> int:
        """Entries per codebook: codes are in [0, cardinality)."""
        return self._config.cardinality

    @property
    def frame_samples(self) -> int:
        """Samples in one frame."""
        return self._config.frame_samples

    @property
    def isa(self) -> str:
        """Instruction set that the weights are packed for."""
        return self._weights.isa

    @property
    def precision(self) -> Precision:
        """How the weights are kept."""
        return cast(Precision, self._weights.precision)

    @property
    def packed_bytes(self) -> int:
        """Memory that the weights occupy."""
        return self._weights.packed_bytes

    def stream(self, *, window: Window = "moshi", threads: int | None = None) -> MimiStream:
        """Start a stream: all the state of one conversation, allocated here and never again.

        Args:
            window: Which published attention window to follow.
            threads: 1 or 2; None is what the weights were loaded with.

        Raises:
            ConfigError: `window` or `threads` is not one of the above.
        """
        if window not in get_args(Window):
            raise ConfigError(f"window is {window!r}; it must be one of {', '.join(get_args(Window))}")
        count = self._threads if threads is None else threads
        _check_threads(count)
        return MimiStream(_native.MimiStream(self._weights, window=window, threads=count))


class MimiStream:
    """Encode state and decode state of one conversation; the two are independent of each other.

    A stream may move between threads but serves one call at a time.
    """

    def __init__(self, native: _native.MimiStream) -> None:
        self._native = native

    def encode_step(self, frame: Pcm) -> Codes:
        """Encode one frame.

        Args:
            frame: Samples, float32, shape [frame_samples], in [-1, 1].

        Returns:
            Codes, int32, shape [K], each in [0, cardinality).

        Raises:
            AudioError: The frame is of another type or shape, or holds NaN or infinity; the state is unchanged.
            StreamError: Another thread is inside this stream.

        Source: matches moshi 0.2.13 `MimiModel.encode` in streaming mode.
        """
        return self._native.encode_step(frame)

    def decode_step(self, codes: npt.NDArray[np.int32]) -> Pcm:
        """Decode the codes of one frame.

        Args:
            codes: int32, shape [K], each in [0, cardinality).

        Returns:
            Samples, float32, shape [frame_samples].

        Raises:
            ConfigError: The codes are of another type or shape or out of range; the state is unchanged.
            StreamError: Another thread is inside this stream.

        Source: matches moshi 0.2.13 `MimiModel.decode` in streaming mode.
        """
        return self._native.decode_step(codes)

    def latent_step(self, frame: Pcm) -> npt.NDArray[np.float32]:
        """Encode one frame up to the quantiser; advances the encode state as `encode_step` does.

        Args:
            frame: As for `encode_step`.

        Returns:
            The latent that the quantiser reads, float32, shape [dimension].

        Raises:
            AudioError: As for `encode_step`.
            StreamError: Another thread is inside this stream.
        """
        return self._native.latent_step(frame)

    def start_clock(self) -> None:
        """Set the figures of `stages` to zero and measure from here on; costs a microsecond or two per frame."""
        self._native.start_clock()

    def stages(self) -> dict[str, tuple[float, float, int]]:
        """Return what each stage took since `start_clock`: seconds, multiply-adds, bytes of weights and keys read."""
        return self._native.stages()

    def reset(self) -> None:
        """Return to the state of a new stream."""
        self._native.reset()

    def snapshot(self) -> bytes:
        """Copy the whole state; continuing after `restore` gives bit-identical results on the same kernels."""
        return self._native.snapshot()

    def restore(self, snapshot: bytes) -> None:
        """Return to the state that `snapshot` was taken in.

        Raises:
            StreamError: The bytes are no snapshot, or one of another configuration, precision or window; nothing
                changes.
        """
        if not isinstance(snapshot, bytes):
            raise StreamError(f"a codec snapshot is bytes, got {type(snapshot).__name__}")
        self._native.restore(snapshot)


def _check_threads(threads: int) -> None:
    if threads not in range(1, MAX_THREADS + 1):
        raise ConfigError(f"threads is {threads!r}; a stream runs on 1 or {MAX_THREADS}")


def _native_config(config: MimiConfig) -> _native.MimiConfig:
    return _native.MimiConfig(
        frame_samples=config.frame_samples,
        dimension=config.dimension,
        n_filters=config.n_filters,
        n_residual_layers=config.n_residual_layers,
        compress=config.compress,
        kernel_size=config.kernel_size,
        residual_kernel_size=config.residual_kernel_size,
        last_kernel_size=config.last_kernel_size,
        dilation_base=config.dilation_base,
        true_skip=config.true_skip,
        ratios=list(config.ratios),
        codebook_dim=config.codebook_dim,
        cardinality=config.cardinality,
        total_codebooks=config.total_codebooks,
        semantic_codebooks=config.semantic_codebooks,
        d_model=config.d_model,
        num_heads=config.num_heads,
        num_layers=config.num_layers,
        context=config.context,
        dim_feedforward=config.dim_feedforward,
        max_period=config.max_period,
        has_layer_scale=config.has_layer_scale,
    )
