"""Human reference bands: what two people on the telephone do, by the same rules as the report.

Measured from who-speaks-when timelines of 2,438 Switchboard-1 conversations (259 h; MS98 corrected word alignments).
Times: quantiles over all events. Shares and rates: quantiles over conversations, either person taken as the agent;
rates only where a conversation has at least 5 opportunities. `benchmarks/human_bands.py` derives them anew.

How good the rule for backchannels is, against the 28,357 IPUs that people labelled as backchannels in 1,155 of these
conversations: 66 % of those it finds hold a labelled one, and it finds 65 % of the labelled ones (the rest are part of
longer utterances or stand in silence). People label 5.4 per minute of the other's speech, the rule's median is 3.9.
"""

from __future__ import annotations

from duologue.metrics.types import HumanBand


def _band(low: float, median: float, high: float) -> HumanBand:
    return HumanBand(low=low, median=median, high=high)


BANDS: dict[str, HumanBand] = {
    # How a side speaks.
    "speech_share": _band(0.235, 0.424, 0.611),
    "ipus_per_min": _band(8.757, 14.084, 19.525),
    "utterances_per_min": _band(2.928, 5.665, 9.024),
    "pauses_per_min": _band(2.383, 6.355, 12.205),
    "ipu_s": _band(0.296, 1.308, 5.029),
    "pause_s": _band(0.22, 0.48, 1.28),
    # How two sides share the floor.
    "overlap_share": _band(0.008, 0.032, 0.088),
    "silence_share": _band(0.109, 0.185, 0.288),
    "gaps_per_min": _band(3.79, 7.795, 13.346),
    "overlaps_per_min": _band(1.79, 5.778, 12.715),
    "gap_s": _band(0.03, 0.27, 1.1),
    "overlap_s": _band(0.03, 0.31, 0.91),
    "fto_s": _band(-0.52, 0.14, 0.92),
    # The axes, either person in the agent's place.
    "takeover_rate": _band(0.0, 0.115, 0.368),
    "answered_rate": _band(0.417, 0.714, 0.926),
    "missed_rate": _band(0.0, 0.133, 0.482),
    "talked_over_rate": _band(0.0, 0.083, 0.369),
    "brief_answer_rate": _band(0.0, 0.143, 0.454),
    "backchannels_per_speech_min": _band(0.877, 3.95, 8.211),
    "placement_s": _band(-1.4, 0.09, 0.78),
    "unplaced_rate": _band(0.0, 0.059, 0.273),
    "yield_rate": _band(0.5, 0.833, 1.0),
    "stop_latency_s": _band(0.03, 0.43, 1.69),
    "response_latency_s": _band(-0.59, 0.2, 1.1),
    "selectivity": _band(0.667, 0.956, 1.0),
}
"""5 %, 50 % and 95 % quantile by name of the measure."""
