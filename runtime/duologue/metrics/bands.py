"""Human reference bands of the report, by name of the measure."""

from __future__ import annotations

from duologue.metrics.types import HumanBand

BANDS: dict[str, HumanBand] = {}
"""5 %, 50 % and 95 % quantile of what two people on the telephone do."""
