"""Numbers that rules are made with: refused in the constructor, one for all rows or one a row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch as th
from torch import Tensor

from offline_eval.checks import check_positive as check_positive
from offline_eval.checks import check_whole as check_whole
from offline_eval.errors import InputError, bare
from offline_eval.types import Array
from offline_eval.wrappers.transfer import in_one_piece

Numbers = float | Sequence[float] | Array
"""One number for all rows, or one a row (1-D)."""


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
    entries = np.array(number, dtype=np.float64 if like.dtype == th.float64 else np.float32)
    return in_one_piece([entries], like.device)[0].to(like.dtype)[:, None]
