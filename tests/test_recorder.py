"""The recorder: an episode is what went in, step by step."""

import gymnasium as gym
import numpy as np
import pytest
from log_episodes import episode_of

from offline_eval.datasets.recorder import EpisodeRecorder
from offline_eval.errors import InputError


def test_a_recorded_episode_is_what_went_in():
    recorder = EpisodeRecorder(2)
    buffer = np.array([1.0, 2.0])
    recorder.reset(1, buffer, seed=5, key=7, options={"low": 1})
    for step in range(3):
        buffer += 1.0  # an environment that reuses its array
        recorder.step(1, np.float32([9 + step]), np.float32([step]), 0.5 * step, False, step == 2, buffer)
    episode = recorder.finish(1, {"variant": "plain"})
    assert episode.observations.tolist() == [[1, 2], [2, 3], [3, 4], [4, 5]]
    assert episode.actions.tolist() == [[0], [1], [2]]
    assert episode.policy_actions.tolist() == [[9], [10], [11]]
    assert episode.rewards.tolist() == [0.0, 0.5, 1.0]
    assert episode.episode_return == 1.5
    assert episode.truncated.tolist() == [False, False, True]
    assert not episode.terminated.any()
    assert (episode.seed, episode.key, episode.options) == (5, 7, {"low": 1})
    assert episode.metadata == {"variant": "plain"}
    assert not recorder.is_recording(1)


def test_long_episodes_and_wider_numbers_fit():
    recorder = EpisodeRecorder()
    recorder.reset(0, np.zeros(1, dtype=np.float32))
    for step in range(1000):
        recorder.step(0, None, 3, 1, False, step == 999, np.full(1, step + 0.1))
    episode = recorder.finish(0)
    assert episode.observations.dtype == np.float64
    assert episode.observations[1000, 0] == 999.1
    assert episode.actions.tolist() == [3] * 1000
    assert episode.policy_actions is episode.actions


def test_steering_may_begin_in_the_middle():
    recorder = EpisodeRecorder()
    recorder.reset(0, np.zeros(2))
    for policy_action, action in [(None, 1), (5, 2), (None, 3)]:
        recorder.step(0, policy_action, action, 0.0, False, False, np.zeros(2))
    episode = recorder.finish(0)
    assert episode.policy_actions.tolist() == [1, 5, 3]
    assert episode.actions.tolist() == [1, 2, 3]


def test_states_lie_beside_the_observations_and_nan_where_they_are_unknown():
    env = gym.make("Pendulum-v1")
    recorder = EpisodeRecorder()
    observation, _ = env.reset(seed=0)
    recorder.reset(0, observation, env=env)
    expected = [env.unwrapped.state]
    for step in range(3):
        observation, *_ = env.step(np.zeros(1, dtype=np.float32))
        recorder.step(0, None, np.zeros(1), 0.0, False, step == 2, observation, None if step == 2 else env)
        expected.append(env.unwrapped.state)
    states = recorder.finish(0).states["state"]
    assert np.array_equal(states[:3], expected[:3])
    assert np.isnan(states[3]).all()


def test_an_empty_slot_has_nothing_to_step_or_finish():
    recorder = EpisodeRecorder()
    for act in (lambda: recorder.step(0, None, 1, 0.0, False, False, 1), lambda: recorder.finish(0)):
        with pytest.raises(InputError, match=r"`slot` must hold an episode: reset it first"):
            act()
    assert not recorder.discard(0)
    recorder.reset(0, np.zeros(2))
    assert not recorder.discard(0)  # an episode of no steps is none
    recorder.reset(0, np.zeros(2))
    with pytest.raises(InputError, match="at least one step"):
        recorder.finish(0)


@pytest.mark.parametrize(
    ("changes", "argument"),
    [
        ({"observations": np.zeros((2, 2))}, "observations"),
        ({"actions": np.zeros((3, 1))}, "actions"),
        ({"states": {"qpos": np.zeros((2, 2))}}, "qpos"),
        ({"rewards": np.zeros(0)}, "rewards"),
        ({"key": -1}, "key"),
    ],
)
def test_an_episode_that_does_not_fit_together_is_refused(changes, argument):
    with pytest.raises(InputError, match=f"`{argument}` must"):
        episode_of(**changes)
