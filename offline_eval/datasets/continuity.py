"""Where observations jump from one row to the next, and whether the flagged ends of episodes agree with it.

A reset is a jump, and a step is none. But some steps jump, too (an angle that wraps, a goal that moves), and some ends
go on without a reset. So single jumps say nothing; what is told is a pattern that all episodes share.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from offline_eval.types import Array, FloatArray

_USUAL = 0.95
_FAR = 2.5
_FEWEST_ENDS = 5
_FEWEST_ROWS = 20
_MOST, _FEW = 0.8, 0.2


class Apart(NamedTuple):
    """Flagged ends that lie as many rows before every jump, or after it where negative."""

    rows: int
    agreeing: int
    ends: int


class Runs(NamedTuple):
    """Ends that are flagged one after the other while the observations go on."""

    first: int
    runs: int
    rows: int


def step_sizes(observations: FloatArray, flagged: Array) -> FloatArray:
    """How far each row is from the following one, in the units of usual steps: the largest of its columns.

    Args:
        observations: (num_rows, dimension), finite.
        flagged: (num_rows,) bool, ends of episodes.
    """
    steps = np.abs(np.diff(observations, axis=0))
    inner = steps[~flagged[:-1]]
    if len(inner) < _FEWEST_ROWS or not steps.shape[1]:
        return np.zeros(len(steps))
    usual = np.median(inner, axis=0)
    scale = np.where(usual > 0, usual, inner.mean(axis=0))
    sizes: FloatArray = (steps[:, scale > 0] / scale[scale > 0]).max(axis=1, initial=0.0)
    return sizes


def ends_apart(observations: FloatArray, flagged: Array) -> Apart | None:
    """Ends that are out of step with the jumps, by the same number of rows in nearly all episodes."""
    sizes, last = step_sizes(observations, flagged), np.flatnonzero(flagged[:-1])
    inner = sizes[~flagged[:-1]]
    if len(last) < _FEWEST_ENDS or len(inner) < _FEWEST_ROWS or inner.max() == 0.0:
        return None
    jump = np.flatnonzero(sizes > _FAR * np.quantile(inner, _USUAL))
    if not len(jump) or np.isin(last, jump).mean() > _FEW or len(jump) > 3 * len(last):
        return None
    after = np.searchsorted(jump, last)
    following = jump[np.minimum(after, len(jump) - 1)] - last
    before = jump[np.maximum(after - 1, 0)] - last
    nearest = np.where(np.abs(before) < np.abs(following), before, following)
    offsets, counts = np.unique(nearest, return_counts=True)
    offset, count = int(offsets[counts.argmax()]), int(counts.max())
    return Apart(offset, count, len(last)) if offset and count >= _MOST * len(last) else None


def ends_in_a_row(observations: FloatArray, flagged: Array) -> Runs | None:
    """Ends that follow one another without a jump, where the last one of such a run is a jump.

    Episodes of a single step follow one another with a jump each.
    """
    sizes = step_sizes(observations, flagged)
    pair = flagged[:-1] & flagged[1:]
    final = np.flatnonzero(flagged[1:-1] & ~flagged[2:] & flagged[:-2]) + 1
    inner = sizes[~flagged[:-1]]
    if not len(final) or pair.sum() < 3 or len(inner) < _FEWEST_ROWS:
        return None
    usual = np.quantile(inner, _USUAL)
    if np.median(sizes[pair]) > usual or np.median(sizes[final]) <= usual:
        return None
    return Runs(int(np.argmax(pair)), int((pair & ~np.concatenate([[False], pair[:-1]])).sum()), int(pair.sum()))
