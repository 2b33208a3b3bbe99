"""Agents that others trained, years ago, with other versions: they open, and return what they are known to return."""

from __future__ import annotations

import numpy as np
import pytest

from offline_eval import EpisodePlan, MultiplyAction, critic_of, evaluate, load_sb3
from offline_eval.steering.steering import steer, steering_variants
from offline_eval.wrappers import BestOfN

# file, environment, mean and standard deviation of the returns over the seeds 1000 to 1009 (../shared/README.md)
KNOWN = [
    ("sac-Hopper-v3", "Hopper-v5", 1107, 22),
    ("sac-HalfCheetah-v3", "HalfCheetah-v5", 9442, 76),
    ("sac-Pendulum-v1", "Pendulum-v1", -170, 90),
    ("ddpg-Pendulum-v1", "Pendulum-v1", -178, 102),
    ("tqc-MountainCarContinuous-v0", "MountainCarContinuous-v0", 76, 38),
    ("ppo-Hopper-v3", "Hopper-v5", 2438, 5),
    ("dqn-CartPole-v1", "CartPole-v1", 500, 0),
]
PLAN = EpisodePlan.seeded(10, seed=1000)


def opened(folder, name, env):
    statistics = folder / f"{name}.vecnormalize.pkl"
    return load_sb3(folder / f"{name}.zip", env, normalize=statistics if statistics.exists() else None)


@pytest.mark.parametrize(("name", "env", "mean", "spread"), KNOWN, ids=[known[0] for known in KNOWN])
def test_an_agent_returns_what_it_is_known_to_return(shared_agents, name, env, mean, spread):
    result = evaluate(opened(shared_agents, name, env), env, PLAN, n_envs=10)
    assert not result.failures
    # The same seeds: what is left is rounding, which a chaotic environment amplifies within the spread of its returns.
    assert result.summary.mean == pytest.approx(mean, abs=max(1.0, spread))
    assert result.weights_hash[0] == result.weights_hash[1]


def test_steering_a_wrong_critic_is_shown_as_harm(shared_agents):
    env = "MountainCarContinuous-v0"
    model = opened(shared_agents, "tqc-MountainCarContinuous-v0", env)
    variants = steering_variants(critic_of(model), [0.2], controls=("random",))
    plain, opex, control = steer(model, env, variants, EpisodePlan.seeded(20, seed=1000), n_envs=10)
    assert opex.paired.ci95.high < 0
    assert opex.paired.mean_difference == pytest.approx(-70, abs=30)
    assert opex.paired.wins == 0
    assert plain.paired is None
    assert control.against_control is None


def test_best_of_n_and_multiplied_actions_play_on_a_real_agent(shared_agents):
    model = opened(shared_agents, "sac-Pendulum-v1", "Pendulum-v1")
    plan = EpisodePlan.seeded(3, seed=1000)
    plain = evaluate(model, "Pendulum-v1", plan)
    for rule in (BestOfN(critic_of(model), 8), MultiplyAction(1.1)):
        result = evaluate(model, "Pendulum-v1", plan, rule=rule)
        assert np.all(result.returns != plain.returns)
        assert result.steering["displacement"] > 0
