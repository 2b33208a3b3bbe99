"""How many environments side by side, in how many processes: chosen by what a step costs, never by what it changes.

The table is the same for every choice (`offline_eval.batching`); only the time differs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from math import ceil
from typing import Any, NamedTuple, TypeVar

from offline_eval.batching import WIDTH
from offline_eval.environments import EnvironmentLike, environment_factory
from offline_eval.errors import InputError
from offline_eval.processes import num_cores
from offline_eval.types import Predictor

AUTO = "auto"
_T = TypeVar("_T")

_START_SECONDS = 3.0
"""Until worker processes play: a fork server imports torch and SB3."""

USUAL_LENGTH = 1000
"""Steps of an episode where the environment has no limit."""

_PROBED_STEPS = 20
_PROBED_SECONDS = 0.2
_SLOW_TO_MAKE = 0.3  # the first environment of a kind also pays for imports


@dataclass(frozen=True)
class Parallelism:
    """Environments side by side.

    Attributes:
        n_envs: in each process.
        workers: processes.
    """

    n_envs: int
    workers: int


class Costs(NamedTuple):
    """Seconds: to make an environment, to step it, to ask the policy for one padded batch of actions."""

    make: float
    step: float
    policy: float


TYPICAL = Costs(make=0.01, step=5e-5, policy=4e-4)
"""Where nothing is measured: MuJoCo and a small network."""


def choose(
    policy: Predictor,
    env: EnvironmentLike,
    num_episodes: int,
    n_envs: int | str = AUTO,
    workers: int | str = AUTO,
    *,
    on_cpu: bool = True,
    limit: int | None = None,
) -> Parallelism:
    """Environments and processes for so many episodes; what is given as a number stays.

    Args:
        policy: what plays.
        env: where.
        num_episodes: to be played, of all rules together.
        n_envs: a number, or "auto".
        workers: a number, or "auto". Only then is anything measured, on one environment, for .2 seconds.
        on_cpu: whether processes may have a copy of the policy each.
        limit: steps of an episode; the environment's own limit is used where it is known.
    """
    check(n_envs, workers)
    can_split = on_cpu and environment_factory(env) is not None
    if isinstance(workers, int) and workers > 1 and not can_split:
        if not on_cpu:
            raise InputError("workers", "must be 1 for a policy on a GPU", workers, "one batch serves all environments")
        raise InputError("workers", "must be 1 for a finished environment", workers, "pass an id or a factory")
    if isinstance(n_envs, int) and isinstance(workers, int):
        return Parallelism(n_envs, workers)
    length = limit or USUAL_LENGTH
    processes = [workers] if isinstance(workers, int) else [1]
    costs = TYPICAL
    if not isinstance(workers, int) and can_split and num_cores() > 1 and num_episodes > 1:
        costs = probe(policy, env)
        processes = list(range(1, min(num_cores(), num_episodes) + 1))

    def seconds(option: tuple[int, int]) -> float:
        side_by_side, count = option
        batches = ceil(num_episodes / (side_by_side * count))
        played = length * (batches * costs.policy + ceil(num_episodes / count) * costs.step)
        return side_by_side * costs.make + played + (_START_SECONDS if count > 1 else 0.0)

    widths = [n_envs] if isinstance(n_envs, int) else range(1, min(WIDTH, num_episodes) + 1)
    best = min(product(widths, processes), key=seconds)
    return Parallelism(*best)


def check(n_envs: int | str, workers: int | str) -> None:
    """Refuse what is neither a number nor "auto"."""
    if n_envs != AUTO and (not isinstance(n_envs, int) or n_envs < 1):
        rule = "must be >= 1" if isinstance(n_envs, int) else 'must be a number >= 1 or "auto"'
        raise InputError("n_envs", rule, n_envs)
    if workers != AUTO and (not isinstance(workers, int) or workers < 1):
        raise InputError("workers", 'must be a number >= 1 or "auto"', workers)


def probe(policy: Predictor, env: EnvironmentLike) -> Costs:
    """What a few steps in one environment cost; the typical costs where they cannot be tried."""
    try:
        return _probe(policy, env)
    except Exception:  # whatever is wrong is for the run itself to say
        return TYPICAL


def _probe(policy: Predictor, env: EnvironmentLike) -> Costs:
    from offline_eval.episodes.acting import Acting, Played
    from offline_eval.episodes.env_seats import make_seats
    from offline_eval.episodes.isolation import one_thread
    from offline_eval.episodes.plan import PlanEntry
    from offline_eval.episodes.seats import Start

    seats, make = _timed(lambda: make_seats(env, 1))
    try:
        if seats.start_together:
            return TYPICAL
        if make > _SLOW_TO_MAKE:
            second, make = _timed(lambda: make_seats(env, 1))
            second.close()
        acting = Acting(policy, [Played(None)], seats.observation_space, 1, WIDTH, True)
        steps: list[float] = []
        batches: list[float] = []
        started = time.perf_counter()
        ended = True
        with one_thread():
            while len(steps) < _PROBED_STEPS and time.perf_counter() - started < _PROBED_SECONDS:
                if ended:
                    start = seats.begin({0: PlanEntry(0)})[0]
                    if not isinstance(start, Start):
                        return TYPICAL
                    acting.begin(0, start.observation, 0)
                acted, batch = _timed(lambda: acting.act([0]))
                results, step = _timed(lambda action=acted.executed: seats.step(action, [0]))  # type: ignore[misc]
                found = results[0]
                if acted.errors or isinstance(found, Exception):
                    return TYPICAL
                steps.append(step)
                batches.append(batch)
                ended = found.terminated or found.truncated
                acting.see(0, found.observation)
    finally:
        seats.close()
    return Costs(make, statistics.median(steps), statistics.median(batches)) if steps else TYPICAL


def _timed(call: Callable[[], _T]) -> tuple[_T, float]:
    began = time.perf_counter()
    result: Any = call()
    return result, time.perf_counter() - began
