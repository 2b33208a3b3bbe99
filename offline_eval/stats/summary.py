"""The returns of one variant in one record."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import nan, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from offline_eval.stats.interquartile import Seed, iqm, iqm_interval
from offline_eval.stats.intervals import Interval, mean_interval, unbounded
from offline_eval.stats.samples import failed_of, finite_or_none, returns_of


@dataclass(frozen=True)
class Summary:
    """What the returns of one variant say; the unit is the episode.

    Attributes:
        n: episodes that count.
        failed: episodes left out because their return is NaN. What they would have returned is not known: the intervals
            are of the rest, and marked.
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
    summary = Summary(
        n=n,
        failed=failed,
        mean=float(sample.mean()),
        iqm=float(iqm(sample)),
        median=float(np.median(sample)),
        std=std,
        standard_error=std / sqrt(n),
        ci95=mean_interval(sample),
        iqm_ci95=iqm_interval(sample, seed),
    )
    return of_the_rest(summary, failed, n + failed) if failed else summary


def of_the_rest(summary: Summary, failed: int, total: int) -> Summary:
    """The summary with intervals that say how many of all episodes failed and are not in it."""

    def marked(interval: Interval) -> Interval:
        caveats = [f"{failed_of(failed, total)} and do not count", interval.caveat]
        return replace(interval, caveat="; ".join(filter(None, caveats)))

    return replace(summary, ci95=marked(summary.ci95), iqm_ci95=marked(summary.iqm_ci95))
