"""Questions about means that are decided by adding episodes: is it so, is it not, or can nobody tell yet?

A column is one number an episode: a return, a baseline's return, a share. A claim is about the mean of a weighted sum
of columns, so that differences and ratios are claims too. A question is several claims, decided at the first episode
at which they are shown to hold or shown to be violated; looking more often changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from offline_eval.stats.sequential import (
    AsymptoticMean,
    BoundedMean,
    MeanSequence,
    check_alpha,
    check_bounds,
    check_within,
)
from offline_eval.types import Array, FloatArray

VIOLATED, UNDECIDED, HOLDS = -1, 0, 1

Bounds = tuple[float, float]


@dataclass(frozen=True)
class AtLeast:
    """A mean at or above a threshold."""

    threshold: float

    def holds(self, sequence: MeanSequence, values: Array) -> Array:
        """Whether the first 1, ..., n values show it, each time."""
        return sequence.above(values, float(np.nextafter(self.threshold, -np.inf)))

    def is_violated(self, sequence: MeanSequence, values: Array) -> Array:
        """Whether the first 1, ..., n values show the opposite, each time."""
        return sequence.below(values, self.threshold)

    def __str__(self) -> str:
        return f"at least {self.threshold:.6g}"


@dataclass(frozen=True)
class AtMost:
    """A mean at or below a threshold."""

    threshold: float

    def holds(self, sequence: MeanSequence, values: Array) -> Array:
        """Whether the first 1, ..., n values show it, each time."""
        return sequence.below(values, float(np.nextafter(self.threshold, np.inf)))

    def is_violated(self, sequence: MeanSequence, values: Array) -> Array:
        """Whether the first 1, ..., n values show the opposite, each time."""
        return sequence.above(values, self.threshold)

    def __str__(self) -> str:
        return f"at most {self.threshold:.6g}"


@dataclass(frozen=True)
class Claim:
    """What is said of the mean of a weighted sum of columns.

    Attributes:
        label: what the mean is, in words.
        weights: of the columns.
        side: on which side of which threshold it lies.
    """

    label: str
    weights: tuple[float, ...]
    side: AtLeast | AtMost

    def values(self, columns: Array) -> FloatArray:
        """The weighted sums (..., n) of columns (..., n, num_columns)."""
        terms = [weight * columns[..., index] for index, weight in enumerate(self.weights) if weight != 0]
        return np.asarray(sum(terms[1:], terms[0]))

    def bounds(self, bounds: Sequence[Bounds]) -> Bounds:
        """Of the weighted sum, where each column has its own."""
        ends = [sorted((weight * low, weight * high)) for weight, (low, high) in zip(self.weights, bounds, strict=True)]
        return sum(low for low, _ in ends), sum(high for _, high in ends)


class Decision(NamedTuple):
    """Where a question stands.

    Attributes:
        verdict: (...,) `HOLDS`, `VIOLATED` or `UNDECIDED`.
        episodes: (...,) after how many episodes it was decided; 0 where it is not.
    """

    verdict: Array
    episodes: Array


@dataclass(frozen=True)
class Question:
    """Whether all of some claims hold.

    Each of k claims gets alpha / k on either side: the chance to find a violation where there is none is at most alpha,
    and so is the chance to find that they hold where one of them does not.

    Attributes:
        claims: at least one.
        alpha: false-alarm rate.
        bounds: of each column; None where they are not known.
    """

    claims: tuple[Claim, ...]
    alpha: float = 0.01
    bounds: tuple[Bounds, ...] | None = None

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        for bounds in self.bounds or ():
            check_bounds(bounds)

    def sequence(self, claim: Claim) -> MeanSequence:
        """The limits by which a claim is judged."""
        alpha = self.alpha / len(self.claims)
        if self.bounds is None:
            return AsymptoticMean(alpha)
        return BoundedMean(*claim.bounds(self.bounds), alpha=alpha)

    @property
    def fewest(self) -> int:
        """Episodes before which nothing is decided."""
        return max(self.sequence(claim).fewest for claim in self.claims)

    def decide(self, columns: Array) -> Decision:
        """Judge columns (..., n, num_columns), one row an episode in the order in which they were played.

        Raises:
            InputError: a value lies outside the bounds.
        """
        columns = np.asarray(columns, dtype=np.float64)
        for index, bounds in enumerate(self.bounds or ()):
            check_within(columns[..., index], bounds)
        held, violated = [], []
        for claim in self.claims:
            values, sequence = claim.values(columns), self.sequence(claim)
            held.append(np.logical_or.accumulate(claim.side.holds(sequence, values), axis=-1))
            violated.append(np.logical_or.accumulate(claim.side.is_violated(sequence, values), axis=-1))
        holds, fails = _first(self._together(held)), _first(self._apart(violated))
        verdict = np.where(holds < fails, HOLDS, np.where(fails < holds, VIOLATED, UNDECIDED))
        decided = verdict != UNDECIDED
        return Decision(verdict, np.where(decided, np.minimum(holds, fails), 0))

    def deciding(self, columns: Array) -> tuple[Claim, ...]:
        """The claims that a reader wants to see."""
        return self.claims

    def _together(self, shown: list[Array]) -> Any:
        return np.logical_and.reduce(shown)

    def _apart(self, shown: list[Array]) -> Any:
        return np.logical_or.reduce(shown)


@dataclass(frozen=True)
class Alternative(Question):
    """Whether one of some claims holds; violated where every one of them is."""

    def deciding(self, columns: Array) -> tuple[Claim, ...]:
        """The claim that is nearest to holding."""
        return (max(self.claims, key=lambda claim: claim.values(columns).mean() - claim.side.threshold),)

    def _together(self, shown: list[Array]) -> Any:
        return np.logical_or.reduce(shown)

    def _apart(self, shown: list[Array]) -> Any:
        return np.logical_and.reduce(shown)


def _first(shown: Array) -> Array:
    """The number (...,) of the first of (..., n) that is true, from 1; n + 1 where none is."""
    return np.asarray(np.where(shown.any(axis=-1), shown.argmax(axis=-1) + 1, shown.shape[-1] + 1))
