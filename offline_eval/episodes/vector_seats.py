"""Seats of vectors, whose environments are seeded together: a gymnasium VectorEnv and an SB3 VecEnv."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from offline_eval.batching import copied
from offline_eval.episodes.lives import Counter, not_anew
from offline_eval.episodes.plan import PlanEntry
from offline_eval.episodes.seats import Info, Start, Step, as_step
from offline_eval.episodes.still import Still, members
from offline_eval.episodes.success import SUCCESS_KEYS
from offline_eval.errors import InputError
from offline_eval.types import Array

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import VecEnv


class _TogetherSeats:
    """What a gymnasium VectorEnv and an SB3 VecEnv share: all seats start together, and an error ends them all."""

    start_together = True

    def __init__(self, num_seats: int, owned: bool, envs: Sequence[Any]) -> None:
        self.num_seats, self._owned = num_seats, owned
        self._still = Still(envs)
        self.notes: tuple[str, ...] = self._still.notes
        self.varies: str | None = None
        self.max_episode_steps: int | None = None

    def begin(self, entries: Mapping[int, PlanEntry]) -> dict[int, Start | Exception]:
        """Reset these seats."""
        # Seats without an entry (the last wave) replay the first one's seed and are ignored.
        spare = next(iter(entries.values()))
        wave = [entries.get(seat, spare) for seat in range(self.num_seats)]
        try:
            starts = self._reset([entry.seed for entry in wave], [entry.options or {} for entry in wave])
        except InputError:
            raise
        except Exception as error:  # whatever foreign environments raise is a failed episode
            return dict.fromkeys(entries, error)
        return {seat: starts[seat] for seat in entries}

    def step(self, actions: Array, live: Iterable[int]) -> dict[int, Step | Exception]:
        """Step the live seats."""
        live = list(live)
        try:
            return self._step(actions, live)
        except Exception as error:  # as above; which environment raised is not known
            return dict.fromkeys(live, error)

    def call(self, name: str, live: Iterable[int]) -> dict[int, Any]:
        """What a method of the environments returns, or raises."""
        live = list(live)
        try:
            results = self._call(name)
        except AttributeError:
            raise
        except Exception as error:  # as above
            return dict.fromkeys(live, error)
        return {seat: results[seat] for seat in live}

    def distrust(self, seat: int) -> None:
        """A vector is reset as a whole: there is nothing to make anew for one seat."""

    def _call(self, name: str) -> Sequence[Any]:
        raise NotImplementedError

    def renew(self, seat: int) -> None:
        """Not for a vector, whose environments are no-one's but its own."""
        raise NotImplementedError

    def _reset(self, seeds: list[int], options: list[Mapping[str, Any]]) -> Sequence[Start | Exception]:
        raise NotImplementedError

    def _step(self, actions: Array, live: list[int]) -> dict[int, Step | Exception]:
        raise NotImplementedError


class VectorSeats(_TogetherSeats):
    """A gymnasium VectorEnv in any of the three autoreset modes."""

    def __init__(self, env: VectorEnv[Any, Any, Any], owned: bool) -> None:
        super().__init__(env.num_envs, owned, [env, *members(env)])
        self._vector = env
        if any(Counter(member).cuts_games for member in members(env)):
            # The vector resets by itself at a lost life, so that the game cannot be followed to its end.
            self.notes += ("an episode here ends at every lost life, not with the game: pass an id or a factory",)
        self._same_step = env.metadata.get("autoreset_mode") == AutoresetMode.SAME_STEP
        self.observation_space, self.action_space = env.single_observation_space, env.single_action_space
        self._ended = np.zeros(env.num_envs, dtype=bool)
        self.max_episode_steps = env.spec.max_episode_steps if env.spec is not None else None

    def _reset(self, seeds: list[int], options: list[Mapping[str, Any]]) -> Sequence[Start | Exception]:
        self._ended[:] = False
        if any(options):
            raise InputError("plan", "cannot give reset options to a vector", options[0], "pass an id or a factory")
        try:
            observations, infos = self._vector.reset(seed=seeds)  # type: ignore[arg-type]
        except (TypeError, gym.error.Error):
            # Some vectors (CartPole's own) have one generator for all their environments.
            self.varies = "this vector takes one seed for all its environments: the table depends on n_envs"
            observations, infos = self._vector.reset(seed=seeds[0])
        return [Start(copied(_row(observations, seat)), _row_info(infos, seat)) for seat in range(self.num_seats)]

    def _step(self, actions: Array, live: list[int]) -> dict[int, Step | Exception]:
        if self._vector.metadata.get("autoreset_mode") == AutoresetMode.DISABLED and self._ended.any():
            # A finished environment must not be stepped: it is reset and plays on unseen.
            self._vector.reset(options={"reset_mask": self._ended.copy()})
            self._ended[:] = False
        observations, rewards, terminated, truncated, infos = self._vector.step(actions.copy())
        ended = np.logical_or(terminated, truncated)
        self._ended |= ended
        told = {key: infos[key] for name in SUCCESS_KEYS for key in (name, f"_{name}") if key in infos}
        results: dict[int, Step | Exception] = {}
        for seat in live:
            # Within an episode nobody asks for more than whether it succeeded: infos of many environments are large.
            observation, info = _row(observations, seat), _row_info(infos if ended[seat] else told, seat)
            if ended[seat] and self._same_step:
                observation = infos["final_obs"][seat]
                info = _row_info(infos.get("final_info", {}), seat)
            results[seat] = as_step(observation, rewards[seat], terminated[seat], truncated[seat], info)
        return results

    def _call(self, name: str) -> Sequence[Any]:
        results: Sequence[Any] = self._vector.call(name)  # type: ignore[attr-defined]
        return results

    def env(self, seat: int) -> gym.Env[Any, Any] | None:
        """The environment of a seat where it can be reached."""
        envs: Sequence[gym.Env[Any, Any]] | None = getattr(self._vector.unwrapped, "envs", None)
        return None if envs is None else envs[seat]

    def close(self) -> None:
        """Close what was made here."""
        self._still.release()
        if self._owned:
            self._vector.close()


class VecEnvSeats(_TogetherSeats):
    """An SB3 VecEnv; a VecNormalize in its stack is held still, and the rewards are those before it."""

    def __init__(self, env: VecEnv, owned: bool) -> None:
        from stable_baselines3.common.monitor import Monitor
        from stable_baselines3.common.vec_env import unwrap_vec_normalize

        super().__init__(env.num_envs, owned, members(env))
        self._venv = env
        self._counters = [Counter(member) for member in members(env) or [None] * env.num_envs]
        self._monitored = not members(env) and any(env.env_is_wrapped(Monitor))
        self._offered: set[str] = set()
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self._normalize = unwrap_vec_normalize(env)
        self._was_training = self._normalize is not None and self._normalize.training
        if self._normalize is not None:
            self._normalize.training = False
            self.notes += ("the environment's VecNormalize was held still, and returns are those before it",)

    def _reset(self, seeds: list[int], options: list[Mapping[str, Any]]) -> Sequence[Start | Exception]:
        self._venv.seed(seeds[0])  # hands out seeds[0], seeds[0] + 1, ...
        self._venv.unwrapped._seeds = list(seeds)  # the plan's, where they are others
        self._venv.set_options([deepcopy(dict(entry)) for entry in options])
        for counter in self._counters:
            counter.forget()
        observations = self._venv.reset()
        infos = self._venv.reset_infos
        return [
            not_anew(self._venv) if counter.midway else Start(copied(_row(observations, seat)), infos[seat])
            for seat, counter in enumerate(self._counters)
        ]

    def _step(self, actions: Array, live: list[int]) -> dict[int, Step | Exception]:
        observations, rewards, dones, infos = self._venv.step(actions.copy())
        if self._normalize is not None:
            rewards = self._normalize.get_original_reward()
        results: dict[int, Step | Exception] = {}
        for seat in live:
            info, done = infos[seat], bool(dones[seat])
            truncated = done and bool(info.get("TimeLimit.truncated", False))
            if done and not truncated and not self._over(seat, info):
                going_on = as_step(_row(observations, seat), rewards[seat], False, False, info)
                results[seat] = going_on._replace(restarted=True)
                continue
            # Simulators behind this interface may not tell the last observation; a return does not need it.
            observation = info.get("terminal_observation") if done else _row(observations, seat)
            results[seat] = as_step(observation, rewards[seat], done and not truncated, truncated, info)
        return results

    def _over(self, seat: int, info: Info) -> bool:
        """Whether the game is over, too; in another process only its Monitor's report tells, as for SB3."""
        counter = self._counters[seat]
        return "episode" in info if self._monitored else counter.over(info) or not counter.midway

    def _call(self, name: str) -> Sequence[Any]:
        if name not in self._offered and not self._venv.has_attr(name):
            raise AttributeError(name)
        self._offered.add(name)
        return self._venv.env_method(name)

    def env(self, seat: int) -> gym.Env[Any, Any] | None:
        """The environment of a seat where it can be reached."""
        envs: Sequence[gym.Env[Any, Any]] | None = getattr(self._venv.unwrapped, "envs", None)
        return None if envs is None else envs[seat]

    def close(self) -> None:
        """Close what was made here."""
        self._still.release()
        if self._normalize is not None:
            self._normalize.training = self._was_training
        if self._owned:
            self._venv.close()


def _row(observations: Any, seat: int) -> Any:
    """One environment's observation, a view into the vector's."""
    if isinstance(observations, Mapping):
        return {key: value[seat] for key, value in observations.items()}
    return observations[seat]


def _row_info(infos: Mapping[str, Any], seat: int) -> Info:
    """One environment's entries of a vector's infos: those whose mask `_key` holds."""
    row: dict[str, Any] = {}
    for key, values in infos.items():
        if key.startswith("_") or not infos.get(f"_{key}", np.zeros(seat + 1, dtype=bool))[seat]:
            continue
        row[key] = _row_info(values, seat) if isinstance(values, dict) else values[seat]
    return row
