"""What a page says of `diagnose`: the verdict, where the return is lost, the ladder, and then what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, nan
from typing import Any

from offline_eval.report.content import Chapter, Figure, KeyNumber, Section, sentence
from offline_eval.report.figures import Row, bar, row_figure
from offline_eval.report.measurement_chapter import measurement_chapter
from offline_eval.report.reading import Reading, bounds, summary_reading
from offline_eval.report.runs import RunResult
from offline_eval.report.tables import number
from offline_eval.report.waterfall import Step, waterfall_figure

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
