"""What every steering rule shares: it never changes, its number may differ from row to row, it wants a Box."""

from __future__ import annotations

from abc import ABC, abstractmethod
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import numpy as np
import torch as th
from gymnasium import Space, spaces
from torch import Tensor

from offline_eval.errors import CriticError, InputError, SpaceError, bare
from offline_eval.spaces import ActionScale
from offline_eval.types import Array, Critic, Rule, Steered
from offline_eval.wrappers.directions import Reduction

if TYPE_CHECKING:
    from offline_eval.types import TensorObservations


@dataclass(frozen=True, eq=False)
class SteeringRule(ABC):
    """Base of the rules here; implements `offline_eval.types.Rule` but for `__call__`.

    A rule of your own needs no base: any immutable object with the methods of `Rule` will do.
    """

    number_per_row: ClassVar[str] = ""
    """The field that may hold one entry a row."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # Gymnasium copies a wrapper's arguments into `env.spec`. A rule never changes, so the copy may be itself; a
        # second critic would cost its memory again, and the rebuilt environment would go on with a network of its
        # own when the first is trained further.
        return self

    @property
    def device(self) -> th.device:
        """Where the tensors must lie."""
        return th.device("cpu")

    @property
    def num_rows(self) -> int | None:
        """How many rows a batch must have; None for any number."""
        number = getattr(self, self.number_per_row, None)
        return len(number) if isinstance(number, tuple) else None

    def rows(self, index: Array) -> Self:
        """The rule for the rows `index` of the batch."""
        number = getattr(self, self.number_per_row, None)
        if not isinstance(number, tuple):
            return self
        chosen = copy(self)
        object.__setattr__(chosen, self.number_per_row, tuple(number[row] for row in index))
        return chosen

    def check(self, observation_space: Space[Any] | None, action_space: Space[Any]) -> None:
        """Raise a SpaceError where the rule cannot serve these spaces."""
        require_continuous(type(self).__name__, action_space)

    def noise_shape(self, action_dim: int) -> tuple[int, ...]:
        """Standard normal numbers wanted per row and step; () for none."""
        return ()

    @abstractmethod
    def __call__(self, observations: TensorObservations, actions: Tensor, noise: Tensor | None) -> Steered:
        """Steer scaled actions (batch, action_dim) given noise (batch, *noise_shape)."""


@dataclass(frozen=True, eq=False)
class CriticRule(SteeringRule):
    """Base of the rules that ask a critic."""

    critic: Critic = field(repr=False)
    box: tuple[Tensor, Tensor] = field(init=False, repr=False)
    """Lowest and highest scaled action, each (action_dim,)."""

    def __post_init__(self) -> None:
        if not all(hasattr(self.critic, name) for name in ("q", "action_space", "device")):
            raise InputError(
                "critic", "must be a Critic", bare(type(self.critic).__name__), "`critic_of(...)` makes one"
            )
        require_continuous(type(self).__name__, self.critic.action_space)
        scale = ActionScale(self.critic.action_space)
        bounds = (scale.scaled_low.ravel(), scale.scaled_high.ravel())
        low, high = (th.as_tensor(bound, device=self.critic.device) for bound in bounds)
        object.__setattr__(self, "box", (low, high))

    @property
    def device(self) -> th.device:
        """The critic's."""
        return self.critic.device

    def check(self, observation_space: Space[Any] | None, action_space: Space[Any]) -> None:
        """Raise a SpaceError where the critic was made for other spaces."""
        super().check(observation_space, action_space)
        if not _same_box(self.critic.action_space, action_space):
            raise SpaceError(
                "critic",
                f"must be made for the environment's actions, {action_space}",
                bare(f"a critic for {self.critic.action_space}"),
                "take the critic of an agent trained on this environment",
            )
        same_observations(self.critic.observation_space, observation_space)

    def values(self, observations: TensorObservations, actions: Tensor, reduce: Reduction) -> Tensor:
        """The critic's reduced values (batch,).

        Raises:
            CriticError: the critic or the reduction returns another shape.
        """
        return reduced(heads(self.critic, observations, actions), reduce)


def heads(critic: Critic, observations: TensorObservations, actions: Tensor) -> Tensor:
    """The critic's values (n_critics, batch).

    Raises:
        CriticError: it returns another shape.
    """
    q: Any = critic.q(observations, actions)
    if not isinstance(q, Tensor) or q.ndim != 2 or q.shape[1] != len(actions):
        raise CriticError(
            "critic",
            f"must return values (n_critics, batch), here (n_critics, {len(actions)})",
            bare(_shape_of(q)),
            "one row a head; stack or transpose what it returns",
        )
    return q


def reduced(q: Tensor, reduce: Reduction) -> Tensor:
    """One value a row (batch,) from an ensemble's (n_critics, batch).

    Raises:
        InputError: the reduction returns another shape.
    """
    values: Any = reduce(q)
    if not isinstance(values, Tensor) or values.shape != q.shape[1:]:
        raise InputError("reduce", f"must map {tuple(q.shape)} to ({q.shape[1]},)", bare(_shape_of(values)))
    return values


def same_observations(expected: Space[Any] | None, observation_space: Space[Any] | None) -> None:
    """Raise a SpaceError where a critic was made for other observations; None is not known, and fits."""
    if expected is not None and observation_space is not None and _layout(expected) != _layout(observation_space):
        raise SpaceError(
            "critic",
            f"must be made for the environment's observations, {observation_space}",
            bare(f"a critic for {expected}"),
            "take the critic of an agent trained on this environment",
        )


def of_policy(rule: Rule, policy: Any) -> Rule:
    """The rule for this policy: itself, unless it asks the policy for more than its action (`SoftSteer`)."""
    asks = getattr(rule, "of_policy", None)
    return rule if asks is None else cast("Rule", asks(policy))


def require_continuous(rule: str, action_space: Space[Any]) -> None:
    """Raise a SpaceError unless the actions are a Box of floats."""
    if isinstance(action_space, spaces.Box) and np.issubdtype(action_space.dtype, np.floating):
        return
    raise SpaceError(
        "action_space",
        f"must be a Box of floats for {rule}: there is no way to go a little further between other actions",
        action_space,
        "with discrete actions the greedy action of the critic is already the best of all; SoftSteer goes towards it",
    )


def required(noise: Tensor | None) -> Tensor:
    """The noise of a rule that cannot do without."""
    if noise is None:
        raise InputError("noise", "must be given to this rule", None, "`Steering.draw_noise` draws it")
    return noise


def _shape_of(value: object) -> str:
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _same_box(one: Space[Any], other: Space[Any]) -> bool:
    # The bounds decide what a scaled action means.
    return (
        isinstance(one, spaces.Box)
        and isinstance(other, spaces.Box)
        and one.shape == other.shape
        and np.allclose(one.low, other.low)  # the same numbers, in one precision or two
        and np.allclose(one.high, other.high)
    )


def _layout(space: Space[Any]) -> object:
    """What makes observations fit a network: shapes and keys, not bounds (wrappers and versions change those)."""
    if isinstance(space, spaces.Dict):
        return {key: _layout(part) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Discrete):
        return ("discrete", int(space.n))
    return space.shape
