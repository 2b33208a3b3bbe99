"""What a problem's environment is made of: starts, steps and a state that can be put back, its noise included."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from offline_eval.errors import InputError
from offline_eval.types import Array, FloatArray

GAMMA = 0.98
NUM_STEPS = 100

_TABLE_SEED, _TABLE_ROWS, _STRIDE = 0x7AB1E, 1 << 17, 40_503
_FAR_APART = 97_711  # neighbouring seeds begin far from each other in the table


class Dynamics(Protocol):
    """Physics in NumPy, for batches (n, state_dim) and for one state; the observation is the state."""

    observation_space: Any  # a Box, as the next
    action_space: Any
    noise_dim: int

    def starts(self, number: int, breadth: float, generator: np.random.Generator) -> FloatArray:
        """First states (number, state_dim); a breadth of 0 keeps them in a small spot, 1 spreads them widely."""
        ...

    def advance(self, states: FloatArray, actions: FloatArray, noise: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The next states and the rewards (n,), given standard normal noise (n, noise_dim)."""
        ...

    def advance_one(self, state: FloatArray, action: FloatArray, noise: FloatArray) -> tuple[FloatArray, float]:
        """The same for one state (state_dim,): a rollout is a million of these."""
        ...


@cache
def _normal_table(noise_dim: int) -> FloatArray:
    return np.random.default_rng(_TABLE_SEED).standard_normal((_TABLE_ROWS, noise_dim))


def noise_at(key: Any, clock: Any, noise_dim: int) -> FloatArray:
    """Standard normal numbers (..., noise_dim) of the episodes with these keys at these steps.

    They are a function of the two, so that a state that holds both repeats its future, in one environment or in a batch
    of thousands. They come from one table: two of a hundred episodes share a stretch of it with a chance of a percent.
    """
    place = (np.asarray(key).astype(np.int64) + _STRIDE * np.asarray(clock).astype(np.int64)) % _TABLE_ROWS
    return np.asarray(_normal_table(noise_dim)[place])


class ProblemEnv(gym.Env[FloatArray, FloatArray]):
    """An environment of these dynamics. It never terminates.

    The noise of an episode is drawn when it is reset, with the environment's own generator, as one number, `key`; it is
    a part of the state. A restored state repeats its future exactly; another `key` gives it another one.

    Args:
        dynamics: its physics.
        breadth: of the first states, >= 0.
    """

    def __init__(self, dynamics: Dynamics, breadth: float) -> None:
        if not breadth >= 0.0:
            raise InputError("breadth", "must be >= 0 (0 is a small spot, 1 is wide)", breadth)
        self.dynamics, self.breadth = dynamics, breadth
        self.observation_space, self.action_space = dynamics.observation_space, dynamics.action_space
        self._state: FloatArray = np.zeros(dynamics.observation_space.shape)
        self._key = self._clock = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[FloatArray, dict[str, Any]]:
        """Begin an episode in one of the first states."""
        super().reset(seed=seed)
        self._state = self.dynamics.starts(1, self.breadth, self.np_random)[0]
        self._key, self._clock = int(self.np_random.integers(_TABLE_ROWS)), 0
        return self._state.astype(np.float32), {}

    def step(self, action: FloatArray) -> tuple[FloatArray, float, bool, bool, dict[str, Any]]:
        """Take an action in the environment's units; what lies outside of the box is clipped."""
        table = _normal_table(self.dynamics.noise_dim)
        noise = table[(self._key + _STRIDE * self._clock) % _TABLE_ROWS]
        self._state, reward = self.dynamics.advance_one(self._state, action, noise)
        self._clock += 1
        return self._state.astype(np.float32), reward, False, False, {}

    def get_state(self) -> dict[str, Array]:
        """The state (state_dim,), the episode's key and its clock, for `offline_eval.simulator`."""
        return {
            "state": self._state.copy(),
            "key": np.array(self._key, dtype=np.float64),
            "clock": np.array(self._clock, dtype=np.float64),
        }

    def set_state(self, state: Mapping[str, Array]) -> None:
        """Put back what `get_state` gave."""
        self._state = np.array(state["state"], dtype=np.float64)
        self._key, self._clock = int(state["key"]), int(state["clock"])

    def with_future(self, states: Mapping[str, Array], seeds: Array) -> dict[str, Array]:
        """The same states before other random numbers, the same ones for equal seeds (n,)."""
        keys = _FAR_APART * np.asarray(seeds, dtype=np.int64) % _TABLE_ROWS
        return {**states, "key": keys.astype(np.float64)}

    def simulate(
        self, states: Mapping[str, Array], actions: FloatArray
    ) -> tuple[dict[str, Array], FloatArray, FloatArray, Array]:
        """Steps from many states at once; the environment itself stays where it is.

        Args:
            states: of `get_state`, each part with a leading axis n.
            actions: (n, *action_shape), in the environment's units.

        Returns:
            The next states, the observations (n, state_dim), the rewards (n,), and which of them terminated (none).
        """
        noise = noise_at(states["key"], states["clock"], self.dynamics.noise_dim)
        moved, rewards = self.dynamics.advance(states["state"], np.asarray(actions, dtype=np.float64), noise)
        following = {"state": moved, "key": states["key"], "clock": states["clock"] + 1.0}
        return following, moved.astype(np.float32), rewards, np.zeros(len(rewards), dtype=bool)
