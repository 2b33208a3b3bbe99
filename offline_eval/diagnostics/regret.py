"""What does a policy leave on the table? Gains of the best candidate action over the policy's own, claimed and true.

| gain | chosen by | scored by | |
|---|---|---|---|
| `claimed` | the critic | the same critic | grows with the critic's error: a hypothesis, not a fault of the policy |
| `corrected` | one critic of the ensemble | another | free of the winner's curse as far as their errors differ |
| `realised` | the critic | the truth | what following the critic for one action brings |
| `attainable` | half of the rollouts | the other half | what knowing the truth would bring |

A claim without a realised gain speaks against the critic, a realised gain against the extraction. All of them bound
nothing beyond their candidates: no regret means nothing better *among these*.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from offline_eval.diagnostics.checks import finite, same_rows
from offline_eval.diagnostics.clustered import Estimate, cluster_bootstrap, cluster_sums, ratio
from offline_eval.errors import InputError, bare
from offline_eval.types import Array

_NUM_SPLITS = 16


def minimum(values: Array) -> Array:
    """The lowest of the ensemble: (n_critics, ...) to (...)."""
    return np.asarray(values.min(axis=0))


@dataclass(frozen=True, eq=False)
class CandidateTruth:
    """Returns of rollouts that start with an action; the same random numbers for all actions of a state and rollout.

    Attributes:
        policy: (num_states, num_rollouts) for the policy's own action.
        candidates: (num_states, num_candidates, num_rollouts).
    """

    policy: Array
    candidates: Array


@dataclass(frozen=True, eq=False)
class CandidateValues:
    """A critic's values of the policy's action and of candidate actions at the same states.

    Attributes:
        policy: (n_critics, num_states) at the policy's action.
        candidates: (n_critics, num_states, num_candidates).
        episodes: (num_states,) which episode a state was taken from.
        from_data: (num_candidates,) which candidates are actions of the data: the spread is taken over them; all where
            nothing is said.
        truth: where the states can be restored.

    Raises:
        InputError: a value is not finite (its index is named), or the shapes do not fit.
    """

    policy: Array
    candidates: Array
    episodes: Array
    from_data: Array | None = None
    truth: CandidateTruth | None = None

    def __post_init__(self) -> None:
        policy, candidates = finite("policy", self.policy, ndim=2), finite("candidates", self.candidates, ndim=3)
        if candidates.shape[:2] != policy.shape:
            raise InputError(
                "candidates", f"must have shape {policy.shape} and an axis more", bare(f"shape {candidates.shape}")
            )
        num_candidates = candidates.shape[2]
        from_data = np.ones(num_candidates, bool) if self.from_data is None else np.asarray(self.from_data, dtype=bool)
        if from_data.shape != (num_candidates,) or from_data.sum() < 2:
            raise InputError("from_data", f"must mark two or more of the {num_candidates} candidates", self.from_data)
        for name, value in (("policy", policy), ("candidates", candidates), ("from_data", from_data)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "episodes", np.asarray(self.episodes))
        same_rows(policy=policy.T, episodes=self.episodes)
        if self.truth is not None:
            object.__setattr__(self, "truth", _checked(self.truth, candidates.shape[1:]))

    def where(self, states: Any) -> CandidateValues:
        """The same for some of the states: a mask (num_states,) or indices."""
        truth = self.truth
        return CandidateValues(
            policy=self.policy[:, states],
            candidates=self.candidates[:, states],
            episodes=self.episodes[states],
            from_data=self.from_data,
            truth=None if truth is None else CandidateTruth(truth.policy[states], truth.candidates[states]),
        )


@dataclass(frozen=True, eq=False)
class ExtractionRegret:
    """Mean gain of the best candidate over the policy's own action, in within-state spreads; intervals by episodes.

    Attributes:
        claimed: chosen and scored by the reduced critic; never below 0.
        corrected: chosen by one critic of the ensemble and scored by another; None with one critic. Critics that were
            trained on the same targets share errors, which this leaves in; a policy that was trained to please all of
            them has its own winner's curse, which pulls this below 0.
        realised: chosen by the reduced critic, scored by the truth; None without truth.
        attainable: chosen on half of the rollouts and scored on the other; None with fewer than two rollouts.
        spread: the unit, in return units: mean over states of the standard deviation of the reduced critic over the
            data's actions. All four gains share it, the true ones too.
        share_better: share of the states where the critic rates a candidate above the policy's action.
        num_states: states compared.
        n_critics: critics of the ensemble.
        num_rollouts: a state and action; 0 without truth.
    """

    claimed: Estimate
    corrected: Estimate | None
    realised: Estimate | None
    attainable: Estimate | None
    spread: float
    share_better: float
    num_states: int
    n_critics: int
    num_rollouts: int

    @property
    def winners_curse(self) -> float | None:
        """What the correction takes off the claim, in spreads; None with one critic."""
        return None if self.corrected is None else self.claimed.value - self.corrected.value


def extraction_regret(
    values: CandidateValues,
    generator: np.random.Generator,
    *,
    reduce: Callable[[Array], Array] = minimum,
) -> ExtractionRegret:
    """Regret of a policy on one set of states.

    Args:
        values: of the policy's action and of the candidates; the policy's action always counts as a candidate.
        generator: splits rollouts and resamples episodes.
        reduce: the ensemble (n_critics, ...) to one value (...), as the policy was trained on it.

    Raises:
        InputError: the critic rates the data's actions equally at every state, so that there is no unit.
    """
    ensemble = np.concatenate([values.policy[..., None], values.candidates], axis=2)
    reduced = reduce(ensemble)
    spreads = reduced[:, 1:][:, values.from_data].std(axis=1)
    if not spreads.any():
        raise InputError(
            "candidates",
            "must be rated differently at some state",
            bare("the same value for all actions of the data"),
            "the critic ignores the action, or the candidates are all the same",
        )
    num_states, n_critics = len(reduced), len(ensemble)
    chosen, states = reduced.argmax(axis=1), np.arange(num_states)

    def in_spreads(gains: Array) -> Estimate:
        sums = cluster_sums(np.stack([gains, spreads], axis=1), values.episodes)
        return cluster_bootstrap(ratio, sums, generator=generator)

    gains = reduced[states, chosen] - reduced[:, 0]
    realised = attainable = None
    if values.truth is not None:
        truth = np.concatenate([values.truth.policy[:, None], values.truth.candidates], axis=1)
        means = truth.mean(axis=2)
        realised = in_spreads(means[states, chosen] - means[:, 0])
        if truth.shape[2] > 1:
            attainable = in_spreads(_split_half_gains(truth, generator))
    return ExtractionRegret(
        claimed=in_spreads(gains),
        corrected=in_spreads(_cross_gains(ensemble)) if n_critics > 1 else None,
        realised=realised,
        attainable=attainable,
        spread=float(spreads.mean()),
        share_better=float(np.mean(gains > 0.0)),
        num_states=num_states,
        n_critics=n_critics,
        num_rollouts=0 if values.truth is None else values.truth.policy.shape[1],
    )


def _cross_gains(ensemble: Array) -> Array:
    """Gains (num_states,) of actions chosen by one critic and scored by the others, over all pairs of critics."""
    n_critics, num_states, _ = ensemble.shape
    states, total = np.arange(num_states), np.zeros(num_states)
    for i, critic in enumerate(ensemble):
        gains = ensemble[:, states, critic.argmax(axis=1)] - ensemble[:, :, 0]
        total += gains.sum(axis=0) - gains[i]
    return np.asarray(total / (n_critics * (n_critics - 1)))


def _split_half_gains(truth: Array, generator: np.random.Generator) -> Array:
    """Gains (num_states,) of actions chosen on one half of the rollouts and scored on the other, over random halves."""
    num_states, _, num_rollouts = truth.shape
    states, total = np.arange(num_states), np.zeros(num_states)
    for _ in range(_NUM_SPLITS):
        order = generator.permutation(num_rollouts)
        halves = [truth[..., part].mean(axis=2) for part in np.array_split(order, 2)]
        for chooser, scorer in (halves, halves[::-1]):
            total += scorer[states, chooser.argmax(axis=1)] - scorer[:, 0]
    return total / (2 * _NUM_SPLITS)


def _checked(truth: CandidateTruth, shape: tuple[int, ...]) -> CandidateTruth:
    policy = finite("truth.policy", truth.policy, ndim=2)
    candidates = finite("truth.candidates", truth.candidates, ndim=3)
    if candidates.shape[:2] != shape or policy.shape != (shape[0], candidates.shape[2]):
        raise InputError(
            "truth",
            f"must rate the policy's action and {shape[1]} candidates at {shape[0]} states in as many rollouts",
            bare(f"shapes {policy.shape} and {candidates.shape}"),
        )
    return CandidateTruth(policy, candidates)
