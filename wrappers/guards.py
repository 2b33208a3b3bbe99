"""What may hold a step back: guards, to be put behind a rule by `Guarded(rule, guard)`.

A guard sees where the policy's action is and where a rule would take it, asks a critic, and says which share of that
way is taken. It knows nothing of the rule, and the rule nothing of it: seven guards and three rules are ten pieces.

| guard | takes |
|---|---|
| `KeepBest()` | all of the step, or nothing where the critic rates its end no higher than its start |
| `LineSearch(num_points=8)` | as much of it as the critic rates highest among evenly spaced points, 0 and 1 included |
| `AllHeadsGain()` | all of it where every head gains, else nothing |
| `AgreementGate(threshold=0.5)` | all of it where the heads' gradients point the same way, else nothing |
| `AgreementScale()` | as much of it as the cosine between them |
| `GainOverDisagreement(coef=1.0)` | the gain divided by how far the heads disagree about the end, at most all of it |
| `TrustRadius(radius)` | as much of it as stays within a distance from the policy's action |

Many small steps (`OPEX(num_steps=...)`) and a lower bound (`LowerBound`, for a rule's or a guard's `reduce`) need no
guard. Guards stack: `Guarded(Guarded(rule, TrustRadius(0.2)), LineSearch())`.

What asks for agreement needs two heads or more, since one cannot disagree with itself. An agent with a single critic
has a second member in its target critic, a slower copy (`offline_eval.policies.with_target`); the two share their
errors, so that their agreement proves less than that of an ensemble. Where there is none, such a guard raises.

No guard here detects a critic whose heads are wrong in the same way: they hold back a step that goes too far.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch as th
from torch import Tensor

from offline_eval.errors import CriticError, InputError, bare
from offline_eval.types import Array, Critic, Rule, Steered
from offline_eval.wrappers.arguments import check_positive, check_whole
from offline_eval.wrappers.directions import L2, Min, Reduction
from offline_eval.wrappers.rule_wrapper import RuleWrapper
from offline_eval.wrappers.rules import CriticRule, heads, reduced
from offline_eval.wrappers.seen_states import map_record

if TYPE_CHECKING:
    from offline_eval.types import TensorObservations

__all__ = [
    "AgreementGate",
    "AgreementScale",
    "AllHeadsGain",
    "GainOverDisagreement",
    "Guard",
    "Guarded",
    "KeepBest",
    "LineSearch",
    "TrustRadius",
    "Verdict",
    "held_back",
]


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


_MIN, _UNIT = Min(), L2()


class Verdict(NamedTuple):
    """What a guard says of a step."""

    share: Tensor  # (batch,) of the way that is taken, 0 to 1; NaN where the critic had no finite value
    gain: Tensor | None = None  # (batch,) what the critic promises for that share; None where it was not asked


Guard = Callable[[Critic, "TensorObservations", Tensor, Tensor], Verdict]
"""`(critic, observations, before, after) -> Verdict`, with scaled actions (batch, action_dim) inside the box."""


@dataclass(frozen=True)
class KeepBest:
    """All of the step, or nothing where the reduced value at its end is not higher than at its start.

    Args:
        reduce: from the ensemble's values to the one that is compared.
    """

    reduce: Reduction = _MIN

    def __call__(self, critic: Critic, observations: TensorObservations, before: Tensor, after: Tensor) -> Verdict:
        """Judge a step; one forward pass of 2 * batch rows."""
        values = reduced(_ask(critic, observations, before, after).flatten(1), self.reduce).view(2, -1)
        gain = values[1] - values[0]
        return Verdict(_known((gain > 0).to(gain.dtype), gain), gain.clamp_min(0.0))


@dataclass(frozen=True)
class LineSearch:
    """As much of the step as the critic rates highest.

    The points lie on the straight line from the policy's action to where the rule would go, 0 and all of it included;
    of equals the nearest wins. Behind `OPEX(critic, cap, direction=L2())` this searches the ray of the gradient up to
    `cap`, as the box has cut it.

    Args:
        num_points: candidates, >= 2.
        reduce: from the ensemble's values to the one that is compared.
    """

    num_points: int = 8
    reduce: Reduction = _MIN

    def __post_init__(self) -> None:
        check_whole("num_points", self.num_points, 2, "2 are the two ends, as KeepBest compares them")

    def __call__(self, critic: Critic, observations: TensorObservations, before: Tensor, after: Tensor) -> Verdict:
        """Judge a step; one forward pass of num_points * batch rows."""
        shares = th.linspace(0.0, 1.0, self.num_points, dtype=before.dtype, device=before.device)
        points = [between(before, after, share.expand(len(before))) for share in shares.unbind()]
        values = reduced(_ask(critic, observations, *points).flatten(1), self.reduce).view(self.num_points, -1)
        best = values.argmax(dim=0)  # the first of equals
        gain = values.gather(0, best[None])[0] - values[0]
        return Verdict(_known(shares[best], values.sum(dim=0)), gain)


@dataclass(frozen=True)
class AllHeadsGain:
    """All of the step where every head rates its end higher than its start, else nothing."""

    def __call__(self, critic: Critic, observations: TensorObservations, before: Tensor, after: Tensor) -> Verdict:
        """Judge a step; one forward pass of 2 * batch rows."""
        q = _ask(critic, observations, before, after)
        gains = _ensemble("AllHeadsGain", q)[:, 1] - q[:, 0]
        gain = gains.min(dim=0).values
        return Verdict(_known((gain > 0).to(gain.dtype), gains.sum(dim=0)), gain.clamp_min(0.0))


@dataclass(frozen=True)
class AgreementGate:
    """All of the step where the heads' gradients at the policy's action agree, else nothing.

    Args:
        threshold: the cosine between the gradients must exceed it, -1 to 1; with more than two heads the mean over
            all pairs. With one action dimension it is 1 or -1, and 1 half of the time by chance.
    """

    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not -1.0 <= self.threshold <= 1.0:
            raise InputError("threshold", "must be a cosine, from -1 to 1", self.threshold, "0.5 is 60 degrees")

    def __call__(self, critic: Critic, observations: TensorObservations, before: Tensor, after: Tensor) -> Verdict:
        """Judge a step; a forward pass, and a backward pass for each head."""
        cosine = _agreement("AgreementGate", critic, observations, before)
        return Verdict(_known((cosine > self.threshold).to(cosine.dtype), cosine))


@dataclass(frozen=True)
class AgreementScale:
    """As much of the step as the cosine between the heads' gradients at the policy's action; nothing below 0."""

    def __call__(self, critic: Critic, observations: TensorObservations, before: Tensor, after: Tensor) -> Verdict:
        """Judge a step; a forward pass, and a backward pass for each head."""
        return Verdict(_agreement("AgreementScale", critic, observations, before).clamp(0.0, 1.0))


@dataclass(frozen=True)
class GainOverDisagreement:
    """The share `gain / (coef * disagreement)` of the step, between 0 and 1: little where the heads differ much.

    The gain is that of the reduced value; the disagreement twice the standard deviation of the heads at the step's
    end (over them, ddof 0), which for two heads is |Q1 - Q2|.

    Args:
        coef: > 0; larger holds back more.
        reduce: from the ensemble's values to the one whose gain it is.
    """

    coef: float = 1.0
    reduce: Reduction = _MIN

    def __post_init__(self) -> None:
        check_positive("coef", self.coef, "KeepBest() asks for a gain of any size")

    def __call__(self, critic: Critic, observations: TensorObservations, before: Tensor, after: Tensor) -> Verdict:
        """Judge a step; one forward pass of 2 * batch rows. The gain is taken as linear along the step."""
        q = _ensemble("GainOverDisagreement", _ask(critic, observations, before, after))
        values = reduced(q.flatten(1), self.reduce).view(2, -1)
        gain = values[1] - values[0]
        disagreement = 2.0 * q[:, 1].std(dim=0, correction=0)
        share = th.where(gain > 0, (gain / (self.coef * disagreement)).clamp_max(1.0), 0.0)
        return Verdict(_known(share, gain + disagreement), share * gain)


@dataclass(frozen=True)
class TrustRadius:
    """As much of the step as stays within a distance from the policy's action.

    Example:
        >>> radius = action_spread(observations, scaled_actions, generator)  # doctest: +SKIP
        >>> Guarded(OPEX(critic, 0.2, direction=L2()), TrustRadius(radius))  # doctest: +SKIP

    Args:
        radius: > 0, in scaled units; one a dimension makes an ellipsoid of these half-axes, such as the spread of the
            data's actions (`offline_eval.diagnostics.spread.action_spread`). Infinity sets no limit.
    """

    radius: float | Sequence[float] | Array

    def __post_init__(self) -> None:
        radius = np.asarray(self.radius, dtype=np.float64)
        if radius.ndim > 1 or radius.size == 0 or not np.all(radius > 0):
            raise InputError(
                "radius", "must be a number > 0, or one a dimension", self.radius, "math.inf sets no limit"
            )
        object.__setattr__(self, "radius", float(radius) if radius.ndim == 0 else tuple(radius.tolist()))

    def __call__(self, critic: Critic, observations: TensorObservations, before: Tensor, after: Tensor) -> Verdict:
        """Judge a step; the critic is not asked."""
        radius: Any = self.radius
        if isinstance(radius, tuple):
            if len(radius) != before.shape[1]:
                raise InputError("radius", f"must have one entry a dimension, here {before.shape[1]}", radius)
            length = th.stack([part / half for part, half in zip((after - before).unbind(1), radius, strict=True)], 1)
        else:
            length = (after - before) / radius
        return Verdict((1.0 / th.linalg.vector_norm(length, dim=1)).clamp_max(1.0))


def between(before: Tensor, after: Tensor, share: Tensor) -> Tensor:
    """`before` where the share (batch,) is 0 and `after` where it is 1, to the last bit."""
    share = share[:, None]
    inside = before + share * (after - before)
    return th.where(share >= 1.0, after, th.where(share > 0.0, inside, before))


def _ask(critic: Critic, observations: TensorObservations, *actions: Tensor) -> Tensor:
    """Values (n_critics, len(actions), batch) in one forward pass."""
    with th.no_grad():
        repeated = map_record(lambda value: value.repeat(len(actions), *[1] * (value.ndim - 1)), observations)
        q = heads(critic, repeated, th.cat(actions))
        return q.view(len(q), len(actions), -1)


def _known(share: Tensor, value: Tensor) -> Tensor:
    return th.where(value.isfinite(), share, math.nan)


def _ensemble(guard: str, q: Tensor) -> Tensor:
    if len(q) < 2:
        raise CriticError(
            "critic",
            f"must have two heads or more for {guard}: one cannot disagree with itself",
            bare(f"{len(q)} head"),
            "`offline_eval.policies.with_target(model)` adds its target critic; LineSearch, KeepBest and TrustRadius "
            "need no second head",
        )
    return q


def _agreement(guard: str, critic: Critic, observations: TensorObservations, actions: Tensor) -> Tensor:
    """Mean cosine (batch,) between the gradients of all pairs of heads; 0 where a gradient is."""
    with th.enable_grad():
        leaf = actions.detach().requires_grad_()
        q = _ensemble(guard, heads(critic, observations, leaf))
        if not q.requires_grad:
            raise CriticError("critic", f"must be differentiable in the actions for {guard}", bare("no gradient"))
        gradients = [th.autograd.grad(head.sum(), leaf, retain_graph=True)[0] for head in q]
    units = th.stack([_UNIT(gradient) for gradient in gradients])
    number = len(units)
    # The square of the sum holds every pair twice, and each with itself once.
    pairs = units.sum(dim=0).square().sum(dim=1) - units.square().sum(dim=(0, 2))
    return (pairs / (number * (number - 1))).clamp(-1.0, 1.0)
