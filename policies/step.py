"""One update as its losses see it: a batch, the networks, and what several losses would otherwise compute twice."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import torch as th
from torch import Tensor

from offline_eval.policies.actors import Distribution
from offline_eval.policies.networks import Networks
from offline_eval.types import Batch

if TYPE_CHECKING:
    from offline_eval.policies.values import ValueRule

Metrics = dict[str, Tensor]
"""What to log, named `group/name`, detached; of whatever shape: its mean is taken when it is logged, not every step."""

Loss = tuple[Tensor, Metrics]
"""A scalar to minimise, and metrics."""


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
        self, networks: Networks, batch: Batch, noise: Tensor | None, gamma: float, rule: ValueRule | None
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
