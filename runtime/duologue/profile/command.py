"""The command `duologue profile`: its options, its files and its exit code."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from duologue.errors import ConfigError
from duologue.replacing import replace_file

if TYPE_CHECKING:
    from duologue.profile.audio_facts import AudioProbe
    from duologue.profile.measure import Profile

EXIT_BUDGET_MISSED = 4
"""Exit code when the judged engine's p95 is over 80 ms, or more than 1 % of its frames are late."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options.

    Args:
        parser: Of the command.
    """
    add = parser.add_argument
    add("--agent", metavar="NAME", help="a Moshi-format folder or hf://owner/name (default: the bundled one)")
    add("--engine", choices=("onnx", "torch"), help="judge this engine and measure no other")
    add("--dtype", choices=("float32", "bfloat16"), help="judge this precision and measure no other")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="where the model runs (default: cpu)")
    add("--threads", type=int, default=1, help="cores that one frame may use (default: 1)")
    add("--seconds", type=float, default=10.0, metavar="N", help="length of each run in real time (default: 10)")
    sound = parser.add_mutually_exclusive_group()
    sound.add_argument("--no-audio", action="store_true", help="leave the sound device alone")
    sound.add_argument("--loopback", action="store_true", help="a simulated sound device instead of a real one")
    add("--input", metavar="DEVICE", help="microphone, by index or name; must hear the loudspeaker's clicks")
    add("--output", metavar="DEVICE", help="loudspeaker, by index or name; plays clicks")
    add("--host-api", metavar="NAME", help="sound system to look in, by part of its name, for example ALSA or JACK")
    add("--aec", action="store_true", help="cancel echo, as `duologue talk --aec`, and measure what that costs")
    add("--out", type=Path, metavar="DIR", help="write profile.json, trace.json, profile.prom and profile.txt there")
    add("--trace", type=Path, metavar="FILE", help="write a trace for ui.perfetto.dev or chrome://tracing")
    add("--prometheus", type=Path, metavar="FILE", help="write Prometheus text")
    add("--json", action="store_true", help="print the report as JSON instead of the table")


def run(options: argparse.Namespace) -> int:
    """Measure as the options say, print and write the result, return the exit code.

    Args:
        options: As `add_options` defines them.

    Raises:
        DuologueError: A setting is wrong or the agent cannot be loaded.
    """
    from duologue.config import AgentConfig
    from duologue.profile.clock import MonotonicClock
    from duologue.profile.measure import ProfileSettings, measure_profile
    from duologue.profile.table import render_table

    for path in (options.trace, options.prometheus):
        _check_target(path)
    chosen = {name: getattr(options, name) for name in ("engine", "dtype") if getattr(options, name) is not None}
    if options.device == "cuda":
        # The engine with CUDA graphs; onnxruntime-gpu is measured beside it where it is installed.
        chosen.setdefault("engine", "torch")
    if options.dtype == "bfloat16" and chosen.setdefault("engine", "torch") != "torch":
        raise ConfigError("--dtype bfloat16 is not available with --engine onnx; use --engine torch")
    settings = ProfileSettings(
        agent=options.agent,
        config=replace(AgentConfig(device=options.device, threads=options.threads), **chosen),
        is_engine_chosen=options.engine is not None,
        is_dtype_chosen=options.dtype is not None,
        seconds=options.seconds,
        audio=_audio_probe(options),
    )
    profile = measure_profile(settings, MonotonicClock(), _say)
    sys.stdout.write((profile.report.to_json() if options.json else render_table(profile.report)) + "\n")
    _write_files(options, profile)
    return 0 if profile.report.verdict.is_met else EXIT_BUDGET_MISSED


def _audio_probe(options: argparse.Namespace) -> AudioProbe | None:
    from duologue.profile.device import DeviceProbe

    if options.no_audio:
        return None
    if options.loopback:
        from duologue.profile.loopback import LoopbackSpec

        return DeviceProbe(spec=LoopbackSpec(), cancels_echo=options.aec)
    from duologue.audio.driver import PortAudioSpec

    spec = PortAudioSpec(
        input=_index_or_name(options.input), output=_index_or_name(options.output), host_api=options.host_api
    )
    return DeviceProbe(spec=spec, cancels_echo=options.aec)


def _index_or_name(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isdigit() else text


def _say(what: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"measuring: {what}\n")


def _write_files(options: argparse.Namespace, profile: Profile) -> None:
    from duologue.output_folder import output_folder
    from duologue.profile.prometheus import render_prometheus
    from duologue.profile.table import render_table
    from duologue.profile.trace import render_trace

    trace, metrics = render_trace(profile.engines, profile.report.audio), render_prometheus(profile.report)
    if options.out is not None:
        texts = {"profile.json": profile.report.to_json() + "\n", "trace.json": trace, "profile.prom": metrics}
        texts["profile.txt"] = render_table(profile.report) + "\n"
        with output_folder(options.out) as folder:
            for name, text in texts.items():
                (folder / name).write_text(text, encoding="utf-8")
    for path, text in ((options.trace, trace), (options.prometheus, metrics)):
        if path is not None:
            write_whole(path, text)


def _check_target(path: Path | None) -> None:
    if path is None:
        return
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; give the name of a file")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"{path.absolute().parent}: no such folder; make it first")


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a reader meets the old one or the new one, never a part.

    Args:
        path: The file.
        text: What it is to hold.

    Raises:
        ConfigError: The file cannot be written.
    """
    try:
        replace_file(path, text.encode())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}); give another file") from error
