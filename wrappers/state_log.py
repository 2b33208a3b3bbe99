"""Logging what passes between a policy and an environment: `StateLogger` around a gymnasium Env, and its twins.

`VectorStateLogger` goes around a gymnasium VectorEnv in any of its three autoreset modes, and
`offline_eval.wrappers.state_log_sb3.VecEnvStateLogger` around a Stable-Baselines3 VecEnv. All write the log of
`offline_eval.datasets`: observations, the policy's and the executed actions, rewards, how it ended, seeds, and the
simulator's state where it can be read.

**Where it stands in the stack decides what it sees.** Around a steering wrapper, `StateLogger(SteerAction(env, rule))`,
it is handed the policy's action and finds the executed one in the info (`steering/executed_action`): it logs both.
Inside, `SteerAction(StateLogger(env), rule)`, only the executed action comes by, and is logged as both. Around a
wrapper that changes observations or rewards (a VecNormalize) it logs the changed ones.

**Only finished episodes are logged**: those that terminated or were truncated. One that a reset or `close` cuts off is
dropped and counted in `dropped`; an ending that the environment did not give is not invented.

**A simulator is read where its environment lives in this process.** A vector that resets in the same step as an
episode ends (SB3's, and gymnasium's SAME_STEP) has lost the episode's last state by then: that row is NaN.

**A full disk** raises a StorageError from the `step` that finished an episode. The environment has taken that step and
can be stepped on; the log holds every episode before.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import Space
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.wrappers import Autoreset, TimeLimit

from offline_eval.datasets.log import ShardWriter
from offline_eval.datasets.recorder import EpisodeRecorder, Scalar

__all__ = ["EXECUTED_ACTION", "StateLogger", "VectorStateLogger"]

EXECUTED_ACTION = "steering/executed_action"
"""Where a steering wrapper leaves the action that the environment executed."""

Folder = str | os.PathLike[str]
Metadata = Mapping[str, Scalar]


class LogOfHost:
    """What the wrappers of all hosts share: a recorder, a writer, and the count of what was dropped.

    Args:
        folder: of the log.
        env_id: the environment's id.
        spaces: (observation space, action space) of one environment.
        num_slots: environments side by side.
        env_spec: lets Minari make the environment again.
        metadata: written beside every episode.
    """

    def __init__(
        self,
        folder: Folder,
        env_id: str,
        spaces: tuple[Space[Any], Space[Any]],
        num_slots: int = 1,
        env_spec: EnvSpec | None = None,
        metadata: Metadata | None = None,
    ) -> None:
        self._writer = ShardWriter(
            folder, env_id=env_id, observation_space=spaces[0], action_space=spaces[1], env_spec=env_spec
        )
        self.recorder = EpisodeRecorder(num_slots)
        self.metadata = dict(metadata or {})
        self.dropped = 0

    def begin(
        self, slot: int, observation: Any, env: Any, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> None:
        """Start an episode; one that is under way in the slot is dropped."""
        self.drop([slot])
        self.recorder.reset(slot, observation, seed=seed, env=env, options=options)

    def drop(self, slots: Iterable[int]) -> None:
        """Forget the episodes under way."""
        self.dropped += sum(self.recorder.discard(slot) for slot in slots)

    def write(self, slots: Iterable[int], begin_again: Mapping[int, tuple[Any, Any]] | None = None) -> None:
        """Put the finished episodes of these slots on disk.

        Args:
            slots: where episodes ended.
            begin_again: (observation, env) of the episodes that have begun there; this happens before anything is
                written, so that a full disk leaves the host able to go on.
        """
        episodes = [self.recorder.finish(slot, self.metadata) for slot in slots]
        for slot, (observation, env) in (begin_again or {}).items():
            self.begin(slot, observation, env)
        self._writer.write(episodes)

    def close(self) -> None:
        """Drop what is under way and bring the index up to date."""
        self.drop(range(self.recorder.num_slots))
        self._writer.close()


class StateLogger(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Logs the finished episodes of an environment; observations, rewards and infos pass unchanged.

    Args:
        env: any environment; the module tells what its place in the stack means.
        folder: of the log, new or one that holds the same environment's. Several loggers may share it.
        metadata: written beside every episode.

    Raises:
        StorageError: the folder cannot be written, or holds the log of another environment.
        SpaceError: a space that cannot be logged.
    """

    def __init__(self, env: gym.Env[Any, Any], folder: Folder, metadata: Metadata | None = None) -> None:
        RecordConstructorArgs.__init__(self, folder=os.fspath(folder), metadata=metadata)
        gym.Wrapper.__init__(self, env)
        spaces = (env.observation_space, env.action_space)
        self._log = LogOfHost(folder, env_name(env), spaces, env_spec=base_spec(env), metadata=metadata)
        self._resets_itself = any(isinstance(layer, Autoreset) for layer in _layers(env))

    @property
    def dropped(self) -> int:
        """Episodes that were cut off by a reset or by `close`, and not logged."""
        return self._log.dropped

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment and begin an episode."""
        given = deepcopy(options)  # an environment may take its keys out, or write into its arrays
        observation, info = self.env.reset(seed=seed, options=options)
        self._log.begin(0, observation, self.env, seed, given)
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment; the step that ends an episode also writes it."""
        chosen = np.array(action)  # an environment may scale the action that it is given in place
        observation, reward, terminated, truncated, info = self.env.step(action)
        recorder = self._log.recorder
        if recorder.is_recording(0):
            executed = info.get(EXECUTED_ACTION, chosen)
            recorder.step(0, chosen, executed, reward, terminated, truncated, observation, self.env)
            if terminated or truncated:
                self._log.write([0])
        elif self._resets_itself:
            self._log.begin(0, observation, self.env)
        return observation, reward, terminated, truncated, info

    def close(self) -> None:
        """Bring the log's index up to date and close the environment."""
        try:
            self._log.close()
        finally:
            super().close()


class VectorStateLogger(VectorWrapper[Any, Any, Any, Any, Any], RecordConstructorArgs):
    """`StateLogger` for a VectorEnv, whichever way it resets: next step, same step, or by the caller.

    An int seed reaches the environments of a SyncVectorEnv and an AsyncVectorEnv as seed, seed + 1, ... and is logged
    so. Other vectors (CartPole's own) have one generator for all environments: no episode has a seed of its own there.

    Args:
        env: any vector.
        folder: as in `StateLogger`.
        metadata: as in `StateLogger`.

    Raises:
        StorageError: the folder cannot be written, or holds the log of another environment.
        SpaceError: a space that cannot be logged.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], folder: Folder, metadata: Metadata | None = None) -> None:
        RecordConstructorArgs.__init__(self, folder=os.fspath(folder), metadata=metadata)
        VectorWrapper.__init__(self, env)
        envs = getattr(env.unwrapped, "envs", None)
        self._envs = [None] * env.num_envs if envs is None else list(envs)
        spec = None if envs is None else base_spec(envs[0])
        spaces = (env.single_observation_space, env.single_action_space)
        name = env_name(env if envs is None else envs[0])
        self._log = LogOfHost(folder, name, spaces, env.num_envs, spec, metadata)
        self._mode = AutoresetMode(env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
        self._ended = np.zeros(env.num_envs, dtype=bool)

    @property
    def dropped(self) -> int:
        """Episodes that were cut off by a reset or by `close`, and not logged."""
        return self._log.dropped

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environments, or those of `options["reset_mask"]`, and begin their episodes."""
        # The vector takes the mask out of the caller's options.
        given = deepcopy(dict(options or {}))
        mask = given.pop("reset_mask", None)
        slots = range(self.num_envs) if mask is None else np.flatnonzero(mask).tolist()
        observations, infos = self.env.reset(seed=seed, options=options)
        seeds = self._seeds(seed)
        for slot in slots:
            observation = row_of(observations, slot)
            self._log.begin(slot, observation, self._envs[slot], seeds[slot], given if options is not None else None)
            self._ended[slot] = False
        return observations, infos

    def _seeds(self, seed: Any) -> list[int | None]:
        if isinstance(seed, int | np.integer):
            known = isinstance(self.env.unwrapped, SyncVectorEnv | AsyncVectorEnv)
            return [int(seed) + slot if known else None for slot in range(self.num_envs)]
        return [None] * self.num_envs if seed is None else list(seed)

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step the environments; episodes that end in this step are written together."""
        chosen = np.array(actions)  # environments may scale their rows in place
        observations, rewards, terminated, truncated, infos = self.env.step(actions)
        same_step, log = self._mode == AutoresetMode.SAME_STEP, self._log
        started = self._ended if self._mode == AutoresetMode.NEXT_STEP else np.zeros_like(self._ended)
        ended = np.logical_or(terminated, truncated)
        begin_again: dict[int, tuple[Any, Any]] = {}
        for slot in range(self.num_envs):
            observation, env = row_of(observations, slot), self._envs[slot]
            if started[slot]:  # the step in which a vector resets is none of the episode: its action is ignored
                log.begin(slot, observation, env)
                continue
            if same_step and ended[slot]:
                begin_again[slot] = observation, env
                observation, env = infos["final_obs"][slot], None
            if log.recorder.is_recording(slot):
                action = chosen[slot]
                executed = _executed(infos, slot, action, bool(ended[slot]))
                flags = bool(terminated[slot]), bool(truncated[slot])
                log.recorder.step(slot, action, executed, rewards[slot], *flags, observation, env)
        self._ended = ended
        log.write([slot for slot in np.flatnonzero(ended).tolist() if log.recorder.is_recording(slot)], begin_again)
        return observations, rewards, terminated, truncated, infos

    def close(self, **kwargs: Any) -> None:
        """Bring the log's index up to date and close the environments."""
        try:
            self._log.close()
        finally:
            super().close(**kwargs)


def _executed(infos: Mapping[str, Any], slot: int, action: Any, ended: bool) -> Any:
    # Where an environment inside the vector steers and has been reset, its last info is the final one.
    for place in (infos.get("final_info", {}) if ended else {}, infos):
        values, mask = place.get(EXECUTED_ACTION), place.get(f"_{EXECUTED_ACTION}")
        if values is not None and (mask is None or mask[slot]):
            return values[slot]
    return action


def row_of(observations: Any, slot: int) -> Any:
    """One environment's observation out of a vector's."""
    if isinstance(observations, Mapping):
        return {key: value[slot] for key, value in observations.items()}
    return observations[slot]


def env_name(env: Any) -> str:
    """The id of an environment, or its class where it is not registered."""
    spec = env.unwrapped.spec
    return type(env.unwrapped).__name__ if spec is None else str(spec.id)


def base_spec(env: gym.Env[Any, Any]) -> EnvSpec | None:
    """The environment's spec with its time limit, and without what else is wrapped around it."""
    spec = env.unwrapped.spec
    limits = [layer._max_episode_steps for layer in _layers(env) if isinstance(layer, TimeLimit)]
    return spec if spec is None or not limits else replace(spec, max_episode_steps=min(limits))


def _layers(env: gym.Env[Any, Any]) -> Iterable[gym.Env[Any, Any]]:
    while isinstance(env, gym.Wrapper):
        yield env
        env = env.env
