"""What every diagnostic asks of the arrays that come in."""

from __future__ import annotations

from typing import Any

import numpy as np

from offline_eval.errors import InputError, bare
from offline_eval.types import Array


def finite(name: str, values: Any, ndim: int | None = None) -> Array:
    """The values as a float64 array that is not empty and holds finite numbers only.

    Args:
        name: the argument as the caller wrote it.
        values: anything `np.asarray` takes.
        ndim: how many axes it must have; None for any number.

    Raises:
        InputError: with the index of the first number that is not finite, and how many there are.
    """
    array = real(name, values, ndim)
    bad = ~np.isfinite(array)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        place = first[0] if len(first) == 1 else first
        raise InputError(
            name,
            "must be finite",
            bare(f"{array[first]} at index {place} ({np.count_nonzero(bad)} of {array.size} values)"),
            "leave those rows out, or mend what produced them",
        )
    return array


def real(name: str, values: Any, ndim: int | None = None) -> Array:
    """The values as a float64 array that is not empty; NaN and infinity may be in it."""
    array = np.asarray(values, dtype=np.float64)
    if ndim is not None and array.ndim != ndim:
        raise InputError(name, f"must have {ndim} axes", bare(f"shape {array.shape}"))
    if array.size == 0:
        raise InputError(name, "must not be empty", bare(f"shape {array.shape}"))
    return array


def same_rows(**arrays: Array) -> None:
    """Raise where the arrays differ in their number of rows; the first one sets it."""
    (first, reference), *others = arrays.items()
    for name, array in others:
        if len(array) != len(reference):
            raise InputError(name, f"must have one row for each of `{first}` ({len(reference)})", len(array))


def fraction(name: str, value: float) -> None:
    """Raise where a number does not lie strictly between 0 and 1."""
    if not 0.0 < value < 1.0:
        raise InputError(name, "must lie between 0 and 1", value)
