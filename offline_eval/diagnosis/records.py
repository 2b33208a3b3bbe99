"""What a diagnosis consists of, and its JSON: a measurement, a ladder of interventions, and the verdict they add up to.

The figures of a report are drawn from the JSON alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal

from offline_eval.errors import InputError
from offline_eval.measurement.records import Measurement
from offline_eval.stats import Interval, PairedDifference, Summary, summarize
from offline_eval.stats.samples import finite_or_none
from offline_eval.types import Array

Bottleneck = Literal["value", "extraction", "generalisation", "none", "unknown"]
"""What holds an agent back; "none": nothing better within reach of these candidates; "unknown": cannot tell."""

VALUE: Final = "value"
EXTRACTION: Final = "extraction"
GENERALISATION: Final = "generalisation"
NONE: Final = "none"
UNKNOWN: Final = "unknown"

BOTTLENECKS = (VALUE, EXTRACTION, GENERALISATION)
"""What a share is told of, in this order."""

BEHAVIOUR, POLICY, CONTROL, BEST_OF_N, OPEX_STEP = "behaviour", "policy", "control", "best_of_n", "opex"
INSIDE, OUTSIDE, DDPG_BC, AWR_RUNG, ADAPTED = "inside", "outside", "ddpg_bc", "awr", "adapted"
TRUTH, TRUTH_INSIDE, ORACLE = "truth", "truth_inside", "oracle"
RUNGS = (
    BEHAVIOUR, POLICY, CONTROL, BEST_OF_N, OPEX_STEP, INSIDE, OUTSIDE, DDPG_BC, AWR_RUNG, ADAPTED, TRUTH_INSIDE, TRUTH,
    ORACLE,
)  # fmt: skip
"""The names that a rung can have, in the order of the ladder."""


@dataclass(frozen=True)
class Share:
    """A number in units of the ladder's range, and how sure of it one can be.

    Attributes:
        estimate: the number.
        ci95: its interval.
    """

    estimate: float
    ci95: Interval

    def to_json(self) -> dict[str, Any]:
        """Plain data; None for what is infinite."""
        return {
            "estimate": finite_or_none(self.estimate),
            "ci95": self.ci95.to_json(),
            "caveat": self.ci95.caveat,
        }

    def __str__(self) -> str:
        return f"{self.estimate:.2f} [{self.ci95.low:.2f}, {self.ci95.high:.2f}]"


@dataclass(frozen=True)
class Trial:
    """A choice that was tried on the selection seeds.

    Attributes:
        choice: what was tried: `{"step_size": 0.2}`.
        gain: mean difference to the policy on these seeds, in return units.
        n: pairs.
    """

    choice: Mapping[str, Any]
    gain: float
    n: int

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"choice": dict(self.choice), "gain": finite_or_none(self.gain), "n": self.n}


@dataclass(frozen=True, eq=False)
class Rung:
    """One intervention, played on the same seeds as the policy.

    Attributes:
        name: one of `RUNGS`.
        title: what it is, for a reader.
        returns: (n,) by plan entry, or by segment; NaN where an episode failed.
        paired: difference to the policy on the same starts; None for the policy and for what cannot be paired.
        rank_p_value: two-sided Wilcoxon signed-rank test of the same pairs, which two catastrophic episodes do not
            break; None without pairs.
        control: name of the rung that this one must beat before its gain is its own.
        against_control: difference to that rung.
        control_p_value: the rank test of that difference.
        gain: `paired` in units of the range of the ladder, or of the segments.
        choice: what was chosen on the selection seeds: `{"step_size": 0.2}`; empty where nothing was to be chosen.
        selection: everything that was tried there.
        unit: what a return is of: "episode", or "segment" where truth was sought from restored states.
        note: what a reader must know.
        seconds: wall time of playing it, selection included.
    """

    name: str
    title: str
    returns: Array
    paired: PairedDifference | None = None
    rank_p_value: float | None = None
    control: str | None = None
    against_control: PairedDifference | None = None
    control_p_value: float | None = None
    gain: Share | None = None
    choice: Mapping[str, Any] = field(default_factory=dict)
    selection: tuple[Trial, ...] = ()
    unit: str = "episode"
    note: str = ""
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in RUNGS:
            raise InputError("name", f"must be one of {', '.join(RUNGS)}", self.name)

    @cached_property
    def summary(self) -> Summary:
        """Mean, IQM and intervals of the returns."""
        return summarize(self.returns)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "rung": self.name,
            "title": self.title,
            "summary": self.summary.to_json(),
            "paired": None if self.paired is None else self.paired.to_json(),
            "rank_p_value": None if self.rank_p_value is None else finite_or_none(self.rank_p_value),
            "control": self.control,
            "against_control": None if self.against_control is None else self.against_control.to_json(),
            "control_p_value": None if self.control_p_value is None else finite_or_none(self.control_p_value),
            "gain": None if self.gain is None else self.gain.to_json(),
            "choice": dict(self.choice),
            "selection": [trial.to_json() for trial in self.selection],
            "unit": self.unit,
            "note": self.note,
            "seconds": round(self.seconds, 2),
        }


@dataclass(frozen=True)
class Reference:
    """What the ladder is held against.

    Attributes:
        name: an oracle, or the best trajectories of the data.
        mean_return: of it.
        shares: for each rung, the share of the gap between the policy and the reference that it closes.
    """

    name: str
    mean_return: float
    shares: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        shares = {name: finite_or_none(share) for name, share in self.shares.items()}
        return {"name": self.name, "mean_return": finite_or_none(self.mean_return), "shares": shares}


@dataclass(frozen=True, eq=False)
class Ladder:
    """All rungs, in the order of `RUNGS`.

    Attributes:
        rungs: what was played.
        range: return units from the worse of policy and control to the best rung; the unit of every `gain` of episodes.
        range_noise: standard error of the range.
        segment_range: the same of the segments' returns; None where truth was sought in whole episodes, or not at all.
        best: name of the better rung by Q; the policy where neither gained anything.
        share_outside: share of the policy's steps outside the data's region; None where it is not known.
        regret_edge: what the policy's actions lose by Q to the best one of the data's, over what a random one of the
            data's loses, at the policy's own states at the edge of the region (the outer fifth of those inside); None
            where there is no critic, or hardly such a state.
        regret_outside: the same outside.
        reference: what it is held against, where there is something.
        missing: rungs that could not be played, and why.
        num_selection: episodes on which choices were made.
    """

    rungs: tuple[Rung, ...]
    range: float
    range_noise: float
    segment_range: float | None = None
    best: str = POLICY
    share_outside: float | None = None
    regret_edge: float | None = None
    regret_outside: float | None = None
    reference: Reference | None = None
    missing: Mapping[str, str] = field(default_factory=dict)
    num_selection: int = 0

    def __getitem__(self, name: str) -> Rung:
        found = self.get(name)
        if found is None:
            raise KeyError(name)
        return found

    def __contains__(self, name: object) -> bool:
        return any(rung.name == name for rung in self.rungs)

    def get(self, name: str) -> Rung | None:
        """The rung of this name; None where it was not played."""
        return next((rung for rung in self.rungs if rung.name == name), None)

    def to_json(self) -> list[dict[str, Any]]:
        """The list under `ladder`."""
        return [rung.to_json() for rung in self.rungs]

    def about(self) -> dict[str, Any]:
        """Everything but the rungs, as plain data: the object under `ladder_range`."""
        return {
            "range": finite_or_none(self.range),
            "range_noise": finite_or_none(self.range_noise),
            "segment_range": None if self.segment_range is None else finite_or_none(self.segment_range),
            "best": self.best,
            "share_outside": self.share_outside,
            "regret_edge": self.regret_edge,
            "regret_outside": self.regret_outside,
            "reference": None if self.reference is None else self.reference.to_json(),
            "missing": dict(self.missing),
            "num_selection": self.num_selection,
        }


@dataclass(frozen=True)
class Recommendation:
    """What to do next.

    Attributes:
        sentence: for a reader.
        command: what does it; empty where no command does.
    """

    sentence: str
    command: str = ""

    def to_json(self) -> dict[str, str]:
        """Plain data."""
        return {"sentence": self.sentence, "command": self.command}


@dataclass(frozen=True)
class Verdict:
    """Which of the three holds the agent back.

    Attributes:
        bottleneck: "value", "extraction", "generalisation", "none" (nothing better within reach of these candidates) or
            "unknown" (cannot tell).
        shares: for each of `BOTTLENECKS`, what its removal is worth in units of the ladder's range.
        evidence: sentences that name their numbers.
        recommendation: what to do next.
        sentence: the verdict in one sentence.
    """

    bottleneck: Bottleneck
    shares: Mapping[str, Share]
    evidence: tuple[str, ...]
    recommendation: Recommendation
    sentence: str

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "bottleneck": self.bottleneck,
            "shares": {name: share.to_json() for name, share in self.shares.items()},
            "evidence": list(self.evidence),
            "recommendation": self.recommendation.to_json(),
            "sentence": self.sentence,
        }


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """A measurement, a ladder, and a verdict.

    Attributes:
        measurement: what was measured.
        ladder: what was played.
        verdict: what follows.
        manifest: how it was made.
    """

    measurement: Measurement
    ladder: Ladder
    verdict: Verdict
    manifest: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The object of `diagnose --json`: that of `measure --json`, and `verdict`, `ladder`, `ladder_range`."""
        measured = self.measurement.to_json()
        return {
            **measured,
            "verdict": self.verdict.to_json(),
            "ladder": self.ladder.to_json(),
            "ladder_range": self.ladder.about(),
            "manifest": {**measured["manifest"], "diagnosis": dict(self.manifest)},
        }
