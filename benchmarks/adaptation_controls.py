"""Test-time training beside three controls: as far at random, up a critic that is turned upside down, actions enlarged.

    python benchmarks/adaptation_controls.py AGENT ENV [--learning-rates 3e-4,1e-3] [--episodes 50] [--seed 7000]
        [--weaken 0.3] [--whole] [--latest]

With the critic negated the policy moves by the same rule, over the same states, and away from what the critic wants:
where that does no less good, the gain is not the critic's.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from offline_eval import EpisodePlan, MultiplyAction, RandomDirection, critic_of, load_sb3, steer
from offline_eval.policies import QCritic, actor_of, weaken
from offline_eval.report.tables import steering_table
from offline_eval.steering.steering import Variant
from offline_eval.types import Critic
from offline_eval.wrappers import AllParameters, Latest, NormalizedGradient, TestTimeTraining

if TYPE_CHECKING:
    from offline_eval.types import TensorObservations


def upside_down(critic: Critic) -> Critic:
    """The critic with the opposite opinion of every action."""

    def values(observations: TensorObservations, actions: Tensor) -> Tensor:
        return -critic.q(observations, actions)

    return QCritic(values, critic.observation_space, critic.action_space, critic.device, critic.gamma, soft=critic.soft)


def main() -> None:
    """Play and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("agent")
    parser.add_argument("env")
    parser.add_argument("--learning-rates", default="3e-4,1e-3")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--seed", type=int, default=7000)
    parser.add_argument("--weaken", type=float, default=0.0, help="strength of the noise on the actor's weights")
    parser.add_argument("--whole", action="store_true", help="the whole network, by normalised steps")
    parser.add_argument("--latest", action="store_true", help="the latest state alone")
    arguments = parser.parse_args()
    model = weaken(load_sb3(arguments.agent, arguments.env, device="cpu"), arguments.weaken)
    critic, actor = critic_of(model), actor_of(model)
    variants = []
    for rate in map(float, arguments.learning_rates.split(",")):
        rule = TestTimeTraining(actor, critic, rate)
        if arguments.whole:
            rule = replace(rule, parameters=AllParameters(), optimizer=NormalizedGradient())
        if arguments.latest:
            rule = replace(rule, states=Latest())
        name = f"ttt {rate:g}"
        variants += [
            Variant(name, rule, control=f"random as {name}", learning_rate=rate),
            Variant(f"random as {name}", RandomDirection(like=rule)),
            Variant(f"{name}, negated", replace(rule, critic=upside_down(critic))),
        ]
    variants += [Variant(f"times {factor:g}", MultiplyAction(factor)) for factor in (1.1, 1.2, 1.5)]
    plan = EpisodePlan.seeded(arguments.episodes, arguments.seed)
    print(steering_table(steer(model, arguments.env, variants, plan), arguments.agent.rpartition("/")[2]))


if __name__ == "__main__":
    main()
