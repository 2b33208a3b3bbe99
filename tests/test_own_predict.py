"""A model is played by its own `predict`, and told which actions are allowed where it asks."""

import threading

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from sb3_contrib import ARS, QRDQN, MaskablePPO
from sb3_contrib.common.maskable.evaluation import evaluate_policy as evaluate_masked
from sb3_contrib.common.wrappers import ActionMasker
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

from offline_eval.datasets.log import open_log
from offline_eval.episodes import EpisodePlan, evaluate
from offline_eval.errors import InputError
from offline_eval.measurement.actors import mean_actions
from offline_eval.policies import Normalized, Statistics, load_sb3
from offline_eval.policies.playable import OwnPredict, playable
from offline_eval.training.collection import Level, collect
from offline_eval.wrappers import MultiplyAction, SteeredPolicy

PLAN = EpisodePlan.seeded(3, seed=0)


class Always(gym.Env):
    """Pays 1 for action 0, the action's number for others; 20 steps."""

    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Discrete(4)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action):
        self.steps += 1
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), float(action), self.steps == 20, False, {}


class Keys(Always):
    """Two dials; what each may be set to changes with every step, and differs from episode to episode.

    A forbidden choice costs 100, an allowed one pays its number.
    """

    action_space = spaces.MultiDiscrete([3, 2])

    def step(self, action):
        allowed = Keys.action_masks(self)
        dials = allowed[:3][action[0]], allowed[3:][action[1]]
        observation, _, terminated, truncated, info = super().step(0)
        return observation, float(sum(action)) if all(dials) else -100.0, terminated, truncated, info

    def action_masks(self):
        place = (self.steps + int(self.np_random.bit_generator.seed_seq.entropy)) % 3
        return np.array([*(np.arange(3) == place), *(np.arange(2) != place)])


class Doubled(PPO):
    """A subclass with another `predict`."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        actions, state = super().predict(observation, state, episode_start, deterministic)
        return 0.5 * actions, state


def dqn(kind=DQN, **words):
    model = kind(
        "MlpPolicy", Always(), seed=0, policy_kwargs={"net_arch": [4]}, buffer_size=1000, device="cpu", **words
    )
    model.exploration_rate = 0.5
    return model


class Dial(Keys):
    """One of them."""

    action_space = spaces.Discrete(3)

    def step(self, action):
        return super().step([int(action), int(np.flatnonzero(Keys.action_masks(self)[3:])[0])])

    def action_masks(self):
        return super().action_masks()[:3]


def masked(world=Keys):
    small = {"net_arch": [4]}
    return MaskablePPO("MlpPolicy", world(), seed=0, n_steps=16, batch_size=16, policy_kwargs=small, device="cpu")


def pendulum():
    return gym.make("Pendulum-v1", max_episode_steps=5)


def test_a_subclass_is_played_by_its_own_predict():
    model = Doubled("MlpPolicy", "Pendulum-v1", seed=0, n_steps=8, batch_size=8, device="cpu")
    env = DummyVecEnv([pendulum])
    env.seed(3)
    right, _ = evaluate_policy(model, env, 1, warn=False)
    found = evaluate(model, pendulum, EpisodePlan.of([3]), width=None)
    assert found.returns[0] == pytest.approx(right, abs=1e-4)  # VecEnvs keep rewards as float32
    plain = evaluate(
        model.policy, lambda: gym.make("Pendulum-v1", max_episode_steps=5), EpisodePlan.of([3]), width=None
    )
    assert found.returns[0] != plain.returns[0]


def test_a_predict_put_on_the_model_is_its_own():
    model = dqn()
    model.predict = lambda observation, **_: (np.full(len(observation), 3), None)
    assert evaluate(model, Always, PLAN).returns.tolist() == [60.0] * 3


def test_what_only_asks_the_policy_is_the_policy(tiny_sac):
    assert playable(tiny_sac) is tiny_sac.policy
    model = dqn()
    assert playable(model, deterministic=True) is model.policy
    assert isinstance(playable(model, deterministic=False), OwnPredict)


@pytest.mark.parametrize("kind", [DQN, QRDQN])
def test_exploration_is_that_of_stable_baselines(kind):
    model = dqn(kind)
    np.random.seed(7)
    model.action_space.seed(7)
    env = DummyVecEnv([Always])
    env.seed(7)
    right, _ = evaluate_policy(model, env, 1, deterministic=False, warn=False)
    found = evaluate(model, Always, EpisodePlan.of([7]), deterministic=False)
    assert found.returns.tolist() == [right]
    greedy = evaluate(model, Always, EpisodePlan.of([7])).returns
    assert greedy.tolist() != [right]
    again = evaluate(model, Always, EpisodePlan.of([7]), deterministic=False)
    assert again.returns.tolist() == [right]
    assert not found.invariant


@pytest.mark.parametrize("wrap", [lambda model: model, lambda model: Normalized(model, Statistics(None, None))])
def test_exploring_seats_do_not_draw_together(wrap):
    model = dqn()
    seen = []
    model.predict = lambda observation, **words: (
        seen.append(len(observation)) or DQN.predict(model, observation, **words)
    )
    evaluate(wrap(model), Always, EpisodePlan.seeded(4, seed=0), n_envs=4, deterministic=False)
    assert set(seen) == {1}


def test_a_model_with_its_own_predict_goes_to_workers_without_its_buffer():
    model = Doubled("MlpPolicy", "Pendulum-v1", seed=0, n_steps=8, batch_size=8, device="cpu")
    light = OwnPredict(model).__getstate__()["model"]
    assert light.env is None
    assert light.rollout_buffer is None
    assert model.env is not None
    shorter = {"step_limit": 5, "n_envs": 2}
    one = evaluate(model, "Pendulum-v1", 4, **shorter)
    np.testing.assert_array_equal(one.returns, evaluate(model, "Pendulum-v1", 4, workers=2, **shorter).returns)


def test_what_cannot_be_sent_to_workers_is_said():
    model = dqn()
    lock = threading.Lock()
    model.predict = lambda observation, **_: (np.zeros(len(observation), int), lock and None)
    with pytest.raises(InputError, match="`workers` must be 1 for a policy or an environment that cannot be sent"):
        evaluate(model, Always, PLAN, workers=2)


def hosts():
    return {
        "class": Keys,
        "wrapped": lambda: ActionMasker(gym.wrappers.TimeLimit(Keys(), 15), lambda env: env.unwrapped.action_masks()),
        "environment": Keys(),
        "VecEnv": DummyVecEnv([Keys, Keys]),
        "VectorEnv": SyncVectorEnv([Keys, Keys]),
    }


@pytest.mark.parametrize("host", list(hosts()))
def test_masks_are_asked_from_every_host(host, tmp_path):
    model = masked()
    found = evaluate(model, hosts()[host], PLAN, n_envs=2)
    assert (found.returns >= 0).all(), found.episodes
    assert evaluate(_Blind(model), Keys, PLAN).returns.min() < 0
    model.save(tmp_path / "agent.zip")
    again = evaluate(tmp_path / "agent.zip", hosts()[host], PLAN, n_envs=2)
    assert again.algorithm == "MaskablePPO"
    np.testing.assert_array_equal(again.returns, found.returns)


class _Blind:
    """The same policy without masks."""

    def __init__(self, model):
        self.policy = model.policy

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return self.policy.predict(observation, state, episode_start, deterministic)


@pytest.mark.parametrize("vector", [SubprocVecEnv, AsyncVectorEnv])
def test_masks_come_from_other_processes(vector):
    made = vector([Keys, Keys])
    try:
        assert (evaluate(masked(), made, PLAN).returns >= 0).all()
    finally:
        made.close()


def test_masked_returns_equal_those_of_sb3_contrib():
    model, env = masked(), DummyVecEnv([Keys])
    env.seed(5)
    right, _ = evaluate_masked(model, env, 1, warn=False)
    assert evaluate(model, Keys, EpisodePlan.of([5]), width=None, n_envs=1).returns.tolist() == [right]


def test_masks_pass_a_normaliser_and_workers():
    model = masked()
    venv = VecNormalize(DummyVecEnv([Keys]))
    normal = Normalized(model, Statistics.of(venv))
    assert (evaluate(normal, Keys, PLAN).returns >= 0).all()
    np.testing.assert_array_equal(
        evaluate(model, Keys, 4, n_envs=2, workers=2).returns, evaluate(model, Keys, 4, n_envs=3).returns
    )


def test_an_environment_without_masks_is_refused():
    class Silent(Keys):
        action_masks = property()

    model = masked()
    for env in (Silent, Silent(), DummyVecEnv([Silent]), SyncVectorEnv([Silent])):
        with pytest.raises(InputError, match=r"`env` must have a method `action_masks`.*ActionMasker"):
            evaluate(model, env, PLAN)


def test_a_mask_that_raises_fails_its_episode():
    class Breaks(Keys):
        def action_masks(self):
            if self.steps == 3 and self.np_random.bit_generator.seed_seq.entropy == 1:
                raise AttributeError("no dial")
            return super().action_masks()

    found = evaluate(masked(), Breaks, PLAN)
    assert [episode.failed is not None for episode in found.episodes] == [False, True, False]


def test_who_does_not_know_the_masks_refuses_who_needs_them(tmp_path):
    model = masked()
    with pytest.raises(InputError, match="`model` must choose without being told which actions are allowed"):
        evaluate(model, Keys, PLAN, rule=MultiplyAction(1.1))
    with pytest.raises(InputError, match="`model` must choose without being told"):
        SteeredPolicy(model, MultiplyAction(1.1))
    with pytest.raises(InputError, match="`model` must choose without being told"):
        mean_actions(model, np.zeros((2, 2), np.float32))
    with pytest.raises(InputError, match=r"`model` must choose without being told.*epsilon"):
        collect(masked(Dial), Dial, 20, tmp_path / "a", levels=[Level(epsilon=0.5)])
    collect(masked(Dial), Dial, 40, tmp_path / "log")
    assert all(episode.rewards.min() >= 0 for episode in open_log(tmp_path / "log"))


@pytest.mark.parametrize("policy", ["LinearPolicy", "MlpPolicy"])
@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_ars_is_opened(policy, env, tmp_path):
    live = ARS(policy, env, seed=0, zero_policy=False)
    live.save(tmp_path / "agent.zip")
    found = load_sb3(tmp_path / "agent.zip", env, "cpu")
    assert type(found) is ARS
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(50, *live.observation_space.shape)).astype(np.float32)
    np.testing.assert_array_equal(live.predict(seen)[0], found.predict(seen)[0])


def test_sac_is_still_its_policy(tiny_sac):
    assert isinstance(tiny_sac, SAC)
    found = evaluate(tiny_sac, "Pendulum-v1", 2, step_limit=5)
    np.testing.assert_array_equal(found.returns, evaluate(tiny_sac.policy, "Pendulum-v1", 2, step_limit=5).returns)
