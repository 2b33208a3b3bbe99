import numpy as np
import pytest

from offline_eval.diagnostics.clustered import (
    binned_curve,
    cluster_bootstrap,
    cluster_sums,
    mean_estimate,
    ratio,
    resample,
    step_curve,
)
from offline_eval.errors import InputError


def generator(seed=0):
    return np.random.default_rng(seed)


def test_cluster_sums_by_hand():
    columns = np.array([[1.0, 1.0], [2.0, 1.0], [4.0, 1.0]])
    assert cluster_sums(columns, np.array([7, 3, 7])).tolist() == [[2.0, 1.0], [5.0, 2.0]]


def test_the_mean_weighs_rows_and_not_episodes():
    estimate = mean_estimate(np.array([1.0, 1.0, 1.0, 5.0]), np.array([0, 0, 0, 1]), generator())
    assert estimate.value == 2.0
    assert estimate.num_clusters == 2
    assert estimate.ci95.low == 1.0
    assert estimate.ci95.high == 5.0


def test_every_resample_of_two_clusters_is_one_of_three():
    drawn = resample(np.array([[1.0], [10.0]]), generator(), num_resamples=1000)
    values, counts = np.unique(drawn, return_counts=True)
    assert values.tolist() == [2.0, 11.0, 20.0]
    assert counts / 1000 == pytest.approx([0.25, 0.5, 0.25], abs=0.05)


def test_one_episode_gives_no_interval_and_says_so():
    estimate = mean_estimate(np.arange(5.0), np.zeros(5), generator())
    assert estimate.value == 2.0
    assert estimate.to_json() == {
        "value": 2.0,
        "ci95": [None, None],
        "caveat": "one episode: no spread to measure",
        "num_clusters": 1,
    }


def test_few_episodes_carry_the_mark():
    few = mean_estimate(np.arange(29.0), np.arange(29), generator()).ci95
    assert not few.honest
    assert "29 episodes" in few.caveat
    assert mean_estimate(np.arange(30.0), np.arange(30), generator()).ci95.honest


def test_episodes_that_are_all_alike_carry_the_mark():
    interval = mean_estimate(np.ones(30), np.arange(30), generator()).ci95
    assert (interval.low, interval.high) == (1.0, 1.0)
    assert "alike" in interval.caveat


def test_the_same_seed_gives_the_same_bits():
    values, episodes = generator(1).normal(size=300), np.arange(300) // 10
    assert mean_estimate(values, episodes, generator(2)) == mean_estimate(values, episodes, generator(2))


def test_repeating_every_row_leaves_the_interval_alone():
    # A hundred copies of a state say nothing new. Counted one by one they would make the interval ten times narrower.
    values = generator(1).normal(size=40)
    once = mean_estimate(values, np.arange(40), generator(2))
    often = mean_estimate(np.repeat(values, 100), np.repeat(np.arange(40), 100), generator(2))
    assert often.ci95.low == pytest.approx(once.ci95.low, rel=1e-12)
    assert often.ci95.high == pytest.approx(once.ci95.high, rel=1e-12)


@pytest.mark.parametrize("num_episodes", [10, 30])
def test_the_interval_covers_the_mean_of_correlated_rows(num_episodes):
    draw, covered = generator(3), 0
    for _ in range(300):
        level = draw.normal(0.5, 1.0, num_episodes)
        lengths = draw.integers(5, 30, num_episodes)
        sums = np.stack([lengths * level, lengths], axis=1)
        covered += 0.5 in cluster_bootstrap(ratio, sums, generator=draw, num_resamples=1000).ci95
    assert 0.91 <= covered / 300 <= 0.985


def test_resamples_in_which_the_statistic_is_undefined_are_left_out():
    sums = np.array([[1.0, 1.0], [0.0, 0.0], [2.0, 1.0]])
    interval = cluster_bootstrap(ratio, sums, generator=generator()).ci95
    assert (interval.low, interval.high) == (1.0, 2.0)


def test_a_curve_by_hand():
    curve = binned_curve(
        values=np.array([1.0, 3.0, 5.0, 9.0]),
        positions=np.array([0, 2, 10, 10]),
        bins=np.array([0, 0, 4, 4]),
        clusters=np.array([0, 0, 0, 1]),
        generator=generator(),
    )
    assert curve.positions.tolist() == [1.0, 10.0]
    assert curve.values.tolist() == [2.0, 7.0]
    assert curve.counts.tolist() == [2, 2]
    assert np.isnan([curve.low[0], curve.high[0]]).all()  # one episode alone
    assert (curve.low[1], curve.high[1]) == (5.0, 9.0)
    assert curve.to_json()["low"] == [None, 5.0]
    assert curve.to_json()["counts"] == [2, 2]


def test_a_bin_of_the_curve_agrees_with_the_estimate_of_its_rows():
    draw = generator(4)
    episodes, steps = np.repeat(np.arange(40), 20), np.tile(np.arange(20), 40)
    values = steps + draw.normal(size=40)[episodes]
    curve = step_curve(values, steps, episodes, generator(5), num_bins=2)
    late = mean_estimate(values[steps >= 10], episodes[steps >= 10], generator(5))
    assert curve.counts.tolist() == [400, 400]
    assert curve.values[1] == pytest.approx(late.value)
    # The estimate's ends are those of the bin, and further out on the side of its skewness.
    assert late.ci95.low <= curve.low[1] == pytest.approx(late.ci95.low, rel=0.05)
    assert late.ci95.high >= curve.high[1] == pytest.approx(late.ci95.high, rel=0.05)


@pytest.mark.parametrize("times", [1.0, -1.0])
def test_skewed_numbers_are_covered_and_shares_stay_within_their_range(times):
    samples = times * generator(6).lognormal(0.0, 1.0, (300, 30))
    estimates = [mean_estimate(sample, np.arange(30), generator()) for sample in samples]
    covered = np.mean([times * np.exp(0.5) in estimate.ci95 for estimate in estimates])
    assert covered > 0.93 - 3.1 * np.sqrt(0.93 * 0.07 / 300)  # percentiles alone cover .86
    share = mean_estimate((np.arange(30) < 28).astype(float), np.arange(30), generator()).ci95
    assert share.high <= 1.0


def test_the_curve_has_no_more_bins_than_steps():
    curve = step_curve(np.ones(6), np.tile(np.arange(3), 2), np.repeat([0, 1], 3), generator(), num_bins=50)
    assert curve.positions.tolist() == [0.0, 1.0, 2.0]


def test_bad_curves_are_refused():
    with pytest.raises(InputError, match="num_bins"):
        step_curve(np.ones(2), np.arange(2), np.arange(2), generator(), num_bins=0)
    with pytest.raises(InputError, match="steps"):
        step_curve(np.ones(2), np.array([-1, 0]), np.arange(2), generator())
