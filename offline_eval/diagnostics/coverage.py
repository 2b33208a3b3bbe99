"""Does the policy visit states that the data know? Distances to the nearest training state.

Coverage never decides what is wrong: a sound policy that starts off the data's support visits far states and loses
nothing. It partitions states into inside and outside, for what does decide.

Distances are Euclidean in dimensions standardised by the training states. They come from one large matrix product in
blocks: measured against a k-d tree on 1M x 10k states of 17 dimensions, 10 s on one core whatever the states are,
where the tree takes 1 s to 150 s depending on how many of the dimensions move independently.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from offline_eval.diagnostics.checks import finite, fraction, same_rows
from offline_eval.diagnostics.clustered import (
    Curve,
    Estimate,
    cluster_bootstrap,
    cluster_sums,
    mean_estimate,
    ratio,
    step_curve,
)
from offline_eval.errors import InputError, bare
from offline_eval.types import Array

MAX_TRAINING = 1_000_000
MAX_QUERIES = 10_000

_QUERY_BLOCK, _TRAINING_BLOCK = 256, 2048  # 2 MB of distances: they stay in the cache between product and minimum


@dataclass(frozen=True, eq=False)
class States:
    """States of some trajectories.

    Attributes:
        observations: (num_states, *shape), flattened to (num_states, num_dimensions).
        episodes: (num_states,) which trajectory a state belongs to.
        steps: (num_states,) time step within it.

    Raises:
        InputError: an observation is not finite (its index is named), or the lengths differ.
    """

    observations: Array
    episodes: Array
    steps: Array

    def __post_init__(self) -> None:
        object.__setattr__(self, "observations", _flat("observations", self.observations))
        object.__setattr__(self, "episodes", np.asarray(self.episodes))
        object.__setattr__(self, "steps", np.asarray(self.steps))
        same_rows(observations=self.observations, episodes=self.episodes, steps=self.steps)

    def sample(self, num_states: int, generator: np.random.Generator) -> States:
        """At most so many of the states, drawn without replacement; all of them where there are no more."""
        if len(self.steps) <= num_states:
            return self
        rows = np.sort(generator.choice(len(self.steps), num_states, replace=False))
        return States(self.observations[rows], self.episodes[rows], self.steps[rows])


class Support:
    """The region that training states cover, as held-out states of the same data mark it.

    Args:
        training: (num_states, *shape) observations the policy was trained on.
        validation: states of held-out trajectories. States of the training trajectories themselves would not do: their
            neighbours in time are a step away.
        generator: draws the samples.
        quantile: of the validation distances; beyond it a state is outside.
        max_training: of more training states a sample is used.
        max_queries: of more validation states a sample is used.

    Attributes:
        threshold: the distance beyond which a state is outside.
        validation: the held-out states that were used.
        validation_distances: (num_validation,) their distances.
        num_training: training states given.
        num_training_used: of those compared with.
    """

    def __init__(
        self,
        training: Any,
        validation: States,
        generator: np.random.Generator,
        *,
        quantile: float = 0.99,
        max_training: int = MAX_TRAINING,
        max_queries: int = MAX_QUERIES,
    ) -> None:
        fraction("quantile", quantile)
        for name, value in (("max_training", max_training), ("max_queries", max_queries)):
            if value < 1:
                raise InputError(name, "must be at least 1", value)
        training = _flat("training", training)
        if training.shape[1] != validation.observations.shape[1]:
            raise InputError(
                "validation",
                f"must have the training states' {training.shape[1]} dimensions",
                bare(f"{validation.observations.shape[1]}"),
            )
        self.num_training = len(training)
        self.centre, spread = training.mean(axis=0), training.std(axis=0)
        # A dimension in which the data never move counts in its own units: leaving it is leaving the data.
        self.scale = np.where(spread > 1e-9 * np.abs(self.centre), spread, 1.0)
        if len(training) > max_training:
            training = training[np.sort(generator.choice(len(training), max_training, replace=False))]
        self.num_training_used = len(training)
        self._index = _Index(self._standardised(training))
        self.validation = validation.sample(max_queries, generator)
        self.validation_distances = self.distances(self.validation.observations)
        self.threshold = float(np.quantile(self.validation_distances, quantile))

    def distances(self, observations: Any) -> Array:
        """Distance (num_states,) of each observation to the nearest training state, in standard deviations."""
        observations = _flat("observations", observations)
        if observations.shape[1] != len(self.scale):
            raise InputError(
                "observations",
                f"must have the training states' {len(self.scale)} dimensions",
                bare(f"{observations.shape[1]}"),
            )
        return self._index.distances(self._standardised(observations))

    def outside(self, observations: Any) -> Array:
        """(num_states,) whether each observation lies beyond the threshold."""
        return np.asarray(self.distances(observations) > self.threshold)

    def _standardised(self, observations: Array) -> Array:
        return np.asarray((observations - self.centre) / self.scale, dtype=np.float32)


class _Index:
    """Nearest neighbours among points (num_points, num_dimensions) in float32.

    The product gives squared distances to within a few 1e-7 of the squared norms, which picks the neighbour; the
    distance to it is then taken directly. A state that is itself among the points comes out below about .005.
    """

    def __init__(self, points: Array) -> None:
        self.points = points
        # Squared distance less the query's own norm: one product with a column of ones.
        self._columns = np.concatenate([-2.0 * points.T, np.square(points).sum(axis=1)[None]])

    def distances(self, queries: Array) -> Array:
        rows = np.concatenate([queries, np.ones((len(queries), 1), dtype=np.float32)], axis=1)
        nearest = np.concatenate(
            [self._nearest(rows[start : start + _QUERY_BLOCK]) for start in range(0, len(rows), _QUERY_BLOCK)]
        )
        return np.asarray(np.sqrt(np.square(queries.astype(np.float64) - self.points[nearest]).sum(axis=1)))

    def _nearest(self, rows: Array) -> Array:
        each = np.arange(len(rows))
        lowest, nearest = np.full(len(rows), np.inf, dtype=np.float32), np.zeros(len(rows), dtype=np.int64)
        for start in range(0, len(self.points), _TRAINING_BLOCK):
            block = rows @ self._columns[:, start : start + _TRAINING_BLOCK]
            best = block.argmin(axis=1)
            values = block[each, best]
            nearest = np.where(values < lowest, start + best, nearest)
            lowest = np.minimum(values, lowest)
        return nearest


@dataclass(frozen=True, eq=False)
class Coverage:
    """How far visited states lie from the training states; intervals by episodes.

    Attributes:
        ratio: mean distance of visited over that of validation states; None where the latter is 0.
        share_outside: share of visited states beyond the threshold; the data's own policy shows 1 - quantile.
        drift: mean distance over the time step.
        visited_distances: (num_visited_used,) in standard deviations of the training states.
        validation_distances: (num_validation_used,) likewise.
        threshold: the distance beyond which a state is outside.
        num_visited: visited states given.
        num_training: training states given.
        num_training_used: of those compared with.
    """

    ratio: Estimate | None
    share_outside: Estimate
    drift: Curve
    visited_distances: Array
    validation_distances: Array
    threshold: float
    num_visited: int
    num_training: int
    num_training_used: int


def coverage(
    support: Support,
    visited: States,
    generator: np.random.Generator,
    *,
    max_queries: int = MAX_QUERIES,
    num_bins: int = 50,
) -> Coverage:
    """Coverage of the states that a policy visits.

    Args:
        support: of the data.
        visited: states of the policy's own episodes.
        generator: draws the sample and resamples episodes.
        max_queries: of more visited states a sample is used.
        num_bins: of the drift over the time step.
    """
    if max_queries < 1:
        raise InputError("max_queries", "must be at least 1", max_queries)
    used = visited.sample(max_queries, generator)
    distances = support.distances(used.observations)
    distance_ratio = None
    if support.validation_distances.any():
        distance_ratio = cluster_bootstrap(
            _ratio_of_means,
            _sums(distances, used.episodes),
            _sums(support.validation_distances, support.validation.episodes),
            generator=generator,
        )
    return Coverage(
        ratio=distance_ratio,
        share_outside=mean_estimate(distances > support.threshold, used.episodes, generator),
        drift=step_curve(distances, used.steps, used.episodes, generator, num_bins),
        visited_distances=distances,
        validation_distances=support.validation_distances,
        threshold=support.threshold,
        num_visited=len(visited.steps),
        num_training=support.num_training,
        num_training_used=support.num_training_used,
    )


def _sums(distances: Array, episodes: Array) -> Array:
    return cluster_sums(np.stack([distances, np.ones(len(distances))], axis=1), episodes)


def _ratio_of_means(visited: Array, validation: Array) -> Array:
    return np.asarray(ratio(visited) / ratio(validation))


def _flat(name: str, observations: Any) -> Array:
    array = np.asarray(observations)
    flat = array.reshape(len(array), int(np.prod(array.shape[1:]))) if array.ndim else array
    return finite(name, flat, ndim=2)
