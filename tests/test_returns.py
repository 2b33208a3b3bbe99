import numpy as np
import pytest

from offline_eval.diagnostics.returns import (
    Bootstrap,
    Drop,
    EpisodeRewards,
    Extend,
    NoTail,
    discounted_returns,
    discounted_sums,
    horizon,
    soft_rewards,
)
from offline_eval.errors import InputError


def cut(rewards, **fields):
    return EpisodeRewards(np.asarray(rewards, dtype=float), terminated=False, **fields)


def ended(rewards):
    return EpisodeRewards(np.asarray(rewards, dtype=float), terminated=True)


def test_returns_to_go_by_hand():
    labels = discounted_returns([ended([1, 2, 3]), ended([4])], gamma=0.5)
    assert labels.values.tolist() == [2.75, 3.5, 3.0, 4.0]
    assert labels.episodes.tolist() == [0, 0, 0, 1]
    assert labels.steps.tolist() == [0, 1, 2, 0]
    assert labels.share_labelled == 1.0
    assert labels.caveat == ""


@pytest.mark.parametrize(
    ("tolerance", "gamma", "steps"),
    [
        (0.01, 0.99, 459),
        (0.05, 0.99, 299),
        (0.001, 0.99, 688),
        (0.01, 0.995, 919),
        (0.05, 0.995, 598),
        (0.01, 0.999, 4603),
        (0.05, 0.999, 2995),
        (0.01, 0.0, 1),
    ],
)
def test_the_horizon_of_a_tolerance(tolerance, gamma, steps):
    assert horizon(tolerance, gamma) == steps


def test_drop_labels_the_states_that_see_a_whole_horizon():
    labels = discounted_returns([cut(np.sin(np.arange(1000.0))), ended(np.ones(7))], gamma=0.99)
    first, second = labels.labelled[:1000], labels.labelled[1000:]
    assert first[:542].all()  # state 541 sees rewards 541 to 999: 459 of them
    assert not first[542:].any()
    assert second.all()
    assert np.isnan(labels.values[~labels.labelled]).all()


@pytest.mark.parametrize(("tolerance", "num_labelled"), [(0.5, 3), (0.25, 2), (0.1, 0)])
def test_drop_by_hand(tolerance, num_labelled):
    # gamma .5: half is missing after one reward, a quarter after two, a tenth after four.
    labels = discounted_returns([cut([1, 2, 3]), ended([1, 2])], gamma=0.5, tail=Drop(tolerance))
    assert labels.labelled.sum() == num_labelled + 2


def test_truncation_costs_a_tenth_of_a_steady_return():
    # Averaged over the states of a 1000-step episode at gamma .99: a perfect critic looks 11 % too optimistic.
    with pytest.warns(UserWarning, match="shrink towards the time limit"):
        labels = discounted_returns([cut(np.ones(1000)), cut(np.full(1000, 2.0))], gamma=0.99, tail=NoTail())
    steady = np.repeat([100.0, 200.0], 1000)
    assert 1 - labels.values.sum() / steady.sum() == pytest.approx(0.099, abs=0.0005)
    assert "clock" in labels.caveat


def test_extend_equals_the_episode_without_its_limit():
    rewards = np.random.default_rng(0).normal(size=300)
    whole = discounted_returns([ended(rewards)], gamma=0.9).values
    labels = discounted_returns([cut(rewards[:100], continuation=rewards[100:])], gamma=0.9, tail=Extend())
    assert labels.values == pytest.approx(whole[:100], rel=1e-12)


def test_extend_asks_for_what_the_last_state_needs():
    extra = Extend(0.25).extra_steps(0.5)
    assert extra == 1
    labels = discounted_returns([cut([1, 2, 4], continuation=np.array([8.0]))], gamma=0.5, tail=Extend(0.25))
    assert labels.values.tolist() == [4.0, 6.0, 8.0]


def test_extend_leaves_states_unlabelled_where_the_continuation_is_short():
    tail = Extend(0.1)  # four rewards at gamma .5
    labels = discounted_returns([cut([1, 2, 4], continuation=np.array([8.0]))], gamma=0.5, tail=tail)
    assert labels.labelled.tolist() == [True, False, False]
    continued = cut([1, 2, 4], continuation=np.array([8.0]), continuation_terminated=True)
    assert discounted_returns([continued], gamma=0.5, tail=tail).values.tolist() == [4.0, 6.0, 8.0]


def test_bootstrap_takes_the_final_value_and_says_so():
    labels = discounted_returns([cut([1, 2], final_value=8.0), ended([1, 2])], gamma=0.5, tail=Bootstrap())
    assert labels.values.tolist() == [4.0, 6.0, 2.0, 2.0]
    assert "estimator's own value" in labels.caveat
    assert discounted_returns([ended([1, 2])], gamma=0.5, tail=Bootstrap()).caveat == ""


def test_no_tail_takes_what_was_logged_and_warns_only_where_something_was_cut():
    assert discounted_returns([ended([1, 2])], gamma=0.5, tail=NoTail()).values.tolist() == [2.0, 2.0]
    with pytest.warns(UserWarning, match="NoTail"):
        labels = discounted_returns([cut([1, 2])], gamma=0.5, tail=NoTail())
    assert labels.values.tolist() == [2.0, 2.0]


def test_branches_are_discounted_along_their_last_axis():
    assert discounted_sums([[[1, 2, 4], [1, 0, 0]]], gamma=0.5).tolist() == [[3.0, 1.0]]


def test_soft_rewards_count_the_entropy_of_later_actions_only():
    assert soft_rewards([1, 1, 1], [0.5, 0.25, -0.5], gamma=0.5).tolist() == [1.125, 0.75, 1.0]


def test_a_soft_return_is_the_plain_return_of_soft_rewards():
    rewards, bonuses = np.random.default_rng(0).normal(size=(2, 50))
    soft = discounted_returns([ended(soft_rewards(rewards, bonuses, 0.9))], gamma=0.9).values[0]
    assert soft == pytest.approx(discounted_sums(rewards, 0.9) + discounted_sums(bonuses, 0.9) - bonuses[0])


def test_nan_is_named_by_index():
    with pytest.raises(InputError, match=r"`rewards of episode 1` must be finite\. Received nan at index 2 \(1 of 3"):
        discounted_returns([ended([1, 2]), ended([1, 2, np.nan])], gamma=0.9)


def test_equal_rewards_are_refused_unless_episodes_end():
    with pytest.raises(InputError, match="must differ somewhere"):
        discounted_returns([cut(np.zeros(1000)), cut(np.zeros(900))], gamma=0.99)
    assert discounted_returns([ended(np.ones(2)), cut(np.ones(700))], gamma=0.99).labelled.sum() == 2 + 242


@pytest.mark.parametrize(
    ("episodes", "gamma", "tail", "message"),
    [
        ([], 0.9, None, "at least one episode"),
        ([ended([])], 0.9, None, "must not be empty"),
        ([ended([[1.0]])], 0.9, None, "1 axes"),
        ([ended([1])], 1.5, None, "`gamma`"),
        ([cut([1, 2])], 1.0, None, "below 1"),
        ([cut(np.arange(200.0))], 0.99, None, "roll on past the time limit"),
        ([cut([1, 2])], 0.9, Bootstrap(), "`final_value`"),
        ([cut([1, 2], continuation=np.array([np.nan]))], 0.9, Extend(), "`continuation`.*index 0"),
    ],
)
def test_bad_input_is_refused(episodes, gamma, tail, message):
    with pytest.raises(InputError, match=message):
        discounted_returns(episodes, gamma, tail)


@pytest.mark.parametrize("rule", [Drop, Extend])
@pytest.mark.parametrize("tolerance", [0.0, 1.0, -0.1])
def test_a_tolerance_is_a_share(rule, tolerance):
    with pytest.raises(InputError, match="tolerance"):
        rule(tolerance)


def test_bonuses_must_match_the_rewards():
    with pytest.raises(InputError, match="entropy_bonuses"):
        soft_rewards([1, 2], [1], gamma=0.9)
