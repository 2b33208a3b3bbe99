"""Flat rows, one a step, as D4RL, SB3 and most people keep them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from offline_eval.datasets.store import named
from offline_eval.errors import DatasetError, bare
from offline_eval.types import Array

_FLAGS = ("terminals", "timeouts", "next_observation_known")


@dataclass(frozen=True, eq=False)
class Rows:
    """Flat rows, one a step; NumPy arrays or anything that can be sliced and has `shape` and `dtype` (HDF5).

    Args:
        observations: (num_steps, *shape), or a dict of those.
        actions: (num_steps, *shape).
        rewards: (num_steps,) or (num_steps, 1).
        terminals: (num_steps,) or (num_steps, 1): the episode ended in a terminal state. None where nobody says.
        timeouts: the episode was cut. None where nobody says.
        next_observations: as `observations`; the state reached, never the first one of the next episode.
        next_observation_known: (num_steps,) bool; where False, that row of `next_observations` stands for nothing.
        others: names of what the file holds beside these, for messages.
    """

    observations: Any
    actions: Any
    rewards: Any
    terminals: Any = None
    timeouts: Any = None
    next_observations: Any = None
    next_observation_known: Any = None
    others: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rewards)

    def checked(self) -> Rows:
        """The same with the flags and rewards as flat arrays in memory, once shapes, kinds and flags are right."""
        if len(np.shape(self.rewards)) == 0:
            raise DatasetError("rewards", "must be an array with one row a step", bare("a single value"))
        if len(self) == 0:
            raise DatasetError("rewards", "must have at least one row", bare("an empty data set"))
        columns: dict[str, Any] = {name: self._flags(name) for name in _FLAGS if getattr(self, name) is not None}
        for name in ("observations", "actions", "next_observations"):
            for part, array in named(name, {} if getattr(self, name) is None else getattr(self, name)):
                if len(array.shape) == 0 or len(array) != len(self):
                    raise DatasetError(part, f"must have one row a reward ({len(self)})", tuple(array.shape))
        if self.next_observations is not None:
            shapes = [{name: a.shape for name, a in named("", x)} for x in (self.observations, self.next_observations)]
            if shapes[0] != shapes[1]:
                raise DatasetError("next_observations", f"must be shaped as `observations` ({shapes[0]})", shapes[1])
        rewards = self._column("rewards")
        if rewards.dtype.kind not in "biuf":
            raise DatasetError("rewards", "must hold numbers", bare(f"dtype {rewards.dtype}"))
        return replace(self, rewards=rewards, **columns)

    def _column(self, name: str) -> Array:
        column = np.asarray(getattr(self, name)[:])
        if column.shape not in ((len(self),), (len(self), 1)):
            raise DatasetError(name, f"must be of shape ({len(self)},)", column.shape)
        return column.reshape(len(self))

    def _flags(self, name: str) -> Array:
        return as_flags(name, self._column(name))


def as_flags(name: str, values: Any, rule: str = "0 or 1") -> Array:
    """Flags as bool.

    Raises:
        DatasetError: they are anything but 0 and 1: NaN, -1, a count, text.
    """
    flags = np.asarray(values)
    if flags.dtype == np.bool_:
        return flags
    if flags.dtype.kind not in "iuf":
        way_out = "compare them with what means True: flags == 'True'" if flags.dtype.kind in "SU" else ""
        raise DatasetError(name, f"must be {rule}", bare(f"dtype {flags.dtype}"), way_out)
    bad = (flags != 0) & (flags != 1)
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        received = bare(f"{flags[where]} at row {where[0] if where else 0}, and {int(bad.sum()) - 1} more such rows")
        way_out = "a row without a value is no flag" if np.isnan(flags[where]) else "write which rows are True as 1"
        raise DatasetError(name, f"must be {rule}", received, way_out)
    return flags.astype(bool)
