"""Steer an SB3 VecEnv, here under SB3's own `evaluate_policy`.  Arguments: AGENT.zip ENV_ID."""

import sys

from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from offline_eval import OPEX, critic_of, load_sb3
from offline_eval.wrappers.sb3 import SteerAction

agent = load_sb3(sys.argv[1], sys.argv[2])
env = SteerAction(make_vec_env(sys.argv[2], n_envs=4, seed=0), OPEX(critic_of(agent), step_size=0.05))
mean, spread = evaluate_policy(agent, env, n_eval_episodes=8)
print(f"return {mean:.1f} +- {spread:.1f}")
