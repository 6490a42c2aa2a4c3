"""Human timing: draw pauses, offsets and latencies from the shipped quantile table `timing.json`."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from duologue.errors import ConfigError


class HumanTiming:
    """Quantile functions of human telephone talk; draws are by inversion, so each costs one uniform number.

    Source: `duologue_align.synth.derive_timing` states how each figure was measured.
    """

    def __init__(self, table: dict[str, object]) -> None:
        self._shares = np.asarray(table["quantile_shares"], dtype=np.float64)
        self._quantiles: dict[str, npt.NDArray[np.float64]] = {
            name: np.asarray(entry["quantiles"], dtype=np.float64)
            for name, entry in table.items()
            if isinstance(entry, dict)
        }

    def draw(
        self,
        name: str,
        rng: np.random.Generator,
        *,
        low: float = -np.inf,
        high: float = np.inf,
    ) -> float:
        """Draw one value, conditioned on [low, high].

        Args:
            name: Which distribution: "pause_s", "turn_fto_s", "ipu_s", "yield_s", "backchannel_offset_s", ...
            rng: Source of the uniform number.
            low: Smallest value wanted, in the unit of the name.
            high: Largest value wanted.

        Raises:
            ConfigError: No such distribution.
        """
        quantiles = self._grid(name)
        least, most = np.interp([low, high], quantiles, self._shares, left=0.0, right=1.0)
        value = float(np.interp(rng.uniform(least, most), self._shares, quantiles))
        return min(max(value, low), high)

    def quantile(self, name: str, share: float) -> float:
        """Return the quantile at `share` in [0, 1]."""
        return float(np.interp(share, self._shares, self._grid(name)))

    def _grid(self, name: str) -> npt.NDArray[np.float64]:
        try:
            return self._quantiles[name]
        except KeyError:
            raise ConfigError(f"no timing called {name!r}; there are: {', '.join(sorted(self._quantiles))}") from None


@cache
def human_timing() -> HumanTiming:
    """Return the shipped figures."""
    return HumanTiming(json.loads((files("duologue_align.synth") / "timing.json").read_text(encoding="utf-8")))
