"""Training checkpoints: exact, atomic, without pickle; and the polite stop."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from duologue.errors import ConfigError, WeightsError  # noqa: E402
from duologue_align.checkpointing import (  # noqa: E402
    Checkpoints,
    StopRequest,
    load_tree,
    random_state,
    save_tree,
    set_random_state,
)


def test_a_tree_comes_back_bit_for_bit(tmp_path: Path) -> None:
    shared = torch.randn(4, 6)
    tree = {
        "step": 3,
        7: [1.1e-300, math.inf, None, True, "ä", (1, 2)],
        "seed": 1 << 100,
        "tensors": {
            "scalar": torch.tensor(2.5),
            "half": torch.randn(3).bfloat16(),
            "view": shared.T,
            "same": shared,
            "bytes": torch.arange(5, dtype=torch.uint8),
            "empty": torch.zeros(0, 2),
        },
    }
    save_tree(tmp_path / "a.safetensors", tree)
    back = load_tree(tmp_path / "a.safetensors")
    assert {key: back[key] for key in ("step", 7, "seed")} == {key: tree[key] for key in ("step", 7, "seed")}
    assert list(back["tensors"]) == list(tree["tensors"])
    for name, tensor in tree["tensors"].items():
        assert back["tensors"][name].dtype == tensor.dtype
        assert torch.equal(back["tensors"][name], tensor)


def test_an_optimiser_continues_exactly(tmp_path: Path) -> None:
    def run(steps: int, layer: torch.nn.Linear, optimiser: torch.optim.Optimizer) -> None:
        for _ in range(steps):
            optimiser.zero_grad()
            layer(torch.randn(2, 3)).square().sum().backward()
            optimiser.step()

    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 3)
    optimiser = torch.optim.AdamW(layer.parameters(), lr=0.1)
    run(3, layer, optimiser)
    save_tree(tmp_path / "a", {"l": layer.state_dict(), "o": optimiser.state_dict(), "r": random_state()})
    run(3, layer, optimiser)
    other = torch.nn.Linear(3, 3)
    again = torch.optim.AdamW(other.parameters(), lr=0.5)
    state = load_tree(tmp_path / "a")
    other.load_state_dict(state["l"])
    again.load_state_dict(state["o"])
    set_random_state(state["r"])
    run(3, other, again)
    assert torch.equal(layer.weight, other.weight)


def test_only_the_newest_are_kept_and_foreign_files_ignored(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "c", keep=2)
    assert checkpoints.load_latest() is None
    for step in (5, 100, 20):
        checkpoints.save(step, {"step": step})
    (tmp_path / "c" / ".step-000000200.safetensors.partial").write_bytes(b"half")
    assert [step for step, _ in checkpoints.found()] == [20, 100]
    assert checkpoints.load_latest() == {"step": 100}


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    save_tree(path, {"x": 1})

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("duologue_align.checkpointing.save_file", full)
    with pytest.raises(ConfigError, match="No space left"):
        save_tree(path, {"x": 2})
    assert load_tree(path) == {"x": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot hold a set"):
        save_tree(tmp_path / "a", {"x": {1, 2}})
    with pytest.raises(ConfigError, match="keys must be"):
        save_tree(tmp_path / "a", {(1, 2): 3})
    with pytest.raises(WeightsError, match="cannot read"):
        load_tree(tmp_path / "none")
    (tmp_path / "b").write_bytes(b"\x10\0\0\0\0\0\0\0nonsense........")
    with pytest.raises(WeightsError, match="cannot read"):
        load_tree(tmp_path / "b")
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "c")
    with pytest.raises(WeightsError, match="not a training checkpoint"):
        load_tree(tmp_path / "c")


def test_sigterm_is_noted_and_the_second_interrupt_acts() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert not stop.is_set
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.is_set
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before
