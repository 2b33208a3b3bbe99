"""Whether rewards stand in the row that they belong to, or one row too early or too late.

A reward is a function of the step it was given for: of its observation, its action and the observation that it led to.
A regression on these explains it; where the same regression on the row before or after explains it far better, in
rows that it was not fitted on, the rewards are shifted. Where the dynamics are smooth, or the reward is one of the
state alone, several rows explain it alike, and what decides is the seam between two trajectories: there a shifted
reward belongs to a state of another episode.

What looks like a shift inside of the trajectories may have another reason (a reward for what is not observed). A shift
is therefore certain only where the seams say the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from offline_eval.types import Array, FloatArray

_LAGS = (-1, 0, 1)
_MOST_ROWS = 5000
_FEATURES = 256
_MOST_PRODUCTS = 150
_PENALTIES = 10.0 ** np.arange(-6, 3)
_BLOCKS = 40
_RATIO = 0.5
"""Another row must leave at most this share of what the reward's own row leaves unexplained ..."""
_LEFT = 0.01
"""... where that is at least this share of the variance ..."""
_EXPLAINED = 0.25
"""... explain this much of it ..."""
_RANKS = 13, 26
"""... and do so in blocks of time alike: the order statistics of 40 between which their median lies, at 95 % ..."""
_ALIKE = 0.9
"""... and in this share of them: what another row explains better in some phases only is no shift."""
_CLEAR = 0.95
"""The same where the seams do not confirm it."""
_SEAM_RATIO = 0.3
_FEWEST_SEAMS = 5
_MOST_SEAMS = 500
_MOST = 0.8
"""A share that counts as nearly all."""
_USUAL = 0.95
_SPARSE = 0.2


@dataclass(frozen=True)
class Shift:
    """Rewards that belong to another row.

    Attributes:
        lag: the row they belong to: -1 the one before (they come late), 1 the one after.
        is_certain: whether the seams of trajectories say the same as their inside.
        evidence: in words, with numbers.
    """

    lag: int
    is_certain: bool
    evidence: str


@dataclass(frozen=True, eq=False)
class Steps:
    """Flat rows, finite.

    Args:
        observations: (num_rows, dimension) float32.
        actions: (num_rows, dimension) float32.
        rewards: (num_rows,).
        ends: (num_rows,) bool, the last row of each trajectory.
        next_observations: as `observations`; None where nobody has them.
        next_known: (num_rows,) bool, rows of `next_observations` that stand for something; None for all.
    """

    observations: FloatArray
    actions: FloatArray
    rewards: FloatArray
    ends: Array
    next_observations: FloatArray | None = None
    next_known: Array | None = None

    def inputs(self, rows: Array) -> FloatArray:
        """What the rewards of these rows may depend on, (num_rows, inputs)."""
        return np.concatenate([self.observations[rows], self.actions[rows], self._reached(rows)], axis=1)

    def is_whole(self, rows: Array) -> Array:
        """Whether the observation that these rows led to is known."""
        if self.next_observations is None:
            return ~self.ends[rows]
        return ~self.ends[rows] | (True if self.next_known is None else self.next_known[rows])

    def _reached(self, rows: Array) -> FloatArray:
        following: FloatArray = self.observations[np.minimum(rows + 1, len(self.rewards) - 1)].copy()
        if self.next_observations is not None:
            following[self.ends[rows]] = self.next_observations[rows[self.ends[rows]]]
        return following


def reward_shift(steps: Steps) -> Shift | None:
    """By which row the rewards are shifted; None where they are not, or nothing can be said.

    Nothing can be said of constant or sparse rewards, of too few rows, and of rewards that no row explains.
    """
    rewards = steps.rewards
    late = _sparse_shift(rewards, steps.ends)
    if late is not None:
        return late
    number = np.cumsum(steps.ends) - steps.ends
    inner = np.arange(1, len(rewards) - 2)
    inner = inner[number[inner - 1] == number[inner + 2]]
    if len(inner) > _MOST_ROWS:
        inner = np.sort(np.random.default_rng(0).choice(inner, _MOST_ROWS, replace=False))
    dimension = 2 * steps.observations.shape[1] + steps.actions.shape[1]
    if len(inner) < max(10 * _BLOCKS, 6 * (1 + 2 * dimension)) or np.ptp(rewards[inner]) == 0.0:
        return None
    block = np.arange(len(inner)) * _BLOCKS // len(inner)
    errors = {lag: _cross_fitted(steps.inputs(inner + lag), rewards[inner], block) for lag in _LAGS}
    return _inside(steps, inner, block, errors) or _at_seams(steps, inner, errors)


def _sparse_shift(rewards: FloatArray, ends: Array) -> Shift | None:
    """Late rewards of a task that pays at the end only: they stand in the first row of the next trajectory."""
    usual = np.median(rewards)
    paid = rewards != usual
    is_first = np.concatenate([[False], ends[:-1]])  # the file's first row follows nothing
    # Where trajectories are short, much lies in first rows anyway.
    if not 3 <= paid.sum() <= _SPARSE * len(rewards) or is_first.mean() > _SPARSE:
        return None
    early = int(paid[is_first & ~ends].sum())
    if early < _MOST * paid.sum():
        return None
    return Shift(-1, True, f"{early} of the {int(paid.sum())} rewards that differ are in an episode's first row")


def _cross_fitted(inputs: FloatArray, target: FloatArray, block: Array) -> FloatArray:
    """Error of each row, predicted from the blocks of the other parity."""
    errors = np.empty(len(target))
    for fold in (block % 2 == 0, block % 2 == 1):
        errors[~fold] = target[~fold] - _Regression(inputs[fold], target[fold]).predict(inputs[~fold])
    return errors


def _inside(steps: Steps, inner: Array, block: Array, errors: dict[int, FloatArray]) -> Shift | None:
    """A row inside of the trajectories that explains the rewards far better than their own."""
    variance = float(steps.rewards[inner].var())
    left = {lag: np.square(error) / variance for lag, error in errors.items()}
    lag = min(_LAGS, key=lambda lag: float(left[lag].mean()))
    own, other = float(left[0].mean()), float(left[lag].mean())
    if lag == 0 or own < _LEFT or 1.0 - other < _EXPLAINED:
        return None
    if other > _RATIO * own and 1.0 - own > _RATIO * (1.0 - other):
        return None
    gains = np.sort(np.bincount(block, left[0] - left[lag]) / np.bincount(block))  # one wild row moves one block
    low, high = (gains[rank] for rank in _RANKS)
    if low <= 0.0 or np.mean(gains > 0) < _ALIKE:
        return None
    evidence = (
        f"of the variance, in rows not fitted on, row i {'-' if lag < 0 else '+'} 1 explains {1 - other:.2f}, row i "
        f"{max(0.0, 1 - own):.2f}; median difference of blocks {np.median(gains):.2f} [{low:.2f}, {high:.2f}]"
    )
    beside = _beside(steps, lag)
    if len(beside) >= _FEWEST_SEAMS and _is_confirmed(steps, inner, beside, lag, errors[lag]):
        return Shift(lag, True, evidence)
    doubt = "do not confirm it" if len(beside) >= _FEWEST_SEAMS else "are too few to confirm it"
    return Shift(lag, False, f"{evidence}; ends of episodes {doubt}") if np.mean(gains > 0) >= _CLEAR else None


def _is_confirmed(steps: Steps, inner: Array, beside: Array, lag: int, errors: FloatArray) -> bool:
    """Whether the rewards beside the seams, too, belong to the other row, or were filled in.

    Who shifts rewards within an episode fills the row that is left without one.
    """
    if _is_filled(steps.rewards, beside, lag):
        return True
    own, other = _residuals(steps, inner, beside, lag)
    is_usual = np.median(other) <= np.quantile(np.abs(errors), _USUAL) and np.median(other) < np.median(own)
    return bool(is_usual or np.mean(other < own) >= _MOST)


def _at_seams(steps: Steps, inner: Array, errors: dict[int, FloatArray]) -> Shift | None:
    """A lag that explains the rewards beside the seams of trajectories, where their own row clearly does not."""
    usual = {lag: np.quantile(np.abs(error), _USUAL) for lag, error in errors.items()}
    variance = steps.rewards[inner].var()
    for lag in (1, -1):
        beside = _beside(steps, lag)
        if len(beside) < _FEWEST_SEAMS or min(np.square(errors[k]).mean() for k in _LAGS) > 0.5 * variance:
            continue
        own, other = _residuals(steps, inner, beside, lag)
        # Medians: a terminal reward or an unusual start is allowed to be anything.
        if np.median(own) <= usual[0]:
            continue
        if np.median(other) < _SEAM_RATIO * np.median(own) and np.mean(other < own) > _MOST:
            missed = f"row i misses the reward by {np.median(own):.3g}, row i {'-' if lag < 0 else '+'} 1 by"
            evidence = f"in {len(beside)} rows beside ends of episodes {missed} {np.median(other):.3g} (medians)"
            return Shift(lag, True, evidence)
    return None


def _beside(steps: Steps, lag: int) -> Array:
    """The rows beside seams whose rewards a shift by `lag` takes from another episode."""
    last = np.flatnonzero(steps.ends[:-1])
    last = last[:: max(1, len(last) // _MOST_SEAMS)]
    return last if lag > 0 else last + 1


def _is_filled(rewards: FloatArray, beside: Array, lag: int) -> bool:
    """Whether nearly all of these rewards are one number, or that of the row next to them."""
    values, counts = np.unique(rewards[beside], return_counts=True)
    neighbour = rewards[np.clip(beside - lag, 0, len(rewards) - 1)]
    is_one = counts.max() >= _MOST * len(beside) and np.mean(rewards == values[counts.argmax()]) < 0.5
    return bool(is_one or np.mean(rewards[beside] == neighbour) >= _MOST)


def _residuals(steps: Steps, inner: Array, beside: Array, lag: int) -> tuple[FloatArray, FloatArray]:
    """By how much their own row and the other one miss the rewards of the rows `beside`, both (len(beside),)."""
    found = []
    for k in (0, lag):
        inputs, rows = steps.inputs(inner + k), np.clip(beside + k, 0, len(steps.rewards) - 1)
        here = steps.inputs(rows)
        if not steps.is_whole(rows).all():  # then without what they led to
            width = steps.observations.shape[1] + steps.actions.shape[1]
            inputs, here = inputs[:, :width], here[:, :width]
        fit = _Regression(inputs, steps.rewards[inner])
        found.append(np.abs(steps.rewards[beside] - fit.predict(here)))
    return found[0], found[1]


class _Regression:
    """Ridge regression on the inputs, their products, and random cosines of all of them, of two and of one.

    The penalty is the one of least error by generalised cross-validation (Golub, Heath and Wahba, 1979).
    """

    def __init__(self, inputs: FloatArray, target: FloatArray) -> None:
        dimension = inputs.shape[1]
        generator = np.random.default_rng(0)
        pairs = np.stack(np.triu_indices(dimension))
        self._pairs = pairs if pairs.shape[1] <= _MOST_PRODUCTS else np.stack([np.arange(dimension)] * 2)
        count = max(0, min(_FEATURES, len(inputs) // 3 - 1 - dimension - self._pairs.shape[1]))
        used = np.array([dimension, min(2, dimension), 1])[np.arange(count) % 3]
        order = generator.random((dimension, count)).argsort(axis=0)
        widths = generator.choice(np.array([0.7, 2.0, 5.0]), count) / np.sqrt(used)
        directions = generator.standard_normal((dimension, count)) * widths * (order < used)
        self._directions = directions.astype(np.float32)
        self._phases = generator.uniform(0.0, 2.0 * np.pi, count).astype(np.float32)
        self._mean, self._spread = inputs.mean(axis=0), inputs.std(axis=0) + 1e-6
        self._offset = target.mean()
        self._centre = np.zeros(1, np.float32)
        features = self._features(inputs)
        self._centre = features.mean(axis=0)
        features = features - self._centre
        values, vectors = np.linalg.eigh((features.T @ features).astype(np.float64))
        values = np.maximum(values, 0.0)
        projected = vectors.T @ (features.T.astype(np.float64) @ (target - self._offset))
        penalty = min(len(inputs) * _PENALTIES, key=lambda p: _validated(p, values, projected, target - self._offset))
        self._weights = vectors @ (projected / (values + penalty))

    def predict(self, inputs: FloatArray) -> FloatArray:
        predicted: FloatArray = self._offset + self._features(inputs) @ self._weights
        return predicted

    def _features(self, inputs: FloatArray) -> FloatArray:
        scaled = np.clip((inputs - self._mean) / self._spread, -5.0, 5.0).astype(np.float32)
        waves = np.cos(scaled @ self._directions + self._phases)
        products = scaled[:, self._pairs[0]] * scaled[:, self._pairs[1]]
        return np.concatenate([scaled, products, waves], axis=1) - self._centre


def _validated(penalty: float, values: FloatArray, projected: FloatArray, target: FloatArray) -> float:
    """The generalised cross-validation error of a ridge regression, from the eigenvalues of its Gram matrix."""
    shrunk = values + penalty
    left = np.square(target).sum() - np.sum(np.square(projected) * (values + 2 * penalty) / np.square(shrunk))
    return float(left / np.square(len(target) - np.sum(values / shrunk)))
