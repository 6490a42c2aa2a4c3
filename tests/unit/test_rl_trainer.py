"""One step of alignment: it learns, it resumes, it is the same over two processes, and its adapter is what it says."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

import rl_case  # noqa: E402
from duologue.model.checkpoint import Checkpoint  # noqa: E402
from duologue.model.load import load_model  # noqa: E402
from duologue_align.checkpointing import load_tree, save_tree  # noqa: E402
from duologue_align.rl.adapter import make_trained  # noqa: E402
from duologue_align.rl.objective import standardise  # noqa: E402
from duologue_align.rl.rollout import roll_out  # noqa: E402
from duologue_align.rl.settings import AlignSettings  # noqa: E402
from duologue_align.rl.trainer import GrpoTrainer, Lesson, learning_rate  # noqa: E402
from duologue_align.sft.processes import Processes  # noqa: E402
from lm_cases import MOSHI_LIKE  # noqa: E402

CONFIG = replace(MOSHI_LIKE, context=30)
GROUPS, COMPLETIONS, PAD = 2, 4, 3


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def settings_of(**tables: Any) -> AlignSettings:
    base = {
        "adapter": {"rank": 4},
        "optimiser": {"learning_rate": 2e-2, "warmup_share": 0.0, "passes": 2},
        "run": {"steps": 100, "train_rows": 3},
        "sampling": {"padding_bias": 3.0},
    }
    return AlignSettings.from_dict({name: base.get(name, {}) | tables.get(name, {}) for name in {*base, *tables}})


def make_trainer(settings: AlignSettings, processes: Processes | None = None) -> GrpoTrainer:
    trained = make_trained(rl_case.model(CONFIG), settings.adapter, dtype=torch.float32)
    return GrpoTrainer(trained, settings, processes=processes)


def make_lesson(trainer: GrpoTrainer, step: int = 0, groups: range = range(GROUPS)) -> tuple[Lesson, float]:
    """Converse; whoever is silent more often than the rest of its group is praised. Return the share of PAD too."""
    trainer.trained.refresh()
    scenes = [rl_case.scene(CONFIG, frames=10 + 2 * g, window=8, seed=g) for g in groups for _ in range(COMPLETIONS)]
    seeds = [(step, g, row) for g in groups for row in range(COMPLETIONS)]
    # Row by row, so that one process and two compute the same sums.
    rollouts = roll_out(trainer.trained.talker, scenes, seeds, trainer.settings.draws)
    is_text = rollouts.is_action[:, 0]
    share = ((rollouts.positions[:, 0, 1:] == PAD) & is_text).sum(1) / is_text.sum(1)
    advantages = torch.cat([standardise(part) for part in share.view(-1, COMPLETIONS)])
    every = torch.ones(len(share), dtype=torch.bool)
    parts = torch.arange(len(share)) % COMPLETIONS % trainer.settings.optimiser.passes
    return Lesson(rollouts=rollouts, advantages=advantages, counts=every, parts=parts), float(share.mean())


def weights_of(trainer: GrpoTrainer) -> Any:
    state = trainer.trained.state()
    return torch.cat([state[name].flatten() for name in sorted(state)])


@pytest.mark.parametrize(
    "tables",
    [{"objective": {"kl": 0.0}}, {"adapter": {"rank": 0}, "optimiser": {"learning_rate": 1e-2}}],
    ids=["lora", "full"],
)
def test_what_is_rewarded_happens_more_often(tables: dict[str, Any]) -> None:
    trainer = make_trainer(settings_of(**tables))
    shares = []
    for step in range(12):
        lesson, share = make_lesson(trainer, step)
        shares.append(share)
        row = trainer.learn(lesson)
        assert row["gap_kl"] < 1e-8, "the update's log-probabilities are those of the rollouts"
    assert sum(shares[-3:]) / 3 > sum(shares[:3]) / 3 + 0.15, shares


def test_the_divergence_holds_the_policy_back() -> None:
    found = {}
    for kl in (0.0, 3.0):
        trainer = make_trainer(settings_of(objective={"kl": kl}))
        for step in range(5):
            found[kl] = trainer.learn(make_lesson(trainer, step)[0])["kl"]
    assert found[3.0] < 0.5 * found[0.0]


def test_a_saved_trainer_goes_on_bit_for_bit(tmp_path: Path) -> None:
    settings = settings_of(objective={"kl_target": 0.01})
    trainer, other = make_trainer(settings), make_trainer(settings)
    trainer.learn(make_lesson(trainer, 0)[0])
    save_tree(tmp_path / "t", trainer.state())
    other.load_state(load_tree(tmp_path / "t"))
    assert other.beta == trainer.beta != settings.objective.kl
    rows = [item.learn(make_lesson(item, 1)[0]) for item in (trainer, other)]
    assert rows[0] == rows[1]
    assert torch.equal(weights_of(trainer), weights_of(other))


def test_rows_that_do_not_count_change_nothing() -> None:
    settings = settings_of()
    whole, part = make_trainer(settings), make_trainer(settings)
    lesson, _ = make_lesson(whole)
    counts = torch.arange(len(lesson.counts)) < COMPLETIONS
    whole.learn(replace(lesson, counts=counts))
    part.learn(
        Lesson(
            rollouts=lesson.rollouts.rows(torch.nonzero(counts)[:, 0]),
            advantages=lesson.advantages[counts],
            counts=counts[counts],
            parts=lesson.parts[counts],
        )
    )
    torch.testing.assert_close(weights_of(whole), weights_of(part))
    before = weights_of(whole).clone()
    beta = whole.beta
    row = whole.learn(replace(lesson, counts=torch.zeros_like(counts)))
    assert torch.equal(weights_of(whole), before)
    assert math.isnan(row["kl"])
    assert whole.beta == beta, "a step without actions says nothing of the divergence"


def test_only_rows_that_count_are_measured_and_a_row_may_lack_text() -> None:
    trainer = make_trainer(settings_of())
    lesson, _ = make_lesson(trainer)
    none = replace(lesson.rollouts, in_window=torch.zeros_like(lesson.rollouts.in_window))
    weights = torch.zeros(len(lesson.counts))
    for rollouts, share in ((none, weights + 1), (lesson.rollouts, weights)):
        loss, found, gap = trainer._score(rollouts, lesson.advantages, share, None)
        assert loss.item() == 0.0
        assert found.tolist() == [0.0] * 4
        assert torch.isfinite(gap).all()


def test_the_adapter_is_what_rollouts_speak_with_and_nothing_without(tmp_path: Path) -> None:
    agent = rl_case.write_agent(tmp_path / "agent")
    source = Checkpoint.open(agent)
    settings = settings_of(adapter={"rank": 3, "scaling": 1.5, "depth": True}, objective={"audio": 1.0})
    trained = make_trained(load_model(source), settings.adapter, dtype=torch.float32)
    frozen = load_model(source)
    for parameter in trained.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    trained.refresh()
    tokens = torch.randint(0, 60, (1, source.config.num_streams, 6), generator=torch.Generator().manual_seed(0))

    def text_of(model: Any) -> Any:
        with torch.no_grad():
            return model.text_linear(model.temporal(model.embed(tokens)))

    with trained.reference() as reference:
        assert torch.equal(text_of(reference), text_of(frozen))
    torch.testing.assert_close(text_of(trained.model), text_of(trained.talker), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(text_of(trained.talker), text_of(frozen), atol=1e-2)
    # What is not adapted is held once.
    assert trained.talker.text_emb.weight is trained.model.text_emb.weight

    trained.save(tmp_path / "adapter", source)
    trained.save(tmp_path / "adapter", source)
    merged = load_model(Checkpoint.open(agent, lora=tmp_path / "adapter" / "lora.safetensors"))
    for name, weight in merged.state_dict().items():
        torch.testing.assert_close(weight, trained.talker.state_dict()[name], msg=name)
    from peft import PeftModel

    peft_model = PeftModel.from_pretrained(load_model(source), str(tmp_path / "adapter"))
    torch.testing.assert_close(text_of(peft_model.base_model.model), text_of(trained.model))
    trained.refresh(is_frozen=True)
    assert torch.equal(text_of(trained.talker), text_of(frozen))


def test_the_codes_loss_reaches_the_depth_transformer() -> None:
    settings = settings_of(adapter={"depth": True}, objective={"audio": 0.5})
    trainer = make_trainer(settings)
    for step in range(2):
        trainer.learn(make_lesson(trainer, step)[0])
    moved = {name.split(".")[0] for name, value in trainer.trained.state().items() if "lora_B" in name and value.any()}
    assert moved == {"transformer", "text_linear", "depformer", "depformer_in", "linears"}


def test_learning_rate_rises_and_falls() -> None:
    settings = AlignSettings.from_dict(
        {"run": {"steps": 100}, "optimiser": {"learning_rate": 1.0, "warmup_share": 0.1, "final_share": 0.2}}
    )
    rates = [learning_rate(step, settings) for step in range(101)]
    assert rates[0] == pytest.approx(1 / 11)
    assert max(rates) == rates[10] == 1.0
    assert rates[100] == pytest.approx(0.2)


_TWO = """
import sys
import torch
import test_rl_trainer as case
from duologue_align.checkpointing import save_tree
from duologue_align.sft.processes import Processes

torch.set_num_threads(1)
processes, found = Processes.join("cpu"), {}
for rank in (4, 0):
    trainer = case.make_trainer(case.settings_of(adapter={"rank": rank}), processes)
    for step in range(2):
        row = trainer.learn(case.make_lesson(trainer, step, range(processes.rank, case.GROUPS, 2))[0])
    found[str(rank)] = {"weights": case.weights_of(trainer), "row": row}
if processes.is_first:
    save_tree(sys.argv[1], found)
processes.wait()
processes.leave()
"""


def test_two_processes_take_the_step_of_one_with_the_batch_of_both(tmp_path: Path) -> None:
    """LoRA under DistributedDataParallel, all weights under fully sharded FSDP2."""
    if not torch.distributed.is_available():
        pytest.skip("this torch has no distributed package")
    here = Path(__file__).parent
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parent)]), "OMP_NUM_THREADS": "1"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", _TWO, str(tmp_path / "two")],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    for process in running:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()
    two = load_tree(tmp_path / "two")
    for rank in (4, 0):
        alone = make_trainer(settings_of(adapter={"rank": rank}))
        for step in range(2):
            row = alone.learn(make_lesson(alone, step)[0])
        torch.testing.assert_close(two[str(rank)]["weights"], weights_of(alone), atol=2e-4, rtol=1e-3)
        for name in ("kl", "entropy", "actions", "grad_norm", "gap_kl"):
            assert two[str(rank)]["row"][name] == pytest.approx(row[name], rel=2e-3, abs=1e-6), name
