"""The flat HDF5 layout of D4RL: one row a step, `terminals` and `timeouts` as flags.

Layout: observations, actions, rewards, terminals and, optionally, timeouts and next_observations at the root. What a
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

from offline_eval.datasets.arrays import Rows, from_rows
from offline_eval.datasets.hdf5 import reading_hdf5, writing_hdf5
from offline_eval.datasets.records import Source
from offline_eval.datasets.references import time_limit_of
from offline_eval.datasets.space_json import space_from_json, space_to_json
from offline_eval.datasets.store import Place, in_memory, row_blocks
from offline_eval.datasets.trajectories import Dataset
from offline_eval.errors import DatasetError, bare

_REQUIRED = ("observations", "actions", "rewards")
_OPTIONAL = ("terminals", "timeouts", "next_observations")
_KNOWN = "infos/next_observation_known"


def read_d4rl(
    path: str | os.PathLike[str],
    observation_space: Space[Any] | None = None,
    action_space: Space[Any] | None = None,
    max_episode_steps: int | None = None,
    place: Place = in_memory,
) -> Dataset:
    """Read a flat HDF5 file; NaN passes (see `Dataset.check_finite`).

    Args:
        path: the file.
        observation_space: where the file, as D4RL's own, has none.
        action_space: the same; else that of the environment which the file names (`known_spaces`), else inferred.
        max_episode_steps: cuts episodes of a file without timeouts and next observations; known for D4RL's names.
        place: where the large arrays go.

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
        )


@contextmanager
def open_rows(path: str | os.PathLike[str]) -> Iterator[tuple[Rows, Source, dict[str, Space[Any]]]]:
    """The rows of a flat HDF5 file while it is open, where they come from, and the spaces that it states."""
    with reading_hdf5(path) as file:
        if isinstance(file.get("observations"), h5py.Group):
            received = bare(f"{path} with a group observations: {', '.join(sorted(file['observations'])) or 'empty'}")
            way_out = "dict observations are not read from this layout: write a Minari folder, or flatten them"
            raise DatasetError("path", "must hold observations as one array (flat D4RL layout)", received, way_out)
        missing = [name for name in _REQUIRED if not isinstance(file.get(name), h5py.Dataset)]
        if missing:
            raise DatasetError(
                "path",
                f"must hold {', '.join(_REQUIRED)} at its root (flat D4RL layout)",
                bare(f"{path} with {', '.join(sorted(file)) or 'nothing'}"),
                f"{', '.join(missing)} not found",
            )
        found = {name: file[name] for name in (*_REQUIRED, *_OPTIONAL) if isinstance(file.get(name), h5py.Dataset)}
        rows = Rows(**found, next_observation_known=file.get(_KNOWN))
        attributes = dict(file.attrs)
        env_id = str(attributes.get("env_id") or Path(path).stem)
        limit = attributes.get("max_episode_steps") or time_limit_of(env_id)
        source = Source(
            format="d4rl",
            path=str(path),
            env_id=env_id,
            max_episode_steps=None if limit is None else int(limit),
            notes=_notes(rows),
        )
        spaces = {
            name: space_from_json(attributes[name])
            for name in ("observation_space", "action_space")
            if name in attributes
        }
        yield rows, source, spaces


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
