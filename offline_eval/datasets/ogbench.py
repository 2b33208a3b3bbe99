"""NumPy archives (.npz): OGBench's layout, and flat rows under the names of D4RL or of Gymnasium.

OGBench keeps T + 1 rows a trajectory: the last one, flagged by `terminals`, is the final observation with an action
that was never taken. `terminals` there is the end of the recording, not of the task, so that nothing is terminated.
There are no rewards: the tasks are goal-conditioned, and a reward belongs to a goal.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import Space

from offline_eval.datasets.arrays import Rows, assemble, from_rows
from offline_eval.datasets.records import Source
from offline_eval.datasets.store import Place, allocate_store, fill, in_memory, named
from offline_eval.datasets.trajectories import Dataset
from offline_eval.errors import DatasetError, bare
from offline_eval.types import Array

NO_REWARDS = "the file has no rewards: they are 0 here, and a value learned from them says nothing"


def read_npz(
    path: str | os.PathLike[str],
    observation_space: Space[Any] | None = None,
    action_space: Space[Any] | None = None,
    max_episode_steps: int | None = None,
    place: Place = in_memory,
) -> Dataset:
    """Read a .npz file; NaN passes (see `Dataset.check_finite`).

    It is OGBench's layout where there are `terminals` and neither rewards nor anything else that tells where episodes
    end. Otherwise it is flat rows: observations, actions, rewards, `terminals` or `terminated`, and optionally
    `timeouts` or `truncated`, and next_observations. With `masks`, as OGBench's rows with rewards have them, a step
    terminated where its mask is 0, and `terminals` are episode ends, cut where the mask is 1.

    Args:
        path: the file.
        observation_space: the data must fit it.
        action_space: inferred where left out.
        max_episode_steps: cuts episodes of flat rows without timeouts and next observations.
        place: where the large arrays go.

    Raises:
        DatasetError: the file is damaged, holds pickled objects, or lacks an array.
    """
    with npz_arrays(path) as arrays:
        source = Source("npz", str(path), env_id=Path(path).stem, max_episode_steps=max_episode_steps)
        if ogbench_names(arrays):
            return read_ogbench(arrays, observation_space, action_space, Path(path), place)
        return from_rows(npz_rows(arrays), observation_space, action_space, source, place)


def ogbench_names(names: Any) -> bool:
    """Whether an archive with these arrays is laid out as OGBench's are."""
    others = {"rewards", "timeouts", "truncated", "terminated", "next_observations"}
    return "terminals" in names and others.isdisjoint(names)


def npz_rows(arrays: Mapping[str, Array]) -> Rows:
    """Flat rows from arrays by name."""
    missing = [name for name in ("observations", "actions", "rewards") if name not in arrays]
    if missing:
        rule = "must hold observations, actions and rewards, or OGBench's observations, actions and terminals"
        raise DatasetError(
            "path", rule, bare(", ".join(sorted(arrays)) or "nothing"), f"{', '.join(missing)} not found"
        )
    optional = {
        name: next((arrays[word] for word in words if word in arrays), None)
        for name, words in {
            "terminals": ("terminals", "terminated"),
            "timeouts": ("timeouts", "truncated"),
            "next_observations": ("next_observations",),
        }.items()
    }
    if "masks" in arrays:
        optional |= _masked(arrays["masks"], optional["terminals"], optional["timeouts"])
    return Rows(arrays["observations"], arrays["actions"], arrays["rewards"], **optional)


def _masked(masks: Array, terminals: Array | None, timeouts: Array | None) -> dict[str, Array]:
    """OGBench's flags: a mask of 0 is a terminal state, `terminals` are ends of episodes, most by the time limit."""
    masks = np.asarray(masks).reshape(-1)
    if not np.isin(masks, (0, 1)).all():
        raise DatasetError("masks", "must be 0 (terminated) or 1", masks[~np.isin(masks, (0, 1))][0])
    ends = np.zeros(len(masks), bool)
    for name, flags in {"terminals": terminals, "timeouts": timeouts}.items():
        if flags is not None:
            if np.size(flags) != len(masks):
                raise DatasetError(name, f"must have one row a mask ({len(masks)})", np.shape(flags))
            ends |= np.asarray(flags).reshape(-1).astype(bool)
    terminated = masks == 0
    return {"terminals": terminated} | ({"timeouts": ends & ~terminated} if ends.any() else {})


def read_ogbench(
    arrays: Mapping[str, Array],
    observation_space: Space[Any] | None,
    action_space: Space[Any] | None,
    path: Path,
    place: Place = in_memory,
) -> Dataset:
    """A data set from OGBench's arrays: see `read_npz`."""
    observations, actions = arrays["observations"], arrays["actions"]
    is_final = np.asarray(arrays["terminals"]).reshape(-1).astype(bool)
    if not len(observations) == len(actions) == len(is_final):
        sizes = (len(observations), len(actions), len(is_final))
        raise DatasetError("path", "must have as many observations, actions and terminals", sizes)
    is_final[-1:] = True
    ends = np.flatnonzero(is_final)
    lengths = np.diff(ends, prepend=-1) - 1
    if not lengths.sum():
        raise DatasetError("dataset", "must have at least one step", bare("an empty data set"))
    # A final row right after another one is a trajectory without a step.
    kept = np.ones(len(is_final), bool)
    kept[ends[lengths == 0]] = False
    store = allocate_store(lengths[lengths > 0], observations, actions, place)
    for _, out in named("observations", store.observations):
        fill(out, slice(None), observations[kept])
    fill(store.actions, slice(None), actions[~is_final])
    store.rewards[:] = 0.0
    store.truncated[store.offsets[1:] - 1] = True
    source = Source("ogbench", str(path), env_id=path.stem, notes=(NO_REWARDS,))
    return assemble(store, observation_space, action_space, source)


@contextmanager
def npz_arrays(path: str | os.PathLike[str]) -> Iterator[dict[str, Array]]:
    """The arrays of an archive, without unpickling anything."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            yield {name: archive[name] for name in archive.files if "/" not in name}
    except (zipfile.BadZipFile, EOFError, OSError, ValueError) as error:
        if isinstance(error, DatasetError):
            raise
        way_out = "it is damaged, or holds pickled objects, which are not opened because that runs code"
        raise DatasetError("path", f"must be a whole NumPy archive ({error})", str(path), way_out) from error
