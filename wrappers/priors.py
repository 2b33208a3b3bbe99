"""What a policy with discrete actions thinks of each of them: its prior, for `offline_eval.wrappers.SoftSteer`.

- `PolicyPrior(model)` reads its distribution.
- `OneHot(epsilon)` stands for a policy of which only the action is known.

Any function of the same arguments does as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch as th
from torch import Tensor

from offline_eval.errors import InputError, bare

if TYPE_CHECKING:
    from offline_eval.types import TensorObservations

__all__ = ["OneHot", "PolicyPrior", "Prior"]

Prior = Callable[["TensorObservations", Tensor, int], Tensor]
"""`(observations, chosen, num_actions) -> (batch, num_actions)` log-probabilities; `chosen` are indices (batch,)."""


@dataclass(frozen=True)
class OneHot:
    """A policy of which only the action is known.

    Args:
        epsilon: probability that is shared evenly by the other actions, in (0, 1). It is an assumption, and decides how
            much value another action must promise before it is taken: with `n` actions and `Greedy()`, more than
            `temperature * log((n - 1) * (1 - epsilon) / epsilon)` above that of the policy's.
    """

    epsilon: float

    def __post_init__(self) -> None:
        if not 0.0 < self.epsilon < 1.0:
            raise InputError("epsilon", "must lie between 0 and 1", self.epsilon, "0 would never take another action")

    def __call__(self, observations: TensorObservations, chosen: Tensor, num_actions: int) -> Tensor:
        """Log-probabilities (batch, num_actions)."""
        others = self.epsilon / max(1, num_actions - 1)
        shares = th.full((len(chosen), num_actions), others, device=chosen.device)
        return shares.scatter(1, chosen[:, None], 1.0 - self.epsilon).log()


@dataclass(frozen=True)
class PolicyPrior:
    """The distribution of a policy with discrete actions.

    Args:
        model: PPO, A2C and whatever else has SB3's `get_distribution`, or its policy. A DQN has none: it knows values.
    """

    model: Any = field(repr=False)

    def __post_init__(self) -> None:
        if _distribution_of(self.model) is None:
            raise InputError(
                "model",
                "must have a distribution of actions",
                bare(type(self.model).__name__),
                "where only its action is known, SoftSteer(..., prior=OneHot(epsilon))",
            )
        held = getattr(self.model, "get_vec_normalize_env", lambda: None)()
        if held is not None and held.norm_obs:
            raise InputError(
                "model",
                "must take raw observations",
                bare(f"a {type(self.model).__name__} that was trained behind a VecNormalize"),
                "Normalized(model, Statistics.of(model.get_vec_normalize_env()))",
            )

    def __call__(self, observations: TensorObservations, chosen: Tensor, num_actions: int) -> Tensor:
        """Log-probabilities (batch, num_actions)."""
        get_distribution = _distribution_of(self.model)
        assert get_distribution is not None  # looked for in the constructor
        with th.no_grad():
            logits = getattr(get_distribution(observations).distribution, "logits", None)
        if not isinstance(logits, Tensor) or logits.shape != (len(chosen), num_actions):
            raise InputError(
                "model",
                f"must have log-probabilities ({len(chosen)}, {num_actions})",
                bare(type(logits).__name__ if not isinstance(logits, Tensor) else f"shape {tuple(logits.shape)}"),
            )
        return logits


def _distribution_of(model: Any) -> Callable[[Any], Any] | None:
    """SB3's `get_distribution`, of a policy, of an algorithm's policy, or of a `Normalized`."""
    inner = getattr(model, "model", model)  # what a `Normalized` normalises for
    if not any(hasattr(owner, "get_distribution") for owner in (inner, getattr(inner, "policy", None))):
        return None
    owners: tuple[Any, ...] = (model, getattr(model, "policy", None))
    return next((owner.get_distribution for owner in owners if hasattr(owner, "get_distribution")), None)
