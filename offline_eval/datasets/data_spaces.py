"""Which space data come from, and whether they fit one."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import Space, spaces

from offline_eval.batching import num_rows
from offline_eval.types import Array, Observations

_MOST_OUTSIDE = 0.2


def fits(space: Space[Any], values: Observations) -> bool:
    """Whether rows of `values` have the shape that a space asks for, and are indices where it wants indices."""
    if isinstance(space, spaces.Dict):
        return (
            isinstance(values, dict)
            and set(space) == set(values)
            and all(fits(part, values[key]) for key, part in space.items())
        )
    if isinstance(values, dict) or num_rows(values) == 0:
        return False
    wants_index = isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary)
    return values.shape[1:] == (space.shape or ()) and (values.dtype.kind in "iu" or not wants_index)


def observed_space(values: Observations) -> Space[Any]:
    """The space that rows of observations come from, as far as they tell."""
    if isinstance(values, dict):
        return spaces.Dict({key: observed_space(part) for key, part in values.items()})
    if values.dtype == np.uint8:
        return spaces.Box(0, 255, values.shape[1:], np.uint8)
    if values.dtype == np.int64 and values.ndim == 1:
        return spaces.Discrete(int(values.max()) + 1)
    return spaces.Box(-np.inf, np.inf, values.shape[1:], np.float32)


def acted_space(actions: Array) -> Space[Any]:
    """The space that actions come from, as far as they tell.

    Numbers with a point come from [-1, 1], as in nearly every benchmark, and some stick out (human demonstrations do);
    where more than a fifth of them lie outside, it is the range of the data.
    """
    if actions.dtype.kind != "f":
        return (
            spaces.Discrete(int(actions.max()) + 1) if actions.ndim == 1 else spaces.MultiDiscrete(actions.max(0) + 1)
        )
    if np.mean(np.abs(actions) > 1.0 + 1e-4) <= _MOST_OUTSIDE:
        return spaces.Box(-1.0, 1.0, actions.shape[1:], np.float32)
    low, high = (np.nan_to_num(end(actions, axis=0), posinf=1.0, neginf=-1.0) for end in (np.min, np.max))
    same = low >= high
    return spaces.Box(np.where(same, low - 1, low), np.where(same, high + 1, high), dtype=np.float32)
