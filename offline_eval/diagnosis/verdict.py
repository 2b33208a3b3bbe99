"""From a ladder to a verdict: a pure function. `docs/verdict.md` says why it decides so, and what fools it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from offline_eval.diagnosis.findings import Finding, Reading, Thresholds, read
from offline_eval.diagnosis.records import (
    BOTTLENECKS,
    EXTRACTION,
    GENERALISATION,
    NONE,
    UNKNOWN,
    VALUE,
    Bottleneck,
    Ladder,
    Recommendation,
    Share,
    Verdict,
)
from offline_eval.diagnosis.wording import (
    Asked,
    evidence_of,
    recommendation_for,
    recommendation_for_unknown,
    sentence_of,
)
from offline_eval.measurement.records import Measurement
from offline_eval.stats import Interval

_REGRET = "by how much decisions are worse outside is known without an interval"


@dataclass(frozen=True)
class Decision:
    """A bottleneck, and why.

    Attributes:
        bottleneck: as in a `Verdict`.
        reason: the rule that decided.
        needs: what an "unknown" lacks.
        worth: of the bottleneck, in units of the range; 0 where there is none.
        lacks: what a command can give: "episodes", "starts" of the truth, "rollouts", "oracle"; "" where none can.
        wanted: how many of them in all; 0 where nobody knows.
    """

    bottleneck: Bottleneck
    reason: str
    needs: str = ""
    worth: float = 0.0
    lacks: str = ""
    wanted: int = 0


def decide(reading: Reading, thresholds: Thresholds) -> Decision:
    """Which bottleneck binds."""
    if reading.is_flat:
        return Decision(
            UNKNOWN,
            "no rung differs from the others by more than chance",
            "an environment, starts or data in which actions make a difference, or more episodes",
        )
    by_q, left = reading.by_q, reading.remaining
    gains = any(found.is_gain and found.estimate > thresholds.gain for found in (by_q, reading.outside_gain) if found)
    helps = reading.is_base and gains and reading.beats_control
    truth_helps = left is not None and left.is_gain and left.estimate > thresholds.truth
    if truth_helps and left is not None and (not helps or left.estimate > reading.credited.estimate):
        return Decision(VALUE, "the truth gains what no rung by Q gains", worth=left.estimate)
    if helps:
        return _extraction_or_generalisation(reading, thresholds)
    if left is not None:
        return _healthy_or_unknown(reading, left, thresholds)
    return _without_truth(reading, thresholds)


def _extraction_or_generalisation(reading: Reading, thresholds: Thresholds) -> Decision:
    worth, part = reading.by_q.estimate, part_outside(reading, thresholds)
    if part is None:
        return Decision(EXTRACTION, "Q gains, and where is not known", worth=worth)
    begun = begun_inside(reading, thresholds)
    if begun is not None:
        return Decision(VALUE, "the truth keeps the policy on the data's ground, Q does not", worth=begun.estimate)
    if part.estimate > 0.5:
        return Decision(GENERALISATION, "Q gains, and mostly outside of the data's region", worth=worth)
    return Decision(EXTRACTION, "Q gains, and as much for a decision inside of the data's region", worth=worth)


def begun_inside(reading: Reading, thresholds: Thresholds) -> Finding | None:
    """What the truth regains before the policy leaves the data, where most of the loss begins there; else None.

    Q must gain mostly outside, and inside less than the truth does.

    A policy that follows a wrong critic out of the data is lost outside, and any critic that likes the data's actions
    mends it there. It did not fail to generalise: inside, the truth knows better, and Q does not.
    """
    found, share, by_q = reading.truth_inside, reading.share_inside, reading.inside_gain
    part = part_outside(reading, thresholds)
    if found is None or share is None or by_q is None or part is None:
        return None
    known = found.is_gain and found.estimate - max(by_q.estimate, 0.0) > thresholds.truth
    return found if known and share > 0.5 and part.estimate > 0.5 else None


def part_outside(reading: Reading, thresholds: Thresholds) -> Share | None:
    """The part of what Q gains that is for want of generalisation; None where that is not known.

    Where most of the return is lost need not be where the policy is worse: one that is as wrong inside loses most
    where it starts, or where a step weighs most. Only what becomes worse by leaving the data, a decision outside
    beside one at their edge, does not generalise, unless acting inside gains next to nothing.
    """
    outside, inside = reading.outside, reading.inside_gain
    if outside is None or inside is None or not np.isfinite(outside.estimate):
        return None
    if inside.estimate <= thresholds.gain or reading.regret_ratio is None:
        return outside
    worse = max(0.0, 1.0 - reading.regret_ratio)
    # How much worse has no interval of its own: the upper end is that of all of it.
    interval = replace(outside.ci95, low=worse * outside.ci95.low, caveat=_REGRET)
    return Share(worse * outside.estimate, interval)


def _healthy_or_unknown(reading: Reading, left: Finding, thresholds: Thresholds) -> Decision:
    if left.high < -thresholds.misled:
        return Decision(
            UNKNOWN,
            "what the truth's rollouts chose did harm: they are too few or too short",
            "more rollouts",
            lacks="rollouts",
        )
    if left.is_gain and left.estimate > thresholds.doubtful:
        reason = "the truth gains a little, and that is a lower bound"
        return Decision(UNKNOWN, reason, "more rollouts", lacks="rollouts")
    if max(reading.by_q.high, left.high) < thresholds.healthy:
        return Decision(NONE, "neither Q nor the truth gains anything that matters")
    if left.high > reading.by_q.high:
        return _too_wide(left, "starts", f"{reading.truth_unit}s with the truth")
    return _too_wide(reading.by_q, "episodes", "episodes")


def _without_truth(reading: Reading, thresholds: Thresholds) -> Decision:
    oracle, control, by_q = reading.oracle, reading.control, reading.by_q
    if oracle is not None:
        if oracle.is_gain and oracle.estimate > thresholds.gain and by_q.high < oracle.estimate:
            return Decision(VALUE, "the oracle earns more, and no rung by Q finds it", worth=oracle.estimate)
        if max(oracle.high, by_q.high) < thresholds.healthy:
            return Decision(NONE, "neither Q nor the oracle gains anything that matters")
        return _too_wide(max(by_q, oracle, key=lambda found: found.high), "episodes", "episodes")
    if control.is_gain and control.estimate > thresholds.gain:
        return Decision(VALUE, "the data's own actions do better, and no rung by Q finds them", worth=control.estimate)
    return Decision(
        UNKNOWN,
        "no rung by Q gains anything: the policy is sound, or the critic is wrong",
        "a restorable simulator (`get_state` and `set_state`) or an oracle (`--oracle`)",
        lacks="oracle",
    )


def _too_wide(found: Finding, lacks: str, words: str) -> Decision:
    reason, wanted = "the intervals are too wide", found.required_n or 0
    if wanted <= found.n:
        return Decision(UNKNOWN, reason, f"more {words}", lacks=lacks)
    return Decision(UNKNOWN, reason, f"about {wanted - found.n} more {words}", lacks=lacks, wanted=wanted)


def shares_of(reading: Reading, thresholds: Thresholds) -> dict[str, Share]:
    """What removing each bottleneck is worth, in units of the ladder's range."""
    unknown = Share(float("nan"), Interval(-np.inf, np.inf, "none", "not known"))
    begun = begun_inside(reading, thresholds)
    value = unknown if reading.remaining is None else reading.remaining.share
    gain, part = reading.by_q.share, part_outside(reading, thresholds)
    if not reading.is_base:
        bound = Interval(0.0, max(0.0, gain.ci95.high), "no rung by Q gains anything")
        extraction = generalisation = Share(0.0, bound)
    elif part is None:
        extraction, generalisation = gain, unknown
    else:
        extraction = _part(gain, 1.0 - part.estimate, 1.0 - part.ci95.high, 1.0 - part.ci95.low)
        generalisation = _part(gain, part.estimate, part.ci95.low, part.ci95.high)
    if begun is not None and reading.share_inside is not None:
        # What the truth regains inside is not lost outside any more.
        value, rest = begun.share, max(0.0, begun.estimate / reading.share_inside - begun.estimate)
        interval = replace(generalisation.ci95, low=0.0, caveat="without what the truth regains inside")
        generalisation = Share(min(generalisation.estimate, rest), interval)
    return dict(zip(BOTTLENECKS, (value, extraction, generalisation), strict=True))


def _recommendation(decision: Decision, ladder: Ladder, asked: Asked) -> Recommendation:
    if decision.bottleneck == UNKNOWN:
        return recommendation_for_unknown(decision.needs, decision.lacks, decision.wanted, ladder, asked)
    return recommendation_for(decision.bottleneck, ladder, asked)


def _part(gain: Share, part: float, low: float, high: float) -> Share:
    """A part of a gain; the interval is that of the product, wide enough for both ends."""
    ends = [end * factor for end in (gain.ci95.low, gain.ci95.high) for factor in (low, high)]
    return Share(gain.estimate * part, replace(gain.ci95, low=min(ends), high=max(ends), method="of the product"))


def verdict_of(
    ladder: Ladder,
    measurement: Measurement,
    asked: Asked | None = None,
    thresholds: Thresholds | None = None,
) -> Verdict:
    """The verdict on a ladder.

    Args:
        ladder: what was played; it alone decides.
        measurement: what was measured; it is quoted in the evidence and has no vote.
        asked: words for the command that the recommendation names.
        thresholds: from where on a number counts.
    """
    thresholds, asked = thresholds or Thresholds(), asked or Asked()
    reading = read(ladder, thresholds)
    decision = decide(reading, thresholds)
    return Verdict(
        bottleneck=decision.bottleneck,
        shares=shares_of(reading, thresholds),
        evidence=evidence_of(ladder, reading, measurement),
        recommendation=_recommendation(decision, ladder, asked),
        sentence=sentence_of(
            decision.bottleneck, decision.reason, decision.needs, decision.worth, ladder, reading, thresholds
        ),
    )
