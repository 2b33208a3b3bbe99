"""What a page says of `measure`: six sections, each measured or skipped with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite, nan

from offline_eval.report.content import Chapter, Figure, KeyNumber, Section, listed
from offline_eval.report.curves import Histogram, Line, Marker, curve_figure, histogram_figure
from offline_eval.report.episode_chapters import return_numbers, returns_figure
from offline_eval.report.figures import Row, bar, point, row_figure
from offline_eval.report.measurement_parts import SET_ROLES, SETS, Part, Record, missing, skipped
from offline_eval.report.reading import Reading, bounds, summary_reading
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


_OF_THE_CRITIC = ("q_rank", "q_bias", "regret")


def measurement_chapter(run: RunResult) -> Chapter:
    """Of `measure`."""
    found = run.result
    parts = {
        "performance": ("What it earns", _performance),
        "policy_error": ("How far the policy is from the oracle", _policy_error),
        "q_rank": ("Does the critic put states and actions in order?", q_rank),
        "q_bias": ("Does the critic say the right amount?", q_bias),
        "regret": ("What the policy leaves on the table", regret),
        "coverage": ("Does the policy stay where the data are?", _coverage),
    }
    clauses: dict[str, list[str]] = {}
    numbers: list[KeyNumber] = []
    sections: list[Section] = []
    for name, (title, part) in parts.items():
        reason = skipped(found.get(name))
        if reason:
            sections.append(Section(title, skipped=[reason]))
            continue
        clauses[name], figures, keys, absent = part(found[name], run)
        numbers += keys
        sections.append(Section(title, figures, absent))
    performance = found["performance"]
    notes = [*performance.get("notes", ()), *found.get("manifest", {}).get("notes", ())]
    for name in ("q_rank", "q_bias"):
        record = found.get(name) or {}
        caveats = {
            "true values": (record.get("labels") or {}).get("caveat"),
            "true values without entropy": ((record.get("plain") or {}).get("labels") or {}).get("caveat"),
        }
        notes += [f"{what}: {caveat}" for what, caveat in caveats.items() if caveat]
    return Chapter(
        f"{run.agents[0]} on {run.env}",
        _finding(run, clauses),
        numbers,
        sections,
        list(dict.fromkeys(notes)),
    )


def _finding(run: RunResult, clauses: Mapping[str, list[str]]) -> str:
    """One sentence: first what the policy does, then what its critic does."""
    critic = [clause for name in _OF_THE_CRITIC for clause in clauses.get(name, ())]
    policy = [clause for name, found in clauses.items() if name not in _OF_THE_CRITIC for clause in found]
    agent, parts = run.agents[0], []
    if policy:
        parts.append(f"{agent} {listed(policy)}")
    if critic:
        parts.append(f"{'its critic' if policy else f'the critic of {agent}'} {listed(critic)}")
    return f"On {run.env}, {'; '.join(parts)}." if parts else f"Nothing could be measured of {agent} on {run.env}."


def _performance(record: Record, run: RunResult) -> Part:
    summary = dict(record["summary"])
    if record.get("success"):
        summary["success"] = record["success"]
    mean = summary_reading(summary)
    points = [nan if value is None else value for value in record["returns"]]
    figure = returns_figure([Row(run.agents[0], mean, "main", points)], "Returns")
    numbers = [key for key in return_numbers(summary) if not key.name.startswith("IQM")]
    return [f"returns {mean.text()}"], [figure], numbers, []


def _policy_error(record: Record, run: RunResult) -> Part:
    measured = {name: record[name] for name in SETS if not skipped(record[name])}
    readings = {name: Reading.of(part, "mse") for name, part in measured.items()}
    rows = [Row(f"{SETS[name]} states", reading, SET_ROLES[name]) for name, reading in readings.items()]
    words = "; ".join(f"{row.label} {row.reading.text()}" for row in rows)
    figures, numbers = [], []
    if rows:
        drawing = row_figure(rows, "Error on three sets of states", "mean squared error, scaled actions", draw=bar)
        caption = f"Oracle: {record['oracle']}. Bars begin at 0; the thin line is the 95 % interval."
        figures.append(Figure("Error on three sets of states", drawing, f"{words}.", caption))
        lines = [Line.of(SETS[name], part["curve"], SET_ROLES[name]) for name, part in measured.items()]
        figures.append(_over_time(lines, "Error over the time step", "mean squared error", include=[0.0]))
        numbers = [KeyNumber(f"{SETS[name]} MSE", reading, _set_meaning(name)) for name, reading in readings.items()]
    ratio = Reading.of(record.get("generalisation"))
    if ratio.known:
        numbers.append(KeyNumber("evaluation over training MSE", ratio, "1: it errs no more where it goes"))
    return (
        _ratio_words(ratio),
        figures,
        numbers,
        missing(record, {name: f"{words} error" for name, words in SETS.items()}),
    )


def _ratio_words(ratio: Reading) -> list[str]:
    if not ratio.known:
        return []
    if ratio.low <= 1.0 <= ratio.high:
        return ["errs as much where it goes as where it was trained, as far as can be told"]
    return [f"errs {number(ratio.value)} times as much where it goes as where it was trained"]


def _set_meaning(name: str) -> str:
    meanings = {
        "train": "at states of the training trajectories",
        "validation": "at states of held-out trajectories",
        "evaluation": "at states that the policy visits",
    }
    return meanings[name]


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
            "share of states",
        ),
        f"{words}{beside}.",
        f"The threshold is the 99th percentile of the held-out states: 1 % of the data lie beyond it.{sample}",
    )
    drift = _over_time(
        [Line.of("visited states", record["drift"])],
        "Drift from the data over the time step",
        "mean distance, standard deviations",
        include=[0.0],
        reference=record["threshold"],
    )
    numbers = [KeyNumber("share outside the data", outside, "of visited states; the data's own policy shows 0.01")]
    if ratio.known:
        numbers.append(KeyNumber("distance over held-out data's", ratio, "1: as near as held-out states"))
    return _outside_words(outside), [distances, drift], numbers, []


def _outside_words(share: Reading) -> list[str]:
    """What the interval of the share allows to say: the data's own policy would show a hundredth."""
    if not share.known:
        return []
    percent = f"{share.value * 100:.1f} % of its steps outside the data"
    if share.low <= 0.01 < share.high:
        return [f"spends {percent}, which cannot be told from the 1 % of the data's own policy"]
    return [f"spends {percent}"]


def _over_time(
    lines: Sequence[Line], title: str, axis: str, *, include: Sequence[float], reference: float | None = None
) -> Figure:
    ends = [f"{line.name} from {line.end_text(0)} to {line.end_text(-1)}" for line in lines if line.y]
    words = f"From the first to the last steps: {'; '.join(ends)}."
    drawing = curve_figure(lines, title, words, "time step", axis, include=include, reference=reference)
    caption = "Bands are 95 % intervals, left out where too few episodes remain" + (
        "; the dashed line is the threshold." if reference is not None else "."
    )
    return Figure(title, drawing, words, caption)
