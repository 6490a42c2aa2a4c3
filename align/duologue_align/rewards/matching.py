"""One-to-one matching of two sets of onsets."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Onsets = npt.NDArray[np.float64]


def count_matches(found_s: Onsets, truth_s: Onsets, tolerance_s: float) -> int:
    """Return the largest number of pairs no further apart than the tolerance, each onset used once.

    Args:
        found_s: Ascending onsets, shape [n].
        truth_s: Ascending onsets, shape [m].
        tolerance_s: Largest distance of a pair.
    """
    matches = i = j = 0
    while i < len(found_s) and j < len(truth_s):
        distance_s = found_s[i] - truth_s[j]
        if abs(distance_s) <= tolerance_s + 1e-9:
            matches, i, j = matches + 1, i + 1, j + 1
        elif distance_s < 0:
            i += 1
        else:
            j += 1
    return matches


def f1_score(found_s: Onsets, truth_s: Onsets, tolerance_s: float, *, false_positives: int = 0) -> float:
    """Return the F1 score in [0, 1]; 1 if there was nothing to find and nothing was found.

    Args:
        found_s: Ascending onsets, shape [n].
        truth_s: Ascending onsets, shape [m].
        tolerance_s: Largest distance of a pair.
        false_positives: Mistakes beyond the unmatched onsets.
    """
    total = len(found_s) + false_positives + len(truth_s)
    return 2.0 * count_matches(found_s, truth_s, tolerance_s) / total if total else 1.0
