"""Invariance is a checked claim: episodes are played again, and what differs is mended or said."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from environments import Counter, Zero
from episode_stores import MemoryStore
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import NormalizeObservation, NormalizeReward, RecordEpisodeStatistics
from gymnasium.wrappers import vector as vector_wrappers
from stable_baselines3.common.atari_wrappers import EpisodicLifeEnv
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from offline_eval.datasets.log import open_log
from offline_eval.episodes import EpisodePlan, StateLog, evaluate, evaluate_rules
from offline_eval.episodes.schedule import Replay, Schedule
from offline_eval.errors import InputError
from offline_eval.run_folder import RunFolder, read_episodes
from offline_eval.wrappers import MultiplyAction

PLAN = EpisodePlan.seeded(6, seed=10)


class Pays(Counter):
    """Pays what its seed draws, three steps long."""

    def __init__(self):
        super().__init__(3)
        self.resets = 0

    def reset(self, *, seed=None, options=None):
        self.resets += 1
        observation, info = super().reset(seed=seed)
        self.pay = float(self.np_random.normal())
        return observation, info

    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, self.pay, *rest


class Worn(Pays):
    """Wears out: each episode pays less than the one before, whatever the seed."""

    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, reward - self.resets, *rest


class SecondUnseeded(Pays):
    """Ignores the seed of its second reset only."""

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed if self.resets != 1 else int(np.random.default_rng().integers(2**31)))


class Shared(Pays):
    """Counts the episodes of all its kind, so that no new environment is like another."""

    total = 0

    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, reward + type(self).total, *rest

    def reset(self, *, seed=None, options=None):
        type(self).total += 1
        return super().reset(seed=seed)


class Game(gym.Env):
    """Three lives of as many steps as the seed says, 1 a step; the policy has to press 1 to go on after a loss."""

    observation_space = gym.spaces.Box(-1, 99, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self):
        self.left = 0
        self.ale = self

    def lives(self):
        return self.left

    def get_action_meanings(self):
        return ["NOOP", "FIRE"]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left, self.steps, self.per_life = 3, 0, 2 + int(self.np_random.integers(4))
        return self._observation(), {}

    def step(self, action):
        self.steps += 1
        if self.steps % self.per_life == 0:
            self.left -= 1
        return self._observation(), 1.0, self.left == 0, False, {}

    def _observation(self):
        return np.array([self.left, self.steps], np.float32)


class EndsAtLoss(gym.Wrapper):
    """Terminates at a lost life, and its reset then shows where the game stands without a step."""

    over = True

    def reset(self, **words):
        if self.over:
            self.last = self.env.reset(**words)[0]
        return self.last, {}

    def step(self, action):
        before = self.unwrapped.lives()
        self.last, reward, self.over, truncated, info = self.env.step(action)
        return self.last, reward, self.over or self.unwrapped.lives() < before, truncated, info


class Press:
    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.zeros(len(observation), dtype=int), None


def test_each_replay_has_another_past_than_its_episode():
    # Two seats: episodes 0 and 1 begin in new environments, the others do not.
    checked = Schedule(EpisodePlan.seeded(5)).checked_by(3, range(5), 2)
    assert checked.replays == (Replay(4, True), Replay(2, True), Replay(0, False))
    assert checked.replay_numbers == [5, 6, 7]
    assert [checked.turn(number)[1:] for number in (4, 6, 7)] == [
        (0, False, False),
        (0, True, True),
        (0, False, True),
    ]
    everything = Schedule(EpisodePlan.seeded(2)).checked_by(3, range(2), 2)
    assert everything.replays == (Replay(1, False), Replay(0, False))
    assert all(replay.fresh for replay in Schedule(PLAN, fresh=True).checked_by(3, range(6), 6).replays)


@pytest.mark.parametrize("n_envs", [1, 2, 6])
def test_a_sound_environment_is_checked_on_three_episodes(n_envs):
    result = evaluate(Zero(), Pays, PLAN, n_envs=n_envs)
    assert (result.invariant, str(result.invariance)) == (True, "checked on 3 of 6 episodes")
    assert (len(result.episodes), result.notes) == (6, ())


@pytest.mark.parametrize("n_envs", [1, 2, 6])
def test_an_environment_that_keeps_something_gets_a_new_one_for_each_episode(n_envs, tmp_path):
    result = evaluate(Zero(), Worn, PLAN, n_envs=n_envs, store=StateLog(tmp_path))
    expected = [3 * (np.random.default_rng(0).normal() * 0 + _pay(seed) - 1) for seed in range(10, 16)]
    assert result.returns == pytest.approx(expected)
    assert result.invariant
    assert result.invariance.fresh
    assert "a used one keeps something of earlier episodes (seed 1" in result.notes[0]
    assert [episode.episode_return for episode in open_log(tmp_path)] == pytest.approx(expected)


def _pay(seed):
    env = Pays()
    env.reset(seed=seed)
    return env.pay


@pytest.mark.parametrize("n_envs", [1, 2, 6])
def test_a_seed_that_is_ignored_once_is_found(n_envs):
    result = evaluate(Zero(), SecondUnseeded, PLAN, n_envs=n_envs)
    assert result.invariant
    assert result.invariance.fresh
    assert result.returns == pytest.approx([3 * _pay(seed) for seed in range(10, 16)])


@pytest.mark.parametrize("workers", [1, 2])
def test_what_new_environments_do_not_mend_is_not_invariant(workers):
    result = evaluate(Zero(), Shared, PLAN, n_envs=2, workers=workers)
    assert result.invariant is False
    assert "not invariant: " in result.notes[0]
    assert "and, played again," in result.notes[0]


def test_what_was_not_checked_says_so():
    for env, reason in (
        (Pays(), "a finished environment cannot be made anew"),
        (SyncVectorEnv([Pays] * 2), "a finished environment cannot be made anew"),
        (lambda: SyncVectorEnv([Pays] * 2), "a vector begins its episodes together"),
    ):
        result = evaluate(Zero(), env, PLAN)
        assert result.invariant is None
        assert str(result.invariance).startswith(f"not checked: {reason}")
    assert evaluate(Zero(), Pays, PLAN, replays=0).invariant is None
    with pytest.raises(InputError, match="`fresh` must be left out for a finished environment"):
        evaluate(Zero(), Pays(), PLAN, fresh=True)


def test_rules_side_by_side_are_checked_together():
    found = evaluate_rules(Zero(), Worn, PLAN, {"plain": None, "twice": MultiplyAction(2.0)}, n_envs=4)
    assert {(one.invariant, one.invariance.of, one.invariance.fresh) for one in found.values()} == {(True, 12, True)}
    assert found["plain"].returns.tolist() == evaluate(Zero(), Worn, PLAN).returns.tolist()


def test_a_resumed_run_does_not_mix_used_and_new_environments(tmp_path):
    asked = {"env": "Worn", "agents": {}, "plan": [], "variants": {"plain": None}, "options": {}}
    whole = evaluate(Zero(), Worn, PLAN, n_envs=2)
    used = evaluate(Zero(), Worn, PLAN, n_envs=2, replays=0)
    folder = RunFolder(tmp_path, asked)
    for episode in (*used.episodes, *whole.episodes[:2]):  # killed after two of the second round
        folder.record("plain", episode)
    done = RunFolder(tmp_path, asked, resume=True).done("plain")
    assert [episode.fresh for episode in done] == [True, True, False, False, False, False]
    assert evaluate(Zero(), Worn, PLAN, n_envs=2, store=MemoryStore({"": done})).episodes == whole.episodes
    # Killed in the first round: what is there was played in used environments.
    assert evaluate(Zero(), Worn, PLAN, n_envs=1, store=MemoryStore({"": used.episodes[:4]})).episodes == whole.episodes
    assert read_episodes(tmp_path)["plain"]


@pytest.mark.parametrize("lives", [EpisodicLifeEnv, EndsAtLoss])
@pytest.mark.parametrize("count", [Monitor, RecordEpisodeStatistics])
def test_a_game_is_over_when_what_counts_inside_says_so(lives, count):
    def make():
        return lives(count(Game()))

    expected = []
    for seed in range(10, 16):
        venv = DummyVecEnv([lambda: lives(Monitor(Game()))])
        venv.seed(seed)
        expected.append(evaluate_policy(Press(), venv, n_eval_episodes=1, return_episode_rewards=True, warn=False))
    for n_envs in (1, 4):
        result = evaluate(Press(), make, PLAN, n_envs=n_envs)
        assert [([e.episode_return], [e.length]) for e in result.episodes] == expected
        assert all(episode.terminated for episode in result.episodes)
        assert result.invariant
        assert not result.invariance.fresh


def test_in_a_vec_env_a_game_begins_anew_whatever_the_others_did():
    result = evaluate(Press(), DummyVecEnv([lambda: EpisodicLifeEnv(Monitor(Game()))] * 3), PLAN)
    single = evaluate(Press(), lambda: EpisodicLifeEnv(Monitor(Game())), PLAN)
    assert result.returns.tolist() == single.returns.tolist()


def test_a_wrapper_that_cannot_begin_anew_fails_those_episodes():
    result = evaluate(Press(), DummyVecEnv([lambda: EndsAtLoss(Monitor(Game()))] * 3), PLAN)
    assert any("must begin anew" in str(episode.failed) for episode in result.episodes[3:])
    whole = {episode.seed: episode.episode_return for episode in evaluate(Press(), Game, PLAN).episodes}
    assert all(episode.episode_return == whole[episode.seed] for episode in result.episodes if not episode.failed)


class Observed(Zero):
    """Pays nothing for what it sees, but its actions follow it."""

    def predict(self, observation, **others):
        return np.clip(np.asarray(observation)[:, :1], -1, 1).astype(np.float32), None


def test_running_normalisers_are_held_still_and_given_back():
    env = NormalizeReward(NormalizeObservation(gym.make("Pendulum-v1", max_episode_steps=20)))
    env.env.obs_rms.mean[:] = 0.5
    env.env.obs_rms.count = 10.0
    evaluate(Observed(), env, EpisodePlan.seeded(2))
    assert env.update_running_mean
    assert env.env.update_running_mean
    assert env.env.obs_rms.count == 10.0
    assert env.return_rms.count < 1
    vector = vector_wrappers.NormalizeObservation(SyncVectorEnv([lambda: Counter(3)] * 2))
    evaluate(Zero(), vector, EpisodePlan.seeded(2))
    assert vector.obs_rms.count < 1


def test_rewards_are_those_before_a_running_normaliser():
    plain = evaluate(Zero(), lambda: gym.make("Pendulum-v1", max_episode_steps=20), PLAN)
    scaled = evaluate(Zero(), lambda: NormalizeReward(gym.make("Pendulum-v1", max_episode_steps=20)), PLAN)
    assert scaled.returns.tolist() == plain.returns.tolist()
    assert scaled.invariant
    assert "returns are those before it" in scaled.notes[0]


def test_what_workers_note_comes_back():
    def make():
        return NormalizeObservation(Pays())

    here, there = (evaluate(Zero(), make, PLAN, n_envs=2, workers=workers) for workers in (1, 2))
    assert "is new and was held still" in here.notes[0]
    assert there.notes == here.notes
    assert there.invariant
    assert there.returns.tolist() == here.returns.tolist()


def test_a_vector_whose_episodes_end_at_lost_lives_says_so():
    vector = gym.vector.SyncVectorEnv([lambda: EpisodicLifeEnv(Monitor(Game()))] * 2)
    result = evaluate(Press(), vector, PLAN)
    assert any("at every lost life" in note for note in result.notes)
    plain = evaluate(Press(), gym.vector.SyncVectorEnv([lambda: Monitor(Game())] * 2), PLAN)
    assert not any("lost life" in note for note in plain.notes)
