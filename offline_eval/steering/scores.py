"""What a comparison over several agents says: which rule harms nowhere, and how much of the gain a trial keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np

from offline_eval.errors import InputError
from offline_eval.stats import PairedDifference, paired_difference
from offline_eval.stats.samples import finite_or_none
from offline_eval.steering.credit import highest
from offline_eval.steering.selection import Gate, t_statistic
from offline_eval.steering.steering import PLAIN
from offline_eval.steering.study import CHANCE, PairResult
from offline_eval.types import FloatArray

AUTO = "auto"
"""The winner of the gated trial; the plain policy where nothing won."""

HARM_ERRORS, HARM_SHARE = 2.0, 0.01
"""A rule harms an agent where it is worse by more than both: standard errors, and share of (plain - chance)."""

OWN_ERRORS = 1.0
"""Standard errors by which a gain must exceed the best control's to be steering's own; the gate asks for the same."""


@dataclass(frozen=True)
class Score:
    """A rule on one agent, fresh episodes.

    Attributes:
        pair: name of the agent and environment.
        rule: name of the variant, or "auto".
        mean: its mean return.
        difference: to the plain policy, episode by episode.
        t: that difference in standard errors; NaN where nothing differs.
        share: that difference as a share of (plain - chance); NaN where the agent is no better than chance.
        harms: whether it is worse by more than 2 standard errors and by more than 1 % of (plain - chance), or whether
            episodes fail under it that do not fail without.
    """

    pair: str
    rule: str
    mean: float
    difference: PairedDifference
    t: float
    share: float
    harms: bool

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "pair": self.pair,
            "rule": self.rule,
            "mean": finite_or_none(self.mean),
            "difference": self.difference.to_json(),
            "t": finite_or_none(self.t),
            "share": finite_or_none(self.share),
            "harms": self.harms,
        }


@dataclass(frozen=True)
class Kept:
    """What the trial kept of the best fixed candidate on one agent, fresh episodes.

    Attributes:
        pair: name of the agent and environment.
        winner: what the trial chose; None for no gain.
        best: the fixed candidate that did best on the fresh episodes, known only afterwards.
        best_gain: its gain.
        has_gain: whether that gain exceeds 2 standard errors, and what the best control gained by more than one: what
            a control does as well is no gain of steering's own.
        share: `auto`'s gain over the best one's where there is one; NaN elsewhere.
        lost: what `auto` lost, as a share of (plain - chance); 0 where it lost nothing.
    """

    pair: str
    winner: str | None
    best: str
    best_gain: float
    has_gain: bool
    share: float
    lost: float

    @property
    def met(self) -> bool:
        """Whether the aim is met: half of the gain where there is one, at most 1 % lost where there is none."""
        return self.share >= 0.5 if self.has_gain else self.lost <= HARM_SHARE


def score(result: PairResult, rule: str, gate: Gate | None = None) -> Score:
    """A rule's score on one agent; "auto" plays what the trial on the selection episodes chose."""
    plain = result.fresh(PLAIN)
    mine = result.fresh(result.choice(gate).winner or PLAIN) if rule == AUTO else result.fresh(rule)
    difference = paired_difference(mine, plain)
    span = agent_range(result)
    t = t_statistic(mine, plain) if np.any(mine != plain) else nan
    share = difference.mean_difference / span if span > 0 else nan
    failed = bool(np.isnan(mine).any() and not np.isnan(plain).any())
    harms = failed or bool(t < -HARM_ERRORS and (share < -HARM_SHARE or not span > 0))
    return Score(str(result.pair["name"]), rule, _mean(mine), difference, t, share, harms)


def agent_range(result: PairResult) -> float:
    """Mean return of the plain policy minus that of actions drawn by chance."""
    return _mean(result.fresh(PLAIN)) - _mean(result.fresh(CHANCE))


def best_control(result: PairResult) -> str:
    """The control with the highest mean on the fresh episodes: the hardest to beat, chosen in its own favour."""
    best = highest({played.name: result.fresh(played.name) for played in result.kind("control")})
    if best is None:
        raise InputError("results", "must hold a control whose episodes did not all fail", str(result.pair["name"]))
    return best


def kept(result: PairResult, gate: Gate | None = None) -> Kept:
    """What the trial kept of the best fixed candidate."""
    plain = result.fresh(PLAIN)
    gains = {played.name: _mean(result.fresh(played.name) - plain) for played in result.kind("candidate")}
    best = max(gains, key=gains.__getitem__)
    lead = t_statistic(result.fresh(best), result.fresh(best_control(result)))
    has_gain = bool(t_statistic(result.fresh(best), plain) > HARM_ERRORS and lead > OWN_ERRORS)
    auto = score(result, AUTO, gate)
    gain, span = auto.difference.mean_difference, agent_range(result)
    return Kept(
        str(result.pair["name"]),
        result.choice(gate).winner,
        best,
        gains[best],
        has_gain,
        share=gain / gains[best] if has_gain else nan,
        lost=max(0.0, -gain / span) if span > 0 else nan,
    )


def rules_of(results: Sequence[PairResult]) -> list[str]:
    """Names of what was played on every agent but the plain policy and chance, in the order of the first; then auto."""
    if not results:
        raise InputError("results", "must hold at least one pair", results)
    common = set.intersection(*({played.name for played in result.played} for result in results))
    names = [played.name for played in results[0].played if played.name in common - {PLAIN, CHANCE}]
    return [*names, AUTO]


def tuned(results: Sequence[PairResult], beginning: str) -> str:
    """The candidate whose name begins so and that gains most on these agents, mean share of (plain - chance).

    Chosen on some agents to be reported on others.
    """
    names = [name for name in rules_of(results) if name.startswith(beginning)]
    if not names:
        raise InputError("beginning", "must begin the name of a candidate", beginning)
    return max(names, key=lambda name: float(np.nanmean([score(result, name).share for result in results])))


def _mean(values: FloatArray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else nan
