"""The file of an OfflineAlgorithm: what it holds, what is refused, and that a stopped run goes on from it unchanged."""

from __future__ import annotations

import errno
import os
import zipfile

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from offline_data import STANDARDIZED, algorithm, assert_same, numbers, pendulum_data, states
from stable_baselines3 import TD3
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback

from offline_eval.datasets.arrays import from_trajectories
from offline_eval.errors import AgentFileError, CriticError, InputError, StorageError
from offline_eval.policies.actors import TanhGaussian
from offline_eval.policies.algorithm import OfflineAlgorithm
from offline_eval.policies.critics import critic_of
from offline_eval.policies.extraction import AWRExtraction, BCExtraction
from offline_eval.policies.networks import LayerNormReLU
from offline_eval.policies.recipes import RECIPES, Recipe, recipe_of
from offline_eval.policies.saving import MEMBER, is_offline_algorithm
from offline_eval.policies.transforms import Raw, ReturnRange, Standardize
from offline_eval.policies.values import Implicit

TD3_MEMBERS = {
    "data", "pytorch_variables.pth", "policy.pth", "actor.optimizer.pth", "critic.optimizer.pth",
    "_stable_baselines3_version", "system_info.txt",
}  # fmt: skip
FILES = {
    **{name: recipe_of(name) for name in RECIPES if name != "fqe"},
    "standardized": STANDARDIZED,
    "tanh": Recipe(Implicit(), AWRExtraction(), actor=TanhGaussian()),
}


@pytest.fixture(scope="module")
def dataset():
    return pendulum_data()


@pytest.fixture(scope="module")
def other_dataset():
    return pendulum_data(seed=1)


# ------------------------------------------------------------------------------------------------ the file


@pytest.mark.parametrize("name", FILES)
def test_plain_td3_opens_the_file_and_acts_the_same(dataset, tmp_path, name):
    model = algorithm(FILES[name]).fit(dataset, 6)
    model.save(tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        assert set(archive.namelist()) == TD3_MEMBERS | {MEMBER}
    plain = TD3.load(tmp_path / "model.zip", device="cpu")
    assert type(plain.policy).__module__ == "stable_baselines3.td3.policies"
    if FILES[name].extraction.ranks_candidates:
        return  # TD3 knows no candidates: its action is the clone's own
    ours, _ = model.predict(states(), deterministic=True)
    theirs, _ = plain.predict(states())
    np.testing.assert_array_equal(ours, theirs)
    assert np.abs(ours).max() <= 2.0
    assert np.ptp(ours) > 0.01


def test_td3_itself_writes_the_same_members_and_goes_on_from_ours(dataset, tmp_path):
    TD3("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, device="cpu").save(tmp_path / "td3.zip")
    with zipfile.ZipFile(tmp_path / "td3.zip") as archive:
        assert set(archive.namelist()) == TD3_MEMBERS
    algorithm("td3_bc", buffer_size=500).fit(dataset, 6).save(tmp_path / "ours.zip")
    plain = TD3.load(tmp_path / "ours.zip", env=gym.make("Pendulum-v1"), device="cpu")
    state = plain.critic.optimizer.state_dict()["state"]
    assert [state[i]["exp_avg"].shape for i in state] == [p.shape for p in plain.critic.parameters()]
    assert plain.learn(20).num_timesteps == 20


def test_the_critic_in_the_file_takes_raw_observations_and_answers_in_raw_returns(dataset, tmp_path):
    model = algorithm(STANDARDIZED).fit(dataset, 20)
    model.save(tmp_path / "model.zip")
    plain = TD3.load(tmp_path / "model.zip", device="cpu")
    observations, actions = th.as_tensor(states(8)), th.linspace(-1, 1, 8)[:, None]
    mean, scale = (th.as_tensor(x) for x in (model.transform.standard.mean, model.transform.standard.scale))
    factor = model.transform.reward_factor
    trained = model.learner.networks.qs((observations - mean) / scale, actions) / factor
    for shown in (model.critic(observations, actions), plain.critic(observations, actions)):
        th.testing.assert_close(th.cat(shown, 1).T, trained, rtol=1e-4, atol=1e-4)
    # By hand: returns of the data spread over this range, which becomes 10.
    assert factor == pytest.approx(10.0 / np.ptp(dataset.returns))


def test_a_recipe_without_a_value_has_no_critic(dataset):
    with pytest.raises(CriticError, match="must have learned a value"):
        critic_of(algorithm("bc").fit(dataset, 2))
    assert critic_of(algorithm("iql").fit(dataset, 2)).gamma == 0.99


def test_standardising_divides_by_the_deviation_and_leaves_constants(dataset):
    observations = np.array([[1.0, 7.0], [3.0, 7.0], [5.0, 7.0], [7.0, 7.0]])  # the last one is never acted in
    flat = from_trajectories(
        [{
            "observations": observations, "actions": np.zeros((3, 1)), "rewards": np.ones(3),
            "terminated": np.zeros(3, bool), "truncated": np.array([False, False, True]),
        }]
    )  # fmt: skip
    standard = Standardize(epsilon=0.5).statistics(flat)
    np.testing.assert_allclose(standard.mean, [3.0, 7.0])
    np.testing.assert_allclose(standard.scale, [np.sqrt(8 / 3) + 0.5, 1.0], rtol=1e-6)
    assert Raw().statistics(flat) is None
    with pytest.raises(InputError, match="trajectories of different returns"):
        ReturnRange().factor(flat)


@pytest.mark.parametrize("name", FILES)
def test_loading_restores_everything(dataset, tmp_path, name):
    model = algorithm(FILES[name]).fit(dataset, 6)
    model.save(tmp_path / "model")
    loaded = OfflineAlgorithm.load(tmp_path / "model", device="cpu")
    assert_same(numbers(model), numbers(loaded))
    assert loaded.recipe == model.recipe
    assert (loaded.fingerprints, loaded.num_timesteps, loaded._n_updates) == (model.fingerprints, 6, 6)
    assert loaded.fingerprints["policy"] == dataset.fingerprint
    assert loaded.transform.reward_factor == model.transform.reward_factor
    for deterministic in (True, False):
        ours, _ = model.predict(states(), deterministic=deterministic)
        theirs, _ = loaded.predict(states(), deterministic=deterministic)
        np.testing.assert_array_equal(ours, theirs)


def test_loading_unpickles_nothing(dataset, tmp_path, monkeypatch):
    algorithm("td3_bc").fit(dataset, 3).save(tmp_path / "model.zip")

    def refuse(*arguments, **keywords):
        raise AssertionError("something was unpickled")

    monkeypatch.setattr("cloudpickle.loads", refuse)
    monkeypatch.setattr("pickle.loads", refuse)
    monkeypatch.setattr("pickle.load", refuse)
    OfflineAlgorithm.load(tmp_path / "model.zip", device="cpu").predict(states())
    with zipfile.ZipFile(tmp_path / "model.zip") as archive, archive.open(MEMBER) as member:
        content = np.load(member, allow_pickle=False)
        assert all(content[name].dtype.kind in "fiub" for name in content.files)


def test_a_file_is_recognised_and_a_damaged_one_refused(dataset, tmp_path, tiny_td3):
    algorithm().fit(dataset, 3).save(tmp_path / "model.zip")
    tiny_td3.save(tmp_path / "td3.zip")
    assert is_offline_algorithm(tmp_path / "model")
    assert not is_offline_algorithm(tmp_path / "td3.zip")
    assert not is_offline_algorithm(tmp_path / "nothing.zip")
    whole = (tmp_path / "model.zip").read_bytes()
    (tmp_path / "half.zip").write_bytes(whole[: len(whole) // 2])
    for name, message in (("half", "must be"), ("td3", "OfflineAlgorithm.save"), ("none", "existing file")):
        with pytest.raises(AgentFileError, match=message):
            OfflineAlgorithm.load(tmp_path / f"{name}.zip")


def test_a_full_disk_keeps_the_former_file(dataset, tmp_path, monkeypatch):
    model = algorithm().fit(dataset, 3)
    model.save(tmp_path / "model.zip")
    before = (tmp_path / "model.zip").read_bytes()

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"No space left on device.*the file that was there before is kept"):
        model.fit(dataset, 3).save(tmp_path / "model.zip")
    assert (tmp_path / "model.zip").read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.zip"]
    with pytest.raises(StorageError, match=r"new.zip could not be written \(No space left on device\)$"):
        model.save(tmp_path / "new.zip")
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.zip"]


def test_a_user_s_recipe_is_given_again_when_loading(dataset, tmp_path):
    class Mine(BCExtraction):
        pass

    algorithm(Recipe(None, Mine())).fit(dataset, 3).save(tmp_path / "model.zip")
    with pytest.raises(InputError, match="give `recipe` when loading"):
        OfflineAlgorithm.load(tmp_path / "model.zip")
    assert OfflineAlgorithm.load(tmp_path / "model.zip", recipe=Recipe(None, Mine())).num_timesteps == 3


def test_words_and_networks_survive_the_file(dataset, tmp_path):
    policy_kwargs = {"net_arch": {"pi": [8], "qf": [12, 12]}, "activation_fn": LayerNormReLU, "n_critics": 3}
    model = algorithm(policy_kwargs=policy_kwargs, gamma=0.9, tau=0.1, train_freq=(2, "step"), seed=None)
    model.fit(dataset, 3).save(tmp_path / "model.zip")
    loaded = OfflineAlgorithm.load(tmp_path / "model.zip", batch_size=64, device="cpu")
    assert (loaded.gamma, loaded.tau, loaded.batch_size, loaded.train_freq) == (0.9, 0.1, 64, model.train_freq)
    assert (loaded.seed, loaded.run_seed) == (None, model.run_seed)
    assert len(loaded.critic.q_networks) == 3
    assert_same(numbers(model), numbers(loaded))


def test_set_parameters_takes_weights_of_any_td3(dataset, tiny_td3):
    for recipe in ("ddpg_bc", "td3_bc"):
        model = algorithm(recipe).fit(dataset, 3)
        model.set_parameters({"policy": tiny_td3.policy.state_dict()}, exact_match=False)
        np.testing.assert_allclose(model.predict(states())[0], tiny_td3.predict(states())[0], atol=1e-5)
        before, _ = model.predict(states())
        model.set_parameters(model.get_parameters())
        np.testing.assert_allclose(model.predict(states())[0], before, atol=1e-5)


# ------------------------------------------------------------------------------------------------ stopping, going on


class KilledError(Exception):
    pass


class Kill(BaseCallback):
    def __init__(self, at):
        super().__init__()
        self.at = at

    def _on_step(self):
        if self.num_timesteps == self.at:
            raise KilledError
        return True


@pytest.mark.parametrize("name", ["iql", "iql_sfbc", "td3_bc", "onestep", "standardized"])
def test_a_killed_run_goes_on_to_the_same_bits(dataset, tmp_path, name):
    # The steps cross the blocks of 32 in which indices are drawn, and the cosine schedule knows the whole length.
    undisturbed = algorithm(FILES[name]).fit(dataset, 75)

    killed = algorithm(FILES[name])
    checkpoints = CheckpointCallback(20, str(tmp_path), name_prefix="run")
    with pytest.raises(KilledError):
        killed.fit(dataset, 75, callback=[checkpoints, Kill(47)])
    resumed = OfflineAlgorithm.load(tmp_path / "run_40_steps.zip", device="cpu")
    resumed.fit(dataset, 75 - 40, reset_num_timesteps=False)

    assert resumed.num_timesteps == 75
    assert_same(numbers(undisturbed), numbers(resumed))


def test_going_on_with_other_data_is_refused(dataset, other_dataset, tmp_path):
    algorithm().fit(dataset, 3).save(tmp_path / "model.zip")
    loaded = OfflineAlgorithm.load(tmp_path / "model.zip", device="cpu")
    with pytest.raises(InputError, match="the one that the run began with"):
        loaded.fit(other_dataset, 3, reset_num_timesteps=False)
    assert loaded.fit(other_dataset, 3).fingerprints["value"] == other_dataset.fingerprint


def test_the_seed_decides_and_global_generators_are_left_alone(dataset):
    th.manual_seed(5)
    np.random.seed(5)
    expected = th.rand(1), np.random.rand()
    th.manual_seed(5)
    np.random.seed(5)
    model = algorithm("iql_sfbc").fit(dataset, 6)
    model.predict(states())
    assert (th.rand(1), np.random.rand()) == expected
    assert_same(numbers(model), numbers(algorithm("iql_sfbc").fit(dataset, 6)))
    other = numbers(algorithm("iql_sfbc", seed=1).fit(dataset, 6))
    assert not th.equal(numbers(model)["actor.0"], other["actor.0"])


def test_the_batches_of_a_run_do_not_depend_on_how_it_is_cut(dataset):
    whole = algorithm().fit(dataset, 50)
    parts = algorithm()
    for steps in (7, 40, 3):
        parts.fit(dataset, steps, reset_num_timesteps=False)
    # The cosine schedule knows the total: only the value, which has none, is the same.
    ours, theirs = numbers(whole), numbers(parts)
    assert all(th.equal(ours[name], theirs[name]) for name in ours if name.startswith(("critic", "value")))
