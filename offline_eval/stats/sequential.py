"""What the mean is known to be after every new value, however often one looks: confidence sequences.

A 95 % interval looked at after every episode misses more often than 5 %. The limits here hold at all times at once, so
that episodes can be added until a question is decided. Each end has its own error rate: the lower limit ever exceeds
the mean in at most a share `alpha` of all runs, and so does the upper limit ever fall below it.

Two assumptions to choose from. `BoundedMean` is exact for independent values between declared bounds. `AsymptoticMean`
needs no bounds and is right as far as the mean of its first values is about normal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, inf, isfinite, log
from typing import Any, Protocol

import numpy as np

from offline_eval.errors import InputError
from offline_eval.stats.intervals import Interval, hall, unbounded
from offline_eval.types import Array, FloatArray

RAREST = 0.05
"""`AsymptoticMean` starts when an event as rare as this has been seen with probability 1 - alpha / 2."""

_STAKES = np.linspace(0.05, 0.95, 10)
_UNDERSTATED = 1.25
_HALVINGS = 60
_ROUNDING = 1e-12


class MeanSequence(Protocol):
    """Limits of a mean that hold at all times at once."""

    @property
    def alpha(self) -> float:
        """Share of runs in which the lower limit is ever wrong; the upper limit likewise."""
        ...

    @property
    def fewest(self) -> int:
        """Values before which nothing is said."""
        ...

    @property
    def assumption(self) -> str:
        """What the error rate rests on."""
        ...

    def above(self, values: Array, threshold: float) -> Array:
        """Whether the first 1, ..., n of the values (..., n) show, each time, that the mean is above `threshold`."""
        ...

    def below(self, values: Array, threshold: float) -> Array:
        """The same for a mean below `threshold`."""
        ...

    def interval(self, values: Array) -> Interval:
        """Limits of the mean of values (n,): the best that any of the first 1, ..., n values gave."""
        ...


@dataclass(frozen=True)
class BoundedMean:
    """Exact for independent values of one distribution within [low, high], whatever its shape.

    Bet on the mean being larger than a threshold: a stake of the capital is lost where a value is 0, and paid in
    proportion to the value. If the mean is not larger, nothing is gained on average, and the chance that the capital
    ever grows 1 / alpha times is at most alpha (Ville). The lower limit is the largest threshold against which it has
    grown so far; the upper limit mirrors it. The capital is divided among ten stakes, of 5 % to 95 %, since the right
    one is not known beforehand.

    Source: I. Waudby-Smith and A. Ramdas, "Estimating means of bounded random variables by betting", Journal of the
    Royal Statistical Society B, 2024, who also divide the capital. The ten stakes are ours.

    Args:
        low: least value that is possible.
        high: largest value that is possible.
        alpha: share of runs in which an end is ever wrong.

    Raises:
        InputError: the bounds are not finite or not in order, or alpha is not in (0, 0.5).
    """

    low: float
    high: float
    alpha: float = 0.01

    def __post_init__(self) -> None:
        check_alpha(self.alpha)
        check_bounds((self.low, self.high))

    @property
    def fewest(self) -> int:
        """The first value says something."""
        return 1

    @property
    def assumption(self) -> str:
        """Independence and the bounds."""
        return f"exact for independent episodes within [{self.low:g}, {self.high:g}]"

    def above(self, values: Array, threshold: float) -> Array:
        """Whether the first 1, ..., n of the values (..., n) show, each time, that the mean is above `threshold`.

        Raises:
            InputError: a value lies outside the bounds.
        """
        return self._shows(self._unit(values), (threshold - self.low) / (self.high - self.low))

    def below(self, values: Array, threshold: float) -> Array:
        """The same for a mean below `threshold`."""
        return self._shows(1.0 - self._unit(values), (self.high - threshold) / (self.high - self.low))

    def interval(self, values: Array) -> Interval:
        """Limits of the mean of values (n,)."""
        unit = self._unit(values)
        low = _edge(lambda m: self._shows(unit, m).any(), shown=0.0, unknown=1.0)
        high = 1.0 - _edge(lambda m: self._shows(1.0 - unit, m).any(), shown=0.0, unknown=1.0)
        width = self.high - self.low
        return Interval(self.low + width * low, self.low + width * high, "betting", level=1.0 - 2.0 * self.alpha)

    def _unit(self, values: Array) -> FloatArray:
        """The values, their bounds moved to 0 and 1."""
        values = np.asarray(values, dtype=np.float64)
        check_within(values, (self.low, self.high))
        return np.asarray(np.clip((values - self.low) / (self.high - self.low), 0.0, 1.0))

    def _shows(self, unit: FloatArray, threshold: float) -> Array:
        if threshold < 0.0:
            return np.ones(unit.shape, dtype=bool)
        if threshold == 0.0:
            return np.asarray(np.logical_or.accumulate(unit > 0.0, axis=-1))
        if threshold >= 1.0:
            return np.zeros(unit.shape, dtype=bool)
        gains = unit / threshold - 1.0
        capital = np.full(unit.shape, -inf)
        for stake in _STAKES:
            np.logaddexp(capital, np.cumsum(np.log1p(stake * gains), axis=-1), out=capital)
        return np.asarray(capital - log(len(_STAKES)) >= -log(self.alpha))


@dataclass(frozen=True)
class AsymptoticMean:
    """Without bounds: right in the limit of many values, for independent values of one distribution.

    Taken for granted: an event that comes less often than in one of twenty episodes does not decide the mean. `fewest`
    is such that an event as frequent as that is among them with probability 1 - alpha / 2. Where all values are equal
    nothing is said, however many they are: their spread is unknown, and an agent that fails once in a hundred episodes
    has 104 equal returns in a third of all runs.

    The limits are those of Robbins's mixture of normal random walks, one-sided, with the standard deviation estimated:
    q = sqrt(2 (t r + 1) / (t r) log(1/2 + sqrt(t r + 1) / (2 alpha))) standard errors to a side of the mean of t
    values, r such that q is least at t = `tightest`. (The 1/2 is a sharper 1: 2 exp(x^2/2) Phi(x) >= 2 exp(x^2/2) - 1.)
    On the side where skewness makes that too little, Hall's transformation says how much it is, as in
    `offline_eval.stats.mean_interval`, with 5/4 of the sample's skewness, which understates that of the distribution.

    Source: I. Waudby-Smith, D. Arbour, R. Sinha, E. H. Kennedy and A. Ramdas, "Time-uniform central limit theory and
    asymptotic confidence sequences", Annals of Statistics, 2024. Where it starts, where it is least and the correction
    for skewness are ours; `benchmarks/assertion_rates.py` says what they are worth.

    Args:
        alpha: share of runs in which an end is ever wrong.
    """

    alpha: float = 0.01

    def __post_init__(self) -> None:
        check_alpha(self.alpha)

    @property
    def fewest(self) -> int:
        """Values before which nothing is said: 104 with alpha = 0.01."""
        return ceil(log(0.5 * self.alpha) / log(1.0 - RAREST))

    @property
    def tightest(self) -> int:
        """Number of values near which the limits are at their best."""
        return 2 * self.fewest

    @property
    def assumption(self) -> str:
        """Where it starts."""
        return f"asymptotic, from {self.fewest} independent episodes on; no event rarer than 1 in 20 decides the mean"

    def above(self, values: Array, threshold: float) -> Array:
        """Whether the first 1, ..., n of the values (..., n) show, each time, that the mean is above `threshold`."""
        return np.asarray(self._limits(values)[0] > threshold)

    def below(self, values: Array, threshold: float) -> Array:
        """The same for a mean below `threshold`."""
        return np.asarray(self._limits(values)[1] < threshold)

    def interval(self, values: Array) -> Interval:
        """Limits of the mean of values (n,); infinite before `fewest` of them."""
        if len(values) < self.fewest:
            return unbounded(f"{len(values)} values: below {self.fewest}")
        if without_spread(values)[-1]:
            return unbounded(f"{len(values)} equal values: their spread is unknown")
        lows, highs = self._limits(values)
        level = 1.0 - 2.0 * self.alpha
        return Interval(float(lows.max()), float(highs.min()), "asymptotic confidence sequence", level=level)

    def _limits(self, values: Array) -> tuple[FloatArray, FloatArray]:
        """Lower and upper limits (..., n) of the mean from the first 1, ..., n values; infinite where silent."""
        values = np.asarray(values, dtype=np.float64)
        count = np.arange(1, values.shape[-1] + 1)
        # Around the first one: equal values then have no spread at all, not to the last bit.
        centred = values - values[..., :1]
        first, second, third = (np.cumsum(centred**power, axis=-1) / count for power in (1, 2, 3))
        variance = np.maximum(second - first**2, 0.0)
        skewed = third - 3.0 * first * second + 2.0 * first**3
        with np.errstate(divide="ignore", invalid="ignore"):
            skewness = np.where(variance > 0.0, skewed / variance**1.5, 0.0) / np.sqrt(count)
            error = np.sqrt(variance / (count - 1))
        errors, skewness = self._errors(count), _UNDERSTATED * skewness
        silent = (count < self.fewest) | without_spread(values)
        with np.errstate(invalid="ignore"):  # of one value, which is too early
            low = first - error * np.maximum(errors, hall(errors, skewness))
            high = first + error * np.maximum(errors, -hall(-errors, skewness))
        return values[..., :1] + np.where(silent, -inf, low), values[..., :1] + np.where(silent, inf, high)

    def _errors(self, count: Array) -> FloatArray:
        """How many standard errors a limit lies from the mean of `count` values."""
        level = -2.0 * log(2.0 * self.alpha)
        ratio = count * (level + log(level + 1.0)) / self.tightest
        return np.asarray(np.sqrt(2.0 * (1.0 + 1.0 / ratio) * np.log(0.5 + np.sqrt(ratio + 1.0) / (2.0 * self.alpha))))


def ratio_interval(sequence: MeanSequence, numerator: Array, denominator: Array) -> Interval:
    """Limits of mean(numerator) / mean(denominator), both (n,), the denominator >= 0 and not all 0.

    They are the thresholds c at which the mean of numerator - c denominator is shown to lie above, or below, 0.
    """
    value = float(np.sum(numerator) / np.sum(denominator))
    step = max(abs(value), float(np.std(numerator)) / float(np.mean(denominator)), 1e-9)

    def edge(direction: float, shows: Callable[[Array, float], Array]) -> float:
        def shown(c: float) -> Any:
            return shows(numerator - c * denominator, 0.0).any()

        for doubling in range(40):
            far = value + direction * step * 2.0**doubling
            if shown(far):
                return _edge(shown, shown=far, unknown=value)
        return direction * inf

    low, high = edge(-1.0, sequence.above), edge(1.0, sequence.below)
    return Interval(low, high, "confidence sequence of a ratio", level=1.0 - 2.0 * sequence.alpha)


def without_spread(values: Array) -> Array:
    """Whether the first 1, ..., n of the values (..., n) are all equal, each time, but for the rounding of a sum."""
    values = np.asarray(values, dtype=np.float64)
    least, most = (function.accumulate(values, axis=-1) for function in (np.minimum, np.maximum))
    return np.asarray(most - least <= _ROUNDING * np.maximum(np.abs(least), np.abs(most)))


def check_alpha(alpha: float) -> None:
    """Raise where an error rate is none."""
    if not 0.0 < alpha < 0.5:
        raise InputError("alpha", "must lie in (0, 0.5): the false-alarm rate", alpha, "0.01 is one in a hundred")


def check_bounds(bounds: tuple[float, float]) -> None:
    """Raise where bounds are none."""
    low, high = bounds
    if not (isfinite(low) and isfinite(high) and low < high):
        raise InputError("bounds", "must be two finite numbers, the smaller one first", bounds)


def check_within(values: Array, bounds: tuple[float, float]) -> None:
    """Raise where a value lies outside its bounds by more than the rounding of a sum."""
    low, high = bounds
    outside = np.maximum(low - values, values - high) > _ROUNDING * (high - low)
    if outside.any():
        rule = f"must hold every value: declared were [{low:g}, {high:g}]"
        raise InputError("bounds", rule, float(values[outside][0]), "declare wider ones, or none")


def _edge(is_shown: Callable[[float], Any], *, shown: float, unknown: float) -> float:
    """Where a threshold stops being shown, between one that is and one that is not."""
    for _ in range(_HALVINGS):
        middle = 0.5 * (shown + unknown)
        shown, unknown = (middle, unknown) if is_shown(middle) else (shown, middle)
    return shown
