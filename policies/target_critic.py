"""A second opinion for an agent with a single critic: its target critic, as further heads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import Tensor, nn

from offline_eval.errors import CriticError, bare
from offline_eval.policies.critics import QCritic, Values, critic_of, in_raw_units, network_name, own_critic, values_of
from offline_eval.policies.normalization import Normalized, as_trained

if TYPE_CHECKING:
    from offline_eval.types import TensorObservations

__all__ = ["with_target"]


def with_target(model: Any) -> QCritic:
    """The critic of a model with its target critic's heads behind its own: (2 * n_critics, batch).

    For what asks an ensemble whether it agrees. A target critic is a slower copy of the critic: the two have made the
    same mistakes, and differ by what was learned last. Their agreement proves little; that they differ tells something.

    Args:
        model: an SB3 or sb3-contrib algorithm with a target critic, or a `Normalized` around one.

    Raises:
        CriticError: the model has no Q, or no target critic.
    """
    model = as_trained(model)
    if isinstance(model, Normalized):
        return in_raw_units(_with_target(model.model), model)
    return _with_target(model)


def _with_target(model: Any) -> QCritic:
    critic = own_critic(model) if isinstance(model, BaseAlgorithm) else critic_of(model)
    name = network_name(model) if isinstance(model, BaseAlgorithm) else None
    target = getattr(model.policy, f"{name}_target", None) if name is not None else None
    if name is None or not isinstance(target, nn.Module) or not isinstance(critic, QCritic):
        raise CriticError(
            "model", "must have a target critic", bare(type(model).__name__), "`critic_of(model)` is all that it has"
        )
    both = _Stacked(critic.values, values_of(target, name, model.observation_space))
    return QCritic(both, critic.observation_space, critic.action_space, critic.device, critic.gamma, critic.soft)


class _Stacked:
    """The heads of two critics, one below the other."""

    def __init__(self, first: Values, second: Values) -> None:
        self.first, self.second = first, second

    def __call__(self, observations: TensorObservations, actions: Tensor) -> Tensor:
        return th.cat([self.first(observations, actions), self.second(observations, actions)])
