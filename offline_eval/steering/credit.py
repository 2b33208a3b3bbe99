"""Whether a gain is steering's own: one rule for the words of `steer`, the trial of `auto`, and their pages.

A gain is steering's own where its interval lies above 0, and that of its lead over the best trivial control, too. The
best control is the one with the highest mean on the same episodes. It is chosen among several after they were played,
which is in the control's favour: luck of the control counts against steering, and never for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from offline_eval.stats import Interval
from offline_eval.types import FloatArray, Rule
from offline_eval.wrappers import MultiplyAction, Placebo, RandomAction, RandomDirection, ShuffledSoftSteer
from offline_eval.wrappers.controls import UniformAction

_KINDS = {"a random direction": RandomDirection, "longer actions": MultiplyAction, "a placebo": Placebo}


@dataclass(frozen=True)
class Credit:
    """What a steered variant gained, and what it was held against.

    Attributes:
        gain: interval of the difference to the plain policy.
        lead: interval of the difference to `control`; None where no control was played.
        control: name of the best control that was played; None where none was.
        not_played: kinds of trivial controls that were not played, in words.
    """

    gain: Interval
    lead: Interval | None
    control: str | None
    not_played: tuple[str, ...] = ()

    @property
    def is_own(self) -> bool:
        """Whether it gains, and more than every control that was played; at least one was."""
        return self.lead is not None and bool(self.gain.low > 0.0) and bool(self.lead.low > 0.0)

    def __str__(self) -> str:
        """What may be said of it."""
        if self.gain.high < 0.0:
            return "harms"
        if not self.gain.low > 0.0:
            return "no difference to the plain policy can be told"
        if self.lead is None:
            return "gains; no control was played that could have gained as much without a critic"
        if not self.is_own:
            return f"gains, but no more than its best control, {self.control}: the critic has not earned it"
        if self.not_played:
            return f"gains more than {self.control}; not played, so not known: more than {', '.join(self.not_played)}"
        return f"helps, and more than its best control, {self.control}"


def is_control(rule: Rule | None) -> bool:
    """Whether a rule acts without a critic, or in spite of it."""
    controls = (*_KINDS.values(), UniformAction, RandomAction, ShuffledSoftSteer)
    return isinstance(rule, controls)


def not_played(rules: Iterable[Rule | None]) -> tuple[str, ...]:
    """Which kinds of trivial controls are missing among these."""
    rules = list(rules)
    return tuple(words for words, kind in _KINDS.items() if not any(isinstance(rule, kind) for rule in rules))


def highest(returns: Mapping[str, FloatArray]) -> str | None:
    """The name with the highest mean over the episodes (n,) that did not fail; None where every one did."""
    means = {name: float(np.nanmean(values)) for name, values in returns.items() if not np.isnan(values).all()}
    return max(means, key=means.__getitem__) if means else None
