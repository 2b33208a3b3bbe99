"""Numbers of a measurement as plain data."""

from __future__ import annotations

from typing import Any

import numpy as np

from offline_eval.diagnostics.clustered import Estimate
from offline_eval.stats.samples import finite_or_none
from offline_eval.types import Array

NUM_BINS = 20
"""Of a histogram."""


def estimate_json(estimate: Estimate | None) -> dict[str, Any] | None:
    """An estimate as plain data, None where there is none."""
    return None if estimate is None else estimate.to_json()


def control_json(control: Estimate) -> dict[str, Any]:
    """A control's mean and its range."""
    return {"value": finite_or_none(control.value), "range": control.ci95.to_json()}


def tau_histogram(taus: Array) -> dict[str, list[float]]:
    """Counts of tau in equal bins over [-1, 1]."""
    counts, edges = np.histogram(taus, bins=NUM_BINS, range=(-1.0, 1.0))
    return {"edges": edges.tolist(), "counts": counts.tolist()}
