"""What a page says of a critic: its order of states and actions, its bias, and what the policy leaves on the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite, nan

from offline_eval.report.content import Figure, KeyNumber
from offline_eval.report.curves import Histogram, Line, Marker, curve_figure, histogram_figure
from offline_eval.report.figures import Row, point, row_figure
from offline_eval.report.measurement_parts import Part, Record, missing, skipped
from offline_eval.report.reading import Reading, bounds
from offline_eval.report.runs import RunResult
from offline_eval.report.tables import number

_TAILS = {
    "Drop": "states stay out where a time limit hides more than a share {} of a steady return",
    "Extend": "episodes cut by a time limit are rolled on until a share {} of a steady return is missing",
}
"""Rules for what a time limit hides, in words, by the names that labels carry."""

_MEAN_ACTION = "against returns of the mean action that count no entropy"

_GAINS = {
    "claimed": ("claimed", "plain"),
    "corrected": ("corrected", "main"),
    "realised": ("realised", "second"),
    "attainable": ("attainable", "control"),
}


def q_rank(record: Record, run: RunResult) -> Part:
    """Kendall's tau of states and of actions."""
    windows = Reading.of(record, "window_tau")
    ceiling = Reading() if skipped(record["ceiling"]) else Reading.of(record["ceiling"])
    of_the_same = {"caveat": record.get("caveat", "")}  # the same episodes, so the same doubt
    without_entropy = Reading.of(of_the_same | (record.get("plain") or {}), "window_tau")
    markers = [
        Marker("critic", windows, "main"),
        Marker("shuffled labels", _control(record["shuffled"]), "control"),
        Marker("counts the steps", Reading.of(record.get("clock")), "plain"),
        Marker("ceiling", ceiling, "second"),
        Marker("without entropy", without_entropy, "ink"),
    ]
    known = f", where labels allow {number(ceiling.value)}" if ceiling.known else ""
    figures = [
        _tau_figure(
            f"Order of states: Kendall's tau in windows of {record['window']}",
            record["histogram"],
            markers,
            f"tau {windows.text()} over {record['num_used']} of {record['num_windows']} windows{known}.",
            "Shuffled labels show chance; a critic that only counts the steps shows what time alone tells; "
            f"the ceiling is what a second set of labels reaches. {_labels(record)}".strip(),
            "windows",
        )
    ]
    numbers = [KeyNumber("tau of states", windows, f"1: order as the truth has it; 0: chance{known}")]
    if without_entropy.known:
        numbers.append(KeyNumber("tau of states, without entropy", without_entropy, _MEAN_ACTION))
    clauses = [_order_words("states", windows)]
    absent = missing(record, {"ceiling": "the ceiling of tau", "action_rank": "the order of actions"})
    if not skipped(record["action_rank"]):
        figure, keys, silence = _action_rank(record["action_rank"])
        figures.append(figure)
        numbers += keys
        absent += [f"The order of actions beside its ceiling: {silence}"] if silence else []
        clauses.append(_order_words("actions", keys[0].reading))
    return clauses, figures, numbers, absent


def _order_words(what: str, tau: Reading) -> str:
    """What the interval of a tau allows to say."""
    if tau.low > 0:
        return f"orders {what} with tau {number(tau.value)}"
    if tau.high < 0:
        return f"orders {what} the wrong way round (tau {tau.text()})"
    return f"cannot be told from chance in ordering {what} (tau {tau.text()})"


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
        "states",
    )
    numbers = [KeyNumber("tau of actions", tau, "at restored states; what a policy needs of its critic")]
    if relative.known:
        numbers.append(KeyNumber("tau of actions, relative", relative, "1: as good as these labels can show"))
    return figure, numbers, str(record.get("silence") or "")


def q_bias(record: Record, run: RunResult) -> Part:
    """Prediction and truth."""
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
        f"the critic is right, below it the critic overstates. {_labels(record)}"
    )
    numbers = [KeyNumber("bias of Q", share, "(Q - truth) / |truth|; above 0 it overstates", signed=True)]
    without_entropy = Reading.of((record.get("plain") or {}).get("normalised"))
    if without_entropy.known:
        numbers.append(KeyNumber("bias of Q, without entropy", without_entropy, _MEAN_ACTION, signed=True))
    excess = Reading.of(record.get("excess"))
    if excess.known:
        numbers.append(KeyNumber("bias beyond the reference's", excess, signed=True))
    clauses = []
    if share.known and share.low <= 0 <= share.high:
        clauses.append("shows no bias that can be told")
    elif share.known:
        direction = "overstates" if share.value > 0 else "understates"
        returns = "returns with their entropy bonuses" if without_entropy.known else "returns"
        clauses.append(f"{direction} {returns} by {abs(share.value) * 100:.1f} %")
    return clauses, [Figure("Q against the truth", drawing, words, caption), *_bias_curve(record)], numbers, []


def _labels(record: Record) -> str:
    """How the truth was had."""
    labels = record.get("labels")
    if not labels:
        return ""
    rule = labels["tail"].removeprefix("none needed: ")
    name, _, tolerance = rule.rstrip(")").partition("(tolerance=")
    end = _TAILS[name].format(tolerance) if name in _TAILS else rule
    return f"The truth is of {labels['target']}; discount {labels['gamma']:g}; {end}."


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
    lowest, highest = bias.end_text(0, signed=True), bias.end_text(-1, signed=True)
    words = f"Q minus truth is {lowest} where the critic expects least, {highest} where it expects most."
    title = "Bias over the prediction"
    drawing = curve_figure([bias], title, words, "what the critic predicts, Q", "Q minus truth", reference=0.0)
    return [Figure(title, drawing, words, "Above 0 the critic overstates. The band is the 95 % interval.")]


def regret(record: Record, run: RunResult) -> Part:
    """Gains of the best candidate over the policy's action."""
    names = {"train": "training states", "validation": "validation states", "evaluation": "visited states"}
    names["truth"] = "restored states"
    rows: list[Row] = []
    rolled: list[Row] = []
    numbers = []
    for key, states in names.items():
        part = record.get(key) or {}
        if skipped(record.get(key)):
            continue
        for gain, (words, role) in _GAINS.items():
            reading = Reading.of(part.get(gain))
            if reading.known and (key == "truth" or gain in ("claimed", "corrected")):
                (rolled if key == "truth" else rows).append(Row(f"{states}: {words}", reading, role))
    chosen = [
        ("evaluation", "corrected", "visited states, by the other critic"),
        ("truth", "realised", "restored states"),
    ]
    for key, gain, meaning in chosen:
        part = record.get(key) or {}
        reading = Reading.of(part.get(gain))
        if reading.known:
            numbers.append(KeyNumber(f"regret, {gain}", reading, f"{meaning}; in spreads of Q", signed=True))
    scored = (
        "Claimed: chosen and scored by the critic. Corrected for the winner's curse: chosen by one critic, scored by "
        "another."
    )
    by_critics = f"Candidates: {record['candidates']}. {scored}"
    by_rollouts = (
        f"Candidates: the actions that are rolled out. {scored} Realised: the critic's choice, scored by rollouts. "
        "Attainable: the best that rollouts themselves find."
    )
    figures = []
    if rows:
        figures.append(_gain_figure("Gain of the best candidate, as critics score it", rows, by_critics))
    if rolled:
        figures.append(_gain_figure("Gain of the best candidate at restored states", rolled, by_rollouts))
    return [], figures, numbers, missing(record, {key: f"regret at {words}" for key, words in names.items()})


def _gain_figure(title: str, rows: Sequence[Row], caption: str) -> Figure:
    best = [row for row in rows if row.label.endswith((": corrected", ": realised"))][-1:] or rows[:1]
    words = f"{best[0].label} {best[0].reading.text(True)}."
    axis = "gain over the policy's action, in spreads of Q"
    drawing = row_figure(rows, title, axis, draw=point, reference=0.0, signed=True)
    return Figure(title, drawing, words, caption)


def _tau_figure(title: str, counts: Record, markers: Sequence[Marker], words: str, caption: str, unit: str) -> Figure:
    histogram = Histogram("tau", counts["edges"], counts["counts"], "main")
    drawing = histogram_figure([histogram], markers, title, words, "Kendall's tau", f"share of {unit}")
    return Figure(title, drawing, words, caption)


def _control(record: Record) -> Reading:
    return Reading(nan if record.get("value") is None else record["value"], bounds(record.get("range")))
