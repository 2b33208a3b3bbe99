"""The returns of one variant in one record."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import nan, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from offline_eval.stats.interquartile import Seed, iqm, iqm_interval
from offline_eval.stats.intervals import Interval, mean_interval, unbounded
from offline_eval.stats.samples import finite_or_none, returns_of


@dataclass(frozen=True)
class Summary:
    """What the returns of one variant say; the unit is the episode.

    Attributes:
        n: episodes that count.
        failed: episodes left out because their return is NaN.
        mean: of the returns.
        iqm: mean of the middle half.
        median: of the returns.
        std: sample standard deviation (n - 1); NaN with one episode.
        standard_error: of the mean, std / sqrt(n).
        ci95: interval of the mean, marked where episodes failed: it is that of the others.
        iqm_ci95: interval of the IQM, likewise.
    """

    n: int
    failed: int
    mean: float
    iqm: float
    median: float
    std: float
    standard_error: float
    ci95: Interval
    iqm_ci95: Interval

    def to_json(self) -> dict[str, Any]:
        """Plain data; None for what is NaN or infinite, the marks as sentences in `caveats`."""
        numbers = {name: getattr(self, name) for name in ("mean", "iqm", "median", "std", "standard_error")}
        intervals = {"ci95": self.ci95, "iqm_ci95": self.iqm_ci95}
        return {
            "n": self.n,
            "failed": self.failed,
            **{name: finite_or_none(number) for name, number in numbers.items()},
            **{name: interval.to_json() for name, interval in intervals.items()},
            "caveats": {name: interval.caveat for name, interval in intervals.items() if not interval.honest},
        }


def summarize(returns: ArrayLike, seed: Seed = 0) -> Summary:
    """Summarise episode returns (n,), NaN where an episode failed; `seed` is for the IQM's interval.

    Raises:
        InputError: not a row of numbers, empty, or infinite.
    """
    everything = returns_of("returns", returns)
    sample = everything[~np.isnan(everything)]
    n, failed = len(sample), len(everything) - len(sample)
    if n == 0:
        nothing = unbounded("every episode failed")
        return Summary(0, failed, nan, nan, nan, nan, nan, nothing, nothing)
    std = float(sample.std(ddof=1)) if n > 1 else nan
    return Summary(
        n=n,
        failed=failed,
        mean=float(sample.mean()),
        iqm=float(iqm(sample)),
        median=float(np.median(sample)),
        std=std,
        standard_error=std / sqrt(n),
        ci95=_of_the_others(mean_interval(sample), failed),
        iqm_ci95=_of_the_others(iqm_interval(sample, seed), failed),
    )


def _of_the_others(interval: Interval, failed: int) -> Interval:
    return replace(interval, caveat=f"{failed} episodes failed and do not count") if failed else interval
