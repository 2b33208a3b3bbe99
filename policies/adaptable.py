"""Actors of models as functions of their parameters: what test-time training trains copies of, one an environment.

An actor here is a live view, as critics are: it follows the model's weights while the model learns, and is never
written to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch as th
from gymnasium import Space
from torch import Tensor, nn
from torch.func import functional_call

from offline_eval.policies.actors import Distribution, Normal, Point
from offline_eval.policies.critics import live_view

if TYPE_CHECKING:
    from offline_eval.types import TensorObservations

__all__ = ["CutNormal", "Network", "TorchActor"]

Spread = Callable[[Tensor], Tensor]
"""From features (batch, width) to the logarithm of the standard deviation (batch, action_dim)."""
Family = Callable[[Tensor, Tensor], Distribution]
"""From locations and the logarithm of the standard deviation to the policy's distribution over scaled actions."""


class Network(nn.Module):
    """A trunk, and the last layer behind it."""

    def __init__(self, trunk: nn.Module, last: nn.Linear) -> None:
        super().__init__()
        self.trunk, self.last = trunk, last

    def forward(self, observations: Any) -> Tensor:
        """What the last layer gives (batch, action_dim)."""
        return self.last(self.trunk(observations))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class CutNormal:
    """A diagonal Gaussian whose mean may lie outside the box; actions are cut to it, as `predict` does.

    Implements `Distribution`. Beyond the wall the action has no gradient in the mean.
    """

    mean: Tensor
    log_std: Tensor
    low: Tensor  # (action_dim,), scaled
    high: Tensor

    @property
    def mode(self) -> Tensor:
        """The mean, inside the box."""
        return self.mean.clamp(self.low, self.high)

    def sample(self, noise: Tensor) -> Tensor:
        """Mean plus noise, cut to the box."""
        return (self.mean + self.log_std.exp() * noise).clamp(self.low, self.high)

    def log_prob(self, actions: Tensor) -> Tensor:
        """Of the Gaussian before it is cut."""
        return Normal(self.mean, self.log_std).log_prob(actions)

    def imitation_loss(self, actions: Tensor) -> Tensor:
        """Negative log-density."""
        return -self.log_prob(actions)


class TorchActor:
    """An `Adaptable` (see `offline_eval.types`) made of a network; `actor_of` makes them.

    Args:
        network: trunk and last layer; viewed, not copied.
        bend: from the last layer's output to locations, elementwise in all but the last axis.
        family: the distribution around a location.
        spread: of a stochastic policy; None for a deterministic one.
        observation_space: of the environment.
        action_space: of the environment.
        device: where the network lies.
    """

    def __init__(
        self,
        network: Network,
        bend: Callable[[Tensor], Tensor],
        family: Family,
        spread: Spread | None,
        observation_space: Space[Any] | None,
        action_space: Space[Any],
        device: th.device,
    ) -> None:
        self._network: Any = live_view(network)
        self._bend, self._family, self._log_std = bend, family, spread
        self.observation_space, self.action_space, self.device = observation_space, action_space, device
        self.last_layer = tuple(f"last.{name}" for name, _ in network.last.named_parameters())
        self._whole = th.func.vmap(lambda parameters, rows: functional_call(self._network, parameters, (rows,)))

    def parameters(self) -> dict[str, Tensor]:
        """Those of the trunk and of the last layer."""
        return {name: value.detach() for name, value in self._network.named_parameters()}

    def features(self, observations: TensorObservations) -> Tensor:
        """The trunk's output (batch, width)."""
        return self._network.trunk(observations)  # type: ignore[no-any-return]

    def last(self, parameters: Mapping[str, Tensor], features: Any) -> Tensor:
        """Locations (rows, states, action_dim) of features (rows, states, width)."""
        weight, bias = parameters["last.weight"], parameters.get("last.bias")
        if bias is None:
            return self._bend(features @ weight.mT)
        return self._bend(th.baddbmm(bias[:, None], features, weight.mT))

    def whole(self, parameters: Mapping[str, Tensor], observations: TensorObservations) -> Tensor:
        """Locations (rows, states, action_dim) of observations (rows, states, ...)."""
        return self._bend(self._whole(dict(parameters), observations))

    def spread(self, features: Any) -> Tensor | None:
        """Standard deviation (batch, action_dim); None for a deterministic policy."""
        if self._log_std is None:
            return None
        std = self._log_std(features).exp()
        return std.expand(len(features), std.shape[-1])  # PPO and A2C have one for all states

    def actions(self, locations: Tensor) -> Tensor:
        """Scaled actions: the mode of the distribution at a location."""
        return self._family(locations, locations).mode  # which does not depend on the spread

    def mean(self, observations: TensorObservations) -> Tensor:
        """The deterministic action (batch, action_dim), scaled."""
        return self._distribution(observations).mode

    def sample(self, observations: TensorObservations, noise: Tensor) -> Tensor:
        """Actions for standard normal noise (batch, action_dim)."""
        return self._distribution(observations).sample(noise)

    def log_prob(self, observations: TensorObservations, actions: Tensor) -> Tensor:
        """Log-density (batch,) of scaled actions; raises for a deterministic policy."""
        return self._distribution(observations).log_prob(actions)

    def _distribution(self, observations: TensorObservations) -> Distribution:
        features = self.features(observations)
        location = self._bend(self._network.last(features))
        if self._log_std is None:
            return Point(self.actions(location))
        return self._family(location, self._log_std(features).expand_as(location))
