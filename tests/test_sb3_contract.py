"""What Stable-Baselines3 promises of every algorithm, asked of ours: parameters, saving, and the replay buffer."""

import copy

import numpy as np
import pytest
from offline_data import algorithm, assert_same, numbers, pendulum_data
from stable_baselines3.common.env_util import make_vec_env

from offline_eval.policies import OfflineAlgorithm

RECIPES = ["iql_ddpg_bc", "td3_bc"]


@pytest.fixture(scope="module")
def dataset():
    return pendulum_data()


@pytest.mark.parametrize("recipe", RECIPES)
def test_parameters_come_back_as_they_were(dataset, recipe):
    model, other = (algorithm(recipe, seed=seed).fit(dataset, 3) for seed in (0, 1))
    other.set_parameters(model.get_parameters(), exact_match=True)
    for name, value in model.policy.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), other.policy.state_dict()[name].numpy())


@pytest.mark.parametrize("exact_match", [True, False])
def test_an_unknown_object_is_refused(dataset, exact_match):
    model = algorithm("td3_bc").fit(dataset, 3)
    before, parameters = numbers(model), copy.deepcopy(model.get_parameters())
    parameters["no_such_object"] = "and no tensor"
    with pytest.raises(ValueError, match="no_such_object"):
        model.set_parameters(parameters, exact_match=exact_match)
    assert_same(before, numbers(model))


def test_a_missing_object_or_weight_is_refused_where_the_match_must_be_exact(dataset):
    model = algorithm("td3_bc").fit(dataset, 3)
    parameters = copy.deepcopy(model.get_parameters())
    for name in parameters:
        rest = {key: value for key, value in parameters.items() if key != name}
        with pytest.raises(ValueError, match=r"must have policy, actor.optimizer, critic.optimizer and nothing else"):
            model.set_parameters(rest, exact_match=True)
        model.set_parameters(rest, exact_match=False)
    del parameters["policy"][next(iter(parameters["policy"]))]
    with pytest.raises(RuntimeError, match="Missing key"):
        model.set_parameters(parameters, exact_match=True)
    model.set_parameters(parameters, exact_match=False)


def test_what_is_excluded_gets_its_default(dataset, tmp_path):
    model = algorithm("td3_bc", verbose=2, gamma=0.9).fit(dataset, 3)
    model.save(tmp_path / "without", exclude=["verbose"])
    loaded = OfflineAlgorithm.load(tmp_path / "without")
    assert (loaded.verbose, loaded.gamma) == (0, 0.9)
    model.save(tmp_path / "with", exclude=["verbose"], include=["verbose"])
    assert OfflineAlgorithm.load(tmp_path / "with").verbose == 2


def online(n_envs):
    return make_vec_env("Pendulum-v1", n_envs, seed=0)


def test_a_loaded_replay_buffer_survives_the_environments_it_is_of(dataset, tmp_path):
    model = algorithm("iql_ddpg_bc", env=online(2), learning_starts=0).fit(dataset, 3)
    model.learn(10)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    loaded = OfflineAlgorithm.load(tmp_path / "model")
    loaded.load_replay_buffer(tmp_path / "buffer")
    loaded.set_env(online(2))
    assert loaded.replay_buffer.size() == model.replay_buffer.size() > 0
    with pytest.raises(ValueError, match=r"as many environments as the replay buffer \(2\)"):
        loaded.set_env(online(3))
    assert loaded.n_envs == 2
    loaded.learn(4)


def test_a_buffer_of_the_data_alone_is_filled_anew_for_more_environments(dataset):
    model = algorithm("iql_ddpg_bc", env=online(1), learning_starts=0).fit(dataset, 3)
    model._fill_replay_buffer()
    model.set_env(online(2))
    model.learn(4)
    assert model.replay_buffer.n_envs == 2
    assert model.replay_buffer.size() * 2 >= dataset.num_transitions
