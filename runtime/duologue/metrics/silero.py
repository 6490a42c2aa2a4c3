"""Silero's 16 kHz voice-activity network in plain numpy: 32 ms of audio in, a speech probability out.

The weights beside this file are those of `silero_vad_16k_op15.onnx` in the silero-vad 6.2.3 wheel (MIT, see
`silero_vad_16k.LICENSE.txt`); the wheel's own safetensors file holds an older network. The whole state is 64 samples
and one LSTM cell, so a conversation can be copied, restored and replayed bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from duologue.types import Pcm

Array = npt.NDArray[np.float32]

CHUNK_SAMPLES = 512
"""Samples of one chunk at 16 kHz: 32 ms."""
CONTEXT_SAMPLES = 64
"""Samples before the chunk that the network sees again."""
RATE_HZ = 16_000
"""The only sample rate of the network."""

_WEIGHTS_PATH = Path(__file__).with_name("silero_vad_16k.safetensors")
_WINDOW, _HOP, _RIGHT_PAD, _BINS, _WIDTH = 256, 128, 64, 129, 128


def _zeros(size: int) -> Array:
    return np.zeros(size, dtype=np.float32)


@dataclass(slots=True)
class SileroState:
    """What the network remembers between chunks.

    Attributes:
        context: Last samples of the previous chunk, shape [64].
        hidden: LSTM output, shape [128].
        cell: LSTM cell, shape [128].
    """

    context: Array = field(default_factory=lambda: _zeros(CONTEXT_SAMPLES))
    hidden: Array = field(default_factory=lambda: _zeros(_WIDTH))
    cell: Array = field(default_factory=lambda: _zeros(_WIDTH))

    def copy(self) -> SileroState:
        """Return an independent copy."""
        return SileroState(self.context.copy(), self.hidden.copy(), self.cell.copy())


class SileroNetwork:
    """The immutable weights; any number of states may run on them.

    Source: silero-vad 6.2.3, 16 kHz branch: magnitude of a learned 256-point transform at hop 128, four ReLU
    convolutions (the middle two with stride 2, which leaves one position per chunk), an LSTM cell, a logistic output.
    """

    def __init__(self) -> None:
        tensors = load_file(_WEIGHTS_PATH)
        self._transform = _contiguous(tensors["stft_conv.weight"][:, 0, :].T)
        self._layers = [_unfold(tensors, f"conv{layer}") for layer in (1, 2)]
        # With two positions in, layer 3 has zero padding under its first tap; layer 4, with one, under both outer taps.
        self._layers.append((_taps(tensors["conv3.weight"], 1, 3), tensors["conv3.bias"]))
        self._layers.append((_taps(tensors["conv4.weight"], 1, 2), tensors["conv4.bias"]))
        self._input_gates = _contiguous(tensors["lstm_cell.weight_ih"].T)
        self._hidden_gates = _contiguous(tensors["lstm_cell.weight_hh"].T)
        self._gate_bias = tensors["lstm_cell.bias_ih"] + tensors["lstm_cell.bias_hh"]
        self._output = _contiguous(tensors["final_conv.weight"][0, :, 0])
        self._output_bias = float(tensors["final_conv.bias"][0])

    def step(self, chunk: Pcm, state: SileroState) -> float:
        """Return the probability that a chunk holds speech, and advance the state in place.

        Args:
            chunk: 32 ms at 16 kHz, float32 in [-1, 1], shape [512].
            state: Memory of the stream.
        """
        assert chunk.shape == (CHUNK_SAMPLES,)
        features = self._features(np.concatenate([state.context, chunk]))
        state.context = chunk[-CONTEXT_SAMPLES:].copy()
        gates = features @ self._input_gates + state.hidden @ self._hidden_gates + self._gate_bias
        # Order of the gates: input, forget, cell, output.
        in_gate, forget_gate = _sigmoid(gates[:_WIDTH]), _sigmoid(gates[_WIDTH : 2 * _WIDTH])
        candidate, out_gate = np.tanh(gates[2 * _WIDTH : 3 * _WIDTH]), _sigmoid(gates[3 * _WIDTH :])
        state.cell = forget_gate * state.cell + in_gate * candidate
        state.hidden = out_gate * np.tanh(state.cell)
        logit = float(np.maximum(state.hidden, 0) @ self._output) + self._output_bias
        return float(_sigmoid(np.float32(logit)))

    def _features(self, samples: Array) -> Array:
        reflected = samples[-2 : -2 - _RIGHT_PAD : -1]
        padded = np.concatenate([samples, reflected])
        windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
        spectrum = windows @ self._transform
        x = np.sqrt(spectrum[:, :_BINS] ** 2 + spectrum[:, _BINS:] ** 2)
        for (weight, bias), stride in zip(self._layers[:2], (1, 2), strict=True):
            edge = np.zeros((1, x.shape[1]), dtype=np.float32)
            rows = np.concatenate([edge, x, edge])
            unfolded = np.stack([rows[t : t + 3].ravel() for t in range(0, len(x), stride)])
            x = np.maximum(unfolded @ weight + bias, 0)
        features: Array = x.ravel()
        for weight, bias in self._layers[2:]:
            features = np.maximum(features @ weight + bias, 0)
        return features


@lru_cache(maxsize=1)
def load_network() -> SileroNetwork:
    """Return the network, read once per process."""
    return SileroNetwork()


def _contiguous(array: Array) -> Array:
    return np.ascontiguousarray(array, dtype=np.float32)


def _taps(weight: Array, begin: int, end: int) -> Array:
    """Return taps [begin, end) of a convolution [out, in, 3] as a matrix [(end - begin) * in, out]."""
    return _contiguous(weight[:, :, begin:end].transpose(2, 1, 0).reshape(-1, weight.shape[0]))


def _unfold(tensors: dict[str, Array], name: str) -> tuple[Array, Array]:
    return _taps(tensors[f"{name}.weight"], 0, 3), tensors[f"{name}.bias"]


def _sigmoid(x: npt.NDArray[np.float32] | np.float32) -> Array:
    # Clipped where float32 saturates, so that no overflow warning is raised.
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -80, 80))), dtype=np.float32)
