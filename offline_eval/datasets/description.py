"""What is in a data set: sizes, returns, lengths, the part of the action box that it covers, a normalised score."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain, combinations
from typing import Any

import numpy as np
from gymnasium import spaces

from offline_eval.datasets.notes import notes_of
from offline_eval.datasets.references import reference_of
from offline_eval.datasets.trajectories import Dataset
from offline_eval.types import Array, FloatArray

BINS, CELLS = 20, 10
"""Equal parts into which one dimension of the action box is divided, and either dimension of a pair."""

_MOST_PAIRS = 45
_RARE = 0.02
"""A bin counts as covered where it holds this share of what uniform actions would put there."""
_AT_BOUND = 1e-3


@dataclass(frozen=True)
class Spread:
    """How numbers are spread; `std` is that of the numbers themselves, not of their mean."""

    minimum: float
    mean: float
    median: float
    maximum: float
    std: float


@dataclass(frozen=True)
class Column:
    """One dimension of the observations or actions."""

    name: str
    minimum: float
    mean: float
    maximum: float
    std: float


@dataclass(frozen=True)
class Coverage:
    """Which part of the action box the data visit.

    Attributes:
        dimensions: share of `BINS` equal parts of each bounded dimension that hold actions, in (0, 1]; bins with less
            than a fiftieth of a uniform share are left out. Uniform actions give 1, one constant action 1 / `BINS`.
        mean: of `dimensions`.
        pairs: the same of the `CELLS` x `CELLS` parts of two dimensions, mean over at most 45 pairs; None with one.
        at_bounds: share of the numbers that lie at a bound (to a thousandth of the range) or beyond.
    """

    dimensions: tuple[float, ...]
    mean: float
    pairs: float | None
    at_bounds: float


@dataclass(frozen=True)
class NormalizedScore:
    """Returns on a scale where the reference returns are 0 and 100, undiscounted, mean over trajectories."""

    mean: float
    minimum: float
    maximum: float
    reference_minimum: float
    reference_maximum: float
    origin: str


@dataclass(frozen=True)
class Description:
    """What `describe` found; `as_dict` has the same as plain data.

    Attributes:
        terminated: share of the trajectories that end in a terminal state; the others were cut.
        final_known: share of the trajectories whose final observation is in the data.
        rewards: of every step.
        zero_rewards: share of the steps whose reward is 0.
        coverage: None for discrete and unbounded actions.
        action_shares: how often each discrete action was taken; None for others.
        normalized_score: None where no reference returns are known.
    """

    format: str
    path: str | None
    env_id: str | None
    num_trajectories: int
    num_steps: int
    num_transitions: int
    observation_space: str
    action_space: str
    assumed_action_space: bool
    lengths: Spread
    returns: Spread
    rewards: Spread
    zero_rewards: float
    terminated: float
    final_known: float
    observations: tuple[Column, ...]
    actions: tuple[Column, ...]
    coverage: Coverage | None
    action_shares: tuple[float, ...] | None
    normalized_score: NormalizedScore | None
    num_bytes: int
    memory_mapped: bool
    fingerprint: str
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """As plain data, ready for JSON."""
        return asdict(self)


def describe(dataset: Dataset) -> Description:
    """Describe a data set, block by block: a memory-mapped one is not read into memory as a whole."""
    returns, source = dataset.returns, dataset.source
    is_terminal = dataset.terminated[dataset.offsets[1:] - 1]
    rewards = dataset.rewards.astype(np.float64)
    coverage, shares = _actions(dataset)
    return Description(
        format=source.format,
        path=source.path,
        env_id=source.env_id,
        num_trajectories=len(dataset),
        num_steps=dataset.num_steps,
        num_transitions=dataset.num_transitions,
        observation_space=str(dataset.observation_space),
        action_space=str(dataset.action_space),
        assumed_action_space=source.assumed_action_space,
        lengths=_spread(dataset.lengths),
        returns=_spread(returns),
        rewards=_spread(rewards),
        zero_rewards=float(np.mean(rewards == 0.0)),
        terminated=float(np.mean(is_terminal)),
        final_known=float(np.mean(dataset.final_known)),
        observations=_columns(dataset, "observations"),
        actions=_columns(dataset, "actions"),
        coverage=coverage,
        action_shares=shares,
        normalized_score=_normalized(dataset, returns),
        num_bytes=dataset.store.num_bytes,
        memory_mapped=dataset.store.folder is not None,
        fingerprint=dataset.fingerprint,
        notes=notes_of(dataset),
    )


def _spread(values: Array) -> Spread:
    numbers = np.asarray(values, np.float64)
    return Spread(
        float(numbers.min()),
        float(numbers.mean()),
        float(np.median(numbers)),
        float(numbers.max()),
        float(numbers.std()),
    )


def _normalized(dataset: Dataset, returns: FloatArray) -> NormalizedScore | None:
    reference = reference_of(dataset.source)
    if reference is None:
        return None
    scores = 100.0 * (returns - reference.minimum) / (reference.maximum - reference.minimum)
    return NormalizedScore(float(scores.mean()), float(scores.min()), float(scores.max()), *reference)


def _columns(dataset: Dataset, prefix: str) -> tuple[Column, ...]:
    """Statistics of every dimension; images have none."""
    found: list[Column] = []
    for name, count, blocks in dataset.blocks():
        if not name.startswith(prefix):
            continue
        first = next(blocks)
        if first.dtype == np.uint8 and first.ndim > 2:
            continue
        # Sums of differences from the first row: without them the variance of large numbers would cancel out.
        origin = first[0].reshape(-1).astype(np.float64)
        low, high = np.full_like(origin, np.inf), np.full_like(origin, -np.inf)
        total, squares = np.zeros_like(origin), np.zeros_like(origin)
        for block in chain([first], blocks):
            difference = block.reshape(len(block), -1) - origin
            low, high = np.minimum(low, difference.min(axis=0)), np.maximum(high, difference.max(axis=0))
            total += difference.sum(axis=0)
            squares += np.square(difference).sum(axis=0)
        mean = total / count
        spread = np.sqrt(np.maximum(squares / count - np.square(mean), 0.0))
        table = np.stack([origin + low, origin + mean, origin + high, spread], axis=1)
        names = [f"{name}[{i}]" for i in range(len(origin))] if first.ndim > 1 else [name]
        found += [Column(label, *(float(x) for x in row)) for label, row in zip(names, table, strict=True)]
    return tuple(found)


def _actions(dataset: Dataset) -> tuple[Coverage | None, tuple[float, ...] | None]:
    space = dataset.action_space
    if isinstance(space, spaces.Discrete):
        counts = np.bincount(np.clip(dataset.actions - space.start, 0, space.n - 1), minlength=int(space.n))
        return None, tuple(float(share) for share in counts / counts.sum())
    if not isinstance(space, spaces.Box):
        return None, None
    low, high = space.low.reshape(-1).astype(np.float64), space.high.reshape(-1).astype(np.float64)
    bounded = np.flatnonzero(np.isfinite(low) & np.isfinite(high) & (high > low))
    if not len(bounded):
        return None, None
    pairs = list(combinations(range(len(bounded)), 2))
    pairs = pairs[:: -(-len(pairs) // _MOST_PAIRS) or 1]
    counts = np.zeros((len(bounded), BINS), np.int64)
    cells = np.zeros((len(pairs), CELLS * CELLS), np.int64)
    at_bounds = 0
    for block in _blocks_of(dataset, "actions"):
        flat = block.reshape(len(block), -1)[:, bounded]
        unit = (flat - low[bounded]) / (high - low)[bounded]
        at_bounds += int(((unit <= _AT_BOUND) | (unit >= 1.0 - _AT_BOUND)).sum())
        bins, halves = (np.clip(unit * parts, 0, parts - 1).astype(np.int64) for parts in (BINS, CELLS))
        for i in range(len(bounded)):
            counts[i] += np.bincount(bins[:, i], minlength=BINS)
        for i, (one, other) in enumerate(pairs):
            cells[i] += np.bincount(halves[:, one] * CELLS + halves[:, other], minlength=CELLS * CELLS)
    steps = dataset.num_steps
    covered = np.mean(counts > _RARE * steps / BINS, axis=1)
    coverage = Coverage(
        tuple(float(share) for share in covered),
        float(covered.mean()),
        float(np.mean(cells > _RARE * steps / CELLS**2)) if pairs else None,
        at_bounds / (steps * len(bounded)),
    )
    return coverage, None


def _blocks_of(dataset: Dataset, wanted: str) -> Iterator[Array]:
    return next(blocks for name, _, blocks in dataset.blocks() if name == wanted)
