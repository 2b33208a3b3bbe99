"""Minari's HDF5 layout, read and written without Minari: a group an episode, T + 1 observations, T of everything else.

::

    <folder>/data/metadata.json     spaces and environment as JSON
    <folder>/data/main_data.hdf5    episode_0, episode_1, ...: observations, actions, rewards, terminations, truncations

An episode may be a link into another file; the logs of `offline_eval.datasets.log` are laid out like that.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import h5py
import numpy as np
from gymnasium import Space
from h5py import h5d, h5s

from offline_eval.datasets.arrays import assemble, put_trajectory
from offline_eval.datasets.hdf5 import reading_hdf5, writing_hdf5
from offline_eval.datasets.records import Source, Trajectory
from offline_eval.datasets.space_json import space_from_json, space_to_json
from offline_eval.datasets.store import Place, Store, allocate_store, in_memory
from offline_eval.datasets.trajectories import Dataset
from offline_eval.datasets.writing import new_folder
from offline_eval.errors import DatasetError, bare
from offline_eval.types import Array, Observations

MAIN_FILE, METADATA_FILE = "main_data.hdf5", "metadata.json"
_KNOWN = "final_observation_known"
_VERSION = "0.5.0"
"""The earliest version of Minari that reads this layout as it is."""


class _Episode(NamedTuple):
    file: Path
    group: str


def read_minari(
    path: str | os.PathLike[str],
    observation_space: Space[Any] | None = None,
    action_space: Space[Any] | None = None,
    max_episode_steps: int | None = None,
    place: Place = in_memory,
) -> Dataset:
    """Read a Minari folder, or a log that is or was being written; NaN passes (see `Dataset.check_finite`).

    Args:
        path: the data set's folder, its `data` folder, or the main file in it.
        observation_space: must fit the file's own.
        action_space: the same.
        max_episode_steps: not used: episodes are told apart.
        place: where the large arrays go.

    Raises:
        DatasetError: a file is missing or damaged, there are no episodes, or it is Arrow, JPEG frames or nested spaces.
    """
    folder = minari_folder(path)
    if folder is None:
        raise DatasetError(
            "path", f"must hold {MAIN_FILE} and {METADATA_FILE}, or a folder `data` that does", str(path)
        )
    metadata = _metadata(folder)
    episodes = list(_episodes(folder, metadata))
    stated = {
        name: space_from_json(metadata[name]) for name in ("observation_space", "action_space") if name in metadata
    }
    store = _read_store(episodes, place)
    dataset = assemble(store, stated.get("observation_space"), stated.get("action_space"), _source(path, metadata))
    return dataset.for_spaces(observation_space, action_space)


def minari_folder(path: str | os.PathLike[str]) -> Path | None:
    """The folder with the main file, given that, the folder above or the file; None where there is none."""
    path = Path(path)
    for folder in (path, path / "data", path.parent if path.name == MAIN_FILE else path):
        if (folder / METADATA_FILE).is_file():
            return folder
    return None


def _metadata(folder: Path) -> dict[str, Any]:
    try:
        metadata: dict[str, Any] = json.loads((folder / METADATA_FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise DatasetError("path", f"must hold a readable {METADATA_FILE} ({error})", str(folder)) from error
    if metadata.get("data_format", "hdf5") != "hdf5":
        way_out = "read it with Minari and write it again with data_format='hdf5'"
        raise DatasetError("path", "must be in Minari's HDF5 layout", metadata["data_format"], way_out)
    return metadata


def _episodes(folder: Path, metadata: Mapping[str, Any]) -> Iterator[_Episode]:
    """Where each episode lies, in order; links are followed here, so that a missing file is named."""
    if "offline_eval" in metadata and (folder / "shards").is_dir():
        # A log whose writer was killed can be ahead of its index.
        from offline_eval.datasets.log import open_log

        yield from (_Episode(folder / "shards" / entry.shard, entry.group) for entry in open_log(folder.parent).entries)
        return
    main = folder / MAIN_FILE
    with reading_hdf5(main) as file:
        names = [name for name in file if re.fullmatch(r"episode_\d+", name)]
        for name in sorted(names, key=lambda name: int(name.rpartition("_")[2])):
            link = file.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                yield _Episode(folder / link.filename, link.path)
            else:
                yield _Episode(main, name)


def _groups(episodes: list[_Episode]) -> Iterator[tuple[int, Any]]:
    """Number and group of each episode; a file is open while its episodes follow one another."""
    numbered = enumerate(episodes)
    for path, part in groupby(numbered, key=lambda item: item[1].file):
        with reading_hdf5(path) as file:
            for number, episode in part:
                group = file.get(episode.group)
                if not isinstance(group, h5py.Group):
                    raise DatasetError("path", f"must hold the episode {episode.group}", str(path))
                yield number, group


def _read_store(episodes: list[_Episode], place: Place) -> Store:
    lengths, first = np.zeros(len(episodes), np.int64), None
    for number, group in _groups(episodes):
        if "rewards" not in group:
            raise DatasetError("path", "must have rewards in every episode", bare(f"{group.file.filename}{group.name}"))
        lengths[number] = h5d.open(group.id, b"rewards").shape[0]
        if first is None and lengths[number]:
            first = _read_episode(group)
    if first is None:
        raise DatasetError("dataset", "must have at least one step", bare("an empty data set"))
    store = allocate_store(lengths[lengths > 0], first.observations, first.actions, place)
    position = 0
    for number, group in _groups(episodes):
        if lengths[number]:
            put_trajectory(store, position, _read_episode(group))
            position += 1
    return store


def _read_episode(group: Any) -> Trajectory:
    missing = {"observations", "actions", "rewards", "terminations", "truncations"} - set(group)
    if missing:
        where = bare(f"{group.file.filename}{group.name} without {', '.join(sorted(missing))}")
        raise DatasetError("path", "must be in Minari's HDF5 layout", where)
    node = group["observations"]
    observations: Observations = (
        {key: _read(node, key) for key in node} if isinstance(node, h5py.Group) else _read(group, "observations")
    )
    return Trajectory(
        observations,
        _read(group, "actions"),
        _read(group, "rewards"),
        _read(group, "terminations").astype(bool, copy=False),
        _read(group, "truncations").astype(bool, copy=False),
        bool(group.attrs.get(_KNOWN, True)),
    )


def _read(group: Any, name: str) -> Array:
    # h5py's low-level interface: the high-level one takes three times as long, which short episodes notice.
    try:
        dataset = h5d.open(group.id, name.encode())
    except (TypeError, KeyError):
        rule = f"must have arrays as {name} (no nested Dict or Tuple spaces)"
        raise DatasetError("path", rule, group.file.filename, "flatten them with a wrapper") from None
    if dataset.dtype.kind == "O":
        way_out = "write it with jpeg_encoding=False"
        raise DatasetError("path", f"must have numbers as {name}, no JPEG frames or text", group.file.filename, way_out)
    array = np.empty(dataset.shape, dataset.dtype)
    dataset.read(h5s.ALL, h5s.ALL, array)
    return array


def _source(path: str | os.PathLike[str], metadata: Mapping[str, Any]) -> Source:
    spec: dict[str, Any] = {}
    with suppress(KeyError, ValueError, TypeError):
        spec = json.loads(metadata["env_spec"])
    ours = metadata.get("offline_eval", {})
    minimum, maximum = metadata.get("ref_min_score"), metadata.get("ref_max_score")
    return Source(
        format="minari",
        path=str(path),
        env_id=ours.get("env_id") or spec.get("id") or metadata.get("dataset_id"),
        max_episode_steps=ours.get("max_episode_steps") or spec.get("max_episode_steps"),
        reference_returns=None if minimum is None or maximum is None else (float(minimum), float(maximum)),
    )


def write_minari(dataset: Dataset, path: str | os.PathLike[str], dataset_id: str | None = None) -> Path:
    """Write a new Minari folder, which Minari opens as `MinariDataset("<path>/data")`.

    An unknown final observation repeats the one before; the episode then has the attribute
    `final_observation_known` = False, which `read_minari` understands.

    Args:
        dataset: what to write.
        path: the folder; under Minari's root it is also found by its name.
        dataset_id: Minari's name for it; the folder's name, with `-v0` where it has no version, if left out.

    Raises:
        InputError: the folder exists and is not empty.
        StorageError: it could not be written.
    """
    path = Path(path)
    name = re.sub(r"[^-\w]", "-", path.resolve().name)
    with new_folder(path) as temporary:
        data = temporary / "data"
        data.mkdir()
        with writing_hdf5(data / MAIN_FILE) as file:
            for number, trajectory in enumerate(dataset):
                _write_episode(file.create_group(f"episode_{number}"), number, trajectory)
        size = round((data / MAIN_FILE).stat().st_size / 1e6, 1)
        metadata = _new_metadata(dataset) | {
            "dataset_id": dataset_id or (name if re.fullmatch(r".+-v\d+", name) else f"{name}-v0"),
            "dataset_size": size,
        }
        (data / METADATA_FILE).write_text(json.dumps(metadata, indent=1) + "\n", encoding="utf-8")
    return path


def _write_episode(group: Any, number: int, trajectory: Trajectory) -> None:
    observations = trajectory.observations
    arrays = (
        {f"observations/{key}": rows for key, rows in observations.items()}
        if isinstance(observations, dict)
        else {"observations": observations}
    )
    arrays |= {
        "actions": trajectory.actions,
        "rewards": trajectory.rewards,
        "terminations": trajectory.terminated,
        "truncations": trajectory.truncated,
    }
    for name, array in arrays.items():
        group.create_dataset(name, data=array)
    group.attrs["id"] = number
    group.attrs["total_steps"] = len(trajectory)
    if not trajectory.final_known:
        group.attrs[_KNOWN] = False


def _new_metadata(dataset: Dataset) -> dict[str, Any]:
    source = dataset.source
    metadata: dict[str, Any] = {
        "data_format": "hdf5",
        "minari_version": _VERSION,
        "jpeg_encoding": False,
        "total_episodes": len(dataset),
        "total_steps": dataset.num_steps,
        "observation_space": space_to_json(dataset.observation_space),
        "action_space": space_to_json(dataset.action_space),
        "offline_eval": {"env_id": source.env_id, "max_episode_steps": source.max_episode_steps},
    }
    if source.reference_returns is not None:
        metadata |= dict(zip(("ref_min_score", "ref_max_score"), source.reference_returns, strict=True))
    if source.env_id is not None and ":" not in source.env_id:
        with suppress(gymnasium.error.Error, TypeError, ValueError):  # not an environment that is registered here
            metadata["env_spec"] = gymnasium.spec(source.env_id).to_json()
    return metadata
