"""True values: rollouts that go on where an episode was cut, and rollouts that branch off from its states.

A branch starts from the exact state of a logged step (`offline_eval.datasets.restoring`, which proves it), takes a
given action, and goes on with a driver. Branches that carry the same seed share their random numbers, so that two
actions differ by the action and not by luck.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import TimeLimit

from offline_eval.batching import copied, take
from offline_eval.datasets.recorder import EpisodeRecorder, LoggedEpisode
from offline_eval.datasets.restoring import return_to
from offline_eval.datasets.writing import replacing
from offline_eval.diagnostics.returns import EpisodeRewards, discounted_sums, soft_rewards
from offline_eval.environments import EnvironmentLike, environment_factory
from offline_eval.episodes import EpisodePlan
from offline_eval.errors import InputError, OfflineEvalError, bare
from offline_eval.measurement.actors import Driver
from offline_eval.simulator import simulator_of
from offline_eval.types import Array


@dataclass(frozen=True, eq=False)
class Branch:
    """A rollout to be made.

    Attributes:
        episode: position of the logged episode that it starts in.
        step: from 0 to the episode's length.
        seed: of its noise; branches with the same seed share it.
        num_steps: at most so many.
        action: the first action, in the environment's units; None leaves it to the driver.
        hold: for how many steps `action` is repeated.
        noise_offset: steps of the noise that were passed over: branches at neighbouring steps that share a seed share
            their noise by the clock of the episode.
    """

    episode: int
    step: int
    seed: tuple[int, ...]
    num_steps: int
    action: Array | None = None
    hold: int = 1
    noise_offset: int = 0


@dataclass(frozen=True, eq=False)
class Rollout:
    """What a branch paid.

    Attributes:
        rewards: (num_steps,).
        bonuses: (num_steps,) entropy bonuses of the actions; 0 for an action that was given.
        terminated: whether the environment ended it.
    """

    rewards: Array
    bonuses: Array
    terminated: bool

    def value(self, gamma: float, soft: bool = False) -> float:
        """The discounted return; with later bonuses where `soft`."""
        rewards = soft_rewards(self.rewards, self.bonuses, gamma) if soft else self.rewards
        return float(discounted_sums(rewards, gamma))


def fingerprint(label: str, branches: Sequence[Branch]) -> str:
    """Names branches that are rolled with a driver of this label; the policy's weights are the run's own business."""
    digest = hashlib.sha256(label.encode())
    for branch in branches:
        numbers = (branch.episode, branch.step, branch.seed, branch.num_steps, branch.hold, branch.noise_offset)
        digest.update(repr(numbers).encode())
        digest.update(b"" if branch.action is None else np.ascontiguousarray(branch.action).tobytes())
    return digest.hexdigest()[:24]


def write_rollouts(path: Path, rollouts: Sequence[Rollout]) -> None:
    """Keep rollouts in a file."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            lengths=[len(rollout.rewards) for rollout in rollouts],
            rewards=np.concatenate([rollout.rewards for rollout in rollouts]),
            bonuses=np.concatenate([rollout.bonuses for rollout in rollouts]),
            terminated=[rollout.terminated for rollout in rollouts],
        )


def read_rollouts(path: Path) -> list[Rollout]:
    """Rollouts that were kept."""
    with np.load(path, allow_pickle=False) as file:
        ends = np.cumsum(file["lengths"])[:-1]
        parts = zip(np.split(file["rewards"], ends), np.split(file["bonuses"], ends), file["terminated"], strict=True)
        return [Rollout(rewards, bonuses, bool(terminated)) for rewards, bonuses, terminated in parts]


Advance = Callable[[int], None]
"""Told how many units of work are done."""

_NO_LIMIT = 10**9
_DRAW_STREAM, _STEP_LIMIT = 0xD4A3, 10_000
_CHUNK = 256


@dataclass(frozen=True, eq=False)
class DrawnEpisode:
    """An episode of a driver, and the entropy bonus (num_steps,) of each of its actions."""

    episode: LoggedEpisode
    bonuses: Array


class _Seat:
    """A rollout under way."""

    def __init__(self, number: int, branch: Branch, observation: Any, noise: Array) -> None:
        self.number, self.branch, self.observation, self.noise = number, branch, observation, noise
        self.rewards: list[float] = []
        self.bonuses: list[float] = []


class Brancher:
    """Rolls branches, some of them side by side; the result of one does not depend on the others.

    Args:
        env: an id, a spec or a factory; time limits of gymnasium's `TimeLimit` are lifted.
        episodes: what branches start in, with their simulator's states.
        n_envs: environments side by side.
        kept: a folder that keeps what is rolled, a file every few branches; what it holds is not rolled again.

    Raises:
        InputError: the environment is a finished one or a vector.
    """

    def __init__(
        self, env: EnvironmentLike, episodes: Sequence[LoggedEpisode], n_envs: int = 16, kept: Path | None = None
    ) -> None:
        self._make = _single_factory(env)
        self._kept = kept
        self.episodes, self._n_envs = episodes, n_envs
        self._envs: list[gym.Env[Any, Any]] = []

    def __enter__(self) -> Brancher:
        return self

    def __exit__(self, *error: object) -> None:
        for env in self._envs:
            env.close()
        self._envs = []

    def roll(self, driver: Driver, branches: Sequence[Branch], advance: Advance | None = None) -> list[Rollout]:
        """Roll all branches.

        Args:
            driver: acts, after the given actions.
            branches: what is to be rolled.
            advance: told 1 for each finished branch.

        Raises:
            InputError: a state cannot be restored exactly.
        """
        if self._kept is None:
            return self._roll(driver, branches, advance)
        rollouts: list[Rollout] = []
        for start in range(0, len(branches), _CHUNK):
            part = branches[start : start + _CHUNK]
            path = self._kept / f"{fingerprint(driver.label, part)}.npz"
            if path.exists():
                found = read_rollouts(path)
                if advance is not None:
                    advance(len(found))
            else:
                found = self._roll(driver, part, advance)
                write_rollouts(path, found)
            rollouts += found
        return rollouts

    def _roll(self, driver: Driver, branches: Sequence[Branch], advance: Advance | None) -> list[Rollout]:
        done: dict[int, Rollout] = {}
        waiting = iter(enumerate(branches))
        seats: dict[int, _Seat] = {}
        num_seats = min(self._n_envs, len(branches))
        while True:
            for place in range(num_seats):
                while place not in seats and (entry := next(waiting, None)) is not None:
                    if entry[1].num_steps < 1:
                        done[entry[0]] = Rollout(np.zeros(0), np.zeros(0), False)
                    else:
                        seats[place] = self._seat(place, driver, *entry)
            if not seats:
                return [done[number] for number in range(len(branches))]
            for place in self._step(driver, seats):
                seat, terminated = seats.pop(place), place in self._terminated
                done[seat.number] = Rollout(np.array(seat.rewards), np.array(seat.bonuses), terminated)
                if advance is not None:
                    advance(1)

    def _seat(self, place: int, driver: Driver, number: int, branch: Branch) -> _Seat:
        while len(self._envs) <= place:
            self._envs.append(without_time_limit(self._make()))
        observation = copied(return_to(self._envs[place], self.episodes[branch.episode], branch.step))
        shape = (branch.noise_offset + branch.num_steps, driver.noise_dim)
        noise = np.random.default_rng([_DRAW_STREAM, *branch.seed]).standard_normal(shape, dtype=np.float32)
        return _Seat(number, branch, observation, noise[branch.noise_offset :])

    def _step(self, driver: Driver, seats: dict[int, _Seat]) -> list[int]:
        """One step of every seat; the places whose rollout ended."""
        order = list(seats.values())
        noise = np.stack([seat.noise[len(seat.rewards)] for seat in order])
        actions, bonuses = driver.act(_stack([seat.observation for seat in order]), noise)
        ended, self._terminated = [], set[int]()
        for row, (place, seat) in enumerate(seats.items()):
            action, bonus, steps = actions[row], float(bonuses[row]), len(seat.rewards)
            if seat.branch.action is not None and steps < seat.branch.hold:
                action, bonus = seat.branch.action, 0.0
            # Copies both ways: environments scale actions in place, and reuse what they hand out.
            observation, reward, terminated, truncated, _ = self._envs[place].step(action.copy())
            seat.observation = copied(observation)
            seat.rewards.append(float(reward))
            seat.bonuses.append(bonus)
            if terminated:
                self._terminated.add(place)
            if terminated or truncated or steps + 1 == seat.branch.num_steps:
                ended.append(place)
        return ended


def draw_episodes(
    driver: Driver,
    env: EnvironmentLike,
    plan: EpisodePlan,
    advance: Advance | None = None,
    *,
    n_envs: int = 16,
    step_limit: int | None = None,
) -> list[DrawnEpisode]:
    """Play the planned episodes with a driver and record states and bonuses; noise comes from each entry's seed.

    Raises:
        InputError: the environment or the policy raised, or gave NaN: what is measured is of all episodes or of none.
    """
    try:
        return _draw_episodes(driver, env, plan, advance, n_envs, step_limit)
    except OfflineEvalError:
        raise
    except Exception as error:  # of a foreign environment or policy
        text = " ".join(f"{type(error).__name__}: {error}".split())
        way_out = "`evaluate` says which seed it is: choose --seed and --episodes around it, or mend the environment"
        raise InputError("env", "must play every episode to its end", bare(text), way_out) from error


def _draw_episodes(
    driver: Driver,
    env: EnvironmentLike,
    plan: EpisodePlan,
    advance: Advance | None,
    n_envs: int,
    step_limit: int | None,
) -> list[DrawnEpisode]:
    limit = step_limit or _STEP_LIMIT
    make = _single_factory(env)
    envs = [make() for _ in range(min(n_envs, len(plan)))]
    recorder = EpisodeRecorder(len(envs))
    waiting, playing = iter(enumerate(plan)), {}
    bonuses: dict[int, list[float]] = {index: [] for index in range(len(plan))}
    found: dict[int, LoggedEpisode] = {}
    try:
        while len(found) < len(plan):
            for place, environment in enumerate(envs):
                if place not in playing and (planned := next(waiting, None)) is not None:
                    index, entry = planned
                    options = None if entry.options is None else deepcopy(dict(entry.options))
                    observation, _ = environment.reset(seed=entry.seed, options=options)
                    recorder.reset(place, observation, entry.seed, index, environment, entry.options)
                    playing[place] = index, np.random.default_rng([_DRAW_STREAM, entry.seed]), copied(observation)
            noise = np.stack([g.standard_normal(driver.noise_dim, dtype=np.float32) for _, g, _ in playing.values()])
            actions, extra = driver.act(_stack([observation for *_, observation in playing.values()]), noise)
            for row, (place, (index, generator, _)) in enumerate(list(playing.items())):
                observation, reward, terminated, truncated, _ = envs[place].step(actions[row].copy())
                if not isfinite(float(reward)):
                    raise ValueError(f"the reward of step {len(bonuses[index]) + 1} is {reward}")
                bonuses[index].append(float(extra[row]))
                truncated = truncated or len(bonuses[index]) >= limit
                step = float(reward), bool(terminated), bool(truncated), observation, envs[place]
                recorder.step(place, None, actions[row], *step)
                playing[place] = index, generator, copied(observation)
                if terminated or truncated:
                    found[index] = recorder.finish(place)
                    del playing[place]
                    if advance is not None:
                        advance(1)
    finally:
        for environment in envs:
            environment.close()
    return [DrawnEpisode(found[index], np.array(bonuses[index])) for index in range(len(plan))]


def continue_past_limit(
    brancher: Brancher, driver: Driver, num_steps: int, advance: Advance | None = None
) -> list[Rollout]:
    """Continue every episode that a time limit cut, for the tail rule `Extend`; empty for those that terminated."""
    branches = [
        Branch(number, len(episode), (int(episode.seed or 0), 1), 0 if _has_ended(episode) else num_steps)
        for number, episode in enumerate(brancher.episodes)
    ]
    return brancher.roll(driver, branches, advance)


def episode_rewards(
    episode: LoggedEpisode, continuation: Rollout | None, bonuses: Array | None = None, gamma: float = 1.0
) -> EpisodeRewards:
    """What the returns of an episode are made of.

    Args:
        episode: as logged.
        continuation: what followed the time limit, where it was rolled.
        bonuses: (num_steps,) entropy bonuses; then the rewards are those of a soft critic.
        gamma: the discount of the soft rewards.
    """
    extra = Rollout(np.zeros(0), np.zeros(0), False) if continuation is None else continuation
    rewards = np.concatenate([episode.rewards, extra.rewards])
    if bonuses is not None:
        rewards = soft_rewards(rewards, np.concatenate([bonuses, extra.bonuses]), gamma)
    return EpisodeRewards(
        rewards=rewards[: len(episode)],
        terminated=_has_ended(episode),
        continuation=rewards[len(episode) :],
        continuation_terminated=extra.terminated,
    )


def check_restorable(brancher: Brancher) -> None:
    """Prove on one episode that a restored rollout equals the log, bit for bit.

    Raises:
        InputError: it does not, or there are no states to restore.
    """
    episode = brancher.episodes[0]
    env = without_time_limit(brancher._make())
    with closing(env):
        middle = len(episode) // 2
        if not episode.states:
            env.reset(seed=episode.seed)
            known = simulator_of(env) is not None
            raise InputError(
                "env",
                "must have a simulator whose state can be restored",
                type(env.unwrapped).__name__,
                "log the episodes with states"
                if known
                else "MuJoCo, classic control and get_state()/set_state() are known",
            )
        return_to(env, episode, middle)
        for step in range(middle, min(middle + 50, len(episode))):
            observation, reward, *_ = env.step(episode.actions[step].copy())
            logged = take(episode.observations, np.array([step + 1]))
            if reward != episode.rewards[step] or not _same(observation, logged):
                raise InputError(
                    "env",
                    "must repeat a logged episode from a restored state",
                    bare(f"another course at step {step + 1}"),
                    "its steps draw random numbers, or depend on more than its state",
                )


def without_time_limit(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """The environment itself, with every `TimeLimit` in its stack lifted."""
    part: Any = env
    while isinstance(part, gym.Wrapper):
        if isinstance(part, TimeLimit):
            part._max_episode_steps = _NO_LIMIT
        part = part.env
    return env


def _single_factory(env: EnvironmentLike) -> Callable[[], Any]:
    factory = environment_factory(env)
    if factory is None:
        raise InputError("env", "must be an id, a spec or a factory, to be made anew for rollouts", type(env).__name__)

    def make() -> Any:
        made = factory()
        if not isinstance(made, gym.Env):
            raise InputError("env", "must make a single environment for rollouts", type(made).__name__)
        return made

    return make


def _has_ended(episode: LoggedEpisode) -> bool:
    return bool(episode.terminated[-1])


def _stack(observations: list[Any]) -> Any:
    if isinstance(observations[0], dict):
        return {key: np.stack([seen[key] for seen in observations]) for key in observations[0]}
    return np.stack(observations)


def _same(observation: Any, rows: Any) -> bool:
    if isinstance(rows, dict):
        return all(_same(observation[key], value) for key, value in rows.items())
    return np.array_equal(np.asarray(observation), rows[0])
