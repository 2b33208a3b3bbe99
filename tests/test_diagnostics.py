"""All diagnostics together, on a linear-quadratic task whose values, best actions and returns are known exactly."""

import ast
from pathlib import Path

import numpy as np
import pytest

import offline_eval.diagnostics
from offline_eval.diagnostics.policy_error import ActionPairs, policy_error
from offline_eval.diagnostics.q_bias import ValueSample, q_bias
from offline_eval.diagnostics.q_rank import action_rank, normal_bound, window_rank
from offline_eval.diagnostics.regret import CandidateTruth, CandidateValues, extraction_regret
from offline_eval.diagnostics.returns import Drop, EpisodeRewards, discounted_returns, discounted_sums

GAMMA, NOISE = 0.9, 0.1
DYNAMICS = np.array([[1.0, 0.1], [0.0, 0.95]])
CONTROL = np.array([[0.0], [0.3]])
NUM_EPISODES, NUM_STEPS = 40, 120


def value_of(gain):
    """P with value -(s' P s) - GAMMA / (1 - GAMMA) * NOISE^2 * trace(P), for the policy a = gain @ s."""
    closed = DYNAMICS + CONTROL @ gain
    cost = np.eye(2) + gain.T @ gain
    value = np.zeros((2, 2))
    for _ in range(2000):
        value = cost + GAMMA * closed.T @ value @ closed
    return value


def best_gain():
    gain = np.zeros((1, 2))
    for _ in range(200):
        value = value_of(gain)
        gain = -np.linalg.solve(np.eye(1) + GAMMA * CONTROL.T @ value @ CONTROL, GAMMA * CONTROL.T @ value @ DYNAMICS)
    return gain


GAIN = best_gain()
VALUE = value_of(GAIN)


def q_value(states, actions):
    """Exact values (...) of actions (..., 1) at states (..., 2), the best policy afterwards."""
    following = states @ DYNAMICS.T + actions @ CONTROL.T
    quadratic = np.einsum("...i,ij,...j->...", following, VALUE, following)
    constant = GAMMA * NOISE**2 * np.trace(VALUE) * (1 + GAMMA / (1 - GAMMA))
    return -np.square(states).sum(-1) - np.square(actions).sum(-1) - GAMMA * quadratic - constant


def roll_out(states, actions, noise):
    """States and rewards (num_steps, ...) when an action is taken and the best policy follows."""
    visited, rewards = [], []
    for step in noise:
        visited.append(states)
        rewards.append(-np.square(states).sum(-1) - np.square(actions).sum(-1))
        states = states @ DYNAMICS.T + actions @ CONTROL.T + NOISE * step
        actions = states @ GAIN.T
    return np.array(visited), np.array(rewards)


@pytest.fixture(scope="module")
def logged():
    """Episodes of the best policy: states and actions (num_labelled, ...), and their labels."""
    draw = np.random.default_rng(0)
    start = draw.normal(size=(NUM_EPISODES, 2))
    visited, rewards = roll_out(start, start @ GAIN.T, draw.normal(size=(NUM_STEPS, NUM_EPISODES, 2)))
    labels = discounted_returns([EpisodeRewards(row, False) for row in rewards.T], GAMMA, Drop())
    states = visited.transpose(1, 0, 2).reshape(-1, 2)
    return states, states @ GAIN.T, labels


@pytest.fixture(scope="module")
def restored():
    """Restored states, eight actions each, four rollouts an action with common random numbers."""
    draw = np.random.default_rng(1)
    states = draw.normal(size=(60, 2))
    actions = draw.uniform(-1.5, 1.5, size=(60, 8, 1))
    actions[:, 0] = states @ GAIN.T
    noise = np.repeat(draw.normal(size=(80, 60, 1, 4, 2)), 8, axis=2)
    spread = np.broadcast_to(states[:, None, None], (60, 8, 4, 2))
    rewards = roll_out(spread, np.repeat(actions[:, :, None], 4, axis=2), noise)[1]
    return states, actions, discounted_sums(np.moveaxis(rewards, 0, -1), GAMMA)


def with_error(values, size, seed=5):
    """Two critics, each off by `size` within-state spreads on its own."""
    noise = np.random.default_rng(seed).normal(size=(2, *values.shape))
    return values + size * values.std(axis=1).mean() * noise


def test_a_right_critic_has_no_bias_and_a_planted_one_is_found(logged):
    states, actions, labels = logged
    known = labels.labelled
    q = q_value(states, actions)[known]
    right = q_bias(ValueSample(q, labels.values[known], labels.episodes[known]), np.random.default_rng(0))
    wrong = q_bias(ValueSample(0.7 * q, labels.values[known], labels.episodes[known]), np.random.default_rng(0))
    assert 0.0 in right.normalised.ci95
    assert 0.3 in wrong.normalised.ci95  # of negative values 30 % less is an optimist
    assert 0.0 not in wrong.normalised.ci95


def test_a_right_critic_ranks_states_better_than_a_random_one(logged):
    states, actions, labels = logged
    draw = np.random.default_rng(0)
    right = window_rank(q_value(states, actions), labels.values, labels.episodes, draw)
    random = window_rank(draw.normal(size=len(states)), labels.values, labels.episodes, draw)
    assert right.tau.ci95.low > 0.2
    assert 0.0 in random.tau.ci95


def test_a_right_critic_ranks_actions_as_the_truth_does(restored):
    states, actions, truth = restored
    q = q_value(states[:, None], actions)
    draw = np.random.default_rng(0)
    right = action_rank(q, truth, np.arange(60), draw, bound=normal_bound)
    ruined = action_rank(with_error(q, 4.0)[0], truth, np.arange(60), draw)
    assert right.ceiling.value > 0.8  # common random numbers
    assert 1.0 in right.relative.ci95
    assert ruined.relative.ci95.high < 0.5


def regret_of(policy, restored, error):
    states, actions, truth = restored
    values = with_error(q_value(states[:, None], actions), error)
    column = {"best": 0, "weak": 1}[policy]
    others = np.delete(np.arange(8), column)
    candidates = CandidateValues(
        policy=values[:, :, column],
        candidates=values[:, :, others],
        episodes=np.arange(60),
        truth=CandidateTruth(truth[:, column], truth[:, others]),
    )
    return extraction_regret(candidates, np.random.default_rng(0))


def test_the_best_policy_has_no_regret_and_a_weak_one_has(restored):
    best, weak = (regret_of(policy, restored, error=0.0) for policy in ("best", "weak"))
    assert best.claimed.value == best.corrected.value == best.realised.value == 0.0
    assert best.attainable.value == pytest.approx(0.0, abs=0.01)
    assert weak.realised.ci95.low > 0.5
    assert weak.realised.value == pytest.approx(weak.claimed.value, rel=0.1)


def test_a_wrong_critic_claims_a_regret_that_the_truth_refutes(restored):
    regret = regret_of("best", restored, error=2.0)
    assert regret.claimed.ci95.low > 0.2
    assert regret.realised.ci95.high < 0.5 * regret.claimed.value


def test_the_best_policy_has_no_error_and_a_planted_one_is_found(logged):
    _, actions, labels = logged
    steps, episodes = labels.steps, labels.episodes
    same = ActionPairs(actions, actions, episodes, steps)
    noise = 0.2 * np.random.default_rng(0).normal(size=actions.shape)
    off = ActionPairs(actions + noise, actions, episodes, steps)
    error = policy_error(same, np.random.default_rng(0), oracle="closed form", evaluation=off)
    assert error.training.mse.value == 0.0
    assert 0.04 in error.evaluation.mse.ci95


def test_diagnostics_import_neither_torch_nor_what_rolls_out():
    allowed = {"types", "errors", "lazy", "stats", "datasets", "diagnostics"}
    folder = Path(offline_eval.diagnostics.__file__).parent
    imported = set()
    for file in folder.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module)
    ours = {name.split(".")[1] for name in imported if name.startswith("offline_eval.")}
    assert ours <= allowed
    assert {name.split(".")[0] for name in imported if not name.startswith("offline_eval")} <= {
        "__future__",
        "collections",
        "dataclasses",
        "itertools",
        "math",
        "numpy",
        "scipy",
        "typing",
        "warnings",
    }
