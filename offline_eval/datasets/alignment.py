"""Whether rewards stand in the row that they belong to, or one row too early or too late.

A reward is a function of the step it was given for. A regression of the reward on its own row explains it; where the
row before or after explains it far better, the rewards are shifted. Where dynamics are smooth and known rows predict
each other (Pendulum), what decides is the seam between two trajectories: there a shifted reward belongs to a state of
another episode.
"""

from __future__ import annotations

import numpy as np

from offline_eval.types import Array, FloatArray

_LAGS = (-1, 0, 1)
_MOST_ROWS = 5000
_FEATURES = 384
_BLOCKS = 40
_RATIO = 0.5
"""Another row must leave at most this share of what the reward's own row leaves unexplained ..."""
_EXPLAINED = 0.5
"""... explain at least half of the variance ..."""
_Z = 3.0
"""... and do so in blocks of time alike: mean over standard error."""
_SEAM_RATIO = 0.2
_FEWEST_SEAMS = 5
_SPARSE = 0.8


def reward_lag(observations: FloatArray, actions: FloatArray, rewards: FloatArray, ends: Array) -> int | None:
    """Which row the rewards belong to: -1 the row before (they come late), 1 the row after, 0 their own.

    None where nothing can be said: constant or sparse rewards, too few rows, rewards that no row explains.

    Args:
        observations: (num_rows, dimension) float32, finite.
        actions: (num_rows, dimension) float32, finite.
        rewards: (num_rows,), finite.
        ends: (num_rows,) bool, the last row of each trajectory.
    """
    common = _sparse_lag(rewards, ends)
    if common is not None:
        return common
    number = np.cumsum(ends) - ends
    inner = np.arange(1, len(rewards) - 2)
    inner = inner[number[inner - 1] == number[inner + 2]]
    dimension = 2 * observations.shape[1] + actions.shape[1]
    if len(inner) > _MOST_ROWS:
        inner = np.sort(np.random.default_rng(0).choice(inner, _MOST_ROWS, replace=False))
    if len(inner) < max(10 * _BLOCKS, 6 * (1 + 2 * dimension)) or np.ptp(rewards[inner]) == 0.0:
        return None
    target = (rewards[inner] - rewards[inner].mean()) / rewards[inner].std()
    block = np.arange(len(inner)) * _BLOCKS // len(inner)
    steps = np.concatenate([observations, actions], axis=1)

    errors = {}
    for lag in _LAGS:
        row = inner + lag
        errors[lag] = _cross_fitted(
            np.concatenate([steps[row], observations[row + 1] - observations[row]], 1), target, block
        )
    lag = min(_LAGS, key=lambda lag: float(errors[lag].mean()))
    if errors[lag].mean() > _EXPLAINED:
        return None
    if lag != 0 and errors[lag].mean() < _RATIO * errors[0].mean():
        gain = np.bincount(block, errors[0] - errors[lag]) / np.bincount(block)
        if gain.mean() > _Z * gain.std(ddof=1) / np.sqrt(_BLOCKS):
            return lag
    return _seam_lag(steps, rewards, inner, ends)


def _sparse_lag(rewards: FloatArray, ends: Array) -> int | None:
    """Late rewards of a task that pays at the end only: they stand in the first row of the next trajectory."""
    usual = np.median(rewards)
    paid = rewards != usual
    if not 3 <= paid.sum() <= (1.0 - _SPARSE) * len(rewards):
        return None
    is_first = np.concatenate([[False], ends[:-1]])  # the file's first row follows nothing
    return -1 if paid[is_first].sum() >= _SPARSE * paid.sum() else None


def _cross_fitted(inputs: FloatArray, target: FloatArray, block: Array) -> FloatArray:
    """Squared error of each row, predicted from the blocks of the other parity."""
    errors = np.empty(len(target))
    for fold in (block % 2 == 0, block % 2 == 1):
        errors[~fold] = np.square(target[~fold] - _Regression(inputs[fold], target[fold]).predict(inputs[~fold]))
    return errors


def _seam_lag(steps: FloatArray, rewards: FloatArray, inner: Array, ends: Array) -> int:
    """The lag that explains the rewards beside the seams of trajectories; 0 where no other one clearly does."""
    last = np.flatnonzero(ends[:-1])
    if len(last) < _FEWEST_SEAMS:
        return 0
    last = last[:: max(1, len(last) // 500)]
    fits = {lag: _Regression(steps[inner + lag], rewards[inner]) for lag in _LAGS}
    for lag, beside in ((1, last), (-1, last + 1)):
        own, other = (np.abs(rewards[beside] - fits[k].predict(steps[beside + k])) for k in (0, lag))
        # The median: a terminal reward or an unusual start is allowed to be anything.
        if np.median(other) < _SEAM_RATIO * np.median(own) and np.mean(other < own) > _SPARSE:
            return lag
    return 0


class _Regression:
    """Ridge regression on the inputs, their squares and random cosines of them."""

    def __init__(self, inputs: FloatArray, target: FloatArray) -> None:
        dimension = inputs.shape[1]
        generator = np.random.default_rng(0)
        count = max(0, min(_FEATURES, len(inputs) // 3 - 1 - 2 * dimension))
        widths = generator.choice(np.array([0.7, 2.0, 5.0]), count) / np.sqrt(dimension)
        self._directions = (generator.standard_normal((dimension, count)) * widths).astype(np.float32)
        self._phases = generator.uniform(0.0, 2.0 * np.pi, count).astype(np.float32)
        self._mean, self._spread = inputs.mean(axis=0), inputs.std(axis=0) + 1e-6
        self._offset = target.mean()
        features = self._features(inputs)
        gram = (features.T @ features).astype(np.float64)
        gram[np.diag_indices_from(gram)] += 1e-4 * len(features)
        self._weights = np.linalg.solve(gram, features.T.astype(np.float64) @ (target - self._offset))

    def predict(self, inputs: FloatArray) -> FloatArray:
        predicted: FloatArray = self._offset + self._features(inputs) @ self._weights
        return predicted

    def _features(self, inputs: FloatArray) -> FloatArray:
        scaled = np.clip((inputs - self._mean) / self._spread, -5.0, 5.0).astype(np.float32)
        waves = np.cos(scaled @ self._directions + self._phases)
        return np.concatenate([np.ones((len(scaled), 1), np.float32), scaled, np.square(scaled), waves], axis=1)
