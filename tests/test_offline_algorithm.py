"""OfflineAlgorithm: its data, its actions, its contract with SB3, and what is refused."""

from __future__ import annotations

import csv

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from offline_data import STANDARDIZED, algorithm, assert_same, numbers, pendulum_data, states
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from offline_eval.datasets.arrays import from_arrays, from_trajectories
from offline_eval.errors import DatasetError, InputError, NonFiniteLoss, SpaceError
from offline_eval.policies import load_sb3
from offline_eval.policies.actors import Gaussian, StateGaussian, TanhGaussian
from offline_eval.policies.algorithm import OfflineAlgorithm
from offline_eval.policies.extraction import AWRExtraction, BCExtraction, BestOfNExtraction, DDPGBCExtraction
from offline_eval.policies.recipes import Recipe
from offline_eval.policies.sampling import BufferRows, DatasetRows, Sampler, Transform
from offline_eval.policies.values import ActorCritic, FittedQ, Implicit, OneStep

CPU = th.device("cpu")


@pytest.fixture(scope="module")
def dataset():
    return pendulum_data()


@pytest.fixture(scope="module")
def other_dataset():
    return pendulum_data(seed=1)


# ------------------------------------------------------------------------------------------------ data


def rows_of(dataset, rule=None):
    return DatasetRows(dataset, rule, Transform(None, 1.0, CPU), CPU)


def test_rows_are_the_data_set_s_transitions_scaled(dataset):
    expected, rows = dataset.transitions(), rows_of(dataset)
    batch = rows.gather(np.arange(len(rows)))
    np.testing.assert_array_equal(batch.observations, expected.observations)
    np.testing.assert_array_equal(batch.next_observations, expected.next_observations)
    np.testing.assert_allclose(batch.actions, expected.actions / 2.0, atol=1e-6)  # Pendulum's box is [-2, 2]
    np.testing.assert_allclose(batch.next_actions, expected.next_actions / 2.0, atol=1e-6)
    np.testing.assert_array_equal(batch.rewards, expected.rewards)
    np.testing.assert_array_equal(batch.masks, np.ones(len(rows)))  # cut by a time limit, never terminated


def three_steps(ends):
    """Two trajectories of three steps whose last steps are as `ends` says."""
    last = np.array([False, False, True])
    observations = np.arange(8.0).reshape(2, 4, 1)
    return from_trajectories(
        [
            {
                "observations": observations[i], "actions": np.full((3, 1), 0.1 * i), "rewards": np.arange(3.0),
                "terminated": last & (end == "terminated"), "truncated": last & (end == "truncated"),
            }
            for i, end in enumerate(ends)
        ]
    )  # fmt: skip


def test_sarsa_leaves_out_what_has_no_next_action():
    data = three_steps(["truncated", "terminated"])
    assert len(rows_of(data, Implicit())) == 6
    sarsa = rows_of(data, OneStep())
    assert len(sarsa) == 5
    assert sarsa.transitions(np.arange(5)) == [0, 1, 3, 4, 5]
    assert sarsa.gather(np.arange(5)).masks.tolist() == [1, 1, 1, 1, 0]


def test_fitted_q_asks_the_policy_about_each_next_observation():
    class Tenth:
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return 0.1 * observation, None

    rows = rows_of(three_steps(["truncated", "terminated"]), FittedQ(Tenth()))
    batch = rows.gather(np.array([0, 2, 5]))
    np.testing.assert_allclose(batch.next_actions, 0.1 * batch.next_observations)
    assert batch.next_observations.flatten().tolist() == [1.0, 3.0, 7.0]


def test_actions_outside_the_box_lie_on_its_side():
    data = from_arrays(np.zeros((2, 1)), np.array([[1.3], [-7.0]]), np.zeros(2), np.array([False, True]))
    assert rows_of(data).gather(np.array([0])).actions.tolist() == [[1.0]]


def test_the_sampler_names_the_batch_that_it_gave(dataset):
    rows = rows_of(dataset)
    sampler = Sampler(rows, seed=3, batch_size=8, noise_shape=(1,), device=CPU)
    for number in (0, 31, 32, 5):
        batch, noise = sampler.batch(number)
        assert th.equal(batch.observations, rows.gather(sampler.indices(number)).observations)
        assert noise.shape == (8, 1)
    assert not np.array_equal(sampler.indices(0), sampler.indices(1))


def test_a_read_only_map_of_a_file_trains(dataset, tmp_path):
    actions = np.lib.format.open_memmap(tmp_path / "actions.npy", "w+", np.float32, dataset.actions.shape)
    actions[:] = dataset.actions
    mapped = from_arrays(
        dataset.step_observations, np.load(tmp_path / "actions.npy", mmap_mode="r"), dataset.rewards,
        dataset.terminated, dataset.truncated, dataset.transitions().next_observations,
        observation_space=dataset.observation_space, action_space=dataset.action_space,
    )  # fmt: skip
    for array in (mapped.store.actions, mapped.store.rewards, mapped.store.observations):
        array.setflags(write=False)
    assert_same(numbers(algorithm().fit(dataset, 3)), numbers(algorithm().fit(mapped, 3)))


# ------------------------------------------------------------------------------------------------ acting


def test_it_acts_in_the_environment_s_units_and_one_by_one_as_in_a_batch(dataset):
    for name in ("bc", "iql", "iql_sfbc"):
        model = algorithm(name).fit(dataset, 200)
        batch, _ = model.predict(states(), deterministic=True)
        alone = np.stack([model.predict(state, deterministic=True)[0] for state in states()])
        np.testing.assert_allclose(batch, alone, atol=1e-4)
        np.testing.assert_array_equal(batch, model.predict(states(), deterministic=True)[0])
        drawn, _ = model.predict(np.repeat(states(1), 500, 0), deterministic=False)
        assert (np.ptp(drawn) > 0.1) == (name != "bc")
        assert np.abs(drawn).max() <= 2.0


def test_best_of_n_is_worth_more_to_its_critic_than_one_sample(dataset):
    model = algorithm(Recipe(Implicit(), BestOfNExtraction(16), actor=Gaussian())).fit(dataset, 100)
    single = algorithm(Recipe(Implicit(), BestOfNExtraction(1), actor=Gaussian()))
    single.fit(dataset, 1).set_parameters(model.get_parameters())
    worth = []
    for chooser in (model, single):
        actions = th.as_tensor(chooser.predict(states(400))[0] / 2.0, dtype=th.float32)
        with th.no_grad():
            worth.append(th.cat(model.critic_target(th.as_tensor(states(400)), actions), 1).amin(1).mean().item())
    assert worth[0] > worth[1]


def test_the_policy_is_an_actor(dataset):
    model = algorithm(Recipe(None, BCExtraction(), actor=StateGaussian())).fit(dataset, 3)
    observations = th.as_tensor(states(5))
    mean = model.policy.mean(observations)
    th.testing.assert_close(model.policy.sample(observations, th.zeros(5, 1)), mean)
    assert model.policy.log_prob(observations, mean.detach()).shape == (5,)


def test_a_critic_alone_does_not_act(dataset, tiny_td3):
    model = algorithm(Recipe(FittedQ(tiny_td3), None)).fit(dataset, 3)
    with pytest.raises(InputError, match="learns a critic alone"):
        model.predict(states())


# ------------------------------------------------------------------------------------------------ decoupled


def test_value_and_policy_can_be_learned_apart(dataset, other_dataset):
    model = algorithm(Recipe(Implicit(), AWRExtraction()))
    model.fit_value(dataset, 5)
    after_value = numbers(model)
    model.extract(other_dataset, 5)
    after_policy = numbers(model)
    changed = {name for name in after_value if not th.equal(after_value[name], after_policy[name])}
    assert {name.partition(".")[0] for name in changed} == {"actor", "target_actor"}
    assert model.fingerprints == {"value": dataset.fingerprint, "policy": other_dataset.fingerprint}
    fresh = numbers(algorithm(Recipe(Implicit(), AWRExtraction())).fit_value(dataset, 5))
    assert_same({n: v for n, v in fresh.items() if n[0] == "a"}, {n: v for n, v in after_value.items() if n[0] == "a"})


def test_several_policies_from_one_value(dataset):
    model = algorithm(STANDARDIZED).fit_value(dataset, 10)
    policies = [
        model.with_extraction(extraction, actor).extract(dataset, 10)
        for extraction, actor in (
            (AWRExtraction(), Gaussian()),
            (DDPGBCExtraction(), None),
            (BestOfNExtraction(4), StateGaussian()),
        )
    ]
    observations, actions = th.as_tensor(states(8)), th.zeros(8, 1)
    for policy in policies:
        assert th.equal(policy.critic(observations, actions)[0], model.critic(observations, actions)[0])
    assert not np.array_equal(policies[0].predict(states())[0], policies[1].predict(states())[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, d: m("td3_bc").fit_value(d, 3), "its value follows the policy: call fit"),
        (lambda m, d: m("bc").fit_value(d, 3), "must have a value that is learned by itself"),
        (lambda m, d: m("iql").extract(d, 3), "call fit_value first"),
        (lambda m, d: m("fqe").extract(d, 3), "must have an extraction"),
        (lambda m, d: m("fqe").fit(d, 3), r"FittedQ\(policy=agent\)"),
        (lambda m, d: m("iql").fit(d, 0), "`gradient_steps` must be a whole number >= 1"),
        (lambda m, d: m("iql").save("nowhere"), "call fit first"),
        (lambda m, d: m("iql").learn(3), "`env` must be given to learn online"),
        (lambda m, d: m("iql", "Pendulum-v1").learn(3), "must have seen a data set"),
        (lambda m, d: m("onestep", "Pendulum-v1").fit(d, 1).learn(3), "from a value that new steps improve"),
        (lambda m, d: m("bc", "Pendulum-v1").fit(d, 1).learn(3), "from a value that new steps improve"),
        (lambda m, d: m("iql").fit(d, 1).learn(3), "`env` must be given to learn online"),
    ],
)
def test_calls_in_the_wrong_order_say_what_comes_first(dataset, call, message):
    with pytest.raises(InputError, match=message):
        call(algorithm, dataset)


# ------------------------------------------------------------------------------------------------ the SB3 contract


def test_it_works_from_data_alone_and_then_in_an_environment(dataset):
    model = algorithm("bc").fit(dataset, 20)
    mean, _ = evaluate_policy(model, gym.make("Pendulum-v1", max_episode_steps=20), 2, warn=False)
    assert -400 < mean < 0
    model.set_env("Pendulum-v1")
    assert model.get_env().num_envs == 1


def test_callbacks_are_called_every_step_and_may_stop(dataset, tmp_path):
    seen = []

    def count(local_variables, global_variables):
        seen.append(1)
        return len(seen) < 5

    assert algorithm().fit(dataset, 20, callback=count).num_timesteps == 5
    env = gym.make("Pendulum-v1", max_episode_steps=5)
    evaluation = EvalCallback(DummyVecEnv([lambda: env]), eval_freq=4, n_eval_episodes=1, verbose=0, warn=False)
    algorithm("bc").fit(dataset, 9, callback=evaluation)
    assert (evaluation.n_calls, evaluation.last_mean_reward < 0) == (9, True)


def test_losses_and_validation_are_logged(dataset, other_dataset, tmp_path, capsys):
    model = algorithm()
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.fit(dataset, 20, validation=other_dataset, log_interval=10, progress_bar=True)
    model.logger.close()
    with (tmp_path / "progress.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["time/total_timesteps"] for row in rows] == ["10", "20"]
    for name in ("critic/td_loss", "value/loss", "actor/loss", "validation/critic/td_loss", "validation/actor/loss"):
        assert np.isfinite(float(rows[-1][name]))
        assert model.last_metrics[name] == pytest.approx(float(rows[-1][name]), rel=1e-4)
    assert float(rows[-1]["time/gradient_steps_per_second"]) > 0
    assert "20/20" in capsys.readouterr().err


def test_the_schedules_are_followed(dataset):
    rates = []

    class Look(BaseCallback):
        def _on_step(self):
            rates.append(list(self.model.learner.learning_rates.values()))
            return True

    algorithm("iql", learning_rate=lambda remaining: 1e-3 * remaining).fit(dataset, 4, callback=Look())
    np.testing.assert_allclose([critic for critic, _ in rates], [1e-3, 7.5e-4, 5e-4, 2.5e-4])
    cosine = 0.5 * (1 + np.cos(np.pi * np.arange(4) / 4))
    np.testing.assert_allclose([actor / critic for critic, actor in rates], cosine)


# ------------------------------------------------------------------------------------------------ online


@pytest.mark.parametrize("n_envs", [1, 3])
def test_learning_goes_on_online_from_the_data(dataset, n_envs):
    env = make_vec_env("Pendulum-v1", n_envs, env_kwargs={"max_episode_steps": 10})
    noise = NormalActionNoise(np.zeros(1), 0.1 * np.ones(1))
    model = algorithm("td3_bc", env, action_noise=noise).fit(dataset, 6)
    before = numbers(model)
    model.learn(30)
    buffer, filled = model.replay_buffer, dataset.num_transitions // n_envs
    assert buffer.pos == filled + 30 // n_envs
    assert model._n_updates == 6 + 30 // n_envs
    assert not th.equal(before["actor.0"], numbers(model)["actor.0"])
    expected = dataset.transitions()
    np.testing.assert_allclose(
        buffer.actions[:filled].reshape(-1, 1), expected.actions[: filled * n_envs] / 2.0, atol=1e-6
    )
    np.testing.assert_array_equal(
        buffer.next_observations[:filled].reshape(-1, 3), expected.next_observations[: filled * n_envs]
    )
    # Ten steps an episode, all cut by the time limit: the data's and the new ones bootstrap.
    assert buffer.dones[filled:].sum() == 30 // 10
    rows = BufferRows(buffer, model.transform, CPU)
    everything = rows.gather(np.arange(len(rows)))
    assert everything.masks.min() == 1.0
    np.testing.assert_allclose(
        everything.observations[0], (expected.observations[0] - model.transform.standard.mean)
        / model.transform.standard.scale, rtol=1e-4, atol=1e-5,
    )  # fmt: skip


def test_a_terminated_step_in_the_buffer_does_not_bootstrap():
    class TwoSteps(gym.Env):
        observation_space = spaces.Box(-1, 1, (1,))
        action_space = spaces.Box(-1, 1, (1,))

        def reset(self, seed=None, options=None):
            super().reset(seed=seed)
            self.steps = 0
            return np.zeros(1, np.float32), {}

        def step(self, action):
            self.steps += 1
            return np.zeros(1, np.float32), 0.0, self.steps == 2, False, {}

    data = three_steps(["truncated", "terminated"]).for_spaces(TwoSteps.observation_space, None)
    model = algorithm("td3_bc", TwoSteps(), batch_size=2).fit(data, 2).learn(4)
    rows = BufferRows(model.replay_buffer, model.transform, CPU)
    assert rows.gather(np.arange(10)).masks.tolist() == [1, 1, 1, 1, 1, 0, 1, 0, 1, 0]


def test_a_loaded_model_learns_online_with_the_data_given_again(dataset, tmp_path):
    algorithm("iql").fit(dataset, 6).save(tmp_path / "model.zip")
    model = OfflineAlgorithm.load(tmp_path / "model.zip", env=gym.make("Pendulum-v1"), device="cpu")
    model.fill_buffer(dataset)
    model.learn(5)
    assert (model.replay_buffer.pos, model._n_updates) == (dataset.num_transitions + 5, 11)


def test_a_small_buffer_is_enlarged_for_the_data(dataset):
    model = algorithm("iql", "Pendulum-v1", buffer_size=10).fit(dataset, 3).learn(3)
    assert (model.replay_buffer.buffer_size, model.replay_buffer.full) == (dataset.num_transitions, True)


# ------------------------------------------------------------------------------------------------ refusals


def test_a_broken_transition_stops_the_run_and_is_named(dataset, tmp_path):
    rewards = dataset.rewards.copy()
    rewards[17] = 1e38  # finite, and its square is not
    broken = from_arrays(
        dataset.step_observations, dataset.actions, rewards, dataset.terminated, dataset.truncated,
        dataset.transitions().next_observations,
        observation_space=dataset.observation_space, action_space=dataset.action_space,
    )  # fmt: skip
    model = algorithm()
    with pytest.raises(NonFiniteLoss, match="is not finite") as error:
        model.fit(broken, 200, callback=CheckpointCallback(1, str(tmp_path)))
    assert 17 in error.value.transitions
    # No checkpoint was written after the loss broke, and the last one is good.
    kept = sorted(int(path.stem.split("_")[2]) for path in tmp_path.iterdir())
    assert kept == list(range(1, error.value.step))
    OfflineAlgorithm.load(tmp_path / f"rl_model_{kept[-1]}_steps.zip", device="cpu").predict(states())
    with pytest.raises(NonFiniteLoss, match="is not kept"):
        model.save(tmp_path / "model.zip")


def test_nan_in_the_data_is_named_by_its_transition(dataset):
    rewards = dataset.rewards.copy()
    broken = from_arrays(
        dataset.step_observations, dataset.actions, rewards, dataset.terminated, dataset.truncated,
        dataset.transitions().next_observations,
        observation_space=dataset.observation_space, action_space=dataset.action_space,
    )  # fmt: skip
    broken.store.rewards[40] = np.nan
    with pytest.raises(NonFiniteLoss, match="transitions 40 of its batch hold NaN") as error:
        algorithm().fit(broken, 100)
    assert set(error.value.broken) == {40}


class Spaces(gym.Env):
    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space


FLAT = spaces.Box(-1, 1, (3,))


@pytest.mark.parametrize(
    ("recipe", "observation_space", "action_space", "message"),
    [
        ("ddpg_bc", FLAT, spaces.Discrete(3), "must be a Box: DDPGBCExtraction learns continuous actions"),
        ("iql", FLAT, spaces.MultiDiscrete([2, 3]), "`action_space` must be a Box"),
        ("iql", FLAT, spaces.Box(-np.inf, np.inf, (1,)), "`action_space` must be bounded"),
        ("iql", spaces.Dict({"a": FLAT, "b": FLAT}), FLAT, "a Dict of a, b: wrap the environment"),
        ("iql", spaces.Box(0, 255, (3, 64, 64), np.uint8), FLAT, "must be a Box of features"),
        ("iql", spaces.Discrete(4), FLAT, "encode observations one-hot"),
    ],
)
def test_spaces_that_do_not_fit_are_refused_in_the_constructor(recipe, observation_space, action_space, message):
    with pytest.raises(SpaceError, match=message):
        OfflineAlgorithm(recipe, Spaces(observation_space, action_space))


def test_discrete_actions_in_the_data_are_refused_in_fit():
    data = from_arrays(np.zeros((4, 3)), np.array([0, 1, 1, 0]), np.zeros(4), np.array([False, False, False, True]))
    with pytest.raises(SpaceError, match="DDPGBCExtraction learns continuous actions"):
        algorithm("ddpg_bc", batch_size=2).fit(data, 3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"recipe": "iqll"}, "did you mean iql"),
        ({"env": "Pendulm-v1"}, "did you mean Pendulum-v1"),
        ({"gamma": 1.5}, "`gamma` must lie between 0 and 1"),
        ({"tau": 0.0}, "`tau` must be above 0"),
        ({"gamma": None}, "`gamma` must lie between 0 and 1.*Received None"),
        ({"tau": float("nan")}, "`tau` must be above 0"),
        ({"batch_size": 0}, "`batch_size` must be a whole number >= 1"),
        ({"batch_size": 1.5}, "`batch_size` must be a whole number >= 1"),
        ({"learning_rate": -1.0}, "`learning_rate` must be a finite number > 0"),
        ({"learning_rate": float("nan")}, "`learning_rate` must be a finite number > 0"),
        ({"learning_rate": "1e-3"}, "`learning_rate` must be a finite number > 0. Received '1e-3'"),
        ({"buffer_size": 0}, "`buffer_size` must be a whole number >= 1"),
        ({"learning_starts": -1}, "`learning_starts` must be a whole number >= 0"),
        ({"gradient_steps": -2}, "`gradient_steps` must be a whole number >= -1"),
        ({"seed": -1}, "`seed` must be a whole number >= 0"),
        ({"seed": 2**32}, "`seed` must be at most 4294967295"),
        ({"policy_kwargs": {"net_arch": [8], "use_sde": True}}, "must be some of net_arch, .*Received 'use_sde'"),
        ({"policy_kwargs": {"n_critics": 0}}, "`n_critics` must be a whole number >= 1"),
        ({"policy_kwargs": {"net_arch": {"pi": [8], "qf": []}}}, "`net_arch` must have a hidden layer"),
        ({"policy_kwargs": {"net_arch": {"pi": [8]}}}, "`net_arch` must have a hidden layer"),
        ({"policy_kwargs": {"net_arch": [16.5]}}, "`net_arch` must be a whole number >= 1. Received 16.5"),
        ({"policy_kwargs": {"activation_fn": th.nn.PReLU}}, "`activation_fn` must be .* without parameters"),
        ({"policy_kwargs": {"activation_fn": th.relu}}, "`activation_fn` must be the class of an activation"),
        ({"policy_kwargs": {"activation_fn": th.nn.MultiheadAttention}}, "`activation_fn` must be the class"),
        ({"policy_kwargs": {"optimizer_kwargs": {"amsgrad": True}}}, "must be some of betas, eps, weight_decay"),
    ],
)
def test_words_out_of_range_are_refused_in_the_constructor(words, message):
    with pytest.raises(InputError, match=message):
        algorithm(**words)


@pytest.mark.parametrize("device", ["bla", "meta", None])
def test_a_device_that_is_not_there_is_refused(dataset, device, tmp_path):
    algorithm("bc").fit(dataset, 1).save(tmp_path / "model.zip")
    for opened in (
        lambda: OfflineAlgorithm("iql", device=device),
        lambda: OfflineAlgorithm.load(tmp_path / "model.zip", device=device),
        lambda: load_sb3(tmp_path / "model.zip", dataset, device),
    ):
        with pytest.raises(InputError, match=r"`device` must be a device that torch has here.*take auto, cpu or cuda"):
            opened()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, d: m.fit("x.hdf5", 3), r"`dataset` must be a Dataset .*Received a str: open_dataset\('x.hdf5'\)"),
        (lambda m, d: m.fit_value(ReplayBuffer(8, FLAT, FLAT), 3), r"Received a ReplayBuffer: from_replay_buffer"),
        (lambda m, d: m.fit(d, 3, validation="x.hdf5"), r"`validation` must be a Dataset"),
        (lambda m, d: m.fill_buffer(None), "`dataset` must be a Dataset .*Received a NoneType: from_arrays"),
        (lambda m, d: m.fit(d, 3, log_interval=0), "`log_interval` must be a whole number >= 1"),
        (lambda m, d: m.fit(d, 3.5), "`gradient_steps` must be a whole number >= 1"),
    ],
)
def test_what_is_no_data_set_is_refused_with_how_to_make_one(dataset, call, message):
    model = algorithm()
    with pytest.raises(InputError, match=message):
        call(model, dataset)
    assert model.num_timesteps == 0


@pytest.mark.parametrize("shape", [(320, 3), (320,)])
def test_fitted_q_refuses_a_policy_whose_actions_do_not_fit_the_data(dataset, shape):
    class Wrong:
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return np.zeros(shape, np.float32), None

    with pytest.raises(InputError, match=r"`policy` must give actions of shape \(320, 1\) for 320 observations"):
        algorithm(Recipe(FittedQ(Wrong()), None)).fit(dataset, 3)


def test_data_of_another_environment_are_refused(dataset):
    model = algorithm("iql", "Pendulum-v1")
    elsewhere = from_arrays(np.zeros((40, 5)), np.zeros((40, 1)), np.zeros(40), np.arange(40) == 39)
    with pytest.raises(SpaceError, match="must hold observations of"):
        model.fit(elsewhere, 3)
    two_actions = from_arrays(np.zeros((40, 3)), np.zeros((40, 2)), np.zeros(40), np.arange(40) == 39)
    with pytest.raises(SpaceError, match="must hold actions of"):
        model.fit(two_actions, 3)
    fitted = algorithm().fit(dataset, 1)
    with pytest.raises(SpaceError, match="must have actions of"):
        fitted.set_env(gym.wrappers.RescaleAction(gym.make("Pendulum-v1"), np.float32(-1), np.float32(1)))
    with pytest.raises(SpaceError, match="must have observations of"):
        fitted.set_env("MountainCarContinuous-v0")


def test_too_few_transitions_and_an_empty_data_set_are_refused(dataset):
    with pytest.raises(InputError, match=r"at least a batch of transitions \(512\).*Received 320"):
        algorithm(batch_size=512).fit(dataset, 3)
    with pytest.raises(DatasetError, match="at least one"):
        from_arrays(np.zeros((0, 3)), np.zeros((0, 1)), np.zeros(0), np.zeros(0, bool))
    assert algorithm(batch_size=8).fit(dataset.select([0]), 3).num_timesteps == 3  # one episode is enough


def test_a_vec_normalize_is_refused():
    env = VecNormalize(make_vec_env("Pendulum-v1", 1))
    with pytest.raises(InputError, match="must not be a VecNormalize"):
        algorithm("iql", env)


def test_actor_critic_with_a_stochastic_actor_uses_its_mode(dataset):
    model = algorithm(Recipe(ActorCritic(), DDPGBCExtraction(), actor=TanhGaussian())).fit(dataset, 3)
    assert np.isfinite(model.last_metrics["critic/td_loss"])
