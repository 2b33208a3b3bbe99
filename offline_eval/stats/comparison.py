"""Two variants: episode by episode on the same plan, or training seed against training seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, isfinite, nan
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from offline_eval.errors import InputError, bare
from offline_eval.stats.intervals import LEVEL, Interval, mean_interval, unbounded, welch_interval
from offline_eval.stats.samples import finite_or_none, returns_of
from offline_eval.stats.summary import Summary
from offline_eval.types import FloatArray

POWER = 0.8
UNKNOWN = "what they would have paid is unknown"


@dataclass(frozen=True)
class PairedDifference:
    """A minus B, episode by episode on the same plan.

    Attributes:
        n: pairs that count.
        failed: pairs in which either return is NaN.
        mean_difference: mean of a - b over the other pairs; positive where A is better.
        ci95: its interval; infinite where a pair failed, since nobody knows what it would have paid: a variant that
            fails where it is bad must not look better for it.
        wins: pairs with a > b.
        ties: pairs with a == b, to the bit.
        losses: pairs with a < b.
        sign_test_p_value: exact two-sided probability of wins and losses this uneven if both were as likely; ties do
            not count. It asks how often A wins, `ci95` by how much: they may disagree.
        required_n: pairs with which a two-sided test at 5 % tells the two apart four times out of five (power 80 %),
            *if* the true difference and spread were the ones seen here. A rough guide: the difference seen is itself
            uncertain. None where no number of episodes would do (difference zero) or the spread is unknown.
        unit: what a pair is.
    """

    n: int
    failed: int
    mean_difference: float
    ci95: Interval
    wins: int
    ties: int
    losses: int
    sign_test_p_value: float
    required_n: int | None
    unit: str = "episode"

    def to_json(self) -> dict[str, Any]:
        """Plain data; None for what is NaN or infinite, the mark as a sentence in `caveat`."""
        return {
            "n": self.n,
            "failed": self.failed,
            "mean_difference": finite_or_none(self.mean_difference),
            "ci95": self.ci95.to_json(),
            "caveat": self.ci95.caveat,
            "wins": self.wins,
            "ties": self.ties,
            "losses": self.losses,
            "sign_test_p_value": finite_or_none(self.sign_test_p_value),
            "required_n": self.required_n,
            "unit": self.unit,
        }


def paired_difference(a: ArrayLike, b: ArrayLike) -> PairedDifference:
    """Compare returns a (n,) with returns b (n,) of the same plan entries; NaN where an episode failed.

    Raises:
        InputError: not rows of numbers, empty, infinite, or of different lengths.
    """
    first, second = returns_of("a", a), returns_of("b", b)
    if len(first) != len(second):
        way_out = "play both on the same plan; `compare_seeds` compares what is not paired"
        raise InputError("b", f"must pair with `a`, which has {len(first)} returns", bare(f"{len(second)}"), way_out)
    differences = first - second
    differences = differences[~np.isnan(differences)]
    n, failed = len(differences), len(first) - len(differences)
    if n == 0:
        return PairedDifference(0, failed, nan, unbounded("every pair failed"), 0, 0, 0, nan, None)
    wins, losses = int(np.sum(differences > 0)), int(np.sum(differences < 0))
    return PairedDifference(
        n=n,
        failed=failed,
        mean_difference=float(differences.mean()),
        ci95=unbounded(f"{failed} of {n + failed} pairs failed: {UNKNOWN}") if failed else mean_interval(differences),
        wins=wins,
        ties=n - wins - losses,
        losses=losses,
        sign_test_p_value=nan if failed else _sign_test(wins, losses),
        required_n=None if failed else _required_n(differences),
    )


@dataclass(frozen=True)
class SeedComparison:
    """A minus B where each was trained several times: training seeds are counted, never their episodes.

    Attributes:
        mean_difference: mean over A's seeds minus mean over B's.
        ci95: Welch's interval over the seeds' means.
        a_means: mean return of each of A's seeds.
        b_means: mean return of each of B's seeds.
        failed: episodes whose return is NaN; where there is one, the interval is infinite.
        unit: what was counted.
    """

    mean_difference: float
    ci95: Interval
    a_means: tuple[float, ...]
    b_means: tuple[float, ...]
    failed: int
    unit: str = "training seed"

    def to_json(self) -> dict[str, Any]:
        """Plain data; None for an infinite end, the mark as a sentence in `caveat`."""
        return {
            "mean_difference": self.mean_difference,
            "ci95": self.ci95.to_json(),
            "caveat": self.ci95.caveat,
            "n": [len(self.a_means), len(self.b_means)],
            "failed": self.failed,
            "unit": self.unit,
        }


def compare_seeds(a: Sequence[ArrayLike], b: Sequence[ArrayLike]) -> SeedComparison:
    """Compare two algorithms, each given as one entry a training seed: that seed's returns, or their mean.

    A hundred episodes of one trained agent tell how good that agent is, and nothing about the next training run: pooled
    as if they were seeds, they make the interval several times too narrow.

    Raises:
        InputError: no seed, or a seed without a finite return.
    """
    (a_means, a_failed), (b_means, b_failed) = _seed_means("a", a), _seed_means("b", b)
    failed = a_failed + b_failed
    return SeedComparison(
        mean_difference=float(a_means.mean() - b_means.mean()),
        ci95=unbounded(f"{failed} episodes failed: {UNKNOWN}") if failed else welch_interval(a_means, b_means),
        a_means=tuple(a_means.tolist()),
        b_means=tuple(b_means.tolist()),
        failed=failed,
    )


def _seed_means(argument: str, seeds: Sequence[ArrayLike]) -> tuple[FloatArray, int]:
    if len(seeds) == 0:
        raise InputError(argument, "must hold at least one training seed", seeds)
    means, failed = [], 0
    for index, values in enumerate(seeds):
        returns = returns_of(f"{argument}[{index}]", np.atleast_1d(values))
        finite = returns[~np.isnan(returns)]
        if len(finite) == 0:
            raise InputError(f"{argument}[{index}]", "must hold a finite return", values, "leave this seed out")
        means.append(finite.mean())
        failed += len(returns) - len(finite)
    return np.array(means), failed


def _sign_test(wins: int, losses: int) -> float:
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(wins, losses), wins + losses, 0.5)))


def _required_n(differences: FloatArray) -> int | None:
    """Guenther's correction of the normal approximation: at most one pair short of the noncentral t test."""
    if len(differences) < 2 or differences.mean() == 0:
        return None
    from scipy.special import ndtri

    z_level, z_power = float(ndtri(0.5 + LEVEL / 2)), float(ndtri(POWER))
    with np.errstate(over="ignore"):
        needed = np.square((z_level + z_power) * differences.std(ddof=1) / differences.mean()) + z_level**2 / 2
    return ceil(needed) if isfinite(needed) else None


DEPENDENT = "the episodes are not independent: each goes on from what the one before has learnt; see the curve"


def summary_without_interval(summary: Summary) -> Summary:
    """The summary with marked, infinite intervals and no standard error."""
    nothing = unbounded(DEPENDENT)
    return replace(summary, standard_error=nan, ci95=nothing, iqm_ci95=nothing)


def difference_without_interval(difference: PairedDifference) -> PairedDifference:
    """The difference with a marked, infinite interval, no test and no number of episodes to plan for."""
    return replace(difference, ci95=unbounded(DEPENDENT), sign_test_p_value=nan, required_n=None)
