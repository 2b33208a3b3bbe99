"""What SoftSteer does to a weak policy with discrete actions, beside its controls, on fresh seeds.

    python benchmarks/soft_steer.py CartPole-v1 --critic dqn-CartPole-v1.zip --ppo-steps 4096
    python benchmarks/soft_steer.py Acrobot-v1 --critic-steps 60000 --ppo-steps 24576

A PPO is stopped early. The temperature is chosen on 20 selection seeds; the table is of seeds that chose nothing, once
with the highest sum and once with draws from it, each beside the policy alone that acts in the same way. The controls:
values in a random order, random actions as often as SoftSteer changed the policy's, and the critic's own greedy policy,
which is what to use where the critic is right everywhere (its difference is to the policy's draws).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch as th
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.env_util import make_vec_env

from offline_eval import EpisodePlan, critic_of, load_sb3
from offline_eval.episodes import Evaluation, evaluate_rules
from offline_eval.stats import paired_difference
from offline_eval.types import Rule
from offline_eval.wrappers import Drawn, Greedy, OneHot, RandomAction, ShuffledSoftSteer, SoftSteer

NO_VALUES = 1e9
TEMPERATURES = (30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03)
"""From high to low: of equals the nearest to the policy is chosen."""


def weak_policy(env: str, steps: int, seed: int) -> PPO:
    """A PPO that learned for `steps` environment steps."""
    model = PPO("MlpPolicy", make_vec_env(env, 4, seed=seed), n_steps=256, n_epochs=4, seed=seed, device="cpu")
    return model.learn(steps)


def critic_agent(env: str, path: Path | None, steps: int) -> Any:
    """The DQN whose values steer: from a file, or trained here."""
    if path is not None:
        return load_sb3(path, env, "cpu")
    model = DQN(
        "MlpPolicy",
        env,
        learning_rate=6.3e-4,
        batch_size=128,
        buffer_size=50_000,
        learning_starts=1000,
        train_freq=4,
        gradient_steps=2,
        target_update_interval=250,
        exploration_fraction=0.2,
        exploration_final_eps=0.1,
        policy_kwargs={"net_arch": [64, 64]},
        seed=0,
        device="cpu",
    )
    return model.learn(steps)


def main() -> None:
    """Train, choose, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("env")
    parser.add_argument("--critic", type=Path, help="zip of a DQN or QRDQN (default: a DQN is trained)")
    parser.add_argument("--critic-steps", type=int, default=60_000)
    parser.add_argument("--ppo-steps", type=int, default=4096)
    parser.add_argument("--ppo-seed", type=int, default=1)
    parser.add_argument("--selection-episodes", type=int, default=20)
    parser.add_argument("--episodes", type=int, default=100)
    arguments = parser.parse_args()
    th.set_num_threads(1)

    env, model = arguments.env, weak_policy(arguments.env, arguments.ppo_steps, arguments.ppo_seed)
    owner = critic_agent(env, arguments.critic, arguments.critic_steps)
    critic, actions = critic_of(owner), gym.make(env).action_space
    selection = EpisodePlan.seeded(arguments.selection_episodes, 1000)
    fresh = EpisodePlan.seeded(arguments.episodes, 5000)
    table: dict[str, Evaluation] = {}
    for choose, word in ((Greedy(), "highest"), (Drawn(), "drawn")):
        # At this temperature values count for nothing: the policy's own highest action, or its own draws.
        own = f"plain, {word}"
        rules: dict[str, Rule | None] = {f"{t:g}": SoftSteer(critic, t, choose=choose) for t in TEMPERATURES}
        trial = evaluate_rules(model, env, selection, {own: SoftSteer(critic, NO_VALUES, choose=choose), **rules})
        means = {name: float(evaluation.returns.mean()) for name, evaluation in trial.items()}
        print("selection seeds:", ", ".join(f"{name} {mean:.1f}" for name, mean in means.items()))
        best = max(rules, key=means.__getitem__)
        changed = min(1.0, trial[best].steering["displacement"] * actions.n / (actions.n - 1))
        chosen = SoftSteer(critic, float(best), choose=choose)
        shown: dict[str, Rule | None] = {
            own: SoftSteer(critic, NO_VALUES, choose=choose),
            f"SoftSteer {best}, {word}": chosen,
            f"  values in a random order, {word}": ShuffledSoftSteer(chosen),
        }
        if isinstance(choose, Greedy):
            shown["  random actions as often"] = RandomAction(changed, actions)
            shown[f"SoftSteer {best}, one-hot .1"] = SoftSteer(critic, float(best), prior=OneHot(0.1))
        table |= evaluate_rules(model, env, fresh, shown)
    table["the critic's greedy policy"] = evaluate_rules(owner, env, fresh, {"greedy": None})["greedy"]

    for name, evaluation in table.items():
        if name.startswith("plain"):
            plain = evaluation.returns
        difference = paired_difference(evaluation.returns, plain)
        interval = f"{difference.mean_difference:+8.1f} [{difference.ci95.low:.1f}, {difference.ci95.high:.1f}]"
        other = evaluation.steering.get("displacement")
        share = "" if other is None else f"{other:.0%} other actions"
        gain = "" if name.startswith("plain") else interval
        print(f"{name:36s} {evaluation.returns.mean():8.1f}  {gain:26s} {share}")


if __name__ == "__main__":
    main()
