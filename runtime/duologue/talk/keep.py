"""What a live conversation leaves behind: a report for each take, and its sound where it was recorded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import soundfile

from duologue.conversation import write_report
from duologue.errors import ConfigError
from duologue.output_folder import output_folder
from duologue.talk.control import Take
from duologue.types import FRAME_SAMPLES, SAMPLE_RATE_HZ

RECORDING = "conversation.wav"
"""Name of the recording: left the user, right the agent."""

_BLOCK = 10 * SAMPLE_RATE_HZ


def partial_recording(folder: Path) -> Path:
    """Make the folder and return where the sound goes while the conversation runs.

    Raises:
        ConfigError: If the folder cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "conversation.partial.wav"
        path.touch()
    except OSError as error:
        raise ConfigError(f"{folder}: cannot record there ({error.strerror}); give another folder") from error
    return path


def missing_folders(folder: Path) -> list[Path]:
    """Return the folders that `partial_recording` would make, innermost first."""
    return [one for one in (folder, *folder.parents) if not one.exists()]


def discard_recording(recording: Path, made: Sequence[Path]) -> None:
    """Take back what `partial_recording` did for a conversation that never began.

    Args:
        recording: What it returned.
        made: What `missing_folders` had returned before; a folder that holds anything else stays.
    """
    recording.unlink(missing_ok=True)
    with suppress(OSError):
        for folder in made:
            folder.rmdir()


def keep(takes: Sequence[Take], out: Path, *, note: str, recording: Path | None) -> list[Path]:
    """Write everything and return the files of the last take.

    The last take's files lie in `out`, those of takes before a reset in `out`/earlier-1 and so on.

    Args:
        takes: In order of time, at least one.
        out: Folder for the reports.
        note: What a reader should know about the agent.
        recording: What `partial_recording` returned, or None; it is replaced by one recording a take beside it.

    Raises:
        ConfigError: If a folder cannot be written.
    """
    ends: list[int | None] = [take.first_frame for take in takes[1:]]
    written: list[Path] = []
    for number, (take, end) in enumerate(zip(takes, [*ends, None], strict=True), start=1):
        below = "." if number == len(takes) else f"earlier-{number}"
        sound = None
        if recording is not None:
            sound = recording.parent / below / RECORDING
            _cut(recording, sound, take.first_frame, end)
        written = _keep_take(take, out / below, note=note, sound=sound)
    if recording is not None:
        recording.unlink()
    return written


def _keep_take(take: Take, out: Path, *, note: str, sound: Path | None) -> list[Path]:
    with output_folder(out) as folder:
        audio = os.path.relpath(sound, out) if sound is not None else None
        title = f"A live conversation with {take.agent}"
        write_report(folder, take.report, title=title, transcript=take.transcript, note=note, audio=audio)
    return [*([sound] if sound is not None else []), out / "report.html", out / "report.json"]


def _cut(source: Path, target: Path, first_frame: int, end_frame: int | None) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (
            soundfile.SoundFile(source) as whole,
            soundfile.SoundFile(target, "w", SAMPLE_RATE_HZ, 2, "PCM_16") as part,
        ):
            begin = min(first_frame * FRAME_SAMPLES, whole.frames)
            left = (whole.frames if end_frame is None else min(end_frame * FRAME_SAMPLES, whole.frames)) - begin
            whole.seek(begin)
            while left > 0:
                block = whole.read(min(_BLOCK, left), dtype="int16")
                part.write(block)
                left -= len(block)
    except soundfile.LibsndfileError as error:
        raise ConfigError(f"{source}: the recording broke off and cannot be read ({error.error_string})") from error
