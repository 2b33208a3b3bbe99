"""The choices of test-time training: which parameters, which optimiser, how far from the frozen policy, for how long.

- What is trained: `LastLayer`, `AllParameters`.
- Optimisers: `Adam`, `NormalizedGradient`, `GradientDescent`. Each environment has its own weights and moments.
- Anchor: `KLAnchor`, or None.
- Reset: `EachEpisode`, `Never`.

Each is a frozen object with its own fields; one of your own needs the same methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch as th
from torch import Tensor

from offline_eval.errors import InputError
from offline_eval.types import Adaptable
from offline_eval.wrappers.arguments import check_positive

if TYPE_CHECKING:
    from offline_eval.types import TensorObservations

__all__ = [
    "Adam",
    "AllParameters",
    "EachEpisode",
    "GradientDescent",
    "KLAnchor",
    "LastLayer",
    "Never",
    "NormalizedGradient",
    "Optimizer",
    "Reset",
    "Trained",
]

_SHORTEST_GRADIENT = 1e-12
"""Below it float32 has no direction left."""


class Trained(Protocol):
    """Which of an actor's parameters are trained."""

    def names(self, actor: Adaptable) -> tuple[str, ...]:
        """Of the parameters."""
        ...

    def inputs(self, actor: Adaptable, observations: TensorObservations) -> TensorObservations:
        """What to keep of a state (batch, ...) for evaluating it again with other parameters."""
        ...

    def locations(self, actor: Adaptable, parameters: Mapping[str, Tensor], inputs: TensorObservations) -> Tensor:
        """Locations (rows, states, action_dim) of such inputs, each row with its own parameters."""
        ...


@dataclass(frozen=True)
class LastLayer:
    """The last layer alone. The trunk stays as it is, so that its features of a state are computed once."""

    def names(self, actor: Adaptable) -> tuple[str, ...]:
        """The last layer's."""
        return actor.last_layer

    def inputs(self, actor: Adaptable, observations: TensorObservations) -> TensorObservations:
        """The trunk's features."""
        return actor.features(observations)

    def locations(self, actor: Adaptable, parameters: Mapping[str, Tensor], inputs: TensorObservations) -> Tensor:
        """From features."""
        return actor.last(parameters, inputs)


@dataclass(frozen=True)
class AllParameters:
    """The whole network: a hundred times the memory of the last layer, and several times the time."""

    def names(self, actor: Adaptable) -> tuple[str, ...]:
        """All that decide the deterministic action."""
        return tuple(actor.parameters())

    def inputs(self, actor: Adaptable, observations: TensorObservations) -> TensorObservations:
        """The observations."""
        return observations

    def locations(self, actor: Adaptable, parameters: Mapping[str, Tensor], inputs: TensorObservations) -> Tensor:
        """From observations."""
        return actor.whole(parameters, inputs)


class Optimizer(Protocol):
    """From gradients to steps, without learning rate; ascent.

    `num_moments` vectors of the parameters' length are kept for each environment, and how many steps it has taken.
    """

    @property
    def num_moments(self) -> int:
        """Vectors kept from step to step."""
        ...

    def __call__(
        self, gradient: Tensor, moments: tuple[Tensor, ...], step: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The step (rows, size) to be multiplied by the learning rate, and the new moments.

        Args:
            gradient: (rows, size) of what is maximised.
            moments: those of the step before, zeros at first, each (rows, size).
            step: (rows, 1) the step's number in each row, from 1.
        """
        ...


@dataclass(frozen=True)
class Adam:
    """Adam with bias correction (Kingma and Ba, 2015): each parameter moves by about the learning rate a step.

    Args:
        beta1: decay of the mean of gradients.
        beta2: decay of the mean of their squares.
        epsilon: added to the root of the latter.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        for name, value in (("beta1", self.beta1), ("beta2", self.beta2)):
            if not 0.0 <= value < 1.0:
                raise InputError(name, "must be >= 0 and < 1", value)
        check_positive("epsilon", self.epsilon, "1e-8 is usual")

    @property
    def num_moments(self) -> int:
        """First and second."""
        return 2

    def __call__(
        self, gradient: Tensor, moments: tuple[Tensor, ...], step: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See `Optimizer`."""
        first = th.lerp(moments[0], gradient, 1 - self.beta1)
        second = (self.beta2 * moments[1]).addcmul_(gradient, gradient, value=1 - self.beta2)
        mean = first / (1 - self.beta1**step)
        root = (second / (1 - self.beta2**step)).sqrt_()
        return mean.div_(root.add_(self.epsilon)), (first, second)


@dataclass(frozen=True)
class NormalizedGradient:
    """The gradient at length 1, over all trained parameters of an environment together."""

    @property
    def num_moments(self) -> int:
        """None."""
        return 0

    def __call__(
        self, gradient: Tensor, moments: tuple[Tensor, ...], step: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See `Optimizer`."""
        norm = th.linalg.vector_norm(gradient, dim=1, keepdim=True)
        return gradient / norm.clamp_min(_SHORTEST_GRADIENT), ()


@dataclass(frozen=True)
class GradientDescent:
    """The gradient as it is. With an anchor it is stiff: a narrow policy pulls back by the inverse of its variance."""

    @property
    def num_moments(self) -> int:
        """None."""
        return 0

    def __call__(
        self, gradient: Tensor, moments: tuple[Tensor, ...], step: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See `Optimizer`."""
        return gradient, ()


@dataclass(frozen=True)
class KLAnchor:
    """`coef * KL(frozen policy || adapted policy)`, subtracted from what is maximised.

    Training moves the mean and leaves the standard deviation as it is, so that the divergence of the two Gaussians is
    `sum((location - frozen)^2 / (2 * std^2))` in each state; before tanh where the policy is squashed.

    Args:
        coef: > 0.
        std_floor: standard deviations below it count as this. It is also the one of a deterministic policy. A real
            policy's is .05 to .3, and the pull grows with the inverse square.
    """

    coef: float
    std_floor: float = 0.5

    def __post_init__(self) -> None:
        check_positive("coef", self.coef, "anchor=None is none")
        check_positive("std_floor", self.std_floor, "a deterministic policy would be infinitely far from any other")

    def __call__(self, locations: Tensor, frozen: Tensor, std: Tensor | None) -> Tensor:
        """The divergence (...,) of locations (..., action_dim), not multiplied by `coef`."""
        width = th.full_like(frozen, self.std_floor) if std is None else std.clamp_min(self.std_floor)
        return (0.5 * ((locations - frozen) / width).square()).sum(dim=-1)


class Reset(Protocol):
    """What is left of an episode's learning in the next one."""

    @property
    def forgets(self) -> bool:
        """Whether an episode begins with the frozen policy: only then are episodes independent."""
        ...


@dataclass(frozen=True)
class EachEpisode:
    """Every episode begins with the frozen policy."""

    @property
    def forgets(self) -> bool:
        """Yes."""
        return True


@dataclass(frozen=True)
class Never:
    """Weights, moments and seen states go on from episode to episode: the episodes are not independent."""

    @property
    def forgets(self) -> bool:
        """No."""
        return False
