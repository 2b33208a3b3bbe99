import numpy as np
import pytest

from offline_eval.diagnostics.q_bias import ValueSample, calibration_curve, q_bias
from offline_eval.errors import InputError


def generator(seed=0):
    return np.random.default_rng(seed)


def sample(factor=1.0, seed=0, noise=0.0, num_episodes=40):
    """Returns around 50 with a level for each episode, and a critic that says `factor` times as much."""
    draw = generator(seed)
    episodes = np.repeat(np.arange(num_episodes), 10)
    truth = 50 + 5 * draw.normal(size=num_episodes)[episodes] + draw.normal(size=len(episodes))
    return ValueSample(factor * truth + noise * draw.normal(size=num_episodes)[episodes], truth, episodes)


def test_bias_by_hand():
    bias = q_bias(ValueSample([3.0, 1.0, -2.0], [1.0, 2.0, -4.0], [0, 1, 1]), generator(), floor=2.0)
    assert bias.difference.value == pytest.approx(1.0)  # (2 - 1 + 2) / 3
    assert bias.normalised.value == pytest.approx(3 / 7)  # over (1 + 2 + 4)
    assert bias.per_state.value == pytest.approx((2 / 2 - 1 / 2 + 2 / 4) / 3)
    assert bias.floor == 2.0
    assert bias.share_floored == pytest.approx(1 / 3)
    assert bias.excess is None
    assert bias.num_states == 3


def test_the_floor_is_a_tenth_of_the_mean_return():
    bias = q_bias(ValueSample([1.0, 30.0], [1.0, 39.0], [0, 1]), generator())
    assert bias.floor == pytest.approx(2.0)
    assert bias.per_state.value == pytest.approx(-9 / 39 / 2)


def test_a_right_critic_has_no_bias():
    bias = q_bias(sample(), generator())
    for estimate in (bias.difference, bias.normalised, bias.per_state):
        assert estimate.value == estimate.ci95.low == estimate.ci95.high == 0.0


@pytest.mark.parametrize("factor", [1.3, 0.6])
def test_a_planted_factor_is_found_in_both_forms(factor):
    bias = q_bias(sample(factor, noise=0.5), generator())
    assert factor - 1 in bias.normalised.ci95
    assert factor - 1 in bias.per_state.ci95
    assert 0.0 not in bias.normalised.ci95


def test_of_negative_returns_an_optimist_is_still_above_zero():
    bias = q_bias(ValueSample([-50.0, -50.0], [-100.0, -100.0], [0, 1]), generator())
    assert bias.normalised.value == bias.per_state.value == 0.5


def test_the_units_of_the_reward_do_not_matter():
    one = sample(1.2, noise=1.0)
    many = ValueSample(1000 * one.q, 1000 * one.truth, one.episodes)
    first, second = q_bias(one, generator()), q_bias(many, generator())
    assert second.normalised.value == pytest.approx(first.normalised.value)
    assert second.normalised.ci95.low == pytest.approx(first.normalised.ci95.low)
    assert second.difference.value == pytest.approx(1000 * first.difference.value)


def test_the_reference_is_subtracted():
    bias = q_bias(sample(1.5, noise=0.5), generator(), reference=sample(1.2, seed=1, noise=0.5))
    assert bias.excess.value == pytest.approx(0.3, abs=0.01)
    assert 0.0 not in bias.excess.ci95
    same = q_bias(sample(1.2, noise=0.5), generator(), reference=sample(1.2, seed=1, noise=0.5))
    assert 0.0 in same.excess.ci95


def test_two_uncertain_agents_make_an_uncertain_difference():
    mine, other = sample(1.2, noise=5.0), sample(1.2, seed=1, noise=5.0)
    bias = q_bias(mine, generator(), reference=other)
    width = [e.ci95.high - e.ci95.low for e in (bias.normalised, q_bias(other, generator()).normalised, bias.excess)]
    assert width[2] == pytest.approx(np.hypot(width[0], width[1]), rel=0.15)


def test_returns_that_are_all_zero_leave_the_plain_difference():
    # A sparse reward that was never reached.
    bias = q_bias(ValueSample([0.25, 0.75], [0.0, 0.0], [0, 1]), generator(), reference=sample())
    assert bias.difference.value == 0.5
    assert bias.normalised is bias.per_state is bias.excess is None
    with pytest.raises(InputError, match="reference"):
        q_bias(sample(), generator(), reference=ValueSample([1.0], [0.0], [0]))


def test_the_calibration_curve_by_hand():
    curve = calibration_curve(ValueSample([4, 1, 3, 2], [40, 10, 30, 20], [0, 0, 1, 1]), generator(), num_bins=2)
    assert curve.positions.tolist() == [1.5, 3.5]
    assert curve.values.tolist() == [15.0, 35.0]
    assert curve.counts.tolist() == [2, 2]


def test_equal_predictions_share_a_bin():
    curve = calibration_curve(ValueSample([1, 1, 1, 1, 1, 2], np.arange(6), np.arange(6)), generator(), num_bins=3)
    assert curve.counts.tolist() == [5, 1]


def test_a_right_critic_lies_on_the_diagonal():
    curve = q_bias(sample(), generator()).calibration
    assert curve.values == pytest.approx(curve.positions)
    assert len(curve.counts) == 10


def test_nan_is_named_by_index():
    with pytest.raises(InputError, match=r"`q` must be finite\. Received nan at index 1 \(2 of 3 values\)"):
        ValueSample([1.0, np.nan, np.nan], [1.0, 2.0, 3.0], [0, 0, 0])
    with pytest.raises(InputError, match=r"`truth` must be finite.*inf at index 0"):
        ValueSample([1.0], [np.inf], [0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ValueSample([1.0, 2.0], [1.0], [0]), "one row for each"),
        (lambda: ValueSample([1.0, 2.0], [1.0, 2.0], [0]), "one row for each"),
        (lambda: ValueSample([], [], []), "must not be empty"),
        (lambda: q_bias(sample(), generator(), floor=0.0), "`floor`"),
        (lambda: q_bias(sample(), generator(), num_bins=0), "`num_bins`"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
