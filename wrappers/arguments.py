"""Numbers that rules are made with: refused in the constructor, one for all rows or one a row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np
import torch as th
from torch import Tensor

from offline_eval.errors import InputError, bare
from offline_eval.types import Array

Numbers = float | Sequence[float] | Array
"""One number for all rows, or one a row (1-D)."""


def check_whole(argument: str, value: object, lowest: int, way_out: str) -> None:
    """Raise an InputError unless `value` is a whole number >= `lowest`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < lowest:
        raise InputError(argument, f"must be a whole number >= {lowest}", value, way_out)


def check_positive(argument: str, value: object, way_out: str, or_zero: bool = False) -> None:
    """Raise an InputError unless `value` is a finite number > 0, or >= 0 with `or_zero`."""
    if not isinstance(value, Real) or not math.isfinite(value) or value < 0 or (value == 0 and not or_zero):
        raise InputError(argument, f"must be a finite number {'>=' if or_zero else '>'} 0", value, way_out)


def numbers(argument: str, value: Numbers | None, way_out: str) -> float | tuple[float, ...]:
    """A finite number >= 0, or a tuple of them.

    Raises:
        InputError: it is something else.
    """
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.array(np.nan)
    if array.ndim > 1 or array.size == 0 or not np.all(np.isfinite(array) & (array >= 0)):
        raise InputError(argument, "must be a finite number >= 0, or a vector of them", value, way_out)
    return float(array) if array.ndim == 0 else tuple(array.tolist())


def column(argument: str, number: Numbers | None, like: Tensor) -> float | Tensor:
    """What `numbers` returned, ready to multiply a batch: a number as it is, one entry a row as (batch, 1)."""
    if not isinstance(number, tuple):
        return number  # type: ignore[return-value]  # a constructor made it a float
    if len(number) != len(like):
        raise InputError(argument, f"must have one entry a row, here {len(like)}", bare(f"{len(number)} entries"))
    return th.tensor(number, dtype=like.dtype, device=like.device)[:, None]
