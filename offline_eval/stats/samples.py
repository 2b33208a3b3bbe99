"""What may come in: one row of returns, where NaN stands for an episode that failed."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from offline_eval.errors import InputError, bare
from offline_eval.types import FloatArray


def returns_of(argument: str, values: ArrayLike) -> FloatArray:
    """Returns (n,) as float64, n > 0; NaN is let through.

    Raises:
        InputError: not one-dimensional, not numbers, empty, or infinite.
    """
    try:
        sample = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(argument, "must be a row of numbers", values) from error
    if sample.ndim != 1:
        raise InputError(argument, "must be one-dimensional", bare(f"an array of shape {sample.shape}"))
    if sample.size == 0:
        raise InputError(argument, "must hold at least one value", values, "evaluate at least one episode")
    if np.isinf(sample).any():
        raise InputError(argument, "must be finite", sample[np.isinf(sample)][0], "NaN marks a failed episode")
    return sample


def complete_sample(argument: str, values: ArrayLike) -> FloatArray:
    """Returns (n,) as float64, n > 0, all of them finite.

    Raises:
        InputError: as `returns_of`, or a NaN.
    """
    sample = returns_of(argument, values)
    if np.isnan(sample).any():
        raise InputError(argument, "must be finite", np.nan, "`summarize` leaves failed episodes out and counts them")
    return sample


def failed_of(failed: int, total: int, what: str = "episodes") -> str:
    """What a number over the rest must say."""
    return " ".join(filter(None, (f"{failed} of {total}", what, "failed")))


def finite_or_none(value: float) -> float | None:
    """A number that JSON can hold; None for NaN and infinity."""
    return float(value) if np.isfinite(value) else None
