"""Two clocks that differ by parts per million: how far apart they are, and how the loudspeaker follows."""

from __future__ import annotations

from collections import deque
from itertools import combinations

import numpy as np

_FILTER_S = 2.0
_NATURAL_RAD_S = 0.1
_MAX_SPEED_CHANGE = 5e-3
# Sound hardware keeps within 500 ppm; more is a loss upstream that must not be learnt.
_MAX_DRIFT = 1e-3


class LagController:
    """Holds the lag at its target by bending the speed of the agent's resampler.

    A critically damped second-order loop: a step of 200 ppm between the clocks moves the lag by at most 0.8 ms and is
    gone after a minute.
    """

    def __init__(self, target_s: float) -> None:
        """Start at the nominal speed.

        Args:
            target_s: Lag to hold.
        """
        self.target_s = target_s
        self._integral = 0.0
        self._error_s = 0.0

    @property
    def correction_ppm(self) -> float:
        """What the loop has learnt of the clocks: how much faster the loudspeaker's runs than the microphone's."""
        return -1e6 * self._integral

    def update(self, lag_s: float, elapsed_s: float) -> float:
        """Return the speed for the resampler, relative to nominal.

        Args:
            lag_s: The lag now.
            elapsed_s: Time since the last update.
        """
        self._error_s += min(1.0, elapsed_s / _FILTER_S) * (lag_s - self.target_s - self._error_s)
        integral = self._integral + _NATURAL_RAD_S**2 * self._error_s * elapsed_s
        change = 2 * _NATURAL_RAD_S * self._error_s + integral
        if abs(change) <= _MAX_SPEED_CHANGE and abs(integral) <= _MAX_DRIFT:
            self._integral = integral
        return 1.0 - float(np.clip(change, -_MAX_SPEED_CHANGE, _MAX_SPEED_CHANGE))

    def jump(self) -> None:
        """Forget the smoothed error after the lag was corrected at once; what was learnt of the clocks stays."""
        self._error_s = 0.0


class RateMeter:
    """Measures a direction's true sample rate from stamps, by the median slope (Theil-Sen) of the last two minutes."""

    _POINTS = 120

    def __init__(self, nominal_hz: float) -> None:
        """Start with no points."""
        self._nominal_hz = nominal_hz
        self._points: deque[tuple[float, int]] = deque(maxlen=self._POINTS)

    def add(self, time_s: float, samples: int) -> None:
        """Note that `samples` have passed; at most one point a second is kept."""
        if not self._points or time_s - self._points[-1][0] >= 1.0:
            self._points.append((time_s, samples))

    @property
    def span_s(self) -> float:
        """Time covered by the points."""
        return self._points[-1][0] - self._points[0][0] if self._points else 0.0

    def ppm(self) -> float | None:
        """Return the deviation from the nominal rate, or None before 10 s."""
        if self.span_s < 10.0:
            return None
        slopes = [(n1 - n0) / (t1 - t0) for (t0, n0), (t1, n1) in combinations(self._points, 2) if t1 - t0 >= 5.0]
        return float(1e6 * (np.median(slopes) / self._nominal_hz - 1))
