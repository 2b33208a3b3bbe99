"""What every problem with a known answer offers: its environment, its values, who collects its data, true returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium.envs.registration import EnvSpec
from torch import Tensor

from offline_eval.datasets import Dataset, from_trajectories
from offline_eval.datasets.records import Trajectory
from offline_eval.environments import register_own
from offline_eval.problems.dynamics import GAMMA, NUM_STEPS, Dynamics
from offline_eval.types import Array, FloatArray, Predictor

Chooser = Callable[[FloatArray], FloatArray]
"""From states (n, state_dim) to actions (n, action_dim) in the environment's units."""

_DATA_STREAM, _RETURN_STREAM = 0xDA7A, 0x7E57


@dataclass(frozen=True, eq=False)
class Chosen:
    """A policy made of a function; it acts as SB3's do.

    Args:
        choose: the actions.
        action_space: they are clipped to it.
    """

    choose: Chooser
    action_space: Any

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Array, Any]:
        """Actions of a batch of observations, or of one."""
        observations = np.asarray(observation, dtype=np.float64)
        actions = self.choose(np.atleast_2d(observations)).astype(np.float32)
        actions = np.clip(actions, self.action_space.low, self.action_space.high)
        return (actions[0] if observations.ndim == 1 else actions), state


class Problem:
    """An environment with its answer.

    Attributes:
        env_id: of the registered environment.
        env_kwargs: of the constructor, without the breadth.
        dynamics: the environment's.
        noise: standard deviation of what the data's actions add to a mode, in the environment's units.
        num_bells: what a clone of the data needs beside a linear part.
    """

    env_id: ClassVar[str]
    noise: ClassVar[float]
    num_bells: ClassVar[int]
    dynamics: Dynamics
    env_kwargs: dict[str, Any]

    def best_actions(self, states: FloatArray) -> FloatArray:
        """What the optimal policy does: (n, action_dim)."""
        raise NotImplementedError

    def modes(self, states: FloatArray) -> FloatArray:
        """Mean actions of those who collect the data, (num_modes, n, action_dim); one mode an episode."""
        raise NotImplementedError

    def q(self, states: Tensor, actions: Tensor) -> Tensor:
        """The optimal value (n,) of actions in the environment's units, without a time limit; differentiable."""
        raise NotImplementedError

    def v(self, states: FloatArray) -> FloatArray:
        """The optimal value (n,) of states."""
        return self.q_of(states, self.best_actions(states))

    def q_of(self, states: FloatArray, actions: FloatArray) -> FloatArray:
        """`q` in NumPy."""
        with th.no_grad():
            tensors = (th.as_tensor(np.asarray(given, dtype=np.float32)) for given in (states, actions))
            return np.asarray(self.q(*tensors).numpy(), dtype=np.float64)

    def q_around(self, states: FloatArray, centres: FloatArray, offsets: FloatArray) -> FloatArray:
        """`q` (n, num_offsets) of centres (n, action_dim) + offsets, but for a number that each state may add."""
        options = (centres[:, None] + offsets).reshape(-1, offsets.shape[1])
        return self.q_of(np.repeat(states, len(offsets), axis=0), options).reshape(len(states), -1)

    def compiled(self, choose: Chooser) -> Chooser:
        """The same actions, as quickly as this problem allows."""
        return choose

    @property
    def oracle(self) -> Predictor:
        """The optimal policy."""
        return Chosen(self.best_actions, self.dynamics.action_space)

    def env(self, breadth: float = 0.0) -> EnvSpec:
        """What `gymnasium.make` makes the environment of."""
        register_own()
        spec = gym.spec(self.env_id)
        return replace(spec, kwargs={**spec.kwargs, **self.env_kwargs, "breadth": breadth})

    def collect(self, num_trajectories: int, breadth: float, seed: int, *, optimal: bool = False) -> Dataset:
        """Episodes of the modes, each in one of them, or of the optimal policy; with noise on every action."""
        generator = np.random.default_rng([_DATA_STREAM, seed])
        starts = self.dynamics.starts(num_trajectories, breadth, generator)
        mode = generator.integers(len(self.modes(starts[:1])), size=num_trajectories)
        space, rows = self.dynamics.action_space, np.arange(num_trajectories)

        def act(states: FloatArray) -> FloatArray:
            means = self.best_actions(states) if optimal else self.modes(states)[mode, rows]
            return np.clip(means + self.noise * generator.standard_normal(means.shape), space.low, space.high)

        states, actions, rewards = self._play(act, starts, generator)
        ends = np.arange(NUM_STEPS) == NUM_STEPS - 1
        parts = [
            Trajectory(
                observations=states[:, k].astype(np.float32),
                actions=actions[:, k].astype(np.float32),
                rewards=rewards[:, k].astype(np.float32),
                terminated=np.zeros(NUM_STEPS, dtype=bool),
                truncated=ends,
                final_known=True,
            )
            for k in range(num_trajectories)
        ]
        spaces = {"observation_space": self.dynamics.observation_space, "action_space": space}
        return from_trajectories(parts, env_id=self.env_id, **spaces)

    def returns(self, policy: Predictor, breadth: float, num_episodes: int = 400, gamma: float = GAMMA) -> FloatArray:
        """Discounted returns (num_episodes,) over an episode's steps; the same starts and noise for every policy."""
        generator = np.random.default_rng(_RETURN_STREAM)
        starts = self.dynamics.starts(num_episodes, breadth, generator)
        _, _, rewards = self._play(lambda states: policy.predict(states, deterministic=True)[0], starts, generator)
        return np.asarray(gamma ** np.arange(NUM_STEPS) @ rewards)

    def behaviour_returns(self, breadth: float, num_episodes: int = 400, gamma: float = GAMMA) -> FloatArray:
        """The same of those who collect the data, where they start there."""
        data = self.collect(num_episodes, breadth, seed=_RETURN_STREAM)
        return np.asarray(data.rewards.reshape(num_episodes, NUM_STEPS) @ gamma ** np.arange(NUM_STEPS))

    def _play(
        self, act: Chooser, starts: FloatArray, generator: np.random.Generator
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """States (NUM_STEPS + 1, n, ...), actions and rewards (NUM_STEPS, n, ...) of episodes side by side."""
        states, actions, rewards = [starts], [], []
        for _ in range(NUM_STEPS):
            actions.append(act(states[-1]))
            noise = generator.standard_normal((len(starts), self.dynamics.noise_dim))
            following, paid = self.dynamics.advance(states[-1], actions[-1], noise)
            states.append(following)
            rewards.append(paid)
        return np.stack(states), np.stack(actions), np.stack(rewards)
