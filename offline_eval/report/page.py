"""The page: one HTML file that holds everything, made from nothing but the objects of `--json`.

It fetches nothing and runs nothing: a policy in its head forbids both, so that a page from a stranger's agent is safe.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from math import isnan, nan
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from offline_eval.errors import InputError, StorageError
from offline_eval.files import write_durably
from offline_eval.report.content import Chapter, Figure, KeyNumber, Section, Table, sentence
from offline_eval.report.diagnosis_chapter import diagnosis_chapter
from offline_eval.report.episode_chapters import (
    comparison_chapter,
    comparison_finding,
    evaluation_chapter,
    steering_chapter,
)
from offline_eval.report.figures import Row, row_figure
from offline_eval.report.markup import Node, render, tag
from offline_eval.report.measurement_chapter import measurement_chapter
from offline_eval.report.measurement_table import fewest
from offline_eval.report.reading import Reading
from offline_eval.report.runs import RunResult, reading
from offline_eval.report.tables import MARK, interval, number
from offline_eval.report.track_chapter import track_chapter
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


_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_LONGEST_LINE = 1500
_SHOWN_APART = {
    *("command", "env", "agents", "plan", "versions", "weights_hash", "wall_time"),
    *("result", "notes", "schema", "finished"),
}


def write_page(results: Sequence[RunResult], path: str | Path) -> Path:
    """Write the page of one run, or of several beside the first of them.

    Args:
        results: what is shown.
        path: of the HTML file; the folder is made where it is missing.

    Returns:
        The path.

    Raises:
        InputError: no run, or a result that none of the commands makes.
        StorageError: the file cannot be written.
    """
    html = page(results)
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, html.encode(errors="xmlcharrefreplace"))
    except OSError as error:
        raise StorageError(f"the page cannot be written: {path}: {error.strerror or error}") from error
    return path


def page(results: Sequence[RunResult]) -> str:
    """The page as text; the same results give the same page."""
    if not results:
        raise InputError("results", "must hold at least one run", list(results))
    chapters = [chapter_of(run) for run in results]
    with reading(", ".join(run.name for run in results)):
        first = chapters[0] if len(chapters) == 1 else overview(results, chapters)
        body: list[Node] = [_head(first), *_body(first)]
        if len(chapters) > 1:
            for run, chapter in zip(results, chapters, strict=True):
                opening = tag("h2", chapter.heading, tag("small", run.name))
                lead = [opening, tag("p", _together(chapter.finding), class_="finding"), _table(chapter.numbers)]
                body.append(tag("article", *lead, *_body(chapter)))
        body.append(tag("footer", tag("h2", "How it was made"), *(_made(run) for run in results)))
        return "<!doctype html>\n" + render(_document(first.heading, body)) + "\n"


def chapter_of(run: RunResult) -> Chapter:
    """What a run says, whichever command it came from.

    Raises:
        InputError: the result is of none of them, or parts of it are missing.
    """
    result = run.result
    rows = result.get("rows")
    with reading(run.name):
        if "verdict" in result:
            return diagnosis_chapter(run)
        if "checkpoints" in result:
            return track_chapter(run)
        if "policy_error" in result:
            return measurement_chapter(run)
        if rows and "agent" in rows[0]:
            return comparison_chapter(run)
        if rows:
            return steering_chapter(run)
        if "summary" in result:
            return evaluation_chapter(run)
    rule = "must be the object of `evaluate`, `steer`, `compare`, `measure`, `track` or `diagnose`"
    raise InputError("RUN", rule, f"{run.name} with {', '.join(sorted(result)) or 'nothing in it'}")


def _document(title: str, body: Sequence[Node]) -> Element:
    style = resources.files("offline_eval.report").joinpath("page.css").read_text(encoding="utf-8")
    return tag(
        "html",
        tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="color-scheme", content="light dark"),
            tag("title", f"{title}: offline-eval"),
            tag("link", rel="icon", href="data:,"),
            tag("style", style),
        ),
        tag("body", tag("main", *body)),
        lang="en",
    )


def _head(chapter: Chapter) -> Element:
    return tag(
        "header",
        tag("p", "offline-eval", class_="eyebrow"),
        tag("h1", chapter.heading),
        tag("p", _together(chapter.finding), class_="finding"),
        _table(chapter.numbers),
    )


def _table(numbers: Sequence[KeyNumber]) -> Element | None:
    if not numbers:
        return None
    rows = [
        tag(
            "tr",
            tag("th", key.name, tag("small", key.meaning) if key.meaning else None, scope="row"),
            tag("td", number(key.reading.value, key.signed)),
            tag("td", interval(key.reading.interval) if key.reading.interval else ""),
        )
        for key in numbers
    ]
    columns = tag("tr", *(tag("th", words, scope="col") for words in ("", "value", "95 % interval")))
    marks = _marks(key.reading for key in numbers)
    return tag("div", tag("table", tag("thead", columns), tag("tbody", *rows)), *marks, class_="key")


def _marks(readings: Iterable[Reading]) -> list[Element]:
    """What the mark behind an interval means, once for each reason."""
    bounds = [reading.interval for reading in readings if reading.interval]
    caveats = fewest(bound.caveat for bound in bounds if not bound.honest)
    return [tag("p", f"{MARK} may cover less than 95 %: {caveat}", class_="caveat") for caveat in caveats]


def _wide_table(table: Table | None) -> Element | None:
    """Numbers side by side, each above its interval."""
    if table is None:
        return None
    columns = tag("tr", *(tag("th", words, scope="col") for words in table.columns))
    rows = [
        tag(
            "tr",
            tag("th", row.name, tag("small", row.meaning) if row.meaning else None, scope="row"),
            *(
                tag("td", number(reading.value), tag("small", interval(reading.interval)) if reading.interval else None)
                for reading in row.readings
            ),
        )
        for row in table.rows
    ]
    marks = _marks(reading for row in table.rows for reading in row.readings)
    return tag("div", tag("table", tag("thead", columns), tag("tbody", *rows)), *marks, class_="wide")


def _body(chapter: Chapter) -> list[Node]:
    notes = [tag("li", sentence(note)) for note in chapter.notes]
    parts: list[Node] = [_section(part) for part in chapter.sections if not part.is_empty]
    return [*parts, tag("aside", tag("h3", "Notes"), tag("ul", *notes)) if notes else None]


def _section(part: Section) -> Element:
    missing = [tag("p", tag("b", "Not measured: "), sentence(reason), class_="skipped") for reason in part.skipped]
    figures = tag("div", *map(_figure, part.figures), class_="figures") if part.figures else None
    points = tag("ul", *(tag("li", _together(words)) for words in part.points)) if part.points else None
    typed = [tag("pre", tag("code", command)) for command in part.commands]
    tables = _table(part.numbers), _wide_table(part.table)
    return tag("section", tag("h3", part.title), points, *typed, tables[0], figures, tables[1], *missing)


def _figure(figure: Figure) -> Element:
    return tag(
        "figure",
        tag("h4", figure.title),
        tag("p", _together(figure.number), class_="number"),
        figure.drawing,
        tag("figcaption", _together(figure.caption)) if figure.caption else None,
    )


def _together(words: str) -> str:
    """Words in which no line ends between a number and its percent sign."""
    return words.replace(" %", "\N{NO-BREAK SPACE}%")


def _made(run: RunResult) -> Element:
    manifest = {**run.result.get("manifest", {}), **run.manifest}
    lines: dict[str, str] = {}
    if manifest.get("command"):
        command = manifest["command"]
        lines["command"] = command if isinstance(command, str) else " ".join(map(str, command))
    lines["environment"] = run.env
    agents = manifest.get("agents")
    if isinstance(agents, Mapping):
        lines |= {f"agent {name}": f"weights {_plain(hashed)}" for name, hashed in agents.items()}
    if manifest.get("plan"):
        lines["episodes"] = _plan(manifest["plan"])
    if manifest.get("weights_hash"):
        lines["weights"] = _weights(manifest["weights_hash"])
    if isinstance(manifest.get("wall_time"), Mapping):
        lines["wall time"] = f"{sum(manifest['wall_time'].values()):.1f} s"
    for key, value in manifest.items():
        if key not in _SHOWN_APART and not _empty(value):
            lines[key.replace("_", " ")] = _plain(value)
    versions = manifest.get("versions") or {}
    if versions:
        lines["versions"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    entries = [part for name, words in lines.items() for part in (tag("dt", name), tag("dd", words))]
    return tag("details", tag("summary", run.name), tag("dl", *entries), open_="open")


def _empty(value: Any) -> bool:
    """Whether there is nothing to show: no value, or a mapping or a list of none."""
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else [value]
    return all(part is None for part in parts)


def _plan(plan: Any) -> str:
    """The seeds of a plan, as the run folder keeps it: [[seed, options], ...]."""
    if not (isinstance(plan, list) and all(isinstance(entry, list) and len(entry) == 2 for entry in plan)):
        return _plain(plan)
    seeds = [seed for seed, _ in plan]
    options = "" if all(chosen is None for _, chosen in plan) else ", with reset options"
    return f"{len(seeds)} with seeds {min(seeds)} to {max(seeds)}{options}"


def _weights(hashes: Mapping[str, Any]) -> str:
    """Whether an evaluated policy came out as it went in: {"before", "after"}, or one of these for each variant."""
    if "before" in hashes:
        return _weights({"the policy": hashes}) + f" ({hashes['before']})"
    changed = [name for name, ends in hashes.items() if ends["before"] != ends["after"]]
    return f"CHANGED during the run: {', '.join(changed)}" if changed else "unchanged by the run"


def _plain(value: Any) -> str:
    """Plain data in words, one entry of a mapping after the other."""
    if isinstance(value, Mapping) and "name" not in value:
        text = "; ".join(f"{key}: {_inside(part)}" for key, part in value.items())
    else:
        text = _inside(value)
    return text if len(text) <= _LONGEST_LINE else f"{text[: _LONGEST_LINE - 1]}…"


def _inside(value: Any) -> str:
    """A part of it: {"name": "OPEX", "step_size": 0.2} becomes OPEX(step_size 0.2)."""
    if isinstance(value, Mapping):
        parts = ", ".join(f"{key} {_inside(part)}" for key, part in value.items() if key != "name")
        return f"{value.get('name', '')}({parts})" if parts else str(value.get("name", "()"))
    if isinstance(value, list):
        return ", ".join(map(_inside, value))
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value)
