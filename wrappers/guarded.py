"""A rule with a guard behind it, and the same for whatever else proposes an action."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch as th
from torch import Tensor

from offline_eval.errors import InputError, bare
from offline_eval.types import Critic, Rule, Steered
from offline_eval.wrappers.guards import Guard, Verdict, between
from offline_eval.wrappers.rule_wrapper import RuleWrapper
from offline_eval.wrappers.rules import CriticRule

if TYPE_CHECKING:
    from offline_eval.types import TensorObservations

__all__ = ["Guarded", "held_back"]


@dataclass(frozen=True, eq=False)
class Guarded(CriticRule, RuleWrapper):
    """A rule whose steps a guard may hold back.

    Its metrics are those of the rule, of the step that is taken in the end, and one more: `gated`, the share of the
    rule's step that was held back, 0 where the rule took none. Its mean over a run is the share that guards held back
    in all. `predicted_gain` is the guard's where it asked the critic, else the rule's times the share taken.

    Example:
        >>> Guarded(OPEX(critic, 0.2, direction=L2()), LineSearch())  # doctest: +SKIP

    Args:
        rule: proposes a step; what leaves the box is cut before the guard sees it.
        guard: judges it.
        critic: whom the guard asks; the rule's own if left out.
    """

    rule: Rule
    guard: Guard
    critic: Critic = field(default=None, kw_only=True, repr=False)  # type: ignore[assignment]  # set below

    def __post_init__(self) -> None:
        if not isinstance(self.rule, Rule):
            raise InputError(
                "rule", "must be a steering rule", bare(type(self.rule).__name__), "OPEX(...), BestOfN(...)"
            )
        if not callable(self.guard):
            raise InputError(
                "guard", "must be a guard", bare(type(self.guard).__name__), "LineSearch(), KeepBest(), ..."
            )
        if self.critic is None:
            critic = getattr(self.rule, "critic", None)
            if critic is None:
                raise InputError(
                    "critic",
                    f"must be given, as {type(self.rule).__name__} has none",
                    None,
                    "Guarded(..., critic=critic)",
                )
            object.__setattr__(self, "critic", critic)
        super().__post_init__()

    def __call__(self, observations: TensorObservations, actions: Tensor, noise: Tensor | None = None) -> Steered:
        """Steer scaled actions (batch, action_dim) given noise (batch, *noise_shape)."""
        proposed = self.rule(observations, actions, noise)
        metrics = dict(proposed.metrics)
        after = th.clamp(proposed.actions, *self.box)
        moved = (proposed.actions != actions).any(dim=1)
        taken, verdict = held_back(self.guard, self.critic, observations, actions, after)
        finite = verdict.share.isfinite() & after.isfinite().all(dim=1)
        share = th.where(finite, verdict.share, 0.0)
        used = moved & (share > 0)

        def of_taken(values: Tensor) -> Tensor:
            return th.where(used, values, 0.0)

        before = metrics.get("gated", th.zeros_like(share))
        metrics["gated"] = th.where(moved, 1.0 - share * (1.0 - before), before)
        metrics["non_finite"] = metrics.get("non_finite", th.zeros_like(finite)).bool() | (moved & ~finite)
        cut = metrics.get("clipped", (after != proposed.actions).to(actions.dtype).mean(dim=1))
        metrics["clipped"] = of_taken(cut)
        promised = metrics.get("predicted_gain")
        if verdict.gain is not None:
            metrics["predicted_gain"] = of_taken(verdict.gain)
        elif promised is not None:
            metrics["predicted_gain"] = of_taken(share * promised)
        if promised is not None:
            # NaN says that the policy's own action has no value: a host refuses such a critic, and must see it.
            metrics["predicted_gain"] = th.where(promised.isnan(), promised, metrics["predicted_gain"])
        return Steered(th.where(used[:, None], taken, actions), metrics)


def held_back(
    guard: Guard, critic: Critic, observations: TensorObservations, before: Tensor, after: Tensor
) -> tuple[Tensor, Verdict]:
    """Where a guarded step ends, (batch, action_dim), and what the guard said of it.

    A row of which all is taken ends at `after` with the same bits, one of which nothing is taken, or whose values are
    not finite, at `before`. This is what `Guarded` does behind a rule; whatever else proposes actions can do it too.

    Args:
        guard: judges.
        critic: whom it asks.
        observations: one row each.
        before: scaled actions (batch, action_dim).
        after: where they would go, inside the box.
    """
    # A critic is never asked about what lies outside the box or is no number.
    verdict = guard(critic, observations, before, after.nan_to_num(0.0))
    return between(before, after, th.where(verdict.share.isfinite(), verdict.share, 0.0)), verdict
