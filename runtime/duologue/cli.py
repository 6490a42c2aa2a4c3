"""The `duologue` command: demo, run, talk, devices, metrics, profile, info.

Exit codes: 0 done, 2 a wrong argument or setting, 3 input that cannot be used (audio, weights), 4 the latency budget is
missed, 130 interrupted.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duologue.errors import AudioError, DuologueError, WeightsError
from duologue.profile import command as profile_command
from duologue.talk import command as talk_command
from duologue.talk import devices as devices_command

if TYPE_CHECKING:
    from duologue.metrics.types import InteractivityReport


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _build_parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int | None] = options.command
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a card in a terminal without UTF-8
    try:
        code = command(options) or 0
        sys.stdout.flush()
        return code
    except DuologueError as error:
        return _fail(str(error), 3 if isinstance(error, AudioError | WeightsError) else 2)
    except BrokenPipeError:
        # The reader of our output left; what follows at exit must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(f"the system refused: {error}", 2)
    except KeyboardInterrupt:
        return _fail("interrupted; nothing was written", 130)


def _fail(message: str, code: int) -> int:
    print(f"duologue: error: {message}", file=sys.stderr)
    return code


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="duologue", description="Full-duplex speech models on this machine.")
    commands = parser.add_subparsers(required=True, metavar="command")

    demo = commands.add_parser("demo", help="converse with the bundled recorded user; no device, no network")
    demo.add_argument("--user", type=Path, help="another recording of a user")
    _add_conversation_options(demo, out=Path("out/demo"))
    demo.set_defaults(command=_demo)

    run = commands.add_parser("run", help="converse with a recorded user")
    run.add_argument("user", type=Path, metavar="IN.wav", help="the user's voice (WAV, FLAC, Ogg, MP3; any rate)")
    _add_conversation_options(run, out=None)
    run.set_defaults(command=_run)

    talk = commands.add_parser("talk", help="converse through microphone and loudspeaker, measured while it runs")
    talk_command.add_options(talk)
    talk.set_defaults(command=talk_command.run)

    devices = commands.add_parser("devices", help="sound devices of this machine")
    devices_command.add_options(devices)
    devices.set_defaults(command=devices_command.run)

    metrics = commands.add_parser("metrics", help="measure a recorded conversation")
    metrics.add_argument("user", type=Path, metavar="USER.wav")
    metrics.add_argument("agent", type=Path, metavar="AGENT.wav", help="the same file with --agent-channel is fine")
    metrics.add_argument("--user-channel", type=int, help="channel of the user in USER.wav")
    metrics.add_argument("--agent-channel", type=int, help="channel of the agent in AGENT.wav")
    for side, default in (("user", "speech"), ("agent", "level")):
        metrics.add_argument(
            f"--{side}-detector",
            choices=("speech", "level"),
            default=default,
            help=f"speech activity of the {side}: Silero VAD, or level for clean generated audio (default: {default})",
        )
    metrics.add_argument("--out", type=Path, help="also write report.json and report.html into this folder")
    metrics.add_argument("--json", action="store_true", help="print the report as JSON")
    metrics.set_defaults(command=_metrics)

    profile = commands.add_parser("profile", help="latency on this machine: stages, engines, scheduler, sound device")
    profile_command.add_options(profile)
    profile.set_defaults(command=profile_command.run)

    info = commands.add_parser("info", help="versions, instruction set, engines, default agent")
    info.add_argument("--json", action="store_true", help="print as JSON")
    info.set_defaults(command=_info)
    return parser


def _add_conversation_options(parser: argparse.ArgumentParser, *, out: Path | None) -> None:
    parser.add_argument("--out", type=Path, default=out, required=out is None, metavar="DIR", help="where the files go")
    parser.add_argument(
        "--agent",
        metavar="NAME",
        help="a Moshi-format folder, hf://owner/name, or duologue-mini: the default agent before its alignment",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="agent settings, TOML or JSON")
    parser.add_argument("--engine", choices=("onnx", "torch"), help="step engine")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="where the model runs")
    parser.add_argument("--threads", type=int, help="cores that one frame may use")
    parser.add_argument("--channel", type=int, help="channel of the user, when the recording has several")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same conversation (default: 0)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument("--json", action="store_true", help="print the report as JSON instead of the card")


def _demo(options: argparse.Namespace) -> None:
    if options.user is None:
        options.user = Path(str(files("duologue") / "data" / "demo_user.flac"))
    _run(options)


def _run(options: argparse.Namespace) -> None:
    from duologue.agent import DuplexAgent
    from duologue.audio import AudioFile
    from duologue.conversation import converse

    config = _agent_config(options)
    with AudioFile(options.user, channel=options.channel) as user:
        agent = DuplexAgent.load(options.agent, config)
        show_progress = not options.quiet and sys.stderr.isatty()
        conversation = converse(agent, user, options.out, seed=options.seed, show_progress=show_progress)
    if options.json:
        print(conversation.report.to_json())
        return
    _print_card(conversation.report)
    print(f"\n{_cost(conversation.report)}")
    if agent.note:
        print(agent.note)
    print("\nWritten:", *(options.out / name for name in ("conversation.wav", "report.html", "report.json")))


def _cost(report: InteractivityReport) -> str:
    from duologue.profile.host import peak_mb
    from duologue.types import FRAME_MS

    return (
        f"A frame took {report.latency['total'].p95_ms:.1f} of {FRAME_MS:.0f} ms (p95); peak memory {peak_mb():.0f} MB."
    )


def _agent_config(options: argparse.Namespace) -> Any:
    from dataclasses import replace

    from duologue.config import AgentConfig

    config = AgentConfig.load(options.config) if options.config else AgentConfig()
    chosen = {name: getattr(options, name) for name in ("engine", "device", "threads")}
    return replace(config, **{name: value for name, value in chosen.items() if value is not None})


def _metrics(options: argparse.Namespace) -> None:
    from duologue.conversation import write_report
    from duologue.output_folder import output_folder

    if options.out is None:
        report = _measure(options)
    else:
        with output_folder(options.out) as folder:
            report = _measure(options)
            title = f"{options.user.name} and {options.agent.name}"
            write_report(folder, report, title=title, transcript=[], audio=None)
    if options.json:
        print(report.to_json())
    else:
        _print_card(report)


def _measure(options: argparse.Namespace) -> InteractivityReport:
    from duologue.audio import AudioFile
    from duologue.metrics import measure
    from duologue.types import SAMPLE_RATE_HZ

    with AudioFile(options.user, channel=options.user_channel) as user:
        user_pcm = user.read()
    with AudioFile(options.agent, channel=options.agent_channel) as agent:
        agent_pcm = agent.read()
    return measure(
        user_pcm,
        agent_pcm,
        SAMPLE_RATE_HZ,
        user_detector=options.user_detector,
        agent_detector=options.agent_detector,
        show_progress=not options.json and sys.stderr.isatty(),
    )


def _info(options: argparse.Namespace) -> None:
    from duologue import _native
    from duologue.agent import bundled_agent_facts, cache_folder
    from duologue.config import AgentConfig

    packages = ("duologue", "numpy", "onnxruntime", "onnxruntime-gpu", "torch", "sentencepiece", "huggingface-hub")
    facts = {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "isa": _native.isa(),
        "isa_available": list(_native.available_isas()),
        "packages": {name: _installed(name) for name in packages},
        "engines": {"onnx": _can_import("onnxruntime"), "torch": _can_import("torch")},
        "default_agent": bundled_agent_facts(),
        "cache": str(cache_folder(AgentConfig())),
    }
    if options.json:
        print(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        print(f"{name:14} {', '.join(shown) if isinstance(shown, list) else shown}")


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"


def _can_import(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None


def _print_card(report: Any) -> None:
    import shutil

    from duologue.metrics.card import MIN_WIDTH, render_card

    columns = shutil.get_terminal_size((100, 24)).columns
    is_coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print(render_card(report, width=max(MIN_WIDTH, min(columns, 120)), color=is_coloured))


if __name__ == "__main__":
    sys.exit(main())
