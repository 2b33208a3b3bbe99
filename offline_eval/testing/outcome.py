"""What an assertion found, as a record and as the small table that a failing test prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from offline_eval.errors import OfflineEvalError
from offline_eval.stats.intervals import Interval
from offline_eval.stats.samples import finite_or_none

HOLDS, VIOLATED, UNDECIDED = "holds", "violated", "undecided"


@dataclass(frozen=True)
class Row:
    """One claim beside what was seen.

    Attributes:
        label: what the value is.
        value: as seen in all episodes.
        interval: holds at all times at once; None where nothing is estimated.
        threshold: what was claimed, in words.
    """

    label: str
    value: float
    interval: Interval | None
    threshold: str

    def to_json(self) -> dict[str, Any]:
        """Plain data; None for an end that is not known."""
        return {
            "label": self.label,
            "value": finite_or_none(self.value),
            "interval": None if self.interval is None else self.interval.to_json(),
            "threshold": self.threshold,
        }


@dataclass(frozen=True)
class Outcome:
    """What an assertion found.

    Attributes:
        assertion: its name.
        verdict: "holds", "violated" or "undecided".
        agent: file or class of the agent.
        env: id of the environment.
        rows: one a claim.
        episodes: played, of each agent or variant.
        budget: episodes that the plan offered.
        seeds: of those played, in words.
        alpha: declared false-alarm rate; None where nothing is estimated.
        assumption: what the rate rests on.
        command: shows more.
        notes: what a reader should know.
    """

    assertion: str
    verdict: str
    agent: str
    env: str
    rows: tuple[Row, ...]
    episodes: int
    budget: int
    seeds: str
    alpha: float | None
    assumption: str
    command: str
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**vars(self), "rows": [row.to_json() for row in self.rows], "notes": list(self.notes)}

    def __str__(self) -> str:
        lines: list[tuple[str, str]] = []
        for row in self.rows:
            lines += [("value", f"{row.value:.6g}  {row.label}"), ("threshold", row.threshold)]
            if row.interval is not None:
                lines.insert(-1, ("interval", _interval(row.interval)))
        if self.budget:
            lines += [("episodes", f"{self.episodes} of {self.budget}"), ("seeds", self.seeds)]
        lines += [("assumes", self.assumption), *(("note", note) for note in self.notes), ("more", self.command)]
        verb = "holds" if self.verdict == HOLDS else f"is {self.verdict}"
        rate = "" if self.alpha is None else f" (false-alarm rate {self.alpha:.3g})"
        head = f"{self.assertion} {verb}: {self.agent} in {self.env}{rate}"
        return "\n".join([head, *(f"  {name:10s} {text}" for name, text in lines if text)])


def _interval(interval: Interval) -> str:
    each = 0.5 * (1.0 - interval.level)
    caveat = f"; {interval.caveat}" if interval.caveat else f", either end wrong in {each:.2g} of runs at most"
    return f"[{interval.low:.6g}, {interval.high:.6g}]{caveat}"


class _Found(OfflineEvalError, AssertionError):
    """What a test sees when an assertion does not hold; the outcome is in `outcome`."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(str(outcome))
        self.outcome = outcome

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.outcome,)


class Violated(_Found):
    """The property was shown not to hold."""


class Undecided(_Found):
    """The plan was spent, and neither the property nor its opposite was shown."""


class UndecidedWarning(UserWarning):
    """The same where a warning was asked for."""
