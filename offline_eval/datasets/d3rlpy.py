"""The HDF5 layout of d3rlpy's ReplayBuffer.dump (version 2): `observations_0`, `actions_0`, ... an episode.

An episode has T rows of everything and one flag, whether it terminated; its final observation is not in the file. What
d3rlpy's first version dumped is flat rows (`offline_eval.datasets.d4rl`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from gymnasium import Space

from offline_eval.datasets.arrays import assemble, stacked
from offline_eval.datasets.columns import not_used
from offline_eval.datasets.confined import bounded
from offline_eval.datasets.hdf5 import array_of, read_array, reading_hdf5
from offline_eval.datasets.records import Source, Trajectory
from offline_eval.datasets.rows import as_flags
from offline_eval.datasets.store import Place, in_memory
from offline_eval.datasets.trajectories import Dataset
from offline_eval.errors import DatasetError, bare
from offline_eval.types import Array

_COLUMNS = ("observations", "actions", "rewards", "terminated")
_CUT = "the file has no final observations: the last step of an episode that was cut is no transition"


def is_d3rlpy(file: h5py.File) -> bool:
    """Whether an HDF5 file is laid out as d3rlpy's second version dumps it."""
    return "observations" not in file and "num_episodes" in file and "actions_0" in file


def read_d3rlpy(
    path: str | os.PathLike[str],
    observation_space: Space[Any] | None = None,
    action_space: Space[Any] | None = None,
    max_episode_steps: int | None = None,
    place: Place = in_memory,
) -> Dataset:
    """Read what `ReplayBuffer.dump` of d3rlpy 2 wrote; NaN passes (see `Dataset.check_finite`).

    Args:
        path: the file.
        observation_space: the data must fit it.
        action_space: inferred where left out.
        max_episode_steps: not used: episodes are told apart.
        place: where the large arrays go.

    Raises:
        DatasetError: the file is damaged, or an episode lacks a part.
    """
    with reading_hdf5(path) as file:
        stated = array_of(file, "num_episodes")
        numbers = range(sum(name.startswith("actions_") for name in file))
        if stated is None or stated.shape or int(stated[()]) != len(numbers):
            received = bare(f"{len(numbers)} in {path}")
            raise DatasetError("num_episodes", "must be the number of episodes in the file", received)
        lengths = np.array([_length(file, number) for number in numbers], np.int64)
        store = stacked(lengths, _episodes(file, numbers), bounded(place, Path(path)))
        used = [f"{name}_{number}" for name in _COLUMNS for number in numbers]
        others = not_used(dict.fromkeys(file), [*used, "num_episodes", "columns", "version"])
    return assemble(store, observation_space, action_space, Source("d3rlpy", str(path), notes=(_CUT, *others)))


def _length(file: h5py.File, number: int) -> int:
    rewards = array_of(file, f"rewards_{number}")
    if rewards is None or not rewards.shape:
        raise DatasetError("path", f"must hold rewards_{number}", bare(str(file.filename)))
    return len(rewards)


def _episodes(file: h5py.File, numbers: range) -> Iterator[Trajectory]:
    for number in numbers:
        parts = {name: _part(file, f"{name}_{number}") for name in _COLUMNS}
        rewards, actions, ended = parts["rewards"], parts["actions"], as_flags("terminated", parts["terminated"])
        if rewards.shape[1:] == (1,):
            rewards = rewards[:, 0]
        if actions.dtype.kind in "iu" and actions.shape[1:] == (1,):
            actions = actions[:, 0]
        terminated = np.zeros(len(rewards), bool)
        terminated[-1:] = ended.reshape(-1)[-1:]
        observations = parts["observations"]
        yield Trajectory(
            np.concatenate([observations, observations[-1:]]),
            actions,
            rewards,
            terminated,
            np.zeros(len(rewards), bool),
            final_known=False,
        )


def _part(file: h5py.File, name: str) -> Array:
    if f"{name}_0" in file:
        way_out = "dump a buffer whose observations and actions are one array each"
        raise DatasetError("path", f"must hold {name} as one array, no tuple", bare(str(file.filename)), way_out)
    if name not in file:
        raise DatasetError("path", f"must hold {name}", bare(str(file.filename)))
    return read_array(file, name)
