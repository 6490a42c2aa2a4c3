"""The frame and what one frame step returns; every other room of the house shares these."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

SAMPLE_RATE_HZ = 24_000
"""Sample rate of the codec and of every frame."""
FRAME_SAMPLES = 1920
"""Samples in one frame."""
FRAME_MS = 80
"""Duration of one frame and the time budget of one step."""
FRAME_RATE_HZ = 12.5
"""Frames per second."""

Pcm: TypeAlias = npt.NDArray[np.float32]
"""Samples, float32 in [-1, 1]."""
Codes: TypeAlias = npt.NDArray[np.int32]
"""Codebook indices, shape [K]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutput:
    """What the language model made of one frame.

    Attributes:
        text_token: Inner-monologue token of this frame (PAD and EPAD included).
        agent_codes: Codes of the agent's frame, shape [8], or None while the delays fill: on the first max_delay
            calls, a prompt's frames counted.
        logprobs: Log-probability of each token sampled in this call under the truncated, tempered distribution
            that sampled it, shape [1 + 8], text first.
    """

    text_token: int
    agent_codes: Codes | None
    logprobs: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameResult:
    """One 80 ms step of a conversation.

    Attributes:
        index: Frame number from the start of the session.
        pcm: The agent's frame, shape [1920].
        text: Piece of text the agent began in this frame, "" for padding.
        user_codes: Codes of the user's frame, shape [8].
        agent_codes: Codes of the agent's frame, shape [8], or None while the model's delays fill: on the first
            max_delay frames, and never after a prompt, whose frames count.
        stage_ms: Wall time per stage: "encode", "model", "decode", "detokenise", "metrics", "total".
        is_late: Whether "total" exceeded the 80 ms budget.
    """

    index: int
    pcm: Pcm
    text: str
    user_codes: Codes
    agent_codes: Codes | None
    stage_ms: dict[str, float] = field(default_factory=dict)
    is_late: bool = False
