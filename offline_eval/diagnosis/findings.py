"""What of a ladder decides: three paired differences, each with an interval and a rank test, in units of its range.

- what the best rung *by Q* gains over the policy: the critic knew it, the policy does not do it;
- how much of that is gained outside of the data's region;
- what the *truth* still gains over that rung, among candidates that include every choice of Q: nobody knew it but the
  simulator, so the critic should have.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, inf, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike

from offline_eval.diagnosis.records import (
    BEHAVIOUR,
    BEST_OF_N,
    CONTROL,
    INSIDE,
    OPEX_STEP,
    ORACLE,
    OUTSIDE,
    POLICY,
    TRUTH,
    TRUTH_INSIDE,
    Ladder,
    Rung,
    Share,
)
from offline_eval.stats import Interval, PairedDifference, paired_difference
from offline_eval.stats.intervals import LEVEL, too_few
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


_RESAMPLES = 2000
_LEVEL = 0.95
_RESAMPLE_STREAM = 17


@dataclass(frozen=True)
class Thresholds:
    """From where on a number counts, in units of the ladder's range.

    Attributes:
        gain: of a rung by Q.
        truth: of the truth over the rungs by Q.
        doubtful: from where on such a gain, a lower bound of what is left, keeps an agent from being called healthy.
        healthy: upper end of both intervals below which nothing better is said to be within reach.
        misled: a loss by the truth from which on its labels count as noise.
        mild: a bottleneck worth less than this is called mild.
    """

    gain: float = 0.08
    truth: float = 0.08
    doubtful: float = 0.05
    healthy: float = 0.16
    misled: float = 0.03
    mild: float = 0.2


@dataclass(frozen=True)
class Finding:
    """A gain in units of a range, and whether it is there.

    Attributes:
        share: the gain and its interval.
        n: pairs.
        is_gain: whether it is above 0 beyond chance, by its interval or by the rank test.
        required_n: pairs with which half of the interval is as wide as half of the threshold, or of the gain seen.
    """

    share: Share
    n: int
    is_gain: bool
    required_n: int | None

    @property
    def estimate(self) -> float:
        """The gain."""
        return self.share.estimate

    @property
    def high(self) -> float:
        """The upper end of its interval."""
        return self.share.ci95.high


_NOTHING = Finding(Share(0.0, Interval(0.0, 0.0, "the policy itself")), 0, False, None)


def finding(
    difference: PairedDifference, p_value: float | None, unit: float, threshold: float, num_tried: int = 1
) -> Finding:
    """A paired difference as a gain in units of a range.

    Args:
        difference: of returns.
        p_value: of its rank test: two catastrophic episodes break the interval, and not this.
        unit: the range.
        threshold: that the gain is held against.
        num_tried: rungs among which this one was picked.
    """
    share = scaled(difference, unit)
    half = (share.ci95.high - share.ci95.low) / 2.0
    required = None
    if np.isfinite(half) and difference.n > 1:
        wanted = max(threshold, abs(share.estimate)) / 2.0
        required = ceil(difference.n * (half / wanted) ** 2)
    return Finding(share, difference.n, is_gain(difference, p_value, num_tried), required)


@dataclass(frozen=True)
class Reading:
    """What of a ladder decides.

    Attributes:
        by_q: gain of the better rung by Q over the policy.
        is_base: whether that rung is what the truth goes on from; else the policy is, and the gain is next to nothing.
        beats_control: whether that rung beats a random pick from the data's actions.
        credited: what Q itself is worth: the gain over the better of policy and that random pick. Where the policy is
            lost, any action of the data helps it, and Q has not earned that.
        outside: share of that gain that is gained outside of the data's region, with an interval; None without it.
        inside_gain: gain inside only; None without it.
        outside_gain: gain outside only; it is told the more surely, since it leaves every other episode as it was.
        regret_ratio: how bad a decision is by Q at the edge of the region over outside; None where it is not known.
        remaining: what the truth gains over the best policy so far, or over that rung by Q over which it gains least,
            on the same starts: one whose gain is large and uncertain may have found as much. None without truth.
        control: gain of a random pick from the data's actions over the policy.
        oracle: gain of the oracle over the policy; None without one.
        has_critic: whether any rung was played by Q.
        is_flat: whether the rungs differ by no more than chance.
        truth_inside: gain of the truth over the policy inside of the data's region only; None where it was not asked.
        share_inside: of what the truth gains over the policy everywhere; None likewise.
        truth_unit: what the truth was played on: "episode", or "segment" of one.
    """

    by_q: Finding
    is_base: bool
    beats_control: bool
    credited: Finding
    outside: Share | None
    inside_gain: Finding | None
    outside_gain: Finding | None
    regret_ratio: float | None
    remaining: Finding | None
    control: Finding
    oracle: Finding | None
    has_critic: bool
    is_flat: bool
    truth_inside: Finding | None = None
    share_inside: float | None = None
    truth_unit: str = "episode"


def read(ladder: Ladder, thresholds: Thresholds) -> Reading:
    """Read off a ladder what decides."""
    unit = ladder.range
    policy, best, control = ladder[POLICY], ladder[ladder.best], ladder[CONTROL]
    by_q, credited, beats_control = _NOTHING, _NOTHING, False
    outside, inside_gain, outside_gain = None, None, None
    tried = [rung for name in (BEST_OF_N, OPEX_STEP) if (rung := ladder.get(name)) is not None]
    tried = [rung for rung in tried if rung.paired is not None and rung.paired.ties < rung.paired.n]
    if tried:
        best = best if best.name != POLICY else max(tried, key=lambda rung: rung.summary.mean)
        by_q = _of(best, unit, thresholds.gain, len(tried))
        own = finding(*against(best, control), unit, thresholds.gain)
        beats_control = own.is_gain
        credited = min(by_q, own, key=lambda found: found.estimate)
    if INSIDE in ladder and OUTSIDE in ladder:
        # Picked among the rungs by Q, and then one of two parts.
        inside_gain = _of(ladder[INSIDE], unit, thresholds.gain, 2 * len(tried))
        outside_gain = _of(ladder[OUTSIDE], unit, thresholds.gain, 2 * len(tried))
        outside = share_outside(policy.returns, ladder[INSIDE].returns, ladder[OUTSIDE].returns)
    truth, remaining = ladder.get(TRUTH), None
    if truth is not None and truth.against_control is not None:
        span = unit if ladder.segment_range is None else ladder.segment_range
        remaining = finding(truth.against_control, truth.control_p_value, span, thresholds.truth)
        if truth.unit == "episode" and np.isfinite(policy.returns).all():
            # A rung by Q that acts in a part of the states is one more way to use what the critic knows.
            parts = [rung for name in (INSIDE, OUTSIDE) if (rung := ladder.get(name)) is not None]
            over = _over(truth, [*tried, *parts], unit, thresholds.truth)
            remaining = min([remaining, *over], key=lambda found: found.estimate)
    oracle = ladder.get(ORACLE)
    return Reading(
        by_q=by_q,
        is_base=ladder.best != POLICY,
        beats_control=beats_control,
        credited=credited,
        outside=outside,
        inside_gain=inside_gain,
        outside_gain=outside_gain,
        regret_ratio=_ratio(ladder.regret_edge, ladder.regret_outside),
        remaining=remaining,
        truth_inside=None if TRUTH_INSIDE not in ladder else _of(ladder[TRUTH_INSIDE], unit, thresholds.truth),
        share_inside=_share_inside(ladder),
        truth_unit="episode" if truth is None else truth.unit,
        control=_of(control, unit, thresholds.gain),
        oracle=None if oracle is None else _of(oracle, unit, thresholds.gain),
        has_critic=BEST_OF_N in ladder,
        is_flat=not unit > 2.0 * ladder.range_noise and not any(_differs(rung) for rung in ladder.rungs),
    )


def _share_inside(ladder: Ladder) -> float | None:
    inside, everywhere = ladder.get(TRUTH_INSIDE), ladder.get(TRUTH)
    if inside is None or everywhere is None or inside.paired is None or everywhere.paired is None:
        return None
    whole = everywhere.paired.mean_difference
    return inside.paired.mean_difference / whole if whole > 0.0 else None


def share_outside(policy: Array, inside: Array, outside: Array) -> Share:
    """Share of a rule's gain that it makes outside: what it gains there alone over the sum of both parts."""
    gains = np.stack([inside - policy, outside - policy], axis=1)
    gains = gains[np.isfinite(gains).all(axis=1)]
    generator = np.random.default_rng(_RESAMPLE_STREAM)
    drawn = gains[generator.integers(len(gains), size=(_RESAMPLES, len(gains)))].mean(axis=1)
    shares = _share(drawn)
    known = shares[np.isfinite(shares)]
    estimate = float(_share(gains.mean(axis=0)[None])[0])
    if not len(known) or not np.isfinite(estimate):
        return Share(nan, Interval(-inf, inf, "none", "neither part gains anything"))
    low, high = np.quantile(known, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2]).tolist()
    return Share(estimate, Interval(low, high, "percentile bootstrap over episodes", too_few(len(gains), "episodes")))


def _share(gains: Array) -> Array:
    positive = np.maximum(gains, 0.0)
    with np.errstate(invalid="ignore"):
        return np.asarray(positive[:, 1] / positive.sum(axis=1))


def _over(truth: Rung, rungs: list[Rung], unit: float, threshold: float) -> list[Finding]:
    """What the truth gains over each of these, on the starts that it was played from: the first ones of the plan."""
    first = [replace(rung, returns=rung.returns[: len(truth.returns)]) for rung in rungs]
    return [finding(*against(truth, rung), unit, threshold) for rung in first]


def _ratio(edge: float | None, outside: float | None) -> float | None:
    return None if edge is None or outside is None or not outside > 0.0 else edge / outside


def _differs(rung: Rung) -> bool:
    """Whether it differs from the policy beyond chance, by ranks: a few catastrophes make the range uncertain."""
    return rung.rank_p_value is not None and rung.rank_p_value < RANK_LEVEL


def _of(rung: Rung, unit: float, threshold: float, num_tried: int = 1) -> Finding:
    assert rung.paired is not None
    return finding(rung.paired, rung.rank_p_value, unit, threshold, num_tried)
