"""What data are turned into before a network sees them: statistics of the data set, frozen when training starts.

They are undone in what leaves the trainer: the policy and the critics that a file holds take observations as the
environment gives them and answer in units of the raw return.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from offline_eval.checks import check_positive
from offline_eval.datasets.store import row_blocks
from offline_eval.errors import InputError, bare
from offline_eval.types import Array, FloatArray

if TYPE_CHECKING:
    from offline_eval.datasets.trajectories import Dataset


@dataclass(frozen=True)
class Standard:
    """Observations become (observation - mean) / scale; both (observation_dim,) float32."""

    mean: FloatArray
    scale: FloatArray


@runtime_checkable
class ObservationTransform(Protocol):
    """How observations are normalised."""

    def statistics(self, dataset: Dataset) -> Standard | None:
        """From the data; None leaves observations alone."""
        ...


@runtime_checkable
class RewardTransform(Protocol):
    """How rewards are scaled."""

    def factor(self, dataset: Dataset) -> float:
        """What rewards are multiplied by, > 0."""
        ...


@dataclass(frozen=True)
class Raw:
    """Data as they are: for observations and for rewards."""

    def statistics(self, dataset: Dataset) -> Standard | None:
        """None."""
        return None

    def factor(self, dataset: Dataset) -> float:
        """1."""
        return 1.0


@dataclass(frozen=True)
class Standardize:
    """Observations minus their mean over the data, divided by their standard deviation plus epsilon.

    A dimension that never changes is centred and not scaled: dividing by epsilon alone would turn the last bit of such
    a dimension into a signal.

    Args:
        epsilon: TD3+BC and CORL: 1e-3.
    """

    epsilon: float = 1e-3

    def __post_init__(self) -> None:
        check_positive("epsilon", self.epsilon, "0 divides by the deviation alone", or_zero=True)

    def statistics(self, dataset: Dataset) -> Standard:
        """Over the observations in which actions were taken."""
        total = squares = np.zeros(())
        for block in row_blocks(dataset.observation_rows):
            rows = flat_observations(dataset)[dataset.observation_rows[block]].astype(np.float64)
            total, squares = total + rows.sum(0), squares + np.square(rows).sum(0)
        mean = total / dataset.num_transitions
        variance = np.maximum(squares / dataset.num_transitions - mean**2, 0.0)
        # Below this, the variance is what rounding leaves of a constant.
        constant = variance <= 1e-12 * np.maximum(mean**2, 1.0)
        scale = np.where(constant, 1.0, np.sqrt(variance) + self.epsilon)
        return Standard(mean.astype(np.float32), scale.astype(np.float32))


@dataclass(frozen=True)
class ReturnRange:
    """Rewards times `span` / (highest - lowest return of a trajectory): IQL's scaling for locomotion.

    Args:
        span: of the returns afterwards. ikostrikov/implicit_q_learning: 1000.
    """

    span: float = 1000.0

    def __post_init__(self) -> None:
        check_positive("span", self.span, "rewards=Raw() leaves them as they are")

    def factor(self, dataset: Dataset) -> float:
        """From the returns of the data's trajectories."""
        returns = dataset.returns
        width = float(returns.max() - returns.min())
        if width <= 0.0:
            raise InputError(
                "dataset",
                "must have trajectories of different returns to scale rewards by their range",
                bare(f"{len(returns)} with return {returns[0]:g}"),
                "take rewards=Raw()",
            )
        return self.span / width


def flat_observations(dataset: Dataset) -> Array:
    """The store's observations (rows, observation_dim), a view; see `Dataset.observation_rows`."""
    observations = dataset.store.observations
    assert not isinstance(observations, dict)
    return observations.reshape(len(observations), -1)
