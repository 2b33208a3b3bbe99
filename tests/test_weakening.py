"""An agent made worse on purpose: the actor changes, the critic and the caller's model do not."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from sb3_contrib import TQC
from stable_baselines3 import DQN, PPO, SAC, TD3

from offline_eval.episodes import EpisodePlan, evaluate
from offline_eval.errors import InputError, SpaceError
from offline_eval.policies import critic_of, weights_hash
from offline_eval.policies.weakening import weaken
from offline_eval.wrappers.controls import UniformAction


def made(algorithm, **words):
    return algorithm("MlpPolicy", "Pendulum-v1", seed=0, policy_kwargs={"net_arch": [8]}, device="cpu", **words)


@pytest.fixture(scope="module")
def observations():
    env = gym.make("Pendulum-v1")
    return np.stack([env.observation_space.sample() for _ in range(5)])


@pytest.mark.parametrize(("algorithm", "words"), [(SAC, {}), (SAC, {"use_sde": True}), (TD3, {}), (TQC, {}), (PPO, {})])
def test_the_copy_acts_otherwise_and_the_model_as_before(algorithm, words, observations):
    model = made(algorithm, **words)
    before, actions = weights_hash(model), model.predict(observations, deterministic=True)[0]
    weak = weaken(model, 0.5, seed=1)
    assert not np.allclose(weak.predict(observations, deterministic=True)[0], actions)
    assert weights_hash(model) == before != weights_hash(weak)
    np.testing.assert_array_equal(model.predict(observations, deterministic=True)[0], actions)


def test_no_strength_changes_no_bit_and_a_seed_repeats_itself(observations):
    model = made(SAC)
    assert weights_hash(weaken(model, 0.0)) == weights_hash(model)
    assert weights_hash(weaken(model, 0.1, seed=3)) == weights_hash(weaken(model, 0.1, seed=3))
    assert weights_hash(weaken(model, 0.1, seed=3)) != weights_hash(weaken(model, 0.1, seed=4))


def test_noise_is_as_large_as_asked_next_to_the_weights():
    model = made(SAC, learning_rate=1e-3)
    weak = weaken(model, 0.25)
    old, new = model.actor.latent_pi[0].weight, weak.actor.latent_pi[0].weight
    assert ((new - old).square().mean() / old.square().mean()).sqrt().item() == pytest.approx(0.25, rel=0.35)
    th.testing.assert_close(weak.actor.log_std.weight, model.actor.log_std.weight, rtol=0, atol=0)


def test_the_critic_stays_as_good_as_it_was(observations):
    model = made(SAC)
    seen, actions = th.as_tensor(observations), th.zeros(5, 1)
    before = critic_of(model).q(seen, actions)
    th.testing.assert_close(critic_of(weaken(model, 0.5)).q(seen, actions), before, rtol=0, atol=0)


def test_what_has_no_actor_is_refused():
    with pytest.raises(InputError, match="actor"):
        weaken(DQN("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [8]}), 0.1)
    with pytest.raises(InputError, match="SB3 algorithm"):
        weaken(object(), 0.1)
    for strength in (-0.1, float("nan")):
        with pytest.raises(InputError, match="strength"):
            weaken(made(SAC), strength)


def test_chance_draws_from_the_whole_box_whatever_the_policy():
    model, plan = made(TD3), EpisodePlan.seeded(2)
    rule = UniformAction()
    drawn = rule(th.zeros(4000, 3), th.zeros(4000, 1), th.randn(4000, 1, generator=th.Generator().manual_seed(0)))
    assert drawn.actions.min() < -0.99
    assert drawn.actions.max() > 0.99
    assert drawn.actions.mean() == pytest.approx(0.0, abs=0.03)
    assert drawn.actions.square().mean() == pytest.approx(1 / 3, abs=0.02)
    chance = evaluate(model, "Pendulum-v1", plan, rule=rule, step_limit=20)
    other = evaluate(weaken(model, 1.0), "Pendulum-v1", plan, rule=rule, step_limit=20)
    np.testing.assert_array_equal(chance.returns, other.returns)
    with pytest.raises(SpaceError, match="bounded"):
        rule.check(None, gym.spaces.Box(-np.inf, np.inf, (1,)))
