"""How human a time is: 1 in the middle of the human distribution, falling to 0 in both tails.

A density would make the commonest time the best one, so that a machine that always waits 0.14 s beats every human. On
a plateau most humans earn all there is, and the tails still tell too early from too late.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from duologue.metrics.human_fto import human_fto_shares
from duologue_align.synth.timing import human_timing

_EARLIEST_S = -10.0


def plausibility(share: float, middle: float) -> float:
    """Return min(1, 2 min(F, 1 - F) / (1 - middle)), in [0, 1].

    Args:
        share: F, the share of human values below the one judged, in [0, 1].
        middle: Share of human values on the plateau, in [0, 1).
    """
    return min(1.0, 2.0 * max(0.0, min(share, 1.0 - share)) / (1.0 - middle))


def fto_plausibility(offset_s: float, middle: float) -> float:
    """Return how human a floor-transfer offset is, in [0, 1]: 1 from -0.36 to 0.65 s with a middle of 0.8.

    Source: floor-transfer offsets of 2,437 telephone conversations, `duologue.metrics.human_fto`.
    """
    share = human_fto_shares((_EARLIEST_S, offset_s))[0] if offset_s > _EARLIEST_S else 0.0
    return plausibility(share, middle)


def placement_plausibility(offset_s: float, middle: float) -> float:
    """Return how human a backchannel's offset from the other side's nearest IPU end is, in [0, 1].

    Source: 26,194 labelled backchannels, `duologue_align.synth.timing`.
    """
    quantiles, shares = _placement_grid()
    return plausibility(float(np.interp(offset_s, quantiles, shares, left=0.0, right=1.0)), middle)


def fade(value: float, full: float, none: float) -> float:
    """Return 1 up to `full`, 0 from `none` on, and a straight line between."""
    return float(np.interp(value, (full, none), (1.0, 0.0)))


@cache
def _placement_grid() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    shares = np.linspace(0.0, 1.0, 51)
    return np.array([human_timing().quantile("backchannel_offset_s", share) for share in shares]), shares
