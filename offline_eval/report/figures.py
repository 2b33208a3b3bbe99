"""Figures of rows: one label, one number and one mark each, under one another, so that they fit any screen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from xml.etree.ElementTree import Element

from offline_eval.report.axes import LINE_HEIGHT, WIDTH, Scale, drawing, horizontal_axis, label, line, spread
from offline_eval.report.markup import tag
from offline_eval.report.reading import Reading

_START, _END = 10.0, WIDTH - 10.0


@dataclass(frozen=True)
class Row:
    """One row of a figure.

    Attributes:
        label: at its left.
        reading: the number with its interval.
        role: class of its colour: main, control, second or plain.
        points: single values behind the number, such as one return an episode.
        aside: at its right; the number with its interval where it is empty.
    """

    label: str
    reading: Reading
    role: str = "main"
    points: Sequence[float] = ()
    aside: str = ""


Draw = Callable[[Row, Scale, float], tuple[float, list[Element]]]
"""From a row, the scale and the top to the height taken and the marks."""


def strip(row: Row, x: Scale, top: float) -> tuple[float, list[Element]]:
    """Every single value as a dot; under them the mean with its interval."""
    lanes = 4
    dots = [
        tag("circle", cx=x(value), cy=top + 5 + 4.5 * ((index * 3) % lanes), r=3.0, class_=f"dot {row.role}")
        for index, value in enumerate(row.points)
        if isfinite(value)
    ]
    height = 5 + 4.5 * lanes if dots else 0.0
    taken, marks = point(row, x, top + height)
    return height + taken, [*dots, *marks]


def point(row: Row, x: Scale, top: float) -> tuple[float, list[Element]]:
    """The number as a disc, a control's as a square, on its interval."""
    y, value = top + 8, row.reading.value
    if not isfinite(value):
        return 16.0, []
    marks = spread(x, row.reading.low, row.reading.high, y, row.role) if row.reading.interval else []
    return 16.0, [*marks, _mark(x(value), y, row.role)]


def bar(row: Row, x: Scale, top: float) -> tuple[float, list[Element]]:
    """The number as a bar from 0, with its interval."""
    value = row.reading.value
    if not isfinite(value):
        return 18.0, []
    left, right = sorted((x(0.0), x(value)))
    marks = [tag("rect", x=left, y=top + 1, width=max(right - left, 1.0), height=14.0, rx=2, class_=f"bar {row.role}")]
    if row.reading.interval:
        marks += spread(x, row.reading.low, row.reading.high, top + 8, "ink")
    return 18.0, marks


def row_figure(
    rows: Sequence[Row],
    title: str,
    axis: str,
    *,
    draw: Draw = point,
    include: Iterable[float] = (),
    reference: float | None = None,
    signed: bool = False,
    names: Sequence[tuple[str, str]] = (),
) -> Element:
    """Rows under one another on one axis.

    Args:
        rows: from the top.
        title: of the figure, for those who cannot see it.
        axis: what is measured, with its unit.
        draw: what a row looks like: `strip`, `point` or `bar`.
        include: values that must be in sight.
        reference: where a line is drawn behind the marks of each row, such as "no difference" at 0.
        signed: whether the numbers are differences.
        names: what the colours stand for: (name, class).
    """
    shown = [*include, *([] if reference is None else [reference])]
    inside = [value for row in rows for value in (row.reading.value, row.reading.low, row.reading.high, *row.points)]
    x = Scale.over(inside, _START, _END, include=[0.0] if draw is bar else (), margin=0.04)
    x = Scale.over([x.low, x.high, *shown], _START, _END, include=[x.low, x.high], margin=0.02)
    marks = _legend(names)
    top = above = 24.0 if names else 4.0
    for row in rows:
        aside = row.aside or row.reading.text(signed)
        marks.append(label(_START, top + 11, _cut(row.label, aside), "name"))
        marks.append(label(_END, top + 11, aside, "value", "end"))
        taken, drawn = draw(row, x, top + LINE_HEIGHT)
        if reference is not None:  # beside the marks only: it would strike through the labels
            marks.append(line(x(reference), top + LINE_HEIGHT, x(reference), top + LINE_HEIGHT + taken, "reference"))
        marks += [tag("g", tag("title", f"{row.label}: {aside}"), *drawn)]
        top += LINE_HEIGHT + taken + 8
    bottom = top - 2
    behind = horizontal_axis(x, above, bottom, axis)
    words = "; ".join(f"{row.label}: {row.aside or row.reading.text(signed)}" for row in rows)
    return drawing(bottom + 38, title, words, [*behind, *marks])


def _mark(x: float, y: float, role: str) -> Element:
    if role == "control":
        return tag("rect", x=x - 4.5, y=y - 4.5, width=9.0, height=9.0, class_=f"mark {role}")
    return tag("circle", cx=x, cy=y, r=5.0, class_=f"mark {role}")


def _legend(names: Sequence[tuple[str, str]]) -> list[Element]:
    marks: list[Element] = []
    start = _START
    for name, role in names:
        marks += [_mark(start + 5, 8.0, role), label(start + 14, 12.0, name, "name")]
        start += 14 + 6.6 * len(name) + 16
    return marks


def _cut(name: str, aside: str) -> str:
    """A name that leaves room for the number on its right."""
    room = max(12, int((_END - _START - 6.4 * len(aside) - 12) / 6.4))
    return name if len(name) <= room else f"{name[: room - 1]}…"
