"""The two charts of the report: floor-transfer offsets beside people, and how long a frame takes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from duologue.metrics import svg
from duologue.metrics.human_fto import human_fto_shares
from duologue.metrics.latency import LatencySummary
from duologue.metrics.types import Side
from duologue.types import FRAME_MS

BIN_S = 0.2
"""Width of a bin of the histogram."""

_FTO_RANGE_S = (-1.6, 3.0)
_PLOT_TOP, _PLOT_HEIGHT = 18, 130
_CDF_TOP, _CDF_HEIGHT = 18, 190


def render_fto(values_s: Sequence[float], side: Side) -> str:
    """Draw the histogram of floor-transfer offsets over the human one; what lies outside goes to the outermost bins.

    Args:
        values_s: Signed offsets in seconds.
        side: Who takes the floor.
    """
    edges = _edges()
    shares = _shares(values_s, edges)
    human = human_fto_shares(edges)
    top = 1.1 * max(*shares, *human)
    width = 100 / len(shares)
    bottom = _PLOT_TOP + _PLOT_HEIGHT
    bars = [
        svg.rect(
            i * width + 0.12 * width,
            0.76 * width,
            bottom - _PLOT_HEIGHT * share / top,
            _PLOT_HEIGHT * share / top,
            f"bar {side}",
            title=f"{_bin_text(edges, i)}: {100 * share:.0f} % here, {100 * human[i]:.1f} % between people",
        )
        for i, share in enumerate(shares)
        if share
    ]
    outline = svg.curve(list(_steps(human, top)), _PLOT_TOP, _PLOT_HEIGHT, "human")
    label = f"Histogram of {len(values_s)} floor transfers to the {side} over the human distribution"
    return svg.svg([*_fto_axis(bottom), *bars, outline], height=bottom + 18, label=label, css="chart")


def _edges() -> list[float]:
    low, high = _FTO_RANGE_S
    return [low + BIN_S * i for i in range(round((high - low) / BIN_S) + 1)]


def _shares(values_s: Sequence[float], edges: Sequence[float]) -> list[float]:
    shares = [0.0] * (len(edges) - 1)
    for value in values_s:
        # The small number keeps a value on an edge, such as 0.3, in the bin that begins there.
        index = math.floor((value - edges[0]) / BIN_S + 1e-6)
        shares[min(max(index, 0), len(shares) - 1)] += 1 / len(values_s)
    return shares


def _bin_text(edges: Sequence[float], index: int) -> str:
    if index == 0:
        return f"below {edges[1]:+.1f} s"
    if index == len(edges) - 2:
        return f"{edges[index]:+.1f} s and above"
    return f"{edges[index]:+.1f} to {edges[index + 1]:+.1f} s"


def _steps(shares: Sequence[float], top: float) -> Iterator[tuple[float, float]]:
    width = 100 / len(shares)
    for i, share in enumerate(shares):
        yield i * width, 100 - 100 * share / top
        yield (i + 1) * width, 100 - 100 * share / top


def _fto_axis(bottom: float) -> Iterator[str]:
    low, high = _FTO_RANGE_S
    yield svg.line(0, 100, bottom, bottom, "axis")
    for tick in range(math.ceil(low), math.floor(high) + 1):
        x = 100 * (tick - low) / (high - low)
        yield svg.line(x, x, _PLOT_TOP, bottom, "zero" if tick == 0 else "grid")
        end = tick == high
        yield svg.text(x, bottom + 14, f"{tick:+d} s" if tick else "0", "tick", anchor="end" if end else "middle")
    zero = 100 * -low / (high - low)
    yield svg.text(zero - 1.5, 11, "overlap", "tick", anchor="end")
    yield svg.text(zero + 1.5, 11, "gap", "tick")


def render_latency(stages: Mapping[str, LatencySummary]) -> str:
    """Draw the share of frames that each stage finished within a time, on a logarithmic axis with the frame budget."""
    low, high = _decades(stages)
    bottom = _CDF_TOP + _CDF_HEIGHT

    def x(time_ms: float) -> float:
        return 100 * (math.log10(max(time_ms, 10.0**low)) - low) / (high - low)

    shapes = [*_cdf_axis(low, high, bottom)]
    for index, (name, stage) in enumerate(stages.items()):
        points = [(x(time_ms), 100 - 100 * share) for time_ms, share in stage.cdf]
        if points:
            start = (points[0][0], 100.0)
            shapes.append(svg.curve([start, *points], _CDF_TOP, _CDF_HEIGHT, f"cdf {stage_class(name, index)}"))
    budget = x(FRAME_MS)
    shapes.append(svg.line(budget, budget, _CDF_TOP - 4, bottom, "budget"))
    is_right = budget > 80
    shapes.append(
        svg.text(
            budget + (-1 if is_right else 1),
            11,
            f"{FRAME_MS} ms budget",
            "tick budget-text",
            anchor="end" if is_right else "start",
        )
    )
    summary = "; ".join(
        f"{name} p50 {stage.p50_ms:.1f} ms, p99 {stage.p99_ms:.1f} ms" for name, stage in stages.items()
    )
    return svg.svg(shapes, height=bottom + 18, label=f"Share of frames finished within a time: {summary}", css="chart")


def stage_class(stage: str, index: int) -> str:
    """Return the line style of a stage: "total" stands out, the others take turns."""
    return "stage-total" if stage == "total" else f"stage-{index % 4}"


def _decades(stages: Mapping[str, LatencySummary]) -> tuple[int, float]:
    least = min((time_ms for stage in stages.values() for time_ms, _ in stage.cdf if time_ms > 0), default=0.1)
    most = max(*(stage.max_ms for stage in stages.values()), 2 * FRAME_MS)
    return max(math.floor(math.log10(least)), -3), math.log10(1.25 * most)


def _cdf_axis(low: int, high: float, bottom: float) -> Iterator[str]:
    for percent in (0, 50, 100):
        y = bottom - _CDF_HEIGHT * percent / 100
        yield svg.line(0, 100, y, y, "axis" if percent == 0 else "grid")
        if percent:
            yield svg.text(0, y - 3, f"{percent} % of frames" if percent == 100 else f"{percent} %", "tick")
    for exponent in range(low, math.floor(high) + 1):
        x = 100 * (exponent - low) / (high - low)
        anchor = "start" if exponent == low else "end" if x > 95 else "middle"
        yield svg.line(x, x, _CDF_TOP, bottom, "grid")
        yield svg.text(x, bottom + 14, f"{10.0**exponent:g} ms", "tick", anchor=anchor)
