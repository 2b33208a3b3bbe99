"""Small environments that misbehave in one way each."""

from __future__ import annotations

from collections import OrderedDict

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Counter(gym.Env):
    """Observes how often it stepped, pays 1 a step, terminates after `length` steps (never with None).

    Its seed is its first observation, so that a test can see what it was reset with.
    """

    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)

    def __init__(self, length: int | None = 5, raise_at: tuple[int, int] | None = None):
        self.length, self.raise_at, self.seed, self.steps = length, raise_at, 0, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed = seed if seed is not None else -1
        self.steps = (options or {}).pop("steps", 0)
        return self._observation(), {}

    def step(self, action):
        self.steps += 1
        if self.raise_at == (self.seed, self.steps):
            raise RuntimeError("the simulator exploded")
        done = self.length is not None and self.steps >= self.length
        return self._observation(), 1.0, done, False, {"is_success": self.seed % 2 == 0}

    def _observation(self):
        return np.array([self.seed, self.steps], dtype=np.float64)


class DictCounter(Counter):
    """The same with a dictionary for its observation."""

    observation_space = spaces.Dict({"seed": spaces.Discrete(1000), "steps": spaces.Box(0, 100, (1,), np.float32)})

    def _observation(self):
        return OrderedDict(seed=np.int64(self.seed), steps=np.array([self.steps], dtype=np.float32))


class Zero:
    """A policy that does nothing, and remembers what it was shown."""

    def __init__(self, action_shape: tuple[int, ...] = (1,)):
        self.action_shape = action_shape
        self.seen = []

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        rows = len(next(iter(observation.values()))) if isinstance(observation, dict) else len(observation)
        self.seen.append((observation, episode_start))
        return np.zeros((rows, *self.action_shape), dtype=np.float32), state


class Recurrent:
    """A policy whose action is the number of steps it has taken since `episode_start`, divided by 100."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        steps = np.zeros((1, len(observation))) if state is None else state[0].copy()
        steps[0, np.asarray(episode_start, dtype=bool)] = 0
        steps += 1
        return (steps[0][:, None] / 100).astype(np.float32), (steps,)
