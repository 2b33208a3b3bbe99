"""Intervals against numbers worked out by hand, against SciPy, and against what they claim to cover."""

import dataclasses
import math
import subprocess
import sys
import time

import numpy as np
import pytest
from scipy import stats as scipy_stats

from offline_eval.errors import InputError
from offline_eval.stats import (
    Interval,
    bootstrap_iqm,
    compare_seeds,
    iqm,
    iqm_interval,
    mean_interval,
    paired_difference,
    summarize,
    welch_interval,
    wilson_interval,
)

# --- the interquartile mean


def test_iqm_is_the_mean_of_the_middle_half():
    assert iqm([100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -50.0]) == 3.5  # 2, 3, 4, 5 stay
    assert iqm([1.0, 2.0, 6.0]) == 3.0  # a quarter of three, rounded down, is none


@pytest.mark.parametrize("n", [1, 4, 7, 10, 33])
def test_iqm_equals_scipys_trimmed_mean_along_the_last_axis(n):
    table = np.random.default_rng(n).lognormal(size=(2, 3, n))
    np.testing.assert_allclose(iqm(table), scipy_stats.trim_mean(table, 0.25, axis=-1), rtol=1e-13)


def test_iqm_refuses_nan_and_nothing():
    with pytest.raises(InputError, match="NaN"):
        iqm([1.0, math.nan, 2.0, 3.0])
    with pytest.raises(InputError, match="at least one value"):
        iqm([])


# --- the interval of a mean


def test_symmetric_sample_gets_students_interval():
    # mean 2, std 1, t(2) at .975 = 4.302653: 2 -+ 4.302653 / sqrt(3)
    interval = mean_interval([1.0, 2.0, 3.0])
    assert interval.low == pytest.approx(-0.484138, abs=1e-6)
    assert interval.high == pytest.approx(4.484138, abs=1e-6)


def test_skewed_sample_is_widened_on_the_long_side_as_halls_formula_says():
    sample = np.random.default_rng(0).lognormal(size=30)
    n, error = 30, sample.std(ddof=1) / math.sqrt(30)
    a = scipy_stats.skew(sample, bias=False) / math.sqrt(n)
    t = scipy_stats.t.ppf(0.975, n - 1)

    def textbook(x):
        return 3 / a * (np.cbrt(1 + a * (x - a / 6)) - 1)

    interval = mean_interval(sample)
    assert interval.low == pytest.approx(sample.mean() - t * error)
    assert interval.high == pytest.approx(sample.mean() - textbook(-t) * error)
    assert interval.high > sample.mean() + t * error


def test_mirrored_sample_has_the_mirrored_interval():
    sample = np.random.default_rng(1).lognormal(size=25)
    interval, mirrored = mean_interval(sample), mean_interval(-sample)
    assert (mirrored.low, mirrored.high) == pytest.approx((-interval.high, -interval.low))


def test_units_do_not_matter():
    sample = np.random.default_rng(2).lognormal(size=25)
    interval, other = mean_interval(sample), mean_interval(1e-120 * sample)
    assert (other.low, other.high) == pytest.approx((1e-120 * interval.low, 1e-120 * interval.high))


def test_mean_is_marked_below_thirty_values():
    sample = np.random.default_rng(0).normal(size=30)
    assert mean_interval(sample).honest
    marked = mean_interval(sample[:29])
    assert not marked.honest
    assert "29 values" in marked.caveat
    assert welch_interval(sample, sample + 1.0).honest
    assert not welch_interval(sample, sample[:29]).honest
    assert not paired_difference(sample[:29], np.zeros(29)).ci95.honest


# --- edge cases


def test_one_value_gives_an_infinite_marked_interval():
    for interval in (mean_interval([7.0]), iqm_interval([7.0]), welch_interval([7.0], [1.0, 2.0])):
        assert (interval.low, interval.high) == (-math.inf, math.inf)
        assert not interval.honest
        assert interval.to_json() == [None, None]
    summary = summarize([7.0])
    assert (summary.mean, summary.iqm, summary.median) == (7.0, 7.0, 7.0)
    assert math.isnan(summary.std)


@pytest.mark.parametrize("value", [500.0, 0.1])
@pytest.mark.parametrize("n", [3, 30])
def test_equal_values_give_no_width_marked_for_the_mean(value, n):
    summary = summarize([value] * n)
    assert summary.ci95.low == summary.ci95.high == summary.mean
    assert not summary.ci95.honest
    assert summary.iqm_ci95.low == summary.iqm_ci95.high == summary.iqm == value
    assert summary.iqm_ci95.honest == (n >= 10)


@pytest.mark.parametrize("function", [mean_interval, iqm_interval, summarize])
@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ([], "at least one value"),
        ([1.0, math.inf], "must be finite"),
        ([[1.0, 2.0]], "one-dimensional"),
        (3.0, "one-dimensional"),
        (["a", "b"], "row of numbers"),
    ],
)
def test_bad_samples_are_refused(function, values, rule):
    with pytest.raises(InputError, match=rule):
        function(values)


@pytest.mark.parametrize("function", [mean_interval, iqm_interval])
def test_intervals_refuse_nan_and_name_the_way_out(function):
    with pytest.raises(InputError, match="summarize"):
        function([1.0, math.nan])


# --- the interval of the IQM


def test_counting_draws_is_resampling():
    # With two distinct values and n = 10, a resample's IQM is fixed by how many of its draws are the larger one:
    # k larger ones leave clip(k - 2, 0, 6) of them among the middle six.
    from offline_eval.stats.summary import _resampled_iqms

    resampled = _resampled_iqms(np.array([0.0] * 5 + [1.0] * 5), np.random.default_rng(0))
    possible = np.arange(7) / 6
    assert np.isin(resampled.round(9), possible.round(9)).all()
    expected = scipy_stats.binom.cdf(2, 10, 0.5)  # at most two larger ones: none of them is kept
    assert np.mean(resampled == 0) == pytest.approx(expected, abs=4 * math.sqrt(expected / 5000))


def test_same_seed_same_bits_and_a_generator_goes_on():
    sample = np.random.default_rng(3).lognormal(size=50)
    assert iqm_interval(sample, seed=7) == iqm_interval(sample, seed=7)
    assert iqm_interval(sample, seed=7) != iqm_interval(sample, seed=8)
    generator = np.random.default_rng(7)
    assert iqm_interval(sample, seed=generator) == iqm_interval(sample, seed=7)
    assert iqm_interval(sample, seed=generator) != iqm_interval(sample, seed=7)


def test_order_of_the_episodes_does_not_matter():
    sample = np.random.default_rng(4).normal(size=40)
    assert iqm_interval(sample) == iqm_interval(sample[::-1])


def test_iqm_is_marked_below_ten_values():
    sample = np.random.default_rng(0).normal(size=10)
    assert iqm_interval(sample).honest
    assert not iqm_interval(sample[:9]).honest


# --- success rates


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (0, 10), (1, 10), (5, 10), (10, 10), (83, 100)])
def test_wilson_equals_scipys(successes, n):
    expected = scipy_stats.binomtest(successes, n).proportion_ci(method="wilson")
    interval = wilson_interval(successes, n)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= interval.low <= successes / n <= interval.high <= 1


@pytest.mark.parametrize("n", [1, 4, 5, 10, 13, 50])
def test_unmarked_wilson_intervals_miss_in_at_most_9_1_percent_of_samples(n):
    intervals = [wilson_interval(successes, n) for successes in range(n + 1)]
    low, high = np.array([(interval.low, interval.high) for interval in intervals]).T
    unmarked = np.array([interval.honest for interval in intervals])
    # A rate just beyond an end is where the coverage is least.
    rates = np.clip(np.concatenate([low - 1e-9, high + 1e-9]), 0, 1)[:, None]
    misses = (rates < low) | (rates > high)
    chances = scipy_stats.binom.pmf(np.arange(n + 1), n, rates)
    assert (chances * (misses & unmarked)).sum(axis=1).max() < 0.091
    assert (chances * misses).sum(axis=1).max() > 0.16  # what the mark is for


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 3), (4, 3)])
def test_wilson_refuses_impossible_counts(successes, n):
    with pytest.raises(InputError, match="must be"):
        wilson_interval(successes, n)


# --- summaries


def test_summary_worked_out_by_hand():
    summary = summarize([4.0, math.nan, 1.0, 2.0, 3.0, math.nan, 10.0, 4.0, 4.0, 4.0])
    assert (summary.n, summary.failed) == (8, 2)
    assert summary.mean == 4.0
    assert summary.iqm == 3.75  # 3, 4, 4, 4
    assert summary.median == 4.0
    assert summary.std == pytest.approx(math.sqrt((9 + 4 + 1 + 36) / 7))
    assert summary.standard_error == pytest.approx(summary.std / math.sqrt(8))
    assert summary.mean in summary.ci95
    assert summary.iqm in summary.iqm_ci95


def test_summary_of_failures_alone_says_so():
    summary = summarize([math.nan, math.nan])
    assert (summary.n, summary.failed) == (0, 2)
    assert math.isnan(summary.mean)
    assert summary.ci95.caveat == "every episode failed"
    assert summary.to_json()["mean"] is None


def test_records_are_frozen_and_tell_json_of_the_mark():
    summary = summarize([1.0, 2.0, 4.0])
    with pytest.raises(dataclasses.FrozenInstanceError):
        summary.mean = 0.0
    record = summary.to_json()
    assert record["ci95"] == [summary.ci95.low, summary.ci95.high]
    assert set(record["caveats"]) == {"ci95", "iqm_ci95"}
    assert summarize(np.arange(30.0)).to_json()["caveats"] == {}


def test_summary_of_a_hundred_returns_is_quick():
    returns = np.random.default_rng(0).normal(size=100)
    summarize(returns)  # imports SciPy
    times = []
    for _ in range(5):
        start = time.perf_counter()
        summarize(returns)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.05


# --- paired differences


def test_paired_difference_worked_out_by_hand():
    result = paired_difference([3.0, 5.0, 2.0, 7.0], [1.0, 5.0, 4.0, 3.0])
    assert (result.n, result.failed) == (4, 0)
    assert result.mean_difference == 1.0  # 2, 0, -2, 4
    assert (result.wins, result.ties, result.losses) == (2, 1, 1)
    assert result.sign_test_p_value == 1.0  # two against one is as even as three can be
    assert result.unit == "episode"
    assert result.ci95 == mean_interval([2.0, 0.0, -2.0, 4.0])


def test_sign_test_equals_scipys_binomial_test():
    differences = np.array([1.0] * 14 + [-1.0] * 4 + [0.0] * 3)
    result = paired_difference(differences, np.zeros(21))
    assert result.sign_test_p_value == pytest.approx(scipy_stats.binomtest(4, 18).pvalue)


@pytest.mark.parametrize("effect", [0.3, 0.5, 1.0])
def test_required_n_reaches_the_power_it_promises(effect):
    spread = np.array([-1.0, 1.0] * 10)
    differences = spread / spread.std(ddof=1) + effect  # standard deviation 1, mean `effect`
    n = paired_difference(differences, np.zeros(20)).required_n

    def power(n):
        threshold, shift = scipy_stats.t.ppf(0.975, n - 1), effect * math.sqrt(n)
        return scipy_stats.nct.sf(threshold, n - 1, shift) + scipy_stats.nct.cdf(-threshold, n - 1, shift)

    assert power(n + 1) >= 0.8 > power(n - 2)


def test_required_n_of_no_difference_is_unknown():
    same = paired_difference([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert same.required_n is None
    assert (same.ties, same.sign_test_p_value) == (3, 1.0)
    assert (same.ci95.low, same.ci95.high, same.ci95.honest) == (0.0, 0.0, False)
    assert paired_difference([1.0, -1.0, 1e-300], [0.0, 0.0, 0.0]).required_n is None  # beyond any count
    assert paired_difference([2.0], [1.0]).required_n is None  # one pair has no spread


def test_no_comparison_improves_through_a_failure():
    # Where A fails it would have lost: dropping those pairs would show a gain.
    a, b = np.array([5.0] * 15 + [-50.0] * 5) + np.arange(20), np.arange(20.0)
    a[15:] = np.nan
    difference = paired_difference(a, b)
    assert (difference.n, difference.failed, difference.mean_difference) == (15, 5, 5.0)
    assert (difference.ci95.low, difference.ci95.high) == (-math.inf, math.inf)
    assert "5 of 20 pairs failed" in difference.ci95.caveat
    assert math.isnan(difference.sign_test_p_value)
    assert difference.required_n is None
    seeds = compare_seeds([a, a + 1.0, b], [b, b + 1.0, b])
    assert (seeds.failed, seeds.ci95.low, seeds.ci95.high) == (10, -math.inf, math.inf)
    summary, whole = summarize(np.append(np.arange(40.0), np.nan)), summarize(np.arange(40.0))
    assert not summary.ci95.honest
    assert not summary.iqm_ci95.honest
    assert summary.ci95.caveat == "1 of 41 episodes failed and do not count"
    assert (summary.ci95.low, summary.ci95.high) == (whole.ci95.low, whole.ci95.high)


def test_pairs_that_all_failed_are_counted():
    result = paired_difference([math.nan, 1.0], [1.0, math.nan])
    assert (result.n, result.failed) == (0, 2)
    assert result.to_json()["mean_difference"] is None


def test_lengths_must_agree():
    with pytest.raises(InputError, match="`a`, which has 2"):
        paired_difference([1.0, 2.0], [1.0, 2.0, 3.0])


# --- training seeds


def test_welch_equals_scipys_where_nothing_is_skewed():
    a, b = np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([0.0, 10.0, 20.0])
    expected = scipy_stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    interval = welch_interval(a, b)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_welch_of_a_constant_is_the_interval_of_the_other_mean():
    sample = np.random.default_rng(5).lognormal(size=30)
    interval, alone = welch_interval(sample, np.full(30, 2.0)), mean_interval(sample)
    assert (interval.low, interval.high) == pytest.approx((alone.low - 2.0, alone.high - 2.0))
    mirrored = welch_interval(np.full(30, 2.0), sample)
    assert (mirrored.low, mirrored.high) == pytest.approx((-interval.high, -interval.low))


def test_seeds_are_counted_and_not_their_episodes():
    generator = np.random.default_rng(0)
    a = [level + generator.normal(size=100) for level in (0.0, 10.0, 20.0)]
    b = [level + generator.normal(size=50) for level in (5.0, 15.0)]
    result = compare_seeds(a, b)
    assert result.unit == "training seed"
    assert result.a_means == tuple(float(np.mean(returns)) for returns in a)
    assert result.ci95 == compare_seeds(result.a_means, result.b_means).ci95
    pooled = welch_interval(np.concatenate(a), np.concatenate(b))
    assert result.ci95.high - result.ci95.low > 5 * (pooled.high - pooled.low)
    assert not result.ci95.honest


def test_failed_episodes_of_a_seed_are_left_out():
    result = compare_seeds([[1.0, math.nan, 3.0], [4.0]], [[0.0], [0.0]])
    assert result.a_means == (2.0, 4.0)
    assert (result.mean_difference, result.failed) == (3.0, 1)


def test_seeds_without_returns_are_refused():
    with pytest.raises(InputError, match="at least one training seed"):
        compare_seeds([], [[1.0]])
    with pytest.raises(InputError, match=r"b\[1\]"):
        compare_seeds([[1.0]], [[1.0], [math.nan]])


# --- a table of runs by tasks


def golden_table():
    return np.modf(np.arange(1, 261) * 0.6180339887498949)[0].reshape(10, 26) ** 2


def test_table_agrees_with_rliable_and_takes_under_a_second():
    start = time.perf_counter()
    score = bootstrap_iqm(golden_table())
    assert time.perf_counter() - start < 1.0
    assert (score.num_runs, score.num_tasks) == (10, 26)
    # rliable 1.2.0, get_interval_estimates with aggregate_iqm and 50,000 repetitions, three random states
    assert score.iqm == pytest.approx(0.27083586519, abs=1e-10)
    assert score.ci95.low == pytest.approx(0.2264, abs=1e-3)
    assert score.ci95.high == pytest.approx(0.3191, abs=1e-3)
    assert score.ci95.honest


def test_tasks_are_strata():
    # Every run of a task scores the same: resampling runs within tasks changes nothing, pooling would.
    score = bootstrap_iqm(np.tile(np.arange(8.0), (10, 1)), num_resamples=500)
    assert score.ci95.low == score.ci95.high == score.iqm == 3.5


def test_table_is_seeded_and_marked_with_few_runs():
    table = golden_table()
    assert bootstrap_iqm(table, seed=1, num_resamples=3000) == bootstrap_iqm(table, seed=1, num_resamples=3000)
    assert bootstrap_iqm(table, seed=1, num_resamples=3000) != bootstrap_iqm(table, seed=2, num_resamples=3000)
    assert not bootstrap_iqm(table[:5], num_resamples=100).ci95.honest
    assert bootstrap_iqm(table[:1]).ci95.to_json() == [None, None]


@pytest.mark.parametrize(
    ("scores", "rule"),
    [([1.0, 2.0], "must be a table"), (np.empty((0, 3)), "must be a table"), ([[math.nan]], "finite")],
)
def test_bad_tables_are_refused(scores, rule):
    with pytest.raises(InputError, match=rule):
        bootstrap_iqm(scores)
    with pytest.raises(InputError, match="num_resamples"):
        bootstrap_iqm([[1.0], [2.0]], num_resamples=0)


# --- what 95 % means


def normal(generator, shape):
    return 3000 + 500 * generator.standard_normal(shape)


def lognormal(generator, shape):
    return generator.lognormal(0.0, 1.0, shape)


def falling(generator, shape, rate=0.15):
    upright = 3000 + 100 * generator.standard_normal(shape)
    return np.where(generator.random(shape) < rate, 500 + 200 * generator.standard_normal(shape), upright)


def falling_seldom(generator, shape):
    return falling(generator, shape, 0.1)


def jackpot(generator, shape):
    """100 in one episode of ten, else about 0."""
    return 100.0 * (generator.random(shape) < 0.1) + generator.standard_normal(shape)


RETURNS = {
    normal: 3000.0,
    lognormal: math.exp(0.5),
    falling: 0.85 * 3000 + 0.15 * 500,
    falling_seldom: 0.9 * 3000 + 0.1 * 500,
    jackpot: 10.0,
}


def unmarked_coverage(intervals, truth):
    """Share of the intervals without a mark that hold the truth, and how many carry none."""
    unmarked = [interval for interval in intervals if interval.honest]
    return np.mean([truth in interval for interval in unmarked]) if unmarked else math.nan, len(unmarked)


def least(share, num_samples):
    """What a method of that coverage stays above in all but one run of a thousand."""
    return share - 3.1 * math.sqrt(share * (1 - share) / num_samples)


@pytest.mark.parametrize("returns", RETURNS)
@pytest.mark.parametrize("n", [30, 100])
def test_unmarked_intervals_of_the_mean_cover(returns, n):
    samples = returns(np.random.default_rng(n), (2000, n))
    coverage, count = unmarked_coverage([mean_interval(sample) for sample in samples], RETURNS[returns])
    assert count == 2000
    assert coverage > least(0.93, count)


def test_the_percentile_bootstrap_would_not_pass():
    generator = np.random.default_rng(0)
    samples = lognormal(generator, (2000, 30))
    counts = generator.multinomial(30, np.full(30, 1 / 30), size=1000)
    low, high = np.quantile(samples @ counts.T / 30, [0.025, 0.975], axis=1)
    assert np.mean((low <= math.exp(0.5)) & (math.exp(0.5) <= high)) < least(0.93, 2000)


@pytest.mark.parametrize(("returns", "n"), [(falling, 10), (falling_seldom, 20), (jackpot, 20)])
def test_few_values_are_marked_because_nothing_covers_unseen_falls(returns, n):
    samples = returns(np.random.default_rng(0), (2000, n))
    intervals = [mean_interval(sample) for sample in samples]
    assert not any(interval.honest for interval in intervals)
    assert np.mean([RETURNS[returns] in interval for interval in intervals]) < least(0.93, 2000)


@pytest.mark.parametrize("n", [30, 100])
def test_unmarked_intervals_of_a_paired_difference_cover(n):
    generator = np.random.default_rng(n)
    pairs = {
        "lognormal, half as much again": (1.5 * lognormal(generator, (1000, n)), lognormal(generator, (1000, n))),
        "falls less often": (falling(generator, (1000, n), 0.05), falling(generator, (1000, n))),
        "falls as often": (falling(generator, (1000, n)), falling(generator, (1000, n))),
        "falls no more": (falling(generator, (1000, n), 0.0), falling(generator, (1000, n))),
        "fell seldom": (falling(generator, (1000, n), 0.0), falling_seldom(generator, (1000, n))),
    }
    truths = [0.5 * math.exp(0.5), 250.0, 0.0, 375.0, 250.0]
    for (name, (a, b)), truth in zip(pairs.items(), truths, strict=True):
        intervals = [paired_difference(*returns).ci95 for returns in zip(a, b, strict=True)]
        coverage, count = unmarked_coverage(intervals, truth)
        assert count == 1000, name
        assert coverage > least(0.93, count), name


@pytest.mark.parametrize("returns", RETURNS)
@pytest.mark.parametrize(("n", "num_samples"), [(10, 500), (30, 300)])
def test_unmarked_intervals_of_the_iqm_cover(returns, n, num_samples):
    generator = np.random.default_rng(n)
    truth = iqm(returns(generator, 1_000_000))
    intervals = [iqm_interval(sample) for sample in returns(generator, (num_samples, n))]
    coverage, count = unmarked_coverage(intervals, truth)
    assert count == num_samples
    assert coverage > least(0.93, count)


def test_iqm_covers_where_failures_are_about_a_quarter():
    # The trimmed mean's own t interval covers .6 here: it takes the share of failures in the sample for certain.
    def returns(generator, shape):
        return falling(generator, shape, 0.3)

    generator = np.random.default_rng(0)
    truth = iqm(returns(generator, 1_000_000))
    covered = [truth in iqm_interval(sample) for sample in returns(generator, (400, 20))]
    assert np.mean(covered) > least(0.93, 400)


# --- the module


def test_import_brings_neither_torch_nor_scipy(tmp_path):
    code = "import sys, offline_eval.stats; print(sorted({'torch', 'scipy'} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_interval_knows_what_it_holds():
    interval = Interval(-1.0, 2.0, "by hand")
    assert 0 in interval
    assert 3 not in interval
    assert interval.honest
    assert interval.level == 0.95
