"""A small data set of Pendulum, algorithms of few units, and all that training changes in them."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import torch as th

from offline_eval.datasets.arrays import from_arrays
from offline_eval.policies.algorithm import OfflineAlgorithm
from offline_eval.policies.extraction import DDPGBCExtraction
from offline_eval.policies.recipes import Recipe
from offline_eval.policies.transforms import ReturnRange, Standardize
from offline_eval.policies.values import Implicit

STANDARDIZED = Recipe(Implicit(0.9), DDPGBCExtraction(), observations=Standardize(), rewards=ReturnRange(10.0))


def pendulum_data(steps=320, seed=0):
    """Random actions in Pendulum, episodes of 40 steps that a time limit cuts."""
    env = gym.make("Pendulum-v1", max_episode_steps=40)
    rng = np.random.default_rng(seed)
    columns = {name: [] for name in ("observations", "actions", "rewards", "terminated", "truncated", "after")}
    observation, _ = env.reset(seed=seed)
    for _ in range(steps):
        action = rng.uniform(-2, 2, 1).astype(np.float32)
        after, reward, terminated, truncated, _ = env.step(action)
        for name, value in zip(columns, (observation, action, reward, terminated, truncated, after), strict=True):
            columns[name].append(value)
        observation = env.reset()[0] if terminated or truncated else after
    arrays = {name: np.array(values) for name, values in columns.items()}
    return from_arrays(
        *(arrays[name] for name in columns), observation_space=env.observation_space, action_space=env.action_space
    )


def algorithm(recipe="iql", env=None, **words):
    words = {"policy_kwargs": {"net_arch": [16, 16]}, "batch_size": 32, "learning_rate": 1e-3, "seed": 0} | words
    return OfflineAlgorithm(recipe, env, device="cpu", **words)


def numbers(model):
    """Everything that training changes, by name."""
    found = {f"{name}.{i}": p for name, group in model.learner.parameters.items() for i, p in enumerate(group)}
    found |= {f"{name} (Adam)": moment for name, moment in model.learner.adam.moments().items()}
    return {name: tensor.detach().clone() for name, tensor in found.items()}


def assert_same(one, other):
    assert one.keys() == other.keys()
    different = [name for name in one if not th.equal(one[name], other[name])]
    assert not different, different


def states(rows=64, seed=0):
    rng = np.random.default_rng(seed)
    angle = rng.uniform(-np.pi, np.pi, rows)
    return np.stack([np.cos(angle), np.sin(angle), rng.uniform(-8, 8, rows)], 1).astype(np.float32)
