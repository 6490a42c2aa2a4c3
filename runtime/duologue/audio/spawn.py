"""Start a process of our own that does not run the host program's main module again."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.context import SpawnProcess
from typing import Any


def spawn(target: Callable[..., None], args: tuple[Any, ...], *, name: str, is_daemon: bool) -> SpawnProcess:
    """Start `target(*args)` in a fresh interpreter.

    Args:
        target: Function of an importable module.
        args: Arguments, pickled.
        name: For process lists.
        is_daemon: Whether it ends with this process and starts none itself.
    """
    process = multiprocessing.get_context("spawn").Process(target=target, args=args, name=name, daemon=is_daemon)
    if any(getattr(value, "__module__", None) == "__main__" for value in (target, *args)):
        process.start()
    else:
        with _main_out_of_sight():
            process.start()
    return process


@contextmanager
def _main_out_of_sight() -> Iterator[None]:
    # The standard library would import the host's script in the child, and a script without a __main__ guard would
    # open its conversation once more there. Nothing of ours needs that module.
    main = sys.modules["__main__"]
    hidden: dict[str, Any] = {key: main.__dict__.pop(key) for key in ("__file__", "__spec__") if key in main.__dict__}
    main.__spec__ = None
    try:
        yield
    finally:
        main.__dict__.update(hidden)
