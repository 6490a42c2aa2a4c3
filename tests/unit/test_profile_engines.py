"""Which engines are measured, how a GPU's own clock is read, and what a failing rival leaves behind."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Literal

import numpy as np
import pytest

from duologue.config import AgentConfig
from duologue.errors import ConfigError
from duologue.profile import engines, measure
from duologue.profile.engines import candidates, failed_engine, model_by_events
from duologue.profile.measure import ProfileSettings, measure_profile
from profile_sample import FakeClock


def _names(config: AgentConfig, *, engine: bool = False, dtype: bool = False) -> list[str]:
    found = candidates(config, is_engine_chosen=engine, is_dtype_chosen=dtype)
    return [f"{one.engine} {one.dtype}" for one in found if one.codec_precision == config.codec_precision]


@pytest.fixture
def everything_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: object())


@pytest.mark.usefixtures("everything_installed")
def test_the_judged_engine_comes_first_and_once() -> None:
    assert _names(AgentConfig()) == ["onnx float32", "torch float32", "torch bfloat16"]
    bfloat16 = AgentConfig(engine="torch", dtype="bfloat16")
    assert _names(bfloat16) == ["torch bfloat16", "onnx float32", "torch float32"]
    assert _names(bfloat16, engine=True) == ["torch bfloat16", "torch float32"]
    assert _names(bfloat16, engine=True, dtype=True) == ["torch bfloat16"]
    assert _names(bfloat16, dtype=True) == ["torch bfloat16"]


def test_the_judged_engine_is_tried_even_if_nothing_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    assert _names(AgentConfig()) == ["onnx float32"]


@pytest.mark.usefixtures("everything_installed")
@pytest.mark.parametrize("given", ["float32", "int8"])
def test_other_codec_precisions_join_the_judged_engine_alone(given: Literal["float32", "int8"]) -> None:
    config = AgentConfig(engine="torch", dtype="bfloat16", codec_precision=given)
    found = candidates(config, is_engine_chosen=False, is_dtype_chosen=False)
    others = [one for one in found if one.codec_precision != given]
    assert {one.codec_precision for one in others} == {"float32", "float16", "int8"} - {given}
    assert {(one.engine, one.dtype) for one in others} == {("torch", "bfloat16")}
    chosen = candidates(config, is_engine_chosen=True, is_dtype_chosen=False)
    assert {one.codec_precision for one in chosen} == {given}


@pytest.mark.usefixtures("everything_installed")
def test_settings_other_than_engine_and_precision_are_kept() -> None:
    found = candidates(AgentConfig(threads=3, device="cuda"), is_engine_chosen=False, is_dtype_chosen=False)
    assert {(one.threads, one.device) for one in found} == {(3, "cuda")}


def test_events_enclose_each_step_and_the_first_one_warms_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"ms": 0.0}

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.ms = clock["ms"]

        def synchronize(self) -> None:
            pass

        def elapsed_time(self, end: Event) -> float:
            return end.ms - self.ms

    costs_ms = iter([500.0, 3.0, 5.0, 4.0])
    steps: list[int] = []

    def step(codes: np.ndarray) -> None:
        steps.append(int(codes[0]))
        clock["ms"] += next(costs_ms)

    torch = SimpleNamespace(cuda=SimpleNamespace(Event=Event))
    monkeypatch.setattr(engines, "import_module", lambda name: torch)
    engine = SimpleNamespace(stream=lambda *, seed: SimpleNamespace(step=step))
    timing = model_by_events(engine, [np.full(8, index, dtype=np.int32) for index in range(4)])
    assert steps == [0, 1, 2, 3]
    assert (timing.count, timing.p50_ms, timing.max_ms) == (3, 4.0, 5.0)


def test_a_rival_that_fails_is_a_row_with_its_reason() -> None:
    row = failed_engine(AgentConfig(engine="torch"), RuntimeError("out of memory\nat line 3")).profile
    assert (row.name, row.error, row.runs) == ("torch float32 cpu", "out of memory", ())


def test_a_judged_engine_that_fails_says_what_to_try(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **settings: object) -> None:
        raise RuntimeError("CUDA out of memory\ndetails")

    monkeypatch.setattr(measure, "measure_engine", fail)
    monkeypatch.setattr(measure, "read_host", lambda device: None)
    monkeypatch.setattr(measure, "default_bundle", lambda folder: None)
    with pytest.raises(ConfigError, match=r"onnx float32 does not run here \(CUDA out of memory\); try another"):
        measure_profile(ProfileSettings(), FakeClock(), lambda what: None)
