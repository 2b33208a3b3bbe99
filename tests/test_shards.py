"""The store: what was written is read back, in order, through an index that Minari opens."""

import json

import gymnasium as gym
import h5py
import numpy as np
import pytest
from log_episodes import ACTIONS, OBSERVATIONS, assert_same, episode_of, shard_files, writer_of

from offline_eval.datasets import index as index_module
from offline_eval.datasets.log import open_log
from offline_eval.errors import InputError, SpaceError

EPISODES = {
    "plain": episode_of(0, 0.25, seed=3),
    "unkeyed": episode_of(None, 0.25),
    "one step": episode_of(4, 0.5, steps=1),
    "steered": episode_of(0, 0.5, policy_actions=np.float32([[0.1], [0.2]])),
    "states": episode_of(0, states={"time": np.arange(3.0), "qpos": np.array([[1.0, 2], [3, 4], [np.nan, np.nan]])}),
    "about": episode_of(1, seed=2**40, options={"x": [1, None]}, metadata={"variant": "opex", "step_size": 0.1}),
    "discrete": episode_of(
        2, observations=np.array([4, 5, 6]), actions=np.array([1, 0]), policy_actions=np.array([1, 1])
    ),
    "image": episode_of(0, observations=np.arange(3 * 4 * 4 * 3, dtype=np.uint8).reshape(3, 4, 4, 3)),
    "dict": episode_of(3, observations={"near": np.eye(3), "far": np.array([7, 8, 9], dtype=np.int16)}),
}


@pytest.mark.parametrize("name", EPISODES)
def test_what_was_written_is_read_back(name, tmp_path):
    with writer_of(tmp_path) as writer:
        writer.write([EPISODES[name]])
    log = open_log(tmp_path)
    assert len(log) == 1
    assert_same(EPISODES[name], log[0])


def test_options_that_json_lacks_become_what_it_has(tmp_path):
    options = {"goal": np.array([1.0, 2.0]), "level": np.int64(3)}
    with writer_of(tmp_path) as writer:
        writer.write([episode_of(0, options=options)])
    assert open_log(tmp_path)[0].options == {"goal": [1.0, 2.0], "level": 3}


def test_actions_that_nothing_steered_are_stored_once(tmp_path):
    with writer_of(tmp_path) as writer:
        writer.write([EPISODES["plain"]])
    with h5py.File(shard_files(tmp_path)[0]) as file:
        assert file["episode_0/infos/policy_actions"] == file["episode_0/actions"]
    episode = open_log(tmp_path)[0]
    assert episode.policy_actions is episode.actions


def test_a_log_is_in_the_order_of_its_keys_and_counts_its_steps(tmp_path):
    with writer_of(tmp_path) as writer:
        writer.write([episode_of(5), episode_of(None, 1.0), episode_of(2, steps=3)])
        writer.write([])
        writer.write([episode_of(0)])
    log = open_log(tmp_path)
    assert log.keys == (0, 2, 5, None)
    assert log.total_steps == 2 + 3 + 2 + 2
    assert [len(episode) for episode in log] == [2, 3, 2, 2]
    assert [episode.key for episode in log[1:3]] == [2, 5]
    assert (log.env_id, log.observation_space, log.action_space) == ("Toy-v0", OBSERVATIONS, ACTIONS)
    assert len(shard_files(tmp_path)) == 2


def test_of_two_episodes_with_one_key_the_first_counts(tmp_path):
    with writer_of(tmp_path) as first:
        first.write([episode_of(1, 1.0)])
    with writer_of(tmp_path) as second:
        second.write([episode_of(1, 2.0), episode_of(2, 2.0)])
    log = open_log(tmp_path)
    assert [(episode.key, episode.rewards[0]) for episode in log] == [(1, 1.0), (2, 2.0)]


def test_two_episodes_with_one_key_in_one_call_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"`episodes` must have different keys. Received \[1, 1\]"):
        writer_of(tmp_path).write([episode_of(1), episode_of(1)])


@pytest.mark.parametrize(
    ("name", "space"),
    [
        ("observation_space", gym.spaces.Text(5)),
        ("observation_space", gym.spaces.Dict({"deep": gym.spaces.Dict({"er": ACTIONS})})),
        ("observation_space", gym.spaces.Dict({"a/b": ACTIONS})),
        ("action_space", gym.spaces.Dict({"arm": ACTIONS})),
    ],
)
def test_spaces_that_cannot_be_logged_are_refused(name, space, tmp_path):
    with pytest.raises(SpaceError, match=f"`{name}` must be a Box, Discrete.*flatten it first"):
        writer_of(tmp_path / "log", **{name: space})
    assert not (tmp_path / "log").exists()


# The index


def test_the_index_follows_at_the_end_and_not_with_every_shard(tmp_path, monkeypatch):
    saved = []
    encode = index_module._encode
    monkeypatch.setattr(index_module, "_encode", lambda entries: saved.append(len(entries)) or encode(entries))
    with writer_of(tmp_path) as writer:
        for key in range(20):
            writer.write([episode_of(key)])
        assert saved == []
    assert saved == [20]
    open_log(tmp_path)
    assert saved == [20]  # up to date: left alone


def test_the_index_follows_while_a_run_goes_on(tmp_path):
    writer = writer_of(tmp_path, index_interval=0.0)
    writer.write([episode_of(0)])
    with h5py.File(tmp_path / "data" / "main_data.hdf5") as file:
        assert list(file) == ["episode_0"]


def test_another_index_under_way_is_not_waited_for(tmp_path):
    pytest.importorskip("fcntl")
    writer = writer_of(tmp_path, index_interval=0.0)
    with index_module.locked(tmp_path / "data"):
        writer.write([episode_of(0)])
        assert not (tmp_path / "data" / "main_data.hdf5").exists()
    assert open_log(tmp_path).keys == (0,)


def absent(path):
    path.unlink()


def behind(path):
    path.write_bytes(path.with_name("early").read_bytes())


def garbage(path):
    path.write_bytes(b"not an index")


def foreign(path):
    with h5py.File(path, "w") as file:
        file["episode_0/rewards"] = [1.0]


@pytest.mark.parametrize("damage", [absent, behind, garbage, foreign])
def test_an_index_that_is_wrong_is_made_anew(damage, tmp_path):
    main = tmp_path / "data" / "main_data.hdf5"
    with writer_of(tmp_path) as writer:
        writer.write([episode_of(1, 1.0)])
        writer.close()
        (tmp_path / "data" / "early").write_bytes(main.read_bytes())
        writer.write([episode_of(0, 2.0)])
    damage(main)
    log = open_log(tmp_path)
    assert [(episode.key, episode.rewards[0]) for episode in log] == [(0, 2.0), (1, 1.0)]
    with h5py.File(main) as file:
        assert file["episode_0/rewards"][0] == 2.0
        assert file["episode_1/rewards"][0] == 1.0
    metadata = json.loads((tmp_path / "data" / "metadata.json").read_text())
    assert (metadata["total_episodes"], metadata["total_steps"]) == (2, 4)


def test_counts_that_a_kill_left_behind_the_links_are_mended(tmp_path):
    metadata = tmp_path / "data" / "metadata.json"
    writer = writer_of(tmp_path)
    before = metadata.read_bytes()
    writer.write([episode_of(0)])
    writer.close()
    metadata.write_bytes(before)
    open_log(tmp_path)
    assert json.loads(metadata.read_text())["total_episodes"] == 1


def test_minari_opens_the_folder(tmp_path, monkeypatch):
    minari = pytest.importorskip("minari", reason="minari is not installed")
    episode = episode_of(0, 0.5, seed=11, states={"qpos": np.arange(6.0).reshape(3, 2)})
    spec = gym.spec("Pendulum-v1")
    with writer_of(tmp_path / "toy", env_spec=spec) as writer:
        writer.write([episode, episode_of(3, 2.0, steps=4)])
        writer.write([episode_of(1, 1.0, steps=3)])
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    dataset = minari.load_dataset("toy")
    assert (dataset.id, dataset.total_episodes, dataset.total_steps) == ("toy-v0", 3, 9)
    assert (dataset.observation_space, dataset.action_space) == (OBSERVATIONS, ACTIONS)
    assert [len(data) for data in dataset] == [2, 3, 4]
    first = dataset[0]
    assert np.array_equal(first.observations, episode.observations)
    assert np.array_equal(first.actions, episode.actions)
    assert np.array_equal(first.rewards, episode.rewards)
    assert first.truncations.tolist() == [False, True]
    assert first.terminations.tolist() == [False, False]
    assert np.array_equal(first.infos["qpos"], episode.states["qpos"])
    assert next(iter(dataset.storage.get_episode_metadata([0])))["seed"] == 11
    assert dataset.recover_environment().spec.id == "Pendulum-v1"


def test_minari_opens_dict_observations_and_discrete_actions(tmp_path):
    minari = pytest.importorskip("minari", reason="minari is not installed")
    space = gym.spaces.Dict({"near": gym.spaces.Box(0, 1, (3,)), "far": gym.spaces.Discrete(10)})
    episode = episode_of(0, observations={"near": np.eye(3), "far": np.array([7, 8, 9])}, actions=np.array([1, 0]))
    with writer_of(tmp_path, observation_space=space, action_space=gym.spaces.Discrete(2)) as writer:
        writer.write([episode])
    data = minari.MinariDataset(tmp_path / "data")[0]
    assert np.array_equal(data.observations["near"], np.eye(3))
    assert data.observations["far"].tolist() == [7, 8, 9]
    assert data.actions.tolist() == [1, 0]
