"""Small data sets of many kinds for the data doctor: clean ones by construction, and faults to plant in them.

Every kind is a function of a generator that gives flat arrays by their D4RL names, and nothing in them is wrong: what
looks odd (a jump, a large number, a reward that only the next state explains) belongs to the task.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

Arrays = dict[str, np.ndarray]
Generator = np.random.Generator
FIELDS = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")


@dataclass
class World:
    """Dynamics of vectors, with what is observed and paid; every field may be replaced by a kind.

    `step(state, action, generator)` gives the next state; `reward(state, action, next_state, generator)` a number.
    """

    step: Callable[..., np.ndarray]
    reward: Callable[..., float]
    start: Callable[[Generator], np.ndarray] = lambda g: g.uniform(-1, 1, 4)
    observe: Callable[[np.ndarray], np.ndarray] = lambda state: state
    policy: Callable[..., np.ndarray] = lambda state, previous, g: g.uniform(-1, 1, 2)
    done: Callable[[np.ndarray], bool] = lambda state: False
    length: Callable[[Generator], int] = lambda g: 60
    episodes: int = 30
    resets: bool = True


def play(world: World, generator: Generator) -> Arrays:
    """Rows of the world's episodes."""
    rows: dict[str, list[Any]] = {name: [] for name in FIELDS}
    state = world.start(generator)
    for _ in range(world.episodes):
        state = world.start(generator) if world.resets else state
        limit, action = world.length(generator), np.zeros(2)
        for t in range(limit):
            action = world.policy(state, action, generator)
            following = world.step(state, action, generator)
            paid, ended = world.reward(state, action, following, generator), world.done(following)
            values = (
                world.observe(state), action, paid, ended, t == limit - 1 and not ended, world.observe(following)
            )  # fmt: skip
            for name, value in zip(FIELDS, values, strict=True):
                rows[name].append(value)
            state = following
            if ended:
                break
    arrays = {name: np.array(values) for name, values in rows.items()}
    for name in ("observations", "actions", "next_observations"):
        if arrays[name].dtype == np.float64:
            arrays[name] = arrays[name].astype(np.float32)
    return arrays


def registered(env_id: str, episodes: int, steps: int, **words: Any) -> Callable[[Generator], Arrays]:
    """Random actions in an environment of Gymnasium."""

    def kind(generator: Generator) -> Arrays:
        env = gymnasium.make(env_id, max_episode_steps=steps, **words)
        env.action_space.seed(int(generator.integers(2**31)))
        rows: dict[str, list[Any]] = {name: [] for name in FIELDS}
        for _ in range(episodes):
            observation, _ = env.reset(seed=int(generator.integers(2**31)))
            ended = False
            while not ended:
                action = env.action_space.sample()
                following, reward, terminated, truncated, _ = env.step(action)
                values = (observation, action, reward, terminated, truncated and not terminated, following)
                for name, value in zip(FIELDS, values, strict=True):
                    rows[name].append(value)
                observation, ended = following, terminated or truncated
        env.close()
        return {name: np.array(values) for name, values in rows.items()}

    return kind


# ------------------------------------------------------------------------------------------------------- dynamics


def walk(state: np.ndarray, action: np.ndarray, g: Generator) -> np.ndarray:
    return state + 0.2 * g.standard_normal(len(state))


def mass(state: np.ndarray, action: np.ndarray, g: Generator) -> np.ndarray:
    """A point with position and velocity in the plane, the action its acceleration; half-implicit."""
    velocity = 0.9 * state[2:4] + 0.15 * action
    return np.concatenate([state[:2] + 0.2 * velocity, velocity, state[4:]])


def explicit_mass(state: np.ndarray, action: np.ndarray, g: Generator) -> np.ndarray:
    return np.concatenate([state[:2] + 0.2 * state[2:4], 0.9 * state[2:4] + 0.15 * action])


def linear(state: np.ndarray, action: np.ndarray, g: Generator) -> np.ndarray:
    turned = np.roll(state, 1) * np.array([1, -1, 1, 1])
    return 0.9 * state + 0.2 * turned + 0.3 * np.tile(action, 2) + 0.05 * g.standard_normal(4)


def with_goal(g: Generator) -> np.ndarray:
    return np.concatenate([g.uniform(-1, 1, 2), np.zeros(2), g.uniform(-1, 1, 2)])


def towards_goal(state: np.ndarray, previous: np.ndarray, g: Generator) -> np.ndarray:
    return np.clip(2 * (state[4:6] - state[:2]) - state[2:4] + 0.5 * g.standard_normal(2), -1, 1)


def smooth(state: np.ndarray, previous: np.ndarray, g: Generator) -> np.ndarray:
    return np.clip(0.9 * previous + 0.25 * g.standard_normal(2), -1, 1)


def distance(state: np.ndarray) -> float:
    return float(np.linalg.norm(state[4:6] - state[:2]))


def any_length(g: Generator) -> int:
    return int(g.integers(20, 90))


# ------------------------------------------------------------------------------------------------ kinds in full


def grid(generator: Generator) -> Arrays:
    """A room of 5 x 5 cells, one-hot, a goal in its corner that ends the episode and pays 1."""

    def step(state: np.ndarray, action: int, g: Generator) -> np.ndarray:
        return np.clip(state + np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])[action], 0, 4)

    return play(
        World(
            step, lambda s, a, n, g: float(n.sum() == 8), lambda g: g.integers(0, 4, 2),
            lambda s: np.eye(25, dtype=np.float32)[s[0] * 5 + s[1]],
            lambda s, p, g: int(g.choice(4, p=[0.4, 0.1, 0.4, 0.1])),
            lambda s: s.sum() == 8, lambda g: 100,
        ),
        generator,
    )  # fmt: skip


def bandit(sparse: bool) -> Callable[[Generator], Arrays]:
    """Every episode is one decision."""

    def kind(generator: Generator) -> Arrays:
        count = 1500
        observations, actions = generator.standard_normal((count, 4)), generator.uniform(-1, 1, (count, 2))
        pay = -np.square(actions - np.tanh(observations[:, :2])).sum(axis=1)
        return {
            "observations": observations.astype(np.float32),
            "actions": actions.astype(np.float32),
            "rewards": (pay > np.quantile(pay, 0.9)).astype(float) if sparse else pay,
            "terminals": np.ones(count, bool),
            "timeouts": np.zeros(count, bool),
        }

    return kind


def market(generator: Generator) -> Arrays:
    """Time stamps in seconds, a price and a traded volume; paid is what the position gained until the next minute."""
    episodes, steps = 12, 200
    price = 4e4 * np.exp(np.cumsum(2e-3 * generator.standard_normal((episodes, steps + 1)), axis=1))
    volume = generator.lognormal(13.0, 1.0, (episodes, steps + 1))
    stamp = 1.7e9 + 86_400 * np.arange(episodes)[:, None] + 60.0 * np.arange(steps + 1)
    states = np.stack([stamp, price, volume], axis=-1)
    actions = generator.uniform(-1, 1, (episodes, steps, 1))
    last = np.tile(np.arange(steps) == steps - 1, episodes)
    return {
        "observations": states[:, :-1].reshape(-1, 3),
        "actions": actions.reshape(-1, 1).astype(np.float32),
        "rewards": (actions[..., 0] * np.diff(price)).reshape(-1),
        "terminals": np.zeros_like(last),
        "timeouts": last,
        "next_observations": states[:, 1:].reshape(-1, 3),
    }


def timed(generator: Generator) -> Arrays:
    """A task that truly ends after 50 steps, as the time in its observation says."""
    world = World(
        lambda s, a, g: np.append(mass(s[:4], a, g), s[4] + 0.02), lambda s, a, n, g: -np.square(n[:2]).sum(),
        lambda g: np.append(g.uniform(-1, 1, 4), 0.0), done=lambda s: s[4] > 0.999, length=lambda g: 200,
    )  # fmt: skip
    return play(world, generator)


def pixels(generator: Generator) -> Arrays:
    """A bright dot on 12 x 12 pixels."""

    def picture(state: np.ndarray) -> np.ndarray:
        shown = np.zeros((12, 12, 1), np.uint8)
        row, column = np.clip(((state[:2] + 2) * 3).astype(int), 0, 11)
        shown[row, column] = 255
        return shown

    return play(World(mass, lambda s, a, n, g: -np.abs(n[:2]).sum(), observe=picture), generator)


def teleporting(generator: Generator) -> Arrays:
    """A new goal as soon as one is reached, in the middle of an episode."""

    def step(state: np.ndarray, action: np.ndarray, g: Generator) -> np.ndarray:
        following = mass(state, action, g)
        if distance(following) < 0.3:
            following[4:6] = g.uniform(-1, 1, 2)
        return following

    world = World(
        step, lambda s, a, n, g: float((n[4:6] != s[4:6]).any()), with_goal, policy=towards_goal, length=lambda g: 100
    )
    return play(world, generator)


def wrapping(generator: Generator) -> Arrays:
    """A wheel whose angle jumps from pi to -pi."""

    def step(state: np.ndarray, action: np.ndarray, g: Generator) -> np.ndarray:
        speed = np.clip(0.98 * state[1] + 0.3 * action[0] + 0.02, -1, 1)
        return np.array([(state[0] + speed + np.pi) % (2 * np.pi) - np.pi, speed])

    world = World(
        step, lambda s, a, n, g: np.cos(n[0]) - 0.1 * np.square(n[1]),
        lambda g: np.array([g.uniform(-0.3, 0.3), 0.5]), length=lambda g: 100,
    )  # fmt: skip
    return play(world, generator)


def repeated_actions(generator: Generator) -> Arrays:
    """Each action is held for four steps of the simulation, whose rewards are added up."""
    paid = [0.0]

    def step(state: np.ndarray, action: np.ndarray, g: Generator) -> np.ndarray:
        paid[0] = 0.0
        for _ in range(4):
            state = mass(state, action, g)
            paid[0] -= float(np.square(state[:2]).sum())
        return state

    return play(World(step, lambda s, a, n, g: paid[0]), generator)


def smooth_actions_wanted(generator: Generator) -> Arrays:
    """Part of the reward is for what the row does not hold: the action before."""
    arrays = play(World(mass, lambda s, a, n, g: -np.abs(n[:2]).sum()), generator)
    change = np.diff(arrays["actions"], axis=0, prepend=0)
    change[1:][arrays["timeouts"][:-1]] = 0.0
    return arrays | {"rewards": arrays["rewards"] - np.square(change).sum(axis=1)}


def kept(
    kind: Callable[[Generator], Arrays], without: tuple[str, ...] = (), **dtypes: str
) -> Callable[[Generator], Arrays]:
    """The same data, some arrays left out or of another precision."""

    def other(generator: Generator) -> Arrays:
        arrays = {name: values for name, values in kind(generator).items() if name not in without}
        return {name: values.astype(dtypes.get(name, values.dtype)) for name, values in arrays.items()}

    return other


def of(*positional: Any, **words: Any) -> Callable[[Generator], Arrays]:
    """The rows of a world."""
    return lambda generator: play(World(*positional, **words), generator)


def _falls(state: np.ndarray) -> bool:
    return bool(np.abs(state[:2]).max() > 1.3)


walking_home = of(walk, lambda s, a, n, g: -np.square(n).sum())
progressing = of(mass, lambda s, a, n, g: distance(s) - distance(n), with_goal, policy=towards_goal)

CLEAN: dict[str, Callable[[Generator], Arrays]] = {
    "random walk, -|s'|^2": walking_home,
    "random walk, -|s'|^2, no next observations": kept(walking_home, ("next_observations",)),
    "random walk, -|s|^2": of(walk, lambda s, a, n, g: -np.square(s).sum()),
    "random walk, steep in s'": of(walk, lambda s, a, n, g: 1 / (0.1 + np.square(n[:2]).sum())),
    "random walk, 0 or 1 by s'": of(walk, lambda s, a, n, g: float(n[0] > 0)),
    "random walk from the origin, -|s'|": of(walk, lambda s, a, n, g: -np.linalg.norm(n), lambda g: np.zeros(4)),
    "point mass, progress to a goal": progressing,
    "point mass, progress, no next observations": kept(progressing, ("next_observations",)),
    "point mass, -distance to a goal": of(mass, lambda s, a, n, g: -distance(n), with_goal, policy=towards_goal),
    "point mass, sparse goal that ends": of(
        mass, lambda s, a, n, g: float(distance(n) < 0.2), with_goal, policy=towards_goal,
        done=lambda s: distance(s) < 0.2,
    ),
    "point mass, 1 while at the goal": of(
        mass, lambda s, a, n, g: float(distance(n) < 0.3), with_goal, policy=towards_goal, length=any_length
    ),
    "point mass, velocity less the action's cost": of(
        mass, lambda s, a, n, g: n[2] - 0.1 * np.square(a).sum(), observe=lambda s: s[1:]
    ),
    "point mass, cost of smooth actions": of(mass, lambda s, a, n, g: -np.square(a).sum(), policy=smooth),
    "point mass, alive until it falls": of(
        mass, lambda s, a, n, g: -100.0 if _falls(n) else 1.0 + n[2], done=_falls, length=any_length
    ),
    "point mass, noisy reward": of(mass, lambda s, a, n, g: -np.square(n[:2]).sum() + g.standard_normal()),
    "point mass, heavy-tailed reward": of(mass, lambda s, a, n, g: n[2] + g.standard_t(2)),
    "point mass, velocity hidden and paid": of(
        explicit_mass, lambda s, a, n, g: n[2], observe=lambda s: s[:2], policy=smooth
    ),
    "point mass, lengths of all sizes": of(mass, lambda s, a, n, g: n[0] * n[2], length=any_length),
    "point mass, rewards of thousands": of(mass, lambda s, a, n, g: 5e3 - 2e3 * np.square(n[:2]).sum()),
    "point mass in half precision": kept(progressing, observations="float16", next_observations="float16"),
    "point mass in double precision": kept(walking_home, observations="float64", actions="float64"),
    "one long episode": of(mass, lambda s, a, n, g: -np.abs(n[:2]).sum(), length=lambda g: 3000, episodes=1),
    "cut without a reset": of(mass, lambda s, a, n, g: n[2] - np.abs(n[0]), resets=False, policy=smooth),
    "linear, quadratic cost": of(linear, lambda s, a, n, g: -np.square(s).sum() - np.square(a).sum()),
    "linear, quadratic cost of s'": of(linear, lambda s, a, n, g: -np.square(n).sum() - np.square(a).sum()),
    "a smooth reward of all": of(linear, lambda s, a, n, g: np.sin(s[0] * 3) + np.cos(n[1] * 2) * a[0]),
    "a truth in time": timed,
    "room of cells": grid,
    "single decisions": bandit(sparse=False),
    "single decisions, sparse": bandit(sparse=True),
    "prices, volumes, time stamps": market,
    "pixels": pixels,
    "goals that jump": teleporting,
    "an angle that wraps": wrapping,
    "actions held for four steps": repeated_actions,
    "a reward for smooth actions": smooth_actions_wanted,
    "Pendulum": registered("Pendulum-v1", 25, 80),
    "Pendulum, no next observations": kept(registered("Pendulum-v1", 25, 80), ("next_observations",)),
    "CartPole": registered("CartPole-v1", 80, 500),
    "MountainCarContinuous": registered("MountainCarContinuous-v0", 10, 200),
    "Acrobot": registered("Acrobot-v1", 10, 200),
}  # fmt: skip


# --------------------------------------------------------------------------------------------------------- faults


def shifted(by: int, within: bool) -> Callable[[Arrays, Generator], Arrays]:
    """Rewards `by` rows later: through the whole file, or within each episode, where 0 fills the gap."""

    def plant(arrays: Arrays, generator: Generator) -> Arrays:
        rewards = np.roll(arrays["rewards"], by)
        if within:
            last = arrays["terminals"] | arrays["timeouts"]
            edge = np.concatenate([[True], last[:-1]]) if by > 0 else last
            rewards = np.where(edge, 0.0, rewards)
        return arrays | {"rewards": rewards}

    return plant


def _cut_as_terminal(arrays: Arrays, generator: Generator) -> Arrays:
    nothing = np.zeros_like(arrays["timeouts"])
    return arrays | {"terminals": arrays["terminals"] | arrays["timeouts"], "timeouts": nothing}


def _crossing(arrays: Arrays, generator: Generator) -> Arrays:
    following = arrays["next_observations"].copy()
    last = np.flatnonzero(arrays["timeouts"] | arrays["terminals"])[:-1]
    following[last] = arrays["observations"][last + 1]
    return arrays | {"next_observations": following}


def _zero(arrays: Arrays, generator: Generator) -> Arrays:
    return arrays | {"rewards": np.zeros_like(arrays["rewards"])}


def _tail(arrays: Arrays, generator: Generator) -> Arrays:
    return {name: np.concatenate([values, values[-75:]]) for name, values in arrays.items()}


def _outside(arrays: Arrays, generator: Generator) -> Arrays:
    actions = arrays["actions"].copy()
    actions[generator.integers(len(actions), size=20)] *= 9.0
    return arrays | {"actions": actions}


def _constant(arrays: Arrays, generator: Generator) -> Arrays:
    names = [name for name in ("observations", "next_observations") if name in arrays]
    return arrays | {name: np.insert(arrays[name], 1, 0.25, axis=1) for name in names}


def _diverged(arrays: Arrays, generator: Generator) -> Arrays:
    observations = arrays["observations"].copy()
    start = int(generator.integers(len(observations) - 20))
    observations[start : start + 9, 0] = 10.0 ** np.arange(4, 13)
    return {name: values for name, values in arrays.items() if name != "next_observations"} | {
        "observations": observations
    }


def _nan(arrays: Arrays, generator: Generator) -> Arrays:
    rewards = arrays["rewards"].astype(np.float64).copy()
    rewards[generator.integers(len(rewards))] = np.nan
    return arrays | {"rewards": rewards}


def _no_ends(arrays: Arrays, generator: Generator) -> Arrays:
    nothing = np.zeros_like(arrays["timeouts"])
    rest = {name: values for name, values in arrays.items() if name != "next_observations"}
    return rest | {"terminals": nothing, "timeouts": nothing}


FAULTS: dict[str, tuple[str, Callable[[Arrays, Generator], Arrays]]] = {
    "rewards late": ("shifted_rewards", shifted(1, within=False)),
    "rewards early": ("shifted_rewards", shifted(-1, within=False)),
    "rewards late, 0 first": ("shifted_rewards", shifted(1, within=True)),
    "rewards early, 0 last": ("shifted_rewards", shifted(-1, within=True)),
    "timeouts as terminals": ("timeouts_as_terminals", _cut_as_terminal),
    "next observations cross": ("crossing_next_observations", _crossing),
    "rewards of 0": ("zero_rewards", _zero),
    "tail repeated": ("duplicated_tail", _tail),
    "actions outside": ("actions_out_of_bounds", _outside),
    "constant column": ("constant_dimension", _constant),
    "diverged": ("exploding_dimension", _diverged),
    "NaN": ("non_finite", _nan),
    "no ends": ("missing_episode_ends", _no_ends),
}
"""A fault's code and how it is planted."""

PLANTED_IN = (
    "random walk, -|s'|^2",
    "random walk, -|s|^2",
    "random walk, steep in s'",
    "point mass, progress to a goal",
    "point mass, -distance to a goal",
    "point mass, sparse goal that ends",
    "point mass, velocity less the action's cost",
    "point mass, cost of smooth actions",
    "point mass, noisy reward",
    "linear, quadratic cost",
    "linear, quadratic cost of s'",
    "a smooth reward of all",
    "actions held for four steps",
    "Pendulum",
)
"""Kinds in which faults are planted: episodes that are cut, and a reward that varies."""
