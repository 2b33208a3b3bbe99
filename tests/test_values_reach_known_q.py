"""Every value rule reaches a Q that is known in closed form, or by exact iteration."""

from __future__ import annotations

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from offline_eval.datasets.arrays import from_trajectories
from offline_eval.policies.algorithm import OfflineAlgorithm
from offline_eval.policies.extraction import BCExtraction, DDPGBCExtraction, Extraction, Unscaled
from offline_eval.policies.recipes import Recipe
from offline_eval.policies.transforms import ReturnRange, Standardize
from offline_eval.policies.values import ActorCritic, FittedQ, Implicit, OneStep

GAMMA = 0.7
BOX = spaces.Box(-1.0, 1.0, (1,), np.float32)
IDS = {"ids": lambda value: type(value).__name__}


class Linear:
    """The policy a = -gain * s, as anything with `predict`."""

    def __init__(self, gain):
        self.gain = gain

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return -self.gain * observation[:, :1], None


class Always:
    """The policy that knows one action."""

    def __init__(self, action):
        self.action = action

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.full((len(observation), 1), self.action, np.float32), None


def algorithm(recipe):
    return OfflineAlgorithm(
        recipe,
        learning_rate=lambda remaining: 3e-3 * remaining,
        tau=0.1,
        gamma=GAMMA,
        policy_kwargs={"net_arch": [64, 64]},
        seed=0,
        device="cpu",
    )


def q_of(model, observations, actions):
    """(n_critics, rows), in the units of raw returns."""
    with th.no_grad():
        rows = th.as_tensor(observations, dtype=th.float32), th.as_tensor(actions, dtype=th.float32)
        return th.cat(model.critic(*rows), dim=1).T.numpy()


def relative_error(estimate, truth):
    """Root mean square error in units of what there is to know: the spread of the true values."""
    return np.sqrt(np.mean((estimate - truth) ** 2)) / np.std(truth)


def trajectory(observations, actions, rewards, end):
    last = np.arange(1, len(rewards) + 1) == len(rewards)
    return {
        "observations": np.array(observations, np.float32),
        "actions": np.array(actions, np.float32).reshape(-1, 1),
        "rewards": np.array(rewards, np.float32),
        "terminated": last & (end == "terminated"),
        "truncated": last & (end == "truncated"),
    }


# ------------------------------------------------------------------------------- a linear-quadratic environment
# s' = A s + B a, r = -(s^2 + C a^2); the data policy is a = -K s + uniform noise of half width W, inside the box.
A, B, C, K, W = 0.9, 0.4, 0.5, 0.4, 0.55


@pytest.fixture(scope="module")
def linear_quadratic():
    rng = np.random.default_rng(0)
    collected = []
    for _ in range(1500):
        s, observations, actions, rewards = rng.uniform(-1, 1), [], [], []
        for _ in range(3):
            a = -K * s + rng.uniform(-W, W)
            observations.append([s])
            actions.append(a)
            rewards.append(-(s**2 + C * a**2))
            s = A * s + B * a
        collected.append(trajectory([*observations, [s]], actions, rewards, "truncated"))
    return from_trajectories(collected, action_space=BOX)


def linear_q(s, a, gain, noise_variance):
    """Q of a = -gain * s + noise: V(s) = -p s^2 - c with p = 1 + C gain^2 + gamma p (A - B gain)^2."""
    p = (1 + C * gain**2) / (1 - GAMMA * (A - B * gain) ** 2)
    c = noise_variance * (C + GAMMA * p * B**2) / (1 - GAMMA)
    return -(s**2 + C * a**2) - GAMMA * (p * (A * s + B * a) ** 2 + c)


def linear_quadratic_error(model, dataset, gain, noise_variance):
    rows = dataset.transitions()
    truth = linear_q(rows.observations[:, 0], rows.actions[:, 0], gain, noise_variance)
    return max(relative_error(q, truth) for q in q_of(model, rows.observations, rows.actions))


def test_the_formula_is_what_playing_gives():
    # Two thousand steps of the noiseless policy from s = 0.6 after a = 0.2.
    s, a, total, gain = 0.6, 0.2, 0.0, 0.7
    for step in range(2000):
        total += GAMMA**step * -(s**2 + C * a**2)
        s = A * s + B * a
        a = -gain * s
    assert linear_q(0.6, 0.2, gain, 0.0) == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("rule", [OneStep(), Implicit(0.5)], **IDS)
def test_the_data_policy_s_value(linear_quadratic, rule):
    # IQL at expectile 0.5 has SARSA's fixed point.
    model = algorithm(Recipe(rule, None)).fit(linear_quadratic, 1500)
    assert linear_quadratic_error(model, linear_quadratic, K, W**2 / 3) < 0.05


def test_the_value_of_a_given_policy(linear_quadratic):
    model = algorithm(Recipe(FittedQ(Linear(0.7)), None)).fit(linear_quadratic, 2000)
    assert linear_quadratic_error(model, linear_quadratic, 0.7, 0.0) < 0.05
    # The data policy's own value is another one: this test would not pass for SARSA.
    assert linear_quadratic_error(model, linear_quadratic, K, W**2 / 3) > 0.2


def test_the_value_of_the_policy_that_is_learned(linear_quadratic):
    # The clone of the data policy is a = -K s, without its noise.
    model = algorithm(Recipe(ActorCritic(0.0, 0.0), BCExtraction())).fit(linear_quadratic, 1500)
    assert linear_quadratic_error(model, linear_quadratic, K, 0.0) < 0.05


def test_transforming_data_leaves_the_value_in_raw_units(linear_quadratic):
    recipe = Recipe(ActorCritic(0.0, 0.0), BCExtraction(), observations=Standardize(), rewards=ReturnRange(30.0))
    model = algorithm(recipe).fit(linear_quadratic, 1500)
    assert linear_quadratic_error(model, linear_quadratic, K, 0.0) < 0.05


def test_following_q_finds_the_optimal_policy(linear_quadratic):
    p = 1.0
    for _ in range(200):  # Riccati
        gain = GAMMA * p * A * B / (C + GAMMA * p * B**2)
        p = 1 + C * gain**2 + GAMMA * p * (A - B * gain) ** 2
    model = algorithm(Recipe(ActorCritic(0.0, 0.0), DDPGBCExtraction(0.0, Unscaled()))).fit(linear_quadratic, 2500)
    states = np.linspace(-0.9, 0.9, 19, dtype=np.float32)[:, None]
    actions, _ = model.predict(states, deterministic=True)
    assert relative_error(actions, -gain * states) < 0.1
    assert linear_quadratic_error(model, linear_quadratic, gain, 0.0) < 0.05


# ------------------------------------------------------------------------------------------------ a tabular chain
# Five states in a row. The data policy goes left or right (actions -0.8 and 0.8) with equal chance; a step costs 0.1,
# and the step to the right from the last state ends the episode with reward 1. Left of the first state is itself.
LENGTH = 5
LEFT, RIGHT = -0.8, 0.8


@pytest.fixture(scope="module")
def chain():
    rng = np.random.default_rng(0)
    collected = []
    for _ in range(250):
        at, observations, actions, rewards, end = int(rng.integers(LENGTH)), [], [], [], "truncated"
        for _ in range(12):
            goes_right = rng.random() < 0.5
            observations.append(np.eye(LENGTH)[at])
            actions.append(RIGHT if goes_right else LEFT)
            if goes_right and at == LENGTH - 1:
                rewards.append(1.0)
                end = "terminated"
                break
            rewards.append(-0.1)
            at = min(at + 1, LENGTH - 1) if goes_right else max(at - 1, 0)
        collected.append(trajectory([*observations, np.eye(LENGTH)[at]], actions, rewards, end))
    return from_trajectories(collected, action_space=BOX)


def chain_q(value_of):
    """The fixed point of Q(s, a) = r + gamma * value_of(Q(s', .)), (LENGTH, 2), left first."""
    q = np.zeros((LENGTH, 2))
    for _ in range(500):
        v = value_of(q)
        left = -0.1 + GAMMA * v[np.maximum(np.arange(LENGTH) - 1, 0)]
        right = np.append(-0.1 + GAMMA * v[1:], 1.0)
        q = np.stack([left, right], axis=1)
    return q


def expectile_of_two(q, expectile):
    """The expectile of two equally likely numbers: where expectile * (high - v) = (1 - expectile) * (v - low)."""
    return (1 - expectile) * q.min(1) + expectile * q.max(1)


class GoRight(Extraction):
    """A policy that learns to go right everywhere."""

    needs_value = False

    def loss(self, step):
        return (step.pi.mode - RIGHT).square().mean(), {}


@pytest.mark.parametrize(
    ("rule", "extraction", "value_of"),
    [
        (OneStep(), None, lambda q: q.mean(1)),
        (Implicit(0.5), None, lambda q: q.mean(1)),
        (Implicit(0.9), None, lambda q: expectile_of_two(q, 0.9)),
        (FittedQ(Always(RIGHT)), None, lambda q: q[:, 1]),
        (ActorCritic(0.0, 0.0), GoRight(), lambda q: q[:, 1]),
    ],
    ids=["OneStep", "Implicit-0.5", "Implicit-0.9", "FittedQ", "ActorCritic"],
)
def test_the_chain_s_value(chain, rule, extraction, value_of):
    model = algorithm(Recipe(rule, extraction)).fit(chain, 1200)
    states, actions = np.repeat(np.eye(LENGTH), 2, axis=0), np.tile([[LEFT], [RIGHT]], (LENGTH, 1))
    truth = chain_q(value_of).ravel()
    for q in q_of(model, states, actions):
        assert relative_error(q, truth) < 0.05


# ------------------------------------------------------------------------------------------------ how episodes end
# From the first state every step leads to the second and ends the trajectory; the second repeats with reward 2.
FIRST, SECOND = [1.0, 0.0], [0.0, 1.0]
REPEATED = 2.0 / (1.0 - GAMMA)


@pytest.mark.parametrize("rule", [Implicit(0.7), FittedQ(Always(0.0)), ActorCritic(0.0, 0.0)], **IDS)
def test_terminated_and_truncated_differ_by_gamma_v(rule):
    values = {}
    for end in ("terminated", "truncated"):
        ending = [trajectory([FIRST, SECOND], [0.0], [1.0], end)] * 100
        repeating = [trajectory([SECOND] * 5, [0.0] * 4, [2.0] * 4, "truncated")] * 50
        data = from_trajectories([*ending, *repeating], action_space=BOX)
        model = algorithm(Recipe(rule, BCExtraction())).fit(data, 700)
        values[end], repeated = q_of(model, [FIRST, SECOND], [[0.0], [0.0]]).mean(0)
        assert repeated == pytest.approx(REPEATED, rel=0.02)
    assert values["terminated"] == pytest.approx(1.0, abs=0.1)
    assert values["truncated"] - values["terminated"] == pytest.approx(GAMMA * REPEATED, rel=0.02)
