"""Where a tensor lies in a safetensors file: a bounded reader of the header, for files from strangers."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from duologue.errors import WeightsError

MAX_HEADER_BYTES = 16 << 20
"""Largest header read; a 7B checkpoint has about 60 kB."""
MAX_TENSORS = 1 << 16
"""Most tensors one file may name."""
_MAX_RANK = 8
_ITEM_BYTES = {"BF16": 2, "F16": 2, "F32": 4}
_OTHER_DTYPES = frozenset({"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F64", "F8_E4M3", "F8_E5M2"})
_NUMPY = {"BF16": "<u2", "F16": "<f2", "F32": "<f4"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One contiguous run of bytes in a file.

    Attributes:
        path: The safetensors file.
        offset: First byte, from the start of the file.
        nbytes: Length.
    """

    path: Path
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRef:
    """A tensor that is still on disk.

    Attributes:
        dtype: "BF16", "F16" or "F32".
        shape: Its shape.
        blocks: Byte runs that, one after another, hold its rows; more than one when the file stores the rows of
            a stacked tensor apart.
    """

    dtype: str
    shape: tuple[int, ...]
    blocks: tuple[Block, ...]

    @property
    def is_contiguous(self) -> bool:
        """Whether one byte range of one file holds the tensor."""
        return len(self.blocks) == 1

    @property
    def path(self) -> Path:
        """File of a contiguous tensor."""
        return self._only().path

    @property
    def offset(self) -> int:
        """First byte of a contiguous tensor in its file."""
        return self._only().offset

    @property
    def nbytes(self) -> int:
        """Bytes in all."""
        return sum(block.nbytes for block in self.blocks)

    def rows(self, start: int, stop: int) -> TensorRef:
        """Return the reference to rows [start, stop) of the first axis.

        Raises:
            WeightsError: The rows do not exist or straddle two of several blocks.
        """
        if not 0 <= start < stop <= self.shape[0]:
            raise WeightsError(f"rows {start}..{stop} do not exist in a tensor of shape {self.shape}")
        row_bytes = self.nbytes // self.shape[0]
        low, high = start * row_bytes, stop * row_bytes
        taken, begin = [], 0
        for block in self.blocks:
            first, last = max(low, begin), min(high, begin + block.nbytes)
            if first < last:
                taken.append(Block(path=block.path, offset=block.offset + first - begin, nbytes=last - first))
            begin += block.nbytes
        return TensorRef(dtype=self.dtype, shape=(stop - start, *self.shape[1:]), blocks=tuple(taken))

    def read(self) -> npt.NDArray[Any]:
        """Read the values as stored: float32, float16, or uint16 holding the bits of bfloat16.

        Raises:
            WeightsError: The file changed or cannot be read.
        """
        parts = [_read_block(block, _NUMPY[self.dtype]) for block in self.blocks]
        flat = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return flat.reshape(self.shape)

    def read_float32(self) -> npt.NDArray[np.float32]:
        """Read the values widened to float32, exactly.

        Raises:
            WeightsError: The file changed or cannot be read.
        """
        stored = self.read()
        if self.dtype == "BF16":
            wide: npt.NDArray[np.float32] = (stored.astype("<u4") << 16).view("<f4")
            return wide
        return stored.astype(np.float32, copy=False)

    def _only(self) -> Block:
        if len(self.blocks) != 1:
            raise WeightsError(f"the tensor lies in {len(self.blocks)} pieces; read it through its blocks")
        return self.blocks[0]


def stack(refs: list[TensorRef]) -> TensorRef:
    """Return the reference to tensors stacked along the first axis.

    Args:
        refs: At least one; of one dtype and equal trailing shape.

    Raises:
        WeightsError: Their dtypes or trailing shapes differ.
    """
    first = refs[0]
    for ref in refs[1:]:
        if ref.dtype != first.dtype or ref.shape[1:] != first.shape[1:]:
            raise WeightsError(f"cannot stack {ref.dtype} {ref.shape} under {first.dtype} {first.shape}")
    rows = sum(ref.shape[0] for ref in refs)
    blocks = tuple(block for ref in refs for block in ref.blocks)
    return TensorRef(dtype=first.dtype, shape=(rows, *first.shape[1:]), blocks=blocks)


def read_index(path: Path) -> dict[str, TensorRef]:
    """Read where every tensor of a safetensors file lies, and check that the file holds them all.

    Args:
        path: The file.

    Returns:
        Reference per tensor name.

    Raises:
        WeightsError: The file is missing, is not safetensors, is truncated, or has a dtype other than bf16, f16, f32.

    Source: the safetensors format: u64 header length, JSON header, data.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(8)
            if len(prefix) < 8:
                raise WeightsError(f"{path} is not a safetensors file: it has only {size} bytes")
            (length,) = struct.unpack("<Q", prefix)
            if length > min(MAX_HEADER_BYTES, size - 8):
                raise WeightsError(
                    f"{path} is not a safetensors file or is truncated: its header should have {length} bytes, "
                    f"the file has {size}"
                )
            header = file.read(length)
    except OSError as error:
        raise WeightsError(f"cannot read the weights file {path}: {error.strerror or error}") from error
    entries = parse_json(header, what=f"the header of {path}")
    entries.pop("__metadata__", None)
    if len(entries) > MAX_TENSORS:
        raise WeightsError(f"{path} names {len(entries)} tensors; at most {MAX_TENSORS} are read")
    index = {name: _entry(path, name, entry, 8 + length) for name, entry in entries.items()}
    _check_extent(path, size, 8 + length, index)
    return index


def parse_json(data: bytes, *, what: str) -> dict[str, Any]:
    """Parse a JSON object that may come from a stranger.

    Args:
        data: UTF-8 text.
        what: What it is, for the error.

    Raises:
        WeightsError: It is not JSON, not an object, nested too deep, or names a key twice.
    """
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{what} is not valid JSON: {str(error)[:120] or type(error).__name__}") from error
    if not isinstance(value, dict):
        raise WeightsError(f"{what} must be a JSON object, found {type(value).__name__}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key appears twice")
    return values


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not allowed")


def _entry(path: Path, name: str, entry: Any, data_start: int) -> TensorRef:
    where = f"tensor {name[:200]!r} in {path}"
    if not isinstance(entry, Mapping):
        raise WeightsError(f"{where}: its header entry must be an object, found {type(entry).__name__}")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        known = isinstance(dtype, str) and dtype in _OTHER_DTYPES
        hint = "; quantised checkpoints are not read, use the bf16 one" if known else ""
        raise WeightsError(f"{where}: expected dtype BF16, F16 or F32, found {dtype!r}{hint}")
    if not _naturals(shape) or len(shape) > _MAX_RANK:
        raise WeightsError(f"{where}: its shape must be a list of at most {_MAX_RANK} sizes, found {str(shape)[:80]}")
    if not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise WeightsError(f"{where}: its data_offsets must be two ordered numbers, found {str(offsets)[:80]}")
    expected = _ITEM_BYTES[dtype]
    for item in shape:
        expected *= item
    if offsets[1] - offsets[0] != expected:
        raise WeightsError(f"{where}: expected {expected} bytes for {dtype} {shape}, found {offsets[1] - offsets[0]}")
    block = Block(path=path, offset=data_start + offsets[0], nbytes=expected)
    return TensorRef(dtype=dtype, shape=tuple(shape), blocks=(block,))


def _naturals(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 62 for item in value)


def _check_extent(path: Path, size: int, data_start: int, index: Mapping[str, TensorRef]) -> None:
    end = data_start
    for name, ref in sorted(index.items(), key=lambda item: item[1].offset):
        if ref.nbytes and ref.offset < end:
            raise WeightsError(f"tensor {name!r} in {path} overlaps another one; the file is damaged")
        end = max(end, ref.offset + ref.nbytes)
        if end > size:
            raise WeightsError(
                f"{path} is truncated: tensor {name!r} should end at byte {end}, the file has {size}; download it again"
            )


def _read_block(block: Block, dtype: str) -> npt.NDArray[Any]:
    count = block.nbytes // np.dtype(dtype).itemsize
    try:
        values = np.fromfile(block.path, dtype=dtype, count=count, offset=block.offset)
    except OSError as error:
        raise WeightsError(f"cannot read the weights file {block.path}: {error.strerror or error}") from error
    if values.size != count:
        raise WeightsError(f"{block.path} is truncated: expected {count} values at byte {block.offset}")
    return values
