"""A policy and a rule as one, on one device: observations go there once, steered actions come back once.

A policy with Stable-Baselines3's `predict` brings its actions to the CPU, from where a rule takes them back to the GPU.
`Fused` asks the policy's actor where the rule is, so that a step costs one transfer each way and nothing waits in
between.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch as th
from gymnasium import Space, spaces
from torch import Tensor

from offline_eval.batching import num_rows
from offline_eval.errors import InputError, SpaceError, bare
from offline_eval.spaces import ActionScale
from offline_eval.types import Adaptable, Array, Rule, Steered
from offline_eval.wrappers.predictor import SteeredPolicy
from offline_eval.wrappers.rule_wrapper import RuleWrapper
from offline_eval.wrappers.rules import _same_box, require_continuous

if TYPE_CHECKING:
    from offline_eval.types import TensorObservations

__all__ = ["Fused", "fused_policy"]


@dataclass(frozen=True, eq=False)
class Fused(RuleWrapper):
    """Acts itself, by the actor's mean action, and steers that by a rule; the actions that come in are not looked at.

    `displacement` and the other metrics count from the actor's action.

    Args:
        actor: of the policy (`offline_eval.policies.actor_of`).
        rule: what to do to its action; None for nothing.
    """

    actor: Adaptable = field(repr=False)
    rule: Rule | None = None
    box: tuple[Tensor, Tensor] = field(init=False, repr=False)
    """Lowest and highest scaled action, each (action_dim,)."""

    def __post_init__(self) -> None:
        if not isinstance(self.actor, Adaptable):
            raise InputError(
                "actor", "must be an actor", bare(type(self.actor).__name__), "`actor_of(model)` makes one"
            )
        if self.rule is not None and self.rule.device != self.device and not _serves_anywhere(self.rule):
            raise InputError("rule", f"must be on the actor's device, {self.device}", bare(str(self.rule.device)))
        scale = ActionScale(self.actor.action_space)
        bounds = (scale.scaled_low.ravel(), scale.scaled_high.ravel())
        low, high = (th.as_tensor(bound, device=self.device) for bound in bounds)
        object.__setattr__(self, "box", (low, high))

    @property
    def device(self) -> th.device:
        """The actor's."""
        return self.actor.device

    def check(self, observation_space: Space[Any] | None, action_space: Space[Any]) -> None:
        """Raise a SpaceError where the rule cannot serve these spaces."""
        require_continuous(type(self).__name__, action_space)
        super().check(observation_space, action_space)
        if not _same_box(self.actor.action_space, action_space):
            raise SpaceError(
                "actor", f"must be made for the environment's actions, {action_space}", self.actor.action_space
            )

    def __call__(self, observations: TensorObservations, actions: Tensor, noise: Tensor | None = None) -> Steered:
        """Act and steer, given noise (batch, *noise_shape)."""
        with th.no_grad():
            own = self.actor.mean(observations)
        if self.rule is None:
            nothing = th.zeros_like(own[:, 0])
            return Steered(own, {"displacement": nothing, "clipped": nothing})
        proposed, metrics = self.rule(observations, own, noise)
        after = th.where(proposed != own, th.clamp(proposed, *self.box), own)
        measured = {
            "displacement": th.linalg.vector_norm(after - own, dim=1),
            "clipped": (after != proposed).to(own.dtype).mean(dim=1),
        }
        return Steered(after, {**measured, **metrics})


def fused_policy(actor: Adaptable, rule: Rule | None = None, seed: int | None = None) -> SteeredPolicy:
    """A policy with `predict` around `Fused(actor, rule)`: it goes into `evaluate` and `evaluate_policy`.

    Args:
        actor: of the policy.
        rule: what to do to its action; None for nothing.
        seed: of the rule's noise, as in `SteeredPolicy`.
    """
    return SteeredPolicy(_Nobody(actor), Fused(actor, rule), seed)


def _serves_anywhere(rule: Rule) -> bool:
    """Whether a rule holds nothing that lies on a device: it says CPU, and has no critic."""
    return rule.device.type == "cpu" and all(getattr(rule, name, None) is None for name in ("critic", "inner"))


class _Nobody:
    """Stands where a policy would: `Fused` does not look at its actions."""

    def __init__(self, actor: Adaptable) -> None:
        self.observation_space, self.action_space, self.device = (
            actor.observation_space,
            actor.action_space,
            actor.device,
        )

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Array, Any]:
        """Zeros for each observation, one or a batch."""
        shape = self.action_space.shape or ()
        if self._is_one(observation, self.observation_space):
            return np.zeros(shape, np.float32), None
        return np.zeros((num_rows(observation), *shape), np.float32), None

    def _is_one(self, observation: Any, space: Space[Any] | None) -> bool:
        if isinstance(observation, dict) and isinstance(space, spaces.Dict):
            return all(self._is_one(part, space[key]) for key, part in observation.items())
        return space is not None and np.ndim(observation) == len(space.shape or ())
