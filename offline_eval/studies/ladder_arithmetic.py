"""Returns to rungs: pairs, a rank test, the ladder's range and what a gain is in its units."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike

from offline_eval.stats import Interval, PairedDifference, paired_difference
from offline_eval.stats.intervals import LEVEL
from offline_eval.studies.diagnosis_records import (
    BEHAVIOUR,
    CONTROL,
    ORACLE,
    POLICY,
    Rung,
    Share,
)
from offline_eval.types import Array

RANK_LEVEL = 0.025
"""Of a rank test that stands in for an interval."""


def signed_rank_p_value(differences: ArrayLike) -> float:
    """Two-sided Wilcoxon signed-rank test of differences (n,); 0 does not count, 1 where none is left or one is NaN."""
    from scipy.stats import wilcoxon

    given = np.asarray(differences, dtype=np.float64)
    if np.isnan(given).any():  # an episode failed: nobody knows where it would stand
        return 1.0
    given = given[given != 0.0]
    return 1.0 if len(given) == 0 else float(wilcoxon(given).pvalue)


def scaled(difference: PairedDifference, unit: float) -> Share:
    """A difference in units of a range; unknown where the range is 0."""
    if not unit > 0.0:
        return Share(nan, Interval(-np.inf, np.inf, "none", "the ladder has no range"))
    interval = difference.ci95
    return Share(
        difference.mean_difference / unit,
        replace(interval, low=interval.low / unit, high=interval.high / unit),
    )


def against(rung: Rung, other: Rung) -> tuple[PairedDifference, float]:
    """The difference of two rungs on the same starts, and the p-value of its rank test: 1 where an episode failed."""
    difference = paired_difference(rung.returns, other.returns)
    return difference, 1.0 if difference.failed else signed_rank_p_value(rung.returns - other.returns)


def is_gain(difference: PairedDifference, p_value: float | None, num_tried: int = 1) -> bool:
    """Whether a mean difference is above 0 beyond chance, by its interval or by the rank test.

    Two catastrophic episodes break an interval and not the ranks; small wins that do not outweigh them are no gain.

    Args:
        difference: of returns.
        p_value: of its rank test.
        num_tried: rungs among which this one was picked: the level is divided by it (Bonferroni).
    """
    if not difference.mean_difference > 0.0:
        return False
    by_rank = p_value is not None and p_value < RANK_LEVEL / num_tried and difference.wins > difference.losses
    return by_rank or lower_end(difference, num_tried) > 0.0


def lower_end(difference: PairedDifference, num_tried: int = 1) -> float:
    """The lower end of the interval, at a level divided by `num_tried`: stretched as Student's t is."""
    if num_tried == 1 or difference.n < 2:
        return difference.ci95.low
    from scipy.special import stdtrit

    degrees, tail = difference.n - 1, (1.0 - LEVEL) / 2.0
    stretch = float(stdtrit(degrees, 1.0 - tail / num_tried) / stdtrit(degrees, 1.0 - tail))
    return difference.mean_difference - stretch * (difference.mean_difference - difference.ci95.low)


def paired_to_policy(rung: Rung, policy: Rung, control: Rung | None) -> Rung:
    """The rung with its differences to the policy and to its control."""
    paired, p_value = against(rung, policy)
    if control is None or control.name == rung.name:
        return replace(rung, paired=paired, rank_p_value=p_value)
    against_control, control_p_value = against(rung, control)
    return replace(
        rung,
        paired=paired,
        rank_p_value=p_value,
        control=control.name,
        against_control=against_control,
        control_p_value=control_p_value,
    )


def range_of(rungs: list[Rung], top: float = -inf) -> tuple[float, float]:
    """From the worse of policy and control to the best rung, and the standard error of that.

    The control counts at both ends, so that the range does not vanish where the policy is the worst rung, or the best.
    A rung by Q that does harm does not stretch it. Behaviour and oracle are not in it: the one has starts of its own,
    the other would make the range another one wherever somebody has an oracle.

    Args:
        rungs: played in episodes.
        top: mean return of the best rung by Q with the truth at its side: it may have been played from fewer starts.
    """
    paired = [rung for rung in rungs if rung.name not in (BEHAVIOUR, ORACLE) and rung.unit == "episode"]
    # Where episodes failed, the rest may be the better ones: such a rung stretches the range only if all are so.
    whole = [rung for rung in paired if np.isfinite(rung.returns).all()]
    paired = [rung for rung in paired if np.isfinite(rung.returns).any()]
    low = min((rung for rung in paired if rung.name in (POLICY, CONTROL)), key=_mean)
    high = max(whole or paired, key=_mean)
    return max(_mean(high), top) - _mean(low), _error(high.returns - low.returns)


def _mean(rung: Rung) -> float:
    return float(np.nanmean(rung.returns))


def _error(returns: Array) -> float:
    counted = returns[np.isfinite(returns)]
    return float(counted.std(ddof=1) / sqrt(len(counted))) if len(counted) > 1 else nan
