"""A log around a steered environment holds both actions, on every host."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv
from stable_baselines3.common.vec_env import DummyVecEnv

from offline_eval.datasets.log import open_log
from offline_eval.wrappers import MultiplyAction, StateLogger, SteerAction
from offline_eval.wrappers.host import EXECUTED
from offline_eval.wrappers.sb3 import SteerAction as SteerVecEnv
from offline_eval.wrappers.state_log import EXECUTED_ACTION, VectorStateLogger
from offline_eval.wrappers.state_log_sb3 import VecEnvStateLogger
from offline_eval.wrappers.vector import SteerAction as SteerVector

HALF = MultiplyAction(0.5)
CHOSEN, EXECUTED_VALUES = [1.0, -2.0, 1.5], [0.5, -1.0, 0.75]


def pendulum():
    return gym.make("Pendulum-v1", max_episode_steps=3)


def vector(mode):
    return SyncVectorEnv([pendulum], autoreset_mode=mode)


HOSTS = {
    "env": lambda folder: StateLogger(SteerAction(pendulum(), HALF), folder),
    "next step": lambda folder: VectorStateLogger(SteerVector(vector("NextStep"), HALF), folder),
    "same step": lambda folder: VectorStateLogger(SteerVector(vector("SameStep"), HALF), folder),
    "disabled": lambda folder: VectorStateLogger(SteerVector(vector("Disabled"), HALF), folder),
    "steered inside": lambda folder: VectorStateLogger(
        SyncVectorEnv([lambda: SteerAction(pendulum(), HALF)], autoreset_mode="SameStep"), folder
    ),
    "sb3": lambda folder: VecEnvStateLogger(SteerVecEnv(DummyVecEnv([pendulum]), HALF), folder),
}


def test_the_hosts_of_steering_and_of_the_log_mean_the_same_key():
    assert EXECUTED == EXECUTED_ACTION


@pytest.mark.parametrize("host", HOSTS)
def test_both_actions_are_logged(host, tmp_path):
    env = HOSTS[host](tmp_path)
    env.reset()
    for value in CHOSEN:
        env.step(np.float32([value] if host == "env" else [[value]]))
    env.close()
    (episode,) = open_log(tmp_path)
    assert episode.policy_actions[:, 0].tolist() == CHOSEN
    assert episode.actions[:, 0].tolist() == EXECUTED_VALUES
