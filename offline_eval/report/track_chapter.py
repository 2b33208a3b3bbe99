"""What a page says of `track`: which error goes with the return, and what picking by validation costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan

from offline_eval.report.content import Chapter, Figure, KeyNumber, Section, Table, TableRow, listed
from offline_eval.report.curves import Line, Marker, curve_figure
from offline_eval.report.measurement_parts import SET_ROLES, SETS, Record, skipped
from offline_eval.report.reading import Reading, summary_reading
from offline_eval.report.runs import RunResult
from offline_eval.stats import PairedDifference, paired_difference

GOES = 0.5
"""Size of a correlation from which an error is said to go with the return, or against it."""

FEWEST = 20
"""Checkpoints below which a correlation is called a hint.

Ranks that have nothing to do with each other reach `GOES` on either side in 15 % of 40,000 shuffles of 10, in 3 % of
those of 20; neighbouring checkpoints are alike, and count for fewer.
"""

_STEP_AXIS = "training step"
_PREDICATES = ("with the return", "against the return", "neither with the return nor against it")
_DOT = 3.5


@dataclass(frozen=True)
class Moment:
    """One checkpoint, read back from its JSON.

    Attributes:
        step: of the training.
        mean: return with its interval; NaN where every episode failed.
        returns: by episode, NaN where one failed.
        failed: episodes that did.
        errors: the squared errors that are known, by set.
        missing: why the others are not, by set.
    """

    step: int
    mean: Reading
    returns: Sequence[float]
    failed: int
    errors: Mapping[str, Reading]
    missing: Mapping[str, str]

    @classmethod
    def of(cls, checkpoint: Record) -> Moment:
        """From the object of `Checkpoint.to_json`."""
        record, summary = checkpoint["policy_error"], checkpoint["summary"]
        reasons = {name: skipped(record.get(name)) for name in SETS}
        readings = {name: Reading.of(record[name], "mse") for name, reason in reasons.items() if not reason}
        known = {name: reading for name, reading in readings.items() if reading.known}
        missing = {name: reasons[name] or "it is not a finite number" for name in SETS if name not in known}
        returns = [nan if value is None else float(value) for value in checkpoint["returns"]]
        return cls(checkpoint["step"], summary_reading(summary), returns, summary["failed"], known, missing)


@dataclass(frozen=True)
class Picked:
    """What a person who picks the lowest validation error takes, beside the best there is.

    Attributes:
        best: of the highest mean return, the earliest of equals.
        choice: of the lowest validation error, the earliest of equals.
        cost: return of `best` minus that of `choice` over the same episodes.
    """

    best: Moment
    choice: Moment
    cost: PairedDifference

    @classmethod
    def of(cls, moments: Sequence[Moment]) -> Picked | None:
        """None where no return or no validation error is known."""
        best = _best(moments)
        validated = [moment for moment in moments if "validation" in moment.errors]
        if best is None or not validated:
            return None
        choice = min(validated, key=lambda moment: moment.errors["validation"].value)
        return cls(best, choice, paired_difference(best.returns, choice.returns))

    @property
    def reading(self) -> Reading:
        """The cost."""
        return Reading(self.cost.mean_difference, self.cost.ci95)

    def words(self) -> str:
        """A clause."""
        if self.choice is self.best:
            return f"picking by the lowest validation error takes the best of them, step {self.best.step}"
        found = f"picking by the lowest validation error takes step {self.choice.step}"
        if not self.reading.known:
            return f"{found}; the best is step {self.best.step}, and they share no episode without failure"
        if self.reading.low > 0:
            return f"{found}, which returns {self.reading.text()} less than the best, step {self.best.step}"
        return (
            f"{found}; that the best, step {self.best.step}, returns more "
            f"({self.reading.text(signed=True)}) cannot be told"
        )


def track_chapter(run: RunResult) -> Chapter:
    """Of `track`."""
    found = run.result
    moments = [Moment.of(checkpoint) for checkpoint in found["checkpoints"]]
    told = {name: found["correlations"][name] for name in SETS}
    correlations = {name: float(value) for name, value in told.items() if not skipped(value)}
    silent = {name: skipped(value) for name, value in told.items() if name not in correlations}
    picked = Picked.of(moments)
    where = f"{found['manifest'].get('run', run.name)} on {run.env}"
    clauses = [_correlation_words(correlations, silent, len(moments)), picked.words() if picked else _unpicked(moments)]
    return Chapter(
        f"{where}, over its training",
        f"Over {len(moments)} checkpoints, {'; '.join(clauses)}.",
        _numbers(moments, picked, correlations),
        [
            Section("What it earns", _return_figures(moments, picked), _unplayed(moments)),
            Section(
                "How far it is from the oracle",
                _error_figures(moments, found, correlations),
                _unmeasured(moments, silent),
            ),
            Section("Checkpoint by checkpoint: return and squared errors", table=_table(moments, picked)),
        ],
        [*found["manifest"].get("notes", ()), *_notes(moments, picked, correlations)],
    )


def _best(moments: Sequence[Moment]) -> Moment | None:
    """The highest return; not where episodes failed, as the others may be the better ones."""
    played = [moment for moment in moments if moment.mean.known and not moment.failed]
    return max(played, key=lambda moment: moment.mean.value, default=None)


def _correlation_words(correlations: Mapping[str, float], silent: Mapping[str, str], num_checkpoints: int) -> str:
    """Which errors go with the return, the closest first, and how far that is to be believed."""
    if not correlations:
        return f"whether an error goes with the return cannot be told ({next(iter(silent.values()))})"
    groups: dict[str, list[str]] = {}
    for name, value in sorted(correlations.items(), key=lambda entry: entry[1]):
        predicate = _PREDICATES[0 if value <= -GOES else 1 if value >= GOES else 2]
        groups.setdefault(predicate, []).append(f"the {SETS[name]} error ({value:+.2f})")
    ordered = [(words, groups[words]) for words in _PREDICATES if words in groups]
    clauses = [f"{listed(names)} {'goes' if len(names) == 1 else 'go'} {words}" for words, names in ordered]
    if num_checkpoints < 3:
        hint = ", which says nothing: of two checkpoints every correlation is 1 or -1"
    elif num_checkpoints < FEWEST:
        hint = ", a hint and no more with so few of them"
    else:
        hint = ""
    return f"by Spearman's correlation {', '.join(clauses)}{hint}"


def _unpicked(moments: Sequence[Moment]) -> str:
    if not any(moment.mean.known for moment in moments):
        return "every episode of all of them failed"
    if _best(moments) is None:
        return "which is the best cannot be told: episodes failed at every one of them"
    return "none can be picked by the validation error, which was not measured"


def _numbers(moments: Sequence[Moment], picked: Picked | None, correlations: Mapping[str, float]) -> list[KeyNumber]:
    best = _best(moments)
    numbers = [KeyNumber("return of the best checkpoint", best.mean, f"step {best.step}")] if best else []
    if picked:
        choice = picked.choice
        numbers.append(KeyNumber("return at the lowest validation error", choice.mean, f"step {choice.step}"))
        if choice is not best:
            meaning = f"the best minus the picked one, over {picked.cost.n} shared episodes"
            numbers.append(KeyNumber("cost of picking by validation", picked.reading, meaning, signed=True))
    meaning = "Spearman; -1: the lower the error, the higher the return"
    return numbers + [
        KeyNumber(f"correlation with the {SETS[name]} error", Reading(value), meaning, signed=True)
        for name, value in correlations.items()
    ]


def _return_figures(moments: Sequence[Moment], picked: Picked | None) -> list[Figure]:
    best = _best(moments)
    if best is None:
        return []
    curve = _line("return", [(moment.step, moment.mean) for moment in moments if moment.mean.known], "main")
    words = f"The highest is {best.mean.text()}, at step {best.step}"
    if picked is None:
        markers = [("best return", best.step, "control")]
    elif picked.choice is best:
        markers = [("best return and lowest validation error", best.step, "control")]
        words += ", where the validation error is lowest too"
    else:
        choice = picked.choice
        markers = [("best return", best.step, "control"), ("lowest validation error", choice.step, "plain")]
        words += f"; at step {choice.step}, of the lowest validation error, it is {choice.mean.text()}"
    title = "Return over the training"
    drawing = curve_figure(
        [curve],
        title,
        f"{words}.",
        _STEP_AXIS,
        "mean return",
        markers=[Marker(name, Reading(step), role) for name, step, role in markers],
        along=[moment.step for moment in moments],
    )
    caption = (
        f"A dot is a checkpoint, over {len(moments[0].returns)} episodes with the same seeds for all; "
        "the band is the 95 % interval of its mean."
    )
    return [Figure(title, drawing, f"{words}.", caption)]


def _error_figures(moments: Sequence[Moment], found: Record, correlations: Mapping[str, float]) -> list[Figure]:
    curves, words = [], []
    for name, role in SET_ROLES.items():
        points = [(moment.step, moment.errors[name]) for moment in moments if name in moment.errors]
        if points:
            curves.append(_line(SETS[name], points, role))
            lowest, error = min(points, key=lambda point: point[1].value)
            beside = f", correlation with the return {correlations[name]:+.2f}" if name in correlations else ""
            words.append(f"{SETS[name]} lowest at step {lowest} with {error.text()}{beside}")
    if not curves:
        return []
    title = "Errors over the training"
    told = f"{'; '.join(words)}.".capitalize()
    drawing = curve_figure(
        curves,
        title,
        told,
        _STEP_AXIS,
        "mean squared error, scaled actions",
        include=[0.0],
        along=[moment.step for moment in moments],
    )
    oracle = found["checkpoints"][0]["policy_error"]["oracle"]
    caption = f"Oracle: {oracle}. Over states of the training data, of held-out data, and those that it visits; "
    return [Figure(title, drawing, told, caption + "bands are 95 % intervals.")]


def _line(name: str, points: Sequence[tuple[int, Reading]], role: str) -> Line:
    readings = [reading for _, reading in points]
    return Line(
        name,
        [float(step) for step, _ in points],
        [reading.value for reading in readings],
        [reading.low for reading in readings],
        [reading.high for reading in readings],
        role,
        _DOT,
    )


def _table(moments: Sequence[Moment], picked: Picked | None) -> Table:
    rows = []
    for moment in moments:
        told = {
            "best return": picked is not None and moment is picked.best,
            "lowest validation error": picked is not None and moment is picked.choice,
        }
        errors = [moment.errors.get(name, Reading()) for name in SETS]
        meaning = ", ".join(words for words, holds in told.items() if holds)
        rows.append(TableRow(str(moment.step), [moment.mean, *errors], meaning))
    return Table(("step", "return", *SETS.values()), rows)


def _unplayed(moments: Sequence[Moment]) -> list[str]:
    steps = [str(moment.step) for moment in moments if not moment.mean.known]
    return [f"The return at step {listed(steps)}: every episode failed"] if steps else []


def _unmeasured(moments: Sequence[Moment], silent: Mapping[str, str]) -> list[str]:
    """A line for each set and reason, and for correlations that are missing although their errors are there."""
    lines = []
    for name, words in SETS.items():
        steps: dict[str, list[str]] = {}
        for moment in moments:
            if name in moment.missing:
                steps.setdefault(moment.missing[name], []).append(str(moment.step))
        for reason, places in steps.items():
            where = "" if len(places) == len(moments) else f" at step {listed(places)}"
            lines.append(f"{words.capitalize()} error{where}: {reason}")
        if name in silent and silent[name] not in steps:
            lines.append(f"Correlation of the {words} error with the return: {silent[name]}")
    return lines


def _notes(moments: Sequence[Moment], picked: Picked | None, correlations: Mapping[str, float]) -> list[str]:
    notes = []
    if correlations:
        notes += [
            f"An error is said to go with the return where the correlation is {-GOES:g} or below, against it from "
            f"{GOES:g}; the order of several that go with it is not tested.",
            "Checkpoints of one run are alike and change together as training goes on: there is no interval for these "
            "correlations, a shared trend is enough to make them large, and another training seed may show others.",
            "Where track was given no --oracle, the critic of the last checkpoint says what is right, which may favour "
            "the late ones.",
        ]
    if picked and picked.choice is not picked.best:
        notes.append(
            "The best checkpoint was found on the very episodes that its return is of, which flatters it: the cost of "
            "picking by validation is rather less."
        )
        if picked.cost.failed:
            notes.append(
                f"{picked.cost.failed} episodes failed in one of the two that the cost compares: it is of the rest."
            )
    failed = {moment.step: moment.failed for moment in moments if moment.failed}
    if failed:
        words = listed([f"{count} at step {step}" for step, count in failed.items()])
        notes.append(
            f"Episodes that failed do not count: {words}. Such a checkpoint is not called the best, whatever its other "
            "episodes return, and nothing is decided against it."
        )
    if len({moment.step for moment in moments}) < len(moments):
        notes.append("Several checkpoints have the same step: the folder holds more than one training run.")
    return notes
