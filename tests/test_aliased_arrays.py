"""Environments and policies that write into arrays which are not theirs: what is logged is what happened."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from stable_baselines3.common.vec_env import DummyVecEnv
from steered import FunctionCritic

from offline_eval import EpisodePlan, evaluate
from offline_eval.datasets.log import open_log
from offline_eval.datasets.recorder import LoggedEpisode
from offline_eval.datasets.restoring import return_to
from offline_eval.diagnosis.simulators import WorldMaker
from offline_eval.episodes import StateLog
from offline_eval.wrappers import OPEX, MultiplyAction, Raw, StateLogger, SteerAction, SteeredPolicy
from offline_eval.wrappers.sb3 import SteerAction as SteerVecEnv
from offline_eval.wrappers.state_log import VectorStateLogger
from offline_eval.wrappers.state_log_sb3 import VecEnvStateLogger
from offline_eval.wrappers.vector import SteerAction as SteerVector

LENGTH = 4


class Greedy(gym.Env):
    """Multiplies its action in place, spoils it a step later, and shows one buffer for ever."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self):
        self.screen, self.kept = np.zeros(1, np.float32), np.zeros(1, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if options is not None:
            options["begin"] += 1000.0
        self.state, self.t = float(seed or 0), 0
        return self._show(), {}

    def step(self, action):
        self.kept[...] = np.nan
        self.kept = action
        action *= 100.0
        self.state += 1.0
        self.t += 1
        return self._show(), float(self.state), self.t == LENGTH, False, {}

    def get_state(self):
        return np.array([self.state, self.t])

    def set_state(self, state):
        self.state, self.t = float(state[0]), int(state[1])

    def _show(self):
        self.screen[0] = self.state
        return self.screen


class GreedyDict(Greedy):
    """The same with a dict, which is one object for ever."""

    observation_space = spaces.Dict({"x": Greedy.observation_space})

    def __init__(self):
        super().__init__()
        self.shown = {"x": self.screen}

    def _show(self):
        super()._show()
        return self.shown


class Shared(Greedy):
    """The same with one buffer for all environments of the process."""

    everyone_s = np.zeros(1, np.float32)

    def __init__(self):
        super().__init__()
        self.screen = self.everyone_s


class Greedier:
    """Chooses a tenth of what it sees, in a buffer that it keeps, and spoils what it was shown."""

    def __init__(self):
        self.buffer = None

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        rows = observation["x"] if isinstance(observation, dict) else observation
        if self.buffer is None:
            self.buffer = np.empty((len(rows), 1), np.float32)
        np.multiply(rows, np.float32(0.1), out=self.buffer)
        rows[...] = np.nan
        return self.buffer, state


def chosen(seed):
    return (np.arange(seed, seed + LENGTH, dtype=np.float32) * np.float32(0.1))[:, None]


@pytest.mark.parametrize(
    ("host", "make"),
    [
        ("factory", Greedy),
        ("factory", GreedyDict),
        ("factory", Shared),
        ("vector", Greedy),
        ("vector", GreedyDict),
        ("sb3", Greedy),
        ("sb3", GreedyDict),
    ],
)
def test_the_log_holds_what_was_chosen_and_seen(host, make, tmp_path):
    env = {
        "factory": lambda: lambda: make(),
        "vector": lambda: SyncVectorEnv([make] * 3, copy=False),
        "sb3": lambda: DummyVecEnv([make] * 3),
    }[host]()
    # Two blocks of two rows: the policy's one buffer serves both.
    result = evaluate(Greedier(), env, EpisodePlan.seeded(5), n_envs=3, width=2, store=StateLog(tmp_path))
    assert [e.failed for e in result.episodes] == [None] * 5
    assert result.returns.tolist() == [4.0 * seed + 10.0 for seed in range(5)]
    log = open_log(tmp_path)
    assert len(log) == 5
    for episode in log:
        assert np.array_equal(episode.actions, chosen(episode.seed))
        assert np.array_equal(episode.policy_actions, episode.actions)
        seen = episode.observations["x"] if isinstance(episode.observations, dict) else episode.observations
        # A DummyVecEnv resets before it hands out the last observation: with one buffer that is lost.
        last = LENGTH + (host != "sb3")
        assert seen[:last, 0].tolist() == [episode.seed + step for step in range(last)]


def test_a_steered_action_is_logged_as_it_was_handed_out(tmp_path):
    evaluate(Greedier(), lambda: Greedy(), EpisodePlan.seeded(3), rule=MultiplyAction(0.5), store=StateLog(tmp_path))
    for episode in open_log(tmp_path):
        assert np.array_equal(episode.policy_actions, chosen(episode.seed))
        assert np.array_equal(episode.actions, 0.5 * np.minimum(chosen(episode.seed), 1.0))


def test_options_of_a_plan_are_left_alone():
    options = {"begin": np.zeros(1)}
    evaluate(Greedier(), lambda: Greedy(), EpisodePlan.of([1, 2, 3], options))
    evaluate(Greedier(), DummyVecEnv([Greedy] * 2), EpisodePlan.of([1, 2, 3], options))
    assert options["begin"] == 0.0


HALF = MultiplyAction(0.5)
HOSTS = {
    "env": lambda folder: StateLogger(SteerAction(Greedy(), HALF), folder),
    "vector": lambda folder: VectorStateLogger(SteerVector(SyncVectorEnv([Greedy]), HALF), folder),
    "sb3": lambda folder: VecEnvStateLogger(SteerVecEnv(DummyVecEnv([Greedy]), HALF), folder),
    "inside": lambda folder: SteerAction(StateLogger(Greedy(), folder), HALF),
    "vector inside": lambda folder: SteerVector(VectorStateLogger(SyncVectorEnv([Greedy]), folder), HALF),
    "sb3 inside": lambda folder: SteerVecEnv(VecEnvStateLogger(DummyVecEnv([Greedy]), folder), HALF),
}


@pytest.mark.parametrize("host", HOSTS)
def test_loggers_around_and_inside_steering(host, tmp_path):
    env = HOSTS[host](tmp_path)
    env.reset()
    given = np.float32([0.2, 0.4, 0.6, 0.8])
    for value in given:
        env.step(np.float32([value]) if host in ("env", "inside") else np.float32([[value]]))
    env.close()
    (episode,) = open_log(tmp_path)
    assert np.array_equal(episode.actions[:, 0], given * np.float32(0.5))
    assert np.array_equal(episode.policy_actions[:, 0], given * np.float32(0.5 if "inside" in host else 1.0))


class Target(Greedy):
    """Shows .5 for ever, in one buffer."""

    def __init__(self):
        super().__init__()
        self.screen[...] = 0.5

    def _show(self):
        return self.screen


def test_steering_asks_about_what_the_environment_showed_not_what_the_caller_made_of_it():
    # One step of size 1 on -(a - o)^2 goes from 0 to 2 o: here to 1, wherever the caller moves his copy of o.
    rule = OPEX(FunctionCritic(), 1.0, direction=Raw())
    env = SteerAction(Target(), rule)
    observation, _ = env.reset()
    observation[...] = 0.0
    assert env.step(np.zeros(1, np.float32))[4]["steering/executed_action"] == 1.0
    policy = SteeredPolicy(
        Greedier(), rule, action_space=Target.action_space, observation_space=Target.observation_space
    )
    assert policy.predict(np.full((1, 1), 0.5, np.float32))[0] == pytest.approx(0.05 + 2 * (0.5 - 0.05))


class TwoBlocks:
    """A recurrent policy with one state buffer: counts its steps."""

    def __init__(self):
        self.state = np.zeros((1, 2))

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        self.state[...] = 0.0 if state is None else state[0]
        self.state[0, np.asarray(episode_start)] = 0.0
        self.state += 1.0
        return (self.state[0][:, None] / 100).astype(np.float32), (self.state,)


class Paying(Greedy):
    """Pays its action, and lasts one step longer than its seed says."""

    def step(self, action):
        self.t += 1
        return self._show(), float(action[0]), self.t > int(self.state), False, {}


def test_the_states_of_two_blocks_are_two():
    result = evaluate(TwoBlocks(), lambda: Paying(), EpisodePlan.of([1, 3, 2, 5, 1, 2]), n_envs=4, width=2)
    lengths = np.array([2, 4, 3, 6, 2, 3])
    assert result.returns == pytest.approx(lengths * (lengths + 1) / 200, abs=1e-6)


def test_a_logged_episode_survives_being_played_again():
    states = np.array([[float(step), step] for step in range(3)])
    actions = np.full((2, 1), 0.25, np.float32)
    episode = LoggedEpisode(
        observations=np.arange(3, dtype=np.float32)[:, None],
        policy_actions=actions,
        actions=actions,
        rewards=np.array([1.0, 2.0]),
        terminated=np.zeros(2, bool),
        truncated=np.array([False, True]),
        seed=0,
        states={"state": states},
    )
    assert return_to(Greedy(), episode, 2) == 2.0
    worlds = WorldMaker(lambda: Greedy(), [episode])(2)
    worlds.begin(np.arange(2), [episode] * 2, [0, 1])
    given = np.full((2, 1), 0.5, np.float32)
    stepped = worlds.step(np.arange(2), given)
    assert stepped.observations[:, 0].tolist() == [1.0, 2.0]
    assert np.all(given == 0.5)
    assert np.all(episode.actions == 0.25)
    assert th.equal(th.as_tensor(actions), th.full((2, 1), 0.25))
