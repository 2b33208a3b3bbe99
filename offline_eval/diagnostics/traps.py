"""Signs that steering by a critic may ruin its agent, to be looked at before anything is steered.

Two numbers over the first half of each episode, where the policy still has something to decide, and one over all steps:

- tau: does the critic rank the states of an episode as their returns do?
- disagreement: do its heads differ by little, beside how much their values vary?
- bias: does it say the right amount? It is `q_bias`'s, the number that `measure` prints.

The thresholds come from eleven agents, of which steering ruined a single one: they are a warning and no test. That a
sign is raised does not say that steering will do harm, and that none is does not say that it will not; only a trial
beside its controls does (`offline-eval steer`). `docs/steering.md` shows what they say of five agents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from offline_eval.diagnostics.checks import finite, real, same_rows
from offline_eval.diagnostics.clustered import Estimate, cluster_bootstrap, cluster_sums, mean_estimate
from offline_eval.diagnostics.q_bias import ValueSample, normalised_bias
from offline_eval.errors import InputError, bare
from offline_eval.types import Array

_FEWEST_STEPS = 3


@dataclass(frozen=True)
class TrapThresholds:
    """Where a sign is raised.

    Attributes:
        tau: below it.
        bias: above it in absolute value, as a multiple of the mean absolute return.
        disagreement: above it, as a multiple of the standard deviation of the values.
    """

    tau: float = 0.3
    bias: float = 10.0
    disagreement: float = 0.2


@dataclass(frozen=True)
class TrapSign:
    """One of the numbers.

    Attributes:
        name: what it is.
        value: the number, its interval by episodes; None where it cannot be told.
        threshold: where it is raised.
        raised: None where it cannot be told.
        reason: why it cannot be told; empty otherwise.
    """

    name: str
    value: Estimate | None
    threshold: float
    raised: bool | None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        value = None if self.value is None else self.value.to_json()
        return {"value": value, "threshold": self.threshold, "raised": self.raised, "reason": self.reason}


@dataclass(frozen=True)
class Traps:
    """What can be told of a critic before it steers.

    Attributes:
        tau: of the critic and the returns within an episode, mean over episodes.
        bias: mean(q - return) / mean(|return|) over all steps: `QBias.normalised`.
        disagreement: how far the heads are apart (twice their standard deviation: |Q1 - Q2| for two), mean over
            states, in standard deviations of the values over the states.
        target: what the returns are those of, in words.
    """

    tau: TrapSign
    bias: TrapSign
    disagreement: TrapSign
    target: str = ""

    @property
    def signs(self) -> tuple[TrapSign, ...]:
        """All three."""
        return self.tau, self.bias, self.disagreement

    @property
    def raised(self) -> tuple[TrapSign, ...]:
        """Those that warn."""
        return tuple(sign for sign in self.signs if sign.raised)

    def to_json(self) -> dict[str, Any]:
        """Plain data: one entry a sign, and whether any is raised."""
        signs = {"tau": self.tau, "bias": self.bias, "disagreement": self.disagreement}
        said = {name: sign.to_json() for name, sign in signs.items()}
        return {"any_raised": bool(self.raised), "target": self.target, **said}


_THRESHOLDS = TrapThresholds()


def find_signs(
    q: Any,
    truth: Any,
    episodes: Any,
    generator: np.random.Generator,
    thresholds: TrapThresholds = _THRESHOLDS,
    target: str = "",
) -> Traps:
    """The signs, from a critic's values along episodes of the unsteered policy.

    Args:
        q: (n_critics, num_steps) at the logged states and the actions taken there.
        truth: (num_steps,) discounted returns (`offline_eval.diagnostics.returns`), NaN where there is no label.
        episodes: (num_steps,) which episode a step belongs to, in the order of time.
        generator: resamples episodes, first for the bias.
        thresholds: where a sign is raised.
        target: what the returns are those of, in words.
    """
    heads, labels, clusters = finite("q", q, ndim=2), real("truth", truth, ndim=1), np.asarray(episodes)
    same_rows(truth=labels, q=heads.T, episodes=clusters)
    least, most, apart = thresholds.tau, thresholds.bias, thresholds.disagreement
    bias = _sign("bias", lambda: _bias(heads, labels, clusters, generator), most, lambda bias: abs(bias) > most)
    early = _first_halves(clusters)
    first, part = heads[:, early], clusters[early]
    known = early[np.isfinite(labels[early])]
    value, label, cluster = heads[:, known].min(axis=0), labels[known], clusters[known]
    return Traps(
        _sign("trajectory tau", lambda: _tau(value, label, cluster, generator), least, lambda tau: tau < least),
        bias,
        _sign("disagreement", lambda: _disagreement(first, part, generator), apart, lambda by: by > apart),
        target,
    )


def _sign(name: str, measure: Callable[[], Estimate], threshold: float, warns: Callable[[float], bool]) -> TrapSign:
    try:
        value = measure()
    except InputError as error:
        return TrapSign(name, None, threshold, None, str(error))
    return TrapSign(name, value, threshold, warns(value.value))


def _first_halves(clusters: Array) -> Array:
    """Rows (num_kept,) of the first half of each episode."""
    return np.concatenate([rows[: (len(rows) + 1) // 2] for rows in _runs(clusters)])


def _runs(clusters: Array) -> list[Array]:
    return [np.flatnonzero(clusters == name) for name in dict.fromkeys(clusters.tolist())]


def _tau(q: Array, truth: Array, clusters: Array, generator: np.random.Generator) -> Estimate:
    taus = {
        rows[0]: float(kendalltau(q[rows], truth[rows]).statistic)
        for rows in _runs(clusters)
        if len(rows) >= _FEWEST_STEPS and np.ptp(q[rows]) > 0 and np.ptp(truth[rows]) > 0
    }
    if not taus:
        raise InputError("truth", "must be known and vary within an episode", bare("no episode with labels that do"))
    return mean_estimate(np.array(list(taus.values())), clusters[list(taus)], generator)


def _bias(heads: Array, labels: Array, clusters: Array, generator: np.random.Generator) -> Estimate:
    known = np.isfinite(labels)
    if not labels[known].any():
        raise InputError("truth", "must hold a return that is known and not 0", bare(f"{int(known.sum())} labels"))
    sample = ValueSample(heads.min(axis=0)[known], labels[known], clusters[known])
    found = normalised_bias(sample, generator)
    assert found is not None  # some return is not 0
    return found


def _disagreement(heads: Array, clusters: Array, generator: np.random.Generator) -> Estimate:
    if len(heads) < 2:
        raise InputError("q", "must have two heads or more: one cannot disagree with itself", bare("1 head"))
    value = heads.min(axis=0)
    centred = value - value.mean()  # large values that vary little would lose their digits in a square
    if not centred.any():
        raise InputError("q", "must vary over the states", bare(f"{value[0]} everywhere"))
    columns = np.stack([2.0 * heads.std(axis=0), centred, np.square(centred), np.ones(len(value))], axis=1)
    return cluster_bootstrap(_apart, cluster_sums(columns, clusters), generator=generator)


def _apart(sums: Array) -> Array:
    apart, first, second, count = np.moveaxis(sums, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((apart / count) / np.sqrt(second / count - np.square(first / count)))
