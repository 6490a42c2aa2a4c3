"""The main job: let an agent converse with a recorded user and keep everything that came of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from duologue.agent import DuplexAgent
from duologue.audio.files import AudioFile
from duologue.errors import ConfigError
from duologue.metrics.html import render_html
from duologue.metrics.types import InteractivityReport
from duologue.output_folder import output_folder
from duologue.types import FRAME_RATE_HZ, FRAME_SAMPLES, SAMPLE_RATE_HZ, Pcm


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A finished conversation: the measured report and the agent's text with its times in seconds."""

    report: InteractivityReport
    transcript: list[tuple[float, str]]


def converse(
    agent: DuplexAgent, user: AudioFile, out: str | Path, *, seed: int = 0, show_progress: bool = False
) -> Conversation:
    """Run a recording through the agent, faster than real time, in constant memory.

    Writes conversation.wav (left: user, right: agent), report.json, report.html and transcript.txt into `out`;
    if anything fails, none of them.

    Raises:
        AudioError: If the recording breaks off or holds NaN.
        ConfigError: If `out` cannot be written.
    """
    total = int(np.ceil(user.duration_s * FRAME_RATE_HZ))
    frames = user.frames(FRAME_SAMPLES)
    if show_progress:
        frames = tqdm(frames, total=total, unit="frame", desc=f"{user.path.name}", leave=False)
    with output_folder(out) as folder:
        try:
            conversation = _run(agent, frames, folder / "conversation.wav", seed)
        except soundfile.SoundFileError as error:
            raise ConfigError(f"{out}: cannot write conversation.wav ({error}); is the disk full?") from error
        write_report(
            folder, conversation.report, title=user.path.name, transcript=conversation.transcript, note=agent.note
        )
        text = "".join(f"{at_s:8.2f} s {piece}\n" for at_s, piece in conversation.transcript)
        (folder / "transcript.txt").write_text(text, encoding="utf-8")
    return conversation


def write_report(
    folder: Path,
    report: InteractivityReport,
    *,
    title: str,
    transcript: list[tuple[float, str]],
    note: str = "",
    audio: str | None = "conversation.wav",
) -> None:
    """Write report.json and report.html."""
    (folder / "report.json").write_text(report.to_json() + "\n", encoding="utf-8")
    page = render_html(report, title=title, audio=audio, transcript=transcript, note=note)
    (folder / "report.html").write_text(page, encoding="utf-8")


def _run(agent: DuplexAgent, frames: Iterable[Pcm], wav: Path, seed: int) -> Conversation:
    with agent.session(seed=seed) as session, soundfile.SoundFile(wav, "w", SAMPLE_RATE_HZ, 2, "PCM_16") as recording:
        for frame in frames:
            result = session.step(frame)
            recording.write(np.stack([frame, result.pcm], axis=1))
        return Conversation(report=session.report(), transcript=session.transcript)
