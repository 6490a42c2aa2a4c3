"""A Moshi-format model folder: what is in it, checked, and read tensor by tensor without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from duologue.config import Sampling
from duologue.errors import ConfigError, WeightsError
from duologue.model import folder as folders
from duologue.model.config import LMConfig
from duologue.model.layout import (
    LinearSlot,
    Shape,
    canonical_name,
    is_dialogue,
    linear_slots,
    tensor_shapes,
    with_slices,
)
from duologue.model.lora import LoraPair, read_lora, stated_keys
from duologue.model.storage import TensorRef, read_index, stack

_SAMPLING_KEYS = {
    "temp": "temperature_audio",
    "temp_text": "temperature_text",
    "top_k": "top_k_audio",
    "top_k_text": "top_k_text",
}


def generation_keys(sampling: Sampling) -> dict[str, Any]:
    """Return what config.json says of a model that is to be sampled so; `Checkpoint.sampling` reads it back.

    Raises:
        ConfigError: It has a padding bias, for which moshi's format has no word.
    """
    if sampling.padding_bias:
        raise ConfigError(f"padding_bias is {sampling.padding_bias:g}: a model in moshi's format cannot ask for one")
    return {"lm_gen_config": {theirs: getattr(sampling, ours) for theirs, ours in _SAMPLING_KEYS.items()}}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A language model on disk with everything that lies beside it.

    Opening reads headers only; weights are read when asked for. Tensors carry the names of the released files,
    whichever of moshi's namings the folder uses. A PersonaPlex checkpoint shows the 8 depth slices of the agent.

    Attributes:
        path: The folder.
        config: Shape of the model as presented.
        raw_config: config.json as found, or {} without one.
        tensors: Where each base tensor lies.
        lora: Low-rank updates per linear layer, {} without any.
        lora_scaling: Factor of the updates.
        mimi_path: Codec weights, or None.
        mimi_config_path: Codec configuration, or None for the released codec.
        tokenizer_path: SentencePiece model, or None.
        lora_path: File of the updates, or None.
        step_graph_path: Exported one-frame graph, or None.
    """

    path: Path
    config: LMConfig
    raw_config: Mapping[str, Any]
    tensors: Mapping[str, TensorRef]
    lora: Mapping[str, LoraPair]
    lora_scaling: float
    mimi_path: Path | None
    mimi_config_path: Path | None
    tokenizer_path: Path | None
    lora_path: Path | None
    step_graph_path: Path | None

    @property
    def sampling(self) -> Sampling:
        """How the model is to be sampled: `lm_gen_config` in config.json, else moshi's defaults.

        Raises:
            ConfigError: A value is out of range.

        Source: moshi 0.2.13 CheckpointInfo.lm_gen_config, keyword arguments of its LMGen.
        """
        stated = self.raw_config.get("lm_gen_config", {})
        if not isinstance(stated, Mapping):
            raise ConfigError(f"{self.path}: lm_gen_config in config.json must be a table of sampling settings")
        return Sampling(**{ours: stated[theirs] for theirs, ours in _SAMPLING_KEYS.items() if theirs in stated})

    @classmethod
    def open(cls, path: str | Path, *, config: LMConfig | None = None, lora: str | Path | None = None) -> Checkpoint:
        """Open a model folder, or one weights file.

        Args:
            path: Folder, safetensors file, or sharding index; `hub.resolve` turns names into paths.
            config: Shape to use instead of the folder's config.json.
            lora: LoRA file, or folder with one, to use instead of the one the folder names: moshi's lora.safetensors
                with a config.json beside it that states rank and scaling, or what peft saves.

        Raises:
            WeightsError: A file is missing, damaged or truncated, or a tensor is missing, unknown or of another
                shape; the message names the tensor, what was expected and what was found.
            ConfigError: config.json holds a key or a value that is not supported.
        """
        found = folders.scan(Path(path), lora=lora)
        stated = config or _stated_config(found.raw_config, found.config_path)
        index = _read_all(found.weights)
        full = with_slices(stated, _slices_on_disk(stated, index))
        tensors = _canonical(index, full, found.weights[0])
        updates = _lora(found.lora_path, full, _lora_keys(found))
        shown = with_slices(full, full.n_q // 2) if full.dep_q == full.n_q and is_dialogue(full) else full
        return cls(
            path=found.path,
            config=shown,
            raw_config=MappingProxyType(found.raw_config),
            tensors=MappingProxyType(_narrow({**tensors, **updates.replaced}, shown)),
            lora=MappingProxyType({name: updates.pairs[name] for name in linear_slots(shown) if name in updates.pairs}),
            lora_scaling=updates.scaling,
            mimi_path=found.mimi_path,
            mimi_config_path=found.mimi_config_path,
            tokenizer_path=found.tokenizer_path,
            lora_path=found.lora_path,
            step_graph_path=found.step_graph_path,
        )

    def numpy(self, name: str, *, fuse_lora: bool = True) -> npt.NDArray[np.float32]:
        """Read one tensor as float32.

        Args:
            name: Released name.
            fuse_lora: Whether to add the low-rank updates.

        Raises:
            WeightsError: There is no such tensor, or its file cannot be read.
        """
        if name not in self.tensors:
            raise WeightsError(f"the model has no tensor {name!r}")
        values = self.tensors[name].read_float32()
        if fuse_lora and self.lora:
            for slot, pair in self._updates_of(name):
                update = pair.b.read_float32() @ pair.a.read_float32()
                values[slot.row : slot.row + slot.out_features] += np.float32(self.lora_scaling) * update
        return values

    def _updates_of(self, name: str) -> list[tuple[LinearSlot, LoraPair]]:
        slots = linear_slots(self.config)
        return [(slots[module], pair) for module, pair in self.lora.items() if slots[module].tensor == name]


def _stated_config(raw: Mapping[str, Any], path: Path | None) -> LMConfig:
    # Released folders without a shape (Moshi's first, PersonaPlex) hold the 7B network.
    if not raw.keys() & LMConfig.__dataclass_fields__.keys():
        return LMConfig.moshi_7b()
    try:
        return LMConfig.from_dict(raw)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _read_all(paths: tuple[Path, ...]) -> dict[str, TensorRef]:
    index: dict[str, TensorRef] = {}
    for path in paths:
        for name, ref in read_index(path).items():
            if name in index:
                raise WeightsError(f"tensor {name!r} is in both {index[name].path} and {path}")
            index[name] = ref
    return index


def _slices_on_disk(stated: LMConfig, index: Mapping[str, TensorRef]) -> int:
    if not is_dialogue(stated):
        return stated.dep_q
    # The released PersonaPlex weights hold 16 slices whatever their config.json says.
    half = stated.n_q // 2
    has_user_slices = f"linears.{half}.weight" in index
    return (stated.n_q if has_user_slices else half) if stated.dep_q in (half, stated.n_q) else stated.dep_q


def _canonical(index: Mapping[str, TensorRef], config: LMConfig, path: Path) -> dict[str, TensorRef]:
    whole: dict[str, TensorRef] = {}
    parts: dict[str, dict[int, TensorRef]] = {}
    expected = tensor_shapes(config)
    for name, ref in index.items():
        target, part = canonical_name(name)
        if target not in expected:
            raise WeightsError(f"{ref.path}: unknown tensor {name!r} {ref.shape}; this configuration has no such part")
        if part is not None:
            parts.setdefault(target, {})[part] = ref
        elif target in whole:
            raise WeightsError(f"{ref.path}: tensor {target!r} is stored twice under different names")
        else:
            whole[target] = ref
    for target, numbered in parts.items():
        if target in whole or sorted(numbered) != list(range(len(numbered))):
            raise WeightsError(f"{path}: the parts of tensor {target!r} are {sorted(numbered)}; expected 0, 1, ...")
        whole[target] = stack([numbered[number] for number in sorted(numbered)])
    for name, shape in expected.items():
        _check(name, whole.get(name), shape, path)
    return whole


def _check(name: str, ref: TensorRef | None, shape: Shape, path: Path) -> None:
    if ref is None:
        raise WeightsError(f"{path}: tensor {name!r} is missing; expected shape {shape}")
    if ref.shape != shape:
        raise WeightsError(f"{ref.blocks[0].path}: tensor {name!r} has shape {ref.shape}; expected {shape}")


def _narrow(tensors: Mapping[str, TensorRef], shown: LMConfig) -> dict[str, TensorRef]:
    kept = {}
    for name, shape in tensor_shapes(shown).items():
        ref = tensors[name]
        kept[name] = ref if ref.shape == shape else ref.rows(0, shape[0])
    return kept


@dataclass(frozen=True, kw_only=True)
class _Updates:
    pairs: Mapping[str, LoraPair]
    replaced: Mapping[str, TensorRef]
    scaling: float


def _lora_keys(found: folders.FolderFiles) -> Mapping[str, Any]:
    """Return the configuration that states the updates' rank and scaling: the one beside their file."""
    if found.lora_path is None or found.lora_path.parent == found.path:
        return found.raw_config
    beside = stated_keys(found.lora_path)
    return found.raw_config if beside is None else beside


def _lora(path: Path | None, config: LMConfig, raw: Mapping[str, Any]) -> _Updates:
    if path is None:
        return _Updates(pairs={}, replaced={}, scaling=0.0)
    rank, scaling = raw.get("lora_rank"), raw.get("lora_scaling", 2.0)
    if isinstance(scaling, bool) or not isinstance(scaling, int | float) or not abs(scaling) < 1e6:
        raise ConfigError(f"config key 'lora_scaling' must be a finite number, found {scaling!r}")
    pairs, replaced = read_lora(path, config, rank=rank if isinstance(rank, int) else None)
    return _Updates(pairs=pairs, replaced=replaced, scaling=float(scaling))
