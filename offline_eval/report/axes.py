"""Scales, axes and the plot area that every figure shares.

A figure is 400 units wide, about as wide as a telephone shows it, so that its text has the size it was given. Colours
are names of the style sheet's classes: the page decides what they are, by day, by night and on paper.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, inf, isfinite, log10
from xml.etree.ElementTree import Element

from offline_eval.report.markup import Node, tag

WIDTH = 400.0
LEFT, RIGHT = 46.0, 390.0
"""Where the plot area of a figure with a vertical axis begins and ends."""

LINE_HEIGHT = 15.0

_LONGEST_TICK = 6
"""Characters that fit between the frame and a vertical axis."""

_DIGIT = 7.0
"""Width of a character of a tick's label in the widest of the page's fonts."""


@dataclass(frozen=True)
class Scale:
    """A straight map from data to places.

    Attributes:
        low: value at `start`.
        high: value at `end`, above `low`.
        start: place of `low`.
        end: place of `high`.
    """

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(
        cls, values: Iterable[float], start: float, end: float, *, include: Iterable[float] = (), margin: float = 0.05
    ) -> Scale:
        """The scale that shows all finite values.

        Args:
            values: to be shown.
            start: place of the low end.
            end: place of the high end.
            include: values to be shown without a margin beyond them, like the 0 that bars stand on.
            margin: free share of the span on either side.
        """
        known, fixed = [v for v in values if isfinite(v)], [v for v in include if isfinite(v)]
        low, high = min([*known, *fixed], default=0.0), max([*known, *fixed], default=1.0)
        if low == high:
            room = abs(low) * 0.1 or 1.0
            low, high = low if low in fixed else low - room, high + room  # no error below the 0 that it begins at
        room = margin * (high - low)
        return cls(low if low in fixed else low - room, high if high in fixed else high + room, start, end)

    def __call__(self, value: float) -> float:
        """Place of a value; beyond the ends it stays at the end."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def ticks(self, most: int = 5) -> list[tuple[float, str]]:
        """At most so many round values with their labels."""
        for step in _round_steps((self.high - self.low) / most):
            first, last = ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9)
            if last - first < most:
                break
        decimals = max(0, -floor(log10(step) + 1e-9))
        values = [index * step for index in range(first, last + 1)]
        words = [f"{value:.{decimals}f}" for value in values]
        if max(map(len, words), default=0) > _LONGEST_TICK:
            words = [_power(value) for value in values]
        return list(zip(values, words, strict=True))


def _power(value: float) -> str:
    """1.5e-6 for 0.0000015: short enough to stand beside an axis."""
    digits, exponent = f"{value:.2e}".split("e")
    return "0" if value == 0 else f"{float(digits):g}e{int(exponent)}"


def _round_steps(least: float) -> Iterable[float]:
    power = floor(log10(least))
    for exponent in (power, power + 1):
        for digit in (1.0, 2.0, 5.0):
            step = digit * 10.0**exponent
            if step >= least * (1 - 1e-9):
                yield step


def label(x: float, y: float, words: str, kind: str = "tick", anchor: str | None = None) -> Element:
    """Text in a figure; `kind` is its class, `anchor` where x lies: start (if left out), middle or end."""
    return tag("text", words, x=x, y=y, class_=kind, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Element:
    """A straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind)


def horizontal_axis(scale: Scale, top: float, bottom: float, title: str) -> list[Element]:
    """Grid lines from top to bottom, their values under them, and the title; takes 34 units below `bottom`."""
    marks = [line(scale(value), top, scale(value), bottom, "grid") for value, _ in scale.ticks()]
    values = [
        label(_inside(scale(value), 0.5 * _DIGIT * len(words)), bottom + 14, words, anchor="middle")
        for value, words in scale.ticks()
    ]
    return [*marks, *values, label((scale.start + scale.end) / 2, bottom + 30, title, "axis", "middle")]


def _inside(place: float, half: float) -> float:
    """Where a label so wide has its middle, for none of it to leave the frame."""
    return min(max(place, half), WIDTH - half)


def vertical_axis(scale: Scale, left: float, right: float, title: str) -> list[Element]:
    """Grid lines from left to right, their values beside them, and the title above them."""
    marks = [line(left, scale(value), right, scale(value), "grid") for value, _ in scale.ticks()]
    values = [label(left - 5, scale(value) + 4, words, anchor="end") for value, words in scale.ticks()]
    return [*marks, *values, *([label(2, scale.end - 10, title, "axis")] if title else [])]


def legend(names: Sequence[tuple[str, str]], y: float, start: float) -> list[Element]:
    """Names in a row, each behind a piece of its line: (name, class of its colour)."""
    marks: list[Element] = []
    for name, role in names:
        marks.append(line(start, y - 4, start + 18, y - 4, f"stroke {role}"))
        marks.append(label(start + 23, y, name, "name"))
        start += 23 + 6.6 * len(name) + 14
    return marks


def spread(x: Scale, low: float, high: float, y: float, role: str) -> list[Element]:
    """An interval as a line with ends; an end that is infinite or out of sight runs on as dots."""
    whole = low in x and high in x
    marks = [line(x(low), y, x(high), y, f"range {role}" if whole else f"range open {role}")]
    marks += [line(x(end), y - 4, x(end), y + 4, f"range {role}") for end in (low, high) if end in x]
    return marks


def drawing(height: float, title: str, description: str, marks: Iterable[Node]) -> Element:
    """The finished figure, named and described for those who cannot see it."""
    return tag(
        "svg",
        tag("title", title),
        tag("desc", description),
        *marks,
        viewBox=f"0 0 {WIDTH:g} {height:g}",
        role="img",
    )


def bound(value: float | None, side: float) -> float:
    """An end of an interval as JSON has it: None stands for infinity on its side (-1 or 1)."""
    return side * inf if value is None else value
