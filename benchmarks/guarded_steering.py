"""What guards do to OPEX on one agent, beside the controls, on the same episodes.

    python benchmarks/guarded_steering.py sac-HalfCheetah-v3.zip HalfCheetah-v5 [--episodes 20] [--seed 5000]

Nothing is chosen here, so that any seeds are fresh; `gated` is the share of the rule's steps that the guard held back.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch as th

from offline_eval import EpisodePlan, load_sb3
from offline_eval.episodes import evaluate_rules
from offline_eval.policies import critic_of, with_target
from offline_eval.stats import paired_difference
from offline_eval.types import Critic, Rule
from offline_eval.wrappers import (
    L2,
    OPEX,
    AgreementGate,
    AllHeadsGain,
    GainOverDisagreement,
    Guarded,
    KeepBest,
    LineSearch,
    MultiplyAction,
    Placebo,
    RandomDirection,
)


def rules_of(critic: Critic, ensemble: Critic) -> dict[str, Rule | None]:
    """Steps with and without a guard, and the controls."""

    def step(length: float, num_steps: int = 1) -> OPEX:
        return OPEX(critic, length, num_steps, L2())

    return {
        "plain": None,
        "OPEX .1": step(0.1),
        "OPEX .4": step(0.4),
        "10 steps of .04": step(0.04, 10),
        "keep best .4": Guarded(step(0.4), KeepBest()),
        "line search .1": Guarded(step(0.1), LineSearch()),
        "line search .4": Guarded(step(0.4), LineSearch()),
        "gain / disagreement .1": Guarded(step(0.1), GainOverDisagreement(), critic=ensemble),
        "gain / disagreement .4": Guarded(step(0.4), GainOverDisagreement(), critic=ensemble),
        "agreement gate .4": Guarded(step(0.4), AgreementGate(), critic=ensemble),
        "all heads gain .4": Guarded(step(0.4), AllHeadsGain(), critic=ensemble),
        "random direction .1": RandomDirection(0.1),
        "times 1.1": MultiplyAction(1.1),
        "placebo 1e-6": Placebo(),
    }


def main() -> None:
    """Play and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("agent", type=Path)
    parser.add_argument("env")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=5000)
    arguments = parser.parse_args()
    th.set_num_threads(1)
    model = load_sb3(arguments.agent, arguments.env, "cpu")
    # One critic cannot disagree with itself: its target critic is the second member.
    critic = critic_of(model)
    ensemble = critic if len(model.critic.q_networks) > 1 else with_target(model)
    plan = EpisodePlan.seeded(arguments.episodes, arguments.seed)
    table = evaluate_rules(model, arguments.env, plan, rules_of(critic, ensemble))
    print(f"{arguments.agent.name} on {arguments.env}, seeds {arguments.seed} to {arguments.seed + len(plan) - 1}")
    for name, evaluation in table.items():
        difference = paired_difference(evaluation.returns, table["plain"].returns)
        gain = f"{difference.mean_difference:+.1f} [{difference.ci95.low:.1f}, {difference.ci95.high:.1f}]"
        shown = "" if name == "plain" else gain
        done = evaluation.steering
        moved, gated = (f"{done[key]:.3f}" if key in done else "" for key in ("displacement", "gated"))
        print(f"{name:24s} {evaluation.returns.mean():9.1f}  {shown:28s} {moved:>6s} {gated:>6s}")


if __name__ == "__main__":
    main()
