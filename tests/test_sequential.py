"""Confidence sequences and the questions they decide: numbers by hand, an exact error rate, identities."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from offline_eval.errors import InputError
from offline_eval.stats.decisions import HOLDS, UNDECIDED, VIOLATED, Alternative, AtLeast, AtMost, Claim, Question
from offline_eval.stats.sequential import AsymptoticMean, BoundedMean, ratio_interval

FLIPS = np.tile([1.0, -1.0], 104)


def returns(size, seed=0):
    return np.random.default_rng(seed).lognormal(0.0, 0.7, size)


def test_one_value_of_one_shows_what_ten_stakes_win_on_average():
    # The capital is 1 + 0.5 (1/m - 1), since the stakes' mean is a half; it reaches 100 at m = 1/199.
    interval = BoundedMean(0.0, 1.0).interval(np.ones(1))
    assert interval.low == pytest.approx(1 / 199)
    assert interval.high == pytest.approx(1.0)


def test_nine_ones_in_a_row_show_that_a_coin_is_not_fair():
    # (1.05^9 + 1.15^9 + ... + 1.95^9) / 10 is 101.3, and 56.3 with 8.
    shown = BoundedMean(0.0, 1.0).above(np.ones(12), 0.5)
    assert shown.tolist() == [False] * 8 + [True] * 4


@pytest.mark.parametrize("chance", [0.5, 0.2])
def test_the_error_rate_is_exact_over_all_sequences_of_a_coin(chance):
    sequences = np.array(list(product([0.0, 1.0], repeat=13)))
    probabilities = np.prod(np.where(sequences == 1.0, chance, 1.0 - chance), axis=1)
    sequence = BoundedMean(0.0, 1.0, alpha=0.2)
    too_high = float(probabilities[sequence.above(sequences, chance + 1e-12).any(axis=1)].sum())
    too_low = float(probabilities[sequence.below(sequences, chance - 1e-12).any(axis=1)].sum())
    assert 0.02 < too_high <= 0.2
    assert 0.02 < too_low <= 0.2


def test_the_asymptotic_limit_is_the_formula():
    # At t = `tightest` = 208: r t = 10.0016, 3.3542 standard errors; the error is sqrt(1 / 207), there is no skewness.
    sequence = AsymptoticMean(0.01)
    assert (sequence.fewest, sequence.tightest) == (104, 208)
    assert not sequence.below(FLIPS, 0.2330)[-1]
    assert sequence.below(FLIPS, 0.2333)[-1]
    assert sequence.above(FLIPS, -0.2333)[-1]
    assert not sequence.above(FLIPS, -0.2330)[-1]


def test_nothing_is_said_before_the_fewest():
    sequence, values = AsymptoticMean(0.01), 1000.0 + FLIPS
    assert not sequence.above(values, 0.0)[:103].any()
    assert sequence.above(values, 0.0)[103:].all()
    assert sequence.interval(values[:103]).low == -np.inf
    assert sequence.interval(values[:103]).caveat == "103 values: below 104"


def test_skewness_moves_the_limit_on_the_long_side_only():
    sequence, values = AsymptoticMean(0.01), returns(300)
    far = 1.2 * 3.37 * values.std() / np.sqrt(len(values))  # a fifth further than without skewness
    assert sequence.above(values, values.mean() - far)[-1]
    assert not sequence.below(values, values.mean() + far)[-1]


@pytest.mark.parametrize("sequence", [BoundedMean(-40.0, 40.0), AsymptoticMean()])
def test_signs_mirror_the_interval(sequence):
    values = returns(200)
    one, other = sequence.interval(values), sequence.interval(-values)
    assert (other.low, other.high) == pytest.approx((-one.high, -one.low))
    assert one.level == pytest.approx(0.98)


@pytest.mark.parametrize("sequence", [BoundedMean(0.0, 40.0), AsymptoticMean()])
def test_limits_only_come_nearer_and_agree_with_the_tests(sequence):
    values = returns(200)
    earlier, later = sequence.interval(values[:150]), sequence.interval(values)
    assert earlier.low <= later.low < later.high <= earlier.high
    assert sequence.above(values, later.low - 1e-6).any()
    assert not sequence.above(values, later.low + 1e-6).any()
    assert sequence.below(values, later.high + 1e-6).any()
    assert not sequence.below(values, later.high - 1e-6).any()


def test_units_do_not_matter():
    values = returns(150)
    one, other = BoundedMean(0.0, 40.0).interval(values), BoundedMean(100.0, 500.0).interval(100.0 + 10.0 * values)
    assert (other.low, other.high) == pytest.approx((100.0 + 10.0 * one.low, 100.0 + 10.0 * one.high))
    one, other = AsymptoticMean().interval(values), AsymptoticMean().interval(1e6 + 10.0 * values)
    assert (other.low, other.high) == pytest.approx((1e6 + 10.0 * one.low, 1e6 + 10.0 * one.high))


def test_equal_values_say_nothing_until_one_differs():
    for values in (np.full(104, 0.1), np.full(500, 0.0), np.full(200, 0.3) - 1e-17 * np.arange(200)):
        interval = AsymptoticMean().interval(values)
        assert (interval.low, interval.high) == (-np.inf, np.inf)
        assert interval.caveat == f"{len(values)} equal values: their spread is unknown"
        assert not AsymptoticMean().above(values, -1.0).any()
        assert not AsymptoticMean().below(values, 1.0).any()
    values = np.append(np.full(300, 1.0), 0.0)
    assert np.isinf(AsymptoticMean().interval(values[:300]).low)
    assert np.isfinite(AsymptoticMean().interval(values).low)


@pytest.mark.parametrize(("rate", "threshold"), [(0.99, 0.995), (0.98, 0.99), (0.96, 0.98)])
def test_a_success_that_nearly_always_comes_does_not_pass_for_more(rate, threshold):
    # 104 equal returns are seen in .99 ** 104 = 35 % of the runs: they are no proof of a rate above .995.
    runs = (np.random.default_rng(3).random((2000, 500)) < rate).astype(float)[..., None]
    assert np.mean(question(AtLeast(threshold), (1.0,)).decide(runs).verdict == HOLDS) <= 0.01
    turned = question(AtMost(1.0 - threshold), (1.0,)).decide(1.0 - runs)
    assert np.mean(turned.verdict == HOLDS) <= 0.01


def test_a_rare_success_is_not_said_to_miss_its_own_rate():
    runs = (np.random.default_rng(4).random((2000, 500)) < 0.03).astype(float)[..., None]
    assert np.mean(question(AtLeast(0.03), (1.0,)).decide(runs).verdict == VIOLATED) <= 0.015


def test_pairs_that_never_differ_are_undecided_without_bounds():
    pairs = np.stack([np.full(300, 500.0), np.full(300, 500.0)], axis=-1)
    assert question(AtLeast(-5.0), (1.0, -1.0)).decide(pairs).verdict == UNDECIDED
    assert question(AtLeast(-50.0), (1.0, -1.0), bounds=((0.0, 500.0),) * 2).decide(pairs).verdict == HOLDS


def test_a_ratio_to_ones_is_a_mean():
    values, sequence = returns(200), AsymptoticMean()
    ratio, mean = ratio_interval(sequence, values, np.ones(200)), sequence.interval(values)
    assert (ratio.low, ratio.high) == pytest.approx((mean.low, mean.high))


def test_the_ratio_of_proportional_numbers_is_known_exactly():
    sizes = returns(200)
    ratio = ratio_interval(AsymptoticMean(), 0.3 * sizes, sizes)
    assert (ratio.low, ratio.high) == pytest.approx((0.3, 0.3))


def question(side, *weights, bounds=None, kind=Question):
    return kind(tuple(Claim("a mean", row, side) for row in weights), bounds=bounds)


def test_a_question_is_decided_at_the_first_episode_that_shows_it():
    asked = question(AtLeast(0.5), (1.0,), bounds=((0.0, 1.0),))
    for number, verdict in ((8, UNDECIDED), (9, HOLDS), (40, HOLDS)):
        decision = asked.decide(np.ones((number, 1)))
        assert decision.verdict == verdict
        assert decision.episodes == (9 if verdict == HOLDS else 0)
    later = np.concatenate([np.ones((9, 1)), np.zeros((400, 1))])  # would show the opposite, had one gone on
    assert asked.decide(later).verdict == HOLDS
    assert question(AtMost(0.5), (1.0,), bounds=((0.0, 1.0),)).decide(np.ones((40, 1))).verdict == VIOLATED


def test_many_runs_at_once_are_judged_as_each_alone():
    runs = np.random.default_rng(3).random((20, 60, 2))
    asked = question(AtLeast(0.15), (1.0, -1.0), (0.0, 1.0), bounds=((0.0, 1.0), (0.0, 1.0)))
    verdicts, episodes = asked.decide(runs)
    assert set(verdicts.tolist()) == {VIOLATED, UNDECIDED}
    assert [asked.decide(run) for run in runs] == list(zip(verdicts, episodes, strict=True))


def test_all_claims_must_hold_and_one_alternative_suffices():
    columns, bounds = np.tile([1.0, 0.0], (60, 1)), ((0.0, 1.0), (0.0, 1.0))
    assert question(AtLeast(0.5), (1.0, 0.0), (0.0, 1.0), bounds=bounds).decide(columns).verdict == VIOLATED
    either = question(AtLeast(0.5), (1.0, 0.0), (0.0, 1.0), bounds=bounds, kind=Alternative)
    assert either.decide(columns).verdict == HOLDS
    assert either.deciding(columns) == either.claims[:1]


@pytest.mark.parametrize(("side", "value", "inwards"), [(AtLeast(500.0), 500.0, -1.0), (AtMost(0.0), 0.0, 1.0)])
def test_a_threshold_at_the_end_of_the_scale(side, value, inwards):
    equal = np.full((120, 1), value)
    assert question(side, (1.0,)).decide(equal).verdict == UNDECIDED
    # Bounds rule nothing out that was not seen: the mean is 500 only if every return is.
    bounded = question(side, (1.0,), bounds=((0.0, 500.0),))
    assert bounded.decide(equal).verdict == UNDECIDED
    equal[3] += inwards
    assert tuple(bounded.decide(equal)) == (VIOLATED, 4)


def test_two_claims_share_the_error_rate():
    one, two = question(AtLeast(0.0), (1.0,)), question(AtLeast(0.0), (1.0,), (-1.0,))
    assert [one.sequence(claim).alpha for claim in one.claims] == [0.01]
    assert [two.sequence(claim).alpha for claim in two.claims] == [0.005, 0.005]
    assert (one.fewest, two.fewest) == (104, 117)  # .95^104 < .005 < .95^103, .95^117 < .0025 < .95^116


def test_bounds_of_a_weighted_sum():
    claim = Claim("a difference", (1.0, -2.0), AtLeast(0.0))
    assert claim.bounds([(0.0, 1.0), (-1.0, 3.0)]) == (-6.0, 3.0)
    assert claim.values(np.array([[1.0, 3.0]])).tolist() == [-5.0]


def test_bounds_hold_for_each_column_and_not_for_their_difference_only():
    columns = np.tile([3600.0, 3500.0], (3, 1))
    with pytest.raises(InputError, match=r"declared were \[0, 3500\]. Received 3600"):
        question(AtLeast(0.0), (1.0, -1.0), bounds=((0.0, 3500.0),) * 2).decide(columns)


def test_rounding_does_not_leave_the_bounds():
    total = 0.1 + 0.2
    assert total > 0.3
    assert BoundedMean(0.0, 0.3).interval(np.full(40, total)).high == pytest.approx(0.3)


@pytest.mark.parametrize("alpha", [0.0, 0.5, -0.01, float("nan")])
def test_an_error_rate_that_is_none_is_refused(alpha):
    for make in (lambda: AsymptoticMean(alpha), lambda: BoundedMean(0.0, 1.0, alpha)):
        with pytest.raises(InputError, match=r"`alpha` must lie in \(0, 0.5\)"):
            make()


@pytest.mark.parametrize("bounds", [(1.0, 1.0), (2.0, 1.0), (-np.inf, 1.0), (0.0, np.nan)])
def test_bounds_that_are_none_are_refused(bounds):
    with pytest.raises(InputError, match="two finite numbers"):
        BoundedMean(*bounds)


def test_a_value_outside_the_bounds_is_refused():
    with pytest.raises(InputError, match=r"`bounds` must hold every value: declared were \[0, 1\]. Received 1.5"):
        BoundedMean(0.0, 1.0).above(np.array([0.5, 1.5]), 0.2)
