"""What OPEX and BestOfN do to an action: numbers worked out by hand on parabolas."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from steered import FunctionCritic, same_bits, steer

from offline_eval.spaces import ActionScale
from offline_eval.wrappers import (
    L2,
    OPEX,
    BestOfN,
    ExactGain,
    GaussianProposal,
    LinearGain,
    LowerBound,
    Mean,
    Min,
    Raw,
    Sign,
)
from offline_eval.wrappers.host import Steering


def test_opex_takes_the_step_of_the_paper_in_the_scaled_space():
    # Box +-2: the action 0.4 is 0.2 scaled. Gradient 2 * (0.5 - 0.2) = 0.6, so 0.2 + 0.1 * 0.6 = 0.26, or 0.52.
    after, metrics = steer(OPEX(FunctionCritic(bound=2.0), step_size=0.1), [[0.5]], [[0.4]])
    np.testing.assert_allclose(after, [[0.52]], rtol=1e-6)
    assert metrics["gradient_norm"] == pytest.approx(0.6)
    assert metrics["displacement"] == pytest.approx(0.06)
    assert metrics["predicted_gain"] == pytest.approx(0.6 * 0.06)
    assert metrics["clipped"] == 0.0
    assert metrics["non_finite"] == 0.0


def test_the_exact_gain_is_the_difference_of_two_values():
    # From -(0.3)^2 to -(0.24)^2.
    _, metrics = steer(OPEX(FunctionCritic(), 0.1, gain=ExactGain()), [[0.5]], [[0.2]])
    assert metrics["predicted_gain"] == pytest.approx(0.09 - 0.0576, rel=1e-4)


def test_only_the_exact_gain_sees_a_step_over_the_top():
    # Top at 0.1, a step of 0.5 from 0: the slope 0.2 promises 0.1, the value falls from -0.01 to -0.16.
    linear, exact = (
        steer(OPEX(FunctionCritic(), 0.5, direction=L2(), **gain), [[0.1]], [[0.0]])[1]["predicted_gain"]
        for gain in ({}, {"gain": ExactGain()})
    )
    assert linear == pytest.approx(0.1)
    assert exact == pytest.approx(-0.15)


def test_each_step_has_its_own_gradient():
    # 0.2 + 0.1 * 0.6 = 0.26; 0.26 + 0.1 * 0.48 = 0.308. The gain: -0.0576 + 0.09 exactly, then 0.48 * 0.048.
    after, metrics = steer(OPEX(FunctionCritic(), 0.1, num_steps=2), [[0.5]], [[0.2]])
    assert after == pytest.approx(0.308)
    assert metrics["predicted_gain"] == pytest.approx(0.0324 + 0.02304, rel=1e-4)
    assert metrics["gradient_norm"] == pytest.approx(0.6)


@pytest.mark.parametrize(("direction", "expected"), [(Raw(), [0.06, 0.08]), (L2(), [0.06, 0.08]), (Sign(), [0.1, 0.1])])
def test_directions(direction, expected):
    # Gradient (0.6, 0.8), of length 1.
    after, _ = steer(OPEX(FunctionCritic(dim=2), 0.1, direction=direction), [[0.3, 0.4]], [[0.0, 0.0]])
    np.testing.assert_allclose(after[0], expected, rtol=1e-6)


def test_l2_has_length_one_for_any_scale_of_the_critic_and_none_at_the_top():
    gradients = th.tensor([[3e6, 4e6], [3e-6, 4e-6], [0.0, 0.0], [3e-30, 4e-30]])
    expected = th.tensor([[0.6, 0.8], [0.6, 0.8], [0.0, 0.0], [0.0, 0.0]])
    th.testing.assert_close(L2()(gradients), expected)


def test_the_box_cuts_a_step_and_the_share_is_reported():
    # (0.95, 0) + 0.1 * (1, 0) leaves the box in one of two dimensions.
    after, metrics = steer(OPEX(FunctionCritic(dim=2), 0.1, direction=L2()), [[2.0, 0.0]], [[0.95, 0.0]])
    np.testing.assert_array_equal(after, np.array([[1.0, 0.0]], dtype=np.float32))
    assert metrics["clipped"] == 0.5
    assert metrics["displacement"] == pytest.approx(0.05, rel=1e-5)


def test_the_box_may_cut_any_of_several_steps():
    # 0.95 + 5 * 0.02 is cut to 1; 1 - 5 * 0.08 is not cut.
    after, metrics = steer(OPEX(FunctionCritic(), 5.0, num_steps=2), [[0.96]], [[0.95]])
    assert after == pytest.approx(0.6, rel=1e-5)
    assert metrics["clipped"] == 1.0


def test_an_action_never_leaves_the_box_by_rounding():
    # In float32 the way back from the scaled 1 ends above 0.7.
    box = spaces.Box(-1.0, 0.7, (1,))
    scale = ActionScale(box)
    assert scale.unscale(np.ones(1, dtype=np.float32)) > box.high
    after, _ = steer(OPEX(FunctionCritic(action_space=box), 1.0, direction=L2()), [[2.0]], [[0.5]])
    assert after == box.high


@pytest.mark.parametrize(("step_size", "num_steps"), [(0.5, 1), (1.0, 3), (0.2, 2)])
def test_max_distance_is_a_ball_around_the_policys_action(step_size, num_steps):
    rule = OPEX(FunctionCritic(dim=2), step_size, num_steps=num_steps, direction=L2(), max_distance=0.25)
    after, metrics = steer(rule, [[0.6, 0.8]], [[0.0, 0.0]])
    np.testing.assert_allclose(after, [[0.15, 0.2]], rtol=1e-5)
    assert metrics["displacement"] == pytest.approx(0.25)


def test_keep_best_never_ends_below_the_start():
    # Row 0: top at 0.1, a step of 0.5 goes far over it: stay. Row 1: top at 0.9: go.
    rule = OPEX(FunctionCritic(), 0.5, direction=L2(), keep_best=True)
    after, metrics = steer(rule, [[0.1], [0.9]], [[0.0], [0.0]])
    np.testing.assert_array_equal(after, np.array([[0.0], [0.5]], dtype=np.float32))
    np.testing.assert_allclose(metrics["predicted_gain"], [0.0, 0.81 - 0.16], rtol=1e-5)


def test_keep_best_ends_at_the_best_of_all_visited_actions():
    # From 0 to 0.15, past the top at 0.1, and back to 0: the middle one is best.
    rule = OPEX(FunctionCritic(), 0.15, num_steps=2, direction=L2(), keep_best=True)
    after, metrics = steer(rule, [[0.1]], [[0.0]])
    assert after == pytest.approx(0.15)
    assert metrics["predicted_gain"] == pytest.approx(0.01 - 0.0025, rel=1e-4)


@pytest.mark.parametrize(
    ("reduce", "expected"),
    [(Min(), 1.0), (Mean(), 2.0), (LowerBound(1.0), 1.0), (LowerBound(0.5), 1.5), (LowerBound(0.0), 2.0)],
)
def test_reductions_of_an_ensemble(reduce, expected):
    assert reduce(th.tensor([[1.0], [3.0]])) == pytest.approx(expected)


def test_the_lower_bound_has_a_slope_where_the_heads_agree():
    q = th.tensor([[1.0], [1.0]], requires_grad=True)
    (gradient,) = th.autograd.grad(LowerBound(2.0)(q).sum(), q)
    np.testing.assert_allclose(gradient, [[0.5], [0.5]])
    assert LowerBound(2.0)(th.tensor([[3.0]])) == 3.0


def test_the_minimum_is_what_is_climbed():
    def heads(observations, actions):  # slopes 1 and -3; the second head is lower
        return th.stack([actions[:, 0], -3.0 * actions[:, 0] - 10.0])

    assert steer(OPEX(FunctionCritic(heads), 0.1), [[0.0]], [[0.0]])[0] == pytest.approx(-0.3)
    assert steer(OPEX(FunctionCritic(heads), 0.1, reduce=Mean()), [[0.0]], [[0.0]])[0] == pytest.approx(-0.1)


def root(observations, actions):
    """Infinitely steep at the observation."""
    return (actions - observations).clamp_min(0.0).sqrt().sum(-1)[None]


@pytest.mark.parametrize("direction", [Raw(), L2(), Sign()])
@pytest.mark.parametrize("keep_best", [False, True])
def test_a_row_with_a_non_finite_gradient_keeps_its_action_and_is_counted(direction, keep_best):
    rule = OPEX(FunctionCritic(root), 0.1, num_steps=2, direction=direction, keep_best=keep_best)
    actions = np.array([[0.5], [0.5]], dtype=np.float32)
    after, metrics = steer(rule, [[0.5], [0.25]], actions)
    assert same_bits(after[0], actions[0])
    assert after[1] > actions[1]
    np.testing.assert_array_equal(metrics["non_finite"], [1.0, 0.0])
    assert metrics["predicted_gain"][0] == metrics["displacement"][0] == metrics["clipped"][0] == 0.0


@pytest.mark.parametrize("gain", [LinearGain(), ExactGain()])
def test_a_gradient_may_turn_infinite_on_the_way(gain):
    # From 0.4 a step of 0.1 leads to 0.5, where the second gradient is infinite.
    rule = OPEX(FunctionCritic(lambda o, a: root(o, a) + a.T), 0.1, num_steps=2, gain=gain)
    after, metrics = steer(rule, [[0.5]], [[0.4]])
    assert after == np.float32(0.4)
    assert metrics["non_finite"] == 1.0


@pytest.mark.parametrize("direction", [Raw(), L2(), Sign()])
def test_a_critic_is_never_asked_about_actions_that_are_no_numbers(direction):
    def strict(observations, actions):
        assert actions.isfinite().all()
        return root(observations, actions)

    for num_steps in (1, 3):
        steer(OPEX(FunctionCritic(strict), 0.1, num_steps, direction, keep_best=True), [[0.5]], [[0.5]])


def test_a_critic_that_becomes_nan_later_costs_its_rows_the_steering_only():
    steering = Steering(OPEX(FunctionCritic(), 0.1), None, spaces.Box(-1, 1, (1,)))
    actions = np.zeros((2, 1), dtype=np.float32)
    steering(np.array([[0.5], [0.5]], dtype=np.float32), actions, None)
    after, metrics = steering(np.array([[np.nan], [0.5]], dtype=np.float32), actions, None)
    np.testing.assert_allclose(after, [[0.0], [0.1]])
    np.testing.assert_array_equal(metrics["non_finite"], [1.0, 0.0])
    assert metrics["predicted_gain"][0] == 0.0


# Best of N by hand


def test_best_of_n_takes_the_candidate_nearest_to_the_top():
    # Candidates 0, 0.2, 0.5 and -0.2; the top is at 0.5: the value rises from -0.25 to 0.
    rule = BestOfN(FunctionCritic(), num_samples=4, proposal=GaussianProposal(0.2))
    after, metrics = steer(rule, [[0.5]], [[0.0]], noise=[[[1.0], [2.5], [-1.0]]])
    assert after == pytest.approx(0.5)
    assert metrics["predicted_gain"] == pytest.approx(0.25)
    assert metrics["displacement"] == pytest.approx(0.5)
    assert metrics["clipped"] == 0.0


def test_best_of_n_projects_candidates_into_the_box():
    after, metrics = steer(BestOfN(FunctionCritic(), 2), [[0.9]], [[0.0]], noise=[[[100.0]]])
    assert after == 1.0
    assert metrics["clipped"] == 1.0


def test_best_of_n_keeps_the_policys_action_when_it_is_best_or_ties():
    noise = [[[1.0], [-1.0]]]
    actions = np.array([[0.123]], dtype=np.float32)
    for critic in (
        FunctionCritic(lambda o, a: -(a - 0.123).square().sum(-1)[None]),
        FunctionCritic(lambda o, a: a.T * 0),
    ):
        after, metrics = steer(BestOfN(critic, 3), [[0.0]], actions, noise)
        assert same_bits(after, actions)
        assert metrics["predicted_gain"] == 0.0


def test_best_of_n_keeps_the_policys_action_where_a_candidate_has_no_value():
    rule = BestOfN(FunctionCritic(lambda o, a: a.clamp_max(0.5).T / (a < 0.8).T), 3)
    after, metrics = steer(rule, [[0.0]] * 2, [[0.1]] * 2, noise=[[[1.0], [100.0]], [[1.0], [-1.0]]])
    np.testing.assert_allclose(after, [[0.1], [0.3]], rtol=1e-6)
    np.testing.assert_array_equal(metrics["non_finite"], [1.0, 0.0])


def test_best_of_n_repeats_dictionaries_of_observations():
    critic = FunctionCritic(lambda o, a: -(a - o["top"]).square().sum(-1)[None])
    observations = {"top": np.array([[0.2], [-0.2]], dtype=np.float32)}
    steering = Steering(BestOfN(critic, 3), None, critic.action_space)
    noise = np.tile(np.array([[1.0], [-1.0]], dtype=np.float32), (2, 1, 1))
    after, _ = steering(observations, np.zeros((2, 1), dtype=np.float32), noise)
    np.testing.assert_allclose(after, [[0.2], [-0.2]], rtol=1e-6)
