"""Shards: immutable HDF5 files, each with the episodes that finished together.

::

    episode_<key>/              the plan entry's index; unkeyed_<n> for an episode without one. Minari's layout:
        observations            (T + 1, ...), or a group of those for dict observations
        actions                 (T, ...) as executed
        rewards, terminations, truncations
        infos/policy_actions    (T, ...), the same data set as `actions` where nothing steered
        infos/<part>            (T + 1, ...) of the simulator's state: qpos, qvel, ...
        attributes              total_steps; id (the key) and seed where they are known
    attribute `episodes`        JSON, a list: group, key, seed, steps, options and metadata of each

A shard is built in memory, written beside its place, flushed to the disk and renamed. HDF5 never sees the disk, so
that a full one shows where it can be handled, and no moment exists at which a kill leaves half a shard behind.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5s, h5t

from offline_eval.datasets.hdf5 import read_array, read_observations, reading_hdf5
from offline_eval.datasets.recorder import LoggedEpisode
from offline_eval.datasets.rows import as_flags
from offline_eval.errors import StorageError
from offline_eval.types import Array

SUFFIX = ".hdf5"

_POLICY_ACTIONS = "policy_actions"
_LEAST_IMAGE = 1 << 16


class Entry(NamedTuple):
    """Where an episode lies, and what is asked about it most."""

    shard: str
    group: str
    key: int | None
    seed: int | None
    steps: int


def encode_shard(name: str, episodes: Sequence[LoggedEpisode]) -> tuple[bytes, list[Entry]]:
    """The content of a shard of that file name with these episodes, and its entries.

    Raises:
        TypeError: an array that is not made of numbers.
    """
    contents = [_describe(episode, position) for position, episode in enumerate(episodes)]
    size = sum(array.nbytes for episode in episodes for _, array in _arrays(episode))
    # Room for everything at once: HDF5 would otherwise grow its image in small steps.
    block = max(_LEAST_IMAGE, size + size // 8)
    with h5py.File("shard", "w", driver="core", backing_store=False, block_size=block) as file:
        for episode, about in zip(episodes, contents, strict=True):
            _write_episode(h5g.create(file.id, about["group"].encode()), episode)
        file.attrs["episodes"] = json.dumps(contents)
        file.flush()
        image: bytes = file.id.get_file_image()
    return image, _entries(name, contents)


def read_entries(path: Path) -> list[Entry]:
    """What a shard holds, in its order.

    Raises:
        StorageError: the file is not a shard, or a damaged one.
    """
    try:
        with reading_hdf5(path) as file:
            contents = json.loads(file.attrs["episodes"])
        return _entries(path.name, contents)
    except Exception as error:  # a damaged file fails in as many ways as there are files
        raise _unreadable(path, error) from error


def read_episode(path: Path, group: str) -> LoggedEpisode:
    """One episode of a shard.

    Raises:
        StorageError: the file is not a shard, or a damaged one.
    """
    try:
        with reading_hdf5(path) as file:
            about = next(about for about in json.loads(file.attrs["episodes"]) if about["group"] == group)
            return _read_episode(file[group], about)
    except Exception as error:  # as above
        raise _unreadable(path, error) from error


def _entries(shard: str, contents: list[dict[str, Any]]) -> list[Entry]:
    return [checked_entry(shard, about["group"], about["key"], about["seed"], about["steps"]) for about in contents]


def checked_entry(shard: Any, group: Any, key: Any, seed: Any, steps: Any) -> Entry:
    """An entry from a file, once its parts are of their kinds.

    Raises:
        TypeError: they are not.
    """
    if not (isinstance(shard, str) and isinstance(group, str) and isinstance(steps, int)):
        raise TypeError(f"no entry of a shard: {(shard, group, steps)}")
    if not (isinstance(key, int | None) and isinstance(seed, int | None)):
        raise TypeError(f"no key or seed of an episode: {(key, seed)}")
    return Entry(shard, group, key, seed, steps)


def _describe(episode: LoggedEpisode, position: int) -> dict[str, Any]:
    group = f"unkeyed_{position}" if episode.key is None else f"episode_{episode.key}"
    return {
        "group": group,
        "key": episode.key,
        "seed": episode.seed,
        "steps": len(episode),
        "options": None if episode.options is None else json.loads(json.dumps(episode.options, default=_plain)),
        "metadata": json.loads(json.dumps(episode.metadata, default=_plain)),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return repr(value)


def _arrays(episode: LoggedEpisode) -> list[tuple[str, Array]]:
    """The data sets of an episode by their path, but for policy actions that are the executed ones."""
    observations = episode.observations
    if isinstance(observations, dict):
        arrays = [(f"observations/{key}", rows) for key, rows in observations.items()]
    else:
        arrays = [("observations", observations)]
    arrays += [
        ("actions", episode.actions),
        ("rewards", episode.rewards),
        ("terminations", episode.terminated),
        ("truncations", episode.truncated),
    ]
    if episode.policy_actions is not episode.actions:
        arrays.append((f"infos/{_POLICY_ACTIONS}", episode.policy_actions))
    return arrays + [(f"infos/{name}", rows) for name, rows in episode.states.items()]


def _write_episode(group: Any, episode: LoggedEpisode) -> None:
    # h5py's low-level interface: the high-level one takes twice the time, which short episodes would notice.
    groups = {"infos": h5g.create(group, b"infos")}
    if isinstance(episode.observations, dict):
        groups["observations"] = h5g.create(group, b"observations")
    for name, array in _arrays(episode):
        parent, _, leaf = name.rpartition("/")
        _write_array(groups[parent] if parent else group, leaf, array)
    if episode.policy_actions is episode.actions:
        groups["infos"].links.create_hard(_POLICY_ACTIONS.encode(), group, b"actions")
    for name, number in (("id", episode.key), ("seed", episode.seed), ("total_steps", len(episode))):
        if number is not None:
            attribute = h5a.create(group, name.encode(), h5t.NATIVE_INT64, h5s.create(h5s.SCALAR))
            attribute.write(np.asarray(number, dtype=np.int64))


def _write_array(parent: Any, name: str, array: Array) -> None:
    array = np.ascontiguousarray(array)
    datatype = h5t.py_create(array.dtype, logical=True)
    h5d.create(parent, name.encode(), datatype, h5s.create_simple(array.shape)).write(h5s.ALL, h5s.ALL, array)


def _read_episode(group: Any, about: Mapping[str, Any]) -> LoggedEpisode:
    infos = group["infos"]
    actions = read_array(group, "actions")
    steered = infos[_POLICY_ACTIONS] != group["actions"]
    return LoggedEpisode(
        observations=read_observations(group, "observations"),
        policy_actions=read_array(infos, _POLICY_ACTIONS) if steered else actions,
        actions=actions,
        rewards=read_array(group, "rewards"),
        terminated=as_flags("terminations", read_array(group, "terminations")),
        truncated=as_flags("truncations", read_array(group, "truncations")),
        seed=about["seed"],
        options=about["options"],
        key=about["key"],
        states={name: read_array(infos, name) for name in infos if name != _POLICY_ACTIONS},
        metadata=about["metadata"],
    )


def _unreadable(path: Path, error: Exception) -> StorageError:
    return StorageError(
        f"`{path}` is not a readable shard ({error}): move it out of the folder, and the other episodes open"
    )
