"""`duologue profile` from the command line: what it prints, the files it writes, its exit codes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from duologue.cli import main
from duologue.errors import DeviceError, MissingExtraError
from duologue.profile.wakeups import GilHog

pytest.importorskip("onnxruntime")
QUICK = ["profile", "--engine", "onnx", "--seconds", "0.5"]


@pytest.fixture(autouse=True)
def cheap_probes(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("gpu") is None:
        monkeypatch.setattr("duologue.profile.host.measured_bandwidth", lambda device: 10.0)
        monkeypatch.setattr("duologue.profile.measure.GilHog", lambda: GilHog(hold_ms=5.0))


@pytest.fixture
def single_thread() -> Iterator[None]:
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _report(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(capsys.readouterr().out)
    return values


def test_every_engine_and_precision(capsys: pytest.CaptureFixture[str], single_thread: None) -> None:
    code = main(["profile", "--seconds", "0.5", "--no-audio", "--json"])
    report = _report(capsys)
    assert code == (0 if report["verdict"]["is_met"] else 4)
    assert [
        tuple(one[key] for key in ("engine", "dtype", "codec_precision", "error")) for one in report["engines"]
    ] == [
        ("onnx", "float32", "float32", ""),
        ("torch", "float32", "float32", ""),
        ("torch", "bfloat16", "float32", ""),
        ("onnx", "float32", "float16", ""),
        ("onnx", "float32", "int8", ""),
    ]
    for engine in report["engines"]:
        assert engine["load_s"] > 0
        assert engine["first_frame_ms"] > 0
        assert engine["resident_loaded_mb"] > 10
        assert [run["pacing"] for run in engine["runs"]] == ["real_time", "back_to_back"]
        for run in engine["runs"]:
            assert run["frames"] == 6
            assert list(run["stages"]) == ["encode", "model", "decode", "detokenise", "metrics", "total"]
            assert run["stages"]["model"]["p50_ms"] <= run["stages"]["total"]["p50_ms"]
    assert report["audio"] is None
    assert report["wakeups"]["hog_hold"]["count"] > 0
    assert {part["name"]: part["ms"] for part in report["mouth_to_ear"]}["acoustic delay"] == 80


def test_loopback_table_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    files = ["--out", str(out), "--trace", str(tmp_path / "t.json"), "--prometheus", str(tmp_path / "p.prom")]
    assert main([*QUICK, "--loopback", *files]) in (0, 4)
    text = capsys.readouterr().out
    assert "measured 20.0 ms" in text
    assert "no audio" not in text
    assert sorted(one.name for one in out.iterdir()) == ["profile.json", "profile.prom", "profile.txt", "trace.json"]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["out", "p.prom", "t.json"]
    assert (out / "profile.txt").read_text() == text
    assert (out / "trace.json").read_text() == (tmp_path / "t.json").read_text()
    assert (out / "profile.prom").read_text() == (tmp_path / "p.prom").read_text()
    report = json.loads((out / "profile.json").read_text())
    # What is expected adds up to what the clicks measured, within one block of 10 ms.
    measured_ms = report["audio"]["agent_clicks"]["p50_ms"] + 80
    compute_ms = next(part["ms"] for part in report["mouth_to_ear"] if part["name"] == "compute (p95)")
    if compute_ms < 40:
        assert measured_ms == pytest.approx(report["mouth_to_ear_ms"], abs=10)
    assert "resampling, per frame" in text
    assert "interactivity  answers after" in text
    assert set(report["engines"][0]["interactivity"]) >= {"answer_offset_s", "overlap_share"}
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert len([event for event in events if event["name"] == "lag ms"]) == len(report["audio"]["moments"]) > 10
    assert len([event for event in events if event["ph"] == "X" and event["cat"] != "audio"]) == 2 * 6 * 6
    # Two seconds, settled for two before, in blocks of 10 ms.
    calls = [event for event in events if event["name"] == "callback"]
    assert len(calls) == report["audio"]["callbacks"][0]["calls"] > 200
    assert "queue before the step" in text


def test_exit_code_when_the_budget_is_missed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from duologue.engine.onnx_engine import OnnxStepStream

    step = OnnxStepStream.step

    def slow(self: OnnxStepStream, *args: Any, **settings: Any) -> Any:
        time.sleep(0.09)
        return step(self, *args, **settings)

    monkeypatch.setattr(OnnxStepStream, "step", slow)
    assert main([*QUICK, "--no-audio"]) == 4
    text = capsys.readouterr().out
    assert "budget MISSED by onnx float32 cpu" in text
    assert "late: every frame is too slow, model takes" in text


@pytest.mark.parametrize("error", [DeviceError("this machine has no microphone"), MissingExtraError("x", "audio")])
def test_a_machine_without_sound_is_profiled_all_the_same(
    error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: object, shared: object) -> None:
        raise error

    monkeypatch.setattr("duologue.audio.driver.PortAudioSpec.open", refuse)
    assert main(QUICK) in (0, 4)
    assert f"no audio: {error}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seconds", "0"], "seconds = 0.0 is out of range"),
        (["--seconds", "nan"], "seconds = nan is out of range"),
        (["--engine", "onnx", "--dtype", "bfloat16"], "use --engine torch"),
        (["--trace", "nowhere/t.json"], "no such folder"),
        (["--prometheus", "."], "is a folder"),
        (["--threads", "0"], "threads"),
        (["--agent", "nowhere"], "nowhere"),
    ],
)
def test_wrong_arguments_are_refused_at_once(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    begun_s = time.monotonic()
    assert main(["profile", "--no-audio", *arguments]) in (2, 3)
    assert time.monotonic() - begun_s < 5
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_sound_and_no_sound_exclude_each_other() -> None:
    with pytest.raises(SystemExit) as stop:
        main(["profile", "--no-audio", "--loopback"])
    assert stop.value.code == 2


@pytest.mark.gpu
def test_cuda_is_timed_by_events(capsys: pytest.CaptureFixture[str]) -> None:
    main(["profile", "--engine", "torch", "--device", "cuda", "--seconds", "0.5", "--no-audio", "--json"])
    report = _report(capsys)
    assert report["host"]["gpu"]["bandwidth_gb_s"] > 0
    assert [one["dtype"] for one in report["engines"]] == ["float32", "bfloat16"]
    for engine in report["engines"]:
        assert engine["model_on_gpu"]["p50_ms"] > 0
        assert engine["gpu_memory_mb"] > 0
