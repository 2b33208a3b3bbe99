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
            f"the ceiling is what a second set of labels reaches. {_labels(record)}".strip(),
        )
    ]
    numbers = [KeyNumber("tau of states", windows, f"1: order as the truth has it; 0: chance{known}")]
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
    excess = Reading.of(record.get("excess"))
    if excess.known:
        numbers.append(KeyNumber("bias beyond the reference's", excess, signed=True))
    clauses = []
    if share.known and share.low <= 0 <= share.high:
        clauses.append("shows no bias that can be told")
    elif share.known:
        direction = "overstates" if share.value > 0 else "understates"
        clauses.append(f"{direction} returns by {abs(share.value) * 100:.1f} %")
    return clauses, [Figure("Q against the truth", drawing, words, caption), *_bias_curve(record)], numbers, []


def _labels(record: Record) -> str:
    """How the truth was had."""
    labels = record.get("labels")
    if not labels:
        return ""
    return f"The truth is of {labels['target']}; discount {labels['gamma']:g}, tail {labels['tail']}."


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


def regret(record: Record, run: RunResult) -> Part:
    """Gains of the best candidate over the policy's action."""
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
    return [], figures, numbers, missing(record, {key: f"regret at {words}" for key, words in names.items()})


def _tau_figure(title: str, counts: Record, markers: Sequence[Marker], words: str, caption: str) -> Figure:
    histogram = Histogram("tau", counts["edges"], counts["counts"], "main")
    return Figure(title, histogram_figure([histogram], markers, title, words, "Kendall's tau"), words, caption)


def _control(record: Record) -> Reading:
    return Reading(nan if record.get("value") is None else record["value"], bounds(record.get("range")))
