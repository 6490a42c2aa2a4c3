"""The preset, what it says about its size, and what a wrong one is told."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch")

from duologue.errors import ConfigError
from duologue.model.layout import tensor_shapes
from duologue_align.codec.settings import CodecTraining
from duologue_align.sft.schedule import learning_rate
from duologue_align.sft.settings import OptimiserSettings, SftSettings


def test_duologue_mini_fits_the_wheel_with_its_codec() -> None:
    settings = SftSettings.load()
    codec = CodecTraining.load().model
    config = settings.lm_config(card=codec.cardinality, text_card=1024)
    values = sum(math.prod(shape) for shape in tensor_shapes(config).values())
    assert 10e6 < values < 30e6
    assert 2 * values + 12.8e6 < 45e6, "bfloat16 weights and the codec's float16 ones"
    assert settings.run.window_frames <= config.context


def test_changes_are_typed() -> None:
    settings = SftSettings.load("duologue-mini", ["run.steps=7", "loss.semantic=10", "run.precision=float32"])
    assert (settings.run.steps, settings.loss.semantic, settings.run.precision) == (7, 10.0, "float32")
    assert SftSettings.from_dict(settings.to_dict()) == settings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("run.stepz=3", "unknown key 'stepz'"),
        ("run.steps=0", "run.steps is 0"),
        ("run.steps=many", "preset.run.steps is 'many'; it must be a int"),
        ("model.card=5", "fixed by the encoded data"),
        ("optimiser.schedule=linear", "cosine or onecycle"),
        ("steps=3", "table.key=value"),
        ("loss.semantic=-1", "loss.semantic"),
        ("run.precision=half", "run.precision"),
    ],
)
def test_wrong_presets_are_refused(change: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SftSettings.load("duologue-mini", [change])
    with pytest.raises(ConfigError, match="cannot read the preset"):
        SftSettings.load("nowhere.toml")


def test_the_learning_rate_rises_and_falls() -> None:
    cosine = OptimiserSettings(learning_rate=2.0, warmup_share=0.1, final_share=0.05)
    assert learning_rate(0.05, cosine) == pytest.approx(1.0)
    assert learning_rate(0.1, cosine) == pytest.approx(2.0)
    assert learning_rate(0.55, cosine) == pytest.approx((2.0 + 0.1) / 2)
    assert learning_rate(1.0, cosine) == pytest.approx(0.1)
    rates = [learning_rate(done / 100, cosine) for done in range(101)]
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert learning_rate(0.0, OptimiserSettings(warmup_share=0.0)) == pytest.approx(1e-3)


def test_onecycle_is_torchs() -> None:
    import torch

    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([parameter], lr=1.0)
    steps = 101
    expected = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1.0, total_steps=steps, pct_start=0.05)
    settings = OptimiserSettings(
        learning_rate=1.0, schedule="onecycle", warmup_share=0.05 - 1 / steps, final_share=1 / 25e4
    )
    optimiser.step()
    for step in range(steps - 1):
        assert learning_rate(step / (steps - 1), settings) == pytest.approx(expected.get_last_lr()[0], abs=0.012)
        expected.step()
