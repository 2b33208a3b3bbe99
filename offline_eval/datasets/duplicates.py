"""Whether a file ends in copies of its own rows: an array written twice, or room that was never filled."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from offline_eval.datasets.rows import Rows
from offline_eval.datasets.store import named, row_blocks
from offline_eval.types import Array

_FEWEST = 10
_MOST_CANDIDATES = 64
_RARE = 0.01


class Tail(NamedTuple):
    """The last `length` rows equal those from row `first` on; empty rows are 0 throughout."""

    length: int
    first: int
    is_empty: bool


def duplicated_tail(rows: Rows) -> Tail | None:
    """The longest end of the file that repeats an earlier block of rows, where that is a fault.

    It is none where rows repeat all over the file, as in a small deterministic world, or where the last row repeats
    because the system is at rest.
    """
    digests, is_zero = _digests(rows)
    count = len(digests)
    resting = _run_at_end(digests == digests[-1])
    if is_zero[-1] and resting >= _FEWEST and not is_zero[: count - resting].any():
        return Tail(resting, count - resting, True)
    earlier = np.flatnonzero(digests[:-1] == digests[-1])
    earlier = np.concatenate([earlier[:_MOST_CANDIDATES], earlier[-_MOST_CANDIDATES:]])
    best = Tail(0, 0, False)
    for row in np.unique(earlier):
        longest = min(count - 1 - row, row + 1)  # the copies must not overlap
        same = digests[row - longest + 1 : row + 1] == digests[count - longest :]
        length = _run_at_end(same)
        if length > best.length:
            best = Tail(length, int(row) - length + 1, False)
    if not best.length:
        return None
    head, tail = digests[: count - best.length], digests[count - best.length :]
    repeats = len(head) - len(np.unique(head))
    only_here = repeats == 0 and count >= 5 * _FEWEST
    varied = len(np.unique(tail)) >= max(_FEWEST, best.length // 2)
    return best if only_here or (varied and repeats <= _RARE * len(head)) else None


def _run_at_end(same: Array) -> int:
    different = np.flatnonzero(~same)
    return len(same) if not len(different) else len(same) - 1 - int(different[-1])


def _digests(rows: Rows) -> tuple[Array, Array]:
    """A 64-bit digest of each row (observation, action, reward), and whether its observation and action are 0."""
    digests = np.zeros(len(rows), np.uint64)
    is_zero = np.ones(len(rows), bool)
    generator = np.random.default_rng(0)
    parts: list[Any] = [array for _, array in named("", rows.observations)]
    for part in [*parts, rows.actions, rows.rewards]:
        width = int(np.prod(part.shape[1:]))
        factors = generator.integers(1, 2**63, width, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        for block in row_blocks(part):
            with np.errstate(over="ignore", invalid="ignore"):
                values = np.ascontiguousarray(part[block], np.float32).reshape(-1, width)
            digests[block] += (values.view(np.uint32) * factors).sum(axis=1, dtype=np.uint64)
            if part is not rows.rewards:
                is_zero[block] &= ~values.any(axis=1)
    return digests, is_zero
