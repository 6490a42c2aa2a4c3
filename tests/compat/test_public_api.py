"""What embedders rely on: the public names, their signatures, a light import, one direction between the packages."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import duologue

ROOT = Path(__file__).parents[2]


def test_public_names() -> None:
    assert set(duologue.__all__) == {
        "AgentConfig",
        "DuologueError",
        "DuplexAgent",
        "FrameResult",
        "InteractivityReport",
        "Mimi",
        "Session",
        "__version__",
        "list_devices",
        "load",
    }
    assert all(getattr(duologue, name) is not None for name in duologue.__all__)
    with pytest.raises(AttributeError):
        duologue.DuplexAgents  # noqa: B018


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("DuplexAgent.load", ["name", "config"]),
        ("DuplexAgent.session", ["self", "seed", "sample_rate_hz", "adapter"]),
        ("Session.step", ["self", "frame"]),
        ("Session.feed", ["self", "pcm"]),
        ("Session.on", ["self", "kind", "handler"]),
        ("Mimi.load", ["path", "num_codebooks", "config", "threads", "isa", "precision"]),
        ("Mimi.stream", ["self", "window", "threads"]),
    ],
)
def test_signatures(name: str, parameters: list[str]) -> None:
    owner, method = name.split(".")
    assert list(inspect.signature(getattr(getattr(duologue, owner), method)).parameters) == parameters


def test_import_is_light() -> None:
    code = (
        "import sys, time; start = time.process_time(); import duologue; print(time.process_time() - start)\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
    )
    seconds = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(3)]
    assert min(seconds) < 0.3


def test_a_conversation_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np, duologue\n"
        "with duologue.load().session() as s: s.feed(np.zeros(4000, dtype=np.float32)); s.report()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_runtime_never_imports_the_aligner() -> None:
    for path in (ROOT / "runtime").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [name for name in names if name.startswith("duologue_align")], path


# What the modules of a room may import at run time; rooms that are not listed stand on top of these.
FOUNDATION = {"errors", "types", "replacing"}
LAYERS = {
    "errors": set(),
    "types": set(),
    "replacing": set(),
    "config": set(),
    "model": {"config"},
    "codec": {"config", "_native"},
    "audio/files": {"audio/resample"},
    "audio/resample": set(),
    "metrics": {"config", "audio/files", "audio/resample"},
    "recorder": {"metrics"},
    "engine": {"config", "model"},
    "session": {
        "config",
        "model",
        "engine",
        "codec",
        "metrics",
        "audio/files",
        "audio/resample",
        "dispatch",
    },
}


@pytest.mark.parametrize("room", LAYERS)
def test_imports_go_downward(room: str) -> None:
    package = ROOT / "runtime" / "duologue"
    paths = [package / f"{room}.py"] if (package / f"{room}.py").is_file() else [*(package / room).rglob("*.py")]
    assert paths
    for path in paths:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        used = {place for node in _runtime_imports(tree) for place in _places(node)}
        allowed = {*LAYERS[room], *FOUNDATION, room}
        wrong = {place for place in used if not {place, place.split("/")[0]} & allowed}
        assert not wrong, f"{path} imports from {sorted(wrong)}"


def _runtime_imports(node: ast.AST) -> list[ast.Import | ast.ImportFrom]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [node]
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return [found for child in node.orelse for found in _runtime_imports(child)]
    return [found for child in ast.iter_child_nodes(node) for found in _runtime_imports(child)]


def _places(node: ast.Import | ast.ImportFrom) -> list[str]:
    """Name the rooms, in the form of LAYERS, that an import of this distribution reaches."""
    names = [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        names = [f"{node.module}.{name}" for name in names]
    parts = [name.split(".")[1:3] for name in names if name.startswith("duologue.")]
    return ["/".join(part if part[0] == "audio" else part[:1]) for part in parts]


def test_every_extra_that_an_error_names_exists() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for path in [*(ROOT / "runtime").rglob("*.py"), *(ROOT / "align").rglob("*.py")]:
        for extra in re.findall(
            r'MissingExtraError\([^()]*(?:\([^()]*\)[^()]*)*, "(\w+)"\)', path.read_text(encoding="utf-8")
        ):
            assert extra in extras, f"{path}: no extra {extra!r}"
