"""robomimic's HDF5 layout: a group a demonstration, T of everything, dict observations.

::

    data                        attribute env_args: JSON with env_name
    data/demo_0/obs/<key>       (T, ...); next_obs/<key> where the file was made with it
    data/demo_0/actions, rewards, dones

`dones` are taken for terminal states, as robomimic's own algorithms do; its tool sets them at successes, at the end of
every demonstration, or both (`done_mode`), and does not write which.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from gymnasium import Space

from offline_eval.datasets.arrays import assemble, stacked
from offline_eval.datasets.columns import NO_REWARDS, not_used
from offline_eval.datasets.confined import bounded
from offline_eval.datasets.ends import jumps
from offline_eval.datasets.hdf5 import array_of, read_array, read_observations, reading_hdf5
from offline_eval.datasets.records import Source, Trajectory
from offline_eval.datasets.rows import Rows, as_flags
from offline_eval.datasets.store import Place, in_memory, named
from offline_eval.datasets.trajectories import Dataset
from offline_eval.errors import DatasetError, bare

_PARTS = ("obs", "next_obs", "actions", "rewards", "dones")
_DONES = "dones are taken for terminal states, as robomimic does; it may set them at the end of every demonstration"


def is_robomimic(file: h5py.File) -> bool:
    """Whether an HDF5 file is laid out as robomimic's are."""
    group = file.get("data")
    return isinstance(group, h5py.Group) and any(re.fullmatch(r"demo_\d+", name) for name in group)


def read_robomimic(
    path: str | os.PathLike[str],
    observation_space: Space[Any] | None = None,
    action_space: Space[Any] | None = None,
    max_episode_steps: int | None = None,
    place: Place = in_memory,
) -> Dataset:
    """Read a file of demonstrations; NaN passes (see `Dataset.check_finite`).

    Args:
        path: the file.
        observation_space: the data must fit it.
        action_space: inferred where left out.
        max_episode_steps: not used: episodes are told apart.
        place: where the large arrays go.

    Raises:
        DatasetError: the file is damaged, or a demonstration lacks observations or actions.
    """
    with reading_hdf5(path) as file:
        group = file["data"]
        names = sorted((name for name in group if re.fullmatch(r"demo_\d+", name)), key=lambda name: int(name[5:]))
        lengths = np.array([_length(group, name) for name in names], np.int64)
        notes: dict[str, None] = {}  # each once, in order
        others = {f"data/{name}" for name in set(group) - set(names)} | (set(file) - {"data"})
        store = stacked(lengths, _demonstrations(group, names, notes, others), bounded(place, Path(path)))
        arguments: Any = None
        with suppress(ValueError, TypeError, RecursionError):
            arguments = json.loads(group.attrs.get("env_args", ""))
        env_id = arguments.get("env_name") if isinstance(arguments, dict) else None
    source = Source("robomimic", str(path), env_id, notes=(*notes, *not_used(dict.fromkeys(others), ())))
    return assemble(store, observation_space, action_space, source)


def _length(group: Any, name: str) -> int:
    actions = array_of(group, f"{name}/actions")
    if actions is None or not actions.shape:
        raise DatasetError("path", "must have actions in every demonstration", bare(f"{group.file.filename}:{name}"))
    return len(actions)


def _demonstrations(group: Any, names: list[str], notes: dict[str, None], others: set[str]) -> Iterator[Trajectory]:
    """The demonstrations, one after the other; what is found out on the way goes into the notes."""
    for name in names:
        demo = group[name]
        if "obs" not in demo:
            way_out = "make them with robomimic's dataset_states_to_obs.py: the file has states only"
            raise DatasetError(
                "path", "must have obs in every demonstration", bare(f"{name} of {demo.file.filename}"), way_out
            )
        others |= set(demo) - set(_PARTS)
        observations, actions = read_observations(demo, "obs"), read_array(demo, "actions")
        count = len(actions)
        rewards = read_array(demo, "rewards") if "rewards" in demo else np.zeros(count, np.float32)
        dones = as_flags(f"{name}/dones", read_array(demo, "dones")) if "dones" in demo else np.zeros(count, bool)
        notes |= {_DONES: None} if "dones" in demo else {}
        notes |= {} if "rewards" in demo else {NO_REWARDS: None}
        following = read_observations(demo, "next_obs") if "next_obs" in demo else None
        rows = Rows(observations, actions, rewards, dones, None, following).checked()
        if following is None:
            notes |= {"demonstrations without next_obs: their last step is no transition, unless it terminated": None}
        elif (jumps(rows) & ~rows.terminals).any():
            note = f"{name}: next_obs do not repeat the following row's obs, and are taken for the last step only"
            notes |= {note: None}
        yield _with_final(rows)


def _with_final(rows: Rows) -> Trajectory:
    last = rows.observations if rows.next_observations is None else rows.next_observations
    final = dict(named("", last))
    parts = {name: np.concatenate([part, final[name][-1:]]) for name, part in named("", rows.observations)}
    is_dict = isinstance(rows.observations, dict)
    return Trajectory(
        {name[1:-1]: part for name, part in parts.items()} if is_dict else parts[""],
        rows.actions,
        rows.rewards,
        rows.terminals,
        np.zeros(len(rows), bool),
        rows.next_observations is not None,
    )
