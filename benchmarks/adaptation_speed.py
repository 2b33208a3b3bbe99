"""What test-time training costs: the plain run's time as 1, at 1, 8 and 32 environments; interleaved, as ratios.

    python benchmarks/adaptation_speed.py AGENT [--env HalfCheetah-v5] [--rounds 5] [--steps 200]

Every round plays each contender once, in turn, so that a busy machine slows all of them alike; a ratio is taken within
its round, and the median over the rounds counts, with the lowest and the highest beside it. The time is the processor's
own (`--clock wall` takes the wall's): what others do on the machine then counts only as far as they cool the caches.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch as th

from offline_eval import OPEX, EpisodePlan, critic_of, evaluate, load_sb3
from offline_eval.policies import actor_of
from offline_eval.types import Rule
from offline_eval.wrappers import L2, AllParameters, Latest, TestTimeTraining

PLAIN = "plain"
WIDTHS = (1, 8, 32)
CLOCKS: dict[str, Callable[[], float]] = {"processor": time.process_time, "wall": time.perf_counter}


def contenders(agent: str, env: str) -> tuple[object, dict[str, Rule | None]]:
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


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("agent")
    parser.add_argument("--env", default="HalfCheetah-v5")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=200, help="of each environment in each round")
    parser.add_argument("--clock", choices=list(CLOCKS), default="processor")
    parser.add_argument("--only", default="", help="contenders whose name holds this")
    arguments = parser.parse_args()
    th.set_num_threads(1)
    clock = CLOCKS[arguments.clock]
    model, rules = contenders(arguments.agent, arguments.env)
    rules = {name: rule for name, rule in rules.items() if arguments.only in name or name == PLAIN}

    def seconds(rule: Rule | None, n_envs: int) -> float:
        start = clock()
        plan = EpisodePlan.seeded(n_envs, seed=0)
        evaluate(model, arguments.env, plan, rule=rule, n_envs=n_envs, step_limit=arguments.steps)
        return clock() - start

    print(f"{'a step of all environments, ms, and x plain [lowest, highest]':30}")
    for n_envs in WIDTHS:
        times: dict[str, list[float]] = {name: [] for name in rules}
        for turn in range(-1, arguments.rounds):
            for name, rule in rules.items():
                taken = seconds(rule, n_envs)
                if turn >= 0:  # the first round warms up
                    times[name].append(taken / arguments.steps * 1e3)
            print(f"{n_envs} environments: round {turn + 1}", file=sys.stderr, flush=True)
        for name, values in times.items():
            ratios = [mine / plain for mine, plain in zip(values, times[PLAIN], strict=True)]
            told = f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
            print(f"{n_envs:3} envs  {name:28}{statistics.median(values):8.2f}  x {told}")


if __name__ == "__main__":
    main()
