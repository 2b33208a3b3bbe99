"""Minari itself and we: its data collector's data sets read here, ours read there."""

import gc

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from offline_eval.datasets.arrays import from_trajectories
from offline_eval.datasets.log import ShardWriter
from offline_eval.datasets.minari import write_minari
from offline_eval.datasets.opening import open_dataset
from offline_eval.datasets.recorder import LoggedEpisode

minari = pytest.importorskip("minari", reason="Minari is not installed")

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:minari", "ignore::DeprecationWarning"),
    # Its collector leaves a temporary folder to the garbage collector.
    pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning"),
]


class Goals(gymnasium.Env):
    """Dict observations that count steps and episodes; ends by itself after three steps in every other episode."""

    observation_space = spaces.Dict(
        {"seen": spaces.Box(-9, 9, (2,), np.float32), "goal": spaces.Box(-1, 1, (1,), np.float64)}
    )
    action_space = spaces.MultiDiscrete([3, 2], start=[-1, 0])
    episodes = steps = 0

    def observation(self):
        return {"seen": np.float32([self.steps, self.episodes]), "goal": np.array([0.5])}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.episodes = 0, self.episodes + 1
        return self.observation(), {"won": False}

    def step(self, action):
        self.steps += 1
        return self.observation(), float(action[0]), self.steps == 3 and self.episodes % 2 == 0, False, {"won": True}


def collected(env, monkeypatch, folder, name, **words):
    """What Minari's own collector recorded of three episodes, as Minari opens it, and its folder."""
    pytest.importorskip("jax", reason="Minari's data collector needs jax: minari[create]")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder))
    collector = minari.DataCollector(env, **words)
    collector.action_space.seed(0)
    for seed in range(3):
        collector.reset(seed=seed)
        ended = False
        while not ended:
            *_, terminated, truncated, _ = collector.step(collector.action_space.sample())
            ended = terminated or truncated
    theirs = collector.create_dataset(dataset_id=f"ours/{name}-v0", algorithm_name="random")
    collector.close()
    del collector
    gc.collect()
    return theirs, folder / "ours" / f"{name}-v0"


def assert_same(ours, theirs):
    for mine, episode in zip(ours, theirs.iterate_episodes(), strict=True):
        pairs = [(mine.observations, episode.observations)]
        if isinstance(mine.observations, dict):
            assert set(mine.observations) == set(episode.observations)
            pairs = [(mine.observations[key], episode.observations[key]) for key in mine.observations]
        pairs += [(mine.actions, episode.actions), (mine.rewards, episode.rewards)]
        pairs += [(mine.terminated, episode.terminations), (mine.truncated, episode.truncations)]
        for one, other in pairs:
            assert np.array_equal(one, np.asarray(other, one.dtype))


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "FrozenLake-v1"])
def test_we_read_what_its_collector_recorded(tmp_path, monkeypatch, env_id):
    env = gymnasium.make(env_id, max_episode_steps=9)
    theirs, folder = collected(env, monkeypatch, tmp_path, env_id.split("-")[0].lower())
    ours = open_dataset(folder)
    assert_same(ours, theirs)
    assert (ours.observation_space, ours.action_space) == (theirs.observation_space, theirs.action_space)
    assert (ours.source.env_id, ours.source.max_episode_steps) == (env_id, 9)


def test_we_read_dicts_and_choices_that_do_not_begin_at_0(tmp_path, monkeypatch):
    env = gymnasium.wrappers.TimeLimit(Goals(), 5)
    theirs, folder = collected(env, monkeypatch, tmp_path, "goals", record_infos=True)
    ours = open_dataset(folder)
    assert_same(ours, theirs)
    assert ours.action_space == Goals.action_space
    assert ours.lengths.tolist() == [5, 3, 5]
    assert ours.actions.min() == -1
    assert ours.source.notes == ("not used: infos",)


def test_it_reads_what_we_write(tmp_path):
    generator = np.random.default_rng(0)
    space = spaces.Dict({key: spaces.Box(-9, 9, (size,), np.float32) for key, size in (("a", 2), ("b", 1))})
    parts = [
        {
            "observations": {
                key: generator.normal(size=(length + 1, part.shape[0])).astype(np.float32)
                for key, part in space.items()
            },
            "actions": generator.integers(-1, 2, length),
            "rewards": generator.normal(size=length).astype(np.float32),
            "terminated": np.arange(length) == (length - 1 if length == 4 else -1),
            "truncated": np.arange(length) == (length - 1 if length != 4 else -1),
        }
        for length in (4, 2, 5)
    ]
    ours = from_trajectories(parts, observation_space=space, action_space=spaces.Discrete(3, start=-1))
    theirs = minari.MinariDataset(write_minari(ours, tmp_path / "ours-v1") / "data")
    assert_same(ours, theirs)
    assert (theirs.observation_space, theirs.action_space) == (space, spaces.Discrete(3, start=-1))
    assert theirs.total_steps == 11


def test_it_reads_a_log_and_the_same_episodes_as_we(tmp_path):
    space, generator = spaces.Box(-9, 9, (2,), np.float32), np.random.default_rng(0)
    with ShardWriter(tmp_path / "log", env_id=None, observation_space=space, action_space=space) as writer:
        for key, length in enumerate((3, 5)):
            actions = generator.normal(size=(length, 2)).astype(np.float32)
            ends = np.arange(length) == length - 1
            rewards = np.ones(length, np.float32)
            observations = generator.normal(size=(length + 1, 2)).astype(np.float32)
            episode = LoggedEpisode(observations, actions, actions, rewards, ends, ~ends & False, key=key)
            writer.write([episode])
    assert_same(open_dataset(tmp_path / "log"), minari.MinariDataset(tmp_path / "log" / "data"))
