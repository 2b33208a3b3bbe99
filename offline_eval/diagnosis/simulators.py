"""Copies of one simulator side by side, put into any state and stepped from there.

An environment that can say what a step does to many states at once is asked so, by two methods of the unwrapped
environment that change nothing in it::

    simulate(states, actions) -> (next_states, observations, rewards, terminated)
    with_future(states, seeds) -> states

`states` is what `get_state()` gives with a leading axis on every part, `actions` has shape (n, *action_shape). Any
other environment is stepped copy by copy.

A copy must not know the future that will be played. Where the state holds what the noise of later steps comes from,
`with_future` puts something else there, the same for equal seeds (n,), and `futures` says what happens without
it; where steps draw from `np_random`, or any other NumPy generator that the environment holds, that is seeded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from copy import deepcopy
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

from offline_eval.batching import copied, take
from offline_eval.datasets.recorder import LoggedEpisode
from offline_eval.datasets.restoring import return_to
from offline_eval.errors import InputError, bare
from offline_eval.measurement.rollouts import Brancher, check_restorable, without_time_limit
from offline_eval.simulator import SimulatorState, read_state, reseed, restore
from offline_eval.types import Array, Observations


class Futures:
    """Puts other futures into states.

    Args:
        episodes: logged with simulator states.
    """

    def __init__(self, episodes: Sequence[LoggedEpisode]) -> None:
        self._hidden = hidden_constants(episodes)

    def __call__(self, env: Any, states: Mapping[str, Array], seeds: Array) -> dict[str, Array]:
        """States (every part with a leading axis n) with other futures, the same for equal seeds (n,)."""
        change = getattr(env.unwrapped, "with_future", None)
        if callable(change):
            return named(change(given(env, states), seeds))
        changed = dict(states)
        for name, (places, values) in self._hidden.items():
            part = np.array(states[name], dtype=np.float64)
            part.reshape(len(part), -1)[:, places] = values[np.asarray(seeds) % len(values)]
            changed[name] = part
        return changed


def hidden_constants(episodes: Sequence[LoggedEpisode]) -> dict[str, tuple[Array, Array]]:
    """Numbers of the state that stay the same in every episode, differ between episodes, and cannot be seen.

    Where an observation has such a number, a goal for instance, all of them count as seen.

    Returns:
        By the part's name, their places in it and the episodes' values (num_episodes, num_places).
    """
    known = [episode for episode in episodes if episode.states]
    if len(known) < 2 or any(isinstance(episode.observations, dict) for episode in known):
        return {}
    if len(_constants([np.asarray(episode.observations) for episode in known])[0]):
        return {}
    found = {name: _constants([np.asarray(episode.states[name]) for episode in known]) for name in known[0].states}
    return {name: (places, values) for name, (places, values) in found.items() if len(places)}


def _constants(rows: Sequence[Array]) -> tuple[Array, Array]:
    """Places of numbers that are constant in each (num_steps, ...) and differ between them, and what they are there."""
    flat = [part.reshape(len(part), -1) for part in rows]
    constant = np.all([(part == part[0]).all(axis=0) for part in flat], axis=0)
    first = np.stack([part[0] for part in flat])
    places = np.flatnonzero(constant & (first != first[0]).any(axis=0))
    return places, first[:, places].astype(np.float64)


def given(env: Any, states: Mapping[str, Array]) -> Any:
    """States as the environment itself gives them: a mapping, or a bare array."""
    return dict(states) if isinstance(env.unwrapped.get_state(), Mapping) else states["state"]


def named(states: Any) -> dict[str, Array]:
    """Every part of what an environment gave by name."""
    parts = states if isinstance(states, Mapping) else {"state": states}
    return {name: np.asarray(part, dtype=np.float64) for name, part in parts.items()}


_TRANSPARENT = (TimeLimit, OrderEnforcing, PassiveEnvChecker)
_STEPS_COMPARED = 50
_FUTURE_STREAM = 0xF07


class Stepped(NamedTuple):
    """What a step did to some copies."""

    observations: Observations
    rewards: Array
    terminated: Array


class Worlds(ABC):
    """`num` copies of a simulator."""

    num: int

    @abstractmethod
    def begin(self, rows: Array, episodes: Sequence[LoggedEpisode], steps: Sequence[int]) -> None:
        """Put copies to where logged episodes stood before a step."""

    @abstractmethod
    def copy(self, source: Worlds, mine: Array, theirs: Array, seeds: Array) -> None:
        """Put the copies `mine` into the states of another's copies `theirs`, with a future of their own.

        Copies of equal seeds (len(mine),), whole numbers >= 0, have the same random numbers before them.
        """

    @abstractmethod
    def step(self, rows: Array, actions: Array) -> Stepped:
        """Step some copies with actions (len(rows), *action_shape); those that have terminated must not be stepped."""

    @abstractmethod
    def close(self) -> None:
        """Give back what was made."""


class SimulatedWorlds(Worlds):
    """Copies that are rows of arrays, stepped by the environment's own `simulate`."""

    def __init__(self, env: Any, num: int, futures: Futures) -> None:
        self.num, self._env, self._futures = num, env, futures
        self._states: dict[str, Array] = {}

    def begin(self, rows: Array, episodes: Sequence[LoggedEpisode], steps: Sequence[int]) -> None:
        """Put copies to where logged episodes stood before a step."""
        started = [episode.state(step) for episode, step in zip(episodes, steps, strict=True)]
        self._put(rows, {name: np.stack([state[name] for state in started]) for name in started[0]})

    def copy(self, source: Worlds, mine: Array, theirs: Array, seeds: Array) -> None:
        """Put the copies `mine` into the states of another's copies `theirs`, with a future of their own."""
        assert isinstance(source, SimulatedWorlds)
        states = {name: part[theirs] for name, part in source._states.items()}
        self._put(mine, self._futures(self._env, states, seeds))

    def step(self, rows: Array, actions: Array) -> Stepped:
        """Step some copies."""
        following, observations, rewards, terminated = simulate(
            self._env, {name: part[rows] for name, part in self._states.items()}, actions
        )
        self._put(rows, following)
        return Stepped(observations, rewards, terminated)

    def close(self) -> None:
        """There is nothing to give back."""

    def _put(self, rows: Array, states: Mapping[str, Array]) -> None:
        for name, part in states.items():
            if name not in self._states:
                self._states[name] = np.zeros((self.num, *part.shape[1:]), part.dtype)
            self._states[name][rows] = part


class SteppedWorlds(Worlds):
    """Copies that are environments of their own."""

    def __init__(
        self,
        envs: list[gym.Env[Any, Any]],
        bring: Callable[[Any, LoggedEpisode, int], None],
        futures: Futures,
        give_back: Callable[[list[gym.Env[Any, Any]]], None],
    ) -> None:
        self.num, self._envs, self._bring, self._futures = len(envs), envs, bring, futures
        self._give_back = give_back
        self._origins: list[tuple[int | None, Any] | None] = [None] * self.num

    def begin(self, rows: Array, episodes: Sequence[LoggedEpisode], steps: Sequence[int]) -> None:
        """Put copies to where logged episodes stood before a step."""
        for row, episode, step in zip(rows, episodes, steps, strict=True):
            self._bring(self._envs[row], episode, step)
            self._origins[row] = (episode.seed, episode.options)

    def copy(self, source: Worlds, mine: Array, theirs: Array, seeds: Array) -> None:
        """Put the copies `mine` into the states of another's copies `theirs`, with a future of their own."""
        assert isinstance(source, SteppedWorlds)
        states: dict[int, SimulatorState | None] = {}
        for row, other, seed in zip(mine, theirs, seeds, strict=True):
            if other not in states:
                states[other] = read_state(source._envs[other])
            state, origin = states[other], source._origins[other]
            assert state is not None
            assert origin is not None
            if self._origins[row] != origin:
                # A reset may draw more than the state holds: a goal, a door's place.
                reset_seed, options = origin
                self._envs[row].reset(seed=reset_seed, options=None if options is None else deepcopy(dict(options)))
                self._origins[row] = origin
            one = {name: np.asarray(part)[None] for name, part in state.items()}
            other_future = self._futures(self._envs[row], one, np.array([seed]))
            restore(self._envs[row], {name: part[0] for name, part in other_future.items()})
            reseed(self._envs[row], [int(seed)])

    def step(self, rows: Array, actions: Array) -> Stepped:
        """Step some copies."""
        # Copies both ways: environments scale actions in place, and may hand out one buffer between them.
        observations, rewards, terminated = [], [], []
        for row, action in zip(rows, actions, strict=True):
            observation, reward, ended, *_ = self._envs[row].step(action.copy())
            observations.append(copied(observation))
            rewards.append(float(reward))
            terminated.append(bool(ended))
        return Stepped(np.stack(observations), np.array(rewards), np.array(terminated))

    def close(self) -> None:
        """Give back the environments."""
        self._give_back(self._envs)
        self._envs = []


class WorldMaker:
    """Makes copies of an environment's simulator, once it has been shown that they repeat what was logged.

    Args:
        make: a single environment.
        episodes: logged with simulator states.

    Raises:
        InputError: the states cannot be restored exactly.
    """

    def __init__(self, make: Callable[[], gym.Env[Any, Any]], episodes: Sequence[LoggedEpisode]) -> None:
        self._make = make
        self._spare: list[gym.Env[Any, Any]] = []
        self._bring: Callable[[Any, LoggedEpisode, int], None] = return_to
        self._futures = Futures(episodes)
        env = make()
        self.time_limit = _time_limit(env)
        self.can_simulate = _can_simulate(env)
        if self.can_simulate:
            self._env = env
            env.reset(seed=episodes[0].seed)  # `get_state` is asked for the layout
            _check_simulation(env, episodes[0])
        else:
            env.close()
            with Brancher(make, episodes) as brancher:
                try:
                    check_restorable(brancher)
                except InputError:
                    if not _repeats_with_equal_numbers(make, episodes[0]):
                        raise
                    self._bring = _put_to

    def __call__(self, num: int) -> Worlds:
        """So many copies; environments that were given back are used again."""
        if self.can_simulate:
            return SimulatedWorlds(self._env, num, self._futures)
        while len(self._spare) < num:
            self._spare.append(without_time_limit(self._make()))
        taken, self._spare = self._spare[:num], self._spare[num:]
        return SteppedWorlds(taken, self._bring, self._futures, self._spare_again)

    def _spare_again(self, envs: list[gym.Env[Any, Any]]) -> None:
        self._spare += envs

    def close(self) -> None:
        """Close the environments that were given back."""
        for env in self._spare:
            env.close()
        self._spare = []


def _put_to(env: Any, episode: LoggedEpisode, step: int) -> None:
    """Put an environment whose steps draw random numbers into a logged state; at step 0 before the logged future."""
    env.reset(seed=episode.seed, options=None if episode.options is None else deepcopy(dict(episode.options)))
    if step > 0 or episode.seed is None:
        restore(env, episode.state(step), elapsed_steps=step)
        reseed(env, [_FUTURE_STREAM, episode.seed or 0, step])


def _repeats_with_equal_numbers(make: Callable[[], gym.Env[Any, Any]], episode: LoggedEpisode) -> bool:
    """Whether all that steps draw comes from generators that can be seeded, and all else is in the state.

    An episode is played again from its seed, and another environment is put into its middle; from there on both take
    the same steps with equal generators.
    """
    if not episode.states or episode.seed is None:
        return False
    middle = len(episode) // 2
    with closing(without_time_limit(make())) as played, closing(without_time_limit(make())) as restored:
        played.reset(seed=episode.seed, options=None if episode.options is None else deepcopy(dict(episode.options)))
        for step in range(middle):
            observation, reward, *_ = played.step(episode.actions[step].copy())
            logged: Any = take(episode.observations, np.array([step + 1]))
            if reward != episode.rewards[step] or not np.array_equal(observation, logged[0]):
                return False
        _put_to(restored, episode, middle)
        for env in (played, restored):
            reseed(env, [_FUTURE_STREAM])
        for step in range(middle, min(middle + _STEPS_COMPARED, len(episode))):
            one, other = (env.step(episode.actions[step].copy()) for env in (played, restored))
            if one[1] != other[1] or not np.array_equal(one[0], other[0]):
                return False
    return True


def simulate(env: Any, states: Mapping[str, Array], actions: Array) -> tuple[dict[str, Array], Array, Array, Array]:
    """One step of many states by the environment's own `simulate`; every part by name."""
    following, observations, rewards, terminated = env.unwrapped.simulate(given(env, states), actions.copy())
    parts = {name: part.reshape(states[name].shape) for name, part in named(following).items()}
    return parts, np.asarray(observations), np.asarray(rewards, np.float64), np.asarray(terminated, bool)


def _can_simulate(env: Any) -> bool:
    base = env.unwrapped
    if not all(callable(getattr(base, name, None)) for name in ("simulate", "get_state", "set_state")):
        return False
    while isinstance(env, gym.Wrapper):
        if not isinstance(env, _TRANSPARENT):
            return False  # it may change what is observed, done or paid
        env = env.env
    return True


def _check_simulation(env: Any, episode: LoggedEpisode) -> None:
    """Hold `simulate` against a logged episode, all of its steps at once."""
    if not episode.states:
        raise InputError("env", "must have a simulator whose state can be restored", type(env.unwrapped).__name__)
    states = {name: part[:-1] for name, part in episode.states.items()}
    _, observations, rewards, terminated = simulate(env, states, episode.actions)
    logged: Any = take(episode.observations, np.arange(1, len(episode) + 1))
    same = (
        np.allclose(observations, logged, rtol=1e-4, atol=1e-5)
        and np.allclose(rewards, episode.rewards, rtol=1e-4, atol=1e-5)
        and np.array_equal(terminated, episode.terminated)
    )
    if not same:
        raise InputError(
            "env",
            "must have a `simulate` that does what `step` does",
            bare("another course than the logged one"),
            "its steps draw random numbers, or depend on more than its state",
        )


def _time_limit(env: Any) -> int | None:
    spec = getattr(env, "spec", None)
    part = env
    while isinstance(part, gym.Wrapper):
        if isinstance(part, TimeLimit):
            return int(part._max_episode_steps)
        part = part.env
    limit = getattr(spec, "max_episode_steps", None)
    return None if limit is None else int(limit)
