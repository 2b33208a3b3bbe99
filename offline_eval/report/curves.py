"""Figures with two axes: curves with their bands, and histograms beside marked values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import isfinite
from typing import Any
from xml.etree.ElementTree import Element

from offline_eval.report.axes import (
    LEFT,
    RIGHT,
    Scale,
    bound,
    drawing,
    horizontal_axis,
    label,
    legend,
    line,
    vertical_axis,
)
from offline_eval.report.markup import tag
from offline_eval.report.reading import Reading
from offline_eval.stats import Interval

_NAMES, _TITLE, _PLOT = 22.0, 22.0, 170.0
"""Heights: of the legend, of the title of the vertical axis, of the plot area."""


@dataclass(frozen=True)
class Line:
    """A curve with its band.

    Attributes:
        name: in the legend.
        x: (num_points,) places.
        y: (num_points,) values.
        low: (num_points,) lower ends of the intervals, -inf where unknown.
        high: (num_points,) upper ends.
        role: class of its colour.
        dot: radius of the dot at each point; 0 for none.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    role: str = "main"
    dot: float = 0.0

    @classmethod
    def of(cls, name: str, curve: dict[str, Any], role: str = "main") -> Line:
        """From the object of `Curve.to_json`; points without a value are left out."""
        columns = (curve[key] for key in ("positions", "values", "low", "high"))
        points = [point for point in zip(*columns, strict=True) if point[0] is not None and point[1] is not None]
        return cls(
            name,
            [float(point[0]) for point in points],
            [float(point[1]) for point in points],
            [bound(point[2], -1) for point in points],
            [bound(point[3], 1) for point in points],
            role,
        )

    def end_text(self, end: int, signed: bool = False) -> str:
        """The first value (0) or the last (-1), with its interval where that is known on both sides."""
        low, high = self.low[end], self.high[end]
        known = Interval(low, high, "") if isfinite(low) and isfinite(high) else None
        return Reading(self.y[end], known).text(signed)


@dataclass(frozen=True)
class Histogram:
    """Shares of a set of values in bins.

    Attributes:
        name: in the legend.
        edges: (num_bins + 1,) where the bins begin and end.
        counts: (num_bins,) values in each.
        role: class of its colour.
    """

    name: str
    edges: Sequence[float]
    counts: Sequence[float]
    role: str = "main"

    @property
    def shares(self) -> list[float]:
        """(num_bins,) parts of the whole."""
        return [count / (sum(self.counts) or 1.0) for count in self.counts]


@dataclass(frozen=True)
class Marker:
    """A value marked on a horizontal axis, with its name in the list above."""

    name: str
    reading: Reading
    role: str = "main"


def curve_figure(
    lines: Sequence[Line],
    title: str,
    description: str,
    x_axis: str,
    y_axis: str,
    *,
    include: Iterable[float] = (),
    reference: float | None = None,
    diagonal: bool = False,
    points: Sequence[tuple[float, float]] = (),
    markers: Sequence[Marker] = (),
    along: Iterable[float] = (),
) -> Element:
    """Curves with their bands.

    Args:
        lines: in the order of the legend.
        title: for those who cannot see the figure.
        description: what it says, for them.
        x_axis: what the curves run over, with its unit.
        y_axis: what they show, with its unit.
        include: values of y that must be in sight.
        reference: a value of y where a line is drawn across.
        diagonal: whether to draw where y equals x.
        points: (x, y) of single values, drawn behind the curves.
        markers: values of x where a line stands, named in the legend.
        along: values of x that must be in sight, for figures that share an axis.
    """
    heights = [value for curve in lines for value in curve.y] + [value for _, value in points]
    # A band may be far wider than the curve: it is shown up to three times the curve's own span.
    span = (max(heights) - min(heights)) or max(map(abs, heights)) or 1.0
    reach = (min(heights) - 1.5 * span, max(heights) + 1.5 * span)
    bands = [min(max(end, reach[0]), reach[1]) for curve in lines for end in (*curve.low, *curve.high) if isfinite(end)]
    places = [*(value for curve in lines for value in curve.x), *(value for value, _ in points), *along]
    fixed = [*include, *([] if reference is None else [reference])]
    names = [(curve.name, curve.role) for curve in lines] if len(lines) > 1 else []
    names += [(marker.name, marker.role) for marker in markers]
    top = _TITLE + (_NAMES if names else 0.0)
    bottom = top + _PLOT
    x = Scale.over(places, LEFT, RIGHT, margin=0.02)
    y = Scale.over([*heights, *bands], bottom, top, include=fixed)
    marks = [*horizontal_axis(x, top, bottom, x_axis), *vertical_axis(y, LEFT, RIGHT, y_axis)]
    if diagonal:
        low, high = max(x.low, y.low), min(x.high, y.high)
        if low < high:
            marks.append(line(x(low), y(low), x(high), y(high), "reference"))
    if reference is not None:
        marks.append(line(LEFT, y(reference), RIGHT, y(reference), "reference"))
    marks += [tag("circle", cx=x(place), cy=y(value), r=2.0, class_="dot plain") for place, value in points]
    for marker in markers:
        marks.append(line(x(marker.reading.value), top, x(marker.reading.value), bottom, f"stroke {marker.role}"))
    for curve in lines:
        marks += [_band(curve, run, x, y) for run in _known_bands(curve)]
    marks += [tag("polyline", points=_points(curve.x, curve.y, x, y), class_=f"stroke {curve.role}") for curve in lines]
    marks += [
        tag("circle", cx=x(place), cy=y(value), r=curve.dot, class_=f"mark {curve.role}")
        for curve in lines
        if curve.dot
        for place, value in zip(curve.x, curve.y, strict=True)
    ]
    return drawing(bottom + 38, title, description, [*marks, *legend(names, 14.0, 2.0)])


def histogram_figure(
    histograms: Sequence[Histogram],
    markers: Sequence[Marker],
    title: str,
    description: str,
    x_axis: str,
    y_axis: str,
) -> Element:
    """Histograms on one another, with marked values that a list above names."""
    rows = [marker for marker in markers if marker.reading.known]
    names = [(histogram.name, histogram.role) for histogram in histograms] if len(histograms) > 1 else []
    listed = [(f"{marker.name} {marker.reading.text()}", marker.role) for marker in rows]
    head = 16.0 * (len(listed) + bool(names)) + _TITLE
    top = head + 12.0 + 5.0 * len(rows)
    bottom = top + 140.0
    edges = [edge for histogram in histograms for edge in histogram.edges]
    x = Scale.over([marker.reading.value for marker in rows], LEFT, RIGHT, include=edges)
    y = Scale.over([share for histogram in histograms for share in histogram.shares], bottom, top, include=[0.0])
    marks = legend(names, 12.0, 2.0)
    for place, entry in enumerate(listed):
        marks += legend([entry], 12.0 + 16.0 * (place + bool(names)), 2.0)
    marks += [*horizontal_axis(x, top, bottom, x_axis), *vertical_axis(y, LEFT, RIGHT, "")]
    marks.append(label(2, head - 6.0, y_axis, "axis"))
    marks += [_stairs(histogram, x, y) for histogram in histograms]
    for place, marker in enumerate(rows):
        marks += _marked(marker, x, head + 10.0 + 5.0 * place, bottom)
    return drawing(bottom + 38, title, description, marks)


def _marked(marker: Marker, x: Scale, top: float, bottom: float) -> list[Element]:
    """A line down to the axis, its interval across its upper end."""
    place, reading = x(marker.reading.value), marker.reading
    marks = [line(place, top, place, bottom, f"stroke {marker.role}")]
    if reading.interval:
        marks.append(line(x(reading.low), top, x(reading.high), top, f"range {marker.role}"))
    return [tag("g", tag("title", f"{marker.name} {reading.text()}"), *marks)]


def _stairs(histogram: Histogram, x: Scale, y: Scale) -> Element:
    path = [f"M{x(histogram.edges[0]):.1f},{y(0.0):.1f}"]
    for share, left, right in zip(histogram.shares, histogram.edges, histogram.edges[1:], strict=False):
        path.append(f"L{x(left):.1f},{y(share):.1f}L{x(right):.1f},{y(share):.1f}")
    path.append(f"L{x(histogram.edges[-1]):.1f},{y(0.0):.1f}Z")
    return tag("path", tag("title", histogram.name), d="".join(path), class_=f"area {histogram.role}")


def _known_bands(curve: Line) -> Iterator[list[int]]:
    """Neighbouring points whose interval is known on both sides."""
    known = [isfinite(low) and isfinite(high) for low, high in zip(curve.low, curve.high, strict=True)]
    for is_known, run in groupby(range(len(known)), key=known.__getitem__):
        if is_known:
            yield list(run)


def _band(curve: Line, run: Sequence[int], x: Scale, y: Scale) -> Element:
    upper = _points([curve.x[i] for i in run], [curve.high[i] for i in run], x, y)
    lower = _points([curve.x[i] for i in reversed(run)], [curve.low[i] for i in reversed(run)], x, y)
    return tag("polygon", points=f"{upper} {lower}", class_=f"band {curve.role}")


def _points(places: Sequence[float], values: Sequence[float], x: Scale, y: Scale) -> str:
    return " ".join(f"{x(place):.1f},{y(value):.1f}" for place, value in zip(places, values, strict=True))
