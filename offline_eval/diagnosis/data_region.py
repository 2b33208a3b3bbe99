"""What the data did near a state, which states they cover, and what a critic claims at states on either side."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch as th

from offline_eval.datasets.trajectories import Dataset
from offline_eval.diagnosis.plan import DiagnosisPlan
from offline_eval.diagnostics.regret import CandidateValues, minimum
from offline_eval.errors import InputError, bare
from offline_eval.measurement.actors import mean_actions
from offline_eval.measurement.candidates import StateSample, candidate_values, critic_values, states_of
from offline_eval.spaces import ActionScale
from offline_eval.types import Array, Critic, Predictor
from offline_eval.wrappers.reach import NearbyActions, Neighbours, Region

_FEWEST_STATES = 20
_EDGE = 0.2  # of the states inside, those that are farthest from the data
_SPLIT_STREAM = 11


class Surroundings:
    """What the data did near a state, and which states it covers.

    Args:
        dataset: what the policy was trained on: it says which states are covered.
        plan: its split, its quantile and its sample.
        critic_dataset: what the critic was trained on, where that is other data: its actions are the candidates.

    Attributes:
        threshold: distance from the data from which on a state is outside.
        covered: the states of the policy's data.
        neighbours: the states with the actions that are candidates.

    Raises:
        InputError: too few trajectories for a split, or fewer steps than neighbours are wanted.
    """

    def __init__(self, dataset: Dataset, plan: DiagnosisPlan, critic_dataset: Dataset | None = None) -> None:
        training, validation = dataset.split(plan.validation_fraction, plan.seed)
        self.covered = self._known(training, plan, "dataset")
        self.neighbours = self.covered
        if critic_dataset is not None and critic_dataset is not dataset:
            seen, _ = critic_dataset.split(plan.validation_fraction, plan.seed)
            self.neighbours = self._known(seen, plan, "critic_dataset")
        held_out, _ = self._sample(validation, plan)
        self.threshold = float(np.quantile(self.distances(held_out), plan.quantile))

    def to(self, device: th.device) -> None:
        """Search where a critic is."""
        self.covered, self.neighbours = self.covered.to(device), self.neighbours.to(device)

    def distances(self, observations: Any) -> Array:
        """Distance (num_states,) to the nearest training state of the policy."""
        return np.asarray(self.covered.distances(observations).cpu().numpy())

    def _known(self, part: Dataset, plan: DiagnosisPlan, name: str) -> Neighbours:
        states, actions = self._sample(part, plan)
        if len(states) <= max(plan.num_near):
            raise InputError(
                name,
                f"must have more than {max(plan.num_near)} steps in its training part, to choose among neighbours",
                bare(f"{len(states)}"),
                "collect more episodes",
            )
        return Neighbours(states, actions, part.action_space)

    @staticmethod
    def _sample(part: Dataset, plan: DiagnosisPlan) -> tuple[Any, Array]:
        generator = np.random.default_rng([_SPLIT_STREAM, plan.seed])
        states, actions = states_of(part), part.actions
        if isinstance(states.observations, dict):
            raise InputError("dataset", "must have flat observations for a distance", bare("a dict"), "flatten them")
        if len(states) <= plan.max_states:
            return states.observations, actions
        rows = np.sort(generator.choice(len(states), plan.max_states, replace=False))
        return states.observations[rows], actions[rows]

    def region(self, outside: bool) -> Region:
        """The states that the data cover, or the others."""
        return Region(self.covered, self.threshold, outside)

    def values(self, critic: Critic, policy: Predictor, states: StateSample, num_near: int) -> CandidateValues:
        """The critic at the policy's actions and at those that the data took near."""
        seen = th.as_tensor(states.observations, dtype=th.float32, device=self.neighbours.device)
        near = self.neighbours.nearest(seen, num_near)[1].cpu()
        own = mean_actions(policy, states.observations)
        others = ActionScale(critic.action_space).unscale(near.numpy().reshape(len(own), num_near, *own.shape[1:]))
        return CandidateValues(
            policy=critic_values(critic, states.observations, own),
            candidates=candidate_values(critic, states.observations, others),
            episodes=states.trajectories,
        )

    def proposal(self, num_near: int, std: float) -> NearbyActions:
        """Candidates: as many offsets as actions of the data."""
        return NearbyActions(self.neighbours, num_near, num_near, std)


def edge(distances: Array, threshold: float) -> Array:
    """Which states (num_states,) lie at the edge of the data's region: inside, in the outer fifth of those there."""
    inside = distances <= threshold
    if not inside.any():
        return inside
    return np.asarray(inside & (distances >= np.quantile(distances[inside], 1.0 - _EDGE)))


def regret_beside_data(values: CandidateValues, states: Array) -> float | None:
    """What the policy's actions lose to the best candidate by Q, over what a random one of the candidates loses.

    A clone of the data loses about as much as the data do, wherever it is; so its size says nothing of the state's.

    Args:
        values: of the policy's action and of actions of the data.
        states: (num_states,) which of them.

    Returns:
        0 where the policy does the best, 1 where it is as good as a random pick; None where states are few, or Q rates
        all actions alike there.
    """
    if states.sum() < _FEWEST_STATES:
        return None
    own, others = minimum(values.policy[:, states]), minimum(values.candidates[:, states])
    best = np.maximum(own, others.max(axis=1))
    lost_by_data = float((best - others.mean(axis=1)).mean())
    return float((best - own).mean()) / lost_by_data if lost_by_data > 0.0 else None
