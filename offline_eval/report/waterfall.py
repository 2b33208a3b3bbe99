"""A waterfall: steps from one level to the next, each with its interval, joined so that the eye can add them up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from xml.etree.ElementTree import Element

from offline_eval.report.axes import LINE_HEIGHT, WIDTH, Scale, drawing, horizontal_axis, label, line, spread
from offline_eval.report.markup import tag
from offline_eval.report.reading import Reading

_START, _END, _BAR = 10.0, WIDTH - 10.0, 16.0


@dataclass(frozen=True)
class Step:
    """One step of a waterfall.

    Attributes:
        label: at its left.
        reading: how far it goes, with its interval; a step that is not known stays where it is.
        aside: at its right.
        role: class of its colour.
        is_level: whether it is a place on the axis and not a step: where the waterfall begins or ends.
    """

    label: str
    reading: Reading
    aside: str
    role: str = "main"
    is_level: bool = False


def waterfall_figure(steps: Sequence[Step], title: str, axis: str) -> Element:
    """Steps under one another; each begins where the one before ended.

    Args:
        steps: from the top. A level sets the place, a step moves it.
        title: of the figure, for those who cannot see it.
        axis: what is measured, with its unit.
    """
    placed = _placed(steps)
    ends = [value for begin, step in placed for value in _reach(begin, step)]
    x = Scale.over(ends, _START, _END, margin=0.04)
    marks: list[Element] = []
    joints: list[Element] = []
    top = 4.0
    for index, (begin, step) in enumerate(placed):
        y = top + LINE_HEIGHT
        marks.append(label(_START, top + 11, step.label, "name"))
        marks.append(label(_END, top + 11, step.aside, "value", "end"))
        end = begin if step.is_level else begin + _length(step)
        if index + 1 < len(placed):
            joints.append(line(x(end), y, x(end), y + _BAR + 8 + LINE_HEIGHT + _BAR, "reference"))
        left, right = sorted((x(begin), x(end)))
        shape = tag(
            "rect", x=left - 1.5 * step.is_level, y=y, width=max(right - left, 3.0), height=_BAR, rx=1,
            class_=f"bar {step.role}",
        )  # fmt: skip
        drawn = [shape]
        if step.reading.interval and step.reading.known:
            shift = 0.0 if step.is_level else begin
            drawn += spread(x, step.reading.low + shift, step.reading.high + shift, y + _BAR / 2, "ink")
        marks.append(tag("g", tag("title", f"{step.label}: {step.aside}"), *drawn))
        top = y + _BAR + 8
    words = "; ".join(f"{step.label}: {step.aside}" for step in steps)
    return drawing(top + 36, title, words, [*horizontal_axis(x, 4.0, top - 2, axis), *joints, *marks])


def _placed(steps: Sequence[Step]) -> list[tuple[float, Step]]:
    """Each step with the place where it begins."""
    place, placed = 0.0, []
    for step in steps:
        if step.is_level and step.reading.known:
            place = step.reading.value
        placed.append((place, step))
        if not step.is_level:
            place += _length(step)
    return placed


def _length(step: Step) -> float:
    return step.reading.value if step.reading.known else 0.0


def _reach(begin: float, step: Step) -> list[float]:
    """The places that must be in sight: the step, and its interval where that is no wider than three of its kind."""
    if step.is_level:
        return [begin]
    known = [begin + end for end in (step.reading.low, step.reading.high) if isfinite(end) and abs(end) <= 3.0]
    return [begin, begin + _length(step), *known]
