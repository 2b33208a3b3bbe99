"""Tables that fit 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, isnan
from textwrap import wrap

from offline_eval.episodes import Evaluation
from offline_eval.episodes.records import Invariance
from offline_eval.errors import printable
from offline_eval.stats import Interval, PairedDifference, SeedComparison, Summary, wilson_interval
from offline_eval.stats.samples import failed_of
from offline_eval.steering.comparison import ComparisonRow
from offline_eval.steering.steering import SteeringRow

MARK = "~"
"""Stands behind an interval that may cover less than 95 %."""

_MOSTLY = 0.5


def number(value: float, signed: bool = False) -> str:
    """Three significant digits or all before the point: returns are not known better."""
    if isnan(value):
        return "-"
    if not isfinite(value):
        return "inf" if value > 0 else "-inf"
    decimals = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    text = f"{value:+.{decimals}f}" if signed else f"{value:.{decimals}f}"
    if value == 0:
        return "0"
    return text if float(text) else text.lstrip("+-")  # what rounds to nothing has no sign


def interval(bounds: Interval) -> str:
    """[low, high], with the mark where it may cover less than it says."""
    return f"[{number(bounds.low)}, {number(bounds.high)}]{'' if bounds.honest else MARK}"


def difference(paired: PairedDifference | SeedComparison | None) -> str:
    """+mean [low, high]."""
    return "" if paired is None else f"{number(paired.mean_difference, signed=True)} {interval(paired.ci95)}"


def mean_words(summary: Summary, failed: int | None = None, total: int | None = None) -> str:
    """A mean, and how many episodes it leaves out because they failed."""
    failed = summary.failed if failed is None else failed
    total = summary.n + summary.failed if total is None else total
    return f"{number(summary.mean)} ({failed_of(failed, total, '')})" if failed else number(summary.mean)


def columns(rows: Sequence[Sequence[str]], aligned: str) -> list[str]:
    """Rows of cells as lines; `aligned` has < or > for each column. Names of strangers cannot leave their cell."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[place]) for row in rows) for place in range(len(aligned))]
    return [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, aligned, widths, strict=True)).rstrip()
        for row in rows
    ]


def evaluation_table(evaluation: Evaluation, agent: str) -> str:
    """One evaluated policy."""
    summary = evaluation.summary
    rows = [
        ("mean return", f"{mean_words(summary)}  95 % interval {interval(summary.ci95)}"),
        ("IQM", f"{number(summary.iqm)}  95 % interval {interval(summary.iqm_ci95)}"),
        ("median", number(summary.median)),
        ("spread", f"{number(summary.std)} (standard deviation over episodes)"),
        ("length", f"{number(evaluation.mean_length)} steps, {evaluation.share_truncated:.0%} cut by a limit"),
    ]
    if evaluation.successes is not None:
        succeeded, told = evaluation.successes
        rate = interval(wilson_interval(succeeded, told))
        rows.append(("success", f"{succeeded} of {told} ({evaluation.success_at.words})  {rate}"))
    if evaluation.failures:
        rows.append(("failed", _shortened(f"the first: {evaluation.failures[0].failed}")))
    rows.append(("speed", f"{evaluation.steps_per_second:,.0f} steps/s ({side_by_side(evaluation)})"))
    rows.append(("invariant", invariance_words([evaluation])))
    rows.append(("weights", _weights(evaluation)))
    lines = [
        f"{agent} ({evaluation.algorithm}) on {evaluation.env}: {plan_words(evaluation)}",
        "",
        *columns(rows, "<<"),
    ]
    return "\n".join([*lines, *footnotes([summary.ci95, summary.iqm_ci95], evaluation.notes)])


def steering_table(rows: Sequence[SteeringRow], agent: str) -> str:
    """What steering did, beside its controls."""
    plain = next(row for row in rows if row.paired is None)
    controls = {row.variant.control for row in rows} - {None}
    cells = [("rule", "mean", "minus plain", "wins", "minus best control")]
    for row in rows:
        name = f"  {row.variant.name}" if row.variant.name in controls else row.variant.name
        wins = "" if row.paired is None else f"{row.paired.wins}/{row.paired.n + row.paired.failed}"
        mean = mean_words(row.evaluation.summary)
        cells.append((name, mean, difference(row.paired), wins, difference(row.against_control)))
    heading = f"{agent} on {plain.evaluation.env}: {plan_words(plain.evaluation)}"
    lines = [heading, "differences in return with 95 % intervals", "", *columns(cells, "<>>>>"), ""]
    steered = [row for row in rows if row.credit is not None]
    for row in steered:
        lines += wrap(f"{row.variant.name}: {row.credit}", 80, subsequent_indent="  ")
    if any(row.best_control is not None for row in steered):
        lines.append("best control: the highest mean of those played, chosen afterwards in its favour")
    lines += _what_was_done(steered)
    lines += _saturated(steered)
    intervals = [paired.ci95 for row in rows for paired in (row.paired, row.against_control) if paired is not None]
    evaluations = [row.evaluation for row in rows]
    return "\n".join([*lines, *how_played(evaluations), *footnotes(intervals, notes_of(evaluations))])


def comparison_table(rows: Sequence[ComparisonRow], env: str) -> str:
    """Agents beside the first of them."""
    unit = next((row.difference.unit for row in rows if row.difference is not None), "episode")
    cells = [("agent", "mean [95 %]", "minus the first [95 %]", "wins", "needed")]
    for row in rows:
        paired, summary = row.difference, row.summary
        episodes = paired if isinstance(paired, PairedDifference) else None
        wins = f"{episodes.wins}/{episodes.n + episodes.failed}" if episodes else ""
        needed = f"{episodes.required_n}" if episodes and episodes.required_n is not None else ""
        failed = sum(len(evaluation.failures) for evaluation in row.evaluations)
        mean = mean_words(summary, failed, sum(len(evaluation.plan) for evaluation in row.evaluations))
        cells.append((row.name, f"{mean} {interval(summary.ci95)}", difference(paired), wins, needed))
    lines = [f"{env}: the unit is the {unit}", "", *columns(cells, "<>>>>")]
    if any(row[4] for row in cells[1:]):
        lines += ["", "needed: episodes to tell the two apart, if the difference is as seen (power 80 %)"]
    intervals = [row.summary.ci95 for row in rows] + [row.difference.ci95 for row in rows if row.difference]
    noted = dict.fromkeys(f"{row.name}: {note}" for row in rows for run in row.evaluations for note in run.notes)
    evaluations = [evaluation for row in rows for evaluation in row.evaluations]
    return "\n".join([*lines, *how_played(evaluations), *footnotes(intervals, list(noted))])


def notes_of(evaluations: Sequence[Evaluation]) -> list[str]:
    """The notes of tables that are shown together, each once."""
    return list(dict.fromkeys(note for evaluation in evaluations for note in evaluation.notes))


def how_played(evaluations: Sequence[Evaluation]) -> list[str]:
    """The line on how the tables were played, and whether that could matter."""
    played = ", ".join(dict.fromkeys(map(side_by_side, evaluations)))
    return ["", f"played in {played}; {invariance_words(evaluations)}"]


def side_by_side(evaluation: Evaluation) -> str:
    """How many environments and processes played."""
    workers = "" if evaluation.workers == 1 else f" x {evaluation.workers} workers"
    return f"{evaluation.n_envs} environment{'s' if evaluation.n_envs != 1 else ''}{workers}"


def invariance_words(evaluations: Sequence[Evaluation]) -> str:
    """What was checked of some tables that are shown together: the worst of them."""
    found = [evaluation.invariance for evaluation in evaluations]
    if any(one.holds is False for one in found):
        return "not invariant: see the note"
    worst = next((one for one in found if one.holds is None), min(found, key=_share_checked))
    return f"{worst}{' of each row' if len(found) > 1 else ''}"


def _share_checked(invariance: Invariance) -> float:
    return invariance.checked / max(1, invariance.of)


def _what_was_done(rows: Sequence[SteeringRow]) -> list[str]:
    names = ("gradient_norm", "displacement", "clipped", "predicted_gain", "non_finite")
    heads = ("a step, on average", "|gradient|", "moved", "clipped", "gain in Q", "non-finite")
    cells: list[tuple[str, ...]] = [heads]
    for row in rows:
        done = row.evaluation.steering
        values = [done.get(name) for name in names]
        shown = [
            "" if value is None else f"{value:.1%}" if name in ("clipped", "non_finite") else number(value)
            for name, value in zip(names, values, strict=True)
        ]
        cells.append((row.variant.name, *shown))
    return ["", *columns(cells, "<>>>>>")] if rows else []


def _saturated(rows: Sequence[SteeringRow]) -> list[str]:
    """Where training had nothing to learn from, most of the time."""
    shares = {row.variant.name: row.evaluation.steering.get("zero_gradient", 0.0) for row in rows}
    return [
        f"{name}: no gradient in {share:.0%} of the steps: the actions are saturated, or the critic is flat"
        for name, share in shares.items()
        if share > _MOSTLY
    ]


def plan_words(evaluation: Evaluation) -> str:
    """How many episodes, and their seeds."""
    seeds = [entry.seed for entry in evaluation.plan]
    return f"{len(seeds)} episodes, seeds {min(seeds)} to {max(seeds)}"


def _shortened(text: str, longest: int = 64) -> str:
    return text if len(text) <= longest else text[: longest - 3] + "..."


def _weights(evaluation: Evaluation) -> str:
    before, after = evaluation.weights_hash
    if before is None:
        return "none"
    return f"unchanged ({before[:12]})" if before == after else "CHANGED during the evaluation"


def footnotes(intervals: Sequence[Interval], notes: Sequence[str]) -> list[str]:
    """What the mark behind an interval means, once for each reason, and the notes."""
    caveats = dict.fromkeys(bounds.caveat for bounds in intervals if not bounds.honest)
    lines = [f"{MARK} may cover less than 95 %: {caveat}" for caveat in caveats] + [
        f"note: {printable(note)}" for note in notes
    ]
    return ["", *lines] if lines else []
