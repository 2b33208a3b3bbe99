"""What a page says of `measure`: seven sections, each measured or skipped with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite, nan
from typing import Any

from offline_eval.report.content import Chapter, Figure, KeyNumber, Section, listed
from offline_eval.report.curves import Histogram, Line, Marker, curve_figure, histogram_figure
from offline_eval.report.episode_chapters import return_numbers, returns_figure
from offline_eval.report.figures import Row, bar, point, row_figure
from offline_eval.report.reading import Reading, bounds, summary_reading
from offline_eval.report.runs import RunResult
from offline_eval.report.tables import number

_SETS = {"train": "training", "validation": "validation", "evaluation": "evaluation"}
_ROLES = {"train": "second", "validation": "plain", "evaluation": "main"}
_GAINS = {
    "claimed": ("claimed", "plain"),
    "corrected": ("corrected", "main"),
    "realised": ("realised", "second"),
    "attainable": ("attainable", "control"),
}

Record = Mapping[str, Any]


def measurement_chapter(run: RunResult) -> Chapter:
    """Of `measure`."""
    found = run.result
    parts = {
        "performance": ("What it earns", _performance),
        "policy_error": ("How far the policy is from the oracle", _policy_error),
        "q_rank": ("Does the critic put states and actions in order?", _q_rank),
        "q_bias": ("Does the critic say the right amount?", _q_bias),
        "regret": ("What the policy leaves on the table", _regret),
        "coverage": ("Does the policy stay where the data are?", _coverage),
    }
    clauses: dict[str, str] = {}
    numbers: list[KeyNumber] = []
    sections: list[Section] = []
    for name, (title, part) in parts.items():
        reason = skipped(found.get(name))
        if reason:
            sections.append(Section(title, skipped=[reason]))
            continue
        clause, figures, keys, missing = part(found[name], run)
        clauses[name] = clause
        numbers += keys
        sections.append(Section(title, figures, missing))
    performance = found["performance"]
    notes = [*performance.get("notes", ()), *found.get("manifest", {}).get("notes", ())]
    for name in ("q_rank", "q_bias"):
        caveat = (found[name].get("labels") or {}).get("caveat") if found.get(name) else ""
        notes += [f"true values: {caveat}"] if caveat else []
    return Chapter(
        f"{run.agents[0]} on {run.env}",
        _finding(run, clauses),
        numbers,
        sections,
        list(dict.fromkeys(notes)),
    )


def _finding(run: RunResult, clauses: Mapping[str, str]) -> str:
    """One sentence: first what the policy does, then what its critic does."""
    critic = [clauses[name] for name in ("q_rank", "q_bias") if clauses.get(name)]
    policy = [clause for name, clause in clauses.items() if clause and name not in ("q_rank", "q_bias")]
    parts = [f"{run.agents[0]} {listed(policy)}"] if policy else []
    parts += (
        [f"its critic {listed(critic)}" if policy else f"the critic of {run.agents[0]} {listed(critic)}"]
        if critic
        else []
    )
    return (
        f"On {run.env}, {'; '.join(parts)}." if parts else f"Nothing could be measured of {run.agents[0]} on {run.env}."
    )


def skipped(record: Any) -> str:
    """Why a section or a part of one was not measured; empty where it was."""
    if record is None:
        return "no reason given"
    return str(record["skipped"]) if isinstance(record, Mapping) and "skipped" in record else ""


Part = tuple[str, list[Figure], list[KeyNumber], list[str]]
"""Of a section: a clause for the sentence at the top, figures, key numbers, and what is missing with its reason."""


def _performance(record: Record, run: RunResult) -> Part:
    summary = dict(record["summary"])
    if record.get("success"):
        summary["success"] = record["success"]
    mean = summary_reading(summary)
    points = [nan if value is None else value for value in record["returns"]]
    figure = returns_figure([Row(run.agents[0], mean, "main", points)], "Returns")
    numbers = [key for key in return_numbers(summary) if not key.name.startswith("IQM")]
    return f"returns {mean.text()}", [figure], numbers, []


def _policy_error(record: Record, run: RunResult) -> Part:
    measured = {name: record[name] for name in _SETS if not skipped(record[name])}
    readings = {name: Reading.of(part, "mse") for name, part in measured.items()}
    rows = [Row(f"{_SETS[name]} states", reading, _ROLES[name]) for name, reading in readings.items()]
    words = "; ".join(f"{row.label} {row.reading.text()}" for row in rows)
    figures, numbers = [], []
    if rows:
        drawing = row_figure(rows, "Error on three sets of states", "mean squared error, scaled actions", draw=bar)
        caption = f"Oracle: {record['oracle']}. Bars begin at 0; the thin line is the 95 % interval."
        figures.append(Figure("Error on three sets of states", drawing, f"{words}.", caption))
        lines = [Line.of(_SETS[name], part["curve"], _ROLES[name]) for name, part in measured.items()]
        figures.append(_over_time(lines, "Error over the time step", "mean squared error", include=[0.0]))
        numbers = [KeyNumber(f"{_SETS[name]} MSE", reading, _set_meaning(name)) for name, reading in readings.items()]
    ratio = Reading.of(record.get("generalisation"))
    if ratio.known:
        numbers.append(KeyNumber("evaluation over training MSE", ratio, "1: it errs no more where it goes"))
    clause = f"errs {number(ratio.value)} times as much where it goes as where it was trained" if ratio.known else ""
    return clause, figures, numbers, _missing(record, {name: f"{words} error" for name, words in _SETS.items()})


def _set_meaning(name: str) -> str:
    meanings = {
        "train": "at states of the training trajectories",
        "validation": "at states of held-out trajectories",
        "evaluation": "at states that the policy visits",
    }
    return meanings[name]


def _q_rank(record: Record, run: RunResult) -> Part:
    windows = Reading.of(record, "window_tau")
    ceiling = Reading() if skipped(record["ceiling"]) else Reading.of(record["ceiling"])
    markers = [
        Marker("critic", windows, "main"),
        Marker("shuffled labels", _control(record["shuffled"]), "control"),
        Marker("counts the steps", Reading.of(record.get("clock")), "plain"),
        Marker("ceiling", ceiling, "second"),
    ]
    known = f", where labels allow {number(ceiling.value)}" if ceiling.known else ""
    figures = [
        _tau_figure(
            f"Order of states: Kendall's tau in windows of {record['window']}",
            record["histogram"],
            markers,
            f"tau {windows.text()} over {record['num_used']} of {record['num_windows']} windows{known}.",
            "Shuffled labels show chance; a critic that only counts the steps shows what time alone tells; "
            "the ceiling is what a second set of labels reaches.",
        )
    ]
    numbers = [KeyNumber("tau of states", windows, f"1: order as the truth has it; 0: chance{known}")]
    clause = f"orders states with tau {number(windows.value)}"
    missing = _missing(record, {"ceiling": "the ceiling of tau", "action_rank": "the order of actions"})
    if not skipped(record["action_rank"]):
        figure, keys, silence = _action_rank(record["action_rank"])
        figures.append(figure)
        numbers += keys
        missing += [f"The order of actions beside its ceiling: {silence}"] if silence else []
        clause += f" and actions with {number(keys[0].reading.value)}"
    return clause, figures, numbers, missing


def _action_rank(record: Record) -> tuple[Figure, list[KeyNumber], str]:
    tau, relative = Reading.of(record, "tau"), Reading.of(record.get("relative"))
    markers = [
        Marker("critic", tau, "main"),
        Marker("shuffled values", _control(record["shuffled"]), "control"),
        Marker("ceiling", Reading.of(record.get("ceiling")), "second"),
    ]
    words = f"tau {tau.text()} over {record['num_used']} of {record['num_states']} restored states"
    beside = f"; {relative.text()} of what a perfect critic would show" if relative.known else ""
    figure = _tau_figure(
        "Order of actions at restored states",
        record["histogram"],
        markers,
        f"{words}{beside}.",
        f"Each of {len(record['candidates'])} actions is rolled out {record['num_rollouts']} times.",
    )
    numbers = [KeyNumber("tau of actions", tau, "at restored states; what a policy needs of its critic")]
    if relative.known:
        numbers.append(KeyNumber("tau of actions, relative", relative, "1: as good as these labels can show"))
    return figure, numbers, str(record.get("silence") or "")


def _q_bias(record: Record, run: RunResult) -> Part:
    share, difference = Reading.of(record.get("normalised")), Reading.of(record.get("difference"))
    pairs = record["points"]
    points = [(q, t) for q, t in zip(pairs["q"], pairs["truth"], strict=True) if isfinite(q) and isfinite(t)]
    words = f"Q minus truth is {difference.text(signed=True)}, {share.text(signed=True)} of the truth's size."
    drawing = curve_figure(
        [Line.of("truth at this Q", record["calibration"])],
        "Q against the truth",
        words,
        "what the critic predicts, Q",
        "true discounted return",
        diagonal=True,
        points=points,
    )
    caption = (
        "A dot is a state; the line is the mean truth at that prediction, with its 95 % band. On the dashed diagonal "
        "the critic is right, below it the critic overstates."
    )
    numbers = [KeyNumber("bias of Q", share, "(Q - truth) / |truth|; above 0 it overstates", signed=True)]
    excess = Reading.of(record.get("excess"))
    if excess.known:
        numbers.append(KeyNumber("bias beyond the reference's", excess, signed=True))
    direction = "overstates" if share.value > 0 else "understates"
    clause = f"{direction} returns by {abs(share.value) * 100:.1f} %" if share.known else ""
    return clause, [Figure("Q against the truth", drawing, words, caption), *_bias_curve(record)], numbers, []


def _bias_curve(record: Record) -> list[Figure]:
    """Prediction minus truth over the prediction: the calibration curve, seen from the diagonal."""
    truth = Line.of("Q minus truth", record["calibration"])
    if not truth.x:
        return []
    bias = replace(
        truth,
        y=[q - value for q, value in zip(truth.x, truth.y, strict=True)],
        low=[q - end for q, end in zip(truth.x, truth.high, strict=True)],
        high=[q - end for q, end in zip(truth.x, truth.low, strict=True)],
    )
    lowest, highest = (number(value, signed=True) for value in (bias.y[0], bias.y[-1]))
    words = f"Q minus truth is {lowest} where the critic expects least, {highest} where it expects most."
    title = "Bias over the prediction"
    drawing = curve_figure([bias], title, words, "what the critic predicts, Q", "Q minus truth", reference=0.0)
    return [Figure(title, drawing, words, "Above 0 the critic overstates. The band is the 95 % interval.")]


def _regret(record: Record, run: RunResult) -> Part:
    names = {"train": "training states", "validation": "validation states", "evaluation": "visited states"}
    names["truth"] = "restored states"
    rows, numbers = [], []
    for key, states in names.items():
        part = record.get(key) or {}
        if skipped(record.get(key)):
            continue
        for gain, (words, role) in _GAINS.items():
            reading = Reading.of(part.get(gain))
            if reading.known and (key == "truth" or gain in ("claimed", "corrected")):
                rows.append(Row(f"{states}: {words}", reading, role))
    chosen = [
        ("evaluation", "corrected", "visited states, by the other critic"),
        ("truth", "realised", "restored states"),
    ]
    for key, gain, meaning in chosen:
        part = record.get(key) or {}
        reading = Reading.of(part.get(gain))
        if reading.known:
            numbers.append(KeyNumber(f"regret, {gain}", reading, f"{meaning}; in spreads of Q", signed=True))
    figures = []
    if rows:
        title = "Gain of the best candidate over the policy's action"
        words = "; ".join(f"{key.name} {key.reading.text(True)}" for key in numbers)
        words = words or f"{rows[0].label} {rows[0].reading.text(True)}"
        drawing = row_figure(
            rows, title, "in spreads of Q over the data's actions", draw=point, reference=0.0, signed=True
        )
        caption = (
            f"Candidates: {record['candidates']}. Claimed: chosen and scored by the critic. Corrected for the winner's "
            "curse: chosen by one critic, scored by another. Realised: the critic's choice, scored by rollouts. "
            "Attainable: the best that rollouts themselves find."
        )
        figures.append(Figure(title, drawing, f"{words}.", caption))
    return "", figures, numbers, _missing(record, {key: f"regret at {words}" for key, words in names.items()})


def _coverage(record: Record, run: RunResult) -> Part:
    outside, ratio = Reading.of(record["share_outside"]), Reading.of(record.get("ratio"))
    histogram = record["histogram"]
    edges, limit = histogram["edges"], Reading(record["threshold"])
    used, given = record["num_training_used"], record["num_training"]
    words = f"{outside.text()} of the visited states lie beyond the threshold"
    beside = f"; they are {ratio.text()} times as far as held-out states" if ratio.known else ""
    sample = "" if used == given else f" A sample of {used} of the {given} training states was compared with."
    distances = Figure(
        "Distance to the nearest training state",
        histogram_figure(
            [
                Histogram("visited by the policy", edges, histogram["visited"], "main"),
                Histogram("held-out data", edges, histogram["validation"], "control"),
            ],
            [Marker("threshold", limit, "ink")],
            "Distance to the nearest training state",
            words,
            "standard deviations of the training states",
        ),
        f"{words}{beside}.",
        f"The threshold is the 99th percentile of the held-out states: 1 % of the data lie beyond it.{sample}",
    )
    drift = _over_time(
        [Line.of("visited states", record["drift"])],
        "Drift from the data over the time step",
        "mean distance",
        include=[0.0],
        reference=record["threshold"],
    )
    numbers = [KeyNumber("share outside the data", outside, "of visited states; the data's own policy shows 0.01")]
    if ratio.known:
        numbers.append(KeyNumber("distance over held-out data's", ratio, "1: as near as held-out states"))
    clause = f"spends {outside.value * 100:.1f} % of its steps outside the data" if outside.known else ""
    return clause, [distances, drift], numbers, []


def _tau_figure(title: str, counts: Record, markers: Sequence[Marker], words: str, caption: str) -> Figure:
    histogram = Histogram("tau", counts["edges"], counts["counts"], "main")
    return Figure(title, histogram_figure([histogram], markers, title, words, "Kendall's tau"), words, caption)


def _over_time(
    lines: Sequence[Line], title: str, axis: str, *, include: Sequence[float], reference: float | None = None
) -> Figure:
    ends = [f"{line.name} from {number(line.y[0])} to {number(line.y[-1])}" for line in lines if line.y]
    words = f"From the first to the last steps: {'; '.join(ends)}."
    drawing = curve_figure(lines, title, words, "time step", axis, include=include, reference=reference)
    caption = "Bands are 95 % intervals" + ("; the dashed line is the threshold." if reference is not None else ".")
    return Figure(title, drawing, words, caption)


def _control(record: Record) -> Reading:
    return Reading(nan if record.get("value") is None else record["value"], bounds(record.get("range")))


def _missing(record: Record, names: Mapping[str, str]) -> list[str]:
    reasons = {name: skipped(record.get(name)) for name in names}
    return [f"{names[name][0].upper()}{names[name][1:]}: {reason}" for name, reason in reasons.items() if reason]
