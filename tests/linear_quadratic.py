"""A linear-quadratic environment whose values and best actions are known exactly, and agents made of them."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

GAMMA = 0.9
DYNAMICS = np.array([[1.0, 0.1], [0.0, 0.95]])
CONTROL = np.array([[0.0], [0.3]])


class LinearQuadratic(gym.Env):
    """Moves by DYNAMICS and CONTROL and pays -|state|^2 - action^2; without noise, so that a log repeats itself."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(-2.0, 2.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = self.np_random.normal(size=2)
        return self._observation(), {}

    def step(self, action):
        reward = -float(np.square(self.state).sum() + np.square(action).sum())
        self.state = DYNAMICS @ self.state + CONTROL @ np.asarray(action, np.float64)
        return self._observation(), reward, False, False, {}

    def get_state(self):
        return self.state.copy()

    def set_state(self, state):
        self.state = np.array(state)

    def _observation(self):
        return self.state.astype(np.float32)


class Simulated(LinearQuadratic):
    """The same, and says what a step does to many states."""

    def simulate(self, states, actions):
        rewards = -(np.square(states).sum(1) + np.square(actions).sum(1))
        following = states @ DYNAMICS.T + np.asarray(actions, np.float64) @ CONTROL.T
        return following, following.astype(np.float32), rewards, np.zeros(len(rewards), dtype=bool)


class Noisy(LinearQuadratic):
    """The same with noise from the environment's own generator, as Gymnasium's environments draw it."""

    def step(self, action):
        _, *rest = super().step(action)
        self.state = self.state + 0.05 * self.np_random.normal(size=2)
        return self._observation(), *rest


class Opaque(LinearQuadratic):
    """The same without a state that can be set."""

    get_state = set_state = None


class Flat(LinearQuadratic):
    """The same, paying 1 whatever happens."""

    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, 1.0, *rest


def limited(kind=LinearQuadratic, steps=40):
    return lambda: TimeLimit(kind(), steps)


def value_of(gain):
    """P with value -(s' P s) of the policy a = gain @ s."""
    closed, cost = DYNAMICS + CONTROL @ gain, np.eye(2) + gain.T @ gain
    value = np.zeros((2, 2))
    for _ in range(1000):
        value = cost + GAMMA * closed.T @ value @ closed
    return value


def best_gain():
    gain = np.zeros((1, 2))
    for _ in range(100):
        value = value_of(gain)
        gain = -np.linalg.solve(np.eye(1) + GAMMA * CONTROL.T @ value @ CONTROL, GAMMA * CONTROL.T @ value @ DYNAMICS)
    return gain


GAIN = best_gain()


class Linear:
    """The policy a = gain @ s + offset."""

    def __init__(self, gain=GAIN, offset=0.0):
        self.gain, self.offset = gain, offset

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        actions = observation @ self.gain.T + self.offset
        return np.clip(actions, -2.0, 2.0).astype(np.float32), None


def exact_q(gain=GAIN):
    """Q (n_critics, batch) of the policy a = gain @ s, of actions in the environment's units."""
    value = th.as_tensor(value_of(gain))

    def q(observations, actions):
        states, taken = observations.double(), actions.double()
        following = states @ th.as_tensor(DYNAMICS).T + taken @ th.as_tensor(CONTROL).T
        now = -states.square().sum(1) - taken.square().sum(1)
        return (now - GAMMA * ((following @ value) * following).sum(1)).float().expand(2, -1)

    return q
