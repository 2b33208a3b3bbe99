"""Rules that know nothing of a critic: what steering must beat before it may take credit.

- `RandomDirection`: as far as OPEX goes, in a direction drawn uniformly.
- `MultiplyAction`: actions a little larger. On agents trained online 1.1 gains as much as OPEX.
- `Placebo`: a push far too small to mean anything. In a chaotic environment it re-draws the falls all the same.
- `UniformAction`: chance itself, the other end of an agent's range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch as th
from gymnasium import Space
from torch import Tensor

from offline_eval.errors import InputError, SpaceError, bare
from offline_eval.types import Steered
from offline_eval.wrappers.adaptation import Adapting
from offline_eval.wrappers.arguments import Numbers, column, numbers
from offline_eval.wrappers.rule_wrapper import RuleWrapper
from offline_eval.wrappers.rules import CriticRule, SteeringRule, required

if TYPE_CHECKING:
    from offline_eval.types import TensorObservations

__all__ = ["MultiplyAction", "Placebo", "RandomDirection", "UniformAction", "trivial_rules"]


@dataclass(frozen=True, eq=False)
class RandomDirection(RuleWrapper):
    """A step in a direction drawn uniformly from the sphere, in the scaled space.

    Give one of the two lengths:

    Args:
        step_size: the length, >= 0, before the box cuts it: OPEX's with `direction=L2()` and one step. A vector holds
            one entry a row.
        like: a rule whose *realised* displacement each row repeats, after the box has cut it. Where the box is in the
            way of the drawn direction too, the free dimensions go further instead until the length is reached, or
            the corner; a control that moves less than what it controls would prove too little.
    """

    number_per_row = "step_size"
    wrapped = "like"

    step_size: Numbers | None = None
    like: CriticRule | Adapting | None = None

    def __post_init__(self) -> None:
        if (self.step_size is None) == (self.like is None):
            raise InputError(
                "step_size",
                "or `like` must be given, and not both",
                bare(f"step_size={self.step_size!r}, like={self.like!r}"),
                "RandomDirection(0.1), or RandomDirection(like=OPEX(...))",
            )
        if self.step_size is not None:
            step_size = numbers("step_size", self.step_size, "0 leaves the action as it is")
            object.__setattr__(self, "step_size", step_size)
        elif not isinstance(self.like, CriticRule | Adapting):
            raise InputError("like", "must be a rule that asks a critic", self.like, "a number goes into `step_size`")

    def noise_shape(self, action_dim: int) -> tuple[int, ...]:
        """The direction, then what `like` draws, in one row."""
        return (action_dim + (math.prod(self._likes(action_dim))),)

    def __call__(self, observations: TensorObservations, actions: Tensor, noise: Tensor | None) -> Steered:
        """Move scaled actions (batch, action_dim) given noise (batch, *noise_shape)."""
        noise = required(noise)
        action_dim = actions.shape[1]
        direction = noise[:, :action_dim]
        direction = direction / th.linalg.vector_norm(direction, dim=-1, keepdim=True)
        if self.like is None:
            return Steered(actions + column("step_size", self.step_size, actions) * direction, {})
        likes = self._likes(action_dim)
        copied = self.like(observations, actions, noise[:, action_dim:].reshape(-1, *likes) if likes != (0,) else None)
        length = th.linalg.vector_norm(copied.actions - actions, dim=-1, keepdim=True)
        moved, cut = _reach(actions, direction, length, *self.like.box)
        metrics = {
            "clipped": (cut & (length > 0)).mean(dim=-1, dtype=actions.dtype),
            "non_finite": copied.metrics["non_finite"],
        }
        return Steered(th.where(length > 0, moved, actions), metrics)

    def _likes(self, action_dim: int) -> tuple[int, ...]:
        return (0,) if self.like is None else self.like.noise_shape(action_dim) or (0,)


@dataclass(frozen=True, eq=False)
class MultiplyAction(SteeringRule):
    """The action times a factor.

    What is multiplied is the scaled action: in a Box symmetric about 0 that is the environment's action times the
    factor; elsewhere actions are stretched about the middle of the Box, so that both ends are treated alike.

    Args:
        factor: >= 0; 1 leaves the action as it is. A vector holds one entry a row.
    """

    number_per_row = "factor"

    factor: Numbers

    def __post_init__(self) -> None:
        object.__setattr__(self, "factor", numbers("factor", self.factor, "1 leaves the action as it is"))

    def __call__(self, observations: TensorObservations, actions: Tensor, noise: Tensor | None = None) -> Steered:
        """Multiply scaled actions (batch, action_dim)."""
        return Steered(actions * column("factor", self.factor, actions), {})


@dataclass(frozen=True, eq=False)
class Placebo(SteeringRule):
    """Gaussian noise too small to be an improvement.

    Args:
        std: standard deviation in scaled units, >= 0. A vector holds one entry a row.
    """

    number_per_row = "std"

    std: Numbers = 1e-6

    def __post_init__(self) -> None:
        object.__setattr__(self, "std", numbers("std", self.std, "0 leaves the action as it is"))

    def noise_shape(self, action_dim: int) -> tuple[int, ...]:
        """One number a dimension."""
        return (action_dim,)

    def __call__(self, observations: TensorObservations, actions: Tensor, noise: Tensor | None) -> Steered:
        """Disturb scaled actions (batch, action_dim) given noise of their shape."""
        noise = required(noise)
        return Steered(actions + column("std", self.std, actions) * noise, {})


@dataclass(frozen=True, eq=False)
class UniformAction(SteeringRule):
    """An action drawn uniformly from the box, whatever the policy wants: what an agent must be better than."""

    def check(self, observation_space: Space[Any] | None, action_space: Space[Any]) -> None:
        """Raise a SpaceError where the actions have no bounds."""
        super().check(observation_space, action_space)
        if not action_space.is_bounded():  # type: ignore[attr-defined]  # a Box by now
            raise SpaceError("action_space", "must be bounded to draw from it uniformly", action_space)

    def noise_shape(self, action_dim: int) -> tuple[int, ...]:
        """One number a dimension."""
        return (action_dim,)

    def __call__(self, observations: TensorObservations, actions: Tensor, noise: Tensor | None) -> Steered:
        """Scaled actions (batch, action_dim) from noise of their shape."""
        return Steered(2.0 * th.special.ndtr(required(noise)) - 1.0, {})


def trivial_rules() -> dict[str, SteeringRule]:
    """What every steered variant is held against, beside a random direction of its own length."""
    factors = (1.1, 1.2)
    return {**{f"times {factor:g}": MultiplyAction(factor) for factor in factors}, "placebo 1e-06": Placebo(1e-6)}


def _reach(start: Tensor, direction: Tensor, length: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Follow a ray (batch, dim) from `start`, sliding along the walls of the box, until `length` (batch, 1) is covered.

    Returns the end, and which dimensions met their wall.

    At time t dimension i has gone min(t * |direction_i|, room_i), with room_i up to its wall. Sorted by the time at
    which they meet their wall, the first k dimensions have stopped, and t solves
    length^2 = sum of their room^2 + t^2 * sum of the others' direction^2.
    """
    speed = direction.abs()
    room = th.where(direction > 0, high - start, start - low).clamp_min(0.0)
    walls, order = (room / speed).sort(dim=-1)
    room, speed = room.gather(-1, order).square(), speed.gather(-1, order).square()
    none = th.zeros_like(length)
    # With k = 0, ..., dim dimensions stopped: what those have covered, and how fast the others go.
    stopped = th.cat([none, room.cumsum(-1)], dim=-1)
    free = th.cat([speed.flip(-1).cumsum(-1).flip(-1), none], dim=-1)
    covered = stopped[:, 1:] + walls.square() * free[:, 1:]
    # NaN: a dimension without a wall, or one that does not move; both have room for everything.
    reached = (covered.nan_to_num(nan=math.inf) < length.square()).sum(-1, keepdim=True)
    time = ((length.square() - stopped.gather(-1, reached)) / free.gather(-1, reached)).sqrt()
    # Nothing left that moves: this is as far as it goes. A finite time, so that a dimension at rest stays there.
    end = start + time.clamp_max(1e30) * direction
    projected = th.clamp(end, low, high)
    return projected, projected != end
