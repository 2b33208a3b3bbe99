"""A gated trial as a table: every candidate, who led, and what became of it on fresh seeds."""

from __future__ import annotations

from math import inf

from offline_eval.report.tables import (
    columns,
    difference,
    footnotes,
    mean_words,
    number,
    plan_words,
    steering_table,
)
from offline_eval.stats.samples import failed_of
from offline_eval.steering.steering import PLAIN
from offline_eval.steering.tuning import TrialRow, Tuning


def tuning_table(tuning: Tuning, agent: str) -> str:
    """The trial, its verdict, and the confirmation where something won."""
    plain, *others = tuning.trial
    cells = [("rule", "mean", "minus plain", "t", "")]
    cells += [_cells(row, tuning) for row in (plain, *(row for row in others if not row.control))]
    num_candidates = len(cells)
    cells += [_cells(row, tuning) for row in others if row.control]
    lines = columns(cells, "<>>><")
    heading = f"{agent} on {plain.evaluation.env}: a trial on {plan_words(plain.evaluation)}"
    intervals = [row.paired.ci95 for row in others if row.paired is not None]
    text = [
        heading,
        "differences in return with 95 % intervals; t is the difference in standard errors",
        "",
        *lines[:num_candidates],
        "controls, which cannot win:",
        *lines[num_candidates:],
        "",
        *tuning_verdict(tuning),
        *footnotes(intervals, plain.evaluation.notes),
    ]
    if tuning.confirmation:
        text += ["", "the winner on fresh seeds, which chose nothing:", steering_table(tuning.confirmation, agent)]
    return "\n".join(text)


def tuning_verdict(tuning: Tuning) -> list[str]:
    """In sentences: what won, or why nothing did; and whether fresh seeds confirm it."""
    choice = tuning.choice
    best = next((row for row in tuning.trial if row.variant.name == choice.best), None)
    if best is None or best.paired is None:
        return ["no gain: episodes failed under every candidate"]
    failures = {row.variant.name: row.evaluation.summary.failed for row in tuning.trial}
    for name in (PLAIN, choice.best_control):
        if name is not None and failures[name]:
            failed = failed_of(failures[name], len(best.evaluation.plan))
            return [f"no gain can be told for the best, {choice.best}: {failed} under {name}"]
    led = f"the best, {choice.best}, has {number(best.paired.mean_difference, signed=True)} (t = {choice.t:.2f})"
    if not choice.clears_gate:
        return [f"no gain: {led}, and a winner needs t > {choice.threshold:.2f}", *_alone(tuning)]
    if not choice.beats_control:
        return [
            f"no gain: {led}, but {choice.best_control} needs no critic and does as well:",
            f"the lead over it has t = {choice.control_t:.2f} and needs more than {choice.control_threshold:g}",
            *_alone(tuning),
        ]
    if max(tuning.trial, key=_candidate_mean).variant.name != choice.best:
        led = led.replace("the best, ", "the best that passes, ")
    lines = [f"winner: {led}, more than {choice.threshold:.2f}"]
    if choice.against_control is not None:
        lead = number(choice.against_control.mean_difference, signed=True)
        lines[0] += f"; {lead} on {choice.best_control} (t = {choice.control_t:.2f})"
    confirmed = tuning.confirmed
    if confirmed is not None:
        words = "confirmed" if tuning.holds else "NOT confirmed"
        lines.append(f"{words} on fresh seeds: {difference(confirmed.paired)}; {confirmed.credit}")
    return lines


def _alone(tuning: Tuning) -> list[str]:
    """Why the trial says "no gain" where `steer` may say of a candidate alone that it helps."""
    choice = tuning.choice
    rows = [row for row in tuning.trial if row.variant.name in choice.alone]
    if not rows:
        return []
    names = ", ".join(f"{row.variant.name} (t = {row.t:.2f})" for row in rows)
    return [
        f"{names} would have won as the only candidate; picked from {choice.num_candidates} after the fact",
        "it needs a larger t. `steer` it alone, on seeds that chose nothing, to see whether it helps.",
    ]


def _candidate_mean(row: TrialRow) -> float:
    return -inf if row.control or row.paired is None else row.evaluation.summary.mean


def _cells(row: TrialRow, tuning: Tuning) -> tuple[str, str, str, str, str]:
    name = row.variant.name
    mark = "best" if name == tuning.choice.best else "best control" if name == tuning.choice.best_control else ""
    t = "" if row.paired is None else f"{row.t:.2f}"
    return name, mean_words(row.evaluation.summary), difference(row.paired), t, mark
