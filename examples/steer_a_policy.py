"""Steer a policy and keep its `predict`: whatever takes an SB3 model takes this.  Arguments: AGENT.zip ENV_ID."""

import sys

from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from offline_eval import OPEX, SteeredPolicy, critic_of, load_sb3

agent = load_sb3(sys.argv[1], sys.argv[2])
steered = SteeredPolicy(agent, OPEX(critic_of(agent), step_size=0.05))
mean, spread = evaluate_policy(steered, make_vec_env(sys.argv[2], n_envs=4, seed=0), n_eval_episodes=8)
print(f"return {mean:.1f} +- {spread:.1f}")
