"""A rule around another one, as `gymnasium.Wrapper` is an environment around another one."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import numpy as np
import torch as th
from gymnasium import Space

from offline_eval.types import Array, Rule
from offline_eval.wrappers.remembering import begin, reserve, started, width_of
from offline_eval.wrappers.rules import SteeringRule, of_policy

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RuleWrapper"]


@dataclass(frozen=True, eq=False)
class RuleWrapper(SteeringRule):
    """Base of the rules that hold another one: everything that a host may ask is forwarded to it.

    A subclass says in `wrapped` which of its fields holds the rule, and overrides what it does differently. The field
    may be None where a wrapper can do without a rule; then it answers as any `SteeringRule`.
    """

    wrapped: ClassVar[str] = "rule"
    """The field that holds the rule."""

    @property
    def inner(self) -> Rule | None:
        """The rule inside."""
        return cast("Rule | None", getattr(self, self.wrapped))

    def around(self, rule: Rule | None) -> Self:
        """The same wrapper around another rule; itself where it is the same one."""
        if rule is self.inner:
            return self
        chosen = copy(self)
        object.__setattr__(chosen, self.wrapped, rule)
        return chosen

    def _mapped(self, change: Callable[[Rule], Rule]) -> Self:
        return self if self.inner is None else self.around(change(self.inner))

    @property
    def device(self) -> th.device:
        """Where the tensors must lie."""
        return super().device if self.inner is None else self.inner.device

    @property
    def num_rows(self) -> int | None:
        """How many rows a batch must have; None for any number."""
        own = super().num_rows
        return own if own is not None or self.inner is None else self.inner.num_rows

    def rows(self, index: Array) -> Self:
        """The rule for the rows `index` of the batch."""
        return super().rows(index)._mapped(lambda rule: rule.rows(index))

    def check(self, observation_space: Space[Any] | None, action_space: Space[Any]) -> None:
        """Raise an InputError where the rule cannot serve these spaces."""
        if self.inner is None:
            super().check(observation_space, action_space)
        else:
            self.inner.check(observation_space, action_space)

    def noise_shape(self, action_dim: int) -> tuple[int, ...]:
        """Standard normal numbers wanted per row and step; () for none."""
        return super().noise_shape(action_dim) if self.inner is None else self.inner.noise_shape(action_dim)

    def of_policy(self, policy: Any) -> Self:
        """The rule for this policy, for a rule that asks the policy for more than its action."""
        return self._mapped(lambda rule: of_policy(rule, policy))

    @property
    def width(self) -> int | None:
        """Rows of a padded batch, where the rule remembers and says so; None for the host's own."""
        return None if self.inner is None else width_of(self.inner)

    def start(self) -> Rule:
        """This rule for one host, with a memory of its own where the rule inside remembers."""
        return self._mapped(started)

    def begin(self, rows: Array) -> None:
        """New episodes at these rows, for a rule that remembers."""
        if self.inner is not None:
            begin(self.inner, np.asarray(rows))

    def reserve(self, num_rows: int) -> None:
        """Room for so many rows, for a rule that remembers."""
        if self.inner is not None:
            reserve(self.inner, num_rows)
