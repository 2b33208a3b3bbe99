"""The question that each assertion asks, apart from how its numbers are had (`benchmarks/assertion_rates.py` asks too).

Columns are numbers an episode. Where a number cannot leave a range its bounds are known, and the test is exact without
anybody declaring them: a tau, a share, an error between actions in a box.
"""

from __future__ import annotations

from math import inf, isfinite

import numpy as np

from offline_eval.errors import InputError
from offline_eval.stats.decisions import Alternative, AtLeast, AtMost, Bounds, Claim, Question

STEERING_CONTROLS = ("the random direction", "times 1.1", "times 1.2", "placebo 1e-06")
"""What steering must beat, beside the plain policy: the controls of `steer`, in the order of the columns."""


def return_at_least(threshold: float, bounds: Bounds | None, alpha: float) -> Question:
    """Columns: the return."""
    _finite("threshold", threshold)
    question = Question((Claim("mean return", (1.0,), AtLeast(threshold)),), alpha, _each(bounds, 1))
    if bounds is not None and not bounds[0] <= threshold <= bounds[1]:
        raise InputError("threshold", f"must lie within the declared bounds {bounds}", threshold)
    return question


def not_worse(margin: float | None, relative_margin: float | None, bounds: Bounds | None, alpha: float) -> Question:
    """Columns: the return, the baseline's return on the same seed.

    With b the baseline's mean, `a - b >= -r |b|` is what `a >= (1 - r) b` or `a >= (1 + r) b` is, whatever b's sign:
    the baseline's mean need not be known.
    """
    if margin is not None and relative_margin is not None:
        raise InputError("relative_margin", "must be left out where `margin` is given", relative_margin)
    for name, value in (("margin", margin), ("relative_margin", relative_margin)):
        if value is not None and not 0.0 <= value < inf:
            raise InputError(name, "must be finite and >= 0", value, "it is by how much the agent may be worse")
    both = _each(bounds, 2)
    if not relative_margin:
        side = AtLeast(0.0 - (margin or 0.0))
        return Question((Claim("mean paired difference to the baseline", (1.0, -1.0), side),), alpha, both)
    factors = (1.0 - relative_margin, 1.0 + relative_margin)
    claims = [Claim(f"mean of agent - {f:g} baseline, paired", (1.0, -f), AtLeast(0.0)) for f in factors]
    return Alternative(tuple(claims), alpha, both)


def steering_helps(margin: float, bounds: Bounds | None, alpha: float) -> Question:
    """Columns: the return steered, plain, and of each of `STEERING_CONTROLS`, on the same seed.

    To beat each control is to beat the best of them; each of the claims is judged by itself, so that none is picked.
    """
    if not 0.0 <= margin < inf:
        raise InputError("margin", "must be finite and >= 0", margin, "it is by how much steering must help")
    others = ("the plain policy", *STEERING_CONTROLS)
    weights = np.hstack([np.ones((len(others), 1)), -np.eye(len(others))])
    claims = tuple(
        Claim(f"mean paired gain over {other}", tuple(row.tolist()), AtLeast(margin))
        for other, row in zip(others, weights, strict=True)
    )
    return Question(claims, alpha, _each(bounds, 1 + len(others)))


def kendall_tau(at_least: float, alpha: float) -> Question:
    """Columns: mean tau of the episode's windows."""
    _within("at_least", at_least, -1.0, 1.0)
    return Question((Claim("mean Kendall tau of the critic", (1.0,), AtLeast(at_least)),), alpha, ((-1.0, 1.0),))


def q_bias(within: float | tuple[float, float], alpha: float) -> Question:
    """Columns: the episode's mean of q - truth, and of |truth|; the bias is the ratio of their means."""
    low, high = within if isinstance(within, tuple) else (-within, within)
    if not (isfinite(low) and isfinite(high) and low <= high):
        raise InputError("within", "must be a number >= 0, or two in order", within, "0.2 allows -20 % to 20 %")
    claims = (
        Claim("normalised bias of the critic", (1.0, -low), AtLeast(0.0)),
        Claim("normalised bias of the critic", (1.0, -high), AtMost(0.0)),
    )
    return Question(claims, alpha)


def evaluation_mse(at_most: float, bounds: Bounds | None, alpha: float) -> Question:
    """Columns: the episode's mean squared difference to the oracle's actions, in the scaled space."""
    _finite("at_most", at_most)
    if at_most < 0.0:
        raise InputError("at_most", "must be >= 0: it is a mean square", at_most)
    return Question((Claim("mean squared error of the actions", (1.0,), AtMost(at_most)),), alpha, _each(bounds, 1))


def covers(at_least: float, alpha: float) -> Question:
    """Columns: the share of the episode's states within the data's support."""
    _within("at_least", at_least, 0.0, 1.0)
    return Question((Claim("mean share of states within the data", (1.0,), AtLeast(at_least)),), alpha, ((0.0, 1.0),))


def _each(bounds: Bounds | None, number: int) -> tuple[Bounds, ...] | None:
    return None if bounds is None else (bounds,) * number


def _finite(name: str, value: float) -> None:
    if not isfinite(value):
        raise InputError(name, "must be finite", value)


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise InputError(name, f"must lie in [{low:g}, {high:g}]", value)
