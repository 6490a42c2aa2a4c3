"""`duologue talk` on the fake device: keys, numbers, small terminals, lost devices, JSON lines, files."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("textual")

from textual.pilot import Pilot

from adapter_case import write_adapter, write_base
from duologue.audio.echo import EchoAgent
from duologue.audio.fake import FakeSpec
from duologue.audio.live import LiveSession, open_live
from duologue.audio.wire import LiveAgent
from duologue.cli import main
from duologue.config import AgentConfig
from duologue.metrics.rows import axis_rows
from duologue.metrics.types import InteractivityReport
from duologue.session import Session
from duologue.talk.choice import AgentChoice, AgentLoader, choice_names
from duologue.talk.control import Take, TalkControl
from duologue.talk.screen import Panel, TalkApp
from duologue.talk.state import Setup, TalkState

SIZES = [(60, 20), (80, 24), (120, 36), (200, 60)]


def _two_echoes() -> LiveAgent:
    return AgentChoice([EchoAgent(note="one"), EchoAgent(note="two")])


class Breaks:
    """An agent that breaks a second into the conversation."""

    note = ""

    def session(self, *, seed: int) -> Session:
        session, count = EchoAgent().session(), [0]
        step = session._engine.step

        def failing(codes: object) -> object:
            count[0] += 1
            if count[0] > 25:
                raise RuntimeError("the model broke")
            return step(codes)  # type: ignore[arg-type]

        session._engine.step = failing  # type: ignore[method-assign, assignment]
        return session


class Case:
    """A running conversation with its state and control."""

    def __init__(
        self, load_agent: Callable[[], LiveAgent], device: FakeSpec, agents: tuple[str, ...], **settings: object
    ):
        self.live: LiveSession = open_live(load_agent=load_agent, device=device, **{"playout_ms": 60.0, **settings})
        setup = Setup(agents=agents, device=self.live.device, playout_ms=self.live.playout_ms)
        self.state = TalkState(setup, self.live.sampling)
        self.control = TalkControl(self.live, self.state, agents=agents, device=device, seed=5)
        self.app = TalkApp(self.state, self.control)

    def drive(self, script: Callable[[Case, Pilot[None]], Awaitable[None]], size: tuple[int, int] = (120, 36)) -> None:
        async def run() -> None:
            async with self.app.run_test(size=size) as pilot:
                await script(self, pilot)

        asyncio.run(run())

    def text(self, panel: str) -> str:
        return self.app.query_one(f"#{panel}", Panel).render().plain


@contextmanager
def talking(
    load_agent: Callable[[], LiveAgent] = EchoAgent,
    device: FakeSpec | None = None,
    agents: tuple[str, ...] = ("echo",),
    **settings: object,
) -> Iterator[Case]:
    case = Case(load_agent, device or FakeSpec(), agents, **settings)
    with case.live:
        yield case
    # A killed process may need a moment to be gone where every core is taken.
    case.live._process.join(3)
    assert not case.live._process.is_alive()


async def until(pilot: Pilot[None], is_done: Callable[[], bool], timeout_s: float = 20.0) -> None:
    end_s = time.monotonic() + timeout_s
    while not is_done():
        assert time.monotonic() < end_s, "waited too long"
        await pilot.pause(0.05)


def test_keys_do_what_they_say(demo_user: Path, tmp_path: Path) -> None:
    recording = tmp_path / "all.wav"

    async def script(case: Case, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: len(case.state.view().frames) > 5)
        await pilot.press("m")
        await until(pilot, lambda: "MUTED" in case.text("head"))
        assert case.live.stats().is_muted
        assert "hears silence" in case.text("message")
        await pilot.press("m")
        await until(pilot, lambda: "MUTED" not in case.text("head"))
        assert not case.live.stats().is_muted
        await pilot.press("f")
        await until(pilot, lambda: "ms of the agent's audio discarded" in case.text("message"))
        assert 0 < int(case.text("message").split()[1]) <= 160
        await pilot.press("plus", "plus", "minus", "plus")
        await until(pilot, lambda: "padding bias +1 " in case.text("axes"))
        await pilot.press("less_than_sign")
        await until(pilot, lambda: "0.6 text, 0.7 audio" in case.text("axes"))
        await until(pilot, lambda: "since" in case.text("axes"))
        await pilot.press("a")
        await until(pilot, lambda: case.state.view().agent_index == 1)
        assert "a new conversation with two" in case.state.view().message[0]
        await until(pilot, lambda: "two · fake" in case.text("head"))
        await until(pilot, lambda: len(case.state.view().frames) > 3)
        await pilot.press("i")
        await until(pilot, lambda: "the fake device has no other" in case.text("message"))
        await pilot.press("r")
        await until(pilot, lambda: len(case.control._takes) == 2)
        await until(pilot, lambda: 3 < case.state.view().frames[-1].index < 30)

    with talking(_two_echoes, FakeSpec(user=str(demo_user)), ("one", "two"), record_path=str(recording)) as case:
        case.drive(script)
        takes = case.control.finish()
    assert case.state.sampling.padding_bias == 1.0
    assert [take.agent for take in takes] == ["one", "two", "two"]
    counts = [take.report.latency["total"].count for take in takes]
    starts = [take.first_frame for take in takes]
    # A report is taken just before the reset, so a few frames may lie between them.
    assert starts[0] == 0
    assert all(0 <= starts[i + 1] - starts[i] - counts[i] <= 12 for i in (0, 1))
    assert 0 <= soundfile.info(recording).frames / 1920 - starts[2] - counts[2] <= 12


def test_a_key_goes_from_adapter_to_adapter(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    adapters = tuple(str(write_adapter(tmp_path / name, base, seed=seed)) for seed, name in enumerate(("a", "b")))
    config = AgentConfig(adapters=adapters, temperature_text=0, temperature_audio=0)
    names = choice_names(["base"], adapters)
    recording = tmp_path / "all.wav"

    async def script(case: Case, pilot: Pilot[None]) -> None:
        for name in (*names[1:], names[0]):
            await until(pilot, lambda: case.state.view().frames and case.state.view().frames[-1].index > 8)
            await pilot.press("a")
            await until(pilot, lambda name=name: f"{name} · fake" in case.text("head"))  # type: ignore[misc]
        await until(pilot, lambda: case.state.view().frames and case.state.view().frames[-1].index > 8)

    load_agent = AgentLoader(names=(str(base),), config=config)
    with talking(load_agent, agents=names, record_path=str(recording)) as case:
        case.drive(script)
        takes = case.control.finish()
    assert [take.agent for take in takes] == ["base", "base + a", "base + b", "base"]
    recorded, _ = soundfile.read(recording, dtype="float32")
    # Nobody speaks, so what each says first depends on its weights alone.
    begins = [recorded[1920 * take.first_frame :][: 1920 * 8, 1] for take in takes]
    assert [[np.array_equal(one, other) for other in begins[:3]] for one in begins[:3]] == np.eye(3).tolist()
    assert np.array_equal(begins[3], begins[0])


def test_the_card_shows_the_report_in_any_terminal(demo_user: Path) -> None:
    reports: list[InteractivityReport] = []

    async def script(case: Case, pilot: Pilot[None]) -> None:
        assert "needs 60x20" in case.text("too-small")
        assert not case.app.query_one("#axes").display
        view = case.state.view
        await until(pilot, lambda: len(view().report.events) > 3 and view().stats is not None)
        for size in SIZES:
            await pilot.resize_terminal(*size)
            await until(pilot, lambda size=size: case.text("lanes") != "" and case.app.size == size)  # type: ignore[misc]
            _check_card(case, size)
        reports.append(case.live.report())
        told = [(event.kind, event.start_s) for event in view().events]
        assert [(event.kind, event.start_s) for event in reports[0].events][: len(told)] == told

    with talking(device=FakeSpec(user=str(demo_user))) as case:
        case.drive(script, (40, 10))
        final = case.control.finish()[-1].report
    assert final.latency["total"].count >= reports[0].latency["total"].count


def _check_card(case: Case, size: tuple[int, int]) -> None:
    case.app.moment = case.state.view()
    shown = case.text("axes")
    for rows in axis_rows(case.app.moment.report).values():
        if rows[0].value is not None:
            assert rows[0].value_text in shown
    for name in ("p50", "p95", "p99"):
        assert name in case.text("latency")
    total = case.app.moment.latency["total"]
    assert f"{total.p95_ms:.2f}" in case.text("latency")
    for fact in ("ring", "late frames", "drift", "xruns"):
        assert fact in case.text("device")
    assert "quit" in case.text("keys")
    for panel in case.app.query(Panel):
        if panel.display:
            assert panel.region.right <= size[0]
            assert panel.region.bottom <= size[1]


def test_a_lost_device_is_shown_and_survived() -> None:
    async def script(case: Case, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "DEVICE LOST" in case.text("head"))
        assert "no callback for" in case.text("message")
        await until(pilot, lambda: "DEVICE LOST" not in case.text("head"))
        frames = len(case.state.view().frames)
        await until(pilot, lambda: len(case.state.view().frames) > frames + 3)
        await until(pilot, lambda: "1×" in case.text("device"))

    with talking(device=FakeSpec(vanish_after_s=1.0, away_s=1.0), watchdog_ms=300.0) as case:
        case.drive(script)


def test_a_conversation_that_breaks_is_shown_and_reported() -> None:
    async def script(case: Case, pilot: Pilot[None]) -> None:
        await until(pilot, lambda: "OVER" in case.text("head"))
        await until(pilot, lambda: "the model broke" in case.text("message"))
        await pilot.press("q")

    with talking(Breaks) as case:  # type: ignore[arg-type]
        case.drive(script)
        begun = time.monotonic()
        takes = case.control.finish()
        assert time.monotonic() - begun < 2.0
    assert takes[-1].report.latency["total"].count > 0


def test_quitting_a_conversation_that_hangs_is_quick() -> None:
    with talking() as case:
        time.sleep(0.5)
        process = case.live._process
        assert process.pid is not None
        os.kill(process.pid, signal.SIGSTOP)
        begun = time.monotonic()
        takes = case.control.finish()
        assert time.monotonic() - begun < 2.5
        assert not process.is_alive()
    assert isinstance(takes[-1], Take)


# The command


def _command(*options: str, cwd: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "duologue.cli", "talk", "--input", "fake:demo", "--agent", "echo", *options]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_json_lines_end_with_the_report_on_an_interrupt(tmp_path: Path) -> None:
    with _command("--json", "--record", "tapes", cwd=tmp_path) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(json.loads(line))
            if lines[-1]["type"] == "user_speech_started":
                process.send_signal(signal.SIGINT)
                break
        sent = time.monotonic()
        lines += [json.loads(line) for line in process.stdout]
        assert process.wait(20) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert time.monotonic() - sent < 6
    kinds = [line["type"] for line in lines]
    assert kinds[0] == "ready"
    assert kinds[-1] == "report"
    assert {"frame", "stats"} <= set(kinds)
    assert lines[-1]["report"] == json.loads((tmp_path / "tapes" / "report.json").read_text())
    files = {path.name for path in (tmp_path / "tapes").iterdir()}
    assert files == {"conversation.wav", "report.json", "report.html"}
    recorded = soundfile.info(tmp_path / "tapes" / "conversation.wav").frames
    assert recorded / 1920 >= lines[-1]["report"]["latency"]["total"]["count"] > 10
    assert lines[0]["record_folder"] == "tapes"


def test_a_picture_without_a_terminal_and_no_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--seconds", "1", "--screenshot", "card.svg", "--out", "out"]
    assert main(["talk", "--input", "fake:demo", "--agent", "echo", *options]) == 0
    assert "Written: out/report.html out/report.json" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.html", "report.json"]
    picture = (tmp_path / "card.svg").read_text().replace("&#160;", " ")
    assert "not recording" in picture
    assert "padding bias +0" in picture
    assert "font-face" not in picture
    assert "url(http" not in picture


BAD = {
    "no terminal": (["--agent", "echo"], "use --json"),
    "no time": (["--json", "--seconds", "0"], "--seconds 0.0 is out of range"),
    "no seed": (["--json", "--seed", "-1"], "--seed -1 is out of range"),
    "no such agent": (["--json", "--agent", "/nowhere"], "/nowhere"),
    "no such recording": (["--json", "--input", "fake:nothing.wav"], "no such recording"),
    "nowhere to record": (["--json", "--agent", "echo", "--record", "/proc/none"], "cannot record there"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_options_are_one_line(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options, message = BAD[case]
    device = [] if "--input" in options else ["--input", "fake"]
    assert main(["talk", *device, *options]) in (2, 3)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_loader_gives_every_agent_and_keeps_the_terminal_clean() -> None:
    code = (
        "from duologue.config import AgentConfig\n"
        "from duologue.talk.choice import AgentLoader, seed_for\n"
        "choice = AgentLoader(names=('echo', 'echo'), config=AgentConfig())()\n"
        "choice.session(seed=seed_for(1, 3, 2)).close()\n"
        "print(choice.note, flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
