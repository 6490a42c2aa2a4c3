"""From an agent's own recorded conversations to an aligned agent that converses: every step as a user takes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from adapter_case import write_base  # noqa: E402
from duologue import AgentConfig, DuplexAgent  # noqa: E402
from duologue.types import SAMPLE_RATE_HZ  # noqa: E402
from duologue_align.cli import main  # noqa: E402
from duologue_align.segments import read_segments  # noqa: E402
from mine_cases import sound  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
SECONDS = 12.0
# The untrained agent babbles without a pause; what the user says into it is short, so that segments can be found.
USER = sound([(4.0, 4.7), (8.0, 8.6)], SECONDS, SAMPLE_RATE_HZ, seed=2)
SMALL = [
    "run.groups=1",
    "run.completions=4",
    "run.valid_every=0",
    "run.valid_segments=0",
    "run.samples=0",
    "optimiser.passes=1",
    "optimiser.learning_rate=0.02",
    "optimiser.warmup_share=0.0",
    "adapter.rank=2",
    "data.context_share=0.0",
    "reward.skip_flat=false",
]


def converse(folder: Path, *, record: Path | None = None, adapters: tuple[str, ...] = ()) -> np.ndarray:
    config = AgentConfig(user_detector="level", record=str(record) if record else None, adapters=adapters)
    agent = DuplexAgent.load(folder, config)
    with agent.session(seed=0, adapter=Path(adapters[0]).name if adapters else None) as session:
        return session.feed(USER)


def run(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0


def test_converse_mine_train_export_converse(tmp_path: Path) -> None:
    base, kept, mined = write_base(tmp_path / "base"), tmp_path / "kept", tmp_path / "mined"
    before = converse(base, record=kept)

    rules = [item for rule in ('detector="level"', "dev_share=0.0", "test_share=0.0") for item in ("--set", rule)]
    run("mine", kept, "--out", mined, "--codec", base, "--quiet", *rules)
    segments = read_segments(mined, split="train")
    assert {segment.axis for segment in segments} == {"backchannel", "user_backchannel"}
    (given,) = [segment for segment in segments if not segment.is_swapped]
    assert given.conversation == next(kept.iterdir()).name
    assert [event.start_s for event in given.of_kind("backchannel")] == pytest.approx([4.0, 8.0], abs=0.05)
    assert given.lines
    assert {line.side for line in given.lines} == {"agent"}

    changes = [item for change in SMALL for item in ("--set", change)]
    trained = tmp_path / "run"
    run(
        "train",
        "--model",
        base,
        "--segments",
        mined,
        "--steps",
        2,
        "--out",
        trained,
        "--threads",
        1,
        *changes,
        "--quiet",
    )

    run("export", trained, "--out", tmp_path / "aligned", "--dtype", "float32")
    run("export", trained, "--out", tmp_path / "mine", "--dtype", "float32", "--lora-only")
    after = converse(tmp_path / "aligned")
    assert np.isfinite(after).all()
    assert not np.array_equal(after, before)
    assert np.array_equal(converse(base, adapters=(str(tmp_path / "mine"),)), after)
    assert np.array_equal(converse(base), before)
