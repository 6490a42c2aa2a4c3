"""When the recorded human gave backchannels, in the form in which Full-Duplex-Bench v1 keeps it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from duologue.metrics.compat_fdb import JSD_BIN_S
from duologue.metrics.timeline import TICK_S
from duologue_align.evaluation.items import Item
from duologue_align.rewards.exchange import Exchange
from duologue_align.rewards.situation import Reply


def backchannel_truth(item: Item) -> npt.NDArray[np.float64] | None:
    """Return how the recorded agent's backchannels spread over the window; None where he gave none or is not known.

    Only onsets count, so that even a replay of him, whose segments cover several bins, is not at distance 0.

    Returns:
        Shares of the onsets in bins of 0.2 s, shape [bins], summing to 1.

    Source: `icc_gt_distribution.json` of Full-Duplex-Bench v1 (arXiv 2503.04721), a histogram per sample.
    """
    if not item.has_reference:
        return None
    situation = item.situation
    brief = Exchange(situation, Reply(activity=situation.reference)).agent_brief
    counts = np.zeros(int(np.ceil(situation.duration_s / JSD_BIN_S)))
    for onset, _ in brief:
        counts[int(onset * TICK_S / JSD_BIN_S)] += 1
    return counts / len(brief) if brief else None
