"""One update as its losses see it: a batch, the networks, and what several losses would otherwise compute twice."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import torch as th
from torch import Tensor

from offline_eval.policies.actors import ActorRule, Distribution
from offline_eval.policies.networks import Activation, Parameters, affine, hidden, scalar
from offline_eval.types import Batch

Metrics = dict[str, Tensor]
"""What to log, named `group/name`, detached; of whatever shape: its mean is taken when it is logged, not every step."""

Loss = tuple[Tensor, Metrics]
"""A scalar to minimise, and metrics."""


@dataclass(frozen=True)
class Networks:
    """Every network that a loss may read, bound to one set of parameters.

    Args:
        parameters: by name; what an algorithm does not use is an empty list.
        activation: between the layers.
        actor: what the actor's output means.
    """

    parameters: Parameters
    activation: Activation
    actor: ActorRule

    def qs(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Every critic's value (n_critics, batch)."""
        return self._scalar("critic", th.cat([observations, actions], -1))

    def q1(self, observations: Tensor, actions: Tensor) -> Tensor:
        """The first critic's value (batch,)."""
        first = [layer[0] for layer in self.parameters["critic"]]
        return scalar(first, th.cat([observations, actions], -1), self.activation)

    def target_qs(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Every target critic's value (n_critics, batch)."""
        return self._scalar("target_critic", th.cat([observations, actions], -1))

    def v(self, observations: Tensor) -> Tensor:
        """The state value (batch,) of a rule that trains one."""
        return self._scalar("value", observations)

    def pi(self, observations: Tensor) -> Distribution:
        """What the actor does in (batch,) states."""
        return self._pi("actor", observations)

    def target_pi(self, observations: Tensor) -> Distribution:
        """What the target actor does in (batch,) states."""
        return self._pi("target_actor", observations)

    @property
    def frozen(self) -> Networks:
        """The same, with critics through which actions have a gradient and parameters have none."""
        return replace(self, parameters=self.parameters | {"critic": [p.detach() for p in self.parameters["critic"]]})

    def _scalar(self, name: str, x: Tensor) -> Tensor:
        return scalar(self.parameters[name], x, self.activation)

    def _pi(self, name: str, observations: Tensor) -> Distribution:
        layers = self.parameters[name]
        features = hidden(layers, observations, self.activation)
        output = affine(layers[-2], layers[-1], features)
        return self.actor.distribution(output, features, self.parameters["spread"])


class StateValues(Protocol):
    """What a state's value means, and how it is learned: what every value rule says."""

    def baseline(self, step: Step) -> Tensor:
        """V(s) (batch,) in the batch's states, without gradient."""
        ...

    def next_value(self, step: Step) -> Tensor:
        """What the next states are worth (batch,)."""
        ...

    def loss(self, step: Step) -> Loss:
        """What it is trained on beside the critics' temporal-difference loss."""
        ...


class Step:
    """A pure function's argument: parameters (in `networks`), batch, noise and discount; nothing here is changed.

    Args:
        networks: bound to the parameters before the update. Every loss of an update is taken at the same parameters,
            and all of them are stepped together (as OGBench does; the first IQL code steps V, policy and Q in turn).
        batch: transitions; actions scaled, observations and rewards as the recipe transforms them.
        noise: standard normal numbers (batch, ...) for the value rule; None where it wants none.
        gamma: discount a step.
        rule: what a state's value means; None where no critic is trained.
    """

    def __init__(
        self, networks: Networks, batch: Batch, noise: Tensor | None, gamma: float, rule: StateValues | None
    ) -> None:
        self.networks, self.batch, self.noise, self.gamma, self.rule = networks, batch, noise, gamma, rule

    @cached_property
    def data_q(self) -> Tensor:
        """The smallest target critic at the data's actions (batch,), without gradient."""
        with th.no_grad():
            return self.networks.target_qs(self.batch.observations, self.batch.actions).amin(0)

    @cached_property
    def v(self) -> Tensor:
        """The state value (batch,), with gradient."""
        with th.enable_grad():  # whoever asks first may be computing a target
            return self.networks.v(self.batch.observations)

    @cached_property
    def pi(self) -> Distribution:
        """What the actor does in the batch's states, with gradient."""
        with th.enable_grad():
            return self.networks.pi(self.batch.observations)

    @cached_property
    def advantage(self) -> Tensor:
        """Q(s, a) - V(s) of the data's actions (batch,), from the smallest target critic, without gradient."""
        assert self.rule is not None
        return self.data_q - self.rule.baseline(self)

    @cached_property
    def frozen(self) -> Networks:
        """Networks for the policy's loss: actions have a gradient through the critics, the critics have none."""
        return self.networks.frozen
