"""Which other actions a state offers: those the data took nearby, steps along the critic's gradient, noise, chance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch as th
from gymnasium import Space, spaces

from offline_eval.batching import num_rows, take
from offline_eval.datasets.trajectories import Dataset
from offline_eval.diagnostics.regret import minimum
from offline_eval.errors import InputError, bare
from offline_eval.measurement.actors import blocks
from offline_eval.spaces import ActionScale
from offline_eval.types import Array, Critic, Observations
from offline_eval.wrappers import OPEX
from offline_eval.wrappers.host import Steering
from offline_eval.wrappers.transfer import to_device

_QUERY_BLOCK, _VALUE_BLOCK = 64, 1024


@dataclass(frozen=True, eq=False)
class StateSample:
    """Some states of some trajectories.

    Attributes:
        observations: (num_states, *shape), or a dict of those.
        trajectories: (num_states,) which one each is from.
        steps: (num_states,) time step within it.
    """

    observations: Observations
    trajectories: Array
    steps: Array

    def __len__(self) -> int:
        return len(self.steps)

    def sample(self, num_states: int, generator: np.random.Generator) -> StateSample:
        """At most so many, without replacement, in their order."""
        if len(self) <= num_states:
            return self
        rows = np.sort(generator.choice(len(self), num_states, replace=False))
        return StateSample(take(self.observations, rows), self.trajectories[rows], self.steps[rows])


def states_of(dataset: Dataset) -> StateSample:
    """Every state in which the data took an action."""
    steps = np.concatenate([np.arange(length) for length in dataset.lengths])
    return StateSample(dataset.step_observations, np.repeat(dataset.numbers, dataset.lengths), steps)


class Reach:
    """The actions that the data took near a state, or every action where actions are discrete.

    Args:
        dataset: of the training trajectories.
        generator: draws the sample.
        max_states: of more states a sample is searched.

    Raises:
        InputError: observations that have no distance.
    """

    def __init__(self, dataset: Dataset, generator: np.random.Generator, max_states: int = 100_000) -> None:
        if isinstance(dataset.store.observations, dict):
            raise InputError("dataset", "must have flat observations for a distance", bare("a dict"), "flatten them")
        whole = states_of(dataset)
        rows = np.arange(len(whole))
        if len(rows) > max_states:
            rows = np.sort(generator.choice(len(rows), max_states, replace=False))
        flat = np.asarray(take(whole.observations, rows), dtype=np.float32).reshape(len(rows), -1)
        spread = flat.std(axis=0)
        self._centre, self._scale = flat.mean(axis=0), np.where(spread > 0.0, spread, 1.0)
        self._points = (flat - self._centre) / self._scale
        self._norms = np.square(self._points).sum(axis=1)
        self._actions, self._trajectories = dataset.actions[rows], whole.trajectories[rows]

    def near(self, states: StateSample, num_actions: int) -> Array:
        """Actions (num_states, num_actions, *action_shape) of the nearest data states, never of the own trajectory."""
        queries = np.asarray(states.observations, dtype=np.float32).reshape(len(states), -1)
        queries = (queries - self._centre) / self._scale
        if len(self._points) <= num_actions:
            raise InputError("dataset", f"must have more than {num_actions} steps", len(self._points))
        found = []
        for start in range(0, len(queries), _QUERY_BLOCK):
            block = slice(start, start + _QUERY_BLOCK)
            distances = self._norms - 2.0 * queries[block] @ self._points.T
            distances[self._trajectories[None] == states.trajectories[block, None]] = np.inf
            nearest = np.argpartition(distances, num_actions, axis=1)[:, :num_actions]
            found.append(self._actions[nearest])
        return np.concatenate(found)


def critic_values(critic: Critic, observations: Observations, actions: Array) -> Array:
    """The critic (n_critics, num_rows) at actions (num_rows, *action_shape) in the environment's units."""
    discrete = isinstance(critic.action_space, spaces.Discrete)
    scaled = actions if discrete else ActionScale(critic.action_space).scale(np.asarray(actions, dtype=np.float32))
    parts, size = [], num_rows(observations)
    with th.no_grad():
        for rows in blocks(size, min(size, _VALUE_BLOCK)):
            sent = to_device({"seen": take(observations, rows), "given": scaled[rows]}, critic.device)
            parts.append(critic.q(sent["seen"], sent["given"]).cpu().numpy())
    return np.concatenate(parts, axis=1)[:, :size].astype(np.float64)


def candidate_values(critic: Critic, observations: Observations, candidates: Array) -> Array:
    """The critic (n_critics, num_states, num_candidates) at actions (num_states, num_candidates, *action_shape)."""
    columns = [critic_values(critic, observations, candidates[:, i]) for i in range(candidates.shape[1])]
    return np.stack(columns, axis=2)


@dataclass(frozen=True, eq=False)
class Candidates:
    """Actions at the same states; the first is the policy's own.

    Attributes:
        actions: (num_states, num_candidates, *action_shape), in the environment's units.
        names: what each is.
    """

    actions: Array
    names: tuple[str, ...]

    @property
    def from_data(self) -> Array:
        """(num_candidates - 1,) which of the others stand for the data; all of them where fewer than two do."""
        mask = np.array([name in ("data", "perturbed", "action") for name in self.names[1:]])
        return mask if mask.sum() >= 2 else np.ones(len(mask), dtype=bool)


def candidate_actions(
    states: StateSample,
    policy: Array,
    critic: Critic,
    generator: np.random.Generator,
    *,
    reach: Reach | None = None,
    perturbation: float = 0.5,
    step_size: float = 0.2,
    num_each: int = 2,
) -> Candidates:
    """The policy's action, a steered one, and `num_each` of each kind: of the data, perturbed, random.

    Args:
        states: where.
        policy: (num_states, *action_shape) the policy's own actions.
        critic: steers.
        generator: draws.
        reach: the data's actions; without it there are more perturbed ones.
        perturbation: standard deviation in the scaled space. Smaller ones drown in the noise of the rollouts.
        step_size: of the OPEX step.
        num_each: actions of a kind.
    """
    space = critic.action_space
    if isinstance(space, spaces.Discrete):
        everything = int(space.start) + np.arange(int(space.n))
        others = np.stack([everything[everything != action] for action in policy])
        return Candidates(
            np.concatenate([policy[:, None], others], axis=1), ("policy", *["action"] * (int(space.n) - 1))
        )
    scale, shape = ActionScale(space), (num_each, len(states), *policy.shape[1:])
    own = scale.scale(policy.astype(np.float32))
    steering = Steering(OPEX(critic, step_size), None, space)
    steered, _ = steering(states.observations, policy, None)
    kinds: list[tuple[str, Any]] = [("policy", [policy]), ("steered", [steered])]
    if reach is not None:
        kinds.append(("data", np.moveaxis(reach.near(states, num_each), 1, 0)))
    noisy = own + perturbation * generator.standard_normal(shape, dtype=np.float32)
    kinds.append(("perturbed", [_unscaled(scale, space, actions) for actions in noisy]))
    if np.isfinite(scale.scaled_low).all():
        kinds.append(("random", [_unscaled(scale, space, a) for a in generator.uniform(-1.0, 1.0, shape)]))
    actions = [action for _, parts in kinds for action in parts]
    return Candidates(np.stack(actions, axis=1), tuple(name for name, parts in kinds for _ in parts))


def all_actions(space: spaces.Discrete, num_states: int) -> Array:
    """Every action at every state, (num_states, num_actions)."""
    return np.tile(int(space.start) + np.arange(int(space.n)), (num_states, 1))


def constrained_optimum(
    critic: Critic,
    states: StateSample,
    policy: Array,
    near: Array,
    reduce: Callable[[Array], Array] = minimum,
) -> Array:
    """The action (num_states, *action_shape) that the critic likes best among the policy's own and those nearby."""
    actions = np.concatenate([policy[:, None], near], axis=1)
    best = reduce(candidate_values(critic, states.observations, actions)).argmax(axis=1)
    return np.asarray(actions[np.arange(len(best)), best])


def _unscaled(scale: ActionScale, space: Space[Any], actions: Array) -> Array:
    inside = np.clip(actions, scale.scaled_low, scale.scaled_high).astype(np.float32)
    return np.clip(scale.unscale(inside), space.low, space.high).astype(space.dtype)  # type: ignore[attr-defined]
