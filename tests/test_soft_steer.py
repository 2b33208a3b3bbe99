"""Steering discrete actions: numbers by hand, the same on all hosts, controls, refusals."""

import math
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.vec_env import DummyVecEnv
from steered import FunctionCritic

from offline_eval.episodes import EpisodePlan, evaluate
from offline_eval.errors import InputError, SpaceError
from offline_eval.policies import Normalized, Statistics, critic_of
from offline_eval.policies.normalization import Moments
from offline_eval.provenance import recipe
from offline_eval.types import Rule
from offline_eval.wrappers import (
    OPEX,
    Drawn,
    MultiplyAction,
    OneHot,
    PolicyPrior,
    RandomAction,
    ShuffledSoftSteer,
    SoftSteer,
    SteerAction,
    SteeredPolicy,
)
from offline_eval.wrappers.host import Steering, noise_generator
from offline_eval.wrappers.sb3 import SteerAction as SteerVecEnv
from offline_eval.wrappers.vector import SteerAction as SteerVectorEnv

THREE = spaces.Discrete(3)
VALUES = [0.0, 1.0, 3.0]


def table_critic(num_actions=3, scale=1.0):
    """The value of action i is the i-th number of the observation."""
    critic = FunctionCritic(
        lambda o, a: scale * o.gather(1, a[:, None])[None, :, 0],
        dim=num_actions,
        action_space=spaces.Discrete(num_actions),
    )
    return critic


def prior(*probabilities):
    return lambda observations, chosen, num_actions: th.tensor(probabilities).log().expand(len(chosen), -1)


def soft(rule, values, chosen, noise=None):
    steering = Steering(rule, None, spaces.Discrete(len(values[0])))
    return steering(np.array(values, dtype=np.float32), np.array(chosen), noise)


# Numbers


@pytest.mark.parametrize(("temperature", "expected"), [(2.0, 2), (5.0, 0), (1e-3, 2), (1e6, 0)])
def test_the_sum_of_log_probability_and_value_decides(temperature, expected):
    # At 2: log .5 = -.693, log .3 + .5 = -.704, log .2 + 1.5 = -.109. At 5: -.693, -1.004, -1.009.
    rule = SoftSteer(table_critic(), temperature, prior=prior(0.5, 0.3, 0.2))
    after, metrics = soft(rule, [VALUES], [0])
    assert after.tolist() == [expected]
    assert after.dtype == np.int64
    assert metrics["displacement"] == (expected != 0)
    assert metrics["predicted_gain"] == VALUES[expected]
    assert metrics["clipped"] == metrics["non_finite"] == 0.0


@pytest.mark.parametrize(("value", "expected"), [(2.0, 1), (2.16, 0)])
def test_a_one_hot_prior_asks_for_a_margin(value, expected):
    # With three actions and epsilon .2 another one must promise log(2 * .8 / .2) = 2.079 temperatures more.
    rule = SoftSteer(table_critic(), 1.0, prior=OneHot(0.2))
    assert soft(rule, [[value + 5.0, 5.0, 0.0]], [1])[0].tolist() == [expected]
    shares = OneHot(0.2)(th.zeros(2, 1), th.tensor([1, 0]), 3).exp()
    th.testing.assert_close(shares, th.tensor([[0.1, 0.8, 0.1], [0.8, 0.1, 0.1]]))


def test_draws_follow_the_softmax():
    rule = SoftSteer(table_critic(), 2.0, prior=prior(0.5, 0.3, 0.2), choose=Drawn())
    noise = np.random.default_rng(0).standard_normal((20_000, 3), dtype=np.float32)
    after, _ = soft(rule, [VALUES] * 20_000, [0] * 20_000, noise)
    weights = np.array([0.5, 0.3, 0.2]) * np.exp(np.array(VALUES) / 2.0)
    np.testing.assert_allclose(np.bincount(after) / 20_000, weights / weights.sum(), atol=0.01)


def test_an_action_without_probability_is_never_drawn():
    rule = SoftSteer(table_critic(), 1e-3, prior=prior(0.5, 0.5, 0.0), choose=Drawn())
    noise = np.random.default_rng(0).standard_normal((500, 3), dtype=np.float32)
    assert set(soft(rule, [VALUES] * 500, [0] * 500, noise)[0].tolist()) == {1}


def test_a_row_can_have_its_own_temperature():
    rule = SoftSteer(table_critic(), [2.0, 5.0], prior=prior(0.5, 0.3, 0.2))
    assert soft(rule, [VALUES] * 2, [0, 0])[0].tolist() == [2, 0]


def test_a_row_without_a_value_keeps_the_policys_action():
    rule = SoftSteer(table_critic(), 0.1, prior=prior(0.5, 0.3, 0.2))
    steering = Steering(rule, None, THREE)
    steering(np.array([VALUES], dtype=np.float32), np.array([0]), None)
    after, metrics = steering(np.array([[0.0, np.nan, 9.0], VALUES], dtype=np.float32), np.array([1, 1]), None)
    assert after.tolist() == [1, 2]
    np.testing.assert_array_equal(metrics["non_finite"], [1.0, 0.0])
    assert metrics["predicted_gain"][0] == 0.0


def test_several_critics_count_by_the_reduction():
    critic = FunctionCritic(
        lambda o, a: th.stack([o.gather(1, a[:, None])[:, 0], -1.0 * a]), dim=3, action_space=spaces.Discrete(3)
    )
    # The smaller of (0, 1, 3) and (0, -1, -2) is (0, -1, -2).
    assert soft(SoftSteer(critic, 0.1, prior=prior(0.2, 0.4, 0.4)), [VALUES], [2])[0].tolist() == [0]


# Controls


def test_shuffled_values_favour_every_action_alike():
    rule = ShuffledSoftSteer(SoftSteer(table_critic(), 1e-3, prior=prior(0.5, 0.3, 0.2)))
    steering = Steering(rule, None, THREE)
    noise = steering.draw_noise([noise_generator(seed) for seed in range(3000)])
    after, metrics = steering(np.tile(np.float32(VALUES), (3000, 1)), np.zeros(3000, dtype=np.int64), noise)
    np.testing.assert_allclose(np.bincount(after) / 3000, 1 / 3, atol=0.03)
    np.testing.assert_array_equal(metrics["predicted_gain"], np.array(VALUES)[after])  # by the true values


def test_shuffling_equal_values_changes_nothing():
    plain = SoftSteer(table_critic(), 1.0, prior=prior(0.2, 0.5, 0.3), choose=Drawn())
    noise = np.random.default_rng(0).standard_normal((50, 3), dtype=np.float32)
    both = np.concatenate([np.random.default_rng(1).standard_normal((50, 3), dtype=np.float32), noise], axis=1)
    values = [[2.0, 2.0, 2.0]] * 50
    after, _ = soft(plain, values, [0] * 50, noise)
    control, _ = soft(ShuffledSoftSteer(plain), values, [0] * 50, both)
    np.testing.assert_array_equal(after, control)


@pytest.mark.parametrize(("probability", "shares"), [(0.0, [0, 0, 1]), (1.0, [1 / 3] * 3), (0.3, [0.1, 0.1, 0.8])])
def test_random_actions_come_as_often_as_asked(probability, shares):
    steering = Steering(RandomAction(probability, THREE), None, THREE)
    noise = steering.draw_noise([noise_generator(seed) for seed in range(3000)])
    after, metrics = steering(np.zeros((3000, 3), dtype=np.float32), np.full(3000, 2), noise)
    np.testing.assert_allclose(np.bincount(after, minlength=3) / 3000, shares, atol=0.03)
    np.testing.assert_array_equal(metrics["displacement"], after != 2)


# Hosts

NUM_ENVS, STEPS, SEED = 3, 25, 11
CARTS = [partial(gym.make, "CartPole-v1", max_episode_steps=length) for length in (7, 5, 9)]


def cart_critic():
    """Worth of pushing towards where the pole falls, and a little noise of the observation."""
    return FunctionCritic(
        lambda o, a: ((2.0 * a - 1.0) * (o[:, 2] + 0.3 * o[:, 3]) * 10.0)[None],
        dim=4,
        action_space=spaces.Discrete(2),
    )


class Right:
    """A policy that always pushes right."""

    observation_space, action_space = spaces.Box(-np.inf, np.inf, (4,)), spaces.Discrete(2)

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.ones(np.shape(observation)[:-1], dtype=np.int64), None


def scalar_actions(rule, row):
    env = SteerAction(CARTS[row](), rule)
    env.reset(seed=SEED + row)
    executed = []
    for _ in range(STEPS):
        *_, terminated, truncated, info = env.step(np.int64(1))
        executed.append(int(info["steering/executed_action"]))
        if terminated or truncated:
            env.reset()
    return executed


def vector_actions(rule):
    env = SteerVectorEnv(SyncVectorEnv(CARTS, autoreset_mode=AutoresetMode.SAME_STEP), rule)
    env.reset(seed=SEED)
    return np.array(
        [env.step(np.ones(NUM_ENVS, dtype=np.int64))[4]["steering/executed_action"] for _ in range(STEPS)]
    ).T


def vec_env_actions(rule):
    env = SteerVecEnv(DummyVecEnv(CARTS), rule)
    env.seed(SEED)
    env.reset()
    rows = [[info["steering/executed_action"] for info in env.step(np.ones(NUM_ENVS, int))[3]] for _ in range(STEPS)]
    return np.array(rows).T


def policy_actions(rule):
    env = DummyVecEnv(CARTS)
    env.seed(SEED)
    policy = SteeredPolicy(Right(), rule, seed=SEED)
    observations, starts, executed = env.reset(), np.ones(NUM_ENVS, dtype=bool), []
    for _ in range(STEPS):
        actions, _ = policy.predict(observations, episode_start=starts)
        executed.append(actions)
        observations, _, starts, _ = env.step(actions)
    return np.array(executed).T


@pytest.mark.parametrize("choose", [None, Drawn()])
@pytest.mark.parametrize("shuffled", [False, True])
def test_the_hosts_agree_step_by_step(choose, shuffled):
    rule = SoftSteer(cart_critic(), 1.0, prior=OneHot(0.1), **({} if choose is None else {"choose": choose}))
    rule = ShuffledSoftSteer(rule) if shuffled else rule
    scalar = np.array([scalar_actions(rule, row) for row in range(NUM_ENVS)])
    assert 0 < scalar.mean() < 1
    for host in (vector_actions, vec_env_actions, policy_actions):
        np.testing.assert_array_equal(scalar, host(rule))


@pytest.fixture(scope="module")
def agents():
    ppo = PPO("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [8]}, seed=0, device="cpu")
    dqn = DQN("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": [8]}, seed=0, device="cpu", buffer_size=10)
    return ppo, dqn


PLAN = EpisodePlan.seeded(4, 3)


def test_a_host_that_knows_the_policy_takes_its_distribution(agents):
    ppo, dqn = agents
    critic = critic_of(dqn)
    left_out = evaluate(ppo, "CartPole-v1", PLAN, rule=SoftSteer(critic, 0.05))
    given = evaluate(ppo, "CartPole-v1", PLAN, rule=SoftSteer(critic, 0.05, prior=PolicyPrior(ppo)))
    alone = evaluate(SteeredPolicy(ppo, SoftSteer(critic, 0.05)), "CartPole-v1", PLAN)
    plain = evaluate(ppo, "CartPole-v1", PLAN)
    np.testing.assert_array_equal(left_out.returns, given.returns)
    np.testing.assert_array_equal(left_out.returns, alone.returns)
    assert 0 < left_out.steering["displacement"] < 1
    assert not np.array_equal(left_out.returns, plain.returns)
    assert left_out.recipe["prior"] is None


def test_a_high_temperature_is_the_policy_and_a_low_one_the_greedy_critic(agents):
    ppo, dqn = agents
    critic = critic_of(dqn)
    for temperature, same in ((1e9, ppo), (1e-6, dqn)):
        steered = evaluate(ppo, "CartPole-v1", PLAN, rule=SoftSteer(critic, temperature))
        np.testing.assert_array_equal(steered.returns, evaluate(same, "CartPole-v1", PLAN).returns)


def test_quantiles_and_functions_are_critics_too(agents):
    from sb3_contrib import QRDQN

    qrdqn = QRDQN(
        "MlpPolicy",
        "CartPole-v1",
        policy_kwargs={"net_arch": [8], "n_quantiles": 5},
        seed=0,
        device="cpu",
        buffer_size=10,
    )
    observations = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)
    greedy, _ = SteeredPolicy(agents[0], SoftSteer(critic_of(qrdqn), 1e-6)).predict(observations)
    np.testing.assert_array_equal(greedy, qrdqn.predict(observations, deterministic=True)[0])

    def values(observations, actions):  # pushing towards where the pole falls
        return (2.0 * actions - 1.0) * observations[:, 2]

    critic = critic_of(values, action_space=spaces.Discrete(2), observation_space=qrdqn.observation_space, gamma=0.99)
    chosen, _ = SteeredPolicy(agents[0], SoftSteer(critic, 1e-6)).predict(observations)
    np.testing.assert_array_equal(chosen, observations[:, 2] > 0)


def test_the_table_does_not_depend_on_how_many_environments_run(agents):
    ppo, dqn = agents
    rule = SoftSteer(critic_of(dqn), 0.05, choose=Drawn())
    tables = [evaluate(ppo, "CartPole-v1", PLAN, rule=rule, n_envs=n).episodes for n in (1, 4)]
    assert tables[0] == tables[1]


def test_a_normalised_policy_is_asked_about_normalised_observations(agents):
    ppo, _ = agents
    statistics = Statistics(Moments(np.full(4, 0.5), np.full(4, 4.0)), None)
    normalized = Normalized(ppo, statistics)
    observations = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    asked = PolicyPrior(normalized)(th.as_tensor(observations), th.zeros(6, dtype=th.int64), 2)
    expected = PolicyPrior(ppo)(
        th.as_tensor(statistics.normalize(observations), dtype=th.float32), th.zeros(6, dtype=th.int64), 2
    )
    th.testing.assert_close(asked, expected)
    th.testing.assert_close(asked.exp().sum(dim=1), th.ones(6))


def test_a_single_observation_gives_a_single_action(agents):
    ppo, dqn = agents
    policy = SteeredPolicy(ppo, SoftSteer(critic_of(dqn), 0.05))
    action, _ = policy.predict(np.zeros(4, dtype=np.float32))
    assert np.shape(action) == ()
    assert policy.action_space.contains(int(action))


# Refusals


def test_a_host_around_an_environment_asks_for_a_prior():
    rule = SoftSteer(cart_critic(), 1.0)
    with pytest.raises(InputError, match=r"`prior` must be given where only the policy's action is known.*OneHot"):
        SteerAction(CARTS[0](), rule)
    with pytest.raises(InputError, match="`prior`"):
        SteerVectorEnv(SyncVectorEnv(CARTS), rule)
    with pytest.raises(InputError, match="`prior`"):
        SteerVecEnv(DummyVecEnv(CARTS), ShuffledSoftSteer(rule))


def test_a_policy_without_a_distribution_is_refused_with_the_way_out(agents):
    ppo, dqn = agents
    with pytest.raises(InputError, match=r"must have a distribution of actions. Received DQN.*OneHot\(epsilon\)"):
        SteeredPolicy(dqn, SoftSteer(critic_of(dqn), 1.0))
    statistics = Statistics(Moments(np.zeros(4), np.ones(4)), None)
    with pytest.raises(InputError, match="must have a distribution"):
        PolicyPrior(Normalized(dqn, statistics))
    with pytest.raises(InputError, match=r"must have log-probabilities \(2, 3\)"):
        PolicyPrior(ppo)(th.zeros(2, 4), th.zeros(2, dtype=th.int64), 3)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda c: SoftSteer(c, 0.0), "`temperature` must be > 0"),
        (lambda c: SoftSteer(c, [1.0, 0.0]), "`temperature` must be > 0"),
        (lambda c: SoftSteer(c, math.nan), "`temperature`"),
        (lambda c: SoftSteer(object(), 1.0), "`critic` must be a Critic"),
        (lambda c: SoftSteer(FunctionCritic(), 1.0), "must be Discrete for SoftSteer"),
        (lambda c: SoftSteer(FunctionCritic(action_space=spaces.Discrete(2, start=1)), 1.0), "must count from 0"),
        (lambda c: OneHot(0.0), "`epsilon`"),
        (lambda c: OneHot(1.0), "`epsilon`"),
        (lambda c: ShuffledSoftSteer(c), "`like` must be a SoftSteer"),
        (lambda c: RandomAction(1.5, THREE), "`probability`"),
        (lambda c: RandomAction(0.5, spaces.Box(-1, 1, (1,))), "must be Discrete for RandomAction"),
        (lambda c: OPEX(c, 0.1), "SoftSteer goes towards it"),
    ],
)
def test_constructors_name_the_argument_and_the_rule(make, words):
    with pytest.raises(InputError) as caught:
        make(table_critic())
    assert words in str(caught.value)


def test_spaces_that_do_not_fit_are_refused():
    rule = SoftSteer(table_critic(), 1.0, prior=OneHot(0.1))
    for space in (spaces.Discrete(4), spaces.Box(-1, 1, (1,)), spaces.Discrete(3, start=1)):
        with pytest.raises(SpaceError):
            Steering(rule, None, space)
        with pytest.raises(SpaceError):
            Steering(RandomAction(0.1, THREE), None, space)
    with pytest.raises(SpaceError, match="observations"):
        Steering(rule, spaces.Box(-1, 1, (7,)), THREE)
    with pytest.raises(SpaceError):
        Steering(MultiplyAction(1.1), None, THREE)


def test_it_is_a_rule_and_says_what_it_is():
    rule = SoftSteer(table_critic(), 2.0, prior=OneHot(0.1))
    assert isinstance(rule, Rule)
    assert recipe(rule) == {
        "name": "SoftSteer",
        "temperature": 2.0,
        "prior": {"name": "OneHot", "epsilon": 0.1},
        "choose": {"name": "Greedy"},
        "reduce": {"name": "Min"},
    }
