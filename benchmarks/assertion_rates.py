"""How often the assertions err: asks their questions of episodes whose truth is known, and counts.

::

    python benchmarks/assertion_rates.py            2000 runs a cell, 3 minutes on one core
    python benchmarks/assertion_rates.py --quick    400 a cell

The first table puts the truth exactly on the threshold, where errors are most frequent: the property just holds, so
that every violation found is a false alarm. Columns: false alarms with the 95 % interval of their rate (Wilson), how
often the property was said to hold, and the control: false alarms of Student's test at the same level, looked at after
every episode. The second table moves the truth away, in standard deviations of an episode's number: how often the right
answer is found, and after how many episodes. Ends with exit code 1 if the interval of a required cell lies above the
declared rate.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from offline_eval.stats import sequential, wilson_interval
from offline_eval.stats.decisions import HOLDS, UNDECIDED, VIOLATED, Claim, Question
from offline_eval.testing import questions

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, int]], Array]

ALPHA = 0.01
BUDGET = 500
GAPS = (0.1, 0.2, 0.3, 0.5, 0.7)

FALLS_BOUNDS = (0.0, 3500.0)
MEAN_OF_FALLS = 3000 - 2500 * 0.15


def normal(generator: np.random.Generator, shape: tuple[int, int]) -> Array:
    return 3000 + 500 * generator.standard_normal(shape)


def lognormal(generator: np.random.Generator, shape: tuple[int, int]) -> Array:
    return generator.lognormal(0.0, 1.0, shape)


def falls(generator: np.random.Generator, shape: tuple[int, int], rate: float = 0.15) -> Array:
    """3000 +- 100, and 500 +- 200 in a share of the episodes."""
    fallen = generator.random(shape) < rate
    return np.where(fallen, 500 + 200 * generator.uniform(-1, 1, shape), 3000 + 100 * generator.uniform(-1, 1, shape))


def solved(generator: np.random.Generator, shape: tuple[int, int]) -> Array:
    """1 in one episode of twenty, else 0."""
    return (generator.random(shape) < 0.05).astype(float)


def beta(generator: np.random.Generator, shape: tuple[int, int]) -> Array:
    return 3500 * generator.beta(2.0, 5.0, shape)


def even(generator: np.random.Generator, shape: tuple[int, int]) -> Array:
    return generator.beta(3.0, 3.0, shape)


def ragged(generator: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Near 0.95, and 0.4 in 15 % of the episodes: mean 0.8675."""
    return np.where(generator.random(shape) < 0.15, 0.4, 0.9 + 0.1 * generator.random(shape))


@dataclass(frozen=True)
class Cell:
    """A question, and columns (num_runs, num_episodes, num_columns) for which it holds with equality."""

    assertion: str
    returns: str
    question: Question
    columns: Callable[[np.random.Generator, tuple[int, int]], Array]
    required: bool = True


def single(draw: Draw) -> Draw:
    return lambda generator, shape: draw(generator, shape)[..., None]


def paired(agent: Draw, baseline: Draw, shared: float = 0.0) -> Draw:
    """Two columns; `shared` is the spread of what both owe to the seed."""

    def columns(generator: np.random.Generator, shape: tuple[int, int]) -> Array:
        seed = shared * generator.standard_normal(shape)
        return np.stack([agent(generator, shape) + seed, baseline(generator, shape) + seed], axis=-1)

    return columns


def all_alike(draw: Draw) -> Draw:
    """Steered, plain and the controls, all alike."""
    columns = 2 + len(questions.STEERING_CONTROLS)
    return lambda generator, shape: np.stack([draw(generator, shape) for _ in range(columns)], axis=-1)


def biased(draw: Draw) -> Draw:
    """The truth, and a critic that is a fifth too high on average, by an exponential factor."""

    def columns(generator: np.random.Generator, shape: tuple[int, int]) -> Array:
        truth = draw(generator, shape)
        return np.stack([0.2 * truth * generator.exponential(1.0, shape), truth], axis=-1)

    return columns


def times(factor: float, draw: Draw) -> Draw:
    return lambda generator, shape: factor * draw(generator, shape)


def plus(offset: float, draw: Draw) -> Draw:
    return lambda generator, shape: offset + draw(generator, shape)


def cells(alpha: float) -> list[Cell]:
    at_least, not_worse = questions.return_at_least, questions.not_worse
    helps = questions.steering_helps
    wide = math.exp(0.5)
    rarely: Draw = lambda generator, shape: falls(generator, shape, 0.05)  # noqa: E731
    return [
        Cell("return_at_least", "beta, bounds", at_least(1000.0, FALLS_BOUNDS, alpha), single(beta)),
        Cell("return_at_least", "falls 15 %, bounds", at_least(MEAN_OF_FALLS, FALLS_BOUNDS, alpha), single(falls)),
        Cell("return_at_least", "solved 5 %, bounds", at_least(0.05, (0.0, 1.0), alpha), single(solved)),
        Cell("return_at_least", "normal", at_least(3000.0, None, alpha), single(normal)),
        Cell("return_at_least", "falls 15 %", at_least(MEAN_OF_FALLS, None, alpha), single(falls)),
        Cell("return_at_least", "solved 5 %", at_least(0.05, None, alpha), single(solved)),
        Cell("return_at_least", "lognormal", at_least(wide, None, alpha), single(lognormal)),
        Cell("return_at_least", "-lognormal", at_least(-wide, None, alpha), single(times(-1.0, lognormal))),
        Cell(
            "not_worse", "falls 15 for 5 %, bounds", not_worse(250.0, None, FALLS_BOUNDS, alpha), paired(falls, rarely)
        ),
        Cell(
            "not_worse",
            "normal, shared seed",
            not_worse(100.0, None, None, alpha),
            paired(plus(-100, normal), normal, 500),
        ),
        Cell("not_worse", "falls 15 for 5 %", not_worse(250.0, None, None, alpha), paired(falls, rarely)),
        Cell(
            "not_worse", "lognormal, both", not_worse(0.2, None, None, alpha), paired(plus(-0.2, lognormal), lognormal)
        ),
        Cell(
            "not_worse, relative",
            "lognormal, 0.8 times",
            not_worse(None, 0.2, None, alpha),
            paired(times(0.8, lognormal), lognormal),
        ),
        Cell(
            "not_worse, relative",
            "-lognormal, 1.2 times",
            not_worse(None, 0.2, None, alpha),
            paired(times(-1.2, lognormal), times(-1.0, lognormal)),
        ),
        Cell("steering_helps", "falls 15 %, bounds", helps(0.0, FALLS_BOUNDS, alpha), all_alike(falls)),
        Cell("steering_helps", "falls 15 %", helps(0.0, None, alpha), all_alike(falls)),
        Cell("steering_helps", "lognormal", helps(0.0, None, alpha), all_alike(lognormal)),
        Cell("kendall_tau", "tau symmetric around .5", questions.kendall_tau(0.5, alpha), single(even)),
        Cell("kendall_tau", "tau near .9, .15 of them .4", questions.kendall_tau(0.8675, alpha), single(ragged)),
        Cell("q_bias", "truth within bounds", questions.q_bias(0.2, alpha), biased(beta)),
        Cell("q_bias", "lognormal truth", questions.q_bias(0.2, alpha), biased(lognormal)),
        Cell(
            "evaluation_mse",
            "exponential",
            questions.evaluation_mse(0.1, None, alpha),
            single(lambda g, s: g.exponential(0.1, s)),
        ),
        Cell("evaluation_mse", "lognormal", questions.evaluation_mse(wide, None, alpha), single(lognormal)),
        Cell(
            "evaluation_mse",
            "beta, bounds",
            questions.evaluation_mse(4 / 7, (0.0, 4.0), alpha),
            single(lambda g, s: 4 * g.beta(1.0, 6.0, s)),
        ),
        Cell("covers", "share symmetric around .5", questions.covers(0.5, alpha), single(even)),
        Cell("covers", "share near .95, .15 of them .4", questions.covers(0.8675, alpha), single(ragged)),
    ]


BEYOND = [("lognormal, sigma 1.5", 1.5), ("lognormal, sigma 2", 2.0)]


def beyond(alpha: float) -> list[Cell]:
    """Tails that the asymptotic limits are not made for."""

    def draw(sigma: float) -> Draw:
        return lambda generator, shape: generator.lognormal(0.0, sigma, shape)

    rare: Draw = lambda generator, shape: (generator.random(shape) < 0.02).astype(float)  # noqa: E731
    heavy = [
        Cell(
            "return_at_least", name, questions.return_at_least(math.exp(sigma**2 / 2), None, alpha), single(draw(sigma))
        )
        for name, sigma in BEYOND
    ]
    rarely = [
        Cell("return_at_least", "solved 3 %", questions.return_at_least(0.03, None, alpha), single(succeeding(0.03))),
        Cell("return_at_least", "solved 2 %", questions.return_at_least(0.02, None, alpha), single(rare)),
        Cell("return_at_least", "solved 2 %, bounds", questions.return_at_least(0.02, (0.0, 1.0), alpha), single(rare)),
    ]
    return [
        Cell(cell.assertion, cell.returns, cell.question, cell.columns, "bounds" in cell.returns)
        for cell in heavy + rarely
    ]


def succeeding(rate: float) -> Draw:
    """1 where the task is solved, else 0."""
    return lambda generator, shape: (generator.random(shape) < rate).astype(float)


def passing(alpha: float, num_runs: int) -> list[str]:
    """Print how often a property is said to hold that does not, where most returns are equal; the names that fail."""
    failing = []
    print(f"\n{'returns':24s} {'asked for':>10s} {'bounds':>8s} {'says it holds':>24s}")
    for rate, threshold in ((0.99, 0.995), (0.98, 0.99), (0.96, 0.98), (0.999, 0.9995)):
        columns = succeeding(rate)(np.random.default_rng(7), (num_runs, BUDGET))[..., None]
        for bounds in (None, (0.0, 1.0)):
            verdict = questions.return_at_least(threshold, bounds, alpha).decide(columns).verdict
            held = int(np.sum(verdict == HOLDS))
            interval = wilson_interval(held, num_runs)
            told = f"{held / num_runs:.4f} [{interval.low:.4f}, {interval.high:.4f}]"
            name = f"solved {100 * rate:g} %"
            print(f"{name:24s} {threshold:10g} {'0 to 1' if bounds else '-':>8s} {told:>24s}", flush=True)
            if interval.low > alpha:
                failing.append(name)
    return failing


def looked_at_every_time(question: Question, columns: Array) -> float:
    """False alarms of Student's test at level alpha, after every episode from the 20th on."""

    def distance(claim: Claim) -> float:
        return abs(float(claim.values(columns).mean()) - claim.side.threshold)

    claim = min(question.claims, key=distance)  # the one that holds with equality
    values = claim.values(columns) - claim.side.threshold
    sign = 1.0 if type(claim.side).__name__ == "AtLeast" else -1.0
    count = np.arange(1, values.shape[-1] + 1)
    mean = np.cumsum(values, axis=-1) / count
    variance = np.maximum(np.cumsum(values**2, axis=-1) / count - mean**2, 1e-300)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = sign * mean / np.sqrt(variance / (count - 1))
        alarms = t < special.stdtrit(count - 1, question.alpha)
    return float(alarms[:, 19:].any(axis=-1).mean())


def rates(cell: Cell, num_runs: int) -> tuple[int, int, Array]:
    """False alarms, times that it was said to hold, and the columns."""
    columns = cell.columns(np.random.default_rng(7), (num_runs, BUDGET))
    verdict = cell.question.decide(columns).verdict
    return int(np.sum(verdict == VIOLATED)), int(np.sum(verdict == HOLDS)), columns


def false_alarms(table: Sequence[Cell], num_runs: int) -> list[str]:
    """Print a line a cell; the names of those that fail."""
    failing = []
    print(f"{'assertion':20s} {'returns':32s} {'false alarms':>24s} {'says it holds':>14s} {'t, every look':>14s}")
    for cell in table:
        alarms, held, columns = rates(cell, num_runs)
        interval = wilson_interval(alarms, num_runs)
        naive = looked_at_every_time(cell.question, columns)
        told = f"{alarms / num_runs:.4f} [{interval.low:.4f}, {interval.high:.4f}]"
        print(f"{cell.assertion:20s} {cell.returns:32s} {told:>24s} {held / num_runs:14.4f} {naive:14.3f}", flush=True)
        if cell.required and interval.low > cell.question.alpha:
            failing.append(f"{cell.assertion}, {cell.returns}")
    return failing


@contextmanager
def skewness_taken(factor: float) -> Iterator[None]:
    """Correct for another multiple of the sample's skewness."""
    usual, sequential._UNDERSTATED = sequential._UNDERSTATED, factor
    try:
        yield
    finally:
        sequential._UNDERSTATED = usual


@dataclass(frozen=True)
class Curve:
    """A question about returns whose truth is moved by multiples of their standard deviation."""

    name: str
    ask: Callable[[float], Question]
    draw: Draw
    mean: float
    std: float


def curves(alpha: float) -> list[Curve]:
    std_of_falls = math.sqrt(2500**2 * 0.15 * 0.85 + 0.85 * 100**2 / 3 + 0.15 * 200**2 / 3)
    return [
        Curve("normal", lambda m: questions.return_at_least(m, None, alpha), normal, 3000.0, 500.0),
        Curve("falls 15 %", lambda m: questions.return_at_least(m, None, alpha), falls, MEAN_OF_FALLS, std_of_falls),
        Curve(
            "falls 15 %, bounds",
            lambda m: questions.return_at_least(m, FALLS_BOUNDS, alpha),
            falls,
            MEAN_OF_FALLS,
            std_of_falls,
        ),
        Curve(
            "beta, bounds",
            lambda m: questions.return_at_least(m, FALLS_BOUNDS, alpha),
            beta,
            1000.0,
            3500 * math.sqrt(10 / 392),
        ),
    ]


def power(alpha: float, num_runs: int) -> None:
    """Print how often a property that holds, or is violated, by so many standard deviations is found out."""
    heads = ("truth, std from threshold", "holds", "violated", "undecided", "median n")
    print("\n{:20s} {:>26s} {:>8s} {:>9s} {:>10s} {:>9s}".format("returns", *heads))
    for curve in curves(alpha):
        values = curve.draw(np.random.default_rng(11), (num_runs, BUDGET))[..., None]
        for gap in (*(-gap for gap in reversed(GAPS)), 0.0, *GAPS):
            verdict, episodes = curve.ask(curve.mean - gap * curve.std).decide(values)
            shares = [float(np.mean(verdict == kind)) for kind in (HOLDS, VIOLATED, UNDECIDED)]
            median = f"{np.median(np.where(episodes > 0, episodes, BUDGET)):.0f}" if shares[2] < 0.5 else "-"
            numbers = "{:26.1f} {:8.3f} {:9.3f} {:10.3f}".format(gap, *shares)
            print(f"{curve.name:20s} {numbers} {median:>9s}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="How often the assertions err.")
    parser.add_argument("--quick", action="store_true", help="400 runs a cell instead of 2000")
    parser.add_argument("--alpha", type=float, default=ALPHA, help="declared false-alarm rate (default: %(default)s)")
    options: Any = parser.parse_args(arguments)
    num_runs, start = 400 if options.quick else 2000, time.perf_counter()
    print(f"{num_runs} runs a cell, at most {BUDGET} episodes a run, declared false-alarm rate {options.alpha:g}\n")
    failing = false_alarms(cells(options.alpha), num_runs)
    print("\nbeyond what is promised (what declares bounds is not)")
    failing += false_alarms(beyond(options.alpha), num_runs)
    print("\nnearly equal returns, whose mean lies below what is asked for")
    failing += passing(options.alpha, num_runs)
    for factor in (1.0, 0.0):
        print(f"\ncontrol: asymptotic limits with {factor:g} times the sample's skewness instead of 5/4")
        with skewness_taken(factor):
            false_alarms(cells(options.alpha)[3:8], num_runs)
    power(options.alpha, num_runs)
    print(f"\n{time.perf_counter() - start:.0f} s. Cells whose interval lies above the declared rate: ", end="")
    print("; ".join(failing) or "none")
    return 1 if failing else 0


if __name__ == "__main__":
    sys.exit(main())
