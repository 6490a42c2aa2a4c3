"""Step graphs on disk: sealed with a checksum when written, trusted only while it fits."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from duologue.replacing import replace_file

_log = logging.getLogger(__name__)
_SEAL_KEY = b"duologue.sha256"
_SEAL_BYTES = 2 + 2 + len(_SEAL_KEY) + 2 + 64


def seal_graph(graph: bytes) -> bytes:
    """Return the graph with one more metadata entry: the SHA-256 of all bytes before it.

    Args:
        graph: A serialised ONNX model.

    Source: protocol buffers merge concatenated messages, so an entry of the repeated field 14 of ModelProto,
    metadata_props, may simply be appended.
    """
    checksum = hashlib.sha256(graph).hexdigest().encode()
    entry = b"\x0a" + bytes([len(_SEAL_KEY)]) + _SEAL_KEY + b"\x12" + bytes([len(checksum)]) + checksum
    return graph + b"\x72" + bytes([len(entry)]) + entry


def read_graph(path: Path | None, digest: str) -> bytes | None:
    """Return a kept graph, or None where there is none, or it was built from something else, or it is damaged.

    Args:
        path: The file, which need not exist.
        digest: What `graph_digest` returns for the checkpoint at hand.
    """
    try:
        graph = b"" if path is None else path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        _log.warning("the kept step graph cannot be read: %s; it is built again", error)
        return None
    # The digest stands in the model's metadata as plain text; finding it needs no protobuf reader.
    if digest.encode() not in graph:
        return None
    if seal_graph(graph[:-_SEAL_BYTES]) != graph:
        _log.warning("the kept step graph %s is damaged; it is built again", path)
        return None
    return graph


def keep_graph(path: Path, graph: bytes) -> None:
    """Write a sealed graph into a cache, making its folder; a failure is logged as a warning."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, graph)
    except OSError as error:
        _log.warning("the step graph is not kept: %s; it will be built again at the next load", error)
