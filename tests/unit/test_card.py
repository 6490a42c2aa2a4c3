from __future__ import annotations

import re
from dataclasses import replace

import pytest

from duologue.errors import ConfigError
from duologue.metrics.card import MIN_WIDTH, render_card
from duologue.metrics.rows import clock, measure_row, number
from interactivity_sample import band, lively, measure, silent

ANSI = re.compile(r"\x1b\[\d+m")


def line_with(card: str, label: str) -> str:
    return next(line for line in card.splitlines() if line.startswith(f"  {label}"))


@pytest.mark.parametrize("width", [MIN_WIDTH, 60, 80, 100, 160])
@pytest.mark.parametrize("report", [lively(), silent()], ids=["lively", "silent"])
def test_no_line_exceeds_the_width(report, width):
    for color in (False, True):
        lines = ANSI.sub("", render_card(report, width=width, color=color)).splitlines()
        assert max(map(len, lines)) <= width


def test_colour_changes_nothing_but_colour():
    plain, coloured = render_card(lively()), render_card(lively(), color=True)
    assert "\x1b" not in plain
    assert "\x1b[31m" in coloured
    stripped = [line.rstrip() for line in ANSI.sub("", coloured).splitlines()]
    assert stripped == plain.splitlines()


def test_a_row_says_value_count_band_and_where_it_lies():
    line = line_with(render_card(lively()), "takeover rate")
    assert line.split()[:5] == ["takeover", "rate", "67", "%", "3*"]
    assert "3 (0 to 10) %" in line
    assert line.endswith("above")
    assert line_with(render_card(lively()), "answered within 2 s").endswith("inside")
    assert line_with(render_card(lively()), "answered within 2 s").split()[4:7] == ["90", "%", "12"]


def test_what_never_happened_is_said_in_words():
    card = render_card(silent())
    assert line_with(card, "yield rate").split(maxsplit=4)[2:] == ["-", "0", "the user never interrupted"]
    assert "None" not in card
    assert "nan" not in card
    narrow = render_card(silent(), width=MIN_WIDTH).splitlines()
    assert narrow[narrow.index("    the user never interrupted") - 1].startswith("  yield rate")


def test_the_strip_shows_both_sides_and_the_marks():
    lines = render_card(lively(), width=81).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("user  "))
    # 75 columns of one second each.
    user, agent, below = (lines[start + i].ljust(81)[6:] for i in range(3))
    assert user.rstrip() == "▄█▄█" + " " * 4 + "██" + " " * 51 + "███"
    assert agent[4:9] == "▆████"
    assert [(sign, i) for i, sign in enumerate(below) if sign != " "] == [
        ("▲", 2), ("■", 9), ("✕", 10), ("▼", 60), ("▲", 62), ("□", 63), ("△", 64), ("●", 70),
    ]  # fmt: skip
    assert "▲ 2 takeover of a pause" in "\n".join(lines)
    assert "● 3 backchannel" in "\n".join(lines)


def test_frames_are_counted_where_an_agent_ran():
    assert render_card(lively()).splitlines()[0].endswith("1:15.0 · 938 frames · 3 late")
    assert render_card(silent()).splitlines()[0].endswith("  1:15.0")


def test_latency_is_held_against_the_budget():
    card = render_card(lively())
    assert line_with(card, "encode").endswith("within")
    assert line_with(card, "total").endswith("p95 over budget")
    assert "budget" not in render_card(silent())


def test_caveats_stand_as_footnotes():
    card = render_card(lively())
    assert line_with(card, "pause TOR").endswith("[1]")
    assert line_with(card, "L_R").endswith("[2]")
    assert "  [1] whole file" in card
    assert "  [2] <b>whole</b> file" in card


def test_an_empty_conversation_has_a_card():
    assert "no audio" in render_card(replace(silent(), duration_s=0.0))


def test_a_card_too_narrow_to_read_is_refused():
    with pytest.raises(ConfigError, match="give it at least 48"):
        render_card(lively(), width=20)


def test_snapshot_of_the_head_of_a_card():
    head = render_card(replace(silent(), duration_s=5.0), width=64).splitlines()[:14]
    assert head == [
        "Interactivity                                             0:05.0",
        "speech found by: user speech, agent given",
        "─" * 64,
        "user",
        "agent",
        "      0:00                 0.086 s a column                 0:05",
        "",
        "                                  value     n",
        "Pauses",
        "  takeover rate                       -     0",
        "    the user never paused",
        "Turn-taking",
        "  offset to the agent                 -     0",
        "    the agent never took the floor",
    ]


@pytest.mark.parametrize(
    ("value", "unit", "signed", "text"),
    [
        (0.14, "s", True, "+0.14 s"),
        (-0.521, "s", True, "−0.52 s"),
        (-0.001, "s", True, "+0.00 s"),
        (0.336, "rate", False, "34 %"),
        (0.038, "share", False, "3.8 %"),
        (0.0, "rate", False, "0 %"),
        (1.0, "rate", False, "100 %"),
        (2.28, "per_min", False, "2.3 /min"),
        (0.649, "distance", False, "0.649"),
        (12.0, "count", False, "12"),
    ],
)
def test_numbers_carry_sign_and_unit(value, unit, signed, text):
    assert number(value, unit, is_signed=signed) == text


def test_times_are_written_as_a_clock():
    assert clock(7.26, 1) == "0:07.3"
    assert clock(59.96, 1) == "1:00.0"
    assert clock(187) == "3:07"
    assert clock(3727) == "1:02:07"


def test_the_edges_of_a_band_belong_to_it():
    human = band(0.1, 0.2, 0.3)
    verdicts = [measure_row("x", measure(value, 10, band=human)).verdict for value in (0.09, 0.1, 0.3, 0.31, None)]
    assert verdicts == ["below", "inside", "inside", "above", ""]
