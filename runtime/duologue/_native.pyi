"""Native parts of duologue: the Mimi codec."""

from typing import final

import numpy as np
import numpy.typing as npt

def isa() -> str: ...
def available_isas() -> list[str]: ...

@final
class MimiConfig:
    def __init__(
        self,
        *,
        frame_samples: int,
        dimension: int,
        n_filters: int,
        n_residual_layers: int,
        compress: int,
        kernel_size: int,
        residual_kernel_size: int,
        last_kernel_size: int,
        dilation_base: int,
        true_skip: bool,
        ratios: list[int],
        codebook_dim: int,
        cardinality: int,
        total_codebooks: int,
        semantic_codebooks: int,
        d_model: int,
        num_heads: int,
        num_layers: int,
        context: int,
        dim_feedforward: int,
        max_period: float,
        has_layer_scale: bool,
    ) -> None: ...

@final
class MimiWeights:
    def __init__(self, path: str, config: MimiConfig, *, num_codebooks: int, isa: str = "") -> None: ...
    @property
    def isa(self) -> str: ...
    @property
    def num_codebooks(self) -> int: ...
    @property
    def packed_bytes(self) -> int: ...

@final
class MimiStream:
    def __init__(self, weights: MimiWeights, *, window: str = "moshi", threads: int = 1) -> None: ...
    def encode_step(self, frame: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]: ...
    def latent_step(self, frame: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]: ...
    def decode_step(self, codes: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]: ...
    def reset(self) -> None: ...
    def snapshot(self) -> bytes: ...
    def restore(self, snapshot: bytes) -> None: ...
