"""Several runs on one page: differences where the episodes are the same, and every shared number under one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan, nan
from typing import Any

from offline_eval.report.content import Chapter, Figure, KeyNumber, Section
from offline_eval.report.episode_chapters import comparison_finding
from offline_eval.report.figures import Row, row_figure
from offline_eval.report.reading import Reading
from offline_eval.report.runs import RunResult
from offline_eval.stats import paired_difference


def overview(runs: Sequence[RunResult], chapters: Sequence[Chapter]) -> Chapter:
    """The chapter above the others: each run beside the first.

    Args:
        runs: at least two.
        chapters: theirs.
    """
    first = _returns(runs[0])
    shared = {run.name: _returns(run) for run in runs[1:] if run.env == runs[0].env}
    differences = {
        name: paired_difference([mine[seed] for seed in seeds], [first[seed] for seed in seeds])
        for name, mine in shared.items()
        if len(seeds := [seed for seed in first if seed in mine]) > 1
    }
    readings = {name: Reading(paired.mean_difference, paired.ci95) for name, paired in differences.items()}
    apart = [run.name for run in runs[1:] if run.name not in differences]
    rows = [Row(name, reading) for name, reading in readings.items()]
    figures = []
    if rows:
        title = f"Return minus that of {runs[0].name}"
        drawing = row_figure(rows, title, "difference in return, same episodes", reference=0.0, signed=True)
        finding = comparison_finding(list(readings.items()), runs[0].name)
        figures.append(Figure(title, drawing, finding, "Mean of the paired differences with its 95 % interval."))
    else:
        finding = f"{len(runs)} runs that share no episodes stand side by side: their returns cannot be paired."
    numbers = [
        KeyNumber(f"{name} minus {runs[0].name}", reading, f"{differences[name].n} shared episodes", signed=True)
        for name, reading in readings.items()
    ]
    if not numbers:
        numbers = [
            KeyNumber(f"{chapter.numbers[0].name}, {run.name}", chapter.numbers[0].reading, run.env)
            for run, chapter in zip(runs, chapters, strict=True)
            if chapter.numbers
        ]
    notes = [f"{name} is not paired with {runs[0].name}: another environment, or no shared episodes" for name in apart]
    sections = [Section("Differences", figures), Section("Number by number", _shared(runs, chapters))]
    return Chapter(f"{len(runs)} runs, side by side", finding, numbers, sections, notes if rows else [])


def _shared(runs: Sequence[RunResult], chapters: Sequence[Chapter]) -> list[Figure]:
    """A figure for each key number that two runs or more have."""
    rows: dict[str, list[tuple[Row, KeyNumber]]] = {}
    same = len({run.env for run in runs}) == 1
    for run, chapter in zip(runs, chapters, strict=True):
        for key in chapter.numbers:
            row = Row(run.name if same else f"{run.name} ({run.env})", key.reading, aside=key.reading.text(key.signed))
            rows.setdefault(key.name, []).append((row, key))
    figures = []
    for name, found in rows.items():
        if len(found) < 2:
            continue
        words = "; ".join(f"{row.label} {row.aside}" for row, _ in found)
        drawing = row_figure([row for row, _ in found], name, name)
        figures.append(Figure(name[0].upper() + name[1:], drawing, f"{words}.", found[0][1].meaning))
    return figures


def _returns(run: RunResult) -> dict[Any, float]:
    """Returns of a run's first variant by seed; {} where a seed comes twice, or none is known."""
    result = run.result
    performance = result.get("performance") or {}
    if "seeds" in performance:
        pairs = list(zip(performance["seeds"], performance["returns"], strict=True))
    else:
        pairs = [(episode["seed"], episode["return"]) for episode in _episodes(result)]
    found = {seed: nan if value is None else float(value) for seed, value in pairs}
    return found if len(found) == len(pairs) and not all(map(isnan, found.values())) else {}


def _episodes(result: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    first = result["rows"][0] if result.get("rows") else result
    seeds = first.get("training_seeds")
    if seeds is not None:
        return list(seeds[0]["episodes"]) if len(seeds) == 1 else []
    return list(first.get("episodes", ()))
