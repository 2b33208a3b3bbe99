"""The flat arrays under a data set: in memory, or memory-mapped from a folder of .npy files that processes share.

A store is one copy of the data. The parts of a data set (train, validation, a tenth) are indices into it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from offline_eval.errors import DatasetError, bare
from offline_eval.types import Array, Observations

Allocate = Callable[[str, tuple[int, ...], "np.dtype[Any]"], Array]
"""Makes an uninitialised array of a name, shape and dtype."""

Place = Callable[[int], Allocate]
"""Decides, from the number of bytes that a store will take, where its large arrays go."""

Out = TypeVar("Out")

BLOCK_ROWS = 1 << 16
"""Rows that are read, converted or checked at a time, so that one copy of a data set is all that is held."""

_BLOCK_BYTES = 1 << 27


def in_memory(num_bytes: int) -> Allocate:
    """The process's own memory, however much it takes."""
    return lambda name, shape, dtype: np.empty(shape, dtype)


@dataclass(frozen=True, eq=False)
class Store:
    """Flat arrays of trajectories, one after the other; the observations have one row more a trajectory.

    Step i of trajectory k observes row i + k; what it led to is the row after.

    Args:
        observations: (num_steps + num_trajectories, *shape), the final observation of each trajectory included, or a
            dict of those. Numbers with a point are float32; uint8 stays; other integers are int64.
        actions: (num_steps, *shape), in the environment's units.
        rewards: (num_steps,) float32.
        terminated: (num_steps,) bool; usually only a trajectory's last step can be.
        truncated: (num_steps,) bool; a trajectory's last step that is not terminated always is.
        offsets: (num_trajectories + 1,) int64, where each trajectory's steps begin, and their number.
        final_known: (num_trajectories,) bool; False where the file lacks the final observation. Its row then repeats
            the one before, and the last step is a transition only where it terminated (nothing is bootstrapped).
        folder: where the arrays are mapped from; None in memory. A store in a folder pickles as its path.
        reopen: from such a folder to the store; what a pickle calls.
    """

    observations: Observations
    actions: Array
    rewards: Array
    terminated: Array
    truncated: Array
    offsets: Array
    final_known: Array
    folder: Path | None = None
    reopen: Callable[[Path], Store] | None = None

    @property
    def num_steps(self) -> int:
        """Steps of all trajectories together."""
        return len(self.rewards)

    @property
    def num_trajectories(self) -> int:
        """How many trajectories there are."""
        return len(self.offsets) - 1

    @property
    def num_bytes(self) -> int:
        """Size of the arrays together."""
        return sum(array.nbytes for _, array in self.arrays())

    def arrays(self) -> Iterator[tuple[str, Array]]:
        """Every array with its name; entries of dict observations as `observations[key]`."""
        yield from named("observations", self.observations)
        for name in ("actions", "rewards", "terminated", "truncated", "offsets", "final_known"):
            yield name, getattr(self, name)

    def place_of(self, name: str, row: int) -> str:
        """The trajectory of a row of a flat array, and its number within it, in words."""
        starts = self.offsets + np.arange(len(self.offsets)) * name.startswith("observations")
        trajectory = int(np.searchsorted(starts, row, side="right")) - 1
        return f"trajectory {trajectory}, step {int(row - starts[trajectory])}"

    def __reduce__(self) -> tuple[Any, ...]:
        if self.folder is not None:
            assert self.reopen is not None  # who sets the one sets the other
            return self.reopen, (self.folder,)
        fields = ("observations", "actions", "rewards", "terminated", "truncated", "offsets", "final_known")
        return Store, tuple(getattr(self, name) for name in fields)


def allocate_store(lengths: Array, observations: Any, actions: Any, place: Place = in_memory) -> Store:
    """An unfilled store for trajectories of the given lengths (num_trajectories,).

    Args:
        lengths: steps of each trajectory, each at least 1.
        observations: an array, or a dict of them, whose row shape and dtype the store takes over.
        actions: the same for the actions.
        place: where the large arrays go.
    """
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    num_steps, num_trajectories = int(offsets[-1]), len(lengths)

    def planned(name: str, like: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
        count = num_steps + num_trajectories * name.startswith("observations")
        return (count, *like.shape[1:]), storage_dtype(like.dtype, name)

    plans = {name: planned(name, array) for name, array in named("observations", observations)}
    plans |= {"actions": planned("actions", actions), "rewards": ((num_steps,), np.dtype(np.float32))}
    allocate = place(sum(math.prod(shape) * dtype.itemsize for shape, dtype in plans.values()))
    arrays = {name: allocate(name, shape, dtype) for name, (shape, dtype) in plans.items()}
    return Store(
        observations=map_named("observations", observations, lambda name, _: arrays[name]),
        actions=arrays["actions"],
        rewards=arrays["rewards"],
        terminated=np.zeros(num_steps, bool),
        truncated=np.zeros(num_steps, bool),
        offsets=offsets,
        final_known=np.ones(num_trajectories, bool),
    )


def storage_dtype(given: Any, name: str) -> np.dtype[Any]:
    """The dtype in which numbers of a dtype are kept: float32, uint8 or int64."""
    dtype: np.dtype[Any] = np.dtype(given)
    if dtype.kind == "f":
        return np.dtype(np.float32)
    if dtype == np.uint8:
        return dtype
    if dtype.kind in "iub":
        return np.dtype(np.int64)
    raise DatasetError(name, "must hold numbers", bare(f"dtype {dtype}"))


def fill(destination: Array, index: Any, values: Any) -> None:
    """Write values, float64 becoming float32; what float32 cannot hold becomes infinite without a warning."""
    with np.errstate(over="ignore"):
        destination[index] = values


def named(name: str, observations: Observations) -> Iterator[tuple[str, Array]]:
    """The arrays of observations with their names: `name`, or `name[key]` for each entry of a dict, sorted."""
    if isinstance(observations, dict):
        for key, value in sorted(observations.items()):
            yield f"{name}[{key}]", value
    else:
        yield name, observations


def map_named(name: str, observations: Any, function: Callable[[str, Any], Out]) -> Any:
    """`function(name, array)` of observations, entry by entry where they are a dict."""
    if isinstance(observations, dict):
        return {key: function(f"{name}[{key}]", value) for key, value in observations.items()}
    return function(name, observations)


def row_blocks(like: Any, num_rows: int | None = None) -> Iterator[slice]:
    """Slices that cover the rows of an array in order, or `num_rows` rows of that shape.

    A block has `BLOCK_ROWS` rows, fewer where they are large (images), in whole HDF5 chunks, which are decompressed as
    a whole.
    """
    num_rows = len(like) if num_rows is None else num_rows
    row_bytes = max(1, math.prod(like.shape[1:]) * np.dtype(like.dtype).itemsize)
    chunk = int((getattr(like, "chunks", None) or (1,))[0])
    rows = max(chunk, min(BLOCK_ROWS, _BLOCK_BYTES // row_bytes) // chunk * chunk)
    for start in range(0, num_rows, rows):
        yield slice(start, min(start + rows, num_rows))


def non_finite(array: Any) -> tuple[int, tuple[int, ...]] | None:
    """How many entries are NaN or, as float32, infinite, and the index of the first; None where all are finite."""
    if np.dtype(array.dtype).kind != "f":
        return None
    count, first = 0, None
    for block in row_blocks(array):
        with np.errstate(over="ignore"):
            bad = ~np.isfinite(array[block].astype(np.float32, copy=False))
        if bad.any():
            count += int(bad.sum())
            if first is None:
                row, *rest = (int(i) for i in np.argwhere(bad)[0])
                first = (row + block.start, *rest)
    return None if first is None else (count, first)


def ranges(starts: Array, lengths: Array) -> Array:
    """start, start + 1, ... for each start, one after the other."""
    ends = np.cumsum(lengths)
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(ends[-1] if len(ends) else 0)
