"""Hand-drawn SVG: the few shapes that the pictures of the report are made of.

Horizontal positions are percentages and vertical ones pixels, so a picture stretches to any width while its text, marks
and strokes keep their size.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from duologue.metrics.rows import Row

_RANGE_HEIGHT = 18


def svg(content: Iterable[str], *, height: float, label: str, css: str = "") -> str:
    """Wrap shapes into a picture as wide as its surroundings.

    Args:
        content: The shapes.
        height: Height in pixels.
        label: What the picture shows, for those who do not see it.
        css: Class.
    """
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="{css}" width="100%" height="{height:g}" role="img" '
        f'aria-label="{escape(label)}">{"".join(content)}</svg>'
    )


def rect(x: float, width: float, y: float, height: float, css: str, *, title: str = "", radius: float = 0) -> str:
    """Draw a rectangle: x and width in percent, y and height in pixels."""
    corner = f' rx="{radius:g}"' if radius else ""
    shape = f'<rect class="{css}" x="{x:.3f}%" width="{max(width, 0):.3f}%" y="{y:g}" height="{height:g}"{corner}'
    return f"{shape}>{_title(title)}</rect>" if title else f"{shape}/>"


def line(x1: float, x2: float, y1: float, y2: float, css: str) -> str:
    """Draw a line: x in percent, y in pixels."""
    return f'<line class="{css}" x1="{x1:.3f}%" x2="{x2:.3f}%" y1="{y1:g}" y2="{y2:g}"/>'


def text(x: float, y: float, content: str, css: str = "", *, anchor: str = "start") -> str:
    """Write text: x in percent, y (its baseline) in pixels, anchor "start", "middle" or "end"."""
    return f'<text class="{css}" x="{x:.3f}%" y="{y:g}" text-anchor="{anchor}">{escape(content)}</text>'


def sign(x: float, y: float, path: str, css: str, *, title: str = "") -> str:
    """Draw a small path around a point: x in percent, y in pixels."""
    shape = f'<path class="{css}" d="{path}">{_title(title)}</path>' if title else f'<path class="{css}" d="{path}"/>'
    return f'<svg x="{x:.3f}%" y="{y:g}" width="1" height="1" overflow="visible">{shape}</svg>'


def curve(points: Sequence[tuple[float, float]], y: float, height: float, css: str) -> str:
    """Draw a line through points in percent of the picture's width and of `height`, whose top lies at `y` pixels."""
    path = "M" + "L".join(f"{px:.2f} {py:.2f}" for px, py in points)
    box = f'<svg x="0" y="{y:g}" width="100%" height="{height:g}" viewBox="0 0 100 100" preserveAspectRatio="none">'
    return f'{box}<path class="{css}" d="{path}" fill="none" vector-effect="non-scaling-stroke"/></svg>'


def range_bar(row: Row) -> str:
    """Draw where a value lies beside the middle 90 % of people; "" if there are no people to lie beside."""
    band = row.band
    if band is None:
        return ""
    low, high = _extent(row)
    middle = _RANGE_HEIGHT / 2

    def x(value: float) -> float:
        return 3 + 94 * (value - low) / (high - low)

    shapes = [
        line(0, 100, middle, middle, "axis"),
        rect(x(band.low), x(band.high) - x(band.low), middle - 4, 8, "band", radius=2),
        line(x(band.median), x(band.median), middle - 6, middle + 6, "median"),
    ]
    if low <= 0 <= high and row.is_signed:
        shapes.insert(1, line(x(0), x(0), middle - 3, middle + 3, "axis"))
    label = f"people: {row.band_text}"
    if row.value is not None:
        css = f"dot {row.verdict}{' few' if row.is_few else ''}"
        shapes.append(sign(x(row.value), middle, "M-4.5 0A4.5 4.5 0 1 0 4.5 0A4.5 4.5 0 1 0-4.5 0Z", css))
        label = f"{row.label} {row.value_text}, {row.verdict} of {label}"
    return svg(shapes, height=_RANGE_HEIGHT, label=label, css="range")


def _extent(row: Row) -> tuple[float, float]:
    assert row.band is not None
    if row.unit in ("share", "rate") and row.band.high > 0.5:
        return 0.0, 1.0
    span = max(row.band.high - row.band.low, 1e-6)
    values = (row.band.low, row.band.high) if row.value is None else (row.band.low, row.band.high, row.value)
    low, high = min(values) - 0.3 * span, max(values) + 0.3 * span
    return (low if row.is_signed else max(low, 0.0)), high


def _title(content: str) -> str:
    return f"<title>{escape(content)}</title>"
