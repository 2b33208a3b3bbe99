"""Adding episodes until a question is decided, and saying what was found."""

from __future__ import annotations

import unittest
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from offline_eval.environments import EnvironmentLike, environment_id
from offline_eval.episodes import EpisodePlan
from offline_eval.errors import InputError, bare
from offline_eval.stats import decisions
from offline_eval.stats.decisions import Question
from offline_eval.stats.sequential import without_spread
from offline_eval.testing import outcome as words
from offline_eval.testing.outcome import Outcome, Row, Undecided, UndecidedWarning, Violated
from offline_eval.testing.session import current
from offline_eval.testing.subjects import Subject, spoken
from offline_eval.types import FloatArray

IfUndecided = Literal["fail", "skip", "warn"]
Measure = Callable[[EpisodePlan], FloatArray]
"""Plays some episodes: columns (num_episodes, num_columns), NaN in a row that says nothing."""

DECLARE_BOUNDS = "declare `bounds=(low, high)`, the least and the largest that one can be, and the test is exact"
"""What shows something of a number that is the same in every episode."""

_BATCH = 32
_VERDICTS = {
    decisions.HOLDS: words.HOLDS,
    decisions.VIOLATED: words.VIOLATED,
    decisions.UNDECIDED: words.UNDECIDED,
}


@dataclass(frozen=True)
class Gathered:
    """What the episodes of a plan said.

    Attributes:
        verdict: "holds", "violated" or "undecided".
        columns: (num_episodes, num_columns) of those that said something.
        played: episodes.
    """

    verdict: str
    columns: FloatArray
    played: int


def check_undecided(undecided: str) -> None:
    """Raise where it is none of the three words."""
    if undecided not in ("fail", "skip", "warn"):
        raise InputError("undecided", 'must be "fail", "skip" or "warn"', undecided)


def check_budget(question: Question, plan: EpisodePlan) -> None:
    """Raise where the plan is too short for any decision, or counts an episode twice."""
    if len({repr(entry) for entry in plan}) < len(plan):
        rule = "must not hold an episode twice: it says nothing the second time"
        raise InputError("plan", rule, bare("an entry that repeats another"), "EpisodePlan.seeded(500)")
    if len(plan) < question.fewest:
        raise InputError(
            "plan",
            f"must hold at least {question.fewest} episodes where no bounds are declared",
            len(plan),
            "declare `bounds` on the return, or allow more episodes",
        )


def gather(question: Question, plan: EpisodePlan, measure: Measure) -> Gathered:
    """Play the plan, a batch at a time, until the question is decided.

    The batches do not matter to the verdict: it is that of the first episode at which the question is decided.
    """
    check_budget(question, plan)
    found: list[FloatArray] = []
    played = 0
    while True:
        batch = max(_BATCH, question.fewest - played)
        part = EpisodePlan(plan.entries[played : played + batch])
        rows = np.asarray(measure(part), dtype=np.float64)
        played += len(part)
        found.append(rows[np.isfinite(rows).all(axis=1)])
        columns = np.concatenate(found)
        verdict = int(question.decide(columns).verdict) if len(columns) else decisions.UNDECIDED
        if verdict != decisions.UNDECIDED or played == len(plan):
            break
    if not len(columns):
        raise InputError("plan", "must hold an episode that can be measured", bare(f"none among {played}"))
    return Gathered(_VERDICTS[verdict], columns, played)


def rows_of(question: Question, columns: FloatArray) -> tuple[Row, ...]:
    """The claims beside their means."""
    found = []
    for claim in question.deciding(columns):
        values = claim.values(columns)
        found.append(Row(claim.label, float(values.mean()), question.sequence(claim).interval(values), str(claim.side)))
    return tuple(found)


def conclude(
    assertion: str,
    subject: Subject,
    env: EnvironmentLike,
    question: Question,
    plan: EpisodePlan,
    measure: Measure,
    undecided: IfUndecided,
    show: Callable[[int], str],
    rows: Callable[[Question, FloatArray], tuple[Row, ...]] = rows_of,
    notes: Sequence[str] = (),
    way_out: str = DECLARE_BOUNDS,
) -> Outcome:
    """Decide a question by playing, and say what was found.

    Args:
        assertion: its name.
        subject: whom it is about.
        env: where.
        question: what is asked.
        plan: at most these episodes.
        measure: plays some of them.
        undecided: what happens where the plan is spent before the question is decided.
        show: the command that shows more, given how many episodes were played.
        rows: the table's rows.
        notes: what a reader should know.
        way_out: what helps where no bounds are declared and every episode gave the same number.

    Raises:
        Violated: the question is decided against the agent.
        Undecided: it is not decided, and that counts as failing.
        unittest.SkipTest: it is not decided, and that counts as a reason to skip.
    """
    check_undecided(undecided)
    gathered = gather(question, plan, measure)
    notes = [*subject.notes, *notes]
    if silent := gathered.played - len(gathered.columns):
        notes.append(f"{silent} episodes said nothing and were left out")
    if gathered.verdict == words.UNDECIDED and _all_equal(question, gathered.columns):
        notes.append(f"{len(gathered.columns)} equal numbers do not show how far others may lie from them: {way_out}")
    elif gathered.verdict == words.UNDECIDED:
        notes.append("neither the property nor its opposite was shown: allow more episodes, or ask for less")
    found = Outcome(
        assertion=assertion,
        verdict=gathered.verdict,
        agent=subject.name,
        env=environment_id(env),
        rows=rows(question, gathered.columns),
        episodes=gathered.played,
        budget=len(plan),
        seeds=spoken(plan, gathered.played),
        alpha=question.alpha,
        assumption=question.sequence(question.claims[0]).assumption,
        command=show(gathered.played),
        notes=tuple(notes),
    )
    return settle(found, undecided)


def _all_equal(question: Question, columns: FloatArray) -> bool:
    """Whether a claim is open only because its numbers do not vary."""
    return question.bounds is None and any(
        bool(without_spread(claim.values(columns))[-1]) for claim in question.deciding(columns)
    )


def settle(found: Outcome, undecided: IfUndecided = "fail") -> Outcome:
    """Tell the session, and raise where the property does not hold."""
    current().on_outcome(found)
    if found.verdict == words.VIOLATED:
        raise Violated(found)
    if found.verdict == words.UNDECIDED:
        if undecided == "fail":
            raise Undecided(found)
        if undecided == "skip":
            raise unittest.SkipTest(str(found))
        warnings.warn(UndecidedWarning(str(found)), stacklevel=4)
    return found


def exactly(assertion: str, subject: Subject, env: str, row: Row, holds: bool, **fields: Any) -> Outcome:
    """The outcome of a comparison without chance: it holds or it does not."""
    verdict = words.HOLDS if holds else words.VIOLATED
    nothing: dict[str, Any] = {"episodes": 0, "budget": 0, "seeds": "", "command": ""}
    fields = {**nothing, "alpha": None, "assumption": "exact: nothing is estimated", **fields}
    fields["notes"] = (*subject.notes, *fields.get("notes", ()))
    return settle(Outcome(assertion, verdict, subject.name, env, (row,), **fields))
