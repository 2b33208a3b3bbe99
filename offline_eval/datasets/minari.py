"""Minari's HDF5 layout, read and written without Minari: a group an episode, T + 1 observations, T of everything else.

::

    <folder>/data/metadata.json     spaces and environment as JSON
    <folder>/data/main_data.hdf5    episode_0, episode_1, ...: observations, actions, rewards, terminations, truncations

Versions 0.3 and 0.4 have no metadata.json: the same words are attributes of the main file. An episode may be a link
into another file; the logs of `offline_eval.datasets.log` are laid out like that.
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
from h5py import h5d

from offline_eval.datasets.arrays import assemble, stacked
from offline_eval.datasets.columns import not_used
from offline_eval.datasets.confined import bounded, file_within
from offline_eval.datasets.hdf5 import check_array, read_array, read_observations, reading_hdf5, writing_hdf5
from offline_eval.datasets.records import Source, Trajectory
from offline_eval.datasets.rows import as_flags
from offline_eval.datasets.space_json import space_from_json, space_to_json
from offline_eval.datasets.store import Place, Store, in_memory
from offline_eval.datasets.trajectories import Dataset
from offline_eval.datasets.writing import new_folder
from offline_eval.errors import DatasetError, bare

MAIN_FILE, METADATA_FILE = "main_data.hdf5", "metadata.json"
_KNOWN = "final_observation_known"
_PARTS = frozenset({"observations", "actions", "rewards", "terminations", "truncations"})
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
    main = main_file(path)
    if main is None:
        raise DatasetError("path", f"must hold {MAIN_FILE}, or a folder `data` that does", str(path))
    metadata = _metadata(main)
    episodes = list(_episodes(main, metadata))
    stated = {
        name: space_from_json(metadata[name]) for name in ("observation_space", "action_space") if name in metadata
    }
    others: set[str] = set()
    store = _read_store(episodes, bounded(place, main.parent), main.parent, others)
    source = _source(path, metadata, not_used(dict.fromkeys(others), ()))
    dataset = assemble(store, stated.get("observation_space"), stated.get("action_space"), source)
    return dataset.for_spaces(observation_space, action_space)


def main_file(path: str | os.PathLike[str]) -> Path | None:
    """The main file, given that, its folder or the folder above; None where there is none.

    A file of another name counts where it is HDF5 with `episode_0` in it, as main files of older versions are.
    """
    path = Path(path)
    if path.is_file():
        return path if path.name == MAIN_FILE or _has_episodes(path) else None
    for folder in (path, path / "data"):
        if (folder / METADATA_FILE).is_file() or (folder / MAIN_FILE).is_file():
            return folder / MAIN_FILE
    return None


def _has_episodes(path: Path) -> bool:
    with suppress(Exception), h5py.File(path, "r") as file:  # what is no HDF5 file is none of Minari's
        return "episode_0" in file
    return False


def _metadata(main: Path) -> dict[str, Any]:
    """What `metadata.json` says; where there is none, what the attributes of the main file say."""
    described = main.parent / METADATA_FILE
    if not os.path.lexists(described):
        with reading_hdf5(main) as file:
            attributes = dict(file.attrs)
        return {name: value.item() if isinstance(value, np.generic) else value for name, value in attributes.items()}
    try:
        metadata = json.loads(file_within(main.parent, described).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DatasetError("path", f"must hold a readable {METADATA_FILE} ({error})", str(main.parent)) from error
    if not isinstance(metadata, dict):
        raise DatasetError("path", f"must hold a {METADATA_FILE} that is an object", bare(type(metadata).__name__))
    if metadata.get("data_format", "hdf5") != "hdf5":
        way_out = "read it with Minari and write it again with data_format='hdf5'"
        raise DatasetError("path", "must be in Minari's HDF5 layout", metadata["data_format"], way_out)
    return metadata


def _episodes(main: Path, metadata: Mapping[str, Any]) -> Iterator[_Episode]:
    """Where each episode lies, in order; links are followed here, so that a missing file is named."""
    folder = main.parent
    if "offline_eval" in metadata and (folder / "shards").is_dir():
        # A log whose writer was killed can be ahead of its index.
        from offline_eval.datasets.log import open_log

        yield from (_Episode(folder / "shards" / entry.shard, entry.group) for entry in open_log(folder.parent).entries)
        return
    with reading_hdf5(main) as file:
        names = [name for name in file if re.fullmatch(r"episode_\d+", name)]
        for name in sorted(names, key=lambda name: int(name.rpartition("_")[2])):
            link = file.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                yield _Episode(folder / link.filename, link.path)
            else:
                yield _Episode(main, name)


def _groups(episodes: list[_Episode], folder: Path) -> Iterator[tuple[int, Any]]:
    """Number and group of each episode; a file is open while its episodes follow one another."""
    numbered = enumerate(episodes)
    for path, part in groupby(numbered, key=lambda item: item[1].file):
        with reading_hdf5(path, folder) as file:
            for number, episode in part:
                group = file.get(episode.group)
                if not isinstance(group, h5py.Group):
                    raise DatasetError("path", f"must hold the episode {episode.group}", str(path))
                yield number, group


def _read_store(episodes: list[_Episode], place: Place, folder: Path, others: set[str]) -> Store:
    lengths = np.zeros(len(episodes), np.int64)
    for number, group in _groups(episodes, folder):
        if "rewards" not in group:
            raise DatasetError("path", "must have rewards in every episode", bare(f"{group.file.filename}{group.name}"))
        rewards = h5d.open(group.id, b"rewards")
        check_array(rewards, f"{group.name}/rewards", folder)
        lengths[number] = rewards.shape[0]
        others.update(set(group) - _PARTS)
    return stacked(lengths, (_read_episode(group) for _, group in _groups(episodes, folder)), place)


def _read_episode(group: Any) -> Trajectory:
    missing = _PARTS - set(group)
    if missing:
        where = bare(f"{group.file.filename}{group.name} without {', '.join(sorted(missing))}")
        raise DatasetError("path", "must be in Minari's HDF5 layout", where)
    return Trajectory(
        read_observations(group, "observations"),
        read_array(group, "actions"),
        read_array(group, "rewards"),
        as_flags(f"{group.name}/terminations", read_array(group, "terminations")),
        as_flags(f"{group.name}/truncations", read_array(group, "truncations")),
        bool(group.attrs.get(_KNOWN, True)),
    )


def _source(path: str | os.PathLike[str], metadata: Mapping[str, Any], notes: list[str]) -> Source:
    spec: Any = {}
    with suppress(KeyError, ValueError, TypeError, RecursionError):
        spec = json.loads(metadata["env_spec"])
    spec = spec if isinstance(spec, dict) else {}
    ours = metadata.get("offline_eval", {})
    if not isinstance(ours, dict):
        raise DatasetError("path", f"must have an object as offline_eval in {METADATA_FILE}", ours)
    minimum, maximum = metadata.get("ref_min_score"), metadata.get("ref_max_score")
    return Source(
        format="minari",
        path=str(path),
        env_id=ours.get("env_id") or spec.get("id") or metadata.get("dataset_id"),
        max_episode_steps=ours.get("max_episode_steps") or spec.get("max_episode_steps"),
        reference_returns=None if minimum is None or maximum is None else (float(minimum), float(maximum)),
        notes=tuple(notes),
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
