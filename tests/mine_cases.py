"""Conversations whose timing is known exactly: spans of activity, and recordings that sound in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from duologue_align.segments.speech import Activity, TickSpans

Spans = Sequence[tuple[float, float]]

USER: Spans = ((1.0, 4.0), (4.5, 7.0), (14.0, 14.6), (20.0, 24.0), (24.6, 27.0), (40.0, 46.0), (50.0, 54.0))
AGENT: Spans = ((7.2, 16.0), (22.0, 22.5), (30.0, 33.0), (33.5, 37.0), (46.3, 51.0), (54.2, 58.0))
DURATION_S = 60.0
"""A minute that holds every set with the user as given: turn at 1 s, backchannel at 20 s, hold at 30 s, ..."""


def activity(user: Spans, agent: Spans, duration_s: float = DURATION_S) -> Activity:
    """Return activity with exactly these spans."""
    return Activity(ticks=round(duration_s * 100), user=_ticks(user), agent=_ticks(agent))


def sound(spans: Spans, duration_s: float, rate: int, *, seed: int) -> npt.NDArray[np.float32]:
    """Return noise at -20 dBFS in the spans and silence elsewhere."""
    pcm = np.zeros(round(duration_s * rate), dtype=np.float32)
    rng = np.random.default_rng(seed)
    for start_s, end_s in spans:
        begin, end = (min(round(time_s * rate), len(pcm)) for time_s in (start_s, end_s))
        pcm[begin:end] = rng.uniform(-0.17, 0.17, end - begin)
    return pcm


def write_stereo(
    path: Path, *, user: Spans = USER, agent: Spans = AGENT, rate: int = 16_000, duration_s: float = DURATION_S
) -> Path:
    """Write a recording, left the agent and right the user; the name says the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stereo = np.stack([sound(agent, duration_s, rate, seed=1), sound(user, duration_s, rate, seed=2)], axis=1)
    form = {".opus": ("OGG", "OPUS"), ".ogg": ("OGG", "VORBIS"), ".mp3": ("MP3", None), ".sph": ("NIST", "ULAW")}
    container, subtype = form.get(path.suffix, (path.suffix[1:].upper(), "PCM_16"))
    with soundfile.SoundFile(path, "w", rate, 2, format=container, subtype=subtype) as file:
        for begin in range(0, len(stereo), rate):  # libsndfile's Opus encoder overruns its stack on one long write
            file.write(stereo[begin : begin + rate])
    return path


def write_mono(path: Path, spans: Spans, *, rate: int = 16_000, duration_s: float = DURATION_S, seed: int = 3) -> Path:
    """Write one side."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound(spans, duration_s, rate, seed=seed), rate, subtype="PCM_16")
    return path


def _ticks(spans: Spans) -> TickSpans:
    return tuple((round(start_s * 100), round(end_s * 100)) for start_s, end_s in spans)
