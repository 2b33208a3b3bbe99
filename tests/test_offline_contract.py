"""Where an OfflineAlgorithm must behave as others of Stable-Baselines3 do: copies, spaces, buffers, a policy's file."""

from __future__ import annotations

import copy
import warnings

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from offline_data import STANDARDIZED, algorithm, assert_same, numbers, pendulum_data, states
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.td3.policies import TD3Policy

from offline_eval.datasets.arrays import from_arrays
from offline_eval.errors import AgentFileError, InputError, SpaceError
from offline_eval.policies import load_sb3, weaken
from offline_eval.policies.actors import StateGaussian
from offline_eval.policies.algorithm import OfflineAlgorithm
from offline_eval.policies.extraction import BestOfNExtraction
from offline_eval.policies.offline_policy import OfflinePolicy
from offline_eval.policies.recipes import Recipe
from offline_eval.policies.values import FittedQ, Implicit


@pytest.fixture(scope="module")
def dataset():
    return pendulum_data()


def without_spaces(dataset, factor=1.0):
    """The same data as a file has them that does not say its spaces."""
    return from_arrays(
        dataset.step_observations, dataset.actions * factor, dataset.rewards, dataset.terminated, dataset.truncated,
        dataset.transitions().next_observations,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ copies


def pickled(model):
    return cloudpickle.loads(cloudpickle.dumps(model))


RECIPES = {"iql": "iql", "td3_bc": "td3_bc", "standardized": STANDARDIZED}


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
@pytest.mark.parametrize("name", RECIPES)
def test_a_copy_goes_on_as_the_model_would_have_and_leaves_it_alone(dataset, name, copied):
    model = algorithm(RECIPES[name]).fit(dataset, 20)
    weights, actions = numbers(model), model.predict(states(), deterministic=True)[0]
    made = copied(model)
    np.testing.assert_array_equal(made.predict(states(), deterministic=True)[0], actions)

    made.fit(dataset, 50, reset_num_timesteps=False)
    np.testing.assert_array_equal(model.predict(states(), deterministic=True)[0], actions)
    assert_same(numbers(model), weights)

    model.fit(dataset, 50, reset_num_timesteps=False)
    assert_same(numbers(model), numbers(made))
    after = made.predict(states(), deterministic=True)[0]
    np.testing.assert_array_equal(after, model.predict(states(), deterministic=True)[0])
    assert np.abs(after - actions).max() > 1e-3
    observations, zeros = th.as_tensor(states()), th.zeros(64, 1)
    assert th.equal(made.critic(observations, zeros)[1], model.critic(observations, zeros)[1])


@pytest.mark.parametrize("env", [None, "Pendulum-v1"])
def test_a_copy_of_an_untrained_model_learns_what_the_model_would(dataset, env):
    model = algorithm("td3_bc", env)
    made = copy.deepcopy(model).fit(dataset, 20)
    assert model.num_timesteps == 0
    model.fit(dataset, 20)
    np.testing.assert_array_equal(made.predict(states())[0], model.predict(states())[0])


def test_a_copy_shares_the_data_and_may_be_made_while_the_run_goes_on(dataset):
    class Copy(BaseCallback):
        def _on_step(self):
            if self.num_timesteps == 10:
                self.copied = copy.deepcopy(self.model)
            return True

    look = Copy()
    model = algorithm(verbose=1).fit(dataset, 20, callback=look)
    assert_same(numbers(look.copied.fit(dataset, 10, reset_num_timesteps=False)), numbers(model))
    assert copy.deepcopy(model)._dataset is model._dataset


@pytest.mark.parametrize("env", [None, "Pendulum-v1"])
def test_a_weakened_model_is_a_copy_that_learns_by_itself(dataset, env):
    model = algorithm("td3_bc", env).fit(dataset, 20)
    weights, strong = numbers(model), model.predict(states())[0]
    weak = weaken(model, 0.5)
    actions, _ = weak.predict(states())
    assert np.abs(actions - strong).max() > 1e-3
    np.testing.assert_array_equal(copy.deepcopy(weak).predict(states())[0], actions)
    # So small a step changes nothing but what it begins from: the weak weights, in the standardised layer, too.
    weak.fit(dataset.select([0]), 2)
    np.testing.assert_allclose(weak.predict(states())[0], actions, atol=0.05)
    assert np.abs(weak.predict(states())[0] - actions).max() > 0
    np.testing.assert_array_equal(model.predict(states())[0], strong)
    assert_same(numbers(model), weights)


def test_a_copy_of_a_model_whose_policy_was_replaced_keeps_that_policy(dataset):
    model = algorithm().fit(dataset, 3)
    model.policy = pickled(model.policy)
    with th.no_grad():
        model.policy.actor.mu[0].weight.mul_(3.0)
    actions, _ = model.predict(states(), deterministic=True)
    np.testing.assert_array_equal(copy.deepcopy(model).predict(states(), deterministic=True)[0], actions)


# ------------------------------------------------------------------------------------------------ environments


class Precise(gym.Env):
    """Pendulum's spaces in float64."""

    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float64)
    action_space = spaces.Box(-2.0, 2.0, (1,), np.float64)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(3), {}

    def step(self, action):
        return np.zeros(3), 0.0, False, False, {}


def test_bounds_of_another_type_are_the_same_bounds(dataset, tmp_path):
    model = algorithm().fit(dataset, 6)
    before, _ = model.predict(states(), deterministic=True)
    model.set_env(Precise())
    model.learn(5)
    assert model.action_space == model.policy.action_space == model.actor.action_space == Precise.action_space
    model.fit(dataset, 1).save(tmp_path / "model.zip")
    assert OfflineAlgorithm.load(tmp_path / "model.zip", device="cpu").action_space == Precise.action_space
    again = algorithm().fit(dataset, 6)
    again.set_env(Precise())
    np.testing.assert_allclose(again.predict(states(), deterministic=True)[0], before, rtol=1e-6)


def test_inferred_bounds_that_are_the_environment_s_are_no_guess_any_more(dataset):
    actions = dataset.actions.copy()
    actions[:2] = [[-2.0], [1.999999]]  # as a policy that ends in tanh leaves them
    data = from_arrays(
        dataset.step_observations, actions, dataset.rewards, dataset.terminated, dataset.truncated,
        dataset.transitions().next_observations,
    )  # fmt: skip
    model = algorithm().fit(data, 3)
    assert model.assumed_action_space
    model.set_env("Pendulum-v1")
    assert model.action_space == gym.make("Pendulum-v1").action_space
    assert not model.assumed_action_space


def test_inferred_bounds_that_differ_name_the_way_out_also_from_the_file(dataset, tmp_path):
    model = algorithm().fit(without_spaces(dataset, 0.7), 3)
    model.save(tmp_path / "model.zip")
    loaded = OfflineAlgorithm.load(tmp_path / "model.zip", device="cpu")
    value = model.with_extraction(BestOfNExtraction(4), StateGaussian())
    for refused in (
        lambda: model.set_env("Pendulum-v1"),
        lambda: loaded.set_env("Pendulum-v1"),
        lambda: value.set_env("Pendulum-v1"),
        lambda: load_sb3(tmp_path / "model.zip", "Pendulum-v1"),
    ):
        with pytest.raises(SpaceError, match="inferred from their actions: train with --env, or give action_space"):
            refused()
    # Where the data said their bounds, these are no guess.
    algorithm().fit(dataset, 3).save(tmp_path / "stated.zip")
    scaled = gym.wrappers.RescaleAction(gym.make("Pendulum-v1"), np.float32(-1), np.float32(1))
    with pytest.raises(SpaceError, match="RescaleAction as in training"):
        load_sb3(tmp_path / "stated.zip", scaled)
    with pytest.raises(SpaceError, match=r"must have actions of .*the environment that the data were collected in"):
        OfflineAlgorithm.load(tmp_path / "stated.zip", env=scaled)


# ------------------------------------------------------------------------------------------------ buffers


def test_the_replay_buffer_is_saved_after_fit_and_learned_from_after_load(dataset, tmp_path):
    model = algorithm(buffer_size=400).fit(dataset, 6)
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    model.save(tmp_path / "model.zip")
    loaded = OfflineAlgorithm.load(tmp_path / "model.zip", env="Pendulum-v1", device="cpu")
    with pytest.raises(InputError, match="call fit, fill_buffer or learn"):
        loaded.save_replay_buffer(tmp_path / "other.pkl")
    loaded.load_replay_buffer(tmp_path / "buffer.pkl")
    assert isinstance(loaded.replay_buffer, ReplayBuffer)
    np.testing.assert_array_equal(
        loaded.replay_buffer.observations[: dataset.num_transitions, 0], dataset.transitions().observations
    )
    model.set_env("Pendulum-v1")
    assert_same(numbers(model.learn(5)), numbers(loaded.learn(5)))


def test_learning_from_an_empty_buffer_after_load_is_warned_of(dataset, tmp_path):
    algorithm(batch_size=2).fit(dataset, 3).save(tmp_path / "model.zip")
    model = OfflineAlgorithm.load(tmp_path / "model.zip", env="Pendulum-v1", device="cpu")
    with pytest.warns(UserWarning, match="begins empty.*fill_buffer.*fit.*load_replay_buffer"):
        model.learn(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(dataset, 1).learn(3)


# ------------------------------------------------------------------------------------------------ a policy's own file


@pytest.mark.parametrize("recipe", ["td3_bc", "iql", Recipe(Implicit(), BestOfNExtraction(4), actor=StateGaussian())])
def test_a_policy_s_own_file_acts_the_same(dataset, tmp_path, recipe):
    model = algorithm(recipe).fit(dataset, 20)
    model.policy.save(tmp_path / "policy.pth")
    policy = OfflinePolicy.load(tmp_path / "policy.pth", device="cpu")
    for deterministic in (True, False):
        ours, _ = policy.predict(states(), deterministic=deterministic)
        np.testing.assert_array_equal(ours, model.predict(states(), deterministic=deterministic)[0])
    plain = TD3Policy.load(tmp_path / "policy.pth", device="cpu")
    assert th.equal(plain.actor.mu[0].weight, model.actor.mu[0].weight)


def test_the_file_of_another_policy_and_of_a_critic_alone(dataset, tmp_path, tiny_td3):
    tiny_td3.policy.save(tmp_path / "td3.pth")
    with pytest.raises(AgentFileError, match=r"OfflinePolicy\.save wrote"):
        OfflinePolicy.load(tmp_path / "td3.pth")
    model = algorithm(Recipe(FittedQ(tiny_td3), None)).fit(dataset, 3)
    model.policy.save(tmp_path / "critic.pth")
    with pytest.raises(InputError, match="learns a critic alone"):
        OfflinePolicy.load(tmp_path / "critic.pth", device="cpu").predict(states())
