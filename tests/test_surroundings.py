"""Which states the data cover, where their edge is, and how bad decisions are beside those of the data."""

from __future__ import annotations

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from offline_eval.datasets.arrays import from_trajectories
from offline_eval.datasets.records import Trajectory
from offline_eval.diagnosis import DiagnosisPlan
from offline_eval.diagnosis.data_region import Surroundings, edge, regret_beside_data
from offline_eval.diagnostics.regret import CandidateValues
from offline_eval.errors import InputError

BOX = spaces.Box(-1.0, 1.0, (1,), np.float32)
PLAN = DiagnosisPlan(num_near=(4,))


def standing_at(place, action, num_trajectories=10, length=20):
    """Trajectories that stay about a place and do one thing."""
    generator = np.random.default_rng(0)
    parts = [
        Trajectory(
            observations=(place + 0.1 * generator.standard_normal((length + 1, 1))).astype(np.float32),
            actions=np.full((length, 1), action, np.float32),
            rewards=np.ones(length, np.float32),
            terminated=np.zeros(length, bool),
            truncated=np.arange(length) == length - 1,
            final_known=True,
        )
        for _ in range(num_trajectories)
    ]
    return from_trajectories(parts, observation_space=spaces.Box(-9.0, 9.0, (1,), np.float32), action_space=BOX)


def values(own, candidates):
    """Thirty states alike, rated by two critics, the second one higher by 1."""
    one = np.tile(np.asarray(candidates, float), (30, 1))
    mine = np.full(30, float(own))
    return CandidateValues(np.stack([mine, mine + 1.0]), np.stack([one, one + 1.0]), np.arange(30))


def test_regret_beside_that_of_the_data():
    # The best is 4. A random candidate loses 4 - 2 = 2, the policy 4 - 1 = 3.
    everywhere = np.ones(30, bool)
    assert regret_beside_data(values(1.0, [0.0, 2.0, 4.0]), everywhere) == pytest.approx(1.5)
    # The policy's own action counts among the best: it loses nothing, the data 5 - 2.
    assert regret_beside_data(values(5.0, [0.0, 2.0, 4.0]), everywhere) == 0.0


def test_regret_has_no_unit_and_no_scale():
    everywhere = np.ones(30, bool)
    first, scaled = values(1.0, [0.0, 2.0, 4.0]), values(17.0, [10.0, 24.0, 38.0])
    assert regret_beside_data(first, everywhere) == pytest.approx(regret_beside_data(scaled, everywhere))


def test_regret_of_few_states_or_of_equal_candidates_is_not_known():
    few = np.arange(30) < 19
    assert regret_beside_data(values(1.0, [0.0, 2.0, 4.0]), few) is None
    assert regret_beside_data(values(2.0, [2.0, 2.0]), np.ones(30, bool)) is None


def test_the_edge_is_the_outer_fifth_of_the_inside():
    distances = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 7.0, 8.0])
    assert edge(distances, 1.0).tolist() == [False, False, False, False, True, False, False]
    assert not edge(distances, 0.05).any()


def test_a_critics_own_data_offer_candidates_and_leave_the_region_alone():
    mine, wider = standing_at(0.0, -0.5), standing_at(3.0, 0.5)
    alone, both = Surroundings(mine, PLAN), Surroundings(mine, PLAN, wider)
    assert both.threshold == alone.threshold
    there = np.full((1, 1), 3.0, np.float32)
    assert both.distances(there) == alone.distances(there)
    assert both.distances(there)[0] > both.threshold
    asked = th.as_tensor(there)
    assert alone.neighbours.nearest(asked, 1)[1].item() == pytest.approx(-0.5)
    assert both.neighbours.nearest(asked, 1)[1].item() == pytest.approx(0.5)
    assert both.region(outside=True)(asked).item()


def test_too_little_data_of_the_critic_is_named():
    with pytest.raises(InputError, match="critic_dataset"):
        Surroundings(standing_at(0.0, 0.0), PLAN, standing_at(0.0, 0.0, num_trajectories=2, length=2))
