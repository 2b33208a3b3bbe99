"""The returns of one variant in one record."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import nan, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from offline_eval.errors import InputError, bare
from offline_eval.stats.intervals import LEVEL, ONE_VALUE, Interval, mean_interval, unbounded
from offline_eval.stats.samples import complete_sample, failed_of, finite_or_none, returns_of
from offline_eval.types import FloatArray

FEWEST_FOR_IQM = 10
"""Values below which the interval of an IQM carries the mark, and runs below which that of a table does."""

NUM_RESAMPLES = 5000
_NUMBERS_AT_A_TIME = 2**18  # of resampled returns: a few MiB, which stay in the cache

Seed = int | np.random.Generator


def iqm(values: ArrayLike) -> Any:
    """Mean of the middle half along the last axis: a float, or an array of the leading axes.

    A quarter of the values, rounded down, is cut off at each end: `scipy.stats.trim_mean(values, 0.25)`.

    Raises:
        InputError: no values along the last axis, or a NaN among them.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim == 0 or table.shape[-1] == 0:
        raise InputError("values", "must hold at least one value along the last axis", values)
    if np.isnan(table).any():
        raise InputError("values", "must not hold NaN: it would sort, and be cut off, as the best", values)
    return _iqm(table)


def _iqm(table: FloatArray) -> Any:
    cut = table.shape[-1] // 4
    middle = np.sort(table, axis=-1)[..., cut : table.shape[-1] - cut]
    # Around one of them, so that the mean of equal values is that value to the bit.
    return middle[..., 0] + (middle - middle[..., :1]).mean(axis=-1)


def iqm_interval(values: ArrayLike, seed: Seed = 0) -> Interval:
    """Interval of the IQM of returns (n,); the same seed gives the same bits.

    The percentile bootstrap, its tail probability 0.025 replaced by Phi(-sqrt(n / (n-1)) t), t Student's quantile. With
    30 % of failures the trimmed mean's t interval (Tukey and McLaughlin) covers .6 at n = 20, this one .95.

    Marked below 10 values. From there on an interval of no width needs no mark: ten equal returns are unlikely unless
    at least three quarters of all returns are that one, and then it is the IQM.

    Source of the tail probability: T. C. Hesterberg, "What teachers should know about the bootstrap", 2015.

    Raises:
        InputError: not a row of finite numbers, or empty.
    """
    sample = np.sort(complete_sample("values", values))
    n = len(sample)
    if n == 1:
        return unbounded(ONE_VALUE)
    from scipy.special import ndtr, stdtrit

    # Around one of them, for the reason given in `iqm`.
    centre = sample[n // 2]
    resampled = _resampled_iqms(sample - centre, np.random.default_rng(seed))
    tail = float(ndtr(-sqrt(n / (n - 1)) * stdtrit(n - 1, 0.5 + LEVEL / 2)))
    low, high = centre + np.quantile(resampled, [tail, 1 - tail])
    estimate = float(iqm(sample))
    caveat = f"{n} values: below {FEWEST_FOR_IQM} resampling cannot reach 95 %" if n < FEWEST_FOR_IQM else ""
    return Interval(min(float(low), estimate), max(float(high), estimate), "expanded percentile bootstrap", caveat)


@dataclass(frozen=True)
class AggregateScore:
    """One algorithm over several tasks.

    Attributes:
        iqm: of all runs and tasks together.
        ci95: its interval over the runs; the tasks are taken as they are.
        num_runs: training runs of each task.
        num_tasks: tasks.
    """

    iqm: float
    ci95: Interval
    num_runs: int
    num_tasks: int


def bootstrap_iqm(scores: ArrayLike, seed: Seed = 0, num_resamples: int = 50_000) -> AggregateScore:
    """IQM of normalised scores (num_runs, num_tasks), runs resampled within each task, percentile interval.

    The protocol of R. Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice", 2021, so
    that numbers compare with theirs. Resampling few runs gives intervals that are too narrow (.81 to .83 with 2 runs,
    .90 to .91 with 5), hence the mark below 10.

    Raises:
        InputError: not a table of finite numbers, empty, or num_resamples < 1.
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or table.size == 0:
        rule = "must be a table (num_runs, num_tasks) with at least one of each"
        raise InputError("scores", rule, bare(f"an array of shape {table.shape}"))
    if not np.isfinite(table).all():
        raise InputError("scores", "must be finite", table[~np.isfinite(table)][0], "give every run of every task")
    if num_resamples < 1:
        raise InputError("num_resamples", "must be >= 1", num_resamples)
    num_runs, num_tasks = table.shape
    estimate = float(iqm(table.ravel()))
    if num_runs == 1:
        return AggregateScore(estimate, unbounded("one run: no spread to measure"), num_runs, num_tasks)
    generator, flat = np.random.default_rng(seed), table.ravel()
    at_a_time = max(1, _NUMBERS_AT_A_TIME // table.size)
    resampled = []
    for start in range(0, num_resamples, at_a_time):
        count = min(at_a_time, num_resamples - start)
        runs = generator.integers(num_runs, size=(count, num_runs, num_tasks), dtype=np.uint32)
        resampled.append(_iqm(flat[runs.astype(np.intp) * num_tasks + np.arange(num_tasks)].reshape(count, -1)))
    low, high = np.quantile(np.concatenate(resampled), [0.5 - LEVEL / 2, 0.5 + LEVEL / 2])
    few = num_runs < FEWEST_FOR_IQM
    caveat = f"{num_runs} runs: with fewer than {FEWEST_FOR_IQM} the stratified bootstrap is too narrow" if few else ""
    interval = Interval(float(low), float(high), "percentile bootstrap, stratified by task", caveat)
    return AggregateScore(estimate, interval, num_runs, num_tasks)


def _resampled_iqms(ordered: FloatArray, generator: np.random.Generator) -> FloatArray:
    """IQMs (NUM_RESAMPLES,) of resamples of returns (n,) in ascending order.

    Nothing is sorted again: how often each return was drawn, counted up, says which of them lie in the middle half.
    """
    n = len(ordered)
    cut = n // 4
    at_a_time = max(1, _NUMBERS_AT_A_TIME // n)
    iqms = []
    for start in range(0, NUM_RESAMPLES, at_a_time):
        count = min(at_a_time, NUM_RESAMPLES - start)
        drawn = generator.integers(n, size=(count, n)) + n * np.arange(count)[:, None]
        drawn_up_to = np.bincount(drawn.ravel(), minlength=count * n).reshape(count, n).cumsum(axis=1)
        kept = np.diff(drawn_up_to.clip(cut, n - cut), axis=1, prepend=cut)
        # `einsum` and not `@`: BLAS rounds differently with another number of threads.
        iqms.append(np.einsum("rn,n->r", kept, ordered) / (n - 2 * cut))
    return np.concatenate(iqms)


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
