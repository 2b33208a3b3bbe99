"""What a page says of `measure`: six sections, each measured or skipped with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan

from offline_eval.report.content import Chapter, Figure, KeyNumber, Section, listed
from offline_eval.report.critic_sections import q_bias, q_rank, regret
from offline_eval.report.curves import Histogram, Line, Marker, curve_figure, histogram_figure
from offline_eval.report.episode_chapters import return_numbers, returns_figure
from offline_eval.report.figures import Row, bar, row_figure
from offline_eval.report.measurement_parts import SET_ROLES, SETS, Part, Record, missing, skipped
from offline_eval.report.reading import Reading, summary_reading
from offline_eval.report.runs import RunResult
from offline_eval.report.tables import number

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
