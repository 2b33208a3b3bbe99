"""The truth-guided rung: it repeats the policy, finds what is better, and does not know the future."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from linear_quadratic import GAIN, GAMMA, Linear, LinearQuadratic, Noisy, Opaque, Simulated, limited

from offline_eval.datasets.log import open_log
from offline_eval.diagnosis.rollout_search import Base, Start, TruthPlan, TruthPlay
from offline_eval.diagnosis.simulators import WorldMaker, hidden_constants
from offline_eval.episodes import EpisodePlan, StateLog, evaluate
from offline_eval.errors import InputError
from offline_eval.wrappers.reach import NearbyActions, Neighbours

NUM, STEPS = 6, 40
PLAN = TruthPlan(num_starts=NUM, num_near=2, num_offsets=4, num_rollouts=1, horizon=10, noise=0.0, hold=1)


class Lying(Simulated):
    """Says something else."""

    def simulate(self, states, actions):
        following, *rest = super().simulate(states, actions)
        return following + 0.01, (following + 0.01).astype(np.float32), *rest[1:]


class Forgetful(Noisy):
    """Pushed by a wind that its state does not hold."""

    def reset(self, *, seed=None, options=None):
        self.wind = 0.0
        return super().reset(seed=seed)

    def step(self, action):
        self.wind += 0.01
        self.state = self.state + self.wind
        return super().step(action)


class OwnGenerator(LinearQuadratic):
    """Draws from a generator of its own."""

    def reset(self, *, seed=None, options=None):
        self.random = np.random.default_rng(seed)
        return super().reset(seed=seed)

    def step(self, action):
        _, *rest = super().step(action)
        self.state = self.state + 0.05 * self.random.normal(size=2)
        return self._observation(), *rest


class Lottery(gym.Env):
    """Pays the action times a number that the state's key decides: known to who knows the key, and to nobody else."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.key = float(self.np_random.integers(1000))
        return np.zeros(1, np.float32), {}

    def step(self, action):
        (following, _, rewards, _), _ = self.simulate({"key": np.array([self.key])}, np.asarray([action])), None
        self.key = float(following["key"][0])
        return np.zeros(1, np.float32), float(rewards[0]), False, False, {}

    def simulate(self, states, actions):
        rewards = np.sin(12.9898 * states["key"]) * actions[:, 0]
        following = {"key": (7.0 * states["key"] + 1.0) % 1009.0}
        return following, np.zeros((len(rewards), 1), np.float32), rewards, np.zeros(len(rewards), dtype=bool)

    def with_future(self, states, seeds):
        return {"key": np.asarray(seeds % 1009, np.float64)}

    def get_state(self):
        return {"key": np.array(self.key)}

    def set_state(self, state: Mapping):
        self.key = float(state["key"])


class Clairvoyant(Lottery):
    """The same, without other futures."""

    with_future = None


class Keyed(gym.Env):
    """Pays the action times a number of a table, at a place that a key and a clock decide; the key is in the state."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    table = np.random.default_rng(0).choice([-1.0, 1.0], 4096)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.key, self.clock = float(self.np_random.integers(4096)), 0.0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        paid = self.table[int(self.key + 7 * self.clock) % 4096] * float(action[0])
        self.clock += 1.0
        return np.zeros(1, np.float32), paid, False, False, {}

    def get_state(self):
        return {"key": np.array(self.key), "clock": np.array(self.clock)}

    def set_state(self, state):
        self.key, self.clock = float(state["key"]), float(state["clock"])


class Nothing:
    """Does nothing."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.zeros((len(observation), 1), np.float32), None


def logged(policy, env, folder):
    evaluation = evaluate(policy, env, EpisodePlan.seeded(NUM), store=StateLog(folder))
    return evaluation.returns, sorted(open_log(folder), key=lambda episode: episode.key)


def proposal(space):
    generator = np.random.default_rng(0)
    states = generator.normal(size=(50, space.shape[0])).astype(np.float32)
    return NearbyActions(Neighbours(states, generator.uniform(-1, 1, (50, 1)), LinearQuadratic.action_space), 2, 4)


def played(policy, kind, folder, guided=True, steps=STEPS, start=0, plan=PLAN):
    env = limited(kind) if issubclass(kind, LinearQuadratic) else (lambda: TimeLimit(kind(), STEPS))
    returns, episodes = logged(policy, env, folder)
    maker = WorldMaker(env, episodes)
    assert maker.time_limit == STEPS
    play = TruthPlay(maker, kind.action_space, GAMMA, plan, seed=0)
    base = Base(policy, None, kind.observation_space, kind.action_space)
    starts = [Start(episode, start) for episode in episodes]
    candidates = proposal(kind.observation_space) if guided else None
    with closing(maker):
        return returns, play.returns(base, starts, steps, proposal=candidates)


@pytest.mark.parametrize("kind", [LinearQuadratic, Simulated, Noisy, OwnGenerator])
def test_without_truth_it_repeats_the_policy(kind, tmp_path):
    returns, again = played(Linear(), kind, tmp_path, guided=False)
    assert again == pytest.approx(returns, rel=1e-5)


def test_from_the_middle_it_repeats_the_rest(tmp_path):
    returns, rest = played(Linear(), Simulated, tmp_path, guided=False, steps=20, start=20)
    _, episodes = logged(Linear(), limited(Simulated), tmp_path / "again")
    assert rest == pytest.approx([episode.rewards[20:].sum() for episode in episodes], rel=1e-4)
    assert not np.allclose(rest, returns)


@pytest.mark.parametrize("kind", [LinearQuadratic, Simulated])
def test_the_truth_finds_what_a_poor_policy_misses(kind, tmp_path):
    returns, guided = played(Linear(0.0 * GAIN), kind, tmp_path)
    best, _ = logged(Linear(), limited(kind), tmp_path / "best")
    # It sees 10 steps ahead among 7 candidates: most of the gap, and no more than there is.
    assert (guided > returns).all()
    assert 0.5 < (guided - returns).sum() / (best - returns).sum() < 1.1


@pytest.mark.parametrize("kind", [Noisy, OwnGenerator])
def test_noise_of_a_generator_is_common_to_all_plays_and_unknown_to_the_truth(kind, tmp_path):
    env = limited(kind)
    _, episodes = logged(Linear(), env, tmp_path)
    base = Base(Linear(), None, kind.observation_space, kind.action_space)
    starts = [Start(episode, 20) for episode in episodes]
    with closing(WorldMaker(env, episodes)) as maker:
        first, second = maker(2), maker(2)
        where = np.arange(2)
        for worlds in (first, second):
            worlds.begin(where, episodes[:2], [20, 20])
        still = np.zeros((2, 1), np.float32)
        one, same = first.step(where, still), second.step(where, still)
        assert np.array_equal(one.observations, same.observations)
        # Copies of equal seeds share what is drawn next, copies of different ones do not, and none has the original's.
        second.copy(first, where, np.zeros(2, int), np.array([5, 5]))
        alike = second.step(where, still).observations
        second.copy(first, where, np.zeros(2, int), np.array([5, 6]))
        apart = second.step(where, still).observations
        original = first.step(where[:1], still[:1]).observations
        assert np.array_equal(alike[0], alike[1])
        assert np.array_equal(alike[0], apart[0])
        assert not np.allclose(apart[0], apart[1])
        assert not np.allclose(alike[0], original[0])
        play = TruthPlay(maker, kind.action_space, GAMMA, PLAN, seed=0)
        assert np.array_equal(play.returns(base, starts, 10), play.returns(base, starts, 10))


def test_what_is_neither_state_nor_seed_is_refused(tmp_path):
    _, episodes = logged(Linear(), limited(Forgetful), tmp_path)
    with pytest.raises(InputError, match="the logged observation again"):
        WorldMaker(limited(Forgetful), episodes)


def test_copies_and_arrays_agree(tmp_path):
    _, stepped = played(Linear(0.0 * GAIN), LinearQuadratic, tmp_path / "a")
    _, simulated = played(Linear(0.0 * GAIN), Simulated, tmp_path / "b")
    assert stepped == pytest.approx(simulated, rel=1e-4)


def test_there_is_next_to_nothing_to_find_beside_the_best_policy(tmp_path):
    returns, guided = played(Linear(), Simulated, tmp_path, plan=TruthPlan(horizon=30, num_rollouts=1, noise=0.0))
    poor, _ = logged(Linear(0.0 * GAIN), limited(Simulated), tmp_path / "poor")
    # The best gain is that of the discounted return, and returns are undiscounted.
    assert (guided - returns).mean() < 0.03 * (returns - poor).mean()


def test_the_truth_does_not_know_the_future(tmp_path):
    _, honest = played(Nothing(), Lottery, tmp_path / "a")
    _, clairvoyant = played(Nothing(), Clairvoyant, tmp_path / "b")
    assert abs(honest.mean()) < 2.0
    assert clairvoyant.mean() > 6.0


def test_a_hidden_key_is_exchanged_between_episodes(tmp_path):
    _, episodes = logged(Nothing(), lambda: TimeLimit(Keyed(), STEPS), tmp_path)
    (places, keys) = hidden_constants(episodes)["key"]
    assert places.tolist() == [0]
    assert keys[:, 0].tolist() == [episode.state(0)["key"] for episode in episodes]
    _, guided = played(Nothing(), Keyed, tmp_path / "again")
    # Whoever knew the key would earn 1 in nearly every step.
    assert guided.mean() < 0.3 * STEPS


def test_what_is_seen_or_changes_is_not_exchanged(tmp_path):
    _, episodes = logged(Linear(), limited(Simulated), tmp_path)
    assert hidden_constants(episodes) == {}


@pytest.mark.parametrize("kind", [LinearQuadratic, Simulated])
def test_what_is_played_beside_a_start_does_not_matter(kind, tmp_path):
    env = limited(kind)
    _, episodes = logged(Linear(0.0 * GAIN), env, tmp_path)
    base = Base(Linear(0.0 * GAIN), None, kind.observation_space, kind.action_space)
    with closing(WorldMaker(env, episodes)) as maker:
        play = TruthPlay(maker, kind.action_space, GAMMA, TruthPlan(horizon=5), seed=0)
        candidates = proposal(kind.observation_space)
        starts = [Start(episode, 0) for episode in episodes]
        together = play.returns(base, starts, 12, proposal=candidates)
        apart = [play.returns(base, starts[k : k + 2], 12, proposal=candidates, first=k) for k in (0, 2, 4)]
    assert np.concatenate(apart) == pytest.approx(together, rel=1e-6)


def test_noise_and_rollouts_are_repeatable(tmp_path):
    plan = TruthPlan(num_rollouts=2, horizon=5, noise=0.2, hold=2)
    _, first = played(Linear(0.0 * GAIN), Simulated, tmp_path / "a", plan=plan)
    _, second = played(Linear(0.0 * GAIN), Simulated, tmp_path / "b", plan=plan)
    assert np.array_equal(first, second)


def test_what_cannot_be_restored_is_refused(tmp_path):
    _, episodes = logged(Linear(), limited(Opaque), tmp_path / "opaque")
    with pytest.raises(InputError, match="simulator whose state can be restored"):
        WorldMaker(limited(Opaque), episodes)
    _, episodes = logged(Linear(), limited(Lying), tmp_path / "lying")
    with pytest.raises(InputError, match="does what `step` does"):
        WorldMaker(limited(Lying), episodes)


def test_a_plan_that_makes_no_sense_is_refused():
    with pytest.raises(InputError, match="`horizon` must be >= 1"):
        TruthPlan(horizon=0)
    with pytest.raises(InputError, match="`noise` must be >= 0"):
        TruthPlan(noise=-1.0)
