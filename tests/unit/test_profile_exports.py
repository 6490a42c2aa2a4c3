"""The exports against parsers of our own: Prometheus text, trace events, JSON, the table."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from duologue.errors import ConfigError
from duologue.metrics.types import Event
from duologue.profile.command import write_whole
from duologue.profile.engines import EngineProfile, MeasuredEngine
from duologue.profile.prometheus import render_prometheus
from duologue.profile.report import SCHEMA_VERSION, ProfileReport
from duologue.profile.table import render_table
from duologue.profile.timing import BUCKETS_MS
from duologue.profile.trace import render_trace
from profile_sample import QUIET, audio, engine, frame_times, report

FAST, MIXED = frame_times([7.0] * 4), frame_times([7.0, 97.0, 7.0])
Sample = tuple[str, dict[str, str], float]


@pytest.fixture
def measured() -> list[MeasuredEngine]:
    failed = EngineProfile(engine="torch", dtype="float32", device="cuda", error="out of memory")
    return [engine(MIXED, FAST), MeasuredEngine(profile=failed, times={}, pressure=QUIET)]


@pytest.fixture
def full(measured: list[MeasuredEngine]) -> ProfileReport:
    return report(measured, sound=audio())


# Prometheus


def parse_prometheus(text: str) -> tuple[dict[str, str], list[Sample]]:
    """Read the text format strictly; returns the families' types and the samples."""
    kinds: dict[str, str] = {}
    helped: set[str] = set()
    samples: list[Sample] = []
    assert text.endswith("\n")
    for line in text.splitlines():
        if match := re.fullmatch(r"# HELP ([a-z_][a-z0-9_]*) \S.*", line):
            assert match[1] not in helped
            helped.add(match[1])
        elif match := re.fullmatch(r"# TYPE ([a-z_][a-z0-9_]*) (counter|gauge|histogram)", line):
            assert match[1] in helped
            assert match[1] not in kinds
            kinds[match[1]] = match[2]
        else:
            pair = r'[a-z_]+="(?:[^"\\\n]|\\["\\n])*"'
            match = re.fullmatch(rf"([a-z_][a-z0-9_]*)(?:\{{({pair}(?:,{pair})*)\}})? (\S+)", line)
            assert match, line
            labels = dict(re.findall(r'([a-z_]+)="((?:[^"\\\n]|\\["\\n])*)"', match[2] or ""))
            family = re.sub(r"_(bucket|sum|count)$", "", match[1])
            family = family if kinds.get(family) == "histogram" else match[1]
            # A family's samples stand together, after its type.
            assert family == list(kinds)[-1]
            samples.append((match[1], labels, float(match[3])))
    assert helped == set(kinds)
    assert len({(name, tuple(sorted(labels.items()))) for name, labels, _ in samples}) == len(samples)
    return kinds, samples


def test_prometheus_is_well_formed(full: ProfileReport) -> None:
    kinds, samples = parse_prometheus(render_prometheus(full))
    assert all(name.startswith("duologue_") for name in kinds)
    assert all(name.endswith("_total") == (kind == "counter") for name, kind in kinds.items())
    assert all("_ms" not in name for name in kinds)
    assert not [labels for _, labels, _ in samples if labels.get("device") == "cuda"]


def test_prometheus_histograms_are_cumulative_and_complete(full: ProfileReport) -> None:
    kinds, samples = parse_prometheus(render_prometheus(full))
    series: dict[tuple[str, tuple[tuple[str, str], ...]], list[tuple[float, float]]] = defaultdict(list)
    plain = {(name, tuple(sorted(labels.items()))): value for name, labels, value in samples}
    for name, labels, value in samples:
        if name.endswith("_bucket"):
            edge = float(labels.pop("le"))
            series[name.removesuffix("_bucket"), tuple(sorted(labels.items()))].append((edge, value))
    assert {name for name, _ in series} == {name for name, kind in kinds.items() if kind == "histogram"}
    for (name, labels_key), buckets in series.items():
        assert buckets == sorted(buckets)
        assert [edge for edge, _ in buckets] == pytest.approx([*(edge / 1e3 for edge in BUCKETS_MS), float("inf")])
        assert [count for _, count in buckets] == sorted(count for _, count in buckets)
        assert plain[f"{name}_count", labels_key] == buckets[-1][1]
        assert plain[f"{name}_sum", labels_key] >= 0


def test_prometheus_values(full: ProfileReport) -> None:
    _, samples = parse_prometheus(render_prometheus(full))

    def value(name: str, **wanted: str) -> float:
        found = [v for n, labels, v in samples if n == f"duologue_{name}" and wanted.items() <= labels.items()]
        assert len(found) == 1, (name, wanted, found)
        return found[0]

    assert value("late_frames_total", pacing="real_time") == 1
    assert value("stage_seconds_bucket", pacing="real_time", stage="total", le="0.08") == 2
    assert value("stage_seconds_sum", pacing="real_time", stage="model") == pytest.approx(0.111)
    assert value("budget_met") == 0
    assert value("frame_budget_seconds") == 0.08
    assert value("audio_xruns_total", kind="input_overflow") == 2
    assert value("audio_loop_seconds", work="agent") == pytest.approx(0.140)
    assert value("audio_drift_ratio") == pytest.approx(-12.5e-6)
    assert value("mouth_to_ear_seconds", part="device") == pytest.approx(0.020)
    assert next(labels for n, labels, _ in samples if n == "duologue_host_info")["cpu"] == r"A \"quoted\" \\ processor"


def test_prometheus_without_audio(measured: list[MeasuredEngine]) -> None:
    kinds, _ = parse_prometheus(render_prometheus(report(measured, sound=None)))
    assert not [name for name in kinds if "audio" in name]


# Trace


def test_trace_has_a_track_per_stage_and_flags_late_frames(measured: list[MeasuredEngine]) -> None:
    trace = json.loads(render_trace(measured))
    assert trace["displayTimeUnit"] == "ms"
    events = trace["traceEvents"]
    for event in events:
        assert event["ph"] in "MXiC"
        assert {"name", "pid", "tid", "args"} <= event.keys()
        assert event["ph"] == "M" or event["ts"] >= 0
        assert event["ph"] != "X" or event["dur"] >= 0
    names = {(e["pid"], e["args"]["name"]) for e in events if e["name"] == "process_name"}
    assert names == {(1, "onnx float32 cpu, in real time"), (2, "onnx float32 cpu, back to back")}
    tracks = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name" and e["pid"] == 1}
    assert tracks == {0: "frame", 1: "encode", 2: "model", 3: "decode", 4: "metrics"}
    late = [e for e in events if e["name"] == "late frame"]
    assert [(e["pid"], e["args"]["frame"], e["cname"]) for e in late] == [(1, 1, "terrible")]
    (mark,) = [e for e in events if e["ph"] == "i"]
    assert mark["ts"] == pytest.approx(late[0]["ts"] + late[0]["dur"])


def test_trace_marks_where_the_user_broke_in(measured: list[MeasuredEngine]) -> None:
    kinds = {"interruption": 0.1, "pause": 0.1, "takeover": 900.0}
    happened = tuple(Event(kind=kind, side="user", start_s=at, end_s=at) for kind, at in kinds.items())
    events = json.loads(render_trace([replace(measured[0], events={"real_time": happened})]))["traceEvents"]
    (mark,) = [event for event in events if event.get("cat") == "conversation"]
    assert (mark["name"], mark["pid"], mark["ph"]) == ("interruption", 1, "i")
    # The frame at 0.1 s is the second of the conversation and so the first that was measured.
    assert mark["ts"] == 1e6 * measured[0].times["real_time"][0].begun_s


def test_trace_shows_the_rings_over_time(measured: list[MeasuredEngine]) -> None:
    events = json.loads(render_trace(measured, audio()))["traceEvents"]
    rings = [event for event in events if event["ph"] == "C" and event["pid"] == 3]
    assert {event["name"]: event["args"]["ms"] for event in rings} == {
        "loudspeaker ring ms": 110.0,
        "microphone ring ms": 10.0,
        "lag ms": 120.0,
    }
    assert {event["ts"] for event in rings} == {7e6}


def test_trace_shows_every_callback_and_marks_xruns(measured: list[MeasuredEngine]) -> None:
    events = [e for e in json.loads(render_trace(measured, audio()))["traceEvents"] if e["pid"] == 3]
    assert [e["args"]["name"] for e in events if e["name"] == "thread_name"] == ["driver callback 1"]
    calls = [event for event in events if event["ph"] == "X"]
    assert [(e["tid"], e["ts"], e["dur"]) for e in calls] == [(1, 6e6, 20.0), (1, 6.05e6, 30.0)]
    (mark,) = [event for event in events if event["ph"] == "i"]
    assert (mark["name"], mark["ts"]) == ("xrun", 6.05e6)
    assert mark["args"]["kinds"] == ["input_overflow", "output_underflow"]


def test_the_canceller_shows_where_there_is_one(measured: list[MeasuredEngine]) -> None:
    without, with_one = (report(measured, sound=audio(cancels_echo=cancels)) for cancels in (False, True))
    assert "echo cancelling, per frame" in render_table(with_one)
    assert "duologue_audio_aec_seconds_count 2" in render_prometheus(with_one)
    assert with_one.mouth_to_ear_ms - without.mouth_to_ear_ms == pytest.approx(9.3)
    assert "echo cancelling" not in render_table(without)
    assert "aec" not in render_prometheus(without)


def test_trace_stages_lie_in_their_frame_one_after_another(measured: list[MeasuredEngine]) -> None:
    events = [e for e in json.loads(render_trace(measured))["traceEvents"] if e["ph"] == "X" and e["pid"] == 1]
    for frame in [e for e in events if e["tid"] == 0]:
        assert frame["ts"] == pytest.approx(80_000 * frame["args"]["frame"])
        stages = [e for e in events if e["tid"] and e["args"]["frame"] == frame["args"]["frame"]]
        at_us = frame["ts"]
        for stage in stages:
            assert stage["ts"] == pytest.approx(at_us)
            at_us += stage["dur"]
        assert at_us <= frame["ts"] + frame["dur"] + 1e-6
    assert len(events) == len(MIXED) * 5


# JSON, table, files


def test_json_is_versioned_and_names_its_buckets(full: ProfileReport) -> None:
    values = json.loads(full.to_json())
    assert values["schema_version"] == SCHEMA_VERSION
    assert "calls" not in values["audio"]
    assert values["buckets_ms"] == list(BUCKETS_MS)
    assert values["mouth_to_ear_ms"] == pytest.approx(sum(part["ms"] for part in values["mouth_to_ear"]))
    assert len(values["engines"][0]["runs"][0]["stages"]["total"]["buckets"]) == len(BUCKETS_MS)
    assert values["engines"][1]["error"] == "out of memory"
    assert values["verdict"]["is_met"] is False


def test_table_tells_everything_once(full: ProfileReport) -> None:
    text = render_table(full)
    for words in (
        "1.5 of 4 cores",
        "container: 2.0 GB",
        "torch float32 cuda: not measured, out of memory",
        "2 input overflow",
        "-12.5 ppm",
        "5 of 5 heard, 140.0 ms (140.0 to 140.0) bare",
        "reported 5.0 ms (in 0.0, out 5.0), measured 20.0 ms",
        "budget MISSED by onnx float32 cpu",
        "late: in 1 of 3 frames model takes 90 ms more than its median",
        "with the sound device 3 ms of the agent's audio came too late",
    ):
        assert text.count(words) == 1, words


def test_table_without_audio_says_why(measured: list[MeasuredEngine]) -> None:
    assert "no audio: no device" in render_table(report(measured, sound=None))


def test_files_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.prom"
    write_whole(path, "one")
    write_whole(path, "two")
    assert path.read_text() == "two"
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="folder"):
        write_whole(tmp_path / "folder", "three")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.prom", "folder"]
