"""PersonaPlex voice files (`.pt`), read as data: nothing in the file is ever executed."""

from __future__ import annotations

import pickletools
import struct
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from duologue.errors import WeightsError
from duologue.model.config import LMConfig

_MAX_PICKLE_BYTES = 1 << 20
_MAX_STORAGE_BYTES = 1 << 28
_MAX_ELEMENTS = 1 << 26
_STORAGES = {
    "torch FloatStorage": "<f4",
    "torch HalfStorage": "<f2",
    "torch BFloat16Storage": "bf16",
    "torch DoubleStorage": "<f8",
    "torch LongStorage": "<i8",
    "torch IntStorage": "<i4",
}
_REBUILD = "torch._utils _rebuild_tensor_v2"
_ORDERED_DICT = "collections OrderedDict"


@dataclass(frozen=True, kw_only=True)
class VoicePrompt:
    """A voice as the positions that speaking it leaves behind.

    Attributes:
        embeddings: Summed input embeddings of positions 0 to N - 1, shape [N, dim].
        cache: Tokens by stream and absolute position modulo max_delay + 3, shape [1 + n_q, max_delay + 3].
    """

    embeddings: npt.NDArray[np.float32]
    cache: npt.NDArray[np.int64]


def read_voice(path: str | Path, config: LMConfig) -> VoicePrompt:
    """Read a PersonaPlex voice file.

    Args:
        path: File saved by torch with the keys "embeddings", shape [N, 1, 1, dim], and "cache".
        config: Model that is to speak with it.

    Raises:
        WeightsError: The file is not such a file, or was made for a model of another shape.
    """
    tensors = read_tensors(path)
    embeddings, cache = tensors.get("embeddings"), tensors.get("cache")
    if embeddings is None or cache is None:
        raise WeightsError(
            f"{path} is not a voice file: expected 'embeddings' and 'cache', found {sorted(tensors)[:8]}"
        )
    columns = config.max_delay + 3
    if embeddings.ndim != 4 or embeddings.shape[1:] != (1, 1, config.dim) or embeddings.dtype != np.float32:
        raise WeightsError(f"{path}: 'embeddings' has shape {embeddings.shape}; expected (N, 1, 1, {config.dim})")
    if cache.shape != (1, config.num_streams, columns) or cache.dtype != np.int64:
        raise WeightsError(f"{path}: 'cache' has shape {cache.shape}; expected (1, {config.num_streams}, {columns})")
    if not len(embeddings) or not np.isfinite(embeddings).all():
        raise WeightsError(f"{path}: 'embeddings' must hold finite numbers and at least one position")
    return VoicePrompt(embeddings=embeddings[:, 0, 0], cache=cache[0])


def read_tensors(path: str | Path) -> dict[str, npt.NDArray[Any]]:
    """Read a dictionary of tensors that torch saved, without torch and without unpickling.

    The pickle inside is walked opcode by opcode; only what such a dictionary needs is understood.

    Args:
        path: Zip archive written by `torch.save`.

    Returns:
        Arrays by name; half-precision ones widened to float32.

    Raises:
        WeightsError: The file is not such an archive or holds anything else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = _root(archive, path)
            pickle = _member(archive, f"{root}/data.pkl", _MAX_PICKLE_BYTES, path)
            order = [name for name in archive.namelist() if name == f"{root}/byteorder"]
            if order and _member(archive, order[0], 16, path) != b"little":
                raise WeightsError(f"{path} was saved on a big-endian machine; save it again on another")
            return _Walker(path, lambda key: _member(archive, f"{root}/data/{key}", _MAX_STORAGE_BYTES, path)).run(
                pickle
            )
    except WeightsError:
        raise
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError, struct.error) as error:
        raise WeightsError(f"{path} cannot be read as a voice file: {error}") from error


@dataclass(frozen=True)
class _Global:
    name: str


@dataclass(frozen=True)
class _Storage:
    values: npt.NDArray[Any]


_MARK = object()


class _Walker:
    """A pickle machine whose only effects are dictionaries, tuples and tensors."""

    def __init__(self, path: str | Path, storage: Callable[[str], bytes]) -> None:
        self._path = path
        self._storage = storage
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._storages: dict[str, _Storage] = {}
        self._elements = 0

    def run(self, pickle: bytes) -> dict[str, npt.NDArray[Any]]:
        try:
            with warnings.catch_warnings():
                # The tokeniser warns about odd escapes in instructions that are refused anyway.
                warnings.simplefilter("ignore")
                self._walk(pickle)
            result = self._stack.pop()
        except (IndexError, KeyError, TypeError, ValueError, UnicodeError) as error:
            raise WeightsError(f"{self._path} is not a dictionary of tensors: {error}") from error
        if not isinstance(result, dict):
            raise WeightsError(f"{self._path} is not a dictionary of tensors")
        for name, value in result.items():
            if not isinstance(name, str) or not isinstance(value, np.ndarray):
                raise WeightsError(f"{self._path}: entry {str(name)[:80]!r} is not a tensor")
        return result

    def _walk(self, pickle: bytes) -> None:
        for opcode, argument, _ in pickletools.genops(pickle):
            if opcode.name == "STOP":
                return
            self._apply(opcode.name, argument)

    def _apply(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in ("PROTO", "FRAME"):
            return
        if name in ("BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1"):
            stack.append(argument)
        elif name in ("NEWTRUE", "NEWFALSE", "NONE"):
            stack.append({"NEWTRUE": True, "NEWFALSE": False, "NONE": None}[name])
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "EMPTY_TUPLE":
            stack.append(())
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            self._tuple(int(name[-1]))
        elif name == "TUPLE":
            stack.append(tuple(self._to_mark()))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif name == "GLOBAL":
            stack.append(self._global(argument))
        elif name == "BINPERSID":
            stack.append(self._load(stack.pop()))
        elif name == "REDUCE":
            arguments = stack.pop()
            stack.append(self._reduce(stack.pop(), arguments))
        elif name in ("SETITEM", "SETITEMS"):
            self._set(self._to_mark() if name == "SETITEMS" else self._last(2))
        else:
            raise WeightsError(f"{self._path} holds the pickle instruction {name}; only tensors are read")

    def _last(self, count: int) -> list[Any]:
        taken = self._stack[len(self._stack) - count :]
        if len(taken) != count:
            raise ValueError("its pickle ends early")
        del self._stack[len(self._stack) - count :]
        return taken

    def _tuple(self, count: int) -> None:
        self._stack.append(tuple(self._last(count)))

    def _to_mark(self) -> list[Any]:
        items = []
        while (item := self._stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def _set(self, pairs: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict) or len(pairs) % 2:
            raise ValueError("its pickle assigns to something that is not a dictionary")
        for name, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(name, str):
                raise ValueError("a key is not a string")
            target[name] = value

    def _global(self, name: str) -> _Global:
        if name not in _STORAGES and name not in (_REBUILD, _ORDERED_DICT):
            raise WeightsError(f"{self._path} refers to {name!r}; only plain tensors are read, nothing is executed")
        return _Global(name)

    def _reduce(self, function: Any, arguments: Any) -> Any:
        if function == _Global(_ORDERED_DICT) and arguments == ():
            return {}
        if function != _Global(_REBUILD):
            raise WeightsError(f"{self._path} calls something other than a tensor; nothing is executed")
        storage, offset, shape, strides = arguments[:4]
        return self._tensor(storage, offset, shape, strides)

    def _load(self, identifier: Any) -> _Storage:
        kind, storage, key, _, count = identifier
        if kind != "storage" or not isinstance(storage, _Global) or storage.name not in _STORAGES:
            raise ValueError("a tensor's storage is of an unknown kind")
        if not isinstance(key, str) or type(count) is not int:
            raise ValueError("a tensor's storage is not described")
        if key not in self._storages:
            self._storages[key] = self._read(key, storage.name, count)
        return self._storages[key]

    def _read(self, key: str, kind: str, count: int) -> _Storage:
        data, dtype = self._storage(key), _STORAGES[kind]
        values = np.frombuffer(data, dtype="<u2" if dtype == "bf16" else dtype)
        if values.size != count:
            raise ValueError(f"a storage should have {count} values and has {values.size}")
        if dtype == "bf16":
            return _Storage((values.astype("<u4") << 16).view("<f4"))
        return _Storage(values.astype(np.float32) if dtype in ("<f2", "<f8") else values)

    def _tensor(self, storage: Any, offset: Any, shape: Any, strides: Any) -> npt.NDArray[Any]:
        if not isinstance(storage, _Storage) or len(shape) != len(strides) or len(shape) > 8:
            raise ValueError("a tensor is not described")
        if any(type(item) is not int or item < 0 for item in (offset, *shape, *strides)):
            raise ValueError("a tensor has a negative size")
        count, last = 1, offset
        for size, stride in zip(shape, strides, strict=True):
            count *= size
            last += max(size - 1, 0) * stride
        self._elements += count
        if self._elements > _MAX_ELEMENTS or count > storage.values.size or (count and last >= storage.values.size):
            raise ValueError(f"a tensor of shape {shape} does not fit its storage of {storage.values.size} values")
        if not count:
            return np.zeros(shape, dtype=storage.values.dtype)
        item = storage.values.dtype.itemsize
        steps = [stride * item for stride in strides]
        return np.lib.stride_tricks.as_strided(storage.values[offset:], shape, steps, writeable=False).copy()


def _root(archive: zipfile.ZipFile, path: str | Path) -> str:
    roots = [name.removesuffix("/data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise WeightsError(f"{path} is not a file saved by torch: it holds {len(roots)} pickles")
    return roots[0]


def _member(archive: zipfile.ZipFile, name: str, limit: int, path: str | Path) -> bytes:
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise WeightsError(f"{path} lacks the part {name[:80]!r}; the file is damaged") from None
    # torch stores its parts uncompressed; refusing the rest keeps small files from growing without bound.
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > limit:
        raise WeightsError(f"{path}: the part {name[:80]!r} is compressed or larger than {limit} bytes")
    return archive.read(info)
