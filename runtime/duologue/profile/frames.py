"""Feed frames to a conversation, in real time or back to back, and keep when each began and what it cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import cycle, islice
from pathlib import Path
from typing import Literal

from duologue.audio.files import AudioFile
from duologue.profile.clock import Clock
from duologue.profile.timing import Timing, summarise
from duologue.types import FRAME_MS, FRAME_SAMPLES, FrameResult, Pcm

Pacing = Literal["real_time", "back_to_back"]
_FRAME_S = FRAME_MS / 1e3


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameTime:
    """One frame of a measured run.

    Attributes:
        index: Number in the run.
        due_s: When its samples were complete, by the run's clock.
        begun_s: When its step began.
        stage_ms: Wall time per stage, as `FrameResult.stage_ms`.
        is_late: Whether the reply was complete after the next frame was due.
    """

    index: int
    due_s: float
    begun_s: float
    stage_ms: dict[str, float]
    is_late: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProfile:
    """A run of frames.

    Attributes:
        pacing: "real_time": a frame every 80 ms, as a microphone gives them; "back_to_back": as fast as they go.
        frames: Number of frames.
        late_frames: Frames whose reply was complete after the next one was due.
        longest_late_run: Most late frames in a row.
        real_time_factor: Mean "total" over 80 ms.
        stages: Wall time per stage.
        wake_up: How late each step began after its frame was due; all 0 when back to back.
    """

    pacing: Pacing
    frames: int
    late_frames: int
    longest_late_run: int
    real_time_factor: float
    stages: dict[str, Timing]
    wake_up: Timing

    @property
    def late_share(self) -> float:
        """Share of late frames."""
        return self.late_frames / max(self.frames, 1)


def run_frames(
    step: Callable[[Pcm], FrameResult], frames: Iterable[Pcm], clock: Clock, *, pacing: Pacing
) -> list[FrameTime]:
    """Run frames through a conversation.

    Args:
        step: One frame of it.
        frames: What the user says.
        clock: Time; a frame that is overdue begins at once, as the audio loop does it.
        pacing: When a frame is due.
    """
    times: list[FrameTime] = []
    start_s = clock.now_s()
    for index, frame in enumerate(frames):
        due_s = start_s + index * _FRAME_S if pacing == "real_time" else clock.now_s()
        clock.sleep_until(due_s)
        begun_s = clock.now_s()
        result = step(frame)
        waited_ms = 1e3 * (begun_s - due_s)
        times.append(
            FrameTime(
                index=index,
                due_s=due_s,
                begun_s=begun_s,
                stage_ms=dict(result.stage_ms),
                is_late=waited_ms + result.stage_ms["total"] > FRAME_MS,
            )
        )
    return times


def profile_run(times: Sequence[FrameTime], *, pacing: Pacing) -> RunProfile:
    """Return the statistics of a run.

    Args:
        times: What `run_frames` returned.
        pacing: How it was paced.
    """
    stages = list(times[0].stage_ms) if times else []
    columns = {stage: summarise([time.stage_ms[stage] for time in times]) for stage in stages}
    return RunProfile(
        pacing=pacing,
        frames=len(times),
        late_frames=sum(time.is_late for time in times),
        longest_late_run=_longest_run([time.is_late for time in times]),
        real_time_factor=columns["total"].mean_ms / FRAME_MS if times else 0.0,
        stages=columns,
        wake_up=summarise([max(0.0, 1e3 * (time.begun_s - time.due_s)) for time in times]),
    )


def user_frames(count: int, recording: Path | None = None) -> list[Pcm]:
    """Return frames of a person speaking.

    Args:
        count: How many; a shorter recording is repeated.
        recording: Whose voice; None takes the bundled user.

    Raises:
        AudioError: If the recording cannot be read.
    """
    with AudioFile(recording or Path(str(files("duologue") / "data" / "demo_user.flac"))) as user:
        # Reading only what is needed keeps a short measurement quick.
        heard = list(islice(user.frames(FRAME_SAMPLES), count))
    return list(islice(cycle(heard), count))


def _longest_run(flags: Sequence[bool]) -> int:
    longest = current = 0
    for flag in flags:
        current = current + 1 if flag else 0
        longest = max(longest, current)
    return longest
