"""What test-time training costs: the plain run's time as 1, at 1, 8 and 32 environments; interleaved, as ratios.

    python benchmarks/adaptation_speed.py AGENT [--env HalfCheetah-v5] [--rounds 5] [--steps 200] [--envs 1,8,32]

Timed is the processor's own time between two steps of the first environment: acting, adapting, and a step of every
environment. Of each run the fastest tenth counts, which others on a busy machine disturb least (they still share its
caches); `--quantile 0.5` takes the median. Every round plays each contender once, in turn; a ratio is taken within its
round, and the median over the rounds is printed with the lowest and the highest.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th

from offline_eval import OPEX, EpisodePlan, critic_of, evaluate, load_sb3
from offline_eval.policies import actor_of
from offline_eval.types import Rule
from offline_eval.wrappers import L2, AllParameters, Latest, TestTimeTraining

PLAIN = "plain"


class Stamped(gym.Wrapper[Any, Any, Any, Any]):
    """Writes down when it is stepped."""

    def __init__(self, env: gym.Env[Any, Any], stamps: list[float]) -> None:
        super().__init__(env)
        self._stamps = stamps

    def step(self, action: Any) -> Any:
        """Step."""
        self._stamps.append(time.thread_time())
        return self.env.step(action)


def contenders(agent: str, env: str) -> tuple[Any, dict[str, Rule | None]]:
    """The model, and what is timed."""
    model = load_sb3(agent, env, device="cpu")
    actor, critic = actor_of(model), critic_of(model)
    rules: dict[str, Rule | None] = {
        PLAIN: None,
        "OPEX": OPEX(critic, 0.1, direction=L2()),
        "last layer, latest state": TestTimeTraining(actor, critic, states=Latest()),
        "last layer, 16 states": TestTimeTraining(actor, critic),
        "full net, latest state": TestTimeTraining(actor, critic, parameters=AllParameters(), states=Latest()),
        "full net, 16 states": TestTimeTraining(actor, critic, parameters=AllParameters()),
    }
    return model, rules


def milliseconds(model: Any, env: str, rule: Rule | None, n_envs: int, steps: int, quantile: float) -> float:
    """A step of all environments."""
    stamps: list[list[float]] = []

    def make() -> gym.Env[Any, Any]:
        stamps.append([])
        return Stamped(gym.make(env), stamps[-1])

    evaluate(model, make, EpisodePlan.seeded(n_envs, seed=0), rule=rule, n_envs=n_envs, step_limit=steps)
    return float(np.quantile(np.diff(stamps[0]), quantile)) * 1e3


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("agent")
    parser.add_argument("--env", default="HalfCheetah-v5")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200, help="of each environment in each round")
    parser.add_argument("--envs", default="1,8,32", help="environments side by side")
    parser.add_argument("--quantile", type=float, default=0.1, help="of a run's steps, which counts")
    parser.add_argument("--only", default="", help="contenders whose name holds this")
    arguments = parser.parse_args()
    th.set_num_threads(1)
    model, rules = contenders(arguments.agent, arguments.env)
    rules = {name: rule for name, rule in rules.items() if arguments.only in name or name == PLAIN}
    print("a step of all environments, ms, and x plain [lowest, highest]")
    for n_envs in map(int, arguments.envs.split(",")):
        times: dict[str, list[float]] = {name: [] for name in rules}
        for turn in range(arguments.rounds):
            for name, rule in rules.items():
                taken = milliseconds(model, arguments.env, rule, n_envs, arguments.steps, arguments.quantile)
                times[name].append(taken)
            print(f"{n_envs} environments: round {turn + 1}", file=sys.stderr, flush=True)
        for name, values in times.items():
            ratios = [mine / plain for mine, plain in zip(values, times[PLAIN], strict=True)]
            told = f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
            print(f"{n_envs:3} envs  {name:28}{statistics.median(values):8.2f}  x {told}")


if __name__ == "__main__":
    main()
