"""A training run over four checkpoints, as `track --json` has it, with numbers that a pencil can check."""

from __future__ import annotations

from math import isnan, nan

from offline_eval.stats import summarize

STEPS = (100, 200, 300, 400)
RETURNS = ([0.0, 0.0, 0.0, 4.0], [4.0, 6.0, 6.0, 4.0], [10.0, 10.0, 14.0, 14.0], [7.0, 9.0, 9.0, 7.0])
"""Their means are 1, 5, 12 and 8: their ranks are 1, 2, 4 and 3."""

ERRORS = {
    "train": (0.4, 0.3, 0.2, 0.1),
    "validation": (0.5, 0.1, 0.3, 0.4),
    "evaluation": (0.4, 0.3, 0.1, 0.2),
}
CORRELATIONS = {"train": -0.8, "validation": -0.4, "evaluation": -1.0}
"""1 - 6 * sum(d * d) / (4 * 15), with d the differences of the ranks: sums of 18, 14 and 20."""


def error(value):
    return {"mse": value, "ci95": [0.9 * value, 1.1 * value], "caveat": "", "n": 40, "num_trajectories": 20}


def checkpoint(step, returns, **errors):
    """One of them; an error is a number, or an object as it is."""
    sets = {name: error(value) if isinstance(value, float) else value for name, value in errors.items()}
    return {
        "step": step,
        "name": f"checkpoint_{step}.zip",
        "returns": [None if isnan(value) else value for value in returns],
        "summary": summarize(returns).to_json(),
        "weights_hash": "abc",
        "policy_error": {"oracle": "expert.zip", **sets, "generalisation": None},
    }


def track_json(steps=STEPS, returns=RETURNS, errors=ERRORS, correlations=CORRELATIONS):
    """The object of `track --json`."""
    columns = [dict(zip(errors, values, strict=True)) for values in zip(*errors.values(), strict=True)]
    return {
        "schema": 1,
        "checkpoints": [checkpoint(*row, **sets) for *row, sets in zip(steps, returns, columns, strict=True)],
        "correlations": dict(correlations),
        "manifest": {"run": "seed_0", "env": "Here-v0", "dataset": "d.hdf5", "oracle": "expert.zip", "episodes": 4},
    }


FAILED = [nan] * 4
