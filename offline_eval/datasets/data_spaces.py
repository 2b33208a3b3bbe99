"""Which space data come from, and whether they fit one."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from offline_eval.batching import num_rows
from offline_eval.errors import DatasetError, bare
from offline_eval.types import Array, Observations

MOST_CHOICES = 1 << 20
"""Of a Discrete or MultiDiscrete space that is inferred; what reaches further is a measurement and no choice."""

_MOST_OUTSIDE = 0.2
_MOST_LISTED = 20


def fits(space: Space[Any], values: Observations) -> bool:
    """Whether rows of `values` have the shape that a space asks for, and are among its indices where it wants those."""
    if isinstance(space, spaces.Dict):
        return (
            isinstance(values, dict)
            and set(space) == set(values)
            and all(fits(part, values[key]) for key, part in space.items())
        )
    if isinstance(values, dict) or num_rows(values) == 0 or values.shape[1:] != (space.shape or ()):
        return False
    match space:
        case spaces.Discrete() | spaces.MultiDiscrete():
            low, count = space.start, space.n if isinstance(space, spaces.Discrete) else space.nvec
            return values.dtype.kind in "iu" and bool(np.all(values >= low) and np.all(values < low + count))
        case spaces.MultiBinary():
            return values.dtype.kind in "iu" and bool(np.all(values >= 0) and np.all(values <= 1))
    return True


def observed_space(values: Observations) -> Space[Any]:
    """The space that rows of observations come from, as far as they tell."""
    if isinstance(values, dict):
        # gymnasium sorts the keys of a plain dict.
        return spaces.Dict(OrderedDict((key, observed_space(part)) for key, part in values.items()))
    if values.dtype == np.uint8:
        return spaces.Box(0, 255, values.shape[1:], np.uint8)
    if values.dtype == np.int64 and values.ndim == 1:
        return _indices("observations", values)
    return spaces.Box(-np.inf, np.inf, values.shape[1:], np.float32)


def acted_space(actions: Array) -> Space[Any]:
    """The space that actions come from, as far as they tell.

    Whole numbers are indices, from the lowest one in the data (-1, 0 and 1 are three of them, and so are 0, 1 and 2).
    Numbers with a point come from [-1, 1], as in nearly every benchmark, and some stick out (human demonstrations do);
    where more than a fifth of them lie outside, it is the range of the data.

    Raises:
        DatasetError: whole numbers that are no indices, since they reach too far.
    """
    if actions.dtype.kind != "f":
        return _indices("actions", actions)
    if np.mean(np.abs(actions) > 1.0 + 1e-4) <= _MOST_OUTSIDE:
        return spaces.Box(-1.0, 1.0, actions.shape[1:], np.float32)
    low, high = (np.nan_to_num(end(actions, axis=0), posinf=1.0, neginf=-1.0) for end in (np.min, np.max))
    same = low >= high
    return spaces.Box(np.where(same, low - 1, low), np.where(same, high + 1, high), dtype=np.float32)


def whole_numbers(name: str, values: Observations | None) -> list[str]:
    """A note where a single column of numbers with a point holds a few whole numbers, which may be choices."""
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f" or values.shape[1:] != (1,):
        return []
    # Most columns are found out by their first rows.
    if not (_is_whole(values[:100]) and _is_whole(values)):
        return []
    different = np.unique(values)
    if not 2 <= len(different) <= _MOST_LISTED:
        return []
    listed = ", ".join(f"{value:g}" for value in different)
    return [f"{name} hold {listed} with a point, and are read as a Box: if they are choices, store them as integers"]


def _is_whole(values: Array) -> bool:
    return bool(np.all(values == np.round(values)))


def _indices(name: str, values: Array) -> Space[Any]:
    low, high = (np.asarray(end(axis=0), np.int64) for end in (values.min, values.max))
    low = np.minimum(low, 0)
    if np.max(np.maximum(high, -low), initial=0) >= MOST_CHOICES:
        way_out = "name the environment that the data were collected in, or store measurements with a point"
        received = bare(f"whole numbers from {np.min(low)} to {np.max(high)}")
        raise DatasetError(name, f"must be indices below {MOST_CHOICES:,} where no space is given", received, way_out)
    if values.ndim == 1:
        return spaces.Discrete(int(high - low) + 1, start=int(low))
    return spaces.MultiDiscrete(high - low + 1, start=low)
