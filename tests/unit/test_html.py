from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from duologue.metrics.charts import render_fto, render_latency
from duologue.metrics.html import render_html
from duologue.metrics.human_fto import HUMAN_FTO_QUANTILES_S, HUMAN_FTO_SHARES, human_fto_shares
from duologue.metrics.marks import MARKS
from duologue.metrics.types import InteractivityReport
from interactivity_sample import EVENTS, lively, silent

VOID = {"meta", "br", "link", "img", "hr", "input"}
SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '</p><script>alert("x")</script>&<img src=x onerror=alert(1)>'


class Outline(HTMLParser):
    """Reads a page and fails on a tag that does not close, or closes out of order."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def outer_svgs(page: str) -> list[str]:
    found, depth, start = [], 0, 0
    for match in re.finditer(r"<svg\b|</svg>", page):
        if match.group() == "<svg":
            start = match.start() if depth == 0 else start
            depth += 1
        else:
            depth -= 1
            if depth == 0:
                found.append(page[start : match.end()])
    assert depth == 0
    return found


def classes(page: str) -> list[str]:
    trees = [ElementTree.fromstring(svg) for svg in outer_svgs(page)]
    return [element.get("class", "") for tree in trees for element in tree.iter()]


@pytest.fixture
def page() -> str:
    return render_html(lively(), title="A talk", audio="conversation.wav", transcript=[(1.0, " hello"), (1.1, " you")])


@pytest.mark.parametrize("report", [lively(), silent()], ids=["lively", "silent"])
def test_the_page_and_its_pictures_are_well_formed(report):
    page = render_html(report, title="A talk", audio="a.wav", transcript=[(0.0, " hello")], note="untrained")
    outline = Outline(page)
    ids = [attrs["id"] for _, attrs in outline.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    pictures = [ElementTree.fromstring(svg) for svg in outer_svgs(page)]
    assert len(pictures) > 10
    for picture in pictures:
        assert picture.tag == f"{SVG}svg"
        assert picture.get("aria-label") or picture.get("aria-hidden") == "true"


def test_nothing_is_loaded_from_outside(page):
    sources = [attrs[name] for _, attrs in Outline(page).tags for name in ("src", "href") if name in attrs]
    assert set(sources) == {"conversation.wav"}
    assert "@import" not in page
    assert "url(" not in page


@pytest.mark.parametrize("mark", MARKS, ids=lambda mark: mark.kind)
def test_every_event_has_its_mark(page, mark):
    marks = [name for name in classes(page) if name.split()[:1] == ["mark"] and name.split()[-1] == mark.kind]
    assert len(marks) == sum(event.kind == mark.kind for event in EVENTS) > 0


def test_speech_and_overlaps_crossing_a_minute_are_drawn_in_both_rows(page):
    names = classes(page)
    legend = 1
    assert names.count("speech user") == 4 + legend
    assert names.count("speech agent") == 3 + 1 + legend
    assert names.count("overlap") == 2 + 1 + legend


def test_spans_lie_where_they_were_spoken(page):
    rows = [ElementTree.fromstring(svg) for svg in outer_svgs(page) if 'class="row"' in svg]
    assert len(rows) == 2
    first, second = ([r for r in row.iter(f"{SVG}rect") if r.get("class") == "speech agent"] for row in rows)
    assert [(r.get("x"), r.get("width")) for r in first] == [("7.167%", "7.833%"), ("98.333%", "1.667%")]
    assert [(r.get("x"), r.get("width")) for r in second] == [("0.000%", "2.500%"), ("16.667%", "1.667%")]


def test_a_short_conversation_fills_its_row():
    page = render_html(replace(silent(), duration_s=7.0), title="Short")
    assert 'data-row-s="10"' in page
    assert page.count('class="row"') == 1


def test_what_never_happened_is_said_in_words():
    page = render_html(silent(), title="Silence")
    text = " ".join(data for tag, data in Outline(page).texts if tag not in ("script", "style"))
    assert "the user never interrupted" in text
    assert "it never happened" in text
    assert "Not measured" in text
    assert "None" not in text
    assert "nan" not in text.split()
    assert not [name for name in classes(page) if name.startswith("dot") and "few" not in name and "inside" not in name]


def test_hostile_text_stays_text():
    report = replace(lively(), user_detector=HOSTILE)
    page = render_html(report, title=HOSTILE, audio='a".wav', transcript=[(0.0, HOSTILE)], note=HOSTILE)
    outline = Outline(page)
    assert len(outline.named("script")) == 2
    assert not outline.named("img")
    assert outline.named("audio")[0]["src"] == 'a".wav'
    said = [data for tag, data in outline.texts if tag == "p"]
    assert said.count(HOSTILE) == 2


def test_the_embedded_json_is_the_report():
    report = replace(lively(), user_detector=HOSTILE)
    outline = Outline(render_html(report, title="A talk"))
    embedded = next(data for tag, data in outline.texts if tag == "script" and data.startswith("{"))
    assert json.loads(embedded)["user_detector"] == HOSTILE
    assert InteractivityReport.from_json(embedded) == report


def test_pieces_become_lines():
    pieces = [(0.0, " Good"), (0.2, " mor"), (0.3, "ning"), (4.0, " What"), (4.2, " now"), (9.0, "   ")]
    texts = [data for tag, data in Outline(render_html(lively(), title="x", transcript=pieces)).texts if tag == "p"]
    assert texts[-2:] == ["Good morning", "What now"]


def test_times_seek_only_where_there_is_audio(page):
    assert [attrs["data-t"] for attrs in Outline(page).named("button") if "data-t" in attrs] == ["1"]
    without = Outline(render_html(lively(), title="x", transcript=[(1.0, " hello")]))
    assert not [attrs for attrs in without.named("button") if "data-t" in attrs]
    assert not without.named("audio")


def test_every_measure_has_a_row(page):
    text = " ".join(data for _, data in Outline(page).texts)
    for label in ("takeover rate", "stop latency", "talks through backchannels", "silence", "IPU length", "pause TOR"):
        assert label in text
    assert page.count("<b>whole</b>") == 0


def test_a_caveat_is_written_once(page):
    report = lively()
    twice = replace(report, compat=(report.compat[0], replace(report.compat[1], caveat=report.compat[0].caveat)))
    caveats = [data for tag, data in Outline(render_html(twice, title="x")).texts if tag == "td"][-5:]
    assert caveats[-4:] == ["whole file", "0.767", "12", "as for pause TOR"]


def test_marks_too_close_to_tell_apart_stand_apart():
    twin = replace(EVENTS[1], kind="turn_missed", end_s=EVENTS[1].start_s)
    page = render_html(replace(lively(), events=(EVENTS[1], twin)), title="x")
    row = ElementTree.fromstring(next(svg for svg in outer_svgs(page) if 'class="row"' in svg))
    places = [(nested.get("x"), nested.get("y")) for nested in row.iter(f"{SVG}svg") if nested.get("x")]
    assert len(set(places)) == 2
    assert len({x for x, _ in places}) == 1


def test_histogram_bars_hold_every_offset():
    picture = ElementTree.fromstring(render_fto([0.3, 0.39, -3.0, 9.0], "agent"))
    bars = [rect for rect in picture.iter(f"{SVG}rect") if rect.get("class") == "bar agent"]
    titles = [bar[0].text.split(" %")[0] for bar in bars]
    assert titles == ["below -1.4 s: 25", "+0.2 to +0.4 s: 50", "+2.8 s and above: 25"]


def test_latency_curves_rise_to_the_right_and_total_crosses_the_budget():
    picture = ElementTree.fromstring(render_latency(lively().latency))
    curves = {path.get("class"): path.get("d", "") for path in picture.iter(f"{SVG}path")}
    assert set(curves) == {"cdf stage-0", "cdf stage-total"}
    budget = next(
        float(line.get("x1", "")[:-1]) for line in picture.iter(f"{SVG}line") if line.get("class") == "budget"
    )
    for name, crosses in (("cdf stage-0", False), ("cdf stage-total", True)):
        points = [tuple(map(float, point.split())) for point in curves[name][1:].split("L")]
        assert [x for x, _ in points] == sorted(x for x, _ in points)
        assert (points[0][1], points[-1][1]) == (100.0, 0.0)
        assert (points[0][0] < budget < points[-1][0]) is crosses


def test_human_offsets_follow_the_quantiles():
    assert sum(human_fto_shares([-10.0, 10.0])) == pytest.approx(1.0)
    assert human_fto_shares([-0.52, 0.92])[0] == pytest.approx(0.9)
    assert sum(human_fto_shares([-10.0, 0.0])) == pytest.approx(0.339, abs=0.01)
    assert list(HUMAN_FTO_QUANTILES_S) == sorted(HUMAN_FTO_QUANTILES_S)
    assert len(HUMAN_FTO_QUANTILES_S) == len(HUMAN_FTO_SHARES)
