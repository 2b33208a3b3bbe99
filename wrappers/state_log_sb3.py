"""`StateLogger` for a Stable-Baselines3 VecEnv.

What holds for all hosts, the place in the stack above all, is told in `offline_eval.wrappers.state_log`.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from offline_eval.errors import InputError, bare
from offline_eval.types import Array
from offline_eval.wrappers.state_log import EXECUTED_ACTION, Folder, LogOfHost, Metadata, base_spec, env_name, row_of

__all__ = ["VecEnvStateLogger"]


class VecEnvStateLogger(VecEnvWrapper):
    """Logs the finished episodes of a VecEnv; what it hands out passes unchanged.

    A VecEnv rounds rewards to float32 and resets in the step that ends an episode: the last observation is its
    `terminal_observation`, the simulator's last state is unknown. Put it under a VecNormalize, which changes both.

    Args:
        venv: any VecEnv. Simulators are read in a DummyVecEnv, not in another process.
        folder: as in `StateLogger`.
        metadata: as in `StateLogger`.

    Raises:
        StorageError: the folder cannot be written, or holds the log of another environment.
        SpaceError: a space that cannot be logged.
    """

    def __init__(self, venv: VecEnv, folder: Folder, metadata: Metadata | None = None) -> None:
        super().__init__(venv)
        envs = getattr(venv.unwrapped, "envs", None)
        self._sub_envs: list[Any] = [None] * venv.num_envs if envs is None else list(envs)
        spaces = (venv.observation_space, venv.action_space)
        spec = None if envs is None else base_spec(envs[0])
        name = _remote_name(venv) if envs is None else env_name(envs[0])
        self._log = LogOfHost(folder, name, spaces, venv.num_envs, spec, metadata)
        self._actions: Array | None = None

    @property
    def dropped(self) -> int:
        """Episodes that were cut off by a reset or by `close`, and not logged."""
        return self._log.dropped

    def reset(self) -> VecEnvObs:
        """Reset the environments and begin their episodes, with the seeds that `seed` has set."""
        base = self.venv.unwrapped
        seeds, options = list(base._seeds), deepcopy(list(base._options))  # used once: gone after the reset
        observations = self.venv.reset()
        for slot in range(self.num_envs):
            self._log.begin(slot, row_of(observations, slot), self._sub_envs[slot], seeds[slot], options[slot] or None)
        return observations

    def step_async(self, actions: Array) -> None:
        """Pass the actions on."""
        self._actions = np.array(actions)  # environments may scale their rows in place
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """Finish the step; episodes that end in it are written together."""
        observations, rewards, dones, infos = self.venv.step_wait()
        recorder, begin_again = self._log.recorder, {}
        for slot, info in enumerate(infos):
            if not recorder.is_recording(slot) or self._actions is None:
                continue
            observation, env, done = row_of(observations, slot), self._sub_envs[slot], bool(dones[slot])
            truncated = done and bool(info.get("TimeLimit.truncated", False))
            if done:
                begin_again[slot] = observation, env
                observation, env = _last_observation(info), None
            action = self._actions[slot]
            executed = info.get(EXECUTED_ACTION, action)
            flags = done and not truncated, truncated
            recorder.step(slot, action, executed, rewards[slot], *flags, observation, env)
        self._log.write(list(begin_again), begin_again)
        return observations, rewards, dones, infos

    def close(self) -> None:
        """Bring the log's index up to date and close the environments."""
        try:
            self._log.close()
        finally:
            super().close()


def _last_observation(info: Mapping[str, Any]) -> Any:
    if "terminal_observation" not in info:
        raise InputError(
            "venv",
            "must put each episode's last observation into its info, as `terminal_observation`",
            bare(f"an info with {', '.join(info) or 'nothing in it'}"),
            "an episode cannot be logged without it",
        )
    return info["terminal_observation"]


def _remote_name(venv: VecEnv) -> str:
    spec = venv.get_attr("spec", [0])[0] if venv.has_attr("spec") else None
    return type(venv.unwrapped).__name__ if spec is None else str(spec.id)
