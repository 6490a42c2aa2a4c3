"""Writes ONNX nodes whose weights stay where they are: byte ranges of the checkpoint's own files."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from duologue.errors import MissingExtraError
from duologue.model.checkpoint import Checkpoint
from duologue.model.layout import LinearSlot, linear_slots
from duologue.model.storage import Block, TensorRef

OPSET = 24
"""Operator set: the first with TensorScatter, whose circular mode is the ring of keys and values."""
CONTRIB = "com.microsoft"
"""Domain of ONNX Runtime's fused operators."""
_IR_VERSION = 11


def import_onnx() -> ModuleType:
    """Import the `onnx` package.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import_module("onnx.helper")
        return import_module("onnx")
    except ImportError as error:
        raise MissingExtraError("onnx", "cpu") from error


def weights_root(checkpoint: Checkpoint) -> Path:
    """Return the deepest folder that holds every file of weights, links resolved."""
    folders = {str(path.parent) for path in _files(checkpoint)}
    return Path(os.path.commonpath(sorted(folders)))


def _files(checkpoint: Checkpoint) -> set[Path]:
    refs = list(checkpoint.tensors.values())
    refs += [ref for pair in checkpoint.lora.values() for ref in (pair.a, pair.b)]
    return {path.resolve() for path in {block.path for ref in refs for block in ref.blocks}}


def switch_name(module: str, side: str) -> str:
    """Return the graph input that holds one side, "A" or "B", of a switched layer's update."""
    return f"{module}.lora_{side}"


class GraphWriter:
    """Collects nodes, small constants and references to weights, then makes a model of them.

    A weight becomes a float32 value: bf16 and f16 bytes pass through a Cast, and a low-rank update through a Gemm,
    both of which ONNX Runtime evaluates once, at load. The update of a switched layer is an input of the graph.
    """

    def __init__(self, checkpoint: Checkpoint, *, switched: Collection[str] = ()) -> None:
        """Begin an empty graph; `switched` names the linear layers whose update is chosen at run time."""
        self._onnx = import_onnx()
        self._checkpoint = checkpoint
        self._slots = linear_slots(checkpoint.config)
        self._switched = switched
        self._root = weights_root(checkpoint)
        self._paths: dict[Path, str] = {}
        self._nodes: list[Any] = []
        self._initializers: list[Any] = []
        self._known: dict[Any, str] = {}
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._count = 0

    def add_input(self, name: str, dtype: str, shape: Sequence[int | str]) -> str:
        """Declare a graph input and return its name; `dtype` is an ONNX name such as "FLOAT"."""
        self._inputs.append(self._value_info(name, dtype, shape))
        return name

    def add_output(self, value: str, name: str, dtype: str, shape: Sequence[int | str]) -> None:
        """Declare that `value` leaves the graph under `name`."""
        if value != name:
            self._nodes.append(self._onnx.helper.make_node("Identity", [value], [name]))
        self._outputs.append(self._value_info(name, dtype, shape))

    def one(self, op: str, *inputs: str, domain: str = "", name: str | None = None, **attributes: Any) -> str:
        """Add a node with one output and return the output's name."""
        return self.many(op, *inputs, count=1, domain=domain, names=[name] if name else None, **attributes)[0]

    def many(
        self, op: str, *inputs: str, count: int, domain: str = "", names: list[str] | None = None, **attributes: Any
    ) -> list[str]:
        """Add a node with `count` outputs and return their names."""
        self._count += 1
        outputs = names or [f"{op}_{self._count}_{index}" for index in range(count)]
        self._nodes.append(self._onnx.helper.make_node(op, list(inputs), outputs, domain=domain, **attributes))
        return outputs

    def split(self, value: str, sizes: Sequence[int], *, axis: int) -> list[str]:
        """Split along an axis into parts of the given sizes."""
        return self.many("Split", value, self.integers(sizes), count=len(sizes), axis=axis)

    def integers(self, values: Sequence[int] | int) -> str:
        """Return an int64 constant."""
        return self.constant(np.array(values, dtype=np.int64))

    def floats(self, values: Sequence[float] | float) -> str:
        """Return a float32 constant."""
        return self.constant(np.array(values, dtype=np.float32))

    def constant(self, values: npt.NDArray[Any]) -> str:
        """Return a small constant, stored inside the graph once."""
        key = (values.dtype.str, values.shape, values.tobytes())
        if key not in self._known:
            self._known[key] = f"constant_{len(self._initializers)}"
            self._initializers.append(self._onnx.numpy_helper.from_array(values, self._known[key]))
        return self._known[key]

    def table(self, name: str) -> tuple[str, bool]:
        """Return a tensor as stored, for looking up rows, and whether its rows still need a cast to float32."""
        ref = self._checkpoint.tensors[name]
        return self._stored(name, ref, ref.shape), ref.dtype != "F32"

    def vector(self, name: str) -> str:
        """Return a tensor as a float32 vector, whatever its stored shape."""
        ref = self._checkpoint.tensors[name]
        return self._float(name, ref, (int(np.prod(ref.shape)),))

    def has(self, name: str) -> bool:
        """Return whether the checkpoint has this tensor."""
        return name in self._checkpoint.tensors

    def linear(self, value: str, module: str) -> str:
        """Multiply the last axis by a linear layer's weight, with its low-rank update if it has one.

        Args:
            value: Shape [..., in_features].
            module: Layer name as LoRA files spell it.
        """
        slot = self._slots.get(module)
        tensor = slot.tensor if slot else f"{module}.weight"
        ref = self._checkpoint.tensors[tensor]
        start, stop = (slot.row, slot.row + slot.out_features) if slot else (0, ref.shape[0])
        key = tensor if (start, stop) == (0, ref.shape[0]) else f"{tensor}[{start}:{stop}]"
        ref = ref.rows(start, stop)
        weight = self._float(key, ref, ref.shape)
        pair = self._checkpoint.lora.get(module)
        if pair is not None:
            weight = self._updated(weight, module)
        product = self.one("FusedMatMul", value, weight, domain=CONTRIB, transB=1)
        if module not in self._switched or slot is None:
            return product
        down, up = (self._switch(module, side, slot) for side in "AB")
        low = self.one("FusedMatMul", value, down, domain=CONTRIB, transB=1)
        return self.one("Add", product, self.one("FusedMatMul", low, up, domain=CONTRIB, transB=1))

    def model(self, name: str, metadata: dict[str, str]) -> bytes:
        """Return the serialised model."""
        helper = self._onnx.helper
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, self._initializers)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="duologue")
        helper.set_model_props(model, metadata)
        data: bytes = model.SerializeToString()
        return data

    def _switch(self, module: str, side: str, slot: LinearSlot) -> str:
        name = switch_name(module, side)
        if name not in self._known:
            rank = f"rank_{module}"
            shape: tuple[int | str, ...] = (rank, slot.in_features) if side == "A" else (slot.out_features, rank)
            self._known[name] = self.add_input(name, "FLOAT", shape)
        return self._known[name]

    def _updated(self, weight: str, module: str) -> str:
        key = ("lora", module)
        if key not in self._known:
            pair = self._checkpoint.lora[module]
            a = self._float(f"{module}.lora_A", pair.a, pair.a.shape)
            b = self._float(f"{module}.lora_B", pair.b, pair.b.shape)
            self._known[key] = self.one("Gemm", b, a, weight, alpha=float(self._checkpoint.lora_scaling))
        return self._known[key]

    def _float(self, name: str, ref: TensorRef, shape: tuple[int, ...]) -> str:
        stored = self._stored(name, ref, shape)
        if ref.dtype == "F32":
            return stored
        key = ("float", stored)
        if key not in self._known:
            self._known[key] = self.one("Cast", stored, to=self._onnx.TensorProto.FLOAT, name=f"{stored}.f32")
        return self._known[key]

    def _stored(self, name: str, ref: TensorRef, shape: tuple[int, ...]) -> str:
        key = ("stored", name)
        if key not in self._known:
            pieces = [self._external(name, ref, shape, ref.blocks[0])] if ref.is_contiguous else self._pieces(name, ref)
            self._known[key] = pieces[0] if len(pieces) == 1 else self.one("Concat", *pieces, axis=0)
        return self._known[key]

    def _pieces(self, name: str, ref: TensorRef) -> list[str]:
        row_bytes = ref.nbytes // ref.shape[0]
        return [
            self._external(f"{name}#{index}", ref, (block.nbytes // row_bytes, *ref.shape[1:]), block)
            for index, block in enumerate(ref.blocks)
        ]

    def _external(self, name: str, ref: TensorRef, shape: tuple[int, ...], block: Block) -> str:
        proto = self._onnx.TensorProto
        tensor = proto(name=name, dims=shape, data_location=proto.EXTERNAL)
        tensor.data_type = {"F32": proto.FLOAT, "F16": proto.FLOAT16, "BF16": proto.BFLOAT16}[ref.dtype]
        for key, value in (("location", self._place(block.path)), ("offset", block.offset), ("length", block.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        self._initializers.append(tensor)
        return name

    def _place(self, path: Path) -> str:
        if path not in self._paths:
            self._paths[path] = path.resolve().relative_to(self._root).as_posix()
        return self._paths[path]

    def _value_info(self, name: str, dtype: str, shape: Sequence[int | str]) -> Any:
        return self._onnx.helper.make_tensor_value_info(name, self._onnx.TensorProto.DataType.Value(dtype), shape)
