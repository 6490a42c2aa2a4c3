"""One step of the supervised stage: the same however the batch is cut, over one process or two."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import lm_cases  # noqa: E402
from duologue_align.checkpointing import load_tree, save_tree  # noqa: E402
from duologue_align.sft.initial import initialise  # noqa: E402
from duologue_align.sft.loss import LossWeights  # noqa: E402
from duologue_align.sft.settings import OptimiserSettings, RunSettings, SftSettings  # noqa: E402
from duologue_align.sft.trainer import SftTrainer, TeacherForcing  # noqa: E402

CONFIG = lm_cases.MOSHI_LIKE
SETTINGS = SftSettings(optimiser=OptimiserSettings(learning_rate=3e-3, average_decay=0.9), run=RunSettings(batch=4))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def make_batch(seed: int = 0, length: int = 12) -> np.ndarray:
    draw = np.random.default_rng(seed)
    batch = draw.integers(0, CONFIG.card, (4, CONFIG.num_streams + 1, length + 1))
    batch[:, [0, -1]] = draw.choice([0, 3, 3, 3, 7], (4, 2, length + 1))
    batch[:, 0, 0] = CONFIG.text_card
    batch[:, 1:-1, 0] = CONFIG.card
    batch[3, :, 8:] = -1
    return batch


def weights_of(trainer: SftTrainer) -> Any:
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_micro_batches_change_memory_and_not_the_step(micro_batch: int) -> None:
    whole = SftTrainer(SETTINGS, CONFIG)
    parts = SftTrainer(replace(SETTINGS, run=replace(SETTINGS.run, micro_batch=micro_batch, recompute=True)), CONFIG)
    for seed in range(2):
        one, two = whole.train_step(make_batch(seed), 0.5), parts.train_step(make_batch(seed), 0.5)
        assert two == pytest.approx(one, rel=1e-4)
    assert torch.allclose(weights_of(whole), weights_of(parts), atol=2e-4)
    assert (parts.step, parts.frames) == (2, 2 * 4 * 12)


def test_frames_left_out_cost_nothing_and_the_others_the_same() -> None:
    model = SftTrainer(SETTINGS, CONFIG).model
    tokens = torch.from_numpy(make_batch())
    targets = tokens[:, : 1 + CONFIG.dep_q, 1:].clone()
    whole = TeacherForcing(model)(tokens, targets)
    targets[:, 1:, ::3] = -1
    thinned = TeacherForcing(model, is_thinned=True)(tokens, targets)
    assert (thinned[:, 1:, ::3] == 0).all()
    whole[:, 1:, ::3] = 0
    torch.testing.assert_close(thinned, whole)


def test_training_begins_uniform_and_learns() -> None:
    trainer = SftTrainer(SETTINGS, CONFIG)
    first = trainer.train_step(make_batch(), 0.5)
    assert first["text_loss"] == pytest.approx(np.log(CONFIG.text_card), abs=0.15)
    assert first["audio_loss"] == pytest.approx(np.log(CONFIG.card), abs=0.15)
    for _ in range(60):
        last = trainer.train_step(make_batch(), 0.5)
    assert last["loss"] < 0.5 * first["loss"]
    assert all(
        parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in trainer.model.parameters()
    )


def test_the_user_is_not_predicted() -> None:
    """Two batches that differ in what the user does last have the same loss."""
    batch = make_batch()
    other = batch.copy()
    other[:, 1 + CONFIG.dep_q : -1, -1] = 0
    losses = [SftTrainer(SETTINGS, CONFIG).train_step(tokens, 0.5)["loss"] for tokens in (batch, other)]
    assert losses[0] == losses[1]


def test_a_head_learns_what_the_user_says_and_leaves_no_trace_in_the_model() -> None:
    """The frames from which a word is told are those before it: the head sees the user, the model keeps its shape."""
    listening = replace(SETTINGS, loss=LossWeights(listening=1.0))
    trainer = SftTrainer(listening, CONFIG)
    first = trainer.train_step(make_batch(), 0.5)
    assert first["loss"] == pytest.approx(sum(first[f"{kind}_loss"] for kind in ("text", "audio", "listening")))
    for _ in range(60):
        last = trainer.train_step(make_batch(), 0.5)
    assert last["listening_loss"] < 0.5 * first["listening_loss"]
    assert trainer.averaged_model.state_dict().keys() == SftTrainer(SETTINGS, CONFIG).model.state_dict().keys()


def test_a_saved_trainer_continues_bit_for_bit(tmp_path: Path) -> None:
    settings = replace(SETTINGS, loss=LossWeights(listening=0.5))
    trainer, other = SftTrainer(settings, CONFIG), SftTrainer(replace(settings, run=RunSettings(seed=9)), CONFIG)
    trainer.train_step(make_batch(1), 0.5)
    save_tree(tmp_path / "t", trainer.state())
    other.load_state(load_tree(tmp_path / "t"))
    assert trainer.train_step(make_batch(2), 0.6) == other.train_step(make_batch(2), 0.6)
    assert torch.equal(weights_of(trainer), weights_of(other))
    for name, tensor in trainer.average.module.state_dict().items():
        assert torch.equal(tensor, other.average.module.state_dict()[name]), name
    assert not torch.equal(trainer.averaged_model.text_linear.weight, trainer.model.text_linear.weight)


def test_first_weights_depend_on_the_seed_alone() -> None:
    from duologue.model.lm import LanguageModel

    models = [LanguageModel(CONFIG) for _ in range(3)]
    for model, seed in zip(models, (4, 4, 5), strict=True):
        initialise(model, seed)
    states = [model.state_dict() for model in models]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["text_emb.weight"], states[2]["text_emb.weight"])


_TWO = """
import sys
import torch
import test_sft_trainer as case
from duologue_align.checkpointing import save_tree
from duologue_align.sft.processes import Processes

torch.set_num_threads(1)
processes = Processes.join("cpu")
trainer = case.SftTrainer(case.SETTINGS, case.CONFIG, processes=processes)
rows = [trainer.train_step(case.make_batch(seed)[processes.rank :: 2], 0.5) for seed in range(2)]
assert processes.any(processes.rank == 1) and not processes.any(False)
if processes.is_first:
    save_tree(sys.argv[1], {"rows": rows, "weights": case.weights_of(trainer), "frames": trainer.frames})
processes.wait()
processes.leave()
"""


def test_two_processes_take_the_step_of_one(tmp_path: Path) -> None:
    pytest.importorskip("torch.distributed")
    if not torch.distributed.is_available():
        pytest.skip("this torch has no distributed package")
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parent)])
    environment = {**os.environ, "PYTHONPATH": paths, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    port = _free_port()
    running = [
        subprocess.Popen(
            [sys.executable, "-c", _TWO, str(tmp_path / "two")],
            env={**environment, "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()[-2000:]
    alone = SftTrainer(SETTINGS, CONFIG)
    rows = [alone.train_step(make_batch(seed), 0.5) for seed in range(2)]
    two = load_tree(tmp_path / "two")
    for expected, found in zip(rows, two["rows"], strict=True):
        assert found == pytest.approx(expected, rel=1e-4)
    assert torch.allclose(two["weights"], weights_of(alone), atol=2e-4)
    assert two["frames"] == alone.frames


def _free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
