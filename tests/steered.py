"""Critics, policies and environments of which one knows what steering must do to them."""

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces

from offline_eval.policies import actor_of
from offline_eval.spaces import ActionScale
from offline_eval.wrappers.host import Steering


def square(observations, actions):
    """The parabola with its top where the observation says; its gradient is 2 * (observation - action)."""
    return -(actions - observations).square().sum(-1)[None]


class FunctionCritic:
    """The least that a critic is: a function of scaled actions, and spaces."""

    device = th.device("cpu")
    gamma, soft = 0.99, False

    def __init__(self, function=square, dim=1, bound=1.0, action_space=None):
        self.function = function
        self.observation_space = spaces.Box(-np.inf, np.inf, (dim,))
        self.action_space = action_space or spaces.Box(-bound, bound, (dim,))
        self._scale = ActionScale(self.action_space)

    def q(self, observations, actions):
        return self.function(observations, actions)

    def scale(self, actions):
        return self._scale.scale(actions)

    def unscale(self, actions):
        return self._scale.unscale(actions)


def steer(rule, tops, actions, noise=None, action_space=None):
    """The rule on its host: rows of tops (observations) and of actions in the environment's units."""
    observations = np.array(tops, dtype=np.float32)
    actions = np.array(actions, dtype=np.float32)
    action_space = action_space or rule.critic.action_space
    noise = None if noise is None else np.array(noise, dtype=np.float32)
    return Steering(rule, None, action_space)(observations, actions, noise)


def same_bits(one, other):
    return one.dtype == other.dtype and one.tobytes() == other.tobytes()


def network_critic(action_dim=2, n_critics=2):
    generator = th.Generator().manual_seed(0)
    first = th.randn(n_critics, 2 * action_dim, 32, generator=generator)
    last = th.randn(n_critics, 32, 1, generator=generator)

    def function(observations, actions):
        return (th.cat([observations, actions], -1) @ first).tanh().matmul(last)[..., 0]

    return FunctionCritic(function, dim=action_dim)


def pendulum_critic():
    """Two small networks for Pendulum, whose Box is +-2."""
    generator = th.Generator().manual_seed(0)
    first = th.randn(2, 4, 32, generator=generator)
    last = th.randn(2, 32, 1, generator=generator)

    def function(observations, actions):
        return (th.cat([observations, actions], -1) @ first).tanh().matmul(last)[..., 0]

    return FunctionCritic(function, dim=3, action_space=spaces.Box(-2.0, 2.0, (1,)))


def pendulum_actor():
    """A small network for Pendulum, as test-time training wants it."""
    th.manual_seed(0)
    module = th.nn.Sequential(th.nn.Linear(3, 16), th.nn.ReLU(), th.nn.Linear(16, 1), th.nn.Tanh())
    return actor_of(module, action_space=Bang.action_space, observation_space=Bang.observation_space)


class Bang:
    """A policy whose arithmetic is the same for one observation and for many."""

    observation_space = spaces.Box(-np.inf, np.inf, (3,))
    action_space = spaces.Box(-2.0, 2.0, (1,))

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        sine, speed = observation[..., 1:2], observation[..., 2:3]
        action = np.clip(np.float32(0.3) * speed - sine, -2, 2).astype(np.float32)
        return action, 0 if state is None else state + 1


def pendulum(length=7):
    return gym.make("Pendulum-v1", max_episode_steps=length)
