"""How far is a policy from an oracle: training, validation and evaluation error, and where along an episode.

The *evaluation* error is taken at the states that the policy itself visits; only its ratio to the training error
speaks of generalisation, because a wrong critic and a weak extraction raise all three alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from offline_eval.diagnostics.checks import finite, same_rows
from offline_eval.diagnostics.clustered import (
    Curve,
    Estimate,
    cluster_bootstrap,
    cluster_sums,
    mean_estimate,
    ratio,
    step_curve,
)
from offline_eval.errors import InputError, bare
from offline_eval.types import Array


@dataclass(frozen=True, eq=False)
class ActionPairs:
    """Actions of the policy and of the oracle at the same states.

    Attributes:
        policy: (num_states, action_dim) mean actions in the scaled space; a discrete action as a one-hot row.
        oracle: (num_states, action_dim) in the same space.
        trajectories: (num_states,) which trajectory a state belongs to.
        steps: (num_states,) time step within it.

    Raises:
        InputError: an action is not finite (its index is named), or the shapes differ.
    """

    policy: Array
    oracle: Array
    trajectories: Array
    steps: Array

    def __post_init__(self) -> None:
        object.__setattr__(self, "policy", finite("policy", self.policy, ndim=2))
        object.__setattr__(self, "oracle", finite("oracle", self.oracle, ndim=2))
        object.__setattr__(self, "trajectories", np.asarray(self.trajectories))
        object.__setattr__(self, "steps", np.asarray(self.steps))
        same_rows(policy=self.policy, oracle=self.oracle, trajectories=self.trajectories, steps=self.steps)
        if self.policy.shape != self.oracle.shape:
            raise InputError(
                "oracle", f"must have actions of shape {self.policy.shape}", bare(f"shape {self.oracle.shape}")
            )

    @property
    def squared_error(self) -> Array:
        """(num_states,) mean over the dimensions of the squared difference."""
        return np.asarray(np.square(self.policy - self.oracle).mean(axis=1))

    @property
    def sums(self) -> Array:
        """(num_trajectories, 2) sums of the squared error and of ones."""
        return cluster_sums(np.stack([self.squared_error, np.ones(len(self.policy))], axis=1), self.trajectories)


@dataclass(frozen=True, eq=False)
class SetError:
    """Error on one set of states.

    Attributes:
        mse: mean over states and action dimensions of the squared difference; interval by trajectories.
        curve: the same over the time step.
        num_states: states in the set.
    """

    mse: Estimate
    curve: Curve
    num_states: int


@dataclass(frozen=True, eq=False)
class PolicyError:
    """The three errors of a policy against one oracle.

    Attributes:
        oracle: what it was compared with.
        training: at states of the training trajectories.
        validation: at states of held-out trajectories; None where there are none.
        evaluation: at the states that the policy visits; None where it was not rolled out.
        generalisation: evaluation over training error; None without both, or where the training error is 0.
    """

    oracle: str
    training: SetError
    validation: SetError | None
    evaluation: SetError | None
    generalisation: Estimate | None


def policy_error(
    training: ActionPairs,
    generator: np.random.Generator,
    *,
    oracle: str,
    validation: ActionPairs | None = None,
    evaluation: ActionPairs | None = None,
    num_bins: int = 50,
) -> PolicyError:
    """Mean squared errors of a policy's mean action against an oracle's.

    Args:
        training: at the states that the policy was trained on.
        generator: resamples trajectories.
        oracle: a name that says what the oracle is: the file of an agent, "constrained optimum of the critic".
        validation: at held-out trajectories of the same data.
        evaluation: at the states that the policy visits.
        num_bins: of the curves over the time step.
    """
    if not oracle.strip():
        raise InputError("oracle", "must say what the policy is compared with", oracle)
    generalisation = None
    if evaluation is not None and training.squared_error.any():
        generalisation = cluster_bootstrap(_ratio_of_means, evaluation.sums, training.sums, generator=generator)

    def error(pairs: ActionPairs | None) -> SetError | None:
        return None if pairs is None else set_error(pairs, generator, num_bins)

    return PolicyError(
        oracle=oracle,
        training=set_error(training, generator, num_bins),
        validation=error(validation),
        evaluation=error(evaluation),
        generalisation=generalisation,
    )


def set_error(pairs: ActionPairs, generator: np.random.Generator, num_bins: int = 50) -> SetError:
    """Error on one set of states."""
    errors = pairs.squared_error
    return SetError(
        mse=mean_estimate(errors, pairs.trajectories, generator),
        curve=step_curve(errors, pairs.steps, pairs.trajectories, generator, num_bins),
        num_states=len(errors),
    )


def return_correlation(returns: Any, errors: Any) -> float:
    """Spearman's rank correlation of checkpoints' returns (num_checkpoints,) with their errors (num_checkpoints,).

    -1 where a lower error always goes with a higher return. Neighbouring checkpoints are alike, so no p-value.
    """
    returns, errors = finite("returns", returns, ndim=1), finite("errors", errors, ndim=1)
    same_rows(returns=returns, errors=errors)
    for name, values in (("returns", returns), ("errors", errors)):
        if len(np.unique(values)) < 2:
            raise InputError(name, "must vary over the checkpoints", bare(f"{values[0]} at all {len(values)}"))
    return float(np.corrcoef(_ranks(returns), _ranks(errors))[0, 1])


def _ratio_of_means(sums: Array, reference: Array) -> Array:
    return np.asarray(ratio(sums) / ratio(reference))


def _ranks(values: Array) -> Array:
    """Ranks, equal values sharing their mean; `scipy.stats.rankdata` without its two seconds of import."""
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - 0.5 * (counts - 1))[index])
