"""The JSON form of the report: everything comes back, and nothing else is accepted."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from duologue.errors import ConfigError
from duologue.metrics.degenerate import echo, render_speech
from duologue.metrics.latency import LatencyHistogram
from duologue.metrics.meter import measure
from duologue.metrics.types import SCHEMA_VERSION, Event, InteractivityReport


@pytest.fixture(scope="module")
def report() -> InteractivityReport:
    user = render_speech([(1, 4), (4.6, 7), (9, 9.5), (12, 15)], 20)
    latency = LatencyHistogram()
    latency.add(1.5)
    measured = measure(user, echo(user), 24_000, user_detector="level")
    word = Event(kind="transcript", side="agent", start_s=1.0, end_s=1.0, detail={"text": "hi", "probability": 0.5})
    return replace(measured, latency={"total": latency.summary()}, late_frames=1, events=(*measured.events, word))


def edited(report: InteractivityReport, **changes: object) -> str:
    return json.dumps(json.loads(report.to_json()) | changes)


def test_round_trip(report: InteractivityReport) -> None:
    assert len(report.events) > 20
    assert InteractivityReport.from_json(report.to_json()) == report
    assert InteractivityReport.from_json(report.to_json(indent=None)) == report


def test_schema_version_stands_in_the_text(report: InteractivityReport) -> None:
    assert json.loads(report.to_json())["schema_version"] == SCHEMA_VERSION
    with pytest.raises(ConfigError, match="schema_version 99"):
        InteractivityReport.from_json(edited(report, schema_version=99))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"surprise": 1}, "unknown fields: surprise"),
        ({"duration_s": "long"}, "report.duration_s is 'long'; expected float"),
        ({"late_frames": True}, "report.late_frames is True; expected int"),
        ({"pause": None}, "report.pause is NoneType; expected an object"),
        ({"pause": {}}, "report.pause has missing or unknown fields: takeover_rate"),
        ({"events": {}}, "report.events is dict; expected a list"),
        ({"latency": []}, "report.latency is list; expected an object"),
    ],
)
def test_what_does_not_fit_is_named(report: InteractivityReport, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        InteractivityReport.from_json(edited(report, **changes))


def test_wrong_side_and_wrong_span_are_named(report: InteractivityReport) -> None:
    data = json.loads(report.to_json())
    data["events"][0]["side"] = "nobody"
    with pytest.raises(ConfigError, match=r"report.events\[0\].side is 'nobody'"):
        InteractivityReport.from_json(json.dumps(data))
    data = json.loads(report.to_json())
    data["user"]["spans"][0] = [1.0]
    with pytest.raises(ConfigError, match=r"report.user.spans\[0\] has 1 items; expected 2"):
        InteractivityReport.from_json(json.dumps(data))


def test_text_that_is_not_json_and_numbers_that_are_not_finite_are_refused(report: InteractivityReport) -> None:
    with pytest.raises(ConfigError, match="not JSON"):
        InteractivityReport.from_json("{")
    for text in ("[" * 100_000, '{"schema_version": ' + "1" * 5000 + "}"):
        with pytest.raises(ConfigError, match="not JSON"):
            InteractivityReport.from_json(text)
    with pytest.raises(ConfigError, match="duration_s is inf; expected a finite number"):
        InteractivityReport.from_json(edited(report, duration_s=10**400))
    with pytest.raises(ConfigError, match="not finite"):
        replace(report, duration_s=math.nan).to_json()
    with pytest.raises(ConfigError, match="expected a finite number"):
        InteractivityReport.from_json(edited(report, duration_s=math.inf))
