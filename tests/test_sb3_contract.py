"""What Stable-Baselines3 promises of every algorithm, asked of ours: its files, callbacks, `predict` and seeds."""

import copy

import gymnasium as gym
import numpy as np
import pytest
from offline_data import STANDARDIZED, algorithm, assert_same, numbers, pendulum_data, states
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import VecFrameStack, VecNormalize

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


# ------------------------------------------------------------------------------------------------ files


def test_what_is_said_when_loading_replaces_the_file_s_words(dataset, tmp_path):
    noise = NormalActionNoise(np.zeros(1), np.ones(1))
    algorithm("td3_bc", gamma=0.9).fit(dataset, 3).save(tmp_path / "model")
    objects = {"learning_rate": 0.25, "action_noise": noise, "lr_schedule": None, "clip_range": 0.2}
    loaded = OfflineAlgorithm.load(tmp_path / "model", custom_objects=objects, batch_size=7)
    assert (loaded.learning_rate, loaded.gamma, loaded.batch_size) == (0.25, 0.9, 7)
    assert loaded.action_noise is noise
    assert not hasattr(loaded, "clip_range")
    loaded.fit(dataset, 3, reset_num_timesteps=False)
    assert loaded.learner.learning_rates["value"] == 0.25


def test_the_versions_of_a_file_are_printed(dataset, tmp_path, capsys):
    algorithm("td3_bc").fit(dataset, 3).save(tmp_path / "model")
    OfflineAlgorithm.load(tmp_path / "model")
    assert capsys.readouterr().out == ""
    OfflineAlgorithm.load(tmp_path / "model", print_system_info=True)
    here, there = capsys.readouterr().out.split("== SAVED MODEL SYSTEM INFO ==")
    assert f"Numpy: {np.__version__}" in here
    assert f"numpy: {np.__version__}" in there


def test_a_file_is_opened_with_its_environment_and_goes_on_there(dataset, tmp_path):
    model = algorithm("iql_ddpg_bc", env=online(1), learning_starts=0).fit(dataset, 3)
    model.learn(4).save(tmp_path / "model")
    loaded = OfflineAlgorithm.load(tmp_path / "model", env=online(2))
    assert loaded.n_envs == loaded.get_env().num_envs == 2
    loaded.fill_buffer(dataset)
    loaded.learn(6, reset_num_timesteps=False)
    assert (loaded.num_timesteps, loaded._total_timesteps) == (10, 10)
    loaded.learn(6)
    assert loaded.num_timesteps == 6
    with pytest.raises(ValueError, match="must have observations of"):
        OfflineAlgorithm.load(tmp_path / "model", env="MountainCarContinuous-v0")


# ------------------------------------------------------------------------------------------------ callbacks


class Steps(BaseCallback):
    """The steps at which it was called, and what it may know of the run."""

    def __init__(self):
        super().__init__()
        self.seen, self.began, self.ended = [], 0, 0

    def _on_training_start(self):
        self.began += 1

    def _on_step(self):
        assert self.training_env is self.model.get_env()
        self.seen.append(self.num_timesteps)
        return True

    def _on_training_end(self):
        self.ended += 1


def ways_to_train(dataset):
    """By name, what makes 12 steps of a run with a callback."""
    offline = algorithm("iql_ddpg_bc")
    both = algorithm("iql_ddpg_bc", env=online(1), learning_starts=0).fit(dataset, 2)
    return {
        "fit": lambda callback: offline.fit(dataset, 12, callback),
        "learn": lambda callback: both.learn(12, callback),
    }


def short():
    return Monitor(gym.make("Pendulum-v1", max_episode_steps=10))


@pytest.mark.parametrize("way", ["fit", "learn"])
def test_the_callbacks_of_sb3_do_what_they_do_there(dataset, tmp_path, way):
    train = ways_to_train(dataset)[way]
    steps, rare = Steps(), Steps()
    evaluated = EvalCallback(
        short(), n_eval_episodes=2, eval_freq=5, log_path=tmp_path, best_model_save_path=tmp_path, verbose=0
    )
    callbacks = [steps, EveryNTimesteps(6, rare), CheckpointCallback(4, tmp_path / "kept", "at"), evaluated]
    model = train(CallbackList(callbacks))
    assert steps.seen == list(range(1, 13))
    assert (steps.began, steps.ended) == (1, 1)
    assert rare.seen == [6, 12]
    assert sorted(file.name for file in (tmp_path / "kept").iterdir()) == [
        "at_12_steps.zip", "at_4_steps.zip", "at_8_steps.zip"
    ]  # fmt: skip
    with np.load(tmp_path / "evaluations.npz") as log:
        assert log["timesteps"].tolist() == [5, 10]
        assert evaluated.best_mean_reward == log["results"].mean(axis=1).max()
    last = OfflineAlgorithm.load(tmp_path / "kept" / "at_12_steps", device="cpu")
    assert last.num_timesteps == 12
    if way == "fit":  # online, SB3 calls back before the gradient steps of a step
        assert_same(numbers(last), numbers(model))
    assert OfflineAlgorithm.load(tmp_path / "best_model").num_timesteps in (5, 10)


@pytest.mark.parametrize("way", ["fit", "learn"])
@pytest.mark.parametrize(("threshold", "stops_at"), [(-1e6, 5), (0.0, 12)])
def test_a_reward_that_is_good_enough_ends_the_run(dataset, way, threshold, stops_at):
    good_enough = StopTrainingOnRewardThreshold(threshold)
    callback = EvalCallback(short(), good_enough, n_eval_episodes=1, eval_freq=5, verbose=0)
    assert ways_to_train(dataset)[way](callback).num_timesteps == stops_at


@pytest.mark.parametrize("way", ["fit", "learn"])
def test_a_function_and_a_list_are_callbacks(dataset, way):
    calls, steps = [], Steps()

    def stop_at_three(variables, _):
        calls.append(variables)
        return len(calls) < 3

    assert ways_to_train(dataset)[way](stop_at_three).num_timesteps == 3
    assert ways_to_train(dataset)[way]([steps]).num_timesteps == len(steps.seen) == 12


def test_the_number_of_episodes_ends_online_learning(dataset):
    model = algorithm("iql_ddpg_bc", env=short(), learning_starts=0).fit(dataset, 2)
    assert model.learn(1000, StopTrainingOnMaxEpisodes(2)).num_timesteps == 20


# ------------------------------------------------------------------------------------------------ normalised


def test_a_moving_normaliser_is_refused_wherever_it_is(dataset, tmp_path):
    normalised = VecNormalize(online(1))
    model = algorithm("iql_ddpg_bc").fit(dataset, 3)
    model.save(tmp_path / "model")
    for refused in (
        lambda: algorithm("iql_ddpg_bc", env=normalised),
        lambda: model.set_env(VecFrameStack(normalised, 1)),
        lambda: OfflineAlgorithm.load(tmp_path / "model", env=normalised),
    ):
        with pytest.raises(ValueError, match=r"must not be a VecNormalize.*Standardize"):
            refused()
    assert model.get_vec_normalize_env() is None


# ------------------------------------------------------------------------------------------------ predict


@pytest.mark.parametrize("recipe", [*RECIPES, STANDARDIZED, "iql"])
def test_one_observation_and_a_batch_have_the_same_actions(dataset, recipe):
    model = algorithm(recipe).fit(dataset, 20)
    many, _ = model.predict(states(8), deterministic=True)
    assert (many.shape, many.dtype) == ((8, 1), np.float32)
    assert np.ptp(many) > 0
    for row, action in zip(states(8), many, strict=True):
        one, _ = model.predict(row, deterministic=True)
        assert one.shape == (1,)
        np.testing.assert_allclose(one, action, atol=1e-6)
    np.testing.assert_array_equal(model.predict(states(8).astype(np.float64), deterministic=True)[0], many)
    np.testing.assert_array_equal(model.predict(states(8).tolist(), deterministic=True)[0], many)


def test_the_mean_is_repeated_and_samples_are_not(dataset):
    model = algorithm("iql").fit(dataset, 3)
    (one, _), (other, _) = (model.predict(states(), deterministic=True) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    drawn = np.stack([model.predict(states())[0] for _ in range(40)])
    assert drawn.std(axis=0).min() > 0
    assert np.abs(drawn).max() <= 2.0
    certain = algorithm("td3_bc").fit(dataset, 3)
    np.testing.assert_array_equal(certain.predict(states())[0], certain.predict(states(), deterministic=True)[0])


def test_the_state_of_a_recurrent_caller_passes_through(dataset):
    model, state = algorithm("td3_bc").fit(dataset, 3), (np.arange(3),)
    assert model.predict(states(1), state=state, episode_start=np.ones(1, bool))[1] is state
    assert model.predict(states(1))[1] is None


def test_flat_observations_alone_are_accepted(dataset):
    """Wrong shapes and kinds are refused as SB3 refuses them, not broadcast."""
    model = algorithm("td3_bc").fit(dataset, 3)
    for wrong in (np.zeros((4, 5), np.float32), np.zeros(4, np.float32), np.float32(0.0)):
        with pytest.raises(ValueError, match="Unexpected observation shape"):
            model.predict(wrong)
    with pytest.raises(AssertionError, match="observation provided is a dict"):
        model.predict({"observation": states(1)})
    with pytest.raises(ValueError, match="passed a tuple to the predict"):
        model.predict((states(1)[0], {}))


# ------------------------------------------------------------------------------------------------ seeds


@pytest.mark.parametrize("recipe", [*RECIPES, "iql", STANDARDIZED])
def test_one_seed_is_one_run_to_the_last_bit(dataset, recipe):
    def fitted(seed):
        np.random.seed(None)  # what others draw has no part in it
        return numbers(algorithm(recipe, seed=seed).fit(dataset, 10))

    one, again, other = fitted(0), fitted(0), fitted(1)
    assert_same(one, again)
    differ = [name for name in one if one[name].numel() > 1 and not np.array_equal(one[name], other[name])]
    assert len(differ) > len(one) // 2


def test_one_seed_is_one_run_online_too(dataset):
    def learned(seed):
        words = {"learning_starts": 4, "action_noise": NormalActionNoise(np.zeros(1), np.ones(1))}
        return numbers(algorithm("td3_bc", env=online(1), seed=seed, **words).fit(dataset, 3).learn(20))

    one, again, other = learned(0), learned(0), learned(1)
    assert_same(one, again)
    assert any(not np.array_equal(one[name], other[name]) for name in one)
