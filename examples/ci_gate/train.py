"""Train a small agent on CartPole and save it: `python train.py candidate.zip`. Your own training stands here."""

import argparse

from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path")
    parser.add_argument("--steps", type=int, default=14_000)
    arguments = parser.parse_args()
    words = {"n_steps": 32, "batch_size": 256, "n_epochs": 20, "learning_rate": 1e-3, "gae_lambda": 0.8, "gamma": 0.98}
    env = make_vec_env("CartPole-v1", n_envs=8, seed=0)
    model = PPO("MlpPolicy", env, ent_coef=0.0, clip_range=0.2, seed=0, device="cpu", **words)
    if arguments.steps:
        model.learn(arguments.steps)
    model.save(arguments.path)


if __name__ == "__main__":
    main()
