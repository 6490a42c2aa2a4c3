"""The released Mimi as two ONNX graphs with explicit state, one frame a run: the strongest rival on a CPU.

The graphs are exported from plain torch functions over the tensors of a weights file. Convolution state goes in and
comes out; keys and values stay in numpy rings that the caller writes, so that a run moves only the two new rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
import onnxruntime as ort
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

CONTEXT = 250
STEPS = 2
LAYERS, HEADS, HEAD_DIM = 8, 8, 64
CODEBOOKS = 8
RATIOS = (8, 6, 5, 4)


Rings: TypeAlias = Sequence[Tensor]


class Step(torch.nn.Module):
    """What both directions share: streaming convolutions with the state passed through, and the transformer."""

    transformer: ClassVar[str]

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.tensors = tensors
        self.states: list[Tensor] = []
        self.new_states: list[Tensor] = []
        self.shapes: list[tuple[int, ...]] | None = None
        # Made here, so that the graph holds them as constants.
        self.centroids = [self.codebook(index) for index in range(CODEBOOKS)]
        self.transposed = [centroids.T.contiguous() for centroids in self.centroids]
        self.half_norms = [(centroids**2).sum(1) / 2 for centroids in self.centroids]

    def next_state(self, shape: tuple[int, ...]) -> Tensor:
        """Take the next state; while shapes are being collected, it is zeros."""
        if self.shapes is not None:
            self.shapes.append(shape)
            return torch.zeros(shape)
        return self.states[len(self.new_states)]

    def conv(self, x: Tensor, name: str, stride: int = 1, first: Tensor | None = None) -> Tensor:
        """Convolve x [1, C, T] after its state; `first` > 0 makes that state x's first column."""
        weight, bias = self.tensors[f"{name}.weight"], self.tensors.get(f"{name}.bias")
        before = weight.shape[2] - stride
        if before > 0:
            state = self.next_state((1, weight.shape[1], before))
            if first is not None:
                state = torch.where(first > 0, x[..., :1].expand(-1, -1, before), state)
            x = torch.cat([state, x], dim=-1)
            self.new_states.append(x[..., -before:])
        return functional.conv1d(x, weight, bias, stride=stride)

    def up(self, x: Tensor, name: str, stride: int, groups: int = 1) -> Tensor:
        """Transposed convolution of x [1, C, T]; the state is the tail of the output before."""
        weight = self.tensors[f"{name}.weight"]
        channels = weight.shape[1] * groups
        state = self.next_state((1, channels, stride))
        y = functional.conv_transpose1d(x, weight, None, stride=stride, groups=groups)
        head = y[..., :stride] + state
        self.new_states.append(y[..., -stride:])
        y = torch.cat([head, y[..., stride:-stride]], dim=-1)
        bias = self.tensors.get(f"{name}.bias")
        return y if bias is None else y + bias[:, None]

    def residual(self, x: Tensor, name: str) -> Tensor:
        """Add its narrow branch to x."""
        y = self.conv(functional.elu(x), f"{name}.block.1.conv.conv")
        return x + self.conv(functional.elu(y), f"{name}.block.3.conv.conv")

    def attend(self, x: Tensor, keys: Rings, values: Rings, mask: Tensor, cos: Tensor, sin: Tensor) -> list[Tensor]:
        """Run the transformer on x [2, D]: its output and the new keys and values [L, H, 2, 64]."""
        new_keys, new_values = [], []
        for layer in range(LAYERS):
            get = self.getter(layer)
            width = x.shape[-1]
            h = functional.layer_norm(x, (width,), get("norm1.weight"), get("norm1.bias"))
            qkv = (h @ get("self_attn.in_proj_weight").T).view(STEPS, 3, HEADS, HEAD_DIM).permute(1, 2, 0, 3)
            q, k = (rotate(part, cos, sin) for part in (qkv[0], qkv[1]))
            v = qkv[2]
            scores = q @ torch.cat([keys[layer], k], dim=1).transpose(1, 2) * HEAD_DIM**-0.5 + mask
            attended = torch.softmax(scores, dim=-1) @ torch.cat([values[layer], v], dim=1)
            out = get("self_attn.out_proj.weight") * get("layer_scale_1.scale")[:, None]
            x = x + attended.transpose(0, 1).reshape(STEPS, width) @ out.detach().T
            h = functional.layer_norm(x, (width,), get("norm2.weight"), get("norm2.bias"))
            down = get("linear2.weight") * get("layer_scale_2.scale")[:, None]
            x = x + functional.gelu(h @ get("linear1.weight").T) @ down.detach().T
            new_keys.append(k)
            new_values.append(v)
        return [x, torch.stack(new_keys), torch.stack(new_values)]

    def getter(self, layer: int) -> Callable[[str], Tensor]:
        """Return a look-up of one layer's tensors."""
        return lambda name: self.tensors[f"{self.transformer}.transformer.layers.{layer}.{name}"]

    def codebook(self, index: int) -> Tensor:
        """Return the centroids of codebook `index`, [2048, 256]."""
        half, layer = ("first", 0) if index == 0 else ("rest", index - 1)
        name = f"quantizer.rvq_{half}.vq.layers.{layer}._codebook."
        return self.tensors[f"{name}embedding_sum"] / self.tensors[f"{name}cluster_usage"].clamp(min=1e-5)[:, None]

    def forward(self, signal: Tensor, mask: Tensor, cos: Tensor, sin: Tensor, first: Tensor, *rest: Tensor) -> Any:
        """One frame: the results, then the states in the order in which they were read."""
        self.states = list(rest[2 * LAYERS :])
        self.new_states = []
        results = self.step(signal, rest[:LAYERS], rest[LAYERS : 2 * LAYERS], mask, cos, sin, first)
        return (*results, *self.new_states)

    def step(self, *inputs: Any) -> list[Tensor]:
        """What one direction does with a frame."""
        raise NotImplementedError


class EncoderStep(Step):
    """Samples to codes."""

    transformer = "encoder_transformer"

    def step(self, *inputs: Any) -> list[Tensor]:
        """Samples to codes."""
        frame, keys, values, mask, cos, sin, first = inputs
        x = self.conv(frame, "encoder.model.0.conv.conv")
        for index, ratio in zip((1, 4, 7, 10), reversed(RATIOS), strict=True):
            x = self.residual(x, f"encoder.model.{index}")
            x = self.conv(functional.elu(x), f"encoder.model.{index + 2}.conv.conv", ratio)
        x = self.conv(functional.elu(x), "encoder.model.14.conv.conv")
        x, new_keys, new_values = self.attend(x[0].T, keys, values, mask, cos, sin)
        latent = self.conv(x.T[None], "downsample.conv.conv.conv", STEPS, first)[0, :, 0]
        codes = []
        for index in range(CODEBOOKS):
            if index < 2:
                half = ("first", "rest")[index]
                residual = (latent[None] @ self.tensors[f"quantizer.rvq_{half}.input_proj.weight"][..., 0].T)[0]
            code = torch.argmin(self.half_norms[index] - (residual[None] @ self.transposed[index])[0])
            residual = residual - self.centroids[index][code]
            codes.append(code)
        return [torch.stack(codes), new_keys, new_values]


class DecoderStep(Step):
    """Codes to samples."""

    transformer = "decoder_transformer"

    def step(self, *inputs: Any) -> list[Tensor]:
        """Codes to samples."""
        codes, keys, values, mask, cos, sin, first = inputs
        rest = torch.stack([self.centroids[index][codes[index]] for index in range(1, CODEBOOKS)]).sum(0)
        x = self.tensors["quantizer.rvq_first.output_proj.weight"][..., 0] @ self.centroids[0][codes[0]]
        x = x + self.tensors["quantizer.rvq_rest.output_proj.weight"][..., 0] @ rest
        x = self.up(x[None, :, None] + 0 * first, "upsample.convtr.convtr.convtr", STEPS, groups=512)
        x, new_keys, new_values = self.attend(x[0].T, keys, values, mask, cos, sin)
        x = self.conv(x.T[None], "decoder.model.0.conv.conv")
        for index, ratio in zip((2, 5, 8, 11), RATIOS, strict=True):
            x = self.up(functional.elu(x), f"decoder.model.{index}.convtr.convtr", ratio)
            x = self.residual(x, f"decoder.model.{index + 1}")
        x = self.conv(functional.elu(x), "decoder.model.14.conv.conv")
        return [x, new_keys, new_values]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    real, imaginary = x[..., 0::2], x[..., 1::2]
    turned = torch.stack([real * cos - imaginary * sin, real * sin + imaginary * cos], dim=-1)
    return turned.flatten(-2)


class Direction:
    """One exported graph with its rings and states."""

    def __init__(self, step: Step, signal: Tensor, folder: Path, threads: int) -> None:
        rings = [torch.zeros(HEADS, CONTEXT, HEAD_DIM)] * (2 * LAYERS)
        mask = torch.zeros(STEPS, CONTEXT + STEPS)
        half = torch.zeros(STEPS, HEAD_DIM // 2)
        fixed = (signal, mask, half, half, torch.zeros(1), *rings)
        step.shapes = []
        with torch.inference_mode():
            step(*fixed)
        self.shapes, step.shapes = step.shapes, None
        self.ring_names = [f"{kind}_{layer}" for kind in ("keys", "values") for layer in range(LAYERS)]
        names = ["signal", "mask", "cos", "sin", "first", *self.ring_names, *self._state_names("in")]
        outputs = ["result", "new_keys", "new_values", *self._state_names("out")]
        path = folder / f"{step.transformer}.onnx"
        states = tuple(torch.zeros(shape) for shape in self.shapes)
        if not path.exists():  # the other thread count may have written it
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    step,
                    (*fixed, *states),
                    str(path),
                    input_names=names,
                    output_names=outputs,
                    opset_version=17,
                    dynamo=False,
                )
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.inputs = {entry.name for entry in self.session.get_inputs()}
        self.reset()

    def _state_names(self, suffix: str) -> list[str]:
        return [f"state_{i}_{suffix}" for i in range(len(self.shapes))]

    def reset(self) -> None:
        """Start anew."""
        self.keys = np.zeros((LAYERS, HEADS, CONTEXT, HEAD_DIM), np.float32)
        self.values = np.zeros_like(self.keys)
        self.states = [np.zeros(shape, np.float32) for shape in self.shapes]
        self.position = 0

    def run(self, signal: Any) -> Any:
        """Run one frame and keep its state."""
        positions = self.position + np.arange(STEPS)
        slots = positions % CONTEXT
        mask = np.zeros((STEPS, CONTEXT + STEPS), np.float32)
        mask[:, min(self.position, CONTEXT) : CONTEXT] = -1e30
        # moshi writes the frame's two rows before it attends, so their old slots are gone for both steps.
        mask[:, slots] = -1e30
        mask[0, CONTEXT + 1] = -1e30
        frequencies = np.exp(np.arange(HEAD_DIM // 2, dtype=np.float32) * np.float32(-np.log(10000.0) * 2 / HEAD_DIM))
        angles = frequencies * positions[:, None].astype(np.float32)
        feeds = {
            "signal": signal,
            "mask": mask,
            "cos": np.cos(angles),
            "sin": np.sin(angles),
            "first": np.full(1, self.position == 0, np.float32),
            **dict(zip(self.ring_names, [*self.keys, *self.values], strict=True)),
            **dict(zip(self._state_names("in"), self.states, strict=True)),
        }
        outputs = self.session.run(None, {name: value for name, value in feeds.items() if name in self.inputs})
        result, self.keys[:, :, slots], self.values[:, :, slots], *self.states = outputs
        self.position += STEPS
        return result


class OnnxMimi:
    """The verbs of a codec stream over the two graphs.

    Args:
        path: Weights of the released shape.
        folder: Where the graphs are written.
        threads: Threads of ONNX Runtime.
    """

    def __init__(self, path: Path, folder: Path, *, threads: int) -> None:
        tensors = load_file(path)
        self._encoder = Direction(EncoderStep(tensors), torch.zeros(1, 1, 1920), folder, threads)
        self._decoder = Direction(DecoderStep(tensors), torch.zeros(8, dtype=torch.int64), folder, threads)

    def encode_step(self, frame: np.ndarray) -> np.ndarray:
        """Encode samples [1920] to codes [8]."""
        return self._encoder.run(frame[None, None]).astype(np.int32)

    def decode_step(self, codes: np.ndarray) -> np.ndarray:
        """Decode codes [8] to samples [1920]."""
        return self._decoder.run(codes.astype(np.int64))[0, 0]

    def reset(self) -> None:
        """Start anew."""
        self._encoder.reset()
        self._decoder.reset()
