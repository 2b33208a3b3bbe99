"""Rollouts that give true values: numbers by hand, restored rollouts that equal the log, bonuses as SB3 counts them."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from environments import Counter
from linear_quadratic import CONTROL, DYNAMICS, GAIN, GAMMA, Linear, LinearQuadratic, Opaque, exact_q, limited, value_of

from offline_eval.diagnostics.returns import Extend, discounted_returns
from offline_eval.episodes import EpisodePlan
from offline_eval.errors import InputError
from offline_eval.measurement.action_rank import ActionTrial, try_actions
from offline_eval.measurement.actors import MeanAction, NoisyAction, soft_draws
from offline_eval.measurement.rollouts import (
    Branch,
    Brancher,
    Rollout,
    check_restorable,
    continue_past_limit,
    draw_episodes,
    episode_rewards,
    without_time_limit,
)
from offline_eval.policies import critic_of, load_sb3

PLAN = EpisodePlan.seeded(3)


def logged(driver, env, plan=PLAN):
    return [part.episode for part in draw_episodes(driver, env, plan)]


def test_a_rollout_counts_later_bonuses_only():
    rollout = Rollout(np.array([1.0, 2.0, 4.0]), np.array([100.0, 8.0, 16.0]), False)
    assert rollout.value(0.5) == 1 + 0.5 * 2 + 0.25 * 4
    assert rollout.value(0.5, soft=True) == 3 + 0.5 * 8 + 0.25 * 16


def test_labels_past_the_limit_are_the_exact_values():
    driver = MeanAction(Linear())
    episodes = logged(driver, limited(steps=10))
    with Brancher(limited(steps=10), episodes) as brancher:
        continued = continue_past_limit(brancher, driver, Extend().extra_steps(GAMMA))
    labels = discounted_returns(
        [episode_rewards(e, c) for e, c in zip(episodes, continued, strict=True)], GAMMA, Extend()
    )
    states = np.concatenate([episode.states["state"][:-1] for episode in episodes])
    exact = -np.einsum("ni,ij,nj->n", states, value_of(GAIN), states)
    assert labels.labelled.all()
    assert labels.values == pytest.approx(exact, rel=1e-3, abs=1e-4)
    with pytest.raises(InputError, match="roll on past the time limit"):
        discounted_returns([episode_rewards(e, None) for e in episodes], GAMMA, Extend())


def test_a_continuation_goes_on_as_if_there_were_no_limit():
    driver = MeanAction(Linear())
    short, long = logged(driver, limited(steps=7)), logged(driver, limited(steps=20))
    with Brancher(limited(steps=7), short) as brancher:
        continued = continue_past_limit(brancher, driver, 13)
    for before, after, whole in zip(short, continued, long, strict=True):
        assert np.array_equal(np.concatenate([before.rewards, after.rewards]), whole.rewards)


def test_an_episode_that_terminated_is_not_continued():
    class Zero:
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return np.zeros((len(observation), 1), np.float32), None

    class StatefulCounter(Counter):
        def get_state(self):
            return np.array([self.seed, self.steps], dtype=float)

        def set_state(self, state):
            self.seed, self.steps = (int(x) for x in state)

    def make():
        return StatefulCounter(5)

    episodes = logged(MeanAction(Zero()), make)
    with Brancher(make, episodes) as brancher:
        continued = continue_past_limit(brancher, MeanAction(Zero()), 10)
        from_middle = brancher.roll(MeanAction(Zero()), [Branch(0, 2, (0,), 10)])[0]
    assert [len(part.rewards) for part in continued] == [0, 0, 0]
    assert (len(from_middle.rewards), from_middle.terminated) == (3, True)


@pytest.mark.parametrize("env_id", ["HalfCheetah-v5", "Hopper-v5", "Reacher-v5", "Pendulum-v1"])
def test_a_rollout_from_a_restored_state_equals_the_log_bit_for_bit(env_id):
    def make():
        return gym.make(env_id, max_episode_steps=30, disable_env_checker=True)

    policy = NoisyAction(_Centre(make().action_space), make().action_space, 0.3)
    episodes = logged(policy, make, EpisodePlan.seeded(2))
    with Brancher(make, episodes) as brancher:
        check_restorable(brancher)
        for step in (0, 1, 9):
            following = [Branch(0, step + k, (0,), 1, action) for k, action in enumerate(episodes[0].actions[step:])]
            rollouts = brancher.roll(policy, following)
            assert [rollout.rewards[0] for rollout in rollouts] == episodes[0].rewards[step:].tolist()


def test_a_branch_does_not_depend_on_what_rolls_beside_it():
    def make():
        return gym.make("Hopper-v5", disable_env_checker=True)

    driver = NoisyAction(_Centre(make().action_space), make().action_space, 0.5)
    episodes = logged(driver, make, EpisodePlan.seeded(2))
    branches = [Branch(k % 2, 3 * k % 10, (k,), 12) for k in range(9)]
    with Brancher(make, episodes, n_envs=1) as alone, Brancher(make, episodes, n_envs=5) as together:
        for one, other in zip(alone.roll(driver, branches), together.roll(driver, branches), strict=True):
            assert np.array_equal(one.rewards, other.rewards)
            assert one.terminated == other.terminated


def test_branches_share_their_random_numbers_by_seed():
    driver = NoisyAction(Linear(), LinearQuadratic.action_space, 0.5)
    episodes = logged(driver, limited())
    action = np.array([0.5], np.float32)
    with Brancher(limited(), episodes) as brancher:
        same, twin, other = brancher.roll(driver, [Branch(0, 4, (s,), 10, action) for s in (1, 1, 2)])
        shifted = brancher.roll(driver, [Branch(0, 5, (1,), 9, None, noise_offset=1)])[0]
    assert np.array_equal(same.rewards, twin.rewards)
    assert same.rewards[0] == other.rewards[0]  # the given action
    assert not np.array_equal(same.rewards[2:], other.rewards[2:])
    assert len(shifted.rewards) == 9


def test_a_held_action_is_repeated():
    driver, action = MeanAction(Linear()), np.array([1.5], np.float32)
    episodes = logged(driver, limited())
    with Brancher(limited(), episodes) as brancher:
        held = brancher.roll(driver, [Branch(0, 0, (0,), 3, action, hold=3)])[0]
    state, paid = episodes[0].states["state"][0], []
    for _ in range(3):
        paid.append(-np.square(state).sum() - 1.5**2)
        state = DYNAMICS @ state + CONTROL @ [1.5]
    assert held.rewards == pytest.approx(paid)


def test_kept_rollouts_are_read_back_and_not_rolled_again(tmp_path):
    driver = NoisyAction(Linear(), LinearQuadratic.action_space)
    episodes = logged(driver, limited())
    branches = [Branch(0, step, (step,), 6) for step in range(5)]
    told = []
    with Brancher(limited(), episodes, kept=tmp_path / "kept") as brancher:
        first = brancher.roll(driver, branches)
    assert len(list((tmp_path / "kept").glob("*.npz"))) == 1

    class Broken:
        label, noise_dim = driver.label, driver.noise_dim

        def act(self, observations, noise):
            raise AssertionError("rolled again")

    with Brancher(limited(), episodes, kept=tmp_path / "kept") as brancher:
        again = brancher.roll(Broken(), branches, told.append)
        with pytest.raises(AssertionError):
            brancher.roll(Broken(), [Branch(0, 0, (77,), 6)])
    assert told == [5]
    assert all(np.array_equal(a.rewards, b.rewards) for a, b in zip(first, again, strict=True))


def test_an_environment_that_cannot_restore_says_so():
    driver = MeanAction(Linear())
    episodes = logged(driver, limited(Opaque))
    with Brancher(limited(Opaque), episodes) as brancher, pytest.raises(InputError, match="state can be restored"):
        check_restorable(brancher)
    with pytest.raises(InputError, match="`env` must be an id, a spec or a factory"):
        Brancher(LinearQuadratic(), episodes)


def test_an_environment_with_noise_of_its_own_does_not_pass_for_restorable():
    class Noisy(LinearQuadratic):
        def step(self, action):
            observation, reward, *rest = super().step(action)
            return observation, reward + self.np_random.normal(), *rest

    episodes = logged(MeanAction(Linear()), limited(Noisy))
    with Brancher(limited(Noisy), episodes) as brancher, pytest.raises(InputError, match="repeat a logged episode"):
        check_restorable(brancher)


def test_the_time_limit_is_lifted():
    env = without_time_limit(limited(steps=3)())
    env.reset(seed=0)
    assert not any(env.step(np.zeros(1, np.float32))[3] for _ in range(10))


@pytest.mark.parametrize("agent", ["tiny_sac", "tiny_tqc"])
def test_bonuses_are_those_that_sb3_counts(agent, request):
    model = request.getfixturevalue(agent)
    draws = soft_draws(model)
    observations = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    noise = np.random.default_rng(1).standard_normal((20, 1), dtype=np.float32)
    actions, bonuses = draws.act(observations, noise)
    with th.no_grad():
        mean, log_std, extra = model.actor.get_action_dist_params(th.as_tensor(observations))
        gaussian = mean + log_std.exp() * th.as_tensor(noise)
        distribution = model.actor.action_dist.proba_distribution(mean, log_std, **extra)
        log_prob = distribution.log_prob(th.tanh(gaussian), gaussian)
        temperature = float(model.log_ent_coef.exp())
    assert bonuses == pytest.approx(-temperature * log_prob.numpy(), rel=1e-4, abs=1e-5)
    assert actions == pytest.approx(2.0 * th.tanh(gaussian).numpy(), abs=1e-5)  # Pendulum's Box is [-2, 2]


def test_only_soft_agents_have_draws(tiny_td3, tiny_dqn, tiny_ppo_pendulum):
    assert [soft_draws(model) for model in (tiny_td3, tiny_dqn, tiny_ppo_pendulum)] == [None] * 3


def test_a_shared_agents_values_agree_with_what_was_measured_before(shared_agents):
    # facts/ecosystem.md 3: Q 322 beside returns of 328 on the first half of episodes 1000 to 1003.
    model = load_sb3(shared_agents / "sac-Hopper-v3.zip", "Hopper-v5", "cpu")
    driver = MeanAction(model)
    episodes = logged(driver, "Hopper-v5", EpisodePlan.seeded(4, 1000))
    with Brancher("Hopper-v5", episodes) as brancher:
        continued = continue_past_limit(brancher, driver, 10)
    labels = discounted_returns([episode_rewards(*pair) for pair in zip(episodes, continued, strict=True)], 0.99)
    half = np.concatenate([np.arange(len(e)) < len(e) // 2 for e in episodes])
    assert labels.values[half].mean() == pytest.approx(328, abs=2)


def test_candidate_actions_are_ranked_by_a_perfect_critic():
    critic = critic_of(exact_q(), action_space=LinearQuadratic.action_space, gamma=GAMMA, action_units="environment")
    policy = Linear()
    episodes = logged(MeanAction(policy), limited(), EpisodePlan.seeded(10))
    trial = ActionTrial(num_states=20, num_rollouts=4, num_each=2, tolerance=0.01)
    with Brancher(limited(), episodes) as brancher:
        driver = NoisyAction(policy, LinearQuadratic.action_space, 0.02)
        tried = try_actions(policy, critic, driver, episodes, brancher, trial, np.random.default_rng(0))
    assert tried.candidates.names == ("policy", "steered", "perturbed", "perturbed", "random", "random")
    rank, regret = tried.rank(np.random.default_rng(0)), tried.regret(np.random.default_rng(0))
    assert rank.rank.tau.value > 0.95  # at the optimum the gradient vanishes: the steered action ties with the own one
    assert rank.rank.relative is not None
    assert rank.rank.relative.value > 0.95
    assert regret.claimed.value == pytest.approx(0.0, abs=1e-3)
    assert regret.realised.value == pytest.approx(0.0, abs=0.02)
    exact = tried.q.min(axis=0)[:, 2:] - tried.truth.mean(axis=2)[:, 2:]
    assert np.abs(exact).max() < 0.05 * np.ptp(tried.truth)


class _Centre:
    """Always the middle of the box."""

    def __init__(self, space):
        self.space = space

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.zeros((len(observation), *self.space.shape), self.space.dtype), None


def test_drivers_refuse_what_they_cannot_do():
    with pytest.raises(InputError, match="`std` must be >= 0"):
        NoisyAction(Linear(), LinearQuadratic.action_space, -0.1)
    with pytest.raises(InputError, match="`hold` must be >= 1"):
        ActionTrial(hold=0)
