"""How far do the data's actions differ at alike states? The reach of what a critic has been shown.

A critic knows the actions that were tried. Around a policy's action it can be asked as far as the data's actions
scatter; beyond, it extrapolates. `offline_eval.wrappers.TrustRadius` keeps a step inside.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from offline_eval.diagnostics.checks import finite, same_rows
from offline_eval.errors import InputError
from offline_eval.types import Array, FloatArray

MAX_STATES = 5_000
SMALLEST_SPREAD = 1e-3
"""No radius is smaller: data of a policy without noise would forbid every step."""


def action_spread(
    observations: Any, actions: Any, generator: np.random.Generator, *, max_states: int = MAX_STATES
) -> FloatArray:
    """Standard deviation (action_dim,) of actions at the same state, from pairs of nearest neighbours.

    Two draws at one state differ by sqrt(2) standard deviations in the root mean square. Neighbours are not the same
    state: what a policy without noise changes from one to the other counts too. So the spread comes out too large where
    states are few or have many dimensions, and too small where the noise itself is alike from step to step.

    Args:
        observations: (num_states, *shape), standardised here.
        actions: (num_states, action_dim), scaled: [-1, 1] in the bounded dimensions.
        generator: draws a sample where there are more than `max_states`; the sample also thins neighbours in time.
        max_states: of more a sample is used.
    """
    states = finite("observations", observations)
    states = states.reshape(len(states), -1)
    taken = finite("actions", actions, ndim=2)
    same_rows(observations=states, actions=taken)
    if len(states) < 2:
        raise InputError("observations", "must hold two states or more", len(states))
    if len(states) > max_states:
        rows = generator.choice(len(states), max_states, replace=False)
        states, taken = states[rows], taken[rows]
    deviation = states.std(axis=0)
    states = states / np.where(deviation > 0, deviation, 1.0)
    difference = taken - taken[_nearest(states)]
    spread: Array = np.sqrt(0.5 * np.square(difference).mean(axis=0))
    return np.maximum(spread, SMALLEST_SPREAD)


def _nearest(states: Array) -> Array:
    """For each state the row (num_states,) of the nearest other one."""
    squares = np.square(states).sum(axis=1)
    nearest = np.empty(len(states), dtype=np.int64)
    for start in range(0, len(states), 256):
        rows = np.arange(start, min(start + 256, len(states)))
        distances = squares - 2.0 * states[rows] @ states.T
        distances[rows - start, rows] = np.inf
        nearest[rows] = distances.argmin(axis=1)
    return nearest
