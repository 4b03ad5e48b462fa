"""Line charts and histograms as numbers for an SVG: the page gives them colours, so that they follow its theme."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 360, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 34  # margins, where the axes' texts stand


@dataclass(frozen=True)
class Line:
    """A line of a chart: ``points`` is SVG's ``x,y x,y``, ``dots`` are the single points of a short line."""

    name: str
    points: str
    dots: list[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """A chart of ``WIDTH`` x ``HEIGHT``: lines or bars, ticks with their places, a sentence for who cannot see it.

    Attributes:
        title: What is drawn.
        x_label: Of the horizontal axis.
        text: What a reader should see in it.
        lines: Drawn over each other.
        bars: Per series its rectangles: x, y, width, height.
        x_ticks, y_ticks: Place in pixels, text.
        level: A horizontal line to compare with, in pixels.
    """

    title: str
    x_label: str
    text: str
    lines: list[Line] = field(default_factory=list)
    bars: dict[str, list[tuple[float, float, float, float]]] = field(default_factory=dict)
    x_ticks: list[tuple[float, str]] = field(default_factory=list)
    y_ticks: list[tuple[float, str]] = field(default_factory=list)
    level: float | None = None


def line_chart(
    title: str,
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    x_label: str,
    text: str,
    y_range: tuple[float, float] | None = None,
    log_x: bool = False,
    level: float | None = None,
) -> Chart:
    """Lines over one another.

    Args:
        title, x_label, text: See ``Chart``.
        series: Name -> x, y. Values that are not finite are left out.
        y_range: Of the vertical axis; by default from the values.
        log_x: A logarithmic horizontal axis; all x are positive then.
        level: A horizontal line to compare with.
    """
    finite = {
        name: [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(x) and math.isfinite(y)]
        for name, (xs, ys) in series.items()
    }
    points = [point for of_name in finite.values() for point in of_name] or [(1.0, 0.0)]
    x_from, x_to = _range([x for x, _ in points])
    y_from, y_to = y_range or _range([y for _, y in points], padded=True)
    to_log = math.log if log_x else float
    x_of = _scale(to_log(x_from), to_log(x_to), _LEFT, WIDTH - _RIGHT)
    y_of = _scale(y_from, y_to, HEIGHT - _BOTTOM, _TOP)
    lines = []
    for name, of_name in finite.items():
        places = [(round(x_of(to_log(x)), 1), round(y_of(y), 1)) for x, y in of_name]
        lines.append(Line(name, " ".join(f"{x},{y}" for x, y in places), places if len(places) <= 12 else []))
    x_values = _powers(x_from, x_to) if log_x else _ticks(x_from, x_to, 4)
    return Chart(
        title,
        x_label,
        text,
        lines=lines,
        x_ticks=[(round(x_of(to_log(x)), 1), _number(x)) for x in x_values],
        y_ticks=[(round(y_of(y), 1), _number(y)) for y in _ticks(y_from, y_to, 4)],
        level=None if level is None else round(y_of(level), 1),
    )


def histogram(
    title: str, edges: Sequence[float], shares: Mapping[str, Sequence[float]], *, x_label: str, text: str
) -> Chart:
    """Shares per bin as bars, the series over one another; bins at the ends that all series leave empty are cut off."""
    used = [i for i in range(len(edges) - 1) if any(values[i] > 0 for values in shares.values())] or [0]
    first, last = used[0], used[-1] + 1
    x_of = _scale(edges[first], edges[last], _LEFT, WIDTH - _RIGHT)
    highest = max((max(values) for values in shares.values()), default=0) or 1.0
    y_of = _scale(0, highest, HEIGHT - _BOTTOM, _TOP)
    bars = {
        name: [
            (
                round(x_of(edges[i]), 1),
                round(y_of(values[i]), 1),
                round(x_of(edges[i + 1]) - x_of(edges[i]), 1),
                round(y_of(0) - y_of(values[i]), 1),
            )
            for i in range(first, last)
            if values[i] > 0
        ]
        for name, values in shares.items()
    }
    return Chart(
        title,
        x_label,
        text,
        bars=bars,
        x_ticks=[(round(x_of(x), 1), _number(x)) for x in _ticks(edges[first], edges[last], 4)],
        y_ticks=[(round(y_of(y), 1), f"{_number(100 * y)} %") for y in _ticks(0, highest, 3)],
    )


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: start + (end - start) * (value - low) / span


def _range(values: Sequence[float], padded: bool = False) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low == high:
        pad = 0.1 * (abs(high) or 1.0) if padded else 0.0
        return low - pad, high + pad
    pad = 0.06 * (high - low) if padded else 0.0
    return low - pad, high + pad


def _ticks(low: float, high: float, n: int) -> list[float]:
    """About ``n`` round numbers from ``low`` to ``high``."""
    if high <= low:
        return [low]
    rough = (high - low) / n
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _powers(low: float, high: float) -> list[float]:
    return [10.0**i for i in range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)]


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) >= 1e-9 else "0"
