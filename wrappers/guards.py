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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch as th
from torch import Tensor

from offline_eval.errors import CriticError, InputError, bare
from offline_eval.types import Array, Critic
from offline_eval.wrappers.arguments import check_positive, check_whole
from offline_eval.wrappers.directions import L2, Min, Reduction
from offline_eval.wrappers.rules import heads, reduced
from offline_eval.wrappers.seen_states import map_record

if TYPE_CHECKING:
    from offline_eval.types import TensorObservations

__all__ = [
    "AgreementGate",
    "AgreementScale",
    "AllHeadsGain",
    "GainOverDisagreement",
    "Guard",
    "KeepBest",
    "LineSearch",
    "TrustRadius",
    "Verdict",
]

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
