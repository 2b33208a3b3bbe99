"""An environment of eight steps, an agent trained on it in seconds, and copies that are worse by a known amount."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv

from offline_eval import EpisodePlan, evaluate

STEPS = 8


class Reach(gym.Env):
    """A point on a line that is to come to 0; pays -|position|, so returns lie in [-8, 0] times 1.5."""

    observation_space = spaces.Box(-1.5, 1.5, (1,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None):
        super().reset(seed=seed)
        self.position, self.steps = self.np_random.uniform(-1.0, 1.0), 0
        return np.array([self.position], np.float32), {}

    def step(self, action):
        noise = 0.1 * self.np_random.normal()
        self.position = float(np.clip(self.position + 0.5 * float(action[0]) + noise, -1.5, 1.5))
        self.steps += 1
        return np.array([self.position], np.float32), -abs(self.position), False, self.steps >= STEPS, {}


ENV = "Reach-v0"
gym.register(ENV, entry_point="gate_agents:Reach")


def trained(steps: int = 6000) -> PPO:
    """The agent."""
    words = {"n_steps": 64, "batch_size": 128, "n_epochs": 8, "learning_rate": 2e-3, "gamma": 0.8, "seed": 0}
    net_arch = {"net_arch": [16, 16]}
    model = PPO("MlpPolicy", DummyVecEnv([Reach] * 8), policy_kwargs=net_arch, device="cpu", **words)
    return model.learn(steps)


def mean_return(model: PPO) -> float:
    """Over 400 episodes whose seeds nobody else uses."""
    return float(evaluate(model, ENV, EpisodePlan.seeded(400, seed=900_000), n_envs=100).returns.mean())


def worsened(model: PPO, by: float) -> PPO:
    """A copy with weights perturbed along one random direction, as far as the mean return falls by this much."""
    generator = th.Generator().manual_seed(1)
    directions = [th.randn(weight.shape, generator=generator) for weight in model.policy.parameters()]
    before = mean_return(model)
    low, high = 0.0, 1.0
    for _ in range(12):
        distance = 0.5 * (low + high)
        other = copy.deepcopy(model)
        with th.no_grad():
            for weight, direction in zip(other.policy.parameters(), directions, strict=True):
                weight += distance * direction
        fallen = before - mean_return(other)
        if abs(fallen - by) < 0.1 * by:
            return other
        low, high = (distance, high) if fallen < by else (low, distance)
    raise RuntimeError(f"no distance found at which the return falls by {by}")
