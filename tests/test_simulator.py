"""Reading and restoring a simulator: what is not exact is refused."""

import gymnasium as gym
import numpy as np
import pytest

from offline_eval.datasets.log import open_log
from offline_eval.datasets.recorder import EpisodeRecorder
from offline_eval.datasets.restoring import return_to
from offline_eval.errors import InputError
from offline_eval.simulator import read_state, restore, simulator_of, split
from offline_eval.wrappers.state_log import StateLogger

CLASSIC = ["Pendulum-v1", "CartPole-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0"]
MUJOCO = ["HalfCheetah-v5", "Hopper-v5", "Reacher-v5", "Ant-v5"]


def env_of(env_id: str, steps: int = 60) -> gym.Env:
    if env_id in MUJOCO:
        pytest.importorskip("mujoco")
    return gym.make(env_id, max_episode_steps=steps)


class Tank(gym.Env):
    """A simulator of its own: a level (float32) and a counter (int32) that decide everything."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,))
    action_space = gym.spaces.Box(-1, 1, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.level, self.ticks = np.array([0.5, 0.25], dtype=np.float32), np.int32(0)
        return self._see(), {}

    def step(self, action):
        self.level = self.level * np.float32(0.9) + action
        self.ticks += np.int32(1)
        return self._see(), float(self.level[0]), False, bool(self.ticks >= 5), {}

    def _see(self):
        return self.level[:1].copy()

    def get_state(self):
        return {"level": self.level, "ticks": self.ticks}

    def set_state(self, state):
        assert state["level"].dtype == np.float32
        assert state["ticks"].dtype == np.int32
        self.level, self.ticks = state["level"].copy(), np.int32(state["ticks"])


def test_a_row_is_split_by_the_layout():
    parts = split((("time", ()), ("qpos", (2,)), ("box", (1, 2))), np.array([[1.0, 2, 3, 4, 5], [6, 7, 8, 9, 10]]))
    assert parts["time"].tolist() == [1, 6]
    assert parts["qpos"].tolist() == [[2, 3], [7, 8]]
    assert parts["box"].tolist() == [[[4, 5]], [[9, 10]]]


def test_pendulums_state_is_its_angle_and_its_speed():
    env = gym.make("Pendulum-v1")
    observation, _ = env.reset(seed=3)
    (angle, speed) = read_state(env)["state"]
    assert np.array_equal(observation, np.array([np.cos(angle), np.sin(angle), speed], dtype=np.float32))


def test_mujocos_state_has_qpos_and_qvel():
    env = env_of("Hopper-v5")
    env.reset(seed=3)
    state = read_state(env)
    assert np.array_equal(state["qpos"], env.unwrapped.data.qpos)
    assert np.array_equal(state["qvel"], env.unwrapped.data.qvel)
    assert state["time"].shape == ()
    assert not np.shares_memory(state["qpos"], env.unwrapped.data.qpos)


def test_an_environment_with_get_state_gets_its_own_dtypes_back():
    env = Tank()
    env.reset()
    env.step(np.float32([0.25]))
    state = read_state(env)
    assert state["ticks"] == 1
    after = env.step(np.float32([0.5]))[0]
    env.reset()
    restore(env, state)
    assert env.step(np.float32([0.5]))[0].tobytes() == after.tobytes()
    assert env.ticks == 2


@pytest.mark.parametrize(
    "state", ["pickled bytes", {"rng": np.array([2**63], dtype=np.uint64)}, {}, None, np.array(["text"])]
)
def test_a_state_that_float64_cannot_hold_is_not_read(state):
    env = Tank()
    env.get_state = lambda: state
    assert simulator_of(env) is None


def test_get_state_that_wants_arguments_is_somebody_elses():
    env = Tank()
    env.get_state = lambda robot: robot
    assert simulator_of(env) is None


def test_an_environment_without_a_readable_state_is_refused():
    class Opaque(gym.Env):
        observation_space = action_space = gym.spaces.Discrete(2)

    assert read_state(Opaque()) is None
    with pytest.raises(InputError, match=r"`env` must have a state that can be set. Received 'Opaque': .*get_state"):
        restore(Opaque(), {"state": np.zeros(2)})


def test_a_state_of_another_environment_is_refused():
    env = gym.make("Pendulum-v1")
    env.reset()
    with pytest.raises(InputError, match=r"`state` must hold \{'state': \(2,\)\}"):
        restore(env, {"state": np.zeros(4)})
    with pytest.raises(InputError, match=r"`state` must be known"):
        restore(env, {"state": np.array([np.nan, 0.0])})


def test_a_restored_episode_has_the_time_left_that_it_had():
    env = gym.make("Pendulum-v1", max_episode_steps=10)
    env.reset(seed=0)
    restore(env, {"state": np.array([0.1, 0.2])}, elapsed_steps=8)
    flags = [env.step(env.action_space.sample())[3] for _ in range(2)]
    assert flags == [False, True]


def logged(env_id, folder, seed=3):
    env = StateLogger(env_of(env_id), folder)
    env.action_space.seed(1)
    env.reset(seed=seed)
    ended = False
    while not ended:
        *_, terminated, truncated, _ = env.step(env.action_space.sample())
        ended = terminated or truncated
    env.close()
    return open_log(folder)[0]


@pytest.mark.parametrize("env_id", [*CLASSIC, *MUJOCO])
def test_what_follows_a_return_equals_the_log_bit_for_bit(env_id, tmp_path):
    episode, env = logged(env_id, tmp_path), env_of(env_id)
    last = len(episode)
    for start in sorted({0, 1, 2, last // 2, last - 1, last}):
        observation = return_to(env, episode, start)
        assert np.array_equal(observation, episode.observations[start])
        for step in range(start, last):
            observation, reward, terminated, truncated, _ = env.step(episode.actions[step])
            assert observation.tobytes() == episode.observations[step + 1].tobytes(), (start, step)
            assert (reward, terminated, truncated) == (
                episode.rewards[step],
                episode.terminated[step],
                episode.truncated[step],
            )


def test_without_the_warm_start_a_restored_hopper_leaves_its_track(tmp_path):
    # Why more than qpos and qvel is kept: the solver starts elsewhere.
    episode, env = logged("Hopper-v5", tmp_path), env_of("Hopper-v5")
    differs = []
    for start in range(1, len(episode)):
        env.reset()
        env.unwrapped.set_state(episode.states["qpos"][start], episode.states["qvel"][start])
        observation = env.step(episode.actions[start])[0]
        differs.append(not np.array_equal(observation, episode.observations[start + 1]))
    assert any(differs)


def test_a_return_to_the_first_step_works_without_a_seed(tmp_path):
    episode, env = logged("Pendulum-v1", tmp_path, seed=None), gym.make("Pendulum-v1")
    assert np.array_equal(return_to(env, episode, 0), episode.observations[0])
    assert np.array_equal(env.step(episode.actions[0])[0], episode.observations[1])


def test_a_return_into_another_environment_is_refused(tmp_path):
    episode = logged("Pendulum-v1", tmp_path)
    with pytest.raises(InputError, match=r"`env` must show the logged observation again at step 5"):
        return_to(gym.make("Pendulum-v1", g=9.0), episode, 5)
    with pytest.raises(InputError, match=r"`step` must be from 0 to 60"):
        return_to(gym.make("Pendulum-v1"), episode, 61)


def test_an_episode_without_states_says_so():
    recorder = EpisodeRecorder()
    recorder.reset(0, np.zeros(3, dtype=np.float32), seed=1)
    recorder.step(0, None, np.zeros(1), 0.0, False, True, np.zeros(3, dtype=np.float32))
    with pytest.raises(InputError, match=r"`episode` must hold the simulator's states"):
        recorder.finish(0).state(0)
