"""Kendall's tau-b of many short stretches at once: sliding windows, or the rows of a matrix."""

from __future__ import annotations

from typing import Any

import numpy as np

from offline_eval.diagnostics.checks import real, same_rows
from offline_eval.errors import InputError
from offline_eval.types import Array


def window_kendall_tau(q: Any, truth: Any, window: int = 10) -> Array:
    """Kendall's tau-b (n - window + 1,) between q (n,) and truth (n,) in every window of neighbouring values.

    Equal to `scipy.stats.kendalltau` in each window: ties count as in tau-b, and a window that is constant in either
    argument or holds a NaN gives NaN. Every pair is compared once, however many windows it lies in.

    Raises:
        InputError: the window is below 2 or longer than the arrays.
    """
    q, truth = real("q", q, ndim=1), real("truth", truth, ndim=1)
    same_rows(q=q, truth=truth)
    if not 2 <= window <= len(q):
        raise InputError("window", f"must lie between 2 and the number of values ({len(q)})", window)
    # Rows: concordant minus discordant pairs, pairs untied in q, pairs untied in truth; as the left or right of a pair.
    left, right = np.zeros((2, 3, len(q)), dtype=np.int8 if window <= 128 else np.int64)
    for lag in range(1, window):
        order_q, order_truth = _order(q, lag), _order(truth, lag)
        for row, pairs in enumerate((order_q * order_truth, order_q & 1, order_truth & 1)):
            left[row, :-lag] += pairs
            right[row, lag:] += pairs
    # Pairs in a window: those whose right end is not behind it, less those whose left end is before it.
    ends = np.cumsum(right, axis=1, dtype=np.int64)[:, window - 1 :]
    starts = np.cumsum(left, axis=1, dtype=np.int64) - left
    surplus, untied_q, untied_truth = ends - starts[:, : ends.shape[1]]
    with np.errstate(invalid="ignore"):
        tau = np.asarray(surplus / np.sqrt(untied_q.astype(np.float64) * untied_truth))
    tau[count_in_windows(np.isnan(q) | np.isnan(truth), window) > 0] = np.nan
    return tau


def count_in_windows(flags: Array, window: int) -> Array:
    """How many of the flags (n,) are set in every window (n - window + 1,)."""
    total = np.concatenate([[0], np.cumsum(flags)])
    return np.asarray(total[window:] - total[:-window])


def row_taus(first: Array, second: Array) -> Array:
    """Kendall's tau-b (num_rows,) between the rows of two arrays (num_rows, num_values)."""
    left, right = np.triu_indices(first.shape[1], k=1)
    order_first = np.sign(first[:, left] - first[:, right])
    order_second = np.sign(second[:, left] - second[:, right])
    untied = np.abs(order_first).sum(axis=1) * np.abs(order_second).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray((order_first * order_second).sum(axis=1) / np.sqrt(untied))


def _order(values: Array, lag: int) -> Array:
    # Comparisons and not the sign of a difference: infinity minus infinity is no tie.
    earlier, later = values[:-lag], values[lag:]
    return np.greater(earlier, later).view(np.int8) - np.less(earlier, later).view(np.int8)
