"""An agent that says back what it hears, for measuring everything but the model."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from duologue.config import Sampling
from duologue.metrics.meter import InteractivityMeter
from duologue.session import Session
from duologue.types import FRAME_SAMPLES, Codes, Pcm, StepOutput


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoAgent:
    """Returns every user frame as the agent's frame, bit for bit.

    Attributes:
        step_ms: Time a step pretends to need.
        delay_frames: Frames it waits before it says back; with some, there are answers, overlaps and interruptions.
        note: As `DuplexAgent.note`.
    """

    step_ms: float = 0.0
    delay_frames: int = 0
    note: str = "This agent is an echo: it returns what it hears."

    def session(self, *, seed: int = 0) -> Session:
        """Open a conversation with the echo."""
        meter = InteractivityMeter(user_detector="level", agent_detector="level")
        codec, engine = _EchoCodec(self.delay_frames), _EchoEngine(self.step_ms)
        parts: dict[str, Any] = {"codec": codec, "engine": engine, "tokenizer": _NoText()}
        return Session(**parts, meter=meter)


class _EchoCodec:
    def __init__(self, delay_frames: int) -> None:
        self._waiting = deque([np.zeros(FRAME_SAMPLES, dtype=np.float32)] * delay_frames)

    def encode_step(self, frame: Pcm) -> Codes:
        self._waiting.append(frame.copy())
        return np.zeros(8, dtype=np.int32)

    def decode_step(self, codes: Codes) -> Pcm:
        return self._waiting.popleft()


class _EchoEngine:
    def __init__(self, step_ms: float) -> None:
        self.sampling = Sampling()
        self._step_s = step_ms / 1e3

    def step(self, user_codes: Codes) -> StepOutput:
        time.sleep(self._step_s)
        return StepOutput(text_token=0, agent_codes=user_codes, logprobs=np.zeros(9, dtype=np.float32))


class _NoText:
    def piece(self, token: int) -> str:
        return ""
