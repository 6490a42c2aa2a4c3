"""How people time the passing of the floor: the floor-transfer offsets of telephone conversations between humans.

Source: measured from the Switchboard-1 MS98 corrected word alignments (2,437 conversations, 259 h, 189,187 floor
transfers, IPUs merged over silences up to 0.2 s, 10 ms frames).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

HUMAN_FTO_COUNT = 189_187
"""Floor transfers behind the quantiles."""

HUMAN_FTO_SHARES = (0.01, 0.02, *(percent / 100 for percent in range(5, 100, 5)), 0.98, 0.99)
"""Shares of the quantiles below, in [0, 1]: a 5 % grid and the tails."""

# fmt: off
HUMAN_FTO_QUANTILES_S = (
    -0.99, -0.79, -0.52, -0.36, -0.25, -0.17, -0.10, -0.04, 0.02, 0.06, 0.10, 0.14,
    0.17, 0.21, 0.25, 0.30, 0.35, 0.42, 0.51, 0.65, 0.92, 1.33, 1.68,
)
# fmt: on
"""Floor-transfer offsets in seconds at `HUMAN_FTO_SHARES`; negative is overlap."""

# The 1 % in each tail is spread to where a straight continuation of the outermost quantiles would end.
_SUPPORT_S = (-1.5, 2.5)


def human_fto_shares(edges_s: Sequence[float]) -> tuple[float, ...]:
    """Return the share of human floor transfers between neighbouring edges, uniform between two quantiles.

    Args:
        edges_s: Ascending edges in seconds, at least two.

    Returns:
        One share in [0, 1] for each of the `len(edges_s) - 1` bins.
    """
    times = (_SUPPORT_S[0], *HUMAN_FTO_QUANTILES_S, _SUPPORT_S[1])
    cumulative = np.interp(edges_s, times, (0.0, *HUMAN_FTO_SHARES, 1.0))
    return tuple(float(share) for share in np.diff(cumulative))
