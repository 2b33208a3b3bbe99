"""What a page says of played episodes: of `evaluate`, `steer` and `compare`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from typing import Any

from offline_eval.report.content import Chapter, Figure, KeyNumber, Section, listed, sentence
from offline_eval.report.figures import Row, point, row_figure, strip
from offline_eval.report.reading import Reading, summary_reading
from offline_eval.report.runs import RunResult
from offline_eval.report.tables import number
from offline_eval.stats import wilson_interval
from offline_eval.stats.samples import failed_of
from offline_eval.steering.credit import Credit

_MOST_IN_WORDS = 3


def evaluation_chapter(run: RunResult) -> Chapter:
    """Of `evaluate`."""
    summary, episodes = run.result["summary"], run.result["episodes"]
    mean, agent = summary_reading(summary), run.agents[0]
    finding = f"{agent} returns {mean.text()} on average over {episodes_text(summary)} of {run.env}."
    return Chapter(
        f"{agent} on {run.env}",
        finding,
        return_numbers(summary),
        [Section("What it earns", [returns_figure([return_row(agent, summary, episodes)], "Returns")])],
        [*run.result.get("notes", ()), *_invariance([run.result]), *failures(episodes)],
    )


def _invariance(tables: Sequence[Mapping[str, Any]]) -> list[str]:
    """Whether what played could matter, each answer once; nothing in runs made before it was checked."""
    told = [table["invariance"]["words"] for table in tables if table.get("invariance")]
    return [f"Independent of the environments side by side: {words}" for words in dict.fromkeys(told)]


def steering_chapter(run: RunResult) -> Chapter:
    """Of `steer`, and of a run that was stopped half-way."""
    rows = run.result["rows"]
    plain = next(row for row in rows if row["paired"] is None)
    agent = run.agents[0]
    controls = {row.get(key) for row in rows for key in ("control", "best_control")} - {None}
    roles = [
        "main" if row["control"] or row.get("verdict") else "control" if row["rule"] in controls else "plain"
        for row in rows
    ]
    forest = [
        Row(
            row["rule"],
            Reading.of(row["paired"], "mean_difference"),
            role,
            aside=f"{difference_text(row['paired'])} · {wins_text(row['paired'])}",
        )
        for row, role in zip(rows, roles, strict=True)
        if row["paired"] is not None
    ]
    against = [
        Row(
            f"{row['rule']} minus {_control_of(row)}",
            Reading.of(row["against_control"], "mean_difference"),
            aside=difference_text(row["against_control"]),
        )
        for row in rows
        if row["against_control"] is not None
    ]
    verdicts = _steering_verdicts(rows)
    baseline = summary_reading(plain["summary"])
    strips = [
        return_row(row["rule"], row["summary"], row["episodes"], "plain" if row is plain else role)
        for row, role in zip(rows, roles, strict=True)
    ]
    figures = [_differences(forest, f"Return minus {plain['rule']}", plain["rule"])] if forest else []
    if against:
        drawing = row_figure(
            against,
            "Steering minus its best control",
            "return minus the best control's, same episodes",
            reference=0.0,
            signed=True,
        )
        words = f"{_highest(against)} {'; '.join(verdicts)}"
        caption = (
            "A gain is the critic's own only where this interval lies right of 0. The best control is that with the "
            "highest mean of those played, chosen afterwards in its favour."
        )
        figures.append(Figure("Steering minus its best control", drawing, sentence(words), caption))
    numbers = [KeyNumber(f"return, {plain['rule']}", baseline, episodes_text(plain["summary"]))]
    for row in rows:
        if row["control"] or row.get("verdict") or (not controls and row["paired"]):
            numbers.append(_paired_number(row["rule"], plain["rule"], row["paired"]))
        if row["against_control"]:
            numbers.append(_paired_number(row["rule"], _control_of(row), row["against_control"]))
    notes = dict.fromkeys(note for row in rows for note in (*row.get("notes", ()), *failures(row["episodes"])))
    return Chapter(
        f"{agent} on {run.env}, steered" if verdicts else f"{agent} on {run.env}",
        _steering_finding(run, rows, verdicts),
        numbers,
        [
            Section("What steering does, beside its controls", figures),
            Section("What every rule earns", [returns_figure(strips, "Returns of every rule")]),
        ],
        [*notes, *_invariance(rows)],
    )


def comparison_chapter(run: RunResult) -> Chapter:
    """Of `compare`."""
    rows = run.result["rows"]
    first = rows[0]["agent"]
    units = [row["paired"]["unit"] for row in rows if row["paired"]]
    strips, forest = [], []
    numbers: list[KeyNumber] = []
    for row in rows:
        seeds = row["training_seeds"]
        single = seeds[0]["episodes"] if len(seeds) == 1 else []
        strips.append(return_row(row["agent"], row["summary"], single))
        numbers.append(KeyNumber(f"return of {row['agent']}", summary_reading(row["summary"])))
        if row["paired"]:
            reading = Reading.of(row["paired"], "mean_difference")
            forest.append(Row(row["agent"], reading, aside=difference_text(row["paired"])))
            numbers.append(_paired_number(row["agent"], first, row["paired"]))
    figures = [_differences(forest, f"Return minus {first}", first)] if forest else []
    notes = dict.fromkeys(
        note for row in rows for seed in row["training_seeds"] for note in (*seed["notes"], *failures(seed["episodes"]))
    )
    if units and units[0] != "episode":
        notes[f"The unit is the {units[0]}: episodes of one trained agent say nothing about the next training run."] = (
            None
        )
    return Chapter(
        f"{len(rows)} agents on {run.env}",
        comparison_finding([(row["agent"], Reading.of(row["paired"], "mean_difference")) for row in rows[1:]], first),
        numbers,
        [
            Section("Differences", figures),
            Section("What every agent earns", [returns_figure(strips, "Returns of every agent")]),
        ],
        [*notes, *_invariance([seed for row in rows for seed in row["training_seeds"]])],
    )


def comparison_finding(differences: Sequence[tuple[str, Reading]], first: str) -> str:
    """One sentence on agents beside the first one."""
    clauses = [
        f"{name} returns {number(abs(reading.value))} {'more' if reading.value > 0 else 'less'} than {first} "
        f"({reading.text(signed=True)})"
        for name, reading in differences
        if reading.known and 0.0 not in (reading.interval or ())
    ]
    told = {name for name, reading in differences if reading.known and 0.0 not in (reading.interval or ())}
    open_ = [f"{name} ({reading.text(signed=True)})" for name, reading in differences if name not in told]
    if open_:
        start = "no" if clauses else "No"
        clauses.append(f"{start} difference in return between {first} and {listed(open_)} can be told")
    return sentence("; ".join(clauses)) if clauses else f"There is nothing to compare {first} with."


def episodes_text(summary: Mapping[str, Any]) -> str:
    """How many episodes a mean is over, and how many it leaves out."""
    failed = summary.get("failed", 0)
    left_out = f" ({failed_of(failed, summary['n'] + failed, '')})" if failed else ""
    return f"{summary['n']} episodes{left_out}"


def return_numbers(summary: Mapping[str, Any]) -> list[KeyNumber]:
    """Mean, IQM and success of the object of `evaluate --json`'s summary."""
    numbers = [
        KeyNumber("mean return", summary_reading(summary), f"over {episodes_text(summary)}"),
        KeyNumber("IQM of the return", summary_reading(summary, "iqm", "iqm_ci95"), "mean of the middle half"),
    ]
    success = summary.get("success")
    if success:
        rate, n = success["rate"], success["n"]
        meaning = f"of {n}, at the {success.get('at', 'last step')}"
        numbers.append(KeyNumber("success rate", Reading(rate, wilson_interval(round(rate * n), n)), meaning))
    return numbers


def return_row(name: str, summary: Mapping[str, Any], episodes: Sequence[Mapping[str, Any]], role: str = "main") -> Row:
    """A row of `returns_figure`."""
    points = [nan if episode["return"] is None else episode["return"] for episode in episodes]
    return Row(name, summary_reading(summary), role, points)


def returns_figure(rows: Sequence[Row], title: str) -> Figure:
    """Every episode as a dot, with the mean and its interval below."""
    if len(rows) <= _MOST_IN_WORDS:
        words = "; ".join(f"{row.label} {row.reading.text()}" for row in rows)
    else:
        known = [row for row in rows if row.reading.known] or rows[:1]
        ends = sorted(known, key=lambda row: row.reading.value)
        words = f"from {ends[0].label} with {ends[0].reading.text()} to {ends[-1].label} with {ends[-1].reading.text()}"
    return Figure(
        title,
        row_figure(rows, title, "return of an episode", draw=strip),
        f"Mean return: {words}.",
        "A small dot is an episode; the large one below is their mean, with its 95 % interval.",
    )


def difference_text(paired: Mapping[str, Any]) -> str:
    """+mean [low, high]."""
    return Reading.of(paired, "mean_difference").text(signed=True)


def wins_text(paired: Mapping[str, Any]) -> str:
    """Wins of all pairs, those that failed among them."""
    return f"{paired['wins']}/{paired['n'] + paired['failed']}"


def failures(episodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """A note where episodes failed."""
    failed = [episode for episode in episodes if episode["failed"]]
    if not failed:
        return []
    words = failed_of(len(failed), len(episodes))
    return [f"{words} and do not count; the first: {failed[0].get('error', 'no reason given')}"]


_ROLES = {"main": "steered", "control": "its control", "plain": "control of all"}


def _differences(rows: Sequence[Row], title: str, baseline: str) -> Figure:
    axis = f"return minus that of {baseline}, same episodes"
    clear = [row.label for row in rows if row.reading.low > 0]
    told = f"Above 0 beyond doubt: {listed(clear)}." if clear else "No interval lies above 0."
    roles = dict.fromkeys(row.role for row in rows)
    names = [(_ROLES[role], role) for role in roles] if len(roles) > 1 else []
    return Figure(
        title,
        row_figure(rows, title, axis, draw=point, reference=0.0, signed=True, names=names),
        f"{_highest(rows)} {told}",
        "Mean of the paired differences with its 95 % interval"
        + ("; after the dot: episodes won of episodes played." if "·" in rows[0].aside else "."),
    )


def _highest(rows: Sequence[Row]) -> str:
    known = [row for row in rows if row.reading.known]
    best = max(known or rows, key=lambda row: row.reading.value)
    return f"The highest is {best.label} with {best.reading.text(signed=True)}."


def _paired_number(name: str, other: str, paired: Mapping[str, Any]) -> KeyNumber:
    needed = paired.get("required_n")
    meaning = "" if needed is None else f"{needed} episodes would tell a difference of this size"
    return KeyNumber(f"{name} minus {other}", Reading.of(paired, "mean_difference"), meaning, signed=True)


def _steering_verdicts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each verdict with the rules that it holds for."""
    names: dict[str, list[str]] = {}
    for row in rows:
        verdict = row.get("verdict")
        if not verdict and row["paired"] and row["against_control"]:  # a run of an earlier version
            plain, control = (Reading.of(row[key], "mean_difference").interval for key in ("paired", "against_control"))
            verdict = None if plain is None else str(Credit(plain, control, _control_of(row)))
        if verdict:
            names.setdefault(verdict, []).append(row["rule"])
    return [f"{listed(rules)}: {verdict}" for verdict, rules in names.items()]


def _control_of(row: Mapping[str, Any]) -> str:
    """What a steered row is held against: the best control, or the one control that earlier versions took."""
    return str(row.get("best_control") or row["control"])


def _steering_finding(run: RunResult, rows: Sequence[Mapping[str, Any]], verdicts: Sequence[str]) -> str:
    if not run.finished:
        done = sum(len(row["episodes"]) for row in rows)
        # A command that decides while it plays cannot name all of its variants beforehand.
        known = {row["rule"] for row in rows} <= set(run.manifest.get("variants", ()))
        asked = len(run.manifest.get("plan", ())) * len(run.manifest.get("variants", ()))
        much = f"{done} of {asked}" if known else f"{done}"
        return f"The run was stopped after {much} episodes: this is what they show so far. It can be resumed."
    if not verdicts:
        compared = [(row["rule"], Reading.of(row["paired"], "mean_difference")) for row in rows if row["paired"]]
        return comparison_finding(compared, "the plain policy")
    return f"On {run.env}, {sentence('; '.join(verdicts))}"
