"""What is trained, beside what stays: LoRA through peft, or all weights; the frozen reference, the talker."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from duologue.errors import ConfigError, MissingExtraError
from duologue.model.checkpoint import Checkpoint
from duologue.model.folder import LORA_NAME
from duologue.model.layout import linear_slots
from duologue.model.lm import LanguageModel
from duologue.model.save import save_checkpoint
from duologue.replacing import replacing_folder
from duologue_align.checkpointing import Tree
from duologue_align.rl.settings import AdapterSettings

_DEPTH = ("depformer.", "depformer_in.", "linears.")


class Trained(Protocol):
    """A policy, its frozen reference, and the copy that converses.

    Attributes:
        model: The policy.
        talker: The same policy for rollouts, plain layers only; as of the last `refresh`.
    """

    model: LanguageModel
    talker: LanguageModel

    def refresh(self, *, is_frozen: bool = False) -> None:
        """Bring the talker up to date, or back to the frozen model."""
        ...

    def reference(self) -> Any:
        """Return a context manager that gives the frozen model."""
        ...

    def parameters(self) -> list[nn.Parameter]:
        """Return what is trained."""
        ...

    def state(self) -> Tree:
        """Return what was trained."""
        ...

    def load_state(self, state: Tree) -> None:
        """Go back to what `state` gave."""
        ...

    def save(self, folder: Path, source: Checkpoint) -> None:
        """Write what was trained, for export; the folder appears whole or not at all."""
        ...


class LoraTuning:
    """Low-rank updates on a model whose own weights never change; see `Trained`."""

    def __init__(self, model: LanguageModel, settings: AdapterSettings, *, dtype: torch.dtype) -> None:
        """Attach fresh updates, which change nothing yet.

        Args:
            model: The model; its linear layers are wrapped in place.
            settings: Rank, scaling and layers.
            dtype: Arithmetic of the talker.

        Raises:
            MissingExtraError: peft is not installed.
        """
        try:
            from peft import LoraConfig, get_peft_model
        except ImportError as error:
            raise MissingExtraError("peft", "align") from error
        self.names = adapted_layers(model, settings)
        self.scaling, self.rank = settings.scaling, settings.rank
        self.talker = _talker(model, self.names, dtype)
        model.requires_grad_(False)
        config = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.scaling * settings.rank,  # type: ignore[arg-type]
            target_modules=self.names,
            bias="none",
        )
        self.model = model
        self._peft: Any = get_peft_model(model, config)
        self._layers: dict[str, Any] = {name: model.get_submodule(name) for name in self.names}

    @torch.no_grad()
    def refresh(self, *, is_frozen: bool = False) -> None:
        """Merge the updates into the talker: always from the pristine weights, in float32, rounded once."""
        for name, layer in self._layers.items():
            weight = layer.base_layer.weight.float()
            target = self.talker.get_submodule(name).weight
            assert isinstance(target, Tensor)
            target.copy_(weight if is_frozen else weight + self._update(layer))

    @contextmanager
    def reference(self) -> Iterator[LanguageModel]:
        """Give the model with the updates switched off."""
        with self._peft.disable_adapter():
            yield self.model

    def parameters(self) -> list[nn.Parameter]:
        """Return the updates."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def state(self) -> Tree:
        """Return the updates under moshi's names."""
        tensors = {}
        for name, layer in self._layers.items():
            tensors[f"{name}.lora_A.weight"] = layer.lora_A["default"].weight.detach()
            tensors[f"{name}.lora_B.weight"] = layer.lora_B["default"].weight.detach()
        return tensors

    @torch.no_grad()
    def load_state(self, state: Tree) -> None:
        """Go back to what `state` gave."""
        for name, layer in self._layers.items():
            layer.lora_A["default"].weight.copy_(state[f"{name}.lora_A.weight"])
            layer.lora_B["default"].weight.copy_(state[f"{name}.lora_B.weight"])

    def save(self, folder: Path, source: Checkpoint) -> None:
        """Write a PEFT adapter, and moshi's lora.safetensors with the config.json that names rank and scaling."""
        from safetensors.torch import save_file

        tensors = {name: tensor.cpu().contiguous() for name, tensor in self.state().items()}
        keys = {"lora": True, "lora_rank": self.rank, "lora_scaling": self.scaling, "lora_name": LORA_NAME}
        try:
            with replacing_folder(folder, marker=LORA_NAME) as fresh:
                self._peft.save_pretrained(str(fresh))
                # peft's blank model card says nothing.
                (fresh / "README.md").unlink(missing_ok=True)
                save_file(tensors, fresh / LORA_NAME)
                content = {**source.raw_config, **keys}
                (fresh / "config.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{folder}: cannot write the adapter ({error}); free some space") from error

    def _update(self, layer: Any) -> Tensor:
        down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        update: Tensor = self.scaling * (up.float() @ down.float())
        return update


class FullTuning:
    """All weights that the loss reaches, with a frozen copy as the reference; see `Trained`."""

    def __init__(self, model: LanguageModel, settings: AdapterSettings, *, dtype: torch.dtype) -> None:
        """Take the model over; `dtype` is the talker's arithmetic."""
        self.model = model.float()
        self._reference = copy.deepcopy(model).eval().requires_grad_(False)
        self.talker = copy.deepcopy(model).to(dtype).eval().requires_grad_(False)
        model.requires_grad_(True)
        if not settings.depth:
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(not name.startswith("dep") and not name.startswith("linears."))

    @torch.no_grad()
    def refresh(self, *, is_frozen: bool = False) -> None:
        """Copy the weights, put together from all shards, into the talker."""
        source = self._reference if is_frozen else self.model
        for target, weight in zip(self.talker.parameters(), source.parameters(), strict=True):
            target.copy_(whole(weight))

    @contextmanager
    def reference(self) -> Iterator[LanguageModel]:
        """Give the frozen copy."""
        yield self._reference

    def parameters(self) -> list[nn.Parameter]:
        """Return the trained weights."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def state(self) -> Tree:
        """Return all weights, put together from all shards."""
        return {name: whole(tensor).detach() for name, tensor in self.model.state_dict().items()}

    def load_state(self, state: Tree) -> None:
        """Go back to what `state` gave."""
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

        set_model_state_dict(self.model, state, options=StateDictOptions(full_state_dict=True))

    def save(self, folder: Path, source: Checkpoint) -> None:
        """Write the talker as a model folder with the codec and tokenizer of the source."""
        with replacing_folder(folder, marker="config.json") as fresh:
            save_checkpoint(self.talker, fresh / "bundle", source=source)
            for part in (fresh / "bundle").iterdir():
                part.rename(fresh / part.name)
            (fresh / "bundle").rmdir()


def make_trained(model: LanguageModel, settings: AdapterSettings, *, dtype: torch.dtype) -> Trained:
    """Return what the settings ask for: LoRA, or all weights for rank 0."""
    kind = LoraTuning if settings.rank else FullTuning
    return kind(model, settings, dtype=dtype)


def adapted_layers(model: LanguageModel, settings: AdapterSettings) -> list[str]:
    """Return the names of the linear layers that get an update."""
    names = []
    for name in linear_slots(model.config):
        is_wanted = name.startswith("transformer.") or (settings.text_head and name == "text_linear")
        if is_wanted or (settings.depth and name.startswith(_DEPTH)):
            names.append(name)
    return names


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor put together from its shards, if it has any."""
    gather = getattr(tensor, "full_tensor", None)
    return gather() if gather is not None else tensor


def _talker(model: LanguageModel, names: list[str], dtype: torch.dtype) -> LanguageModel:
    """Return a copy of the model; weights that are never adapted are shared with it, if the type is the same."""
    memo: dict[int, Any] = {}
    if dtype == model.dtype:
        own = {id(model.get_submodule(name).weight) for name in names}
        memo = {id(item): item for item in model.parameters() if id(item) not in own}
    return copy.deepcopy(model, memo).to(dtype).eval().requires_grad_(False)
