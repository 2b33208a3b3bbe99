"""Does a critic say the right amount? Normalised difference to the true returns, and a calibration curve.

Bias does not tell which part of an agent is at fault: a right critic of a good policy overstates the returns of a bad
one. Subtract a reference agent's bias where one is at hand, as the SO2 study does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from offline_eval.diagnostics.checks import finite, same_rows
from offline_eval.diagnostics.clustered import (
    Curve,
    Estimate,
    binned_curve,
    cluster_bootstrap,
    cluster_sums,
    mean_estimate,
    ratio,
)
from offline_eval.errors import InputError
from offline_eval.types import Array

_FLOOR_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class ValueSample:
    """A critic's values beside the true returns, at the actions that were executed.

    Attributes:
        q: (num_states,) the critic, reduced over its ensemble; the minimum of many critics is low by construction.
        truth: (num_states,) discounted returns in the same units; leave unlabelled states out.
        episodes: (num_states,) which episode a state belongs to.

    Raises:
        InputError: a value is not finite (its index is named), or the lengths differ.
    """

    q: Array
    truth: Array
    episodes: Array

    def __post_init__(self) -> None:
        object.__setattr__(self, "q", finite("q", self.q, ndim=1))
        object.__setattr__(self, "truth", finite("truth", self.truth, ndim=1))
        object.__setattr__(self, "episodes", np.asarray(self.episodes))
        same_rows(q=self.q, truth=self.truth, episodes=self.episodes)


@dataclass(frozen=True, eq=False)
class QBias:
    """How much a critic overstates (above 0) or understates the returns. Intervals by episodes.

    Attributes:
        difference: mean of q - truth, in units of the return.
        normalised: ratio of means, mean(q - truth) / mean(|truth|); None where every return is 0.
        per_state: mean of (q - truth) / max(|truth|, floor); None where every return is 0.
        floor: what a small return was replaced by in `per_state`.
        share_floored: share of the states whose return is below the floor.
        excess: `normalised` minus that of the reference; None without one.
        calibration: mean truth over bins of equal counts of the predicted value; on the diagonal it is calibrated.
        num_states: states compared.
    """

    difference: Estimate
    normalised: Estimate | None
    per_state: Estimate | None
    floor: float
    share_floored: float
    excess: Estimate | None
    calibration: Curve
    num_states: int


def q_bias(
    sample: ValueSample,
    generator: np.random.Generator,
    *,
    reference: ValueSample | None = None,
    floor: float | None = None,
    num_bins: int = 10,
) -> QBias:
    """Bias of a critic against true returns.

    Args:
        sample: the critic and the truth.
        generator: resamples episodes.
        reference: the same of a reference agent, on its own states.
        floor: least denominator of the per-state ratio, in units of the return; a tenth of mean(|truth|) where nothing
            is said.
        num_bins: of the calibration curve.
    """
    if floor is not None and floor <= 0.0:
        raise InputError("floor", "must be > 0", floor)
    size = np.abs(sample.truth)
    scale = float(size.mean())
    floor = _FLOOR_SHARE * scale if floor is None else floor
    error = sample.q - sample.truth
    normalised = per_state = excess = None
    if scale > 0.0:
        normalised = normalised_bias(sample, generator)
        per_state = mean_estimate(error / np.maximum(size, floor), sample.episodes, generator)
        if reference is not None:
            if not reference.truth.any():
                raise InputError("reference", "must hold a return that is not 0", 0.0, "choose another reference agent")
            excess = _estimate(_difference, [sample, reference], generator)
    return QBias(
        difference=mean_estimate(error, sample.episodes, generator),
        normalised=normalised,
        per_state=per_state,
        floor=floor,
        share_floored=float(np.mean(size < floor)),
        excess=excess,
        calibration=calibration_curve(sample, generator, num_bins),
        num_states=len(sample.q),
    )


def normalised_bias(sample: ValueSample, generator: np.random.Generator) -> Estimate | None:
    """Ratio of means, mean(q - truth) / mean(|truth|), above 0 where the critic overstates; None without a return."""
    return _estimate(ratio, [sample], generator) if sample.truth.any() else None


def calibration_curve(sample: ValueSample, generator: np.random.Generator, num_bins: int = 10) -> Curve:
    """Mean truth (`values`) over the mean prediction (`positions`), in bins of equal counts; equal values share one."""
    if num_bins < 1:
        raise InputError("num_bins", "must be at least 1", num_bins)
    ranks = np.searchsorted(np.sort(sample.q), sample.q)
    return binned_curve(sample.truth, sample.q, ranks * num_bins // len(ranks), sample.episodes, generator)


def _estimate(statistic: Callable[..., Array], samples: list[ValueSample], generator: np.random.Generator) -> Estimate:
    sums = [
        cluster_sums(np.stack([sample.q - sample.truth, np.abs(sample.truth)], axis=1), sample.episodes)
        for sample in samples
    ]
    return cluster_bootstrap(statistic, *sums, generator=generator)


def _difference(sums: Array, reference: Array) -> Array:
    return ratio(sums) - ratio(reference)
