"""The flat HDF5 layout of D4RL: one row a step, `terminals` and `timeouts` as flags.

Layout: observations, actions, rewards, terminals and, optionally, timeouts and next_observations at the root; other
names that people give these are read, too (`offline_eval.datasets.columns`), d3rlpy's first version among them, which
has `episode_terminals` and says in `discrete_action` that actions are choices. What a
reader has to know (D4RL issues 145 and 204): the row of a timeout is followed by the next episode's first observation,
so that without `next_observations` the state it led to is not in the file. Such a step is kept (its reward belongs to
the return), but it is not a transition.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from gymnasium import Space

from offline_eval.datasets.arrays import from_rows
from offline_eval.datasets.columns import REQUIRED, not_used, rows_of
from offline_eval.datasets.hdf5 import array_of, reading_hdf5, writing_hdf5
from offline_eval.datasets.ogbench import has_final_rows
from offline_eval.datasets.records import Source
from offline_eval.datasets.references import time_limit_of
from offline_eval.datasets.rows import Rows
from offline_eval.datasets.space_json import space_from_json, space_to_json
from offline_eval.datasets.store import Place, in_memory, row_blocks
from offline_eval.datasets.trajectories import Dataset
from offline_eval.errors import DatasetError, bare

_KNOWN = "infos/next_observation_known"
_CHOICES = "discrete_action"


def read_d4rl(
    path: str | os.PathLike[str],
    observation_space: Space[Any] | None = None,
    action_space: Space[Any] | None = None,
    max_episode_steps: int | None = None,
    place: Place = in_memory,
    transitions: bool = False,
) -> Dataset:
    """Read a flat HDF5 file; NaN passes (see `Dataset.check_finite`).

    Args:
        path: the file.
        observation_space: where the file, as D4RL's own, has none.
        action_space: the same; else that of the environment which the file names (`known_spaces`), else inferred.
        max_episode_steps: cuts episodes of a file without timeouts and next observations; known for D4RL's names.
        place: where the large arrays go.
        transitions: every row is a transition of its own.

    Raises:
        DatasetError: the file is truncated, is of another layout, or does not say where episodes end.
    """
    with open_rows(path) as (rows, source, stated):
        if max_episode_steps is not None:
            source = replace(source, max_episode_steps=max_episode_steps)
        return from_rows(
            rows,
            observation_space if observation_space is not None else stated.get("observation_space"),
            action_space if action_space is not None else stated.get("action_space"),
            source,
            place,
            transitions,
        )


@contextmanager
def open_rows(path: str | os.PathLike[str]) -> Iterator[tuple[Rows, Source, dict[str, Space[Any]]]]:
    """The rows of a flat HDF5 file while it is open, where they come from, and the spaces that it states."""
    with reading_hdf5(path) as file:
        if isinstance(file.get("observations"), h5py.Group):
            received = bare(f"{path} with a group observations: {', '.join(sorted(file['observations'])) or 'empty'}")
            way_out = "dict observations are not read from this layout: write a Minari folder, or flatten them"
            raise DatasetError("path", "must hold observations as one array (flat D4RL layout)", received, way_out)
        arrays = {name: array for name in file if (array := array_of(file, name)) is not None and array.shape}
        missing = [name for name in REQUIRED if name not in arrays]
        if missing and not (missing == ["rewards"] and "next_observations" in arrays):
            raise DatasetError(
                "path",
                f"must hold {', '.join(REQUIRED)} at its root (flat D4RL layout)",
                bare(f"{path} with {', '.join(sorted(file)) or 'nothing'}"),
                f"{', '.join(missing)} not found",
            )
        if _CHOICES in file and array_of(file, _CHOICES) is not None and bool(file[_CHOICES][()]):
            arrays["actions"] = _choices(arrays["actions"])
        if "is_last" in arrays and has_final_rows(arrays):
            way_out = "save the arrays with np.savez; if it flags the last step, name it terminals or timeouts"
            raise DatasetError("is_last", "is read from .npz only, as RLDS's final rows", str(path), way_out)
        rows, notes = rows_of(arrays, array_of(file, _KNOWN))
        others = [name for name in file if name not in arrays and name != _CHOICES]
        attributes = dict(file.attrs)
        env_id = str(attributes.get("env_id") or Path(path).stem)
        limit = attributes.get("max_episode_steps")
        if limit is not None:
            limit = int(limit) if np.ndim(limit) == 0 and float(limit).is_integer() else limit
        source = Source(
            format="d4rl",
            path=str(path),
            env_id=env_id,
            max_episode_steps=limit or time_limit_of(env_id),
            notes=(*_notes(rows), *notes, *not_used(_beside_known(file, others), ())),
        )
        spaces = {
            name: space_from_json(attributes[name])
            for name in ("observation_space", "action_space")
            if name in attributes
        }
        yield rows, source, spaces


def _choices(actions: Any) -> Any:
    """Actions that the file calls discrete, as whole numbers; as they are where they are none."""
    values = np.asarray(actions[()])
    if values.dtype.kind != "f" or not np.array_equal(values, np.round(values)):
        return actions
    return values.astype(np.int64)


def _beside_known(file: h5py.File, names: list[str]) -> dict[str, Any]:
    """Groups of a file by name, but for one in which only `_KNOWN` lies."""
    folder, _, leaf = _KNOWN.partition("/")
    return {name: None for name in names if not (name == folder and list(file[name]) == [leaf])}


def _notes(rows: Rows) -> tuple[str, ...]:
    notes = []
    if rows.next_observations is None:
        notes.append(
            "the file has no next_observations: the last step of an episode that was cut counts for its return and "
            "length, but is no transition"
        )
    if rows.timeouts is None:
        notes.append("the file has no timeouts: episode ends are inferred")
    return tuple(notes)


def write_d4rl(dataset: Dataset, path: str | os.PathLike[str]) -> Path:
    """Write the flat HDF5 layout, contiguous and uncompressed, with the spaces as attributes (JSON) of the root.

    `timeouts` marks every end that is not terminal. Where no final observation is known there is no
    `next_observations`, as in D4RL's own files; where only some are, `infos/next_observation_known` says which.

    Raises:
        DatasetError: dict observations, which the layout cannot hold.
        StorageError: the file could not be written.
    """
    if isinstance(dataset.store.observations, dict):
        way_out = "write the Minari layout, or flatten the observations first"
        raise DatasetError("dataset", "must have flat observations for the D4RL layout", bare("a dict"), way_out)
    observations, known = dataset.store.observations, dataset.final_known
    rows = dataset.step_rows + np.repeat(dataset.numbers, dataset.lengths)
    with writing_hdf5(path) as file:
        for name, index in {"observations": rows, "next_observations": rows + 1}.items():
            if name == "observations" or known.any():
                target = file.create_dataset(name, (len(rows), *observations.shape[1:]), observations.dtype)
                for block in row_blocks(observations, len(rows)):
                    target[block] = observations[index[block]]
        file.create_dataset("actions", data=dataset.actions)
        file.create_dataset("rewards", data=dataset.rewards)
        file.create_dataset("terminals", data=dataset.terminated)
        file.create_dataset("timeouts", data=dataset.truncated)
        if known.any() and not known.all():
            per_step = np.ones(len(rows), bool)
            per_step[dataset.offsets[1:] - 1] = known
            file.create_dataset(_KNOWN, data=per_step)
        file.attrs.update(_attributes(dataset))
    return Path(path)


def _attributes(dataset: Dataset) -> dict[str, Any]:
    source = dataset.source
    stated = {"observation_space": space_to_json(dataset.observation_space)}
    if not source.assumed_action_space:
        stated["action_space"] = space_to_json(dataset.action_space)
    optional = {"env_id": source.env_id, "max_episode_steps": source.max_episode_steps}
    return stated | {name: value for name, value in optional.items() if value is not None}
