"""What steering adds to a step, in milliseconds: OPEX, best-of-N and test-time training at 1 to 4096 environments.

    python benchmarks/steering_latency.py [--device cuda] [--rows 1,64,1024,4096] [--seconds 2] [--json FILE]

A step is `predict` of a policy with 256 x 256 networks and two critics (a SAC for Hopper's spaces, not trained: weights
do not change how long they take), from NumPy observations to NumPy actions; no environment is stepped. What is added is
the median over repeats of a steered step minus the plain one beside it. On the CPU, where one thread does all the work,
it is the processor's time that counts and not the wall's, which a busy machine stretches; there the rule stands behind
the policy, padded to 32 rows, as hosts use it. On a GPU policy and rule are one (`fused_policy`), each rule with and
without a CUDA graph.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC

from offline_eval.policies import actor_of, critic_of
from offline_eval.types import Rule
from offline_eval.wrappers import (
    L2,
    OPEX,
    BestOfN,
    CudaGraph,
    GaussianProposal,
    Guarded,
    LineSearch,
    SteeredPolicy,
    TestTimeTraining,
    fused_policy,
)

_FEWEST_REPEATS = 5


class Spaces(gym.Env[Any, Any]):
    """Hopper's spaces, and nothing behind them."""

    observation_space = spaces.Box(-np.inf, np.inf, (11,))
    action_space = spaces.Box(-1.0, 1.0, (3,))


def policies(device: str) -> dict[str, Any]:
    """The plain policy and the steered ones, by name."""
    model = SAC("MlpPolicy", Spaces(), device=device, seed=0, buffer_size=1)
    critic, actor = critic_of(model), actor_of(model)
    rules: dict[str, Rule] = {
        f"OPEX, {steps} step{'s' * (steps > 1)}": OPEX(critic, 0.1, steps, L2()) for steps in (1, 3, 10)
    }
    rules["OPEX, line search of 8"] = Guarded(OPEX(critic, 0.1, direction=L2()), LineSearch(8))
    rules["best of 32"] = BestOfN(critic, 32, GaussianProposal(0.2))
    learning = {"TTT, last layer, 16 states": TestTimeTraining(actor, critic)}
    if device == "cpu":
        return {"plain": model, **{name: SteeredPolicy(model, rule, 0) for name, rule in (rules | learning).items()}}
    fused = {name: fused_policy(actor, rule, 0) for name, rule in (rules | learning).items()}
    graphs = {f"{name}, graph": fused_policy(actor, CudaGraph(rule), 0) for name, rule in rules.items()}
    return {"plain": fused_policy(actor), "SB3's predict": model, **fused, **graphs}


def step_time(policy: Any, observations: Any, clock: Callable[[], float]) -> Callable[[], float]:
    """Milliseconds of one step."""

    def measure() -> float:
        start = clock()
        policy.predict(observations, deterministic=True)
        return (clock() - start) * 1e3

    return measure


def added(rows: int, device: str, seconds: float) -> dict[str, tuple[float, float, float]]:
    """For each policy the median time of a step, what it adds to the plain one, and the quartiles' distance of that."""
    observations = np.random.default_rng(0).standard_normal((rows, 11), dtype=np.float32)
    clock = time.process_time if device == "cpu" else time.perf_counter
    steps = {name: step_time(policy, observations, clock) for name, policy in policies(device).items()}
    for measure in steps.values():
        for _ in range(4):  # a graph is recorded at the third call
            measure()
    result = {}
    for name, measure in steps.items():
        pairs, begun = [], clock()
        while len(pairs) < _FEWEST_REPEATS or clock() - begun < seconds:
            pairs.append((measure(), steps["plain"]()))
        differences = [one - plain for one, plain in pairs]
        low, _, high = statistics.quantiles(differences, n=4)
        result[name] = statistics.median(one for one, _ in pairs), statistics.median(differences), high - low
    return result


def device_name(device: str) -> str:
    """What was measured on."""
    if device.startswith("cuda"):
        return str(th.cuda.get_device_name())
    names = [line.split(":")[1].strip() for line in _cpu_lines() if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {th.get_num_threads()} thread"


def _cpu_lines() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if th.cuda.is_available() else "cpu")
    parser.add_argument("--rows", default="1,64,1024,4096")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each rule and number of rows (default: 2)")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    th.set_num_threads(1)
    sizes = [int(word) for word in arguments.rows.split(",")]
    tables = {rows: added(rows, arguments.device, arguments.seconds) for rows in sizes}
    of = "of the processor" if arguments.device == "cpu" else "of the wall clock"
    print(f"{device_name(arguments.device)}; ms {of} added to a step, median (distance of the quartiles)")
    print(f"{'environments':32s}" + "".join(f"{rows:>20d}" for rows in sizes))
    for name in tables[sizes[0]]:
        shown = 0 if name == "plain" else 1
        label = f"{name}: the whole step" if name == "plain" else name
        cells = [(tables[rows][name][shown], tables[rows][name][2]) for rows in sizes]
        print(f"{label:32s}" + "".join(f"{value:>11.3f} ({spread:.3f})".rjust(20) for value, spread in cells))
    if arguments.json:
        arguments.json.write_text(json.dumps({"device": device_name(arguments.device), "ms": tables}, indent=2))


if __name__ == "__main__":
    main()
