"""`StateLogger` on its hosts: the log holds what passed by, whoever resets, and changes nothing."""

import errno
import os

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import Autoreset, TimeLimit
from stable_baselines3.common.env_checker import check_env as check_env_of_sb3
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from offline_eval import files
from offline_eval.datasets.log import open_log
from offline_eval.errors import SpaceError, StorageError
from offline_eval.wrappers.state_log import EXECUTED_ACTION, StateLogger, VectorStateLogger
from offline_eval.wrappers.state_log_sb3 import VecEnvStateLogger


class Count(gym.Env):
    """Adds its actions up from the seed on; terminates at 100."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float64)
    action_space = gym.spaces.Box(-1000, 1000, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = float(-1 if seed is None else seed)
        return np.array([self.state]), {"start": self.state}

    def step(self, action):
        self.state += float(action[0])
        return np.array([self.state]), 2 * self.state, self.state >= 100, False, {"now": self.state}

    def get_state(self):
        return np.array([self.state])

    def set_state(self, state):
        self.state = float(state[0])


class Half(gym.ActionWrapper):
    """Steers: executes half of the action, and tells so in the info as the steering wrappers do."""

    def step(self, action):
        observation, reward, terminated, truncated, info = self.env.step(action / 2)
        return observation, reward, terminated, truncated, info | {EXECUTED_ACTION: action / 2}


def count(steps=3, steered=False):
    env = TimeLimit(Count(), steps)
    return Half(env) if steered else env


def act(env, actions):
    return [env.step(np.float32([action])) for action in actions]


# One environment


def test_a_log_holds_what_passed_by(tmp_path):
    env = StateLogger(count(), tmp_path, metadata={"variant": "plain"})
    env.reset(seed=5, options={"hard": True})
    act(env, [1, 2, 4])
    env.reset()
    act(env, [200])
    env.close()
    first, second = open_log(tmp_path)
    assert first.observations.tolist() == [[5], [6], [8], [12]]
    assert first.actions.tolist() == first.policy_actions.tolist() == [[1], [2], [4]]
    assert first.rewards.tolist() == [12, 16, 24]
    assert (first.terminated.tolist(), first.truncated.tolist()) == ([False] * 3, [False, False, True])
    assert first.states["state"].tolist() == [[5], [6], [8], [12]]
    assert (first.seed, first.options, first.key, first.metadata) == (5, {"hard": True}, None, {"variant": "plain"})
    assert second.observations.tolist() == [[-1], [199]]
    assert (second.terminated.tolist(), second.truncated.tolist()) == ([True], [False])
    assert (second.seed, second.options) == (None, None)
    assert open_log(tmp_path).env_id == "Count"


def test_nothing_is_changed_on_the_way(tmp_path):
    plain, env = count(), StateLogger(count(), tmp_path)
    assert plain.reset(seed=1) == env.reset(seed=1)
    for expected, found in zip(act(plain, [1, 2, 4]), act(env, [1, 2, 4]), strict=True):
        assert expected == found


def test_episodes_that_a_reset_or_the_end_cuts_off_are_dropped_and_counted(tmp_path):
    env = StateLogger(count(), tmp_path)
    env.reset()
    act(env, [1, 1])
    env.reset()  # cut off
    env.reset()  # nothing had happened
    act(env, [1, 1, 1])
    env.reset()
    act(env, [1])
    env.close()  # cut off
    assert env.dropped == 2
    assert len(open_log(tmp_path)) == 1


def test_outside_of_steering_both_actions_are_logged_and_inside_the_executed(tmp_path):
    outside, inside = StateLogger(count(steered=True), tmp_path / "out"), Half(StateLogger(count(), tmp_path / "in"))
    for env in (outside, inside):
        env.reset(seed=0)
        act(env, [2, 4, 8])
        env.close()
    (seen_outside,), (seen_inside,) = open_log(tmp_path / "out"), open_log(tmp_path / "in")
    assert seen_outside.policy_actions.tolist() == [[2], [4], [8]]
    assert seen_outside.actions.tolist() == [[1], [2], [4]]
    assert seen_inside.policy_actions.tolist() == seen_inside.actions.tolist() == [[1], [2], [4]]
    assert np.array_equal(seen_outside.observations, seen_inside.observations)


def test_an_environment_that_resets_itself_begins_its_next_episode(tmp_path):
    env = StateLogger(Autoreset(count()), tmp_path)
    env.reset(seed=7)
    act(env, [1, 1, 1, 50, 2, 2, 2])  # the 50 only resets
    env.close()
    assert [episode.observations[:, 0].tolist() for episode in open_log(tmp_path)] == [[7, 8, 9, 10], [-1, 1, 3, 5]]


def test_steps_after_the_end_are_not_logged(tmp_path):
    env = StateLogger(count(), tmp_path)
    env.reset()
    act(env, [1, 1, 1, 1, 1])
    env.close()
    assert [len(episode) for episode in open_log(tmp_path)] == [3]


def test_a_full_disk_is_reported_and_the_environment_goes_on(tmp_path, monkeypatch):
    env = StateLogger(count(), tmp_path)
    env.reset(seed=1)
    act(env, [1, 1, 1])
    env.reset(seed=2)
    with monkeypatch.context() as patch:

        def full(descriptor, content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patch.setattr(files.os, "write", full)
        with pytest.raises(StorageError, match=r"No space left on device. What it holds stays \(1 finished episode\)"):
            act(env, [1, 1, 1])
    env.reset(seed=3)
    act(env, [1, 1, 1])
    env.close()
    assert [episode.seed for episode in open_log(tmp_path)] == [1, 3]


def test_spaces_and_folders_are_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot take a log"):
        StateLogger(count(), tmp_path / "file")
    text = gym.wrappers.TransformObservation(count(), lambda observation: "text", gym.spaces.Text(5))
    with pytest.raises(SpaceError, match="`observation_space` must be a Box"):
        StateLogger(text, tmp_path / "text")


def test_the_spec_rebuilds_the_stack(tmp_path):
    env = StateLogger(gym.make("Pendulum-v1"), tmp_path, metadata={"variant": "plain"})
    again = gym.make(env.spec)
    assert str(again) == str(env)
    again.reset(seed=0)
    for _ in range(200):
        again.step(np.zeros(1, dtype=np.float32))
    again.close()
    (episode,) = open_log(tmp_path)
    assert episode.metadata == {"variant": "plain"}
    assert len(episode) == 200


@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version", "ignore:.*symmetric and normalized")
def test_both_environment_checkers_pass(tmp_path):
    env = StateLogger(gym.make("Pendulum-v1", disable_env_checker=True), tmp_path)
    check_env(env, skip_render_check=True)
    check_env_of_sb3(env, skip_render_check=True)


# Many environments


def rows(episode):
    """What hosts must agree on; a vector that resets in the same step lacks the last state."""
    return {
        "observations": episode.observations.tolist(),
        "actions": episode.actions.tolist(),
        "policy_actions": episode.policy_actions.tolist(),
        "rewards": episode.rewards.tolist(),
        "terminated": episode.terminated.tolist(),
        "truncated": episode.truncated.tolist(),
        "seed": episode.seed,
        "states": episode.states["state"][:-1].tolist(),
    }


# The first environment terminates in its second step, the second is truncated in its third, and both end once more.
FIRST, SECOND = [10, 200, 1, 2, 3], [1, 2, 4, 300]
SEEDS = [3, 4]


def expected_rows(folder, steered):
    env = StateLogger(count(steered=steered), folder)
    for seed, actions in ((SEEDS[0], FIRST), (SEEDS[1], SECOND)):
        remaining = list(actions)
        env.reset(seed=seed)
        while remaining:
            ((_, _, terminated, truncated, _),) = act(env, [remaining.pop(0)])
            if (terminated or truncated) and remaining:
                env.reset()
    env.close()
    return [rows(episode) for episode in open_log(folder)]


def play_next_step(env):
    env.reset(seed=SEEDS[0])
    # The step after an end resets and ignores its action.
    for pair in zip([10, 200, 77, 1, 2, 3], [1, 2, 4, 77, 300, 77], strict=True):
        env.step(np.float32(pair).reshape(2, 1))


def play_same_step(env):
    env.reset(seed=list(SEEDS))
    for pair in zip(FIRST, [*SECOND, 5], strict=True):
        env.step(np.float32(pair).reshape(2, 1))


def play_disabled(env):
    env.reset(seed=SEEDS[0])
    for pair in zip(FIRST, [*SECOND, 5], strict=True):
        _, _, terminated, truncated, _ = env.step(np.float32(pair).reshape(2, 1))
        ended = terminated | truncated
        if ended.any():
            env.reset(options={"reset_mask": ended})


@pytest.mark.parametrize("steered", [False, True])
@pytest.mark.parametrize(
    ("mode", "play"),
    [
        (AutoresetMode.NEXT_STEP, play_next_step),
        (AutoresetMode.SAME_STEP, play_same_step),
        (AutoresetMode.DISABLED, play_disabled),
    ],
)
def test_a_vector_logs_what_single_environments_log(mode, play, steered, tmp_path):
    vector = SyncVectorEnv([lambda: count(steered=steered)] * 2, autoreset_mode=mode)
    env = VectorStateLogger(vector, tmp_path / "vector")
    play(env)
    env.close()
    log = open_log(tmp_path / "vector")
    expected = expected_rows(tmp_path / "single", steered)
    assert sorted(map(repr, map(rows, log))) == sorted(map(repr, expected))
    known = [np.isfinite(episode.states["state"][-1, 0]) for episode in log]
    assert known == [mode != AutoresetMode.SAME_STEP] * 4


@pytest.mark.parametrize("steered", [False, True])
def test_a_vec_env_logs_what_single_environments_log(steered, tmp_path):
    env = VecEnvStateLogger(DummyVecEnv([lambda: count(steered=steered)] * 2), tmp_path / "vec")
    env.seed(SEEDS[0])
    env.reset()
    for pair in zip(FIRST, [*SECOND, 5], strict=True):
        env.step(np.float32(pair).reshape(2, 1))
    env.close()
    log = open_log(tmp_path / "vec")
    expected = expected_rows(tmp_path / "single", steered)
    assert sorted(map(repr, map(rows, log))) == sorted(map(repr, expected))
    assert all(np.isnan(episode.states["state"][-1, 0]) for episode in log)


def test_a_vec_env_passes_everything_on(tmp_path):
    plain, env = DummyVecEnv([count] * 2), VecEnvStateLogger(DummyVecEnv([count] * 2), tmp_path)
    for venv in (plain, env):
        venv.seed(1)
    assert np.array_equal(plain.reset(), env.reset())
    for _ in range(4):
        expected, found = (venv.step(np.float32([[1], [2]])) for venv in (plain, env))
        for one, other in zip(expected, found, strict=True):
            assert np.array_equal(one, other)


def test_a_vec_normalize_above_leaves_the_log_alone(tmp_path):
    env = VecNormalize(VecEnvStateLogger(DummyVecEnv([count]), tmp_path))
    env.seed(3)
    env.reset()
    for _ in range(3):
        env.step(np.float32([[1]]))
    env.close()
    (episode,) = open_log(tmp_path)
    assert episode.observations[:, 0].tolist() == [3, 4, 5, 6]
    assert episode.rewards.tolist() == [8, 10, 12]


def test_episodes_that_end_together_share_a_shard(tmp_path):
    env = VectorStateLogger(SyncVectorEnv([count] * 3), tmp_path)
    env.reset(seed=0)
    for _ in range(3):
        env.step(np.ones((3, 1), dtype=np.float32))
    env.close()
    log = open_log(tmp_path)
    assert [entry.seed for entry in log.entries] == [0, 1, 2]
    assert len({entry.shard for entry in log.entries}) == 1


def test_simulators_in_other_processes_are_not_read(tmp_path):
    env = VectorStateLogger(AsyncVectorEnv([count], context="spawn"), tmp_path / "log")
    env.reset(seed=4)
    for _ in range(3):
        env.step(np.ones((1, 1), dtype=np.float32))
    env.close()
    (episode,) = open_log(tmp_path / "log")
    assert (episode.seed, episode.states) == (4, {})
    assert episode.observations[:, 0].tolist() == [4, 5, 6, 7]


def test_a_vector_with_one_generator_gives_its_episodes_no_seed(tmp_path):
    env = VectorStateLogger(gym.make_vec("CartPole-v1", num_envs=2, max_episode_steps=3), tmp_path)
    env.reset(seed=0)
    for _ in range(3):
        env.step(np.zeros(2, dtype=np.int64))
    env.close()
    log = open_log(tmp_path)
    assert [(episode.seed, len(episode), episode.states) for episode in log] == [(None, 3, {})] * 2
    assert log.env_id == "CartPole-v1"


def test_dict_observations_pass_every_host(tmp_path):
    def make():
        space = gym.spaces.Dict({"value": Count.observation_space})
        return gym.wrappers.TransformObservation(count(), lambda observation: {"value": observation}, space)

    single = StateLogger(make(), tmp_path / "single")
    single.reset(seed=1)
    act(single, [1, 2, 3])
    single.close()
    vector = VectorStateLogger(SyncVectorEnv([make], autoreset_mode="SameStep"), tmp_path / "vector")
    vector.reset(seed=1)
    act(vector, [[1], [2], [3]])
    vector.close()
    venv = VecEnvStateLogger(DummyVecEnv([make]), tmp_path / "vec")
    venv.seed(1)
    venv.reset()
    act(venv, [[1], [2], [3]])
    venv.close()
    for host in ("single", "vector", "vec"):
        (episode,) = open_log(tmp_path / host)
        assert episode.observations["value"][:, 0].tolist() == [1, 2, 4, 7]
