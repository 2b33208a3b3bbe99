"""The same actions around an Env, a VectorEnv, a VecEnv and a policy, step by step, to the last bit."""

from functools import partial

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TransformObservation
from stable_baselines3.common.vec_env import DummyVecEnv
from steered import Bang, FunctionCritic, pendulum, pendulum_actor, pendulum_critic

from offline_eval.wrappers import (
    L2,
    OPEX,
    BestOfN,
    MultiplyAction,
    RandomDirection,
    Replay,
    SteerAction,
    SteeredPolicy,
    TestTimeTraining,
)
from offline_eval.wrappers.sb3 import SteerAction as SteerVecEnv
from offline_eval.wrappers.vector import SteerAction as SteerVectorEnv

STEPS = 23
LENGTHS = (7, 5, 9)  # episodes end at different times
SEED = 11
NUM_ENVS = len(LENGTHS)
PENDULUMS = [partial(pendulum, length) for length in LENGTHS]

CRITIC = pendulum_critic()
OPEX_RULE = OPEX(CRITIC, 0.3, num_steps=2, direction=L2(), keep_best=True)
TRAINING = TestTimeTraining(pendulum_actor(), CRITIC, 0.03, states=Replay(3))
RULES = {
    "opex": OPEX_RULE,
    "raw": OPEX(CRITIC, 0.05),
    "best": BestOfN(CRITIC, 6),
    "random": RandomDirection(0.2),
    "like": RandomDirection(like=OPEX_RULE),
    "multiply": MultiplyAction(1.1),
    "ttt": TRAINING,
    "like ttt": RandomDirection(like=TRAINING),
}


# What each host did, as one list for each environment of (observation, executed action, metrics) of real steps.


def entry(observation, executed, metrics):
    numbers = {key: np.float32(value) for key, value in metrics.items()}
    return np.asarray(observation).copy(), np.asarray(executed).copy(), numbers


def steering_entries(info):
    return {
        key.removeprefix("steering/"): value
        for key, value in info.items()
        if key.startswith("steering/") and key != "steering/executed_action"
    }


def scalar_episodes(rule, row):
    env = SteerAction(pendulum(LENGTHS[row]), rule)
    observation, _ = env.reset(seed=SEED + row)
    steps = []
    for _ in range(STEPS):
        before = observation
        observation, _, terminated, truncated, info = env.step(Bang().predict(before)[0])
        steps.append(entry(before, info["steering/executed_action"], steering_entries(info)))
        if terminated or truncated:
            observation, _ = env.reset()
    return steps


def vector_episodes(rule, mode, make=SyncVectorEnv):
    env = SteerVectorEnv(make(PENDULUMS, autoreset_mode=mode), rule)
    observations, _ = env.reset(seed=SEED)
    rows = [[] for _ in range(NUM_ENVS)]
    done = np.zeros(NUM_ENVS, dtype=bool)
    while min(map(len, rows)) < STEPS:
        before, was_done = observations, done
        observations, _, terminated, truncated, info = env.step(Bang().predict(before)[0])
        done = terminated | truncated
        for row in range(NUM_ENVS):
            is_step = not (mode == AutoresetMode.NEXT_STEP and was_done[row])
            for mask in ("_steering/executed_action", "_steering/displacement"):
                assert info.get(mask, np.zeros(NUM_ENVS, dtype=bool))[row] == is_step
            if is_step:
                metrics = {key: values[row] for key, values in steering_entries(info).items()}
                rows[row].append(entry(before[row], info["steering/executed_action"][row], metrics))
        if mode == AutoresetMode.DISABLED and done.any():
            observations, _ = env.reset(options={"reset_mask": done})
    env.close()
    return [steps[:STEPS] for steps in rows]


def vec_env_episodes(rule):
    env = SteerVecEnv(DummyVecEnv(PENDULUMS), rule)
    env.seed(SEED)
    observations = env.reset()
    rows = [[] for _ in range(NUM_ENVS)]
    for _ in range(STEPS):
        before = observations
        observations, _, _, infos = env.step(Bang().predict(before)[0])
        for row, info in enumerate(infos):
            rows[row].append(entry(before[row], info["steering/executed_action"], steering_entries(info)))
    return rows


def policy_episodes(rule):
    env = DummyVecEnv(PENDULUMS)
    env.seed(SEED)
    policy = SteeredPolicy(Bang(), rule, seed=SEED)
    observations, starts = env.reset(), np.ones(NUM_ENVS, dtype=bool)
    rows = [[] for _ in range(NUM_ENVS)]
    for _ in range(STEPS):
        actions, _ = policy.predict(observations, episode_start=starts, deterministic=True)
        for row in range(NUM_ENVS):
            metrics = {key: values[row] for key, values in policy.metrics.items()}
            rows[row].append(entry(observations[row], actions[row], metrics))
        observations, _, starts, _ = env.step(actions)
    return rows


def assert_same_steps(one, other):
    assert len(one) == len(other) == STEPS
    for (observation, executed, metrics), (observation_2, executed_2, metrics_2) in zip(one, other, strict=True):
        np.testing.assert_array_equal(observation, observation_2)
        np.testing.assert_array_equal(executed, executed_2)
        assert executed.dtype == executed_2.dtype
        assert {key: value for key, value in metrics.items() if not key.startswith("_")} == {
            key: value for key, value in metrics_2.items() if not key.startswith("_")
        }


@pytest.mark.parametrize("name", RULES)
def test_scalar_vector_vec_env_and_policy_are_the_same_step_by_step(name):
    rule = RULES[name]
    scalar = [scalar_episodes(rule, row) for row in range(NUM_ENVS)]
    unsteered = [scalar_episodes(MultiplyAction(1.0), row) for row in range(NUM_ENVS)]
    executed = np.array([[step[1] for step in row] for row in scalar])
    assert not np.array_equal(executed, [[step[1] for step in row] for row in unsteered])
    hosts = [vector_episodes(rule, mode) for mode in AutoresetMode]
    hosts += [vec_env_episodes(rule), policy_episodes(rule)]
    for host in hosts:
        for row in range(NUM_ENVS):
            assert_same_steps(scalar[row], host[row])


def test_processes_are_the_same_too():
    rule = RULES["random"]
    rows = vector_episodes(rule, AutoresetMode.NEXT_STEP, AsyncVectorEnv)
    for row in range(NUM_ENVS):
        assert_same_steps(scalar_episodes(rule, row), rows[row])


def test_a_vector_of_step_sizes_has_one_for_each_environment():
    sizes = [0.0, 0.1, 0.4]
    rules = [OPEX(CRITIC, size, direction=L2()) for size in sizes]
    together = OPEX(CRITIC, sizes, direction=L2())
    scalar = [scalar_episodes(rule, row) for row, rule in enumerate(rules)]
    for host in (vector_episodes(together, AutoresetMode.NEXT_STEP), vec_env_episodes(together)):
        for row in range(NUM_ENVS):
            assert_same_steps(scalar[row], host[row])


def test_a_step_size_of_zero_is_the_unsteered_environment():
    plain, steered = pendulum(), SteerAction(pendulum(), OPEX(CRITIC, 0.0))
    observation, _ = plain.reset(seed=3)
    same, _ = steered.reset(seed=3)
    for _ in range(LENGTHS[0]):
        action = Bang().predict(observation)[0]
        observation, reward, *_ = plain.step(action)
        same, same_reward, _, _, info = steered.step(action)
        np.testing.assert_array_equal(observation, same)
        assert reward == same_reward
        assert info["steering/executed_action"].tobytes() == action.tobytes()


def test_dictionaries_of_observations_are_the_same_too():
    space = spaces.Dict(all=spaces.Box(-np.inf, np.inf, (3,)))
    critic = FunctionCritic(lambda o, a: CRITIC.function(o["all"], a), action_space=CRITIC.action_space)
    critic.observation_space = space

    def nested():
        return TransformObservation(pendulum(), lambda observation: {"all": observation}, space)

    rule, action = OPEX(critic, 0.2, direction=L2()), np.array([0.5], dtype=np.float32)
    env = SteerAction(nested(), rule)
    observation, _ = env.reset(seed=1)
    executed = env.step(action)[4]["steering/executed_action"]
    plain = SteerAction(pendulum(), OPEX(CRITIC, 0.2, direction=L2()))
    plain.reset(seed=1)
    np.testing.assert_array_equal(executed, plain.step(action)[4]["steering/executed_action"])
    vector = SteerVectorEnv(SyncVectorEnv([nested]), rule)
    vector.reset(seed=1)
    np.testing.assert_array_equal(vector.step(action[None])[4]["steering/executed_action"], executed[None])

    class Constant(Bang):
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return np.full_like(observation["all"][..., :1], 0.5), state

    policy = SteeredPolicy(Constant(), rule, observation_space=space)
    np.testing.assert_array_equal(policy.predict(observation)[0], executed)
