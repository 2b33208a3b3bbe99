"""Planted faults: they are where they are said to be, cost what they are said to cost, and can be planted again."""

from __future__ import annotations

import numpy as np
import pytest
import torch as th

from offline_eval.errors import InputError
from offline_eval.problems import FAULTS, Fault, LinearQuadraticProblem, MazeProblem, plant
from offline_eval.problems.wrong import Clone, Outside, SmoothError, turned
from offline_eval.types import Critic, Predictor


@pytest.fixture(scope="module", params=["maze", "carts"])
def problem(request):
    return MazeProblem() if request.param == "maze" else LinearQuadraticProblem(1)


@pytest.fixture(scope="module")
def cases(problem):
    names = ("healthy", "healthy, broad", "value 2", "extraction 1", "generalisation 1", "critic wrong outside")
    return {name: plant(problem, name, seed=1, num_trajectories=100) for name in names}


def actions_at(case, states):
    return case.policy.predict(states)[0]


def states_of(case):
    return np.asarray(case.dataset.step_observations, dtype=np.float64)


def test_turning_a_quarter_to_the_left():
    assert turned(np.array([[1.0, 0.0], [0.0, 2.0]]), 90.0) == pytest.approx(np.array([[0.0, 1.0], [-2.0, 0.0]]))


def test_a_clone_of_two_ways_goes_the_mean_of_both():
    states = np.random.default_rng(0).normal(size=(2000, 2))
    actions = np.stack([np.ones(2000), np.where(np.arange(2000) % 2, 1.0, -1.0)], axis=1)
    clone = Clone(states, actions, num_bells=10, generator=np.random.default_rng(0))
    assert clone(np.zeros((1, 2))) == pytest.approx(np.array([[1.0, 0.0]]), abs=0.1)


def test_outside_begins_at_the_edge_of_the_data():
    states = np.random.default_rng(0).uniform(-1.0, 1.0, (3000, 2))
    outside = Outside(states, np.random.default_rng(0))
    assert outside(np.array([[0.0, 0.0], [9.0, 9.0]])).tolist() == [0.0, 1.0]
    assert (outside(states) > 0).mean() < 0.01


def test_the_error_of_a_critic_has_the_strength_asked_for(problem):
    states = np.asarray(problem.collect(50, 0.0, 0).step_observations, dtype=np.float64)
    single, double = (SmoothError.drawn(problem, states, s, np.random.default_rng(5)) for s in (1.0, 2.0))
    assert double.amplitude == pytest.approx(2 * single.amplitude)
    offsets, centre = np.array([[0.0, 0.0], [0.3, -0.2]]), problem.best_actions(states[:4])
    apart = np.stack([single(*(th.as_tensor(x, dtype=th.float32) for x in (states[:4], centre + o))) for o in offsets])
    assert single.around(states[:4], centre, offsets) == pytest.approx(apart.T, abs=1e-4)


def test_faults_are_what_they_say(cases):
    planted = {name: case.bottlenecks for name, case in cases.items()}
    assert planted == {
        "healthy": (),
        "healthy, broad": (),
        "value 2": ("value",),
        "extraction 1": ("extraction",),
        "generalisation 1": ("generalisation",),
        "critic wrong outside": (),
    }
    assert FAULTS["value + extraction"].bottlenecks == ("value", "extraction")
    for case in cases.values():
        assert isinstance(case.critic, Critic)
        assert isinstance(case.policy, Predictor)


def test_faults_cost_and_health_does_not(cases):
    assert abs(cases["healthy"].gap_share) < 0.06
    assert abs(cases["healthy, broad"].gap_share) < 0.06
    for name in ("value 2", "extraction 1", "generalisation 1"):
        assert cases[name].gap_share > 0.16


def test_a_healthy_policy_acts_nearly_as_the_best_one(cases):
    case = cases["healthy"]
    best = case.problem.best_actions(states_of(case)[:300])
    assert np.median(np.abs(actions_at(case, states_of(case)[:300]) - best)) < 0.2


def test_the_policy_of_a_wrong_critic_is_greedy_under_it(cases):
    """Its critic values its actions above the best ones; the truth does the other way round."""
    case = cases["value 2"]
    states = states_of(case)[:500]
    own, best = actions_at(case, states), case.problem.best_actions(states)

    def claimed(actions):
        tensors = (th.as_tensor(x, dtype=th.float32) for x in (states, actions))
        observations, given = tensors
        return case.critic.q(observations, case.critic.scale(given)).numpy().mean()

    assert claimed(own) > claimed(best)
    assert case.problem.q_of(states, own).mean() < case.problem.q_of(states, best).mean()


def test_generalisation_is_planted_outside_only(cases):
    sound, wrong = cases["healthy, broad"], cases["generalisation 1"]
    inside = states_of(wrong)
    same = np.isclose(actions_at(sound, inside), actions_at(wrong, inside)).all(axis=1)
    assert same.mean() > 0.97
    far = inside[:50] + 3.0 * inside.std(axis=0)
    assert not np.isclose(actions_at(sound, far), actions_at(wrong, far)).all(axis=1).any()


def test_a_critic_wrong_outside_is_right_inside(cases):
    case, reference = cases["critic wrong outside"], cases["value 2"]
    states = th.as_tensor(states_of(case)[:500], dtype=th.float32)
    actions = case.critic.scale(th.as_tensor(case.problem.best_actions(states.numpy()), dtype=th.float32))
    right = case.problem.q(states, case.critic.unscale(actions))
    error, large = ((c.critic.q(states, actions)[0] - right).abs().mean() for c in (case, reference))
    assert error < 0.2 * large


def test_planting_again_gives_the_same(problem, cases):
    again = plant(problem, "value 2", seed=1, num_trajectories=100)
    states = states_of(again)[:200]
    assert np.array_equal(actions_at(cases["value 2"], states), actions_at(again, states))
    assert again.dataset.fingerprint == cases["value 2"].dataset.fingerprint
    assert again.policy_return == cases["value 2"].policy_return


def test_the_environment_of_a_case_starts_where_its_agent_does(cases):
    assert cases["generalisation 1"].env.kwargs["breadth"] == 1.0
    assert cases["value 2"].env.kwargs["breadth"] == 0.0


@pytest.mark.parametrize("words", [{"value": -1.0}, {"extraction": 1.5}, {"generalisation": -0.1}, {"breadth": -1}])
def test_strengths_out_of_range_are_refused(words):
    with pytest.raises(InputError, match=next(iter(words))):
        Fault(**words)


def test_an_unknown_fault_is_refused(problem):
    with pytest.raises(InputError, match="value 2"):
        plant(problem, "vlue 2", seed=0)
