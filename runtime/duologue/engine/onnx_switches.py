"""The low-rank matrices that a stream binds to the switched layers of a step graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from duologue.engine.base import unknown_adapter
from duologue.engine.onnx_writer import switch_name
from duologue.model.checkpoint import Checkpoint
from duologue.model.config import LMConfig
from duologue.model.layout import LinearSlot, linear_slots


def switched_layers(adapters: Mapping[str, Checkpoint]) -> frozenset[str]:
    """Return the linear layers that any of the adapters changes."""
    return frozenset(module for adapter in adapters.values() for module in adapter.lora)


class Switches:
    """Every adapter's matrices on the device, once for all streams."""

    def __init__(self, adapters: Mapping[str, Checkpoint], config: LMConfig, *, runtime: Any, device: str) -> None:
        """Read the adapters.

        Args:
            adapters: What `open_adapters` returned.
            config: Shape of the base.
            runtime: The onnxruntime module.
            device: "cpu" or "cuda".

        Raises:
            WeightsError: An adapter cannot be read.
        """
        self._runtime, self._device = runtime, device
        self._arrays: list[npt.NDArray[np.float32]] = []
        slots = linear_slots(config)
        layers = {module: slots[module] for module in sorted(switched_layers(adapters))}
        self._values = {name: self._read(adapter, layers) for name, adapter in [(None, None), *adapters.items()]}

    def of(self, name: str | None) -> Mapping[str, Any]:
        """Return the graph inputs of an adapter, or of none, by name.

        Raises:
            ConfigError: There is no such adapter.
        """
        if name not in self._values:
            raise unknown_adapter(str(name), [known for known in self._values if known is not None])
        return self._values[name]

    def _read(self, adapter: Checkpoint | None, layers: Mapping[str, LinearSlot]) -> dict[str, Any]:
        values = {}
        for module, slot in layers.items():
            pair = None if adapter is None else adapter.lora.get(module)
            if pair is None or adapter is None:
                down = np.zeros((1, slot.in_features), dtype=np.float32)
                up = np.zeros((slot.out_features, 1), dtype=np.float32)
            else:
                down = pair.a.read_float32()
                up = pair.b.read_float32() * np.float32(adapter.lora_scaling)
            values[switch_name(module, "A")] = self._put(down)
            values[switch_name(module, "B")] = self._put(up)
        return values

    def _put(self, array: npt.NDArray[np.float32]) -> Any:
        array = np.ascontiguousarray(array)
        if self._device != "cpu":
            return self._runtime.OrtValue.ortvalue_from_numpy(array, self._device, 0)
        # The OrtValue shares the array's memory, which therefore must outlive it.
        self._arrays.append(array)
        return self._runtime.OrtValue.ortvalue_from_numpy(array)
