"""Which of many candidates has earned its gain: the gate of a trial, on returns alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf, sqrt
from typing import Any

import numpy as np

from offline_eval.errors import InputError, bare
from offline_eval.stats import PairedDifference, paired_difference
from offline_eval.stats.samples import finite_or_none
from offline_eval.steering.credit import highest
from offline_eval.types import FloatArray


@dataclass(frozen=True)
class Gate:
    """What the best of a trial must clear before it counts as a winner.

    Args:
        level: of the two-sided t test of its gain over the plain policy; .05 asks for t > 2.26 with 10 episodes. The
            best of many is compared as if it were the only one: dearer gates cost more gain than they save harm
            (`docs/steering_study.md`).
        control_t: t of its lead over the best trivial control. 1 asks for one standard error: the control is itself
            the best of several, and what does as well as `times 1.1` must not win by luck.
    """

    level: float = 0.05
    control_t: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise InputError("level", "must lie between 0 and 1", self.level, "0.05 asks for t > 2.26 with 10 episodes")
        if not self.control_t >= 0:
            raise InputError("control_t", "must be >= 0", self.control_t, "0 asks for a lead of any size")

    def threshold(self, n: int, num_tried: int = 1) -> float:
        """The t to exceed with n pairs, the level divided by `num_tried` (Bonferroni); infinite with n < 2."""
        if n < 2:
            return inf
        from scipy.special import stdtrit

        return float(stdtrit(n - 1, 1 - self.level / num_tried / 2))


@dataclass(frozen=True)
class Choice:
    """What a trial decided.

    Attributes:
        best: the candidate that the decision is about: the winner, else the one with the highest mean return; None
            where every candidate's environment failed.
        best_control: the control with the highest mean return; None without controls.
        t: of the best candidate's gain over the plain policy.
        threshold: what `t` had to exceed.
        against_control: the best candidate minus the best control, on the same episodes.
        control_t: t of that difference.
        control_threshold: what `control_t` had to exceed.
        num_candidates: eligible candidates.
        alone: candidates, best first, that would have won had they been the only one tried; those that won are not
            among them.
    """

    best: str | None
    best_control: str | None
    t: float
    threshold: float
    against_control: PairedDifference | None
    control_t: float
    control_threshold: float
    num_candidates: int = 1
    alone: tuple[str, ...] = ()

    @property
    def clears_gate(self) -> bool:
        """Whether the best candidate is better than the plain policy."""
        return self.best is not None and self.t > self.threshold

    @property
    def beats_control(self) -> bool:
        """Whether the best candidate is better than the best control."""
        return self.best_control is None or self.control_t > self.control_threshold

    @property
    def winner(self) -> str | None:
        """The best candidate where it cleared both; None: no gain."""
        return self.best if self.clears_gate and self.beats_control else None

    def to_json(self) -> dict[str, Any]:
        """Plain data; None for what is infinite."""
        return {
            "winner": self.winner,
            "best": self.best,
            "best_control": self.best_control,
            "t": finite_or_none(self.t),
            "threshold": finite_or_none(self.threshold),
            "against_control": None if self.against_control is None else self.against_control.to_json(),
            "control_t": finite_or_none(self.control_t),
            "control_threshold": self.control_threshold,
            "num_candidates": self.num_candidates,
            "alone": list(self.alone),
        }


def choose(
    plain: FloatArray,
    candidates: Mapping[str, FloatArray],
    controls: Mapping[str, FloatArray],
    gate: Gate | None = None,
) -> Choice:
    """The best candidate, held against the plain policy and the best control.

    The candidate with the highest mean is tested first, at the gate's level. Where it fails, all are tested at that
    level divided by their number, and the highest of those that pass wins: a small and steady gain is found behind a
    large and doubtful one. What passes only at the undivided level is named in `alone`.

    Args:
        plain: returns (n,) of the unsteered policy; NaN where an episode failed.
        candidates: their returns (n,) on the same episodes. One whose environment failed is not eligible.
        controls: likewise; the one with the highest mean counts, which is in the controls' favour.
        gate: `Gate()` if left out.
    """
    gate = gate or Gate()
    eligible = {name: returns for name, returns in candidates.items() if not np.isnan(returns).any()}
    best_control = highest(controls)
    rival = None if best_control is None else controls[best_control]
    n = int(np.isfinite(plain).sum())
    if n < 2:
        raise InputError("selection_plan", "must hold at least 2 episodes that succeed", bare(f"{n}"), "take 10")

    def tried(name: str, num_tried: int) -> Choice:
        mine = eligible[name]
        return Choice(
            name,
            best_control,
            t_statistic(mine, plain),
            gate.threshold(n, num_tried),
            None if rival is None else paired_difference(mine, rival),
            inf if rival is None else t_statistic(mine, rival),
            gate.control_t,
            len(eligible),
        )

    order = sorted(eligible, key=lambda name: -float(eligible[name].mean()))
    if not order:
        return Choice(None, best_control, -inf, gate.threshold(n), None, -inf, gate.control_t, 0)
    first = tried(order[0], 1)
    if first.winner is not None:
        return first
    for name in order[1:]:
        if (choice := tried(name, len(order))).winner is not None:
            return choice
    return replace(first, alone=tuple(name for name in order[1:] if tried(name, 1).winner is not None))


def t_statistic(a: FloatArray, b: FloatArray) -> float:
    """Mean of the paired differences a - b (n,) in standard errors; infinite where they are all equal and not 0.

    NaN marks a failed episode. A failure of `a` counts as worse than anything: -inf. Where only `b` failed nothing is
    known: 0.
    """
    if np.isnan(a).any():
        return -inf
    differences = a - b
    if np.isnan(differences).any() or len(differences) < 2:
        return 0.0
    mean = float(differences.mean())
    if differences.min() == differences.max():
        return 0.0 if mean == 0 else float(np.copysign(inf, mean))
    return mean / float(differences.std(ddof=1)) * sqrt(len(differences))
