"""Rules within reach of the data, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from offline_eval.errors import InputError, SpaceError
from offline_eval.policies import critic_of
from offline_eval.wrappers.host import Steering
from offline_eval.wrappers.reach import BestNear, NearbyActions, Neighbours, RandomNear, Region, Where

SPACE = spaces.Box(-2.0, 2.0, (1,), np.float32)
SEEN = spaces.Box(-np.inf, np.inf, (1,), np.float32)


def line():
    """States 0, 1, 2, 3, 4 whose standard deviation is sqrt(2), and actions -2, -1, 0, 1, 2."""
    return Neighbours(np.arange(5.0)[:, None], np.arange(-2.0, 3.0)[:, None], SPACE)


def observed(*numbers):
    return th.tensor(numbers, dtype=th.float32)[:, None]


def critic(q):
    return critic_of(
        lambda observations, actions: q(observations, actions).expand(2, -1),
        action_space=SPACE,
        observation_space=SEEN,
        gamma=0.9,
        action_units="scaled",
    )


def test_distances_are_in_standard_deviations_and_actions_scaled():
    distances, actions = line().nearest(observed(1.2, 6.0), 2)
    assert distances.numpy() == pytest.approx(np.array([[0.2, 0.8], [2.0, 3.0]]) / np.sqrt(2.0), abs=1e-6)
    assert actions[..., 0].tolist() == [[-0.5, 0.0], [1.0, 0.5]]


def test_many_dimensions_are_searched_as_few_are():
    generator = np.random.default_rng(0)
    points, queries = generator.normal(size=(300, 9)), generator.normal(size=(40, 9))
    found, _ = Neighbours(points, np.zeros((300, 1)), SPACE).nearest(th.as_tensor(queries), 3)
    expected = np.linalg.norm((queries[:, None] - points) / points.std(axis=0), axis=2)
    assert found.numpy() == pytest.approx(np.sort(expected, axis=1)[:, :3], rel=1e-4)


def test_a_dimension_that_never_moves_counts_in_its_own_units():
    flat = Neighbours(np.array([[0.0, 7.0], [2.0, 7.0]]), np.zeros((2, 1)), SPACE)
    assert flat.distances(np.array([[0.0, 10.0]])).tolist() == [3.0]


def test_neighbours_move_to_a_critic():
    there = line().to(th.device("meta"))
    assert there.device.type == "meta"
    assert line().to(th.device("cpu")).distances(np.array([[1.0]])).tolist() == [0.0]


def test_random_near_takes_each_of_the_nearest():
    rule = RandomNear(line(), 2)
    noise = th.tensor([[-3.0], [3.0], [-0.01], [0.01]])
    chosen = rule(observed(0.2, 0.2, 0.2, 0.2), th.zeros(4, 1), noise).actions
    assert chosen[:, 0].tolist() == [-1.0, -0.5, -1.0, -0.5]


def test_best_near_takes_the_best_and_its_own_among_equals():
    proposal = NearbyActions(line(), num_near=2, num_offsets=2, std=0.3)
    likes = BestNear(critic(lambda o, a: a[:, 0]), proposal)
    own = th.tensor([[-0.2], [-0.9]])
    noise = th.tensor([[[1.0], [1.0]], [[0.0], [0.0]]])
    # At 1.2 the data took -.5 and 0 (scaled); offsets lead to .1 and -.1. At 0 they took -1 and -.5.
    steered = likes(observed(1.2, 0.0), own, noise)
    assert steered.actions[:, 0].tolist() == pytest.approx([0.1, -0.5])
    assert steered.metrics["predicted_gain"].tolist() == pytest.approx([0.3, 0.4])
    same = BestNear(critic(lambda o, a: 0.0 * a[:, 0]), proposal)
    assert th.equal(same(observed(1.2, 0.0), own, noise).actions, own)


def test_offsets_stay_in_the_box():
    rule = BestNear(critic(lambda o, a: a[:, 0]), NearbyActions(line(), 1, 1, 0.5))
    assert rule(observed(0.0), th.tensor([[0.9]]), th.tensor([[[3.0]]])).actions.item() == 1.0


def test_where_acts_in_its_region_alone():
    neighbours = line()
    region = Region(neighbours, threshold=0.5, outside=True)
    rule = Where(RandomNear(neighbours, 1), region)
    steering = Steering(rule, SEEN, SPACE)
    observations, actions = np.array([[1.1], [9.0]], np.float32), np.array([[0.123], [0.123]], np.float32)
    after, metrics = steering(observations, actions, np.zeros((2, 1), np.float32))
    assert after[0] == actions[0]  # to the bit
    assert after[1] == 2.0
    assert metrics["acted"].tolist() == [0.0, 1.0]
    inside = Where(RandomNear(neighbours, 1), Region(neighbours, 0.5))
    after, _ = Steering(inside, SEEN, SPACE)(observations, actions, np.zeros((2, 1), np.float32))
    assert after[:, 0].tolist() == [-1.0, np.float32(0.123)]


def test_refusals():
    with pytest.raises(InputError, match="at most the 5 states"):
        RandomNear(line(), 6)
    with pytest.raises(InputError, match="num_near"):
        NearbyActions(line(), 0)
    with pytest.raises(InputError, match="flat"):
        Neighbours({"a": np.zeros((2, 1))}, np.zeros((2, 1)), SPACE)
    with pytest.raises(SpaceError, match="flat"):
        RandomNear(line(), 1).check(spaces.Dict({"a": SEEN}), SPACE)
    with pytest.raises(SpaceError, match="Box of floats"):
        RandomNear(line(), 1).check(SEEN, spaces.Discrete(3))
