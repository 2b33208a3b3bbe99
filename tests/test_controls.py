"""What the control rules do to an action: numbers worked out by hand, then identities."""

import numpy as np
import pytest
from gymnasium import spaces
from steered import FunctionCritic, network_critic, same_bits, steer

from offline_eval.wrappers import (
    L2,
    OPEX,
    BestOfN,
    MultiplyAction,
    Placebo,
    RandomDirection,
)
from offline_eval.wrappers.host import Steering, noise_generator

SQUARE_BOX = spaces.Box(-1.0, 1.0, (2,))


def test_random_direction_goes_as_far_as_it_is_told():
    # (3, 4) has length 5; half a unit of it is (0.3, 0.4).
    after, metrics = steer(RandomDirection(0.5), [[0.0]], [[0.0, 0.0]], [[3.0, 4.0]], SQUARE_BOX)
    np.testing.assert_allclose(after, [[0.3, 0.4]], rtol=1e-6)
    assert metrics["displacement"] == pytest.approx(0.5)
    assert "gradient_norm" not in metrics


def test_random_directions_are_uniform():
    steering = Steering(RandomDirection(0.5), None, SQUARE_BOX)
    noise = steering.draw_noise([noise_generator(seed) for seed in range(4000)])
    after, _ = steering(np.zeros((4000, 1)), np.zeros((4000, 2), dtype=np.float32), noise)
    angles = np.arctan2(after[:, 1], after[:, 0])
    counts, _ = np.histogram(angles, bins=8, range=(-np.pi, np.pi))
    # Chi-square with 7 degrees of freedom exceeds 24.3 once in a thousand times.
    assert np.square(counts - 500).sum() / 500 < 24.3


def test_random_direction_like_a_rule_slides_along_the_wall_until_it_has_gone_as_far():
    # OPEX goes 0.5 to the left. The drawn direction (0.6, 0.8) meets its wall at once after 0.1; the rest is upwards:
    # sqrt(0.5^2 - 0.1^2).
    model = OPEX(FunctionCritic(dim=2), 0.5, direction=L2())
    after, metrics = steer(RandomDirection(like=model), [[-3.0, 0.0]], [[0.9, 0.0]], [[0.6, 0.8]], SQUARE_BOX)
    np.testing.assert_allclose(after, [[1.0, np.sqrt(0.24)]], rtol=1e-5)
    assert metrics["displacement"] == pytest.approx(0.5)
    assert metrics["clipped"] == 0.5


def test_random_direction_like_a_rule_ends_in_the_corner_where_there_is_no_more_room():
    model = OPEX(FunctionCritic(dim=2), 1.0, direction=L2())
    after, _ = steer(RandomDirection(like=model), [[-3.0, -3.0]], [[0.9, 0.8]], [[0.6, 0.8]], SQUARE_BOX)
    np.testing.assert_array_equal(after, [[1.0, 1.0]])


def test_random_direction_like_a_rule_leaves_a_dimension_at_rest_where_it_is():
    model = OPEX(FunctionCritic(dim=2), 0.5, direction=L2())
    after, _ = steer(RandomDirection(like=model), [[-3.0, 0.0]], [[0.9, 0.2]], [[1.0, 0.0]], SQUARE_BOX)
    np.testing.assert_array_equal(after, np.array([[1.0, 0.2]], dtype=np.float32))


@pytest.mark.parametrize("action_dim", [1, 2, 6])
def test_random_direction_like_a_rule_repeats_its_realised_length_in_every_row(action_dim):
    critic = network_critic(action_dim)
    rng = np.random.default_rng(0)
    observations = rng.standard_normal((200, action_dim), dtype=np.float32)
    actions = rng.uniform(-1, 1, (200, action_dim)).astype(np.float32)
    actions[:50] = np.sign(actions[:50])  # many real agents sit in the corners
    model = OPEX(critic, 0.3, direction=L2())
    control = Steering(RandomDirection(like=model), None, critic.action_space)
    noise = control.draw_noise([noise_generator(seed) for seed in range(200)])
    _, of_model = Steering(model, None, critic.action_space)(observations, actions, None)
    after, of_control = control(observations, actions, noise)
    room = np.where(noise > 0, 1 - actions, 1 + actions)
    reachable = np.linalg.norm(room, axis=1)
    expected = np.minimum(of_model["displacement"], reachable)
    np.testing.assert_allclose(of_control["displacement"], expected, atol=2e-6)
    assert np.abs(after).max() <= 1.0
    assert (of_model["displacement"] < 0.29).any()  # otherwise the box was never in the way


def test_random_direction_like_best_of_n_draws_for_both():
    critic = FunctionCritic(dim=2)
    rule = RandomDirection(like=BestOfN(critic, 3))
    assert rule.noise_shape(2) == (2 + 2 * 2,)
    # Candidates (0.2, 0) and (0, 0.4); the second is nearer to the top, so the length is 0.4.
    after, _ = steer(rule, [[0.0, 0.5]], [[0.0, 0.0]], [[3.0, -4.0, 1.0, 0.0, 0.0, 2.0]], SQUARE_BOX)
    np.testing.assert_allclose(after, [[0.24, -0.32]], rtol=1e-6)


def test_multiply_action_in_a_symmetric_box_multiplies_what_the_environment_gets():
    after, metrics = steer(MultiplyAction(1.1), [[0.0]] * 2, [[1.0], [1.9]], None, spaces.Box(-2.0, 2.0, (1,)))
    np.testing.assert_allclose(after, [[1.1], [2.0]], rtol=1e-6)
    np.testing.assert_array_equal(metrics["clipped"], [0.0, 1.0])


def test_multiply_action_elsewhere_stretches_about_the_middle_of_the_box():
    # Box [0, 2]: 1.5 is 0.5 scaled, 0.55 after, so 1.55.
    after, _ = steer(MultiplyAction(1.1), [[0.0]], [[1.5]], None, spaces.Box(0.0, 2.0, (1,)))
    assert after == pytest.approx(1.55)


def test_an_unbounded_dimension_has_no_wall():
    box = spaces.Box(np.array([-np.inf, -1.0], dtype=np.float32), np.array([np.inf, 1.0], dtype=np.float32))
    after, metrics = steer(MultiplyAction(2.0), [[0.0]], [[3.0, 0.8]], None, box)
    np.testing.assert_array_equal(after, [[6.0, 1.0]])
    assert metrics["clipped"] == 0.5
    critic = FunctionCritic(dim=2, action_space=box)
    after, _ = steer(OPEX(critic, 1.0), [[5.0, 0.5]], [[3.0, 0.5]])
    np.testing.assert_array_equal(after, [[7.0, 0.5]])
    like = RandomDirection(like=OPEX(critic, 1.0))
    after, _ = steer(like, [[5.0, 0.5]], [[3.0, 0.5]], [[0.6, 0.8]], box)
    np.testing.assert_allclose(after, [[3.0 + np.sqrt(16 - 0.25), 1.0]], rtol=1e-6)


def test_the_placebo_is_a_millionth():
    after, metrics = steer(Placebo(), [[0.0]], [[0.1, 0.2]], [[3.0, 4.0]], SQUARE_BOX)
    assert metrics["displacement"] == pytest.approx(5e-6, rel=0.01)
    assert not np.array_equal(after, np.array([[0.1, 0.2]], dtype=np.float32))


@pytest.mark.parametrize(
    ("rule", "sizes"),
    [(RandomDirection, [0.1, 0.4]), (MultiplyAction, [1.0, 1.5]), (Placebo, [0.1, 0.4])],
)
def test_controls_take_a_vector_as_well(rule, sizes):
    observations, actions = np.zeros((2, 1)), np.full((2, 2), 0.1, dtype=np.float32)
    noise = [[1.0, 2.0], [3.0, -1.0]]
    together, _ = steer(rule(sizes), observations, actions, noise, SQUARE_BOX)
    for row, size in enumerate(sizes):
        alone, _ = steer(rule(size), observations, actions, noise, SQUARE_BOX)
        assert same_bits(together[row], alone[row])
