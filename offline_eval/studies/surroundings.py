"""What the data did near a state, which states they cover, and what a critic claims at states on either side."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch as th

from offline_eval.datasets.trajectories import Dataset
from offline_eval.diagnostics.regret import CandidateValues, extraction_regret
from offline_eval.errors import InputError, bare
from offline_eval.spaces import ActionScale
from offline_eval.studies.candidates import StateSample, candidate_values, critic_values, states_of
from offline_eval.studies.diagnosis_plan import DiagnosisPlan
from offline_eval.studies.driving import mean_actions
from offline_eval.types import Array, Critic, Predictor
from offline_eval.wrappers.reach import NearbyActions, Neighbours, Region

_FEWEST_STATES = 20
_SPLIT_STREAM = 11


class Surroundings:
    """What the data did near a state, and which states it covers.

    Args:
        dataset: what the policy was trained on.
        plan: its split, its quantile and its sample.

    Raises:
        InputError: too few trajectories for a split, or fewer steps than neighbours are wanted.
    """

    def __init__(self, dataset: Dataset, plan: DiagnosisPlan) -> None:
        self.training, self.validation = dataset.split(plan.validation_fraction, plan.seed)
        known = self._sample(self.training, plan)
        if len(known[0]) <= max(plan.num_near):
            raise InputError(
                "dataset",
                f"must have more than {max(plan.num_near)} steps in its training part, to choose among neighbours",
                bare(f"{len(known[0])}"),
                "collect more episodes",
            )
        self.neighbours = Neighbours(*known, dataset.action_space)
        held_out, _ = self._sample(self.validation, plan)
        self.threshold = float(np.quantile(self.distances(held_out), plan.quantile))

    def to(self, device: th.device) -> None:
        """Search where a critic is."""
        self.neighbours = self.neighbours.to(device)

    def distances(self, observations: Any) -> Array:
        """Distance (num_states,) to the nearest training state."""
        return np.asarray(self.neighbours.distances(observations).cpu().numpy())

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
        return Region(self.neighbours, self.threshold, outside)

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


def claimed_regret(values: CandidateValues, states: Array) -> float | None:
    """The claimed regret at some of the states; None where they are few, or Q rates all actions alike there."""
    if states.sum() < _FEWEST_STATES:
        return None
    try:
        return extraction_regret(values.where(states), np.random.default_rng(_SPLIT_STREAM)).claimed.value
    except InputError:
        return None
