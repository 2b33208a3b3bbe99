"""One rule for what may be said of a gain: in `steer`'s table, in the trial of `auto`, and on the page."""

import numpy as np
import pytest
from steered import FunctionCritic, square
from test_tuning import Off, target

from offline_eval.episodes import EpisodePlan
from offline_eval.report.tables import steering_table
from offline_eval.report.tuning_table import tuning_verdict
from offline_eval.stats import Interval, paired_difference
from offline_eval.steering.credit import Credit, highest, is_control, not_played
from offline_eval.steering.selection import choose
from offline_eval.steering.steering import Variant, steer, steering_variants
from offline_eval.steering.tuning import tune_steering
from offline_eval.wrappers import L2, OPEX, MultiplyAction, Placebo, RandomDirection

PLAN = EpisodePlan.seeded(12)


def between(low, high):
    return Interval(low, high, "by hand")


@pytest.mark.parametrize(
    ("gain", "lead", "missing", "words"),
    [
        (between(-3, -1), between(1, 2), (), "harms"),
        (between(-1, 2), between(1, 2), (), "no difference to the plain policy can be told"),
        (between(1, 2), None, ("a placebo",), "gains; no control was played that could have gained as much"),
        (between(1, 2), between(-1, 2), (), "gains, but no more than its best control, times 1.1"),
        (between(1, 2), between(0.1, 2), (), "helps, and more than its best control, times 1.1"),
        (between(1, 2), between(0.1, 2), ("a placebo",), "gains more than times 1.1; not played, so not known"),
    ],
)
def test_what_may_be_said(gain, lead, missing, words):
    credit = Credit(gain, lead, None if lead is None else "times 1.1", missing)
    assert str(credit).startswith(words)
    assert credit.is_own == (gain.low > 0 and lead is not None and lead.low > 0)


def test_the_controls_are_known_by_their_rules():
    assert is_control(RandomDirection(0.1))
    assert is_control(MultiplyAction(1.3))
    assert is_control(Placebo())
    assert not is_control(OPEX(FunctionCritic(square), 0.1))
    assert not is_control(None)
    assert not_played([MultiplyAction(1.3)]) == ("a random direction", "a placebo")
    assert highest({"a": np.array([1.0, np.nan]), "b": np.array([0.5, 0.5]), "c": np.full(2, np.nan)}) == "a"


def row_of(rows, name):
    return next(row for row in rows if row.variant.name == name)


def test_the_best_control_is_what_a_row_is_held_against():
    # Actions are 1 / 1.1 of the best: a longer action does all that the critic could, a random direction does not.
    critic = FunctionCritic(square)
    rows = steer(Off(factor=1 / 1.1), target, steering_variants(critic, [0.02]), PLAN)
    opex = row_of(rows, "OPEX 0.02")
    means = {row.variant.name: row.evaluation.summary.mean for row in rows if is_control(row.variant.rule)}
    assert opex.best_control == max(means, key=means.get) == "times 1.1"
    rival = row_of(rows, "times 1.1").evaluation.returns
    assert opex.against_control == paired_difference(opex.evaluation.returns, rival)
    assert opex.paired.ci95.low > 0.0
    assert str(opex.credit).startswith("gains, but no more than its best control, times 1.1")
    table = steering_table(rows, "off.zip")
    assert "helps" not in table
    assert "best control: the highest mean of those played, chosen afterwards in its favour" in table
    assert max(len(line) for line in table.splitlines() if ": " in line) <= 80


def test_a_claim_does_not_reach_beyond_the_controls_that_were_played():
    critic = FunctionCritic(square)
    alone = steer(Off(factor=1 / 1.1), target, steering_variants(critic, [0.02], controls=["random"]), PLAN)
    words = str(row_of(alone, "OPEX 0.02").credit)
    assert words == "gains more than random as OPEX 0.02; not played, so not known: more than longer actions, a placebo"
    nothing = steer(Off(factor=1 / 1.1), target, steering_variants(critic, [0.02], controls=[]), PLAN)
    assert str(row_of(nothing, "OPEX 0.02").credit).startswith("gains; no control was played")
    assert "helps" not in steering_table(nothing, "off.zip")


DOUBTFUL = np.array([90.0, -60.0, 80.0, -70.0, 60.0, -50.0, 70.0, -40.0, 50.0, -30.0])


def test_a_steady_gain_behind_a_doubtful_one_is_found():
    plain = np.arange(10.0)
    steady = plain + 1.0 + 0.1 * np.array([1, -1, 2, -2, 1, -1, 2, -2, 1, -1])
    choice = choose(plain, {"doubtful": plain + DOUBTFUL, "steady": steady}, {"placebo": plain + 0.0})
    assert choice.winner == "steady"
    assert choice.threshold == pytest.approx(2.685, abs=1e-3)  # 5 % shared by two candidates, nine degrees of freedom


def test_what_wins_only_when_it_is_tried_alone_is_named():
    weak = np.array([1.2, -0.8, 2.2, 1.2, 1.7, -0.3, 1.2, 2.2, 0.7, -0.3])  # t = 2.6: above 2.26, below that of fifteen
    nothing = {f"none {i}": np.full(10, -float(i)) for i in range(1, 14)}
    choice = choose(np.zeros(10), {"doubtful": DOUBTFUL, "weak": weak, **nothing}, {})
    assert choice.winner is None
    assert choice.best == "doubtful"
    assert choice.alone == ("weak",)


def test_fresh_seeds_are_judged_by_the_same_rule():
    critic = FunctionCritic(square)
    candidates = [Variant(f"OPEX {size:g}", OPEX(critic, size, direction=L2()), size) for size in (0.02, 0.3)]
    tuning = tune_steering(Off(0.3), target, candidates=candidates, plan=PLAN)
    assert tuning.winner is not None
    assert tuning.holds == tuning.confirmed.credit.is_own
    assert str(tuning.confirmed.credit) in tuning_verdict(tuning)[-1]


def test_a_failure_never_wins_a_trial():
    plain, better = np.zeros(6), np.linspace(1.0, 1.5, 6)
    failed = better.copy()
    failed[2] = np.nan
    assert choose(plain, {"a": failed}, {}).winner is None
    # Where the plain policy failed nobody knows what was gained there.
    started = plain.copy()
    started[1] = np.nan
    assert choose(started, {"a": better}, {}).winner is None
