"""Speed of `evaluate` beside SB3's `evaluate_policy`, cost of an OPEX step and of logging; interleaved, as ratios.

    python benchmarks/evaluation_speed.py AGENT [--env HalfCheetah-v5] [--rounds 3] [--episodes 16]

Every round plays each contender once, in turn, so that a busy machine slows all of them alike; a ratio is taken within
its round, and the median over the rounds is what counts. Rates are without the episodes that are played again to check
the table, but for those of "all of it", which hold everything: the probe, the start of processes, the check.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import gymnasium as gym
import torch as th
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from offline_eval import OPEX, EpisodePlan, critic_of, evaluate, load_sb3
from offline_eval.episodes import StateLog
from offline_eval.episodes.log import EpisodeLog
from offline_eval.wrappers import L2

THEIRS = "SB3 evaluate_policy, 8 DummyVecEnv"
LOGGED = "evaluate, 8 envs, with making them and logging"


@contextmanager
def timed_log() -> Iterator[list[float]]:
    """Collects the seconds of each call of the log, the wait for the disk among them."""
    seconds: list[float] = []

    def timed(call: Callable[..., None]) -> Callable[..., None]:
        def run(*arguments: object) -> None:
            start = time.perf_counter()
            call(*arguments)
            seconds.append(time.perf_counter() - start)

        return run

    with ExitStack() as stack:
        for name in ("begin", "step", "write", "close"):
            stack.enter_context(mock.patch.object(EpisodeLog, name, timed(getattr(EpisodeLog, name))))
        yield seconds


def contenders(
    agent: str, env: str, episodes: int, folder: Path, log_costs: list[float]
) -> dict[str, Callable[[], float]]:
    """What is timed: each returns its steps per second.

    Each logged run adds its time over its time without the calls of the log to `log_costs`: taken within one run, it is
    steadier than the ratio of two.
    """
    model = load_sb3(agent, env, device="cpu")
    rule = OPEX(critic_of(model), 0.1, direction=L2())
    plan = EpisodePlan.seeded(episodes, seed=0)
    venv = DummyVecEnv([lambda: Monitor(gym.make(env))] * 8)

    def theirs() -> float:
        start = time.perf_counter()
        _, lengths = evaluate_policy(model, venv, n_eval_episodes=episodes, return_episode_rewards=True)
        return sum(lengths) / (time.perf_counter() - start)

    def ours(**options: object) -> Callable[[], float]:
        return lambda: evaluate(model, env, plan, **options).steps_per_second

    def whole(**options: object) -> Callable[[], float]:
        def run() -> float:
            start = time.perf_counter()
            return evaluate(model, env, plan, **options).num_steps / (time.perf_counter() - start)

        return run

    def logged() -> float:
        with tempfile.TemporaryDirectory(dir=folder) as states, timed_log() as in_log:
            start = time.perf_counter()
            steps = evaluate(model, env, plan, n_envs=8, store=StateLog(states)).num_steps
            elapsed = time.perf_counter() - start
        log_costs.append(elapsed / (elapsed - sum(in_log)))
        return steps / elapsed

    runs: dict[str, Callable[[], float]] = {THEIRS: theirs}
    runs["evaluate, as the command line chooses"] = ours(n_envs="auto", workers="auto")
    runs["evaluate, as the command line chooses, all of it"] = whole(n_envs="auto", workers="auto")
    runs["evaluate, as Python chooses"] = ours()
    for workers in (1, 2):
        for n_envs in (8, 16, 32):
            runs[f"evaluate, {n_envs} envs x {workers} workers"] = ours(n_envs=n_envs, workers=workers)
    runs["evaluate, 16 envs x 2 workers, with their start"] = whole(n_envs=16, workers=2)
    runs["evaluate, 8 envs, with making them"] = whole(n_envs=8)
    runs[LOGGED] = logged
    for n_envs in (1, 8, 32):
        runs[f"plain, {n_envs} envs"] = ours(n_envs=n_envs)
        runs[f"OPEX, {n_envs} envs"] = ours(n_envs=n_envs, rule=rule)
    return runs


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("agent")
    parser.add_argument("--env", default="HalfCheetah-v5")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=16)
    parser.add_argument("--only", default="", help="contenders whose name holds this")
    arguments = parser.parse_args()
    th.set_num_threads(1)  # best for networks of this size, also for SB3
    with tempfile.TemporaryDirectory() as folder:
        log_costs: list[float] = []
        runs = contenders(arguments.agent, arguments.env, arguments.episodes, Path(folder), log_costs)
        runs = {name: run for name, run in runs.items() if arguments.only in name or name == THEIRS}
        rates: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(arguments.rounds):
            for name, run in runs.items():
                rates[name].append(run())
                print(f"round {turn + 1}: {name}: {rates[name][-1]:,.0f} steps/s", file=sys.stderr, flush=True)

    def ratio(name: str, other: str) -> str:
        values = [a / b for a, b in zip(rates[name], rates[other], strict=True)]
        return f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"

    print(f"{'':52}{'steps/s':>10}  x {THEIRS}")
    for name, values in rates.items():
        print(f"{name:52}{statistics.median(values):10,.0f}  {ratio(name, THEIRS)}")
    for n_envs in (1, 8, 32):
        if f"OPEX, {n_envs} envs" in rates:
            cost = ratio(f"plain, {n_envs} envs", f"OPEX, {n_envs} envs")
            print(f"one OPEX step at {n_envs} envs costs {cost} x the plain run")
    if LOGGED in rates:
        cost = ratio("evaluate, 8 envs, with making them", LOGGED)
        print(f"logging every state at 8 envs costs {cost} x the run without")
        inside = f"{statistics.median(log_costs):.2f} [{min(log_costs):.2f}, {max(log_costs):.2f}]"
        print(f"a logged run takes {inside} x its own time without the calls of the log")


if __name__ == "__main__":
    main()
