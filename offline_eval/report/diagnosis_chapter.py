"""What a page says of `diagnose`: the verdict, where the return is lost, the ladder, and then what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from typing import Any
from xml.etree.ElementTree import Element

from offline_eval.report.axes import LINE_HEIGHT, WIDTH, Scale, drawing, horizontal_axis, label, line, spread
from offline_eval.report.content import Chapter, Figure, KeyNumber, Section, sentence
from offline_eval.report.figures import Row, bar, row_figure
from offline_eval.report.markup import tag
from offline_eval.report.measurement_chapter import measurement_chapter
from offline_eval.report.reading import Reading, bounds, summary_reading
from offline_eval.report.runs import RunResult
from offline_eval.report.tables import number

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


Record = Mapping[str, Any]

STEPS = {
    "extraction": ("extraction", "main", "the policy could be read better out of the same critic"),
    "generalisation": ("generalisation", "second", "the policy errs where the data do not reach"),
    "value": ("value", "control", "the critic does not know what would be better"),
}
"""The bottlenecks in the order of the waterfall: what Q can fetch, and then what only truth can."""

ROLES = {
    "behaviour": "plain", "control": "control", "truth_inside": "second", "truth": "second", "oracle": "plain",
}  # fmt: skip
"""Colours of the rungs; those that Q guides have the main one."""

SHORT = {
    "control": "random data action",
    "inside": "the same, inside the data",
    "outside": "the same, outside the data",
    "truth_inside": "by the truth, inside only",
    "truth": "best by the truth",
}
"""Names of rungs whose titles are too long to stand beside their numbers."""


def diagnosis_chapter(run: RunResult) -> Chapter:
    """Of `diagnose`."""
    found = run.result
    verdict, ladder, about = found["verdict"], found["ladder"], found["ladder_range"]
    measured = measurement_chapter(run)
    shares = {name: share_reading(verdict["shares"].get(name)) for name in STEPS}
    numbers = [
        KeyNumber(f"worth of {STEPS[name][0]}", share, f"{STEPS[name][2]}; in parts of the ladder's range")
        for name, share in shares.items()
        if share.known
    ]
    advice = verdict["recommendation"]
    drawn = [_waterfall(shares, ladder, about), _ladder(ladder, about)]
    typed = [advice["command"]] if advice["command"] else []
    sections = [
        Section("Where the return is lost", drawn, _missing(about)),
        Section("Why", points=[sentence(words) for words in verdict["evidence"]]),
        Section("What to do next", points=[sentence(advice["sentence"])], commands=typed),
        Section("What was measured beside", numbers=measured.numbers),
        *measured.sections,
    ]
    return Chapter(measured.heading, verdict["sentence"], numbers, sections, measured.notes)


def share_reading(share: Record | None) -> Reading:
    """Of {"estimate", "ci95", "caveat"}."""
    return Reading.of(share, "estimate") if share else Reading()


def rung_name(rung: Record) -> str:
    """What a rung is called beside its numbers."""
    return SHORT.get(rung["rung"]) or str(rung["title"])


def rung_words(rung: Record) -> str:
    """The mean return of a rung, and its difference to the policy."""
    mean = number(summary_reading(rung["summary"]).value)
    paired = rung.get("paired")
    unit = " a segment" if rung.get("unit") == "segment" else ""
    if not paired:
        return f"{mean}{unit}"
    gained = Reading(_float(paired["mean_difference"]), bounds(paired["ci95"]))
    return f"{mean}{unit}, {gained.text(signed=True)}"


def _waterfall(shares: Mapping[str, Reading], ladder: Sequence[Record], about: Record) -> Figure:
    policy = next(rung for rung in ladder if rung["rung"] == "policy")
    mean = number(summary_reading(policy["summary"]).value)
    steps = [Step("the policy as it is", Reading(0.0), mean, "ink", is_level=True)]
    for name, share in shares.items():
        title, role, _ = STEPS[name]
        steps.append(Step(title, share, share.text(signed=True) if share.known else "cannot tell", role))
    total = sum(share.value for share in shares.values() if share.known)
    steps.append(Step("within reach", Reading(total), f"{total:+.2f}", "ink", is_level=True))
    largest = max((name for name in shares if shares[name].known), key=lambda name: shares[name].value, default=None)
    words = "Nothing of it could be told." if largest is None else (
        f"Removing {STEPS[largest][0]} is worth {shares[largest].text()} of the ladder's range, "
        f"{number(_float(about['range']))} of return."
    )  # fmt: skip
    return Figure(
        "What each bottleneck is worth",
        waterfall_figure(steps, "Worth of each bottleneck", _axis(about)),
        words,
        "Each step begins where the one before ended. Lines are 95 % intervals of a step. The gains are lower bounds: "
        "better actions than the candidates' may exist.",
    )


def _ladder(ladder: Sequence[Record], about: Record) -> Figure:
    level, unit = _level(ladder), _float(about["range"])
    rows = [
        Row(rung_name(rung), _place(rung, level, unit), ROLES.get(rung["rung"], "main"), (), rung_words(rung))
        for rung in ladder
    ]
    best = max((rung for rung in ladder if rung.get("paired")), key=_difference, default=None)
    words = (
        "No rung could be paired with the policy."
        if best is None
        else f"Of what was tried on the same episodes, the most was gained by: {rung_name(best)} ({rung_words(best)})."
    )
    names = [("by Q", "main"), ("control", "control"), ("by truth", "second"), ("reference", "plain")]
    return Figure(
        "The ladder: the same episodes, one thing changed at a time",
        row_figure(rows, "The ladder", _axis(about), draw=bar, reference=0.0, names=names),
        words,
        "Beside each rung its mean return and the paired difference to the policy with its 95 % interval. Numbers and "
        f"step sizes were chosen on {about['num_selection']} other episodes.",
    )


def _level(ladder: Sequence[Record]) -> float:
    policy = next(rung for rung in ladder if rung["rung"] == "policy")
    return summary_reading(policy["summary"]).value


def _place(rung: Record, level: float, unit: float) -> Reading:
    """Where a rung stands above the policy, in units of the range."""
    if rung.get("gain"):
        return share_reading(rung["gain"])
    return Reading((summary_reading(rung["summary"]).value - level) / unit if unit else nan)


def _difference(rung: Record) -> float:
    value = _float((rung["gain"] or {}).get("estimate"))
    return value if isfinite(value) else -1e9


def _axis(about: Record) -> str:
    return f"above the policy, in parts of the range ({number(_float(about['range']))} of return)"


def _missing(about: Record) -> list[str]:
    return [f"{name}: {reason}" for name, reason in about["missing"].items()]


def _float(value: Any) -> float:
    return nan if value is None else float(value)
