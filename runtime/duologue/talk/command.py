"""The command `duologue talk`: its options, its two faces (card and JSON lines) and its files."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from duologue.errors import ConfigError, MissingExtraError, StreamError
from duologue.profile.command import write_whole

if TYPE_CHECKING:
    from duologue.audio.live import LiveSession
    from duologue.config import AgentConfig
    from duologue.talk.control import Take, TalkControl
    from duologue.talk.state import TalkState

_DEFAULT_OUT = Path("out/talk")
_DEFAULT_AGENT = "default agent"
_PICTURE_SIZE = (120, 38)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add = parser.add_argument
    add("--input", metavar="DEVICE", help="microphone, by index or name; fake, fake:demo, fake:FILE need no hardware")
    add("--output", metavar="DEVICE", help="loudspeaker, by index or name")
    add("--host-api", metavar="NAME", help="sound system to look in, by part of its name, for example ALSA or JACK")
    add(
        "--agent",
        metavar="NAME",
        action="append",
        help="a Moshi-format folder, hf://owner/name, or echo; repeat it to switch by key (default: small agent)",
    )
    add(
        "--adapter",
        metavar="DIR",
        action="append",
        default=[],
        help="a LoRA adapter of the agent, one more to switch to by key; repeatable",
    )
    add("--config", type=Path, metavar="FILE", help="agent settings, TOML or JSON")
    add("--seed", type=int, default=0, help="seed of the agent's choices (default: 0)")
    add("--seconds", type=float, metavar="N", help="end after N seconds (default: until q)")
    add("--aec", action="store_true", help="cancel the loudspeaker's echo; leave it off with headphones")
    add("--record", type=Path, metavar="DIR", help="record the conversation into DIR (default: not recorded)")
    add("--out", type=Path, metavar="DIR", help="where the report goes (default: DIR of --record, else out/talk)")
    add("--json", action="store_true", help="no card: print every event as a JSON line, the report last")
    add("--screenshot", type=Path, metavar="FILE.svg", help="save a picture of the card's last moment")


def run(options: argparse.Namespace) -> int:
    """Hold the conversation and save what came of it.

    Raises:
        DuologueError: A setting is wrong, the agent cannot be loaded or the device does not open.
    """
    from duologue.recorder import session_folder
    from duologue.talk.keep import discard_recording, missing_folders, partial_recording

    _check(options)
    config = _agent_config(options)
    if options.record is None and config.record is not None:
        options.record = session_folder(Path(config.record))
    out = options.out or options.record or _DEFAULT_OUT
    made = missing_folders(options.record) if options.record is not None else []
    recording = partial_recording(options.record) if options.record is not None else None
    try:
        live = _open(options, config, recording)
    except BaseException:
        if recording is not None:
            discard_recording(recording, made)
        raise
    with live:
        return _hold(options, config, live, out, recording)


def _check(options: argparse.Namespace) -> None:
    if options.seconds is not None and not 0 < options.seconds < 1e6:
        raise ConfigError(f"--seconds {options.seconds} is out of range; give a time above 0")
    if options.seed < 0:
        raise ConfigError(f"--seed {options.seed} is out of range; use 0 or more")
    if options.json:
        return
    if options.screenshot is not None and options.seconds is None and not sys.stdout.isatty():
        raise ConfigError("--screenshot without a terminal needs --seconds")
    if not sys.stdout.isatty() and options.screenshot is None:
        raise ConfigError("the card needs a terminal; use --json where the output goes to a file or a pipe")
    try:
        import textual  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("textual", "talk") from error


def _agent_config(options: argparse.Namespace) -> AgentConfig:
    from duologue.config import AgentConfig

    config = AgentConfig.load(options.config) if options.config is not None else AgentConfig()
    return replace(config, adapters=(*config.adapters, *options.adapter))


def _open(options: argparse.Namespace, config: AgentConfig, recording: Path | None) -> LiveSession:
    from duologue.audio.live import open_live
    from duologue.talk.choice import AgentLoader, seed_for
    from duologue.talk.device_choice import device_spec

    count = len(_choices(options, config))
    names = tuple(options.agent) if options.agent else (None,)
    device = device_spec(options.input, options.output, options.host_api)
    if not options.json:
        sys.stderr.write("loading the agent ...\n")
    return open_live(
        load_agent=AgentLoader(names=names, config=config),
        device=device,
        seed=seed_for(0, options.seed, count),
        record_path=str(recording) if recording is not None else None,
        cancels_echo=options.aec,
    )


def _choices(options: argparse.Namespace, config: AgentConfig) -> tuple[str, ...]:
    from duologue.talk.choice import choice_names

    return choice_names(options.agent or (_DEFAULT_AGENT,), config.adapters)


def _hold(
    options: argparse.Namespace, config: AgentConfig, live: LiveSession, out: Path, recording: Path | None
) -> int:
    from duologue.talk.control import TalkControl
    from duologue.talk.device_choice import device_spec
    from duologue.talk.keep import keep
    from duologue.talk.state import Setup, TalkState

    agents = _choices(options, config)
    setup = Setup(
        agents=agents,
        device=live.device,
        playout_ms=live.playout_ms,
        note=live.note,
        record_folder=str(options.record) if options.record is not None else None,
        has_echo_canceller=options.aec,
    )
    state = TalkState(setup, live.sampling)
    device = device_spec(options.input, options.output, options.host_api)
    control = TalkControl(live, state, agents=agents, device=device, seed=options.seed)
    if options.json:
        _stream(options, live, state, control, lambda takes: keep(takes, out, note=live.note, recording=recording))
    else:
        _show(options, state, control)
        takes = control.finish()
        _say_written(takes[-1], keep(takes, out, note=live.note, recording=recording))
    if ended := state.view().ended:
        raise StreamError(f"{ended}; the report of what came before is in {out}")
    return 0


def _stream(
    options: argparse.Namespace,
    live: LiveSession,
    state: TalkState,
    control: TalkControl,
    save: Callable[[list[Take]], list[Path]],
) -> None:
    from duologue.talk.jsonl import LineWriter, stream_lines

    writer = LineWriter()
    with _stop_signals() as stop:
        writer.write_setup(state.view().setup, options.seed)
        stream_lines(live, writer, stop, seconds=options.seconds)
        takes = control.finish()
        files = save(takes)
        writer.write_report(takes[-1].report, [str(path) for path in files])


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Turn interrupt and termination into an event, so that the report is saved whenever they come."""
    stop = threading.Event()
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(kind, lambda *_: stop.set()) for kind in kinds]
    try:
        yield stop
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)


def _show(options: argparse.Namespace, state: TalkState, control: TalkControl) -> None:
    from duologue.talk.screen import TalkApp

    app = TalkApp(state, control, seconds=options.seconds)
    is_terminal = sys.stdout.isatty()
    app.run(headless=not is_terminal, size=None if is_terminal else _PICTURE_SIZE)
    if options.screenshot is not None:
        write_whole(options.screenshot, app.picture)


def _say_written(last: Take, files: list[Path]) -> None:
    from duologue.metrics.card import MIN_WIDTH, render_card

    columns = shutil.get_terminal_size((100, 24)).columns
    is_coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    card = render_card(last.report, width=max(MIN_WIDTH, min(columns, 120)), color=is_coloured)
    sys.stdout.write(f"{card}\n\nWritten: {' '.join(str(path) for path in files)}\n")
