"""The learning rate over a run, as a pure function of how much of it is done."""

from __future__ import annotations

import math

from duologue_align.sft.settings import OptimiserSettings

_ONECYCLE_START = 1 / 25


def learning_rate(done: float, settings: OptimiserSettings) -> float:
    """Return the learning rate.

    Args:
        done: Share of the run that is done, in [0, 1].
        settings: Peak and shape. "onecycle" is PyTorch's OneCycleLR but for its end, which `final_share` states.
    """
    peak, up = settings.learning_rate, settings.warmup_share
    if done < up:
        risen = done / up
        if settings.schedule == "cosine":
            return peak * max(risen, 1e-3)
        return peak * _between(_ONECYCLE_START, 1.0, risen)
    fallen = min(1.0, (done - up) / max(1e-9, 1 - up))
    return peak * _between(1.0, settings.final_share, fallen)


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * share))
