"""Small episodes for the tests of the log, and what it means for two to be the same."""

from pathlib import Path

import gymnasium as gym
import numpy as np

from offline_eval.datasets.log import ShardWriter
from offline_eval.datasets.recorder import LoggedEpisode

OBSERVATIONS = gym.spaces.Box(-1, 1, (2,), np.float64)
ACTIONS = gym.spaces.Box(-1, 1, (1,))


def writer_of(folder, **changes) -> ShardWriter:
    arguments = {"env_id": "Toy-v0", "observation_space": OBSERVATIONS, "action_space": ACTIONS} | changes
    return ShardWriter(folder, **arguments)


def episode_of(key=None, value=0.0, steps=2, **changes) -> LoggedEpisode:
    actions = np.full((steps, 1), value, dtype=np.float32)
    ends = np.arange(1, steps + 1) == steps
    fields = {
        "observations": np.arange(2.0 * steps + 2).reshape(-1, 2) + value,
        "policy_actions": actions,
        "actions": actions,
        "rewards": np.arange(steps) + value,
        "terminated": np.zeros(steps, dtype=bool),
        "truncated": ends,
        "key": key,
    }
    return LoggedEpisode(**fields | changes)


def assert_same(one: LoggedEpisode, other: LoggedEpisode) -> None:
    assert (one.seed, one.options, one.key, dict(one.metadata)) == (
        other.seed,
        other.options,
        other.key,
        dict(other.metadata),
    )
    pairs = [(one.states, other.states)]
    names = ("policy_actions", "actions", "rewards", "terminated", "truncated")
    pairs.append(({name: getattr(one, name) for name in names}, {name: getattr(other, name) for name in names}))
    if isinstance(one.observations, dict):
        pairs.append((one.observations, other.observations))
    else:
        pairs.append(({"observations": one.observations}, {"observations": other.observations}))
    for expected, found in pairs:
        assert expected.keys() == found.keys()
        for name, array in expected.items():
            assert array.dtype == found[name].dtype, name
            assert np.array_equal(array, found[name], equal_nan=array.dtype.kind == "f"), name


def shard_files(folder) -> list[Path]:
    return sorted((folder / "data" / "shards").glob("*.hdf5"))
