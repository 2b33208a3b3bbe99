"""Where a rule is applied: what each host adds to `info`, its noise, its checkers and what it refuses."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.env_checker import check_env as check_env_of_sb3
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from steered import Bang, pendulum, pendulum_critic

from offline_eval.errors import InputError, SpaceError
from offline_eval.types import Predictor
from offline_eval.wrappers import (
    L2,
    OPEX,
    BestOfN,
    MultiplyAction,
    Placebo,
    RandomDirection,
    SteerAction,
    SteeredPolicy,
)
from offline_eval.wrappers.sb3 import SteerAction as SteerVecEnv
from offline_eval.wrappers.vector import SteerAction as SteerVectorEnv

CRITIC = pendulum_critic()
OPEX_RULE = OPEX(CRITIC, 0.3, num_steps=2, direction=L2(), keep_best=True)
RULES = {
    "opex": OPEX_RULE,
    "raw": OPEX(CRITIC, 0.05),
    "best": BestOfN(CRITIC, 6),
    "random": RandomDirection(0.2),
    "like": RandomDirection(like=OPEX_RULE),
    "multiply": MultiplyAction(1.1),
}


def test_the_same_seed_repeats_the_noise_and_a_reset_without_one_does_not():
    env = SteerAction(pendulum(), RandomDirection(0.3))

    def signs(seed):
        env.reset(seed=seed)
        action = np.zeros(1, dtype=np.float32)
        return [np.sign(env.step(action)[4]["steering/executed_action"][0]) for _ in range(7)]

    first, second, third = signs(5), signs(None), signs(None)
    assert [signs(5), signs(None), signs(None)] == [first, second, third]
    assert len({tuple(first), tuple(second), tuple(third)}) > 1


def test_noise_is_not_drawn_from_the_environments_generator():
    draws = []
    for rule in (MultiplyAction(1.0), RandomDirection(0.3)):
        env = SteerAction(pendulum(), rule)
        env.reset(seed=5)
        for _ in range(3):
            env.step(np.zeros(1, dtype=np.float32))
        draws.append(env.unwrapped.np_random.random())
    assert draws[0] == draws[1]


def test_the_info_of_the_environment_stays_as_it_was():
    class Talkative(gym.Wrapper):
        def step(self, action):
            self.kept = {"mine": 1}
            return *self.env.step(action)[:4], self.kept

    inner = Talkative(pendulum())
    env = SteerAction(inner, OPEX(CRITIC, 0.1))
    env.reset(seed=0)
    info = env.step(np.zeros(1, dtype=np.float32))[4]
    assert inner.kept == {"mine": 1}
    assert set(info) == {
        "mine",
        "steering/gradient_norm",
        "steering/displacement",
        "steering/clipped",
        "steering/predicted_gain",
        "steering/non_finite",
        "steering/executed_action",
    }
    assert type(info["steering/displacement"]) is float


def test_stacked_hosts_report_the_action_that_the_environment_got():
    got = []

    class Listening(gym.ActionWrapper):
        def action(self, action):
            got.append(action)
            return action

    inner = SteerAction(Listening(pendulum()), MultiplyAction(0.5))
    env = SteerAction(inner, MultiplyAction(1.5))
    env.reset(seed=0)
    info = env.step(np.array([1.0], dtype=np.float32))[4]
    np.testing.assert_allclose(got, [[0.75]])
    np.testing.assert_array_equal(info["steering/executed_action"], got[0])


@pytest.mark.parametrize("action", [[1.0], [1], np.array([1.0]), np.array([1])])
def test_actions_come_as_lists_and_in_other_number_types(action):
    env = SteerAction(pendulum(), MultiplyAction(1.25))
    env.reset(seed=0)
    assert env.step(action)[4]["steering/executed_action"] == pytest.approx(1.25)


def test_a_step_before_the_first_reset_is_refused():
    zero = np.zeros((1, 1), dtype=np.float32)
    for env, action in (
        (SteerAction(pendulum(), OPEX_RULE), zero[0]),
        (SteerVectorEnv(SyncVectorEnv([pendulum]), OPEX_RULE), zero),
        (SteerVecEnv(DummyVecEnv([pendulum]), OPEX_RULE), zero),
    ):
        with pytest.raises(ResetNeeded, match="`reset` comes before `step`"):
            env.step(action)


@pytest.mark.parametrize("name", RULES)
# It is different from the unwrapped version: that is what we check. And Pendulum's Box is +-2, not +-1.
@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version")
@pytest.mark.filterwarnings("ignore:.*we recommend using a symmetric and normalized space")
def test_gymnasiums_checker_passes(name):
    check_env(SteerAction(gym.make("Pendulum-v1").unwrapped, RULES[name]), skip_render_check=True)


@pytest.mark.parametrize("name", RULES)
# SB3 recommends a Box of +-1 to those who train; Pendulum's is +-2.
@pytest.mark.filterwarnings("ignore:We recommend you to use a symmetric and normalized Box action space")
def test_sb3s_checker_passes(name):
    check_env_of_sb3(SteerAction(gym.make("Pendulum-v1"), RULES[name]), skip_render_check=True)


def test_a_spec_rebuilds_the_stack_with_the_very_same_critic():
    env = SteerAction(gym.make("Pendulum-v1"), OPEX_RULE)
    rebuilt = gym.make(env.spec)
    assert isinstance(rebuilt, SteerAction)
    assert rebuilt.steering.rule is OPEX_RULE
    assert rebuilt.steering.rule.critic is CRITIC
    assert rebuilt.spec.additional_wrappers == env.spec.additional_wrappers
    action = np.array([0.5], dtype=np.float32)
    results = []
    for each in (env, rebuilt):
        each.reset(seed=1)
        results.append(each.step(action)[4]["steering/executed_action"])
    np.testing.assert_array_equal(*results)


# Vector environments


def test_in_next_step_mode_the_reset_step_is_not_steered():
    env = SteerVectorEnv(SyncVectorEnv([pendulum, lambda: gym.make("Pendulum-v1", max_episode_steps=2)]), OPEX_RULE)
    env.reset(seed=0)
    action = np.full((2, 1), 0.25, dtype=np.float32)
    masks, displacements = [], []
    for _ in range(4):
        info = env.step(action)[4]
        masks.append(info["_steering/displacement"].tolist())
        displacements.append(info["steering/displacement"])
        np.testing.assert_array_equal(info["steering/executed_action"][~info["_steering/displacement"]], 0.25)
    assert masks == [[True, True], [True, True], [True, False], [True, True]]
    assert displacements[2][0] > 0
    assert displacements[2][1] == 0


def test_a_reset_in_between_starts_an_episode_that_is_steered_at_once():
    env = SteerVectorEnv(SyncVectorEnv([lambda: gym.make("Pendulum-v1", max_episode_steps=1)]), OPEX_RULE)
    env.reset(seed=0)
    env.step(np.zeros((1, 1), dtype=np.float32))
    env.reset(seed=0)
    assert env.step(np.zeros((1, 1), dtype=np.float32))[4]["_steering/displacement"].all()


def test_a_step_in_which_all_environments_reset_has_nothing_to_report():
    env = SteerVectorEnv(SyncVectorEnv([lambda: gym.make("Pendulum-v1", max_episode_steps=1)] * 2), OPEX_RULE)
    env.reset(seed=0)
    assert "steering/displacement" in env.step(np.zeros((2, 1), dtype=np.float32))[4]
    assert not any("steering" in key for key in env.step(np.zeros((2, 1), dtype=np.float32))[4])


def test_a_mask_resets_the_noise_of_its_rows_alone():
    def pushes(reset):
        env = SteerVectorEnv(SyncVectorEnv([pendulum] * 2, autoreset_mode=AutoresetMode.DISABLED), RandomDirection(0.3))
        env.reset(seed=0)
        action = np.zeros((2, 1), dtype=np.float32)
        env.step(action)
        if reset:
            env.reset(seed=[None, 40], options={"reset_mask": np.array([False, True])})
        return np.array([env.step(action)[4]["steering/executed_action"][:, 0] for _ in range(6)])

    kept, changed = pushes(False), pushes(True)
    np.testing.assert_array_equal(kept[:, 0], changed[:, 0])
    env = SteerAction(pendulum(), RandomDirection(0.3))
    env.reset(seed=40)
    expected = [env.step(np.zeros(1, dtype=np.float32))[4]["steering/executed_action"][0] for _ in range(6)]
    np.testing.assert_array_equal(changed[:, 1], expected)


def test_scalar_hosts_inside_a_vector_environment_report_as_the_vector_host_does():
    inside = SyncVectorEnv([lambda: SteerAction(pendulum(), OPEX_RULE)] * 2)
    around = SteerVectorEnv(SyncVectorEnv([pendulum] * 2), OPEX_RULE)
    actions = np.array([[0.5], [-1.0]], dtype=np.float32)
    infos = []
    for env in (inside, around):
        env.reset(seed=4)
        infos.append(env.step(actions)[4])
    assert set(infos[0]) == set(infos[1])
    for key, value in infos[0].items():
        np.testing.assert_array_equal(value, infos[1][key])


# VecEnvs


def test_seeds_given_before_wrapping_reach_the_noise():
    def first(env):
        env.reset()
        return env.step(np.zeros((2, 1), dtype=np.float32))[3][1]["steering/executed_action"]

    rule = BestOfN(CRITIC, 6)
    before = first(SteerVecEnv(make_vec_env("Pendulum-v1", 2, seed=8), rule))
    env = SteerVecEnv(make_vec_env("Pendulum-v1", 2, seed=0), rule)
    env.seed(8)
    np.testing.assert_array_equal(first(env), before)
    assert first(env) != pytest.approx(before)  # the next reset has no seed and goes on


def test_normalised_observations_are_refused_with_the_order_that_works():
    plain = DummyVecEnv([pendulum])
    with pytest.raises(InputError, match=r"VecNormalize\(SteerAction\(venv, rule\)\)"):
        SteerVecEnv(VecNormalize(plain), OPEX_RULE)
    SteerVecEnv(VecNormalize(plain, norm_obs=False), OPEX_RULE)
    env = VecNormalize(SteerVecEnv(plain, OPEX_RULE))
    env.reset()
    assert "steering/displacement" in env.step(np.zeros((1, 1), dtype=np.float32))[3][0]


# Policies


def test_evaluate_policy_takes_a_steered_policy_and_a_steered_environment_alike():
    def evaluated(model, wrap):
        env = DummyVecEnv([lambda: Monitor(pendulum())] * 2)
        env.seed(3)
        return evaluate_policy(model, wrap(env), n_eval_episodes=5, return_episode_rewards=True)

    rule = BestOfN(CRITIC, 6)
    assert isinstance(SteeredPolicy(Bang(), rule), Predictor)
    inside = evaluated(SteeredPolicy(Bang(), rule, seed=3), lambda env: env)
    around = evaluated(Bang(), lambda env: SteerVecEnv(env, rule))
    assert inside == around
    assert inside != evaluated(Bang(), lambda env: env)


def test_a_single_observation_gives_a_single_action_and_the_models_state():
    policy = SteeredPolicy(Bang(), OPEX_RULE)
    observation = np.array([0.1, 0.2, 0.3], dtype=np.float32)
    action, state = policy.predict(observation, state=4)
    actions, _ = policy.predict(observation[None])
    assert action.shape == (1,)
    assert state == 5
    np.testing.assert_array_equal(action, actions[0])
    assert policy.observation_space is Bang.observation_space


def test_a_policy_without_a_seed_draws_fresh_noise():
    observation = np.zeros((1, 3), dtype=np.float32)
    actions = {float(SteeredPolicy(Bang(), Placebo(0.1)).predict(observation)[0][0, 0]) for _ in range(4)}
    assert len(actions) > 1


def test_a_policy_that_does_not_say_its_spaces_is_told_them():
    class Silent:
        def predict(self, *arguments, **named):
            return Bang().predict(*arguments, **named)

    with pytest.raises(InputError, match="`action_space` must be given"):
        SteeredPolicy(Silent(), OPEX_RULE)
    policy = SteeredPolicy(Silent(), OPEX_RULE, action_space=Bang.action_space)
    assert policy.predict(np.zeros((2, 3), dtype=np.float32))[0].shape == (2, 1)
    with pytest.raises(InputError, match="`model` must have SB3's `predict`"):
        SteeredPolicy(lambda observation: observation, OPEX_RULE)


# Refusals that all hosts share


def test_every_host_refuses_other_spaces_and_the_wrong_number_of_rows():
    for rule, error, make in (
        (OPEX_RULE, SpaceError, lambda: gym.make("MountainCarContinuous-v0")),
        (OPEX_RULE, SpaceError, lambda: gym.make("CartPole-v1")),
        (OPEX(CRITIC, [0.1, 0.2, 0.3]), InputError, pendulum),
    ):
        with pytest.raises(error):
            SteerAction(make(), rule)
        with pytest.raises(error):
            SteerVectorEnv(SyncVectorEnv([make] * 2), rule)
        with pytest.raises(error):
            SteerVecEnv(DummyVecEnv([make] * 2), rule)


# Real agents


@pytest.mark.parametrize("rule", [lambda c: OPEX(c, 0.2, direction=L2(), keep_best=True), lambda c: BestOfN(c, 8)])
def test_a_real_agent_is_steered_uphill(shared_agents, rule):
    policies = pytest.importorskip("offline_eval.policies")
    if not hasattr(policies, "critic_of"):
        pytest.skip("critic_of is not there yet")
    model = policies.load_sb3(shared_agents / "sac-Pendulum-v1.zip", "Pendulum-v1")
    critic = policies.critic_of(model)
    policy = SteeredPolicy(model, rule(critic), seed=0)
    env = make_vec_env("Pendulum-v1", 4, seed=0)
    observations = env.reset()
    for _ in range(20):
        actions, _ = policy.predict(observations, deterministic=True)
        before = model.predict(observations, deterministic=True)[0]
        q = [
            critic.q(th.as_tensor(observations), critic.scale(th.as_tensor(each))).min(0).values
            for each in (before, actions)
        ]
        gain = (q[1] - q[0]).detach().numpy()
        moved = policy.metrics["displacement"] > 0
        assert (gain[moved] > -1e-3).all()
        np.testing.assert_array_equal(actions[~moved], before[~moved])
        observations, *_ = env.step(actions)
    assert policy.metrics["non_finite"].sum() == 0
