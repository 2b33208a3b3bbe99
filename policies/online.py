"""What an offline algorithm needs to learn online: an environment, or none yet, and a buffer that holds the data."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import Space, spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from torch import device

from offline_eval.datasets.store import row_blocks
from offline_eval.datasets.trajectories import Dataset
from offline_eval.errors import InputError
from offline_eval.spaces import ActionScale


class SpacesOnly(gym.Env[Any, Any]):
    """Stands where Stable-Baselines3 expects an environment and there are only its spaces."""

    def __init__(self, observation_space: Space[Any], action_space: Space[Any]) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, **arguments: Any) -> Any:
        """Refuses."""
        raise InputError(
            "env", "must be given to learn online", None, "OfflineAlgorithm(recipe, env), or model.set_env(env)"
        )

    def step(self, action: Any) -> Any:
        """Refuses."""
        return self.reset()


def stub_environment(observation_space: Space[Any], action_space: Space[Any]) -> VecEnv:
    """A vector environment of the given spaces that cannot be played in."""
    return DummyVecEnv([lambda: SpacesOnly(observation_space, action_space)])


def is_stub(env: VecEnv | None) -> bool:
    """Whether there is no environment to learn in."""
    return env is None or (isinstance(env, DummyVecEnv) and isinstance(env.envs[0].unwrapped, SpacesOnly))


def filled_buffer(dataset: Dataset | None, buffer_size: int, env: VecEnv, torch_device: device) -> ReplayBuffer:
    """A replay buffer whose first rows are a data set; new steps follow, and replace the oldest once it is full.

    Args:
        dataset: None for an empty buffer.
        buffer_size: steps; a data set that is larger enlarges it.
        env: its spaces and the number of environments.
        torch_device: where SB3 would put its samples.
    """
    count = 0 if dataset is None else dataset.num_transitions
    # float32: MuJoCo's spaces say float64, which doubles the memory and is rounded before the networks anyway.
    observed = spaces.Box(-np.inf, np.inf, env.observation_space.shape, np.float32)
    buffer = ReplayBuffer(max(buffer_size, count), observed, env.action_space, torch_device, n_envs=env.num_envs)
    if dataset is None:
        return buffer
    scale, n_envs = ActionScale(dataset.action_space), env.num_envs
    rows = count // n_envs  # up to n_envs - 1 transitions do not fill a row
    ended = (dataset.store.terminated | dataset.store.truncated)[dataset.transition_rows]
    for block in row_blocks(buffer.rewards, rows):
        part = dataset.gather(slice(block.start * n_envs, block.stop * n_envs))
        actions = np.clip(scale.scale(part.actions), -1.0, 1.0)
        terminated = 1.0 - part.masks
        columns = {
            "observations": part.observations, "next_observations": part.next_observations, "actions": actions,
            "rewards": part.rewards, "dones": ended[block.start * n_envs : block.stop * n_envs],
            "timeouts": ended[block.start * n_envs : block.stop * n_envs] * (1.0 - terminated),
        }  # fmt: skip
        for name, values in columns.items():
            into = getattr(buffer, name)[block]
            into[:] = np.asarray(values).reshape(into.shape)
    buffer.pos, buffer.full = rows % buffer.buffer_size, rows >= buffer.buffer_size
    return buffer
