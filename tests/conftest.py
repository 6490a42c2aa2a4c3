"""Fixtures that several folders of tests use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# moshi reads this while it is imported; compiling its norms would need a C++ compiler and half a minute.
os.environ.setdefault("NO_TORCH_COMPILE", "1")


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of reference facts and recordings beside the project; tests that need it skip without it."""
    path = ROOT.parent / "shared"
    if not path.is_dir():
        pytest.skip("the shared folder with reference recordings is not beside the project")
    return path


@pytest.fixture(scope="session")
def demo_user() -> Path:
    """The bundled recorded user."""
    return ROOT / "runtime" / "duologue" / "data" / "demo_user.flac"


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep step graphs and the untrained agent of a test run out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DUOLOGUE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
