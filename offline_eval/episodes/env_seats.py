"""Seats of single environments, and the seats of whatever environment is given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from copy import deepcopy
from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv

from offline_eval.batching import copied
from offline_eval.environments import EnvironmentLike, environment_factory
from offline_eval.episodes.lives import Counter, not_anew
from offline_eval.episodes.plan import PlanEntry
from offline_eval.episodes.seats import Seats, Start, Step, as_step
from offline_eval.episodes.still import Still
from offline_eval.episodes.vector_seats import VecEnvSeats, VectorSeats
from offline_eval.errors import InputError
from offline_eval.types import Array


def make_seats(env: EnvironmentLike, n_envs: int) -> Seats:
    """Seats for an id, a spec, a factory or a finished environment.

    Args:
        env: a finished environment is used as it is, and a vector (also one that a factory returns) has its own
            number of seats.
        n_envs: seats where environments are made one by one.
    """
    from stable_baselines3.common.vec_env import VecEnv

    factory = environment_factory(env)
    first = factory() if factory is not None else env
    if isinstance(first, VectorEnv):
        return VectorSeats(first, owned=factory is not None)
    if isinstance(first, VecEnv):
        return VecEnvSeats(first, owned=factory is not None)
    if not isinstance(first, gym.Env):
        raise InputError("env", "must be a gymnasium environment", type(first).__name__)
    return EnvSeats(first, factory, n_envs)


class EnvSeats:
    """Single environments, stepped one after the other.

    After a failed episode a fresh environment is made, if there is a factory: the old one's state cannot be trusted.
    """

    start_together = False
    varies: str | None = None

    def __init__(self, first: gym.Env[Any, Any], factory: Any, num_seats: int) -> None:
        self._factory = factory
        self.num_seats = num_seats if factory is not None else 1
        self._envs: list[gym.Env[Any, Any]] = [first, *(factory() for _ in range(self.num_seats - 1))]
        self._still = Still(self._envs)
        self.notes: tuple[str, ...] = self._still.notes
        self._counters = [Counter(env) for env in self._envs]
        self._broken: set[int] = set()
        self._used: set[int] = set()
        self.observation_space, self.action_space = first.observation_space, first.action_space
        self.max_episode_steps = first.spec.max_episode_steps if first.spec is not None else None

    def begin(self, entries: Mapping[int, PlanEntry]) -> dict[int, Start | Exception]:
        """Reset these seats."""
        return {seat: self._reset(seat, entry) for seat, entry in entries.items()}

    def _reset(self, seat: int, entry: PlanEntry) -> Start | Exception:
        try:
            if seat in self._broken and self._factory is not None:
                self._replace(seat)
            start = self._reset_now(seat, entry)
            if not self._counters[seat].midway:
                return start
            if self._factory is None:
                raise not_anew(self._envs[seat])
            self._replace(seat)
            return self._reset_now(seat, entry)
        except Exception as error:  # whatever a foreign environment raises is a failed episode
            return error

    def _reset_now(self, seat: int, entry: PlanEntry) -> Start:
        self._used.add(seat)
        self._counters[seat].forget()
        # The options are copied: environments take keys out of the caller's dict, and write into its arrays.
        options = None if entry.options is None else deepcopy(dict(entry.options))
        observation, info = self._envs[seat].reset(seed=entry.seed, options=options)
        return Start(copied(observation), info)

    def _replace(self, seat: int) -> None:
        """A fresh environment at this seat."""
        with suppress(Exception):  # what broke may not even close
            self._envs[seat].close()
        self._envs[seat] = self._factory()
        self._still.hold(self._envs[seat])
        self.notes = self._still.notes
        self._counters[seat] = Counter(self._envs[seat])
        self._broken.discard(seat)

    def step(self, actions: Array, live: Iterable[int]) -> dict[int, Step | Exception]:
        """Step the live seats."""
        envs = self._envs
        results: dict[int, Step | Exception] = {}
        for seat in live:
            try:
                step = as_step(*envs[seat].step(actions[seat].copy()))
                results[seat] = step if not step.terminated or step.truncated else self._ended(seat, step)
            except Exception as error:  # as above
                results[seat] = error
        return results

    def _ended(self, seat: int, step: Step) -> Step:
        """The end of an episode, or of a life after which the game goes on."""
        counter = self._counters[seat]
        if counter.over(step.info):
            return step
        observation, _ = self._envs[seat].reset()
        if counter.midway:
            return step._replace(observation=copied(observation), terminated=False, restarted=True)
        return step._replace(restarted=True)

    def env(self, seat: int) -> gym.Env[Any, Any] | None:
        """The environment of a seat where it can be reached."""
        return self._envs[seat]

    def call(self, name: str, live: Iterable[int]) -> dict[int, Any]:
        """What a method of these seats' environments returns, or raises."""
        results: dict[int, Any] = {}
        for seat in live:
            method = self._envs[seat].get_wrapper_attr(name)
            try:
                results[seat] = method()
            except Exception as error:  # as above
                results[seat] = error
        return results

    def distrust(self, seat: int) -> None:
        """The episode at this seat failed: its environment is made anew before the next one."""
        self._broken.add(seat)

    def renew(self, seat: int) -> None:
        """Let the next episode at this seat begin in an environment where none was played."""
        if seat in self._used:
            self._broken.add(seat)

    def close(self) -> None:
        """Close what was made here."""
        self._still.release()
        if self._factory is not None:
            for env in self._envs:
                env.close()
