"""What the card draws, without a terminal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from talk_case import frame, state, stats

pytest.importorskip("textual")

from duologue.audio.device import StreamInfo
from duologue.config import Sampling
from duologue.metrics.rows import axis_rows
from duologue.metrics.types import Event
from duologue.talk import figures, words
from duologue.talk.lanes import lane_lines
from duologue.talk.state import TalkState


def _talk(frames: int = 300, **changes: object) -> TalkState:
    talk = state(**changes)
    for index in range(frames):
        talk.apply(frame(index, text=" word" if index % 9 == 0 else "", level_dbfs=-20.0 if index > 200 else -80.0))
    for kind, start_s, end_s in (("user_speech_started", 16.0, 16.0), ("user_speech_ended", 16.0, 20.0)):
        talk.apply(Event(kind=kind, side="user", start_s=start_s, end_s=end_s))
    talk.apply(Event(kind="interruption", side="user", start_s=16.0, end_s=20.0))
    talk.apply(Event(kind="agent_yielded", side="agent", start_s=16.0, end_s=16.4, value_s=0.4))
    talk.set_stats(stats())
    talk.measure()
    return talk


@pytest.mark.parametrize(("width", "height"), [(74, 4), (80, 3), (114, 6), (40, 4)])
def test_lanes_fill_their_place(width: int, height: int) -> None:
    lines = [line.plain for line in lane_lines(_talk().view(), width, height)]
    assert len(lines) == height
    assert all(len(line) == width for line in lines)
    rows = 2 if height >= 6 else 1
    user, agent = lines[rows - 1], lines[2 * rows - 1]
    assert user.startswith("user  ")
    assert agent.startswith("agent ")
    assert set(agent[6:]) <= set("▁▂▃▄▅▆▇█ ")
    assert user[-1] != "▁"
    assert user.rstrip()[6 + (width - 6) // 8] == "▁"
    marks = lines[-2 if height > 3 else -1]
    assert "◆" in marks
    assert "■" in marks
    assert "0:20" in lines[-1]


def test_lanes_scroll_in_whole_columns() -> None:
    talk = _talk(300)
    before = lane_lines(talk.view(), 80, 4)[0].plain
    talk.apply(frame(300, level_dbfs=-20.0))
    talk.apply(frame(301, level_dbfs=-20.0))
    talk.apply(frame(302, level_dbfs=-20.0))
    assert lane_lines(talk.view(), 80, 4)[0].plain[6:-1] == before[7:]


def test_lanes_begin_empty() -> None:
    lines = [line.plain for line in lane_lines(state().view(), 40, 4)]
    assert lines[0].strip() == "user"


def test_every_axis_is_written_as_in_the_report() -> None:
    view = _talk().view()
    lines = [line.plain for line in figures.axis_lines(view.report, None, 90, 30)]
    rows = [row for group in axis_rows(view.report).values() for row in group]
    for row, name in zip(rows, figures._NAMES.values(), strict=True):
        (line,) = [line for line in lines if line.startswith(name.ljust(24))]
        assert row.value_text in line
        assert row.verdict in line
        assert row.band_text in line
    assert "100 %" in next(line for line in lines if line.startswith("yields"))


@pytest.mark.parametrize("width", [60, 64, 80, 120])
@pytest.mark.parametrize("height", [9, 16, 30])
@pytest.mark.parametrize("is_changed", [True, False])
def test_axes_fit(width: int, height: int, is_changed: bool) -> None:
    talk = _talk()
    if is_changed:
        talk.set_sampling(replace(Sampling(), padding_bias=1.0))
    view = talk.view()
    lines = [line.plain for line in figures.axis_lines(view.report, view.change, width, height)]
    assert max(map(len, lines)) <= width
    assert len(lines) == {9: 9, 16: 15, 30: 19}[height]
    assert ("since" in lines[0]) == is_changed


def test_controls_are_named_with_their_values() -> None:
    talk = _talk()
    talk.set_sampling(replace(Sampling(), padding_bias=-0.5, temperature_text=0.4))
    assert figures.control_text(talk.view()) == "padding bias -0.5  temperature 0.4 text, 0.8 audio"


def test_latency_in_both_shapes() -> None:
    latency = _talk().view().latency
    across, down = figures.latency_lines(latency, 4), figures.latency_lines(latency, 9)
    assert len(across) == 4
    assert len(down) == 7
    model = latency["model"]
    assert down[3].plain.split() == [
        "model",
        *(f"{x:.2f}" for x in (model.p50_ms, model.p95_ms, model.p99_ms, model.max_ms)),
    ]
    assert across[1].plain.split()[3] == f"{model.p50_ms:.2f}"
    assert figures.latency_lines({}, 4)[1].plain.split() == ["p50", *["-"] * 6]


def test_waiting_and_the_echo_canceller_are_shown_where_they_are_measured() -> None:
    latency = _talk().view().latency
    measured = {**latency, "queue": latency["model"], "aec": latency["encode"]}
    assert [line.plain.split()[0] for line in figures.latency_lines(measured, 9)[-2:]] == ["queue", "aec"]
    across = [line.plain for line in figures.latency_lines(measured, 4)]
    assert across[0].split()[-2:] == ["queue", "aec"]
    assert max(map(len, across)) < 80


def test_the_device_tells_its_losses() -> None:
    view = _talk().view()
    facts = {name: value for name, value, _ in figures.device_facts(view)}
    assert facts == {
        "ring": "62 ms, low 60",
        "lag": "140 ms",
        "late frames": "0 of 300",
        "drift": "-37 ppm",
        "xruns": "2, late 3",
        "concealed": "12 ms",
        "mic lost": "85 ms",
        "cut": "20 ms",
        "device lost": "1×",
    }
    lines = figures.device_lines(view, 80, 2)
    assert max(len(line) for line in lines) <= 80
    assert len(lines) == 2
    assert "device lost 1×" in lines[1].plain
    talk = _talk()
    talk.set_stats(stats(device_losses=0))
    assert "device lost" not in " ".join(line.plain for line in figures.device_lines(talk.view(), 80, 2))
    talk.set_stats(stats(drift_ppm=None, echo_reduction_db=12.3))
    facts = {name: value for name, value, _ in figures.device_facts(talk.view())}
    assert facts["drift"] == "measuring"
    assert facts["echo"] == "-12 dB"


def test_recording_is_said_in_words() -> None:
    off, on = _talk().view(), _talk(record_folder="tapes").view()
    assert "not recording" in words.head_line(off, 80).plain
    assert "RECORDING" in words.head_line(on, 80).plain
    assert "recorded into tapes" in words.message_line(on, 80).plain


def test_a_recording_that_ended_is_no_longer_claimed() -> None:
    talk = _talk(record_folder="tapes")
    talk.apply(Event(kind="recording_ended", side=None, start_s=1, end_s=1, detail={"message": "disk full"}))
    assert "RECORDING FAILED" in words.head_line(talk.view(), 80).plain
    assert words.message_line(talk.view(), 80).plain == "disk full"
    talk.say("")
    assert "recorded" not in words.message_line(talk.view(), 80).plain


def test_headphones_are_advised_without_echo_cancellation() -> None:
    assert "headphones" in words.message_line(_talk().view(), 80).plain
    assert "Echo cancellation is on" in words.message_line(_talk(has_echo_canceller=True).view(), 120).plain


def test_a_note_about_the_weights_takes_turns_with_the_hint() -> None:
    shown = {words.message_line(_talk(frames, note="untrained").view(), 80).plain for frames in (50, 150)}
    assert len(shown) == 2
    assert "untrained" in shown


def test_the_most_pressing_message_wins() -> None:
    talk = _talk()
    talk.say("something small")
    assert words.message_line(talk.view(), 80).plain == "something small"
    talk.apply(Event(kind="device_error", side=None, start_s=1, end_s=1, detail={"message": "unplugged"}))
    assert words.message_line(talk.view(), 80).plain == "unplugged"
    assert "DEVICE LOST" in words.head_line(talk.view(), 80).plain
    talk.end("the model broke")
    assert "the model broke; press q" in words.message_line(talk.view(), 80).plain
    assert "OVER" in words.head_line(talk.view(), 80).plain


def test_heads_and_keys_fit_and_name_what_there_is() -> None:
    talk = _talk(agents=("first", "second"))
    talk.set_agent(1)
    talk.set_muted(True)
    head = words.head_line(talk.view(), 80).plain
    assert len(head) <= 80
    assert "second · mic / speaker" in head
    assert "MUTED" in head
    assert len(words.keys_line(talk.view(), 80).plain) <= 80
    assert "next agent" in words.keys_line(talk.view(), 120).plain
    assert words.keys_line(talk.view(), 60).plain.startswith("q quit m mute")
    assert "next agent" not in words.keys_line(_talk().view(), 120).plain


def test_the_transcript_shows_its_end() -> None:
    lines = [line.plain for line in words.transcript_lines(_talk().view(), 40, 2)]
    assert len(lines) == 2
    assert all(len(line) <= 40 for line in lines)
    assert lines[0].startswith("agent word")
    same = StreamInfo(input_name="card", output_name="card", host_api="ALSA", input_hz=44_100, output_hz=48_000)
    assert "card · 44.1 / 48 kHz" in words.head_line(state(device=same).view(), 80).plain
