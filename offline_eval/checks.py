"""Numbers that an argument may be, refused with its name; NaN passes none of them."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import TypeGuard

from offline_eval.errors import InputError


def is_finite(value: object) -> TypeGuard[float]:
    """Whether a value is a number, and neither NaN nor infinite."""
    return isinstance(value, Real) and math.isfinite(value)


def check_whole(argument: str, value: object, lowest: int, way_out: str = "") -> None:
    """Raise an InputError unless `value` is a whole number >= `lowest`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < lowest:
        raise InputError(argument, f"must be a whole number >= {lowest}", value, way_out)


def check_positive(argument: str, value: object, way_out: str = "", or_zero: bool = False) -> None:
    """Raise an InputError unless `value` is a finite number > 0, or >= 0 with `or_zero`."""
    if not is_finite(value) or value < 0 or (value == 0 and not or_zero):
        raise InputError(argument, f"must be a finite number {'>=' if or_zero else '>'} 0", value, way_out)


def check_kind(argument: str, value: object, kind: type, way_out: str = "") -> None:
    """Raise an InputError unless `value` is None or of the kind that the argument wants."""
    if value is not None and not isinstance(value, kind):
        raise InputError(argument, f"must be a {kind.__name__}", value, way_out)
