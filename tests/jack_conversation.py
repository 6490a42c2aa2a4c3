"""A conversation over JACK, as the agent's side knew it and as the user recorded it."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from duologue.audio.driver import PortAudioSpec
from duologue.audio.files import AudioFile
from duologue.audio.live import open_live
from duologue.audio.wire import LiveStats
from duologue.metrics.meter import measure
from duologue.metrics.types import InteractivityReport
from duologue.types import FRAME_MS, FRAME_SAMPLES, SAMPLE_RATE_HZ
from virtual_jack import VirtualUser, find_delay

DEVICE = PortAudioSpec(input="vmic", output="vspk", host_api="JACK")
BLOCK_MS = 20.0
LEAD_S = 3
"""Silence before the user's first word, in which the measured conversation begins."""


def lead_in(recording: Path, seconds: int) -> np.ndarray:
    voice = np.resize(AudioFile(recording).read(SAMPLE_RATE_HZ), (seconds - LEAD_S) * SAMPLE_RATE_HZ)
    return np.concatenate([np.zeros(LEAD_S * SAMPLE_RATE_HZ, dtype=np.float32), voice])


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """What the agent's side knew of a conversation, and what the user recorded of it, both at 24 kHz."""

    said: np.ndarray
    heard: np.ndarray
    recorded: np.ndarray
    report: InteractivityReport
    stats: LiveStats
    playout_ms: float
    losses: int

    @property
    def begin(self) -> int:
        """Where in the agent's recording the user's begins; it began before."""
        first_words = self.said[LEAD_S * SAMPLE_RATE_HZ :][: 5 * SAMPLE_RATE_HZ]
        limit = (LEAD_S + 2) * SAMPLE_RATE_HZ
        return find_delay(first_words, self.recorded[: 10 * SAMPLE_RATE_HZ, 0], limit=limit) - LEAD_S * SAMPLE_RATE_HZ

    @property
    def way(self) -> int:
        """Samples from the user's mouth to his ear, but for the agent's own delay."""
        return round((FRAME_MS + self.playout_ms) * SAMPLE_RATE_HZ / 1e3)

    def own_report(self, detectors: dict[str, str]) -> InteractivityReport:
        """Measure the user's own recording: what he said and, earlier by the way, what he heard."""
        user, agent = self.said[-self.begin :], self.heard[self.way - self.begin :]
        return measure(user.copy(), agent.copy(), SAMPLE_RATE_HZ, **detectors)


def converse(user: VirtualUser, said: np.ndarray, folder: Path, **settings: object) -> Conversation:
    path = folder / "conversation.wav"
    heard: list[tuple[np.ndarray, int]] = []
    with open_live(device=DEVICE, record_path=str(path), **settings) as live:
        while live.stats().frames < 3:
            time.sleep(0.05)
        before = live.stats()
        listener = threading.Thread(target=lambda: heard.append(user.converse(len(said))))
        listener.start()
        # The user's recording runs already, so it holds all that is measured from here on.
        time.sleep(0.8)
        earlier = live.reset()
        listener.join()
        # Nothing more is heard, so that report and recording end together.
        user.close()
        stats, report = live.stats(), live.report()
    recorded, _ = soundfile.read(path, dtype="float32")
    begin = earlier * FRAME_SAMPLES
    flagged = sum(one.flagged for one in stats.counters.callbacks)
    concealed = stats.counters.concealed_events - before.counters.concealed_events
    moved_ms = sum(now - then for now, then in zip(_moved_ms(stats), _moved_ms(before), strict=True))
    return Conversation(
        said=said,
        heard=heard[0][0],
        recorded=recorded[begin : begin + report.latency["total"].count * FRAME_SAMPLES],
        report=report,
        stats=stats,
        playout_ms=stats.playout_ms,
        losses=flagged + heard[0][1] + concealed + math.ceil(moved_ms / BLOCK_MS),
    )


def _moved_ms(stats: LiveStats) -> tuple[float, float, float]:
    return stats.cut_agent_ms, stats.inserted_ms, stats.dropped_user_ms
