"""95 % intervals that say so where they do not reach 95 %.

The interval of a mean is the wider of two at each end: Student's t, and Hall's t with the skewness taken out. Student's
alone covers .87 on 20 lognormal returns, Hall's alone .90 on the difference of two such variants; together they cover
.93 and more. `docs/statistics.md` has the table, and what is beyond them. No resampling, no seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot, inf, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from offline_eval.errors import InputError
from offline_eval.stats.samples import complete_sample, finite_or_none
from offline_eval.types import FloatArray

LEVEL = 0.95
"""The level of every interval here: the marks were worked out for it and hold for no other."""

FEWEST_FOR_MEAN = 30
"""Values below which the interval of a mean carries the mark, and so does whatever resamples so few episodes.

A failure in 10 % of the episodes is absent from 20 of them with probability .12: those twenty look like any sample
without failures, and no interval made from them covers the mean. At 30 the probability is .04.
"""

FEWEST_FOR_WILSON = 5
"""Trials below which the interval of a success rate carries the mark."""

_RARE = 0.10
ONE_VALUE = "one value: no spread to measure"
_NO_SPREAD = "all values equal: their spread is unknown"


@dataclass(frozen=True)
class Interval:
    """A 95 % interval, and whether it deserves the name.

    Attributes:
        low: lower end; -inf where the sample says nothing.
        high: upper end.
        method: how it was made.
        caveat: the mark: why it may cover less than `level`, in a few words. Empty where it reaches its level.
        level: nominal coverage.
    """

    low: float
    high: float
    method: str
    caveat: str = ""
    level: float = LEVEL

    @property
    def honest(self) -> bool:
        """Whether it carries no mark."""
        return not self.caveat

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def to_json(self) -> list[float | None]:
        """[low, high], None for an infinite end."""
        return [finite_or_none(self.low), finite_or_none(self.high)]


def mean_interval(values: ArrayLike) -> Interval:
    """Interval of the mean of returns (n,), or of paired differences (n,).

    One value gives an infinite interval, equal values one of no width; both carry the mark, and so does every sample of
    fewer than 30.

    Sources: W. S. Gosset ("Student"), "The probable error of a mean", 1908; P. Hall, "On the removal of skewness by
    transformation", 1992. Taking the wider of the two, and Student's quantile in Hall's formula, are ours.

    Raises:
        InputError: not a row of finite numbers, or empty.
    """
    sample = complete_sample("values", values)
    if len(sample) == 1:
        return unbounded(ONE_VALUE)
    mean = float(sample.mean())
    error, skewness = _error_and_skewness(sample)
    if error == 0:
        return Interval(mean, mean, "no spread", _NO_SPREAD)
    low, high = _limits(mean, error, skewness, len(sample) - 1)
    return Interval(low, high, "wider of Student's and Hall's t", too_few(len(sample), "values"))


def welch_interval(a: ArrayLike, b: ArrayLike) -> Interval:
    """Interval of mean(a) - mean(b) for independent samples (n_a,) and (n_b,) of unequal variance.

    Welch's interval, widened for skewness as in `mean_interval`; marked below 30 values on either side.

    Source: B. L. Welch, "The generalization of 'Student's' problem when several different population variances are
    involved", 1947.

    Raises:
        InputError: not rows of finite numbers, or empty.
    """
    first, second = complete_sample("a", a), complete_sample("b", b)
    size = min(len(first), len(second))
    if size == 1:
        return unbounded(ONE_VALUE)
    difference = float(first.mean() - second.mean())
    (error_a, skewness_a), (error_b, skewness_b) = _error_and_skewness(first), _error_and_skewness(second)
    error = hypot(error_a, error_b)
    if error == 0:
        return Interval(difference, difference, "no spread", _NO_SPREAD)
    share_a, share_b = error_a / error, error_b / error
    skewness = skewness_a * share_a**3 - skewness_b * share_b**3
    degrees = 1 / (share_a**4 / (len(first) - 1) + share_b**4 / (len(second) - 1))
    low, high = _limits(difference, error, skewness, degrees)
    return Interval(low, high, "wider of Welch's and Hall's t", too_few(size, "a side"))


def wilson_interval(successes: int, n: int) -> Interval:
    """Interval of a success rate, in [0, 1].

    Marked with one or two successes or failures, where the coverage dips to .83, and below five trials. An interval
    that misses without a mark comes in at most 9.1 % of samples, whatever the rate and n (computed, not simulated).

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.

    Raises:
        InputError: n < 1, or successes outside 0..n.
    """
    if n < 1:
        raise InputError("n", "must be >= 1", n)
    if not 0 <= successes <= n:
        raise InputError("successes", f"must be between 0 and n ({n})", successes)
    from scipy.special import ndtri

    z = float(ndtri(0.5 + LEVEL / 2))
    centre = (successes + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * sqrt(successes * (n - successes) / n + z**2 / 4)
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Interval(low, high, "Wilson", _near_the_edge(successes, n - successes))


def unbounded(caveat: str) -> Interval:
    """The interval of a sample that says nothing: the whole line, marked."""
    return Interval(-inf, inf, "none", caveat)


def too_few(size: int, what: str) -> str:
    """The mark of a mean over so many values; empty where they are enough."""
    if size >= FEWEST_FOR_MEAN:
        return ""
    return f"{size} {what}: fewer than {FEWEST_FOR_MEAN} can hide failures of {_RARE:.0%}"


def _near_the_edge(successes: int, failures: int) -> str:
    if successes + failures < FEWEST_FOR_WILSON:
        return f"{successes + failures} trials: too few for any rate"
    rarer = min(successes, failures)
    if rarer not in (1, 2):
        return ""
    return f"{successes} successes, {failures} failures: so near to 0 or 1 it can cover as little as 83 %"


def _error_and_skewness(sample: FloatArray) -> tuple[float, float]:
    """Standard error and skewness of the *mean* of a sample (n,), n > 1: unbiased cumulants."""
    n, std = len(sample), float(sample.std(ddof=1))
    # The mean of equal values can be off by a rounding error, and their spread with it.
    if sample.min() == sample.max() or std == 0:
        return 0.0, 0.0
    third = float(np.sum(((sample - sample.mean()) / std) ** 3)) * n / ((n - 1) * (n - 2)) if n > 2 else 0.0
    return std / sqrt(n), third / sqrt(n)


def _limits(estimate: float, error: float, skewness: float, degrees: float) -> tuple[float, float]:
    from scipy.special import stdtrit

    quantile = float(stdtrit(degrees, 0.5 + LEVEL / 2))
    low = estimate - error * max(quantile, hall(quantile, skewness))
    high = estimate + error * max(quantile, -hall(-quantile, skewness))
    return low, high


def hall(quantile: Any, skewness: Any) -> Any:
    """The studentised mean T at which Hall's cubic T + a T^2/3 + a^2 T^3/27 + a/6 has this value, a the skewness.

    Written without the division by a that the textbook form 3/a ((1 + a (x - a/6))^(1/3) - 1) needs.
    """
    shifted = quantile - skewness / 6
    root = np.cbrt(1 + skewness * shifted)
    return 3 * shifted / (root**2 + root + 1)
