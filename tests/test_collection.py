"""Data sets from agents: the noise that was asked for, recorded, the same for any number of processes."""

from __future__ import annotations

import gymnasium as gym
import h5py
import numpy as np
import pytest
from environments import Counter
from gymnasium import spaces
from linear_quadratic import Linear, LinearQuadratic, limited

from offline_eval.datasets.log import open_log
from offline_eval.datasets.opening import open_dataset
from offline_eval.errors import InputError, OfflineEvalError
from offline_eval.training.collection import Level, check_collection, collect, levels_of, save_flat

BOX = spaces.Box(-2.0, 2.0, (1,), np.float32)
LEVELS = levels_of([0.0, 0.5], [0.0])


def test_noise_is_in_the_scaled_space():
    generator = np.random.default_rng(0)
    drawn = [Level(noise=0.1).disturb(np.zeros(1, np.float32), BOX, generator)[0] for _ in range(4000)]
    assert np.std(drawn) == pytest.approx(0.2, rel=0.05)  # 0.1 of a box that is twice as wide
    assert Level().disturb(np.float32([1.7]), BOX, generator) == np.float32([1.7])
    strong = [Level(noise=3.0).disturb(np.zeros(1, np.float32), BOX, generator)[0] for _ in range(200)]
    assert (min(strong), max(strong)) == (-2.0, 2.0)


def test_epsilon_is_the_share_of_uniform_actions():
    generator = np.random.default_rng(0)
    level, own = Level(epsilon=0.3), np.float32([1.25])
    drawn = np.array([level.disturb(own, BOX, generator)[0] for _ in range(4000)])
    assert np.mean(drawn != own) == pytest.approx(0.3, abs=0.03)
    assert np.mean(drawn[drawn != own]) == pytest.approx(0.0, abs=0.1)
    shifted = spaces.Discrete(3, start=5)
    counts = np.bincount([int(Level(epsilon=1.0).disturb(np.int64(5), shifted, generator)) for _ in range(3000)])
    assert counts[5:] == pytest.approx([1000] * 3, rel=0.15)


def test_levels_are_every_noise_with_every_epsilon():
    assert levels_of([0.1, 0.5], [0.0, 0.3]) == (Level(0.1), Level(0.1, 0.3), Level(0.5), Level(0.5, 0.3))
    assert levels_of([], []) == (Level(),)


def test_whole_episodes_take_turns_and_carry_their_level(tmp_path):
    log = collect(Linear(), limited(steps=10), 35, tmp_path / "log", levels=LEVELS, seed=7)
    assert [len(episode) for episode in log] == [10, 10, 10, 10]  # 35 steps need four whole episodes
    assert [episode.seed for episode in log] == [7, 8, 9, 10]
    assert [episode.metadata["noise"] for episode in log] == [0.0, 0.5, 0.0, 0.5]
    assert np.array_equal(log[0].actions, log[0].policy_actions)
    assert not np.array_equal(log[1].actions, log[1].policy_actions)
    assert log[1].states["state"].shape == (11, 2)


@pytest.mark.parametrize("options", [{"n_envs": 1}, {"n_envs": 5}, {"n_envs": 2, "workers": 2}])
def test_the_data_do_not_depend_on_how_many_play(tmp_path, options, tiny_td3):
    levels = levels_of([0.3], [0.0, 0.5])
    first = collect(tiny_td3, "Pendulum-v1", 900, tmp_path / "first", levels=levels)
    second = collect(tiny_td3, "Pendulum-v1", 900, tmp_path / "second", levels=levels, **options)
    assert open_dataset(first.folder).fingerprint == open_dataset(second.folder).fingerprint


def test_an_interrupted_collection_goes_on(tmp_path):
    levels = levels_of([0.3])
    whole = collect(Linear(), limited(steps=10), 60, tmp_path / "whole", levels=levels)

    def stop(count):
        if len(open_log(tmp_path / "part")) >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(Linear(), limited(steps=10), 60, tmp_path / "part", levels=levels, n_envs=1, on_steps=stop)
    told = []
    part = collect(Linear(), limited(steps=10), 60, tmp_path / "part", levels=levels, on_steps=told.append)
    assert sum(told) == 60
    assert open_dataset(part.folder).fingerprint == open_dataset(whole.folder).fingerprint


def test_random_actions_need_no_agent(tmp_path):
    log = collect(None, limited(steps=50), 200, tmp_path / "log", levels=[Level(noise=0.2)])
    actions = np.concatenate([episode.actions for episode in log]).ravel()
    assert [episode.metadata["epsilon"] for episode in log] == [1.0] * 4
    assert (np.abs(actions) <= 2.0).all()
    assert np.std(actions) == pytest.approx(4 / np.sqrt(12), rel=0.1)
    cart = collect(None, "CartPole-v1", 50, tmp_path / "cart")
    assert set(np.concatenate([episode.actions for episode in cart]).tolist()) == {0, 1}


def test_a_flat_file_holds_the_noise_of_every_step(tmp_path):
    log = collect(Linear(), limited(steps=10), 20, tmp_path / "log", levels=LEVELS, seed=3)
    path = save_flat(log, tmp_path / "data.hdf5")
    with h5py.File(path) as file:
        assert file["infos/noise"][:].tolist() == [0.0] * 10 + [0.5] * 10
        assert file["infos/seed"][:].tolist() == [3] * 10 + [4] * 10
        assert file["timeouts"][:].nonzero()[0].tolist() == [9, 19]
    assert open_dataset(path).num_trajectories == 2
    assert open_dataset(path).rewards.sum() == pytest.approx(sum(e.episode_return for e in log), rel=1e-6)


def test_an_environment_that_raises_ends_the_collection(tmp_path):
    with pytest.raises(OfflineEvalError, match="exploded"):
        collect(None, lambda: Counter(5, raise_at=(1, 2)), 50, tmp_path / "log")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_steps": 0}, "`steps` must be >= 1"),
        ({"seed": -1}, "`seed` must be >= 0"),
        ({"n_envs": 0}, "`n_envs` must be >= 1"),
        ({"env": gym.make("Pendulum-v1"), "workers": 2}, "`workers` must be 1 for a finished environment"),
        ({"env": "CartPole-v1", "levels": [Level(noise=0.1)]}, "`noise` must be 0 where actions are no numbers"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_arguments_are_refused(tmp_path, change, message):
    arguments = {"env": limited(), "num_steps": 10, "folder": tmp_path / "log", **change}
    with pytest.raises(InputError, match=message):
        collect(Linear(), **arguments)


def test_bad_levels_are_refused():
    with pytest.raises(InputError, match="`noise` must be >= 0"):
        Level(noise=-0.1)
    with pytest.raises(InputError, match=r"`epsilon` must lie in \[0, 1\]"):
        Level(epsilon=1.5)
    with pytest.raises(InputError, match="`epsilon` must be 0 where actions have no bounds"):
        Level(epsilon=0.5).check(spaces.Box(-np.inf, np.inf, (1,)))
    assert LinearQuadratic.action_space == BOX


def test_a_collection_is_checked_and_a_worn_environment_found(tmp_path):
    class Worn(Counter):
        """Pays less with every reset."""

        resets = 0

        def reset(self, *, seed=None, options=None):
            self.resets += 1
            return super().reset(seed=seed)

        def step(self, action):
            observation, _, *rest = super().step(action)
            return observation, -float(self.resets), *rest

    sound, worn = (collect(None, make, 20, tmp_path / str(make), n_envs=2) for make in (lambda: Counter(4), Worn))
    assert str(check_collection(None, lambda: Counter(4), sound)) == "checked on 3 of 5 episodes"
    found = check_collection(None, Worn, worn)
    assert found.holds is False
    assert "collected again" in str(found)
    assert check_collection(None, Counter(4), sound).holds is None
