"""Numbers that come in episodes: means, ratios and curves, with intervals that resample whole episodes.

Neighbouring states of an episode say nearly the same thing; an interval that counts them one by one is far too narrow.
Everything here is a function of sums over episodes, so that a resample costs one row of a matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import numpy as np

from offline_eval.errors import InputError, bare
from offline_eval.stats.intervals import LEVEL, Interval, hall, too_few, unbounded
from offline_eval.stats.samples import finite_or_none
from offline_eval.types import Array

NUM_RESAMPLES = 4000
"""Enough for the far percentiles that few episodes ask for; 50 episodes take 10 ms."""

_BLOCK = 4_000_000  # counts drawn at once: 32 MB


@dataclass(frozen=True)
class Estimate:
    """A number and how sure of it one can be.

    Attributes:
        value: the number, from all the data.
        ci95: its interval; infinite where one episode alone was given.
        num_clusters: episodes that were resampled.
    """

    value: float
    ci95: Interval
    num_clusters: int

    def to_json(self) -> dict[str, Any]:
        """Plain data; None for what is infinite, the mark as a sentence in `caveat`."""
        return {
            "value": finite_or_none(self.value),
            "ci95": self.ci95.to_json(),
            "caveat": self.ci95.caveat,
            "num_clusters": self.num_clusters,
        }

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.ci95.low:.3g}, {self.ci95.high:.3g}]"


@dataclass(frozen=True, eq=False)
class Curve:
    """A mean over bins of something: the time step, the predicted value. Empty bins are left out.

    Attributes:
        positions: (num_bins,) mean of what was binned.
        values: (num_bins,) mean in the bin.
        low: (num_bins,) lower ends of the intervals; NaN where one episode alone reached the bin.
        high: (num_bins,) upper ends.
        counts: (num_bins,) rows in the bin.
    """

    positions: Array
    values: Array
    low: Array
    high: Array
    counts: Array

    def to_json(self) -> dict[str, list[float | None]]:
        """One list for each attribute; None for an end that is not known."""
        return {name: [finite_or_none(number) for number in values] for name, values in vars(self).items()}


def cluster_sums(columns: Any, clusters: Array) -> Array:
    """Sums (num_clusters, num_columns) of columns (num_rows, num_columns), clusters in ascending order."""
    columns = np.asarray(columns, dtype=np.float64)
    names, index = np.unique(clusters, return_inverse=True)
    sums = [np.bincount(index, weights=column, minlength=len(names)) for column in columns.T]
    return np.stack(sums, axis=1)


def resample(sums: Array, generator: np.random.Generator, num_resamples: int = NUM_RESAMPLES) -> Array:
    """Sums (num_resamples, num_columns) over as many clusters as there are, drawn with replacement."""
    num_clusters = len(sums)
    chances = np.full(num_clusters, 1.0 / num_clusters)
    block = max(1, _BLOCK // num_clusters)
    sizes = [min(block, num_resamples - start) for start in range(0, num_resamples, block)]
    # `einsum` and not `@`: BLAS rounds differently with another number of threads.
    drawn = [np.einsum("rn,nk->rk", generator.multinomial(num_clusters, chances, size), sums) for size in sizes]
    return np.concatenate(drawn)


def cluster_bootstrap(
    statistic: Callable[..., Array],
    *sums: Array,
    generator: np.random.Generator,
    num_resamples: int = NUM_RESAMPLES,
) -> Estimate:
    """Bootstrap a function of sums over clusters.

    Plain percentiles are too narrow for few clusters, by the factor that separates Student's t from the normal
    distribution; the tail probability is widened by it (T. C. Hesterberg, "What teachers should know about the
    bootstrap", 2015), as `offline_eval.stats.iqm_interval` does. On the side where skewness makes even that too narrow,
    the tail is that of Hall's limit, as in `offline_eval.stats.mean_interval`. The ends stay among the resamples:
    a share does not leave [0, 1].

    Args:
        statistic: takes one array (..., num_columns) for each of `sums` and gives (...); NaN where it is undefined,
            and such resamples are left out.
        sums: (num_clusters, num_columns) of independent samples: `cluster_sums`.
        generator: draws the resamples.
        num_resamples: how many.
    """
    fewest = min(len(sample) for sample in sums)
    value = float(statistic(*(sample.sum(axis=0) for sample in sums)))
    if fewest == 1:
        return Estimate(value, unbounded("one episode: no spread to measure"), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        replicates = statistic(*(resample(sample, generator, num_resamples) for sample in sums))
        skewness = _skewness(statistic, sums)
    low, high = np.quantile(replicates[np.isfinite(replicates)], _tails(fewest, skewness)).tolist()
    interval = Interval(min(low, value), max(high, value), "expanded percentile bootstrap over episodes")
    return Estimate(value, replace(interval, caveat=_caveat(interval, fewest)), fewest)


def ratio(sums: Array) -> Array:
    """First column over second column: the mean of values where the columns are (values, ones)."""
    return np.asarray(sums[..., 0] / sums[..., 1])


def mean_estimate(values: Array, clusters: Array, generator: np.random.Generator) -> Estimate:
    """Mean of values (num_rows,) over all rows, with an interval by clusters (num_rows,)."""
    sums = cluster_sums(np.stack([values, np.ones(len(values))], axis=1), clusters)
    return cluster_bootstrap(ratio, sums, generator=generator)


def step_curve(
    values: Array,
    steps: Array,
    clusters: Array,
    generator: np.random.Generator,
    num_bins: int = 50,
) -> Curve:
    """Mean of values (num_rows,) over bins of equal width of the time step (num_rows,)."""
    if num_bins < 1:
        raise InputError("num_bins", "must be at least 1", num_bins)
    steps = np.asarray(steps)
    if len(steps) == 0 or steps.min() < 0:
        raise InputError("steps", "must be at least one time step, counted from 0", bare(f"{steps[:3]}"))
    num_steps = int(steps.max()) + 1
    bins = steps.astype(np.int64) * min(num_bins, num_steps) // num_steps
    return binned_curve(values, steps, bins, clusters, generator)


def binned_curve(
    values: Array,
    positions: Array,
    bins: Array,
    clusters: Array,
    generator: np.random.Generator,
) -> Curve:
    """Mean of values (num_rows,) in each bin (num_rows,), with intervals by clusters (num_rows,)."""
    names, index = np.unique(bins, return_inverse=True)
    clusters = np.unique(clusters, return_inverse=True)[1]
    shape = (int(clusters.max()) + 1, len(names))
    cell = clusters * len(names) + index
    counts = np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape)
    totals = np.bincount(cell, weights=values, minlength=shape[0] * shape[1]).reshape(shape)
    in_bin = counts.sum(axis=0)
    low, high = np.full((2, len(names)), np.nan)
    if shape[0] > 1:
        drawn = resample(np.concatenate([totals, counts], axis=1), generator)
        with np.errstate(divide="ignore", invalid="ignore"):
            replicates = drawn[:, : len(names)] / drawn[:, len(names) :]
        reached = np.count_nonzero(counts, axis=0)
        for i in np.flatnonzero(reached > 1):
            column = replicates[:, i]
            low[i], high[i] = np.quantile(column[np.isfinite(column)], _tails(int(reached[i])))
    return Curve(
        positions=np.bincount(index, weights=positions) / in_bin,
        values=totals.sum(axis=0) / in_bin,
        low=low,
        high=high,
        counts=in_bin,
    )


def _tails(num_clusters: int, skewness: float = 0.0) -> tuple[float, float]:
    """Percentiles of the ends, where the estimate has this skewness."""
    from scipy.special import ndtr, stdtrit

    quantile = float(stdtrit(num_clusters - 1, 0.5 + 0.5 * LEVEL))
    errors = np.array([-max(quantile, hall(quantile, skewness)), max(quantile, -hall(-quantile, skewness))])
    low, high = ndtr(errors * np.sqrt(num_clusters / (num_clusters - 1))).tolist()
    return low, high


def _skewness(statistic: Callable[..., Array], sums: Sequence[Array]) -> float:
    """Skewness of the estimate, from what it becomes without each cluster in turn; 0 where that is not known."""
    totals = [sample.sum(axis=0) for sample in sums]
    second = third = 0.0
    for index, sample in enumerate(sums):
        n = len(sample)
        if n < 3:
            return 0.0
        without = statistic(*totals[:index], totals[index] - sample, *totals[index + 1 :])
        pull = (n - 1) * (np.mean(without) - without)  # what each cluster adds to the mean of the pulls
        second += float(np.sum(pull**2)) / (n * (n - 1))
        third += float(np.sum(pull**3)) / (n * (n - 1) * (n - 2))
    return third / second**1.5 if second > 0.0 and isfinite(third) and isfinite(second) else 0.0


def _caveat(interval: Interval, num_clusters: int) -> str:
    if interval.low == interval.high:
        return "all episodes alike: their spread is unknown"
    return too_few(num_clusters, "episodes")
