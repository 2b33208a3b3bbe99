"""The verdict: a pure function of a ladder, worked out by hand for every branch."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from offline_eval.diagnosis.findings import (
    Finding,
    Reading,
    Thresholds,
    against,
    finding,
    is_gain,
    lower_end,
    paired_to_policy,
    range_of,
    read,
    scaled,
    share_outside,
    signed_rank_p_value,
)
from offline_eval.diagnosis.records import (
    BEHAVIOUR,
    BEST_OF_N,
    CONTROL,
    INSIDE,
    OPEX_STEP,
    ORACLE,
    OUTSIDE,
    POLICY,
    TRUTH,
    TRUTH_INSIDE,
    Diagnosis,
    Ladder,
    Rung,
    Share,
)
from offline_eval.diagnosis.verdict import decide, shares_of, verdict_of
from offline_eval.diagnosis.wording import Asked, recommendation_for, recommendation_for_unknown
from offline_eval.episodes import EpisodePlan
from offline_eval.episodes.records import Episode, Evaluation
from offline_eval.measurement.records import Measurement, Performance, Skipped
from offline_eval.stats import Interval

NUM = 20
THRESHOLDS = Thresholds()
LUCK = np.linspace(-1.0, 1.0, NUM)
"""What an episode's start is worth, whoever plays it."""


def spread(scale=0.02):
    """Differences with mean 0."""
    return scale * np.cos(np.arange(NUM) * 2 * np.pi / NUM)


def ladder(gains, best=POLICY, truth=None, segments=False, **more):
    """A ladder whose rungs gain so much over a policy that earns 0 on average; the control loses 10."""
    policy = Rung(POLICY, "the policy", LUCK)
    control = Rung(
        CONTROL, "a random one of the data's 12 nearest actions", LUCK + gains.pop(CONTROL, -10.0) + spread()
    )
    rungs = {POLICY: policy, CONTROL: paired_to_policy(control, policy, None)}
    for name, gain in gains.items():
        rung = Rung(name, name, LUCK + gain + spread(), choice={"step_size": 0.2} if name == OPEX_STEP else {})
        rungs[name] = paired_to_policy(rung, policy, None if name == ORACLE else control)
    if truth is not None:
        guided = Rung(TRUTH, "truth", rungs[best].returns + truth + spread(), unit="segment" if segments else "episode")
        paired, p_value = against(guided, policy)
        remaining, remaining_p = against(guided, rungs[best])
        rungs[TRUTH] = replace(
            guided, paired=paired, rank_p_value=p_value, control=best, against_control=remaining,
            control_p_value=remaining_p,
        )  # fmt: skip
    top = -np.inf if segments or truth is None else rungs[TRUTH].summary.mean
    span, noise = range_of([rung for rung in rungs.values() if rung.name != TRUTH], top)
    rungs = {n: r if r.paired is None else replace(r, gain=scaled(r.paired, span)) for n, r in rungs.items()}
    return Ladder(tuple(rungs.values()), span, noise, best=best, num_selection=8, **more)


def decided(*arguments, **words):
    return decide(read(ladder(*arguments, **words), THRESHOLDS), THRESHOLDS)


# ------------------------------------------------------------------------------------------------ arithmetic


def test_the_range_runs_from_the_worse_of_policy_and_control_to_the_best():
    policy, control = Rung(POLICY, "", np.array([0.0, 2.0])), Rung(CONTROL, "", np.array([-3.0, -1.0]))
    harm, gain = Rung(BEST_OF_N, "", np.array([-9.0, -9.0])), Rung(OPEX_STEP, "", np.array([1.0, 5.0]))
    oracle, data = Rung(ORACLE, "", np.array([50.0, 50.0])), Rung(BEHAVIOUR, "", np.array([-70.0]))
    # Control -2, policy 1, OPEX 3: harm, oracle and data do not stretch it. Paired differences 4 and 6: error 1.
    assert range_of([policy, control, harm, gain, oracle, data]) == (5.0, pytest.approx(1.0))
    assert range_of([policy, control, harm, gain], top=5.0)[0] == 7.0


def test_the_rank_test_is_wilcoxons():
    # All 2^6 signs are as likely, and two of them are this extreme: all positive, all negative.
    assert signed_rank_p_value([1, 2, 3, 4, 5, 6]) == pytest.approx(2 / 64)
    assert signed_rank_p_value([0.0, 0.0, np.nan]) == 1.0


def test_a_catastrophe_does_not_hide_a_gain_from_the_rank_test():
    differences = np.ones(NUM) + spread()
    differences[0] = -60.0
    rung, policy = Rung(OPEX_STEP, "", LUCK + differences), Rung(POLICY, "", LUCK)
    paired, p_value = against(rung, policy)
    assert paired.ci95.low < 0.0
    assert p_value < 0.0125
    # But a mean below 0 is no gain, whatever the ranks say.
    assert not finding(paired, p_value, 10.0, 0.08).is_gain
    differences[0] = -15.0
    paired, p_value = against(Rung(OPEX_STEP, "", LUCK + differences), policy)
    assert paired.ci95.low < 0.0 < paired.mean_difference
    assert finding(paired, p_value, 10.0, 0.08).is_gain


def test_a_rung_that_was_picked_pays_for_it():
    # Of 10 pairs t is 2.262 at 95 % and 2.685 at 97.5 %: the lower end goes from .1 to 1 - .9 * 2.685 / 2.262.
    difference = replace(
        ladder({OPEX_STEP: 0.0})[OPEX_STEP].paired, n=10, mean_difference=1.0, ci95=Interval(0.1, 1.9, "")
    )
    assert lower_end(difference, 2) == pytest.approx(1 - 0.9 * 2.685 / 2.262, abs=1e-3)
    assert is_gain(difference, None)
    assert not is_gain(difference, None, num_tried=2)
    assert is_gain(replace(difference, wins=10, losses=0), 0.01, num_tried=2)
    assert not is_gain(replace(difference, wins=10, losses=0), 0.02, num_tried=2)


def test_share_outside_by_hand():
    policy = np.zeros(4)
    found = share_outside(policy, np.full(4, 1.0), np.full(4, 3.0))
    assert (found.estimate, found.ci95.low, found.ci95.high) == (0.75, 0.75, 0.75)
    assert share_outside(policy, np.full(4, -5.0), np.full(4, 3.0)).estimate == 1.0
    assert np.isnan(share_outside(policy, policy - 1.0, policy).estimate)


def test_episodes_that_are_needed():
    # Half of the interval is 0.08 where 0.04 is wanted: four times as many pairs.
    share = ladder({OPEX_STEP: 0.0})[OPEX_STEP].paired
    wide = replace(share, ci95=Interval(-0.8, 0.8, ""), mean_difference=0.0)
    assert finding(wide, None, 10.0, 0.08).required_n == 4 * NUM
    # A gain of 0.5 give or take 0.6: 0.25 is wanted.
    large = replace(share, ci95=Interval(-1.0, 11.0, ""), mean_difference=5.0)
    assert finding(large, None, 10.0, 0.08).required_n == pytest.approx(NUM * (0.6 / 0.25) ** 2, abs=1)


# ------------------------------------------------------------------------------------------------ branches


def test_value_where_only_the_truth_gains():
    found = decided({BEST_OF_N: -2.0, OPEX_STEP: 0.0}, truth=4.0)
    assert found.bottleneck == "value"
    # The truth earns 4 and the control -10.
    assert found.worth == pytest.approx(4.0 / 14.0, rel=1e-6)


def test_extraction_where_q_gains_inside():
    words = {BEST_OF_N: 7.5, OPEX_STEP: 8.0, INSIDE: 7.0, OUTSIDE: 0.5}
    found = decided(words, best=OPEX_STEP, truth=0.2)
    assert found.bottleneck == "extraction"
    assert found.worth == pytest.approx(8.0 / 18.2, rel=1e-6)


def test_generalisation_where_q_gains_outside():
    found = decided({BEST_OF_N: 8.0, OPEX_STEP: 1.0, INSIDE: 0.4, OUTSIDE: 7.0}, best=BEST_OF_N, truth=0.2)
    assert found.bottleneck == "generalisation"


def test_a_policy_as_wrong_inside_as_outside_is_extraction():
    words = {BEST_OF_N: 8.0, OPEX_STEP: 1.0, INSIDE: 3.0, OUTSIDE: 7.0}
    options = {"best": BEST_OF_N, "truth": 0.2, "regret_outside": 1.0}
    assert decided(dict(words), **options, regret_edge=0.9).bottleneck == "extraction"
    # 0.7 of the gain is outside; 0.7 * (1 - 0.2) is above a half.
    assert decided(dict(words), **options, regret_edge=0.2).bottleneck == "generalisation"
    # Where next to nothing is gained inside, regret left over there changes nothing.
    assert decided({**words, INSIDE: 0.4}, **options, regret_edge=0.9).bottleneck == "generalisation"


def test_a_policy_led_out_of_the_data_by_its_critic_is_value():
    found = ladder({BEST_OF_N: 8.0, OPEX_STEP: 1.0, INSIDE: 0.4, OUTSIDE: 7.0}, best=BEST_OF_N, truth=0.2)
    # The truth gains 8.2 everywhere. Inside alone, 6 of it: most of the loss begins there. Or 2 of it: it does not.
    named = {}
    for gain in (6.0, 2.0):
        rung = paired_to_policy(Rung(TRUTH_INSIDE, "", found[POLICY].returns + gain), found[POLICY], None)
        reading = read(replace(found, rungs=(*found.rungs, rung)), THRESHOLDS)
        assert reading.share_inside == pytest.approx(gain / 8.2)
        shares = shares_of(reading, THRESHOLDS)
        named[gain] = (
            decide(reading, THRESHOLDS).bottleneck,
            shares["value"].estimate,
            shares["generalisation"].estimate,
        )
    # Of the range of 18.2 the truth regains 6 inside and 2.2 more; else 0.2 is left to it where Q gained 8.
    assert named[6.0] == ("value", pytest.approx(6.0 / 18.2), pytest.approx(2.2 / 18.2))
    assert named[2.0] == ("generalisation", pytest.approx(0.2 / 18.2), pytest.approx(8.0 / 18.2 * 7.0 / 7.4))
    # What Q gains inside as well, the critic knew.
    known = ladder({BEST_OF_N: 9.0, OPEX_STEP: 1.0, INSIDE: 6.0, OUTSIDE: 7.0}, best=BEST_OF_N, truth=0.2)
    rung = paired_to_policy(Rung(TRUTH_INSIDE, "", known[POLICY].returns + 6.5), known[POLICY], None)
    assert decide(read(replace(known, rungs=(*known.rungs, rung)), THRESHOLDS), THRESHOLDS).bottleneck != "value"


def test_a_little_truth_is_neither_health_nor_a_fault():
    # 0.7 of 10.7 is .065: below the .08 that counts, and more than nothing.
    assert decided({BEST_OF_N: -0.1, OPEX_STEP: 0.0}, truth=0.7).bottleneck == "unknown"


def test_a_truth_that_does_harm_has_shown_nothing():
    found = decided({BEST_OF_N: -0.1, OPEX_STEP: 0.0}, truth=-0.5)
    assert (found.bottleneck, found.needs) == ("unknown", "more rollouts")


def test_a_gain_outside_is_told_by_the_episodes_that_change():
    # The policy is lost on ten starts of twenty; on the others best-of-N differs by a little either way.
    lost = np.where(np.arange(NUM) % 2 == 0, np.arange(NUM) * 6.0 + 1.0, 0.0)
    found = ladder({BEST_OF_N: 0.0, OPEX_STEP: 0.0, INSIDE: 0.0, OUTSIDE: 0.0}, best=BEST_OF_N)
    rungs = {rung.name: rung for rung in found.rungs}
    policy, control = rungs[POLICY], rungs[CONTROL]
    noise = np.where(lost > 0, 0.0, 0.3 * np.cos(np.arange(NUM)) - 0.1)
    for name, returns in ((BEST_OF_N, LUCK + lost + noise), (OUTSIDE, LUCK + lost)):
        rungs[name] = paired_to_policy(replace(rungs[name], returns=returns), policy, control)
    rungs[BEST_OF_N] = replace(rungs[BEST_OF_N], rank_p_value=0.05, paired=replace(
        rungs[BEST_OF_N].paired, ci95=Interval(-1.0, 60.0, "")))  # fmt: skip
    changed = replace(found, rungs=tuple(rungs.values()))
    reading = read(changed, THRESHOLDS)
    assert not reading.by_q.is_gain
    assert reading.outside_gain.is_gain
    assert decide(reading, THRESHOLDS).bottleneck == "generalisation"


def test_what_remains_names_the_value_though_q_helps():
    words = {BEST_OF_N: 3.0, OPEX_STEP: 1.0, INSIDE: 3.0, OUTSIDE: 0.0}
    assert decided(dict(words), best=BEST_OF_N, truth=5.0).bottleneck == "value"
    assert decided(dict(words), best=BEST_OF_N, truth=2.0).bottleneck == "extraction"


def test_a_rung_that_the_control_equals_is_not_qs():
    words = {CONTROL: 5.0, BEST_OF_N: 5.0, OPEX_STEP: 0.0, INSIDE: 5.0, OUTSIDE: 0.0}
    assert decided(dict(words), best=BEST_OF_N, truth=0.0).bottleneck == "unknown"
    assert decided(dict(words), best=BEST_OF_N, truth=4.0).bottleneck == "value"


def test_what_the_control_gains_as_well_is_not_credited_to_q():
    # Q gains 8 over a lost policy, and 1 over any action of the data; the truth gains 2 more.
    words = {CONTROL: 7.0, BEST_OF_N: 8.0, OPEX_STEP: 0.0, INSIDE: 0.5, OUTSIDE: 8.0}
    assert decided(dict(words), best=BEST_OF_N, truth=2.0).bottleneck == "value"
    assert decided({**words, CONTROL: -1.0}, best=BEST_OF_N, truth=2.0).bottleneck == "generalisation"


def test_value_must_hold_against_every_rung_by_q():
    # On four of the starts the policy is lost. Best-of-N finds as much as the truth, and neither is beyond chance.
    lost = np.where(np.arange(NUM) % 6 == 0, 60.0, 0.0)
    found = ladder({BEST_OF_N: 0.0, OPEX_STEP: 0.0}, truth=0.0)
    rungs = {rung.name: rung for rung in found.rungs}
    policy = rungs[POLICY]
    rungs[BEST_OF_N] = paired_to_policy(replace(rungs[BEST_OF_N], returns=LUCK + lost), policy, rungs[CONTROL])
    guided = replace(rungs[TRUTH], returns=LUCK + lost + 0.1)
    remaining, p_value = against(guided, policy)
    rungs[TRUTH] = replace(guided, against_control=remaining, control_p_value=p_value)
    assert remaining.ci95.low > 0.0
    reading = read(replace(found, rungs=tuple(rungs.values()), range=22.0), THRESHOLDS)
    assert reading.remaining.estimate == pytest.approx(0.1 / 22.0)
    decision = decide(reading, THRESHOLDS)
    assert (decision.bottleneck, decision.needs[-13:]) == ("unknown", "more episodes")


def test_healthy_where_neither_gains():
    assert decided({BEST_OF_N: -0.1, OPEX_STEP: 0.0}, truth=0.1).bottleneck == "none"


def test_small_gains_are_no_bottleneck():
    # 0.5 of 10.5 is below the threshold of Q, and certain.
    words = {BEST_OF_N: 0.5, OPEX_STEP: 0.1, INSIDE: 0.5, OUTSIDE: 0.0}
    assert decided(words, best=BEST_OF_N, truth=0.0).bottleneck == "none"


def test_wide_intervals_cannot_tell():
    found = ladder({BEST_OF_N: -0.1, OPEX_STEP: 0.0}, truth=0.0)
    truth = found[TRUTH]
    wild = replace(truth, returns=LUCK + 20.0 * np.cos(np.arange(NUM)))
    remaining, p_value = against(wild, found[POLICY])
    wild = replace(wild, against_control=remaining, control_p_value=p_value)
    verdict = decide(read(replace(found, rungs=(*found.rungs[:-1], wild)), THRESHOLDS), THRESHOLDS)
    assert verdict.bottleneck == "unknown"
    assert verdict.needs.startswith("about ")
    assert verdict.needs.endswith(" more episodes with the truth")
    command = recommendation_for_unknown(verdict.needs, verdict.lacks, verdict.wanted, found, Asked()).command
    assert f"--truth-starts {verdict.wanted} --episodes {verdict.wanted}" in command
    assert verdict.needs == f"about {verdict.wanted - NUM} more episodes with the truth"


def test_the_next_call_names_the_same_files():
    asked = Asked("a.zip", "E-v0", "d.hdf5", critic="q.zip", critic_dataset="all.hdf5")
    found = ladder({BEST_OF_N: 0.0, OPEX_STEP: 0.0})
    command = recommendation_for_unknown("more rollouts", "rollouts", 0, found, asked).command
    same = "--env E-v0 --dataset d.hdf5 --critic q.zip --critic-dataset all.hdf5"
    assert command == f"offline-eval diagnose a.zip {same} --rollouts 8"
    # A clone has no critic to be steered by but the one that was given.
    command = recommendation_for("extraction", replace(found, best=BEST_OF_N), asked).command
    assert command.startswith("offline-eval steer a.zip --env E-v0 --critic q.zip --step-sizes 0 --best-of ")


def test_advised_commands_open_the_data_as_this_one_did():
    asked = Asked("a.zip", "E-v0", "d.hdf5", critic_dataset="all.hdf5", data_options=("--transitions",))
    found = ladder({BEST_OF_N: 0.0, OPEX_STEP: 0.0})
    again = recommendation_for_unknown("more rollouts", "rollouts", 0, found, asked).command
    assert "--dataset d.hdf5 --transitions --critic-dataset all.hdf5" in again
    assert "--dataset d.hdf5 --transitions" in recommendation_for("value", found, asked).command
    assert "--dataset d.hdf5 --transitions`" in recommendation_for("extraction", found, asked).sentence


def test_what_no_command_gives_has_none():
    found = ladder({BEST_OF_N: 0.0, OPEX_STEP: 0.0})
    assert recommendation_for_unknown("another environment", "", 0, found, Asked()).command == ""
    assert "--oracle" in recommendation_for_unknown("an oracle", "oracle", 0, found, Asked()).command
    assert f"--episodes {2 * NUM}" in recommendation_for_unknown("more episodes", "episodes", 0, found, Asked()).command


def test_no_truth_and_no_gain_cannot_tell():
    found = decided({BEST_OF_N: -0.5, OPEX_STEP: 0.0})
    assert found.bottleneck == "unknown"
    assert "restorable simulator" in found.needs


def test_without_truth_the_datas_actions_accuse_the_critic():
    assert decided({CONTROL: 4.0, BEST_OF_N: -1.0, OPEX_STEP: 0.0}).bottleneck == "value"


def test_an_oracle_stands_in_for_the_truth():
    assert decided({BEST_OF_N: -0.5, OPEX_STEP: 0.0, ORACLE: 4.0}).bottleneck == "value"
    assert decided({BEST_OF_N: -0.5, OPEX_STEP: 0.0, ORACLE: 0.1}).bottleneck == "none"
    words = {BEST_OF_N: 6.0, OPEX_STEP: 0.0, ORACLE: 7.0, INSIDE: 6.0, OUTSIDE: 0.0}
    assert decided(words, best=BEST_OF_N).bottleneck == "extraction"


def test_rungs_that_do_not_differ_cannot_tell():
    found = decided({CONTROL: 0.0, BEST_OF_N: 0.0, OPEX_STEP: 0.0}, truth=0.0)
    assert found.bottleneck == "unknown"
    assert "no rung differs" in found.reason
    # To the bit the same, as where every step pays the same: the range is 0.
    policy = Rung(POLICY, "the policy", LUCK)
    control = paired_to_policy(Rung(CONTROL, "control", LUCK), policy, None)
    none = Ladder((policy, replace(control, gain=scaled(control.paired, 0.0))), 0.0, 0.0)
    assert decide(read(none, THRESHOLDS), THRESHOLDS).bottleneck == "unknown"


def test_a_few_catastrophes_do_not_flatten_the_ladder():
    found = ladder({BEST_OF_N: 9.0, OPEX_STEP: 1.0, INSIDE: 0.4, OUTSIDE: 8.0}, best=BEST_OF_N, truth=0.0)
    unsure = replace(found, range_noise=found.range)
    assert decide(read(unsure, THRESHOLDS), THRESHOLDS).bottleneck == "generalisation"


def test_segments_have_a_range_of_their_own():
    found = ladder({BEST_OF_N: -1.0, OPEX_STEP: 0.0}, truth=1.0, segments=True, segment_range=2.0)
    reading = read(found, THRESHOLDS)
    assert reading.remaining.estimate == pytest.approx(0.5)
    assert decide(reading, THRESHOLDS).bottleneck == "value"


def test_gain_that_nobody_located_counts_as_extraction():
    assert decided({BEST_OF_N: 6.0, OPEX_STEP: 0.0}, best=BEST_OF_N, truth=0.0).bottleneck == "extraction"


# ------------------------------------------------------------------------------------------------ words


def reading(gain, outside, left):
    def found(estimate, low, high, n=NUM):
        return Finding(Share(estimate, Interval(low, high, "")), n, estimate > 0, None)

    nothing = found(0.0, 0.0, 0.0, n=0)
    part = Share(outside, Interval(outside - 0.1, outside + 0.1, ""))
    return Reading(
        found(*gain), True, True, found(*gain), part, nothing, None, None, found(*left), nothing, None, True, False
    )


def test_shares_split_the_gain():
    shares = shares_of(reading((0.5, 0.4, 0.6), 0.2, (0.1, 0.0, 0.2)), THRESHOLDS)
    assert list(shares) == ["value", "extraction", "generalisation"]
    assert shares["value"].estimate == 0.1
    assert shares["extraction"].estimate == pytest.approx(0.4)
    assert shares["generalisation"].estimate == pytest.approx(0.1)
    interval = shares["generalisation"].ci95
    assert (interval.low, interval.high) == (pytest.approx(0.04), pytest.approx(0.18))


def diagnosed(found):
    plan = EpisodePlan.seeded(NUM)
    episodes = tuple(Episode(i, i, float(LUCK[i]), 10, False, True) for i in range(NUM))
    skipped = dict.fromkeys(("policy_error", "q_rank", "q_bias", "regret", "coverage"), Skipped("not asked for"))
    measurement = Measurement(Performance(Evaluation("E", "A", None, plan, episodes, 1.0)), **skipped)
    return Diagnosis(measurement, found, verdict_of(found, measurement, Asked("a.zip", "E-v0", "d.hdf5")))


def test_the_json_is_that_of_the_issue():
    found = diagnosed(ladder({BEST_OF_N: 7.5, OPEX_STEP: 8.0, INSIDE: 7.0, OUTSIDE: 0.5}, best=OPEX_STEP, truth=0.2))
    result = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert {"schema", "performance", "policy_error", "q_rank", "q_bias", "regret", "coverage"} <= result.keys()
    verdict = result["verdict"]
    assert verdict["bottleneck"] == "extraction"
    assert verdict["shares"].keys() == {"value", "extraction", "generalisation"}
    assert {"estimate", "ci95"} <= verdict["shares"]["value"].keys()
    assert verdict["recommendation"]["command"] == (
        "offline-eval steer a.zip --env E-v0 --step-sizes 0.05 --num-steps 4"
    )
    assert all({"rung", "summary", "paired", "against_control"} <= rung.keys() for rung in result["ladder"])
    assert "0.44 [0.44, 0.44]" in " ".join(verdict["evidence"])


@pytest.mark.parametrize(
    ("words", "options", "command", "sentence"),
    [
        ({BEST_OF_N: -2.0, OPEX_STEP: 0.0}, {"truth": 4.0}, "offline-eval train iql_ddpg_bc", "Value: "),
        ({BEST_OF_N: -2.0, OPEX_STEP: 0.0}, {"truth": 4.0, "share_outside": 0.3}, "extraction.bc_coef", "Value: "),
        (
            {BEST_OF_N: 8.0, OPEX_STEP: 1.0, INSIDE: 0.4, OUTSIDE: 7.0},
            {"best": BEST_OF_N, "truth": 0.2},
            "offline-eval collect a.zip",
            "Generalisation: ",
        ),
        ({BEST_OF_N: -0.1, OPEX_STEP: 0.0}, {"truth": 0.1}, "", "nothing better within reach of these candidates"),
        ({BEST_OF_N: -0.5, OPEX_STEP: 0.0}, {}, "--oracle ORACLE", "Cannot tell: "),
        ({BEST_OF_N: -2.0, OPEX_STEP: 0.0}, {"truth": 1.5}, "offline-eval train", "mildly, 0.13"),
    ],
)
def test_every_verdict_ends_in_something_to_do(words, options, command, sentence):
    verdict = diagnosed(ladder(dict(words), **options)).verdict
    assert command in verdict.recommendation.command
    assert verdict.recommendation.sentence
    assert sentence in verdict.sentence
