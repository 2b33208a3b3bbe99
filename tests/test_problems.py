"""The problems' environments: hand numbers, restored states, batches, and answers that satisfy Bellman's equation."""

from __future__ import annotations

import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium.utils.env_checker import check_env

from offline_eval.environments import environment_factory, register_own
from offline_eval.episodes import EpisodePlan, evaluate
from offline_eval.errors import InputError
from offline_eval.policies import critic_of
from offline_eval.problems import LinearQuadratic, LinearQuadraticProblem, MazeProblem, TwoModeMaze
from offline_eval.problems.dynamics import GAMMA, noise_at
from offline_eval.simulator import read_state, restore

IDS = ("offline_eval/TwoModeMaze-v0", "offline_eval/LinearQuadratic-v0")


@pytest.fixture(scope="module")
def maze():
    return MazeProblem()


@pytest.fixture(scope="module")
def carts():
    return LinearQuadraticProblem(3)


@pytest.fixture(params=["maze", "carts"])
def problem(request):
    return request.getfixturevalue(request.param)


# ------------------------------------------------------------------------------------------------ environments


def test_a_step_of_the_maze_by_hand():
    env = TwoModeMaze()
    env.reset(seed=0)
    env.set_state({"state": np.array([-1.0, 0.3]), "key": np.array(5.0), "clock": np.array(0.0)})
    observation, reward, terminated, truncated, _ = env.step(np.array([2.0, -0.5]))
    # The action is clipped to (1, -0.5); 0.1 * (2^2 + 0.3^2), the bump's tail, and 0.01 * (1 + 0.25).
    assert reward == pytest.approx(-(0.409 + 0.4 * np.exp(-1.09 / 0.18) + 0.0125))
    noise = noise_at(5, 0, 2)
    assert observation == pytest.approx([-0.9 + 0.02 * noise[0], 0.25 + 0.02 * noise[1]])
    assert not terminated
    assert not truncated


def test_a_step_of_the_carts_by_hand():
    env = LinearQuadratic()
    env.reset(seed=0)
    env.set_state({"state": np.array([1.0, 2.0, 0.0, 0.0]), "key": np.array(5.0), "clock": np.array(0.0)})
    observation, reward, *_ = env.step(np.array([1.0, 9.0]))
    assert reward == pytest.approx(-(0.1 + 0.01 * 4 + 0.05 * (1 + 9)))
    assert observation == pytest.approx(np.array([1.2, 1.9 + 0.2, 0.0, 0.6]) + 0.01 * noise_at(5, 0, 4), abs=1e-6)


@pytest.mark.filterwarnings("ignore:.*symmetric and normalized space:UserWarning")  # the carts' box is [-3, 3]
@pytest.mark.parametrize("env_id", IDS)
def test_gymnasium_accepts_it(env_id):
    register_own()
    check_env(gym.make(env_id, disable_env_checker=True).unwrapped, skip_render_check=True)


def test_plants_differ_and_are_the_same_again():
    first, second, again = (LinearQuadratic(plant=number).dynamics.dynamics for number in (1, 2, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("made", [TwoModeMaze, LinearQuadratic])
def test_broad_starts_are_broader(made):
    def spread(breadth):
        env = made(breadth=breadth)
        return np.std([env.reset(seed=seed)[0] for seed in range(50)], axis=0)

    assert (spread(1.0) > 1.5 * spread(0.0)).all()


@pytest.mark.parametrize(("made", "words"), [(TwoModeMaze, {"breadth": -1}), (LinearQuadratic, {"plant": -1})])
def test_words_out_of_range_are_refused(made, words):
    with pytest.raises(InputError, match=next(iter(words))):
        made(**words)


def test_the_picture_shows_goal_and_point():
    env = TwoModeMaze(render_mode="rgb_array")
    env.reset(seed=0)
    picture = env.render()
    assert picture.shape == (240, 320, 3)
    assert picture[120, 260].tolist() == [40, 160, 70]  # (1, 0), the goal
    assert picture[120, 160, 0] < picture[10, 160, 0]  # the bump is darker than the wall above it


# ------------------------------------------------------------------------------------------------ restored states


def test_a_restored_state_repeats_its_future(problem):
    env = gym.make(problem.env(1.0), disable_env_checker=True)
    env.reset(seed=4)
    actions = np.random.default_rng(0).uniform(-1, 1, (20, 2)).astype(np.float32)
    for action in actions[:7]:
        env.step(action)
    state = read_state(env)
    first = [env.step(action)[:2] for action in actions]
    env.reset(seed=9)
    restore(env, state)
    second = [env.step(action)[:2] for action in actions]
    for (seen, paid), (seen_again, paid_again) in zip(first, second, strict=True):
        assert np.array_equal(seen, seen_again)
        assert paid == paid_again
    restore(env, {**state, "key": state["key"] + 1})
    assert not np.array_equal(env.step(actions[0])[0], first[0][0])


def test_a_batch_steps_as_single_environments_do(problem):
    env = gym.make(problem.env(1.0), disable_env_checker=True).unwrapped
    states, actions = [], np.random.default_rng(1).uniform(-4, 4, (6, 2))
    expected = []
    for seed, action in enumerate(actions):
        env.reset(seed=seed)
        states.append(env.get_state())
        observation, reward, *_ = env.step(action)
        expected.append((observation, reward, env.get_state()))
    stacked = {name: np.stack([state[name] for state in states]) for name in states[0]}
    following, observations, rewards, terminated = env.simulate(stacked, actions)
    assert observations == pytest.approx(np.stack([seen for seen, _, _ in expected]))
    assert rewards == pytest.approx([paid for _, paid, _ in expected])
    for name, part in following.items():
        assert part == pytest.approx(np.stack([state[name] for _, _, state in expected]))
    assert not terminated.any()


def test_another_future_is_another_one_and_can_be_had_again(problem):
    env = gym.make(problem.env(), disable_env_checker=True).unwrapped
    env.reset(seed=0)
    states = {name: np.stack([part] * 3) for name, part in env.get_state().items()}
    changed = env.with_future(states, np.array([4, 5, 4]))
    _, observations, *_ = env.simulate(changed, np.zeros((3, 2)))
    assert np.array_equal(observations[0], observations[2])
    assert not np.array_equal(observations[0], observations[1])
    assert np.array_equal(changed["state"], states["state"])


@pytest.mark.parametrize("env_id", IDS)
def test_the_table_is_the_same_for_any_number_of_environments(env_id, maze):
    policy = maze.oracle if "Maze" in env_id else LinearQuadraticProblem().oracle
    plan = EpisodePlan.seeded(5, seed=3)
    tables = [evaluate(policy, env_id, plan, n_envs=n_envs).returns for n_envs in (1, 3)]
    assert np.array_equal(*tables)


# ------------------------------------------------------------------------------------------------ answers


def test_the_best_gain_leaves_no_better_linear_policy(carts):
    """Every entry of the gain, moved either way, costs something on the same episodes."""
    from offline_eval.problems.problem import Chosen

    def mean_return(gain):
        policy = Chosen(lambda states: -states @ gain.T, carts.dynamics.action_space)
        return carts.returns(policy, 1.0, num_episodes=50).mean()

    best = mean_return(carts.gain)
    for place in np.ndindex(2, 4):
        for step in (-0.3, 0.3):
            moved = carts.gain.copy()
            moved[place] += step
            assert mean_return(moved) < best


def test_values_satisfy_bellmans_equation(problem):
    """Q*(s, a) = r + gamma * E V*(s'), the mean over the noise taken by drawing it."""
    generator = np.random.default_rng(0)
    states = problem.dynamics.starts(30, 1.0, generator)
    actions = np.clip(problem.best_actions(states) + 0.5 * generator.standard_normal((30, 2)), -1, 1)
    noise = generator.standard_normal((500, 30, problem.dynamics.noise_dim))
    backed_up = []
    for drawn in np.concatenate([noise, -noise]):
        following, rewards = problem.dynamics.advance(states, actions, drawn)
        backed_up.append(rewards + GAMMA * problem.v(following))
    assert problem.q_of(states, actions) == pytest.approx(np.mean(backed_up, axis=0), abs=4e-3)


def test_the_value_is_the_return_of_the_best_policy(maze):
    starts = maze.dynamics.starts(400, 0.0, np.random.default_rng(0x7E57))
    assert maze.returns(maze.oracle, 0.0).mean() == pytest.approx(maze.v(starts).mean(), abs=0.03)


def test_no_action_beats_the_best_one(problem):
    # On the nodes of the maze's table: between them, where it jumps, it may take the way round of its neighbour.
    states = np.round(problem.dynamics.starts(50, 1.0, np.random.default_rng(0)) / 0.025) * 0.025
    best = problem.q_of(states, problem.best_actions(states))
    for action in np.random.default_rng(1).uniform(-1, 1, (40, 2)):
        assert (problem.q_of(states, np.tile(action, (50, 1))) < best + 2e-3).all()


def test_the_critic_has_the_gradient_of_the_values(problem):
    space = problem.dynamics.action_space
    critic = critic_of(problem.q, action_space=space, gamma=GAMMA, action_units="environment")
    states = th.as_tensor(problem.dynamics.starts(20, 1.0, np.random.default_rng(0)), dtype=th.float32)
    actions = th.zeros(20, 2).uniform_(-0.8, 0.8, generator=th.Generator().manual_seed(0)).requires_grad_()
    (gradient,) = th.autograd.grad(critic.q(states, actions).sum(), actions)
    for axis in range(2):
        step = th.zeros(2)
        step[axis] = 0.02
        with th.no_grad():
            slope = (critic.q(states, actions + step) - critic.q(states, actions - step))[0] / 0.04
        assert gradient[:, axis].numpy() == pytest.approx(slope.numpy(), abs=0.01)


def test_data_go_both_ways_and_are_collected_again(maze):
    first, again = (maze.collect(20, 0.0, seed=1) for _ in range(2))
    assert first.fingerprint == again.fingerprint
    middle = np.stack([trajectory.observations[25, 1] for trajectory in first])
    assert (middle > 0.3).sum() >= 4
    assert (middle < -0.3).sum() >= 4
    assert first.num_transitions == 2000


def test_the_best_policy_beats_the_data(problem):
    assert problem.returns(problem.oracle, 0.0).mean() > problem.behaviour_returns(0.0).mean() + 1


# ------------------------------------------------------------------------------------------------ registration


def test_ids_are_known_when_they_are_asked_for():
    """And to nobody who has not asked."""
    code = """
import gymnasium as gym, offline_eval
from offline_eval.environments import environment_factory
print(any(name.startswith("offline_eval/") for name in gym.registry))
print(environment_factory("offline_eval/TwoModeMaze-v0")().spec.max_episode_steps)
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "100"]


def test_importing_the_package_registers(tmp_path):
    made = "gymnasium.make('offline_eval/LinearQuadratic-v0', plant=2)"
    code = f"import gymnasium, offline_eval.problems; print({made}.spec.id)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == IDS[1]


def test_a_typing_error_is_answered_with_the_closest_id():
    with pytest.raises(InputError, match="TwoModeMaze-v0"):
        environment_factory("offline_eval/TwoModMaze-v0")
