"""What is measured on three sets of states: those of training, those held out, and those that the policy visits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from offline_eval.datasets.trajectories import Dataset
from offline_eval.diagnostics.coverage import States, Support, coverage
from offline_eval.diagnostics.policy_error import ActionPairs, SetError, policy_error, set_error
from offline_eval.diagnostics.regret import CandidateValues, ExtractionRegret, extraction_regret
from offline_eval.errors import InputError, bare
from offline_eval.measurement.action_rank import TriedActions
from offline_eval.measurement.actors import mean_actions
from offline_eval.measurement.candidates import (
    Reach,
    StateSample,
    all_actions,
    candidate_values,
    constrained_optimum,
    critic_values,
    states_of,
)
from offline_eval.measurement.records import Cover, Errors, Regrets, Skipped, attempt
from offline_eval.spaces import ActionScale
from offline_eval.types import Array, Critic, Predictor

_SETS = ("train", "validation", "evaluation")


@dataclass(frozen=True, eq=False)
class Sets:
    """Where an agent is measured.

    Attributes:
        train: the data that it may have been trained on.
        validation: held-out trajectories of the same data.
        visited: states of its own episodes.
        reach: the actions of the training data near a state.
    """

    train: Dataset | Skipped
    validation: Dataset | Skipped
    visited: StateSample
    reach: Reach | Skipped

    def samples(self, num_states: int, generator: np.random.Generator) -> dict[str, StateSample | Skipped]:
        """At most so many states of each set."""
        wholes = [part if isinstance(part, Skipped) else states_of(part) for part in (self.train, self.validation)]
        # Visited states are no trajectory of the data, whatever their number.
        visited = StateSample(self.visited.observations, -1 - self.visited.trajectories, self.visited.steps)
        parts = dict(zip(_SETS, [*wholes, visited], strict=True))
        return {
            name: part if isinstance(part, Skipped) else part.sample(num_states, generator)
            for name, part in parts.items()
        }


@dataclass(frozen=True, eq=False)
class CriticsOptimum:
    """The oracle that the critic itself is: its best action within the data's reach."""

    critic: Critic
    reach: Reach
    num_near: int

    @property
    def name(self) -> str:
        """What it is."""
        return f"the critic's best of the policy's action and {self.num_near} actions of the data near the state"

    def actions(self, policy: Array, states: StateSample) -> Array:
        """(num_states, *action_shape)."""
        return constrained_optimum(self.critic, states, policy, self.reach.near(states, self.num_near))


@dataclass(frozen=True, eq=False)
class GreedyChoice:
    """The oracle that a critic of discrete actions is: the best of all of them."""

    critic: Critic
    name: str = "the critic's best of all actions"

    def actions(self, policy: Array, states: StateSample) -> Array:
        """(num_states,)."""
        space = self.critic.action_space
        assert isinstance(space, spaces.Discrete)
        return constrained_optimum(self.critic, states, policy, all_actions(space, len(states)))


def critics_optimum(critic: Critic, reach: Reach | Skipped, num_near: int) -> CriticsOptimum | GreedyChoice | Skipped:
    """What the critic itself holds for right, among the data's actions near a state or among all there are."""
    if isinstance(critic.action_space, spaces.Discrete):
        return GreedyChoice(critic)
    return reach if isinstance(reach, Skipped) else CriticsOptimum(critic, reach, num_near)


@dataclass(frozen=True, eq=False)
class Agent:
    """An oracle that is an agent: its mean action."""

    policy: Predictor
    name: str

    def actions(self, policy: Array, states: StateSample) -> Array:
        """(num_states, *action_shape)."""
        return mean_actions(self.policy, states.observations)


def policy_errors(
    policy: Predictor,
    action_space: Any,
    oracle: CriticsOptimum | GreedyChoice | Agent,
    sets: Sets,
    num_states: int,
    generator: np.random.Generator,
) -> Errors:
    """The policy's error against an oracle on the three sets.

    Raises:
        InputError: the actions of some set cannot be compared.
    """
    pairs: dict[str, ActionPairs | Skipped] = {}
    for name, states in sets.samples(num_states, generator).items():
        if isinstance(states, Skipped):
            pairs[name] = states
            continue
        own = mean_actions(policy, states.observations)
        right = oracle.actions(own, states)
        pairs[name] = ActionPairs(
            comparable_actions(action_space, own),
            comparable_actions(action_space, right),
            states.trajectories,
            states.steps,
        )
    train, validation, evaluation = (pairs[name] for name in _SETS)
    if isinstance(train, Skipped):
        return Errors(oracle.name, train, _error(validation, generator), _error(evaluation, generator))
    whole = policy_error(
        train,
        generator,
        oracle=oracle.name,
        validation=None if isinstance(validation, Skipped) else validation,
        evaluation=None if isinstance(evaluation, Skipped) else evaluation,
    )
    return Errors(
        oracle.name,
        whole.training,
        validation if isinstance(validation, Skipped) else _known(whole.validation),
        evaluation if isinstance(evaluation, Skipped) else _known(whole.evaluation),
        whole.generalisation,
    )


def _known(error: SetError | None) -> SetError | Skipped:
    return Skipped("no states") if error is None else error


def _error(pairs: ActionPairs | Skipped, generator: np.random.Generator) -> SetError | Skipped:
    return pairs if isinstance(pairs, Skipped) else set_error(pairs, generator)


def comparable_actions(space: Any, actions: Array) -> Array:
    """Scaled actions (num_states, action_dim); a discrete action as a one-hot row."""
    if isinstance(space, spaces.Discrete):
        return np.asarray(np.eye(int(space.n))[actions.reshape(-1) - int(space.start)])
    if not isinstance(space, spaces.Box):
        raise InputError("env", "must have a Box or Discrete of actions for a mean squared error", space)
    return np.asarray(ActionScale(space).scale(actions.astype(np.float32)).reshape(len(actions), -1))


def extraction_regrets(
    policy: Predictor,
    critic: Critic,
    sets: Sets,
    num_states: int,
    num_near: int,
    generator: np.random.Generator,
    tried: TriedActions | Skipped,
) -> Regrets:
    """What the policy leaves on the table on the three sets, among the data's actions near each state."""
    space = critic.action_space

    def regret(states: StateSample | Skipped) -> ExtractionRegret | Skipped:
        if isinstance(states, Skipped):
            return states
        own = mean_actions(policy, states.observations)
        if isinstance(space, spaces.Discrete):
            others = all_actions(space, len(states))
        elif isinstance(sets.reach, Skipped):
            return sets.reach
        else:
            others = sets.reach.near(states, num_near)
        values = CandidateValues(
            policy=critic_values(critic, states.observations, own),
            candidates=candidate_values(critic, states.observations, others),
            episodes=states.trajectories,
        )
        return extraction_regret(values, generator)

    samples = sets.samples(num_states, generator)
    parts = {name: attempt(lambda states=states: regret(states)) for name, states in samples.items()}  # type: ignore[misc]
    truth = tried if isinstance(tried, Skipped) else attempt(lambda: tried.regret(generator))
    text = "all actions" if isinstance(space, spaces.Discrete) else f"{num_near} actions of the data near the state"
    return Regrets(text, parts["train"], parts["validation"], parts["evaluation"], truth)


def state_coverage(sets: Sets, generator: np.random.Generator) -> Cover | Skipped:
    """Coverage of the visited states by the training states."""
    if isinstance(sets.train, Skipped):
        return sets.train
    if isinstance(sets.validation, Skipped):
        return sets.validation
    if isinstance(sets.visited.observations, dict):
        raise InputError("env", "must have flat observations for a distance", bare("a dict"), "flatten them")
    support = Support(states_of(sets.train).observations, _states(states_of(sets.validation)), generator)
    return Cover(coverage(support, _states(sets.visited), generator))


def _states(states: StateSample) -> States:
    return States(np.asarray(states.observations), states.trajectories, states.steps)
