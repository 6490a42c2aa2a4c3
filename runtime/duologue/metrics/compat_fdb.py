"""Full-Duplex-Bench v1's rules as its evaluation scripts state them, with what is wrong with them beside each.

The rules judge one recording per sample; `duologue.metrics.compat` cuts a conversation into such samples. Words with
times come from speech recognition there. Without words only the rules about durations apply, which is stated with each
function. Source: eval_pause_handling.py, eval_smooth_turn_taking.py, eval_user_interruption.py and eval_backchannel.py
of Full-Duplex-Bench v1 (arXiv 2503.04721).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Seconds = tuple[float, float]
"""Start and end of a word or a segment of speech, in seconds."""

SHORT_S, FEW_WORDS, BACKCHANNEL_WORDS, LONG_S = 1.0, 3, 2, 3.0
JSD_BIN_S = 0.2

TOR_CAVEAT = (
    "rule as published: two isolated mm-hm more than 1 s apart count as one takeover, and an agent that never stops "
    "talking scores best on turns and interruptions (latency clamped to 0)"
)
BACKCHANNEL_CAVEAT = "rule as published: only the last segment decides the TOR, unless one lasts more than 3 s"
JSD_CAVEAT = (
    "needs a ground-truth histogram; Jensen-Shannon distance (at most 0.83) but 1 without backchannels; it rewards "
    "many backchannels and hardly their timing"
)


def takes_turn(chunks: Sequence[Seconds], *, has_words: bool = False) -> bool:
    """Return whether the agent took the turn (TOR 1) in one sample.

    Args:
        chunks: The agent's words (or, without recognition, its segments of speech), in order.
        has_words: Whether the chunks are words. If so, at most 3 words within less than 1 s are no takeover; if not,
            less than 1 s of span is none, whatever the number of segments.
    """
    if not chunks:
        return False
    is_short = round(chunks[-1][1] - chunks[0][0], 6) < SHORT_S
    return not (is_short and (not has_words or len(chunks) <= FEW_WORDS))


def latency_s(chunks: Sequence[Seconds], from_s: float) -> float:
    """Return the published latency of a taken turn: from a given time to the first chunk, negative values set to 0."""
    return max(0.0, round(chunks[0][0] - from_s, 6))


@dataclass(frozen=True, slots=True, kw_only=True)
class BackchannelSample:
    """Outcome of the backchannel task on one recording.

    Attributes:
        takes_turn: TOR of the sample.
        kept: Segments that count as backchannels (published behaviour: those that fail the test count as well).
        per_s: Kept segments per second of recording.
    """

    takes_turn: bool
    kept: tuple[Seconds, ...]
    per_s: float


def backchannel_sample(
    segments: Sequence[Seconds], duration_s: float, words: Sequence[Seconds] | None = None
) -> BackchannelSample:
    """Judge one recording of the backchannel task.

    Args:
        segments: The agent's segments of speech.
        duration_s: Length of the recording.
        words: The agent's words with times; None applies the duration rule alone (under 1 s is a backchannel).
    """
    is_taken, kept = False, []
    for segment in segments:
        length_s = round(segment[1] - segment[0], 6)
        if length_s > LONG_S:
            is_taken = True
            break
        count = 0 if words is None else sum(w[0] < segment[1] and w[1] > segment[0] for w in words)
        is_taken = count > FEW_WORDS or not (length_s < SHORT_S and count <= BACKCHANNEL_WORDS)
        kept.append(segment)
    return BackchannelSample(takes_turn=is_taken, kept=tuple(kept), per_s=len(kept) / duration_s if duration_s else 0.0)


def jensen_shannon_distance(
    segments: Sequence[Seconds], duration_s: float, reference: npt.NDArray[np.float64]
) -> float:
    """Return the published "JSD" of backchannel timing: a distance, base e, 1.0 where there are no segments.

    Args:
        segments: The agent's backchannels.
        duration_s: Length of the recording.
        reference: Ground-truth histogram over bins of 0.2 s, any length, shape [n].
    """
    if not segments:
        return 1.0
    bins = int(np.ceil(duration_s / JSD_BIN_S))
    counts = np.zeros(bins)
    for start, end in segments:
        counts[int(start / JSD_BIN_S) : int(end / JSD_BIN_S) + 1] += 1
    old, new = np.linspace(0, 1, len(reference)), np.linspace(0, 1, bins)
    p, q = counts + 1e-10, np.interp(new, old, reference) + 1e-10
    p, q = p / p.sum(), q / q.sum()
    middle = (p + q) / 2
    divergence = (np.sum(p * np.log(p / middle)) + np.sum(q * np.log(q / middle))) / 2
    return float(np.sqrt(max(divergence, 0.0)))
