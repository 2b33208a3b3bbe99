"""How often a 95 % interval holds the truth: draws data sets whose truth is known, and counts.

::

    python benchmarks/interval_coverage.py            2000 data sets a cell, 2 minutes on one core
    python benchmarks/interval_coverage.py --quick    300 a cell, 20 seconds

Prints a line a cell: coverage among all intervals and among those without the mark, the share that carries it, the
median width against the plain t interval (of Tukey and McLaughlin's trimmed mean for the IQM), and for the mean what
the plain t interval and the percentile bootstrap cover. Ends with exit code 1 if, in a required cell, unmarked
intervals cover less than 93 % beyond what chance explains.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from offline_eval.diagnostics.clustered import mean_estimate
from offline_eval.stats import Interval, compare_seeds, iqm, iqm_interval, mean_interval, paired_difference

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, int]], Array]

SIZES = (10, 20, 30, 100)
_NOT_MEASURED = float("nan")


def normal(generator: np.random.Generator, shape: tuple[int, int]) -> Array:
    return 3000 + 500 * generator.standard_normal(shape)


def lognormal(sigma: float = 1.0, factor: float = 1.0) -> Draw:
    return lambda generator, shape: factor * generator.lognormal(0.0, sigma, shape)


def falls(rate: float) -> Draw:
    """3000 +- 100, and 500 +- 200 where the agent falls."""

    def draw(generator: np.random.Generator, shape: tuple[int, int]) -> Array:
        fallen = generator.random(shape) < rate
        return np.where(
            fallen, 500 + 200 * generator.standard_normal(shape), 3000 + 100 * generator.standard_normal(shape)
        )

    return draw


def successes(rate: float) -> Draw:
    """One where the task is solved, else zero."""
    return lambda generator, shape: (generator.random(shape) < rate).astype(float)


def jackpot(generator: np.random.Generator, shape: tuple[int, int]) -> Array:
    """100 in one episode of ten, else about 0."""
    return 100.0 * (generator.random(shape) < 0.1) + generator.standard_normal(shape)


def mean_of_falls(rate: float) -> float:
    return 3000 - 2500 * rate


@dataclass(frozen=True)
class Cell:
    """Where the returns come from, what is estimated, and its true value."""

    name: str
    draw: Draw
    truth: float


@dataclass(frozen=True)
class Pair:
    """Two variants and the true difference of their means."""

    name: str
    first: Draw
    second: Draw
    truth: float


MEANS = [
    Cell("normal", normal, 3000.0),
    Cell("lognormal, sigma 1", lognormal(), math.exp(0.5)),
    Cell("falls 15 %", falls(0.15), mean_of_falls(0.15)),
    Cell("falls 10 %", falls(0.1), mean_of_falls(0.1)),
    Cell("100 in 10 %, else 0 +- 1", jackpot, 10.0),
]
PAIRS = [
    Pair("normal, same", normal, normal, 0.0),
    Pair("lognormal, same", lognormal(), lognormal(), 0.0),
    Pair("lognormal, 1.5 times", lognormal(factor=1.5), lognormal(), 0.5 * math.exp(0.5)),
    Pair("falls 15 %, same", falls(0.15), falls(0.15), 0.0),
    Pair("falls 5 % for 15 %", falls(0.05), falls(0.15), 250.0),
    Pair("falls never for 15 %", falls(0.0), falls(0.15), 375.0),
    Pair("falls never for 10 %", falls(0.0), falls(0.1), 250.0),
]
BEYOND = [
    Cell("lognormal, sigma 1.5", lognormal(1.5), math.exp(1.125)),
    Cell("falls 5 %", falls(0.05), mean_of_falls(0.05)),
    Cell("solved 5 %", successes(0.05), 0.05),
    Cell("solved 50 %", successes(0.5), 0.5),
]
IQM_BEYOND = [("falls 30 %", falls(0.3)), ("solved 50 %", successes(0.5))]


def trimmed_t(samples: Array) -> tuple[Array, Array]:
    """Tukey and McLaughlin's interval of the 25 % trimmed mean, for each row."""
    ordered, n = np.sort(samples, axis=1), samples.shape[1]
    cut = n // 4
    kept = n - 2 * cut
    winsorised = ordered.clip(ordered[:, [cut]], ordered[:, [n - cut - 1]])
    half = special.stdtrit(kept - 1, 0.975) * winsorised.std(axis=1, ddof=1) / (kept / n * math.sqrt(n))
    centre = ordered[:, cut : n - cut].mean(axis=1)
    return centre - half, centre + half


def plain_t(samples: Array) -> tuple[Array, Array]:
    """Student's interval of the mean, for each row."""
    n = samples.shape[1]
    half = special.stdtrit(n - 1, 0.975) * samples.std(axis=1, ddof=1) / math.sqrt(n)
    return samples.mean(axis=1) - half, samples.mean(axis=1) + half


def percentile_bootstrap(samples: Array, generator: np.random.Generator) -> tuple[Array, Array]:
    """What most reports print, for the mean of each row."""
    n = samples.shape[1]
    counts = generator.multinomial(n, np.full(n, 1 / n), size=1000)
    low, high = np.quantile(samples @ counts.T / n, [0.025, 0.975], axis=1)
    return low, high


def covered(limits: tuple[Array, Array], truth: float) -> float:
    return float(np.mean((limits[0] <= truth) & (truth <= limits[1])))


class Table:
    """Prints a cell a line and remembers which required ones fail."""

    columns = ("all", "unmarked", "marked", "width", "t", "pct")

    def __init__(self) -> None:
        self.failing: list[str] = []

    def heading(self, title: str) -> None:
        """Open a block of lines."""
        print(f"\n{title}")
        print("{:24s} {:>4s} {:>6s} {:>8s} {:>7s} {:>6s} {:>6s} {:>6s}".format("returns", "n", *self.columns))

    def line(
        self,
        name: str,
        n: int,
        intervals: Sequence[Interval],
        truth: float,
        plain: tuple[Array, Array],
        percentile: float = _NOT_MEASURED,
        required: bool = True,
    ) -> None:
        """Print one cell: the intervals of data sets of n values, beside the plain t interval of each."""
        # A rate such as 0.5 is a possible mean: rounding must not decide whether it is covered.
        slack = 1e-9 * abs(truth)
        hits = np.array([i.low - slack <= truth <= i.high + slack for i in intervals])
        unmarked = np.array([interval.honest for interval in intervals])
        coverage = float(hits[unmarked].mean()) if unmarked.any() else _NOT_MEASURED
        widths = np.array([interval.high - interval.low for interval in intervals])
        plain_width = float(np.median(plain[1] - plain[0]))
        width = float(np.median(widths)) / plain_width if plain_width > 0 else _NOT_MEASURED
        cells = [hits.mean(), coverage, 1 - unmarked.mean(), width, covered(plain, truth), percentile]
        texts = ["-" if math.isnan(cell) else f"{cell:.{2 if index == 3 else 3}f}" for index, cell in enumerate(cells)]
        print("{:24s} {:4d} {:>6s} {:>8s} {:>7s} {:>6s} {:>6s} {:>6s}".format(name, n, *texts), flush=True)
        if required and unmarked.any() and coverage < 0.93 - 2.33 * math.sqrt(0.93 * 0.07 / unmarked.sum()):
            self.failing.append(f"{name}, n = {n}: {coverage:.3f}")


def means(table: Table, cells: Sequence[Cell], num_samples: int, required: bool) -> None:
    for cell in cells:
        for n in SIZES:
            generator = np.random.default_rng([n, 1])
            samples = cell.draw(generator, (num_samples, n))
            intervals = [mean_interval(sample) for sample in samples]
            percentile = covered(percentile_bootstrap(samples, generator), cell.truth)
            table.line(cell.name, n, intervals, cell.truth, plain_t(samples), percentile, required)


def pairs(table: Table, num_samples: int) -> None:
    for pair in PAIRS:
        for n in SIZES:
            generator = np.random.default_rng([n, 2])
            first, second = pair.first(generator, (num_samples, n)), pair.second(generator, (num_samples, n))
            intervals = [paired_difference(a, b).ci95 for a, b in zip(first, second, strict=True)]
            percentile = covered(percentile_bootstrap(first - second, generator), pair.truth)
            table.line(pair.name, n, intervals, pair.truth, plain_t(first - second), percentile)


def seeds(table: Table, num_samples: int) -> None:
    """Each number is one training seed's mean; plain is Welch's interval."""
    for pair in PAIRS:
        for n in SIZES:
            generator = np.random.default_rng([n, 4])
            first, second = pair.first(generator, (num_samples, n)), pair.second(generator, (num_samples, n))
            intervals = [compare_seeds(a.tolist(), b.tolist()).ci95 for a, b in zip(first, second, strict=True)]
            variances = first.var(axis=1, ddof=1) / n, second.var(axis=1, ddof=1) / n
            degrees = sum(variances) ** 2 / (sum(variance**2 for variance in variances) / (n - 1))
            half = special.stdtrit(degrees, 0.975) * np.sqrt(sum(variances))
            centre = first.mean(axis=1) - second.mean(axis=1)
            table.line(pair.name, n, intervals, pair.truth, (centre - half, centre + half))


def clustered(table: Table, num_samples: int) -> None:
    """What the diagnostics resample: whole episodes, here of one number each; plain is Student's interval."""
    for cell in MEANS:
        for n in SIZES:
            samples = cell.draw(np.random.default_rng([n, 5]), (num_samples, n))
            episodes = np.arange(n)
            intervals = [mean_estimate(row, episodes, np.random.default_rng(0)).ci95 for row in samples]
            table.line(cell.name, n, intervals, cell.truth, plain_t(samples), required=False)


def iqms(table: Table, draws: Sequence[tuple[str, Draw]], num_samples: int, required: bool) -> None:
    for name, draw in draws:
        truth = float(iqm(draw(np.random.default_rng(0), (1, 4_000_000)))[0])
        for n in SIZES:
            samples = draw(np.random.default_rng([n, 3]), (num_samples, n))
            intervals = [iqm_interval(sample) for sample in samples]
            table.line(name, n, intervals, truth, trimmed_t(samples), required=required)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="How often a 95 % interval holds the truth.")
    parser.add_argument("--quick", action="store_true", help="300 data sets a cell instead of 2000")
    parser.add_argument("--samples", type=int, help="data sets a cell")
    options: Any = parser.parse_args(arguments)
    num_samples = options.samples or (300 if options.quick else 2000)
    start, table = time.perf_counter(), Table()
    error = math.sqrt(0.95 * 0.05 / num_samples)
    print(f"{num_samples} data sets a cell: .95 is known to within {2 * error:.3f} (two standard errors)")
    table.heading("mean")
    means(table, MEANS, num_samples, required=True)
    table.heading("mean paired difference")
    pairs(table, num_samples)
    table.heading("difference of training seeds (t: Welch's interval)")
    seeds(table, num_samples)
    table.heading("IQM (t: Tukey and McLaughlin's trimmed mean)")
    iqms(table, [(cell.name, cell.draw) for cell in MEANS], num_samples, required=True)
    table.heading("numbers by episodes: cluster bootstrap (t: Student's)")
    clustered(table, max(1, num_samples // 4))
    table.heading("beyond what is promised: mean")
    means(table, BEYOND, num_samples, required=False)
    table.heading("beyond what is promised: IQM")
    iqms(table, IQM_BEYOND, max(1, num_samples // 4), required=False)
    print(
        f"\n{time.perf_counter() - start:.0f} s. Required cells whose unmarked intervals cover less than 93 %: ", end=""
    )
    print("; ".join(table.failing) or "none")
    return 1 if table.failing else 0


if __name__ == "__main__":
    sys.exit(main())
