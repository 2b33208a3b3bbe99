"""Exactly the planned episodes: the same table whatever plays them."""

from __future__ import annotations

import os

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from environments import Counter, DictCounter, Recurrent, Zero
from episode_stores import MemoryStore
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit
from stable_baselines3 import SAC
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from offline_eval.episodes import EpisodePlan, PlanEntry, evaluate
from offline_eval.errors import InputError, WorkerError
from offline_eval.policies import Normalized, Statistics
from offline_eval.wrappers import OPEX, Placebo

PLAN = EpisodePlan.seeded(5, seed=10)


def table(evaluation):
    return [(e.index, e.seed, e.episode_return, e.length, e.terminated, e.truncated) for e in evaluation.episodes]


def half_cheetah():
    return gym.make("HalfCheetah-v5", max_episode_steps=40)


def pendulum():
    return gym.make("Pendulum-v1", max_episode_steps=30)


def test_a_counting_environment_by_hand():
    result = evaluate(Zero(), lambda: Counter(3), EpisodePlan.of([7, 4]), n_envs=2)
    assert table(result) == [(0, 7, 3.0, 3, True, False), (1, 4, 3.0, 3, True, False)]
    assert result.successes == (1, 2)
    assert (result.num_steps, result.mean_length, result.share_truncated) == (6, 3.0, 0.0)
    assert result.summary.mean == 3.0


def test_every_entry_is_reset_with_its_own_seed_and_options():
    policy = Zero()
    options = {"steps": 2}
    plan = EpisodePlan((PlanEntry(3, options), PlanEntry(8)))
    result = evaluate(policy, lambda: Counter(4), plan, n_envs=1, width=None)
    assert [e.length for e in result.episodes] == [2, 4]
    assert options == {"steps": 2}  # the environment takes the key out of its own copy
    assert [tuple(seen[0]) for seen, _ in policy.seen] == [(3, 2), (3, 3), (8, 0), (8, 1), (8, 2), (8, 3)]
    assert [bool(start[0]) for _, start in policy.seen] == [True, False, True, False, False, False]


@pytest.mark.parametrize("make", [half_cheetah, pendulum])
def test_the_same_table_for_any_number_of_environments_and_workers(make):
    env = make()
    model = SAC("MlpPolicy", env, buffer_size=1, seed=3, device="cpu")
    env.close()
    plan = EpisodePlan.seeded(18, seed=100)
    tables = [table(evaluate(model, make, plan, n_envs=n)) for n in (1, 8, 64)]
    tables += [table(evaluate(model, make, plan, n_envs=4, workers=2))]
    assert len({e[2] for e in tables[0]}) == 18
    assert tables[1:] == tables[:1] * 3


def test_a_rules_noise_belongs_to_the_episode(tiny_sac):
    plan = EpisodePlan.seeded(3, seed=0)
    tables = [
        table(evaluate(tiny_sac, pendulum, plan, rule=Placebo(0.3), n_envs=n, workers=w))
        for n, w in ((1, 1), (3, 1), (2, 2))
    ]
    plain = table(evaluate(tiny_sac, pendulum, plan))
    assert tables[0] == tables[1] == tables[2]
    assert tables[0] != plain


def test_without_padding_it_is_evaluate_policy(tiny_sac, tiny_dqn):
    for model, env_id in ((tiny_sac, "Pendulum-v1"), (tiny_dqn, "CartPole-v1")):
        theirs = []
        for seed in range(3):
            venv = DummyVecEnv([lambda env_id=env_id: Monitor(gym.make(env_id))])
            venv.seed(seed)
            theirs += evaluate_policy(model, venv, n_eval_episodes=1, return_episode_rewards=True)[0]
        plan = EpisodePlan.seeded(3, seed=0)
        exact = evaluate(model, env_id, plan, n_envs=1, width=None)
        padded = evaluate(model, env_id, plan, n_envs=1)
        assert np.round(exact.returns, 6).tolist() == theirs  # Monitor rounds to six digits
        assert padded.returns == pytest.approx(exact.returns, abs=0 if env_id == "CartPole-v1" else 1e-3)


def test_steering_with_step_size_zero_is_no_steering(tiny_sac):
    from offline_eval.policies import critic_of

    plain = evaluate(tiny_sac, pendulum, PLAN)
    steered = evaluate(tiny_sac, pendulum, PLAN, rule=OPEX(critic_of(tiny_sac), 0.0))
    assert table(steered) == table(plain)
    assert steered.steering["displacement"] == 0.0
    assert steered.recipe["name"] == "OPEX"


def test_a_recurrent_policy_keeps_its_state_through_padding():
    class Gather(Counter):
        def step(self, action):
            observation, _, *rest = super().step(action)
            return observation, float(action[0]), *rest

    # Lengths differ, so seats are refilled at different steps: 0.01 + 0.02 + ... starts anew each time.
    plan = EpisodePlan(tuple(PlanEntry(seed, {"steps": seed % 3}) for seed in range(20)))
    wide = evaluate(Recurrent(), lambda: Gather(6), plan, n_envs=19)
    narrow = evaluate(Recurrent(), lambda: Gather(6), plan, n_envs=2)
    assert wide.episodes[0].episode_return == pytest.approx(0.21)
    assert wide.episodes[2].episode_return == pytest.approx(0.10)
    assert table(wide) == table(narrow)


def test_dict_observations():
    result = evaluate(Zero(), lambda: DictCounter(3), PLAN, n_envs=2)
    assert [e.length for e in result.episodes] == [3] * 5


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_vector_environments_play_the_same_episodes(mode, tiny_sac):
    expected = table(evaluate(tiny_sac, pendulum, PLAN))
    vector = SyncVectorEnv([pendulum] * 3, autoreset_mode=mode)
    assert table(evaluate(tiny_sac, vector, PLAN)) == expected


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_vector_environments_whose_episodes_end_at_different_steps(mode):
    def different(length):
        return lambda: Counter(length)

    vector = SyncVectorEnv([different(2), different(5), different(3)], autoreset_mode=mode)
    result = evaluate(Zero(), vector, PLAN)
    assert [e.length for e in result.episodes] == [2, 5, 3, 2, 5]
    assert [e.success for e in result.episodes] == [True, False, True, False, True]


def test_an_sb3_vec_env_plays_the_same_episodes(tiny_sac):
    plan = EpisodePlan.of([4, 9, 2, 11])  # not consecutive
    expected = evaluate(tiny_sac, pendulum, plan)
    venv = DummyVecEnv([pendulum] * 3)
    result = evaluate(tiny_sac, venv, plan)
    assert [e.truncated for e in result.episodes] == [True] * 4
    # SB3's vector hands out rewards in float32.
    assert result.returns == pytest.approx(expected.returns, rel=1e-6)


def test_a_vector_with_one_seed_for_all_says_so(tiny_dqn):
    result = evaluate(tiny_dqn, gym.make_vec("CartPole-v1", num_envs=3), PLAN)
    assert len(result.episodes) == 5
    assert not result.invariant
    assert "one seed" in result.notes[0]


def test_a_training_vec_normalize_is_held_still(tiny_sac):
    venv = VecNormalize(DummyVecEnv([pendulum]), training=True)
    venv.obs_rms.mean[:] = 0.5
    before = venv.obs_rms.mean.copy(), venv.obs_rms.count, venv.ret_rms.count
    result = evaluate(tiny_sac, venv, EpisodePlan.seeded(2))
    assert np.array_equal(venv.obs_rms.mean, before[0])
    assert (venv.obs_rms.count, venv.ret_rms.count) == before[1:]
    assert venv.training
    assert result.episodes[0].episode_return < -100  # the true reward, not the normalised one


@pytest.mark.parametrize(
    "stack",
    [
        lambda: TimeLimit(Counter(None), 4),
        lambda: Monitor(TimeLimit(Counter(None), 4)),
        lambda: TimeLimit(Monitor(Counter(None)), 4),
    ],
    ids=["no Monitor", "limit inside Monitor", "limit outside Monitor"],
)
def test_time_limits_count_wherever_they_are(stack):
    for env in (stack, DummyVecEnv([stack])):
        result = evaluate(Zero(), env, EpisodePlan.seeded(2))
        assert [(e.episode_return, e.length, e.terminated, e.truncated) for e in result.episodes] == [
            (4.0, 4, False, True)
        ] * 2


def test_monitor_knows_the_return_before_wrappers_changed_it():
    scaled = gym.wrappers.TransformReward(Monitor(Counter(3)), lambda reward: 10 * reward)
    assert evaluate(Zero(), scaled, EpisodePlan.seeded(1)).returns.tolist() == [3.0]


def test_an_environment_that_never_ends_is_cut():
    result = evaluate(Zero(), lambda: Counter(None), EpisodePlan.seeded(2), step_limit=7)
    assert [(e.length, e.truncated) for e in result.episodes] == [(7, True)] * 2


def test_a_step_limit_may_lie_beyond_the_environment_s_own():
    for limit in (3, 203):  # Pendulum's own is 200
        result = evaluate(Zero(), "Pendulum-v1", EpisodePlan.seeded(1), step_limit=limit)
        assert (result.env, [(e.length, e.truncated) for e in result.episodes]) == ("Pendulum-v1", [(limit, True)])


def test_an_id_may_name_the_module_that_registers_it(tmp_path, monkeypatch):
    (tmp_path / "somebody_s.py").write_text(
        "import gymnasium\n"
        'gymnasium.register("Somebody-v0", "gymnasium.envs.classic_control:PendulumEnv", max_episode_steps=4)\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    result = evaluate(Zero(), "somebody_s:Somebody-v0", EpisodePlan.seeded(1), step_limit=6, workers="auto")
    assert (result.env, result.episodes[0].length) == ("somebody_s:Somebody-v0", 6)
    gym.registry.pop("Somebody-v0")
    with pytest.raises(InputError, match="must name a package that is installed"):
        evaluate(Zero(), "nobody_s:Somebody-v0", EpisodePlan.seeded(1), workers="auto")


def test_an_environment_that_raises_fails_that_episode_only():
    result = evaluate(Zero(), lambda: Counter(4, raise_at=(12, 3)), PLAN, n_envs=2)
    assert [e.failed for e in result.episodes] == [None, None, "RuntimeError: the simulator exploded", None, None]
    assert np.isnan(result.returns[2])
    assert (result.summary.n, result.summary.failed) == (4, 1)
    assert result.episodes[2].to_json()["return"] is None


def test_in_a_vector_the_others_of_the_same_start_are_played_again():
    vector = SyncVectorEnv([lambda: Counter(4, raise_at=(11, 3))] * 2)
    result = evaluate(Zero(), vector, PLAN)
    assert [e.failed is not None for e in result.episodes] == [False, True, False, False, False]
    assert result.returns[[0, 2, 3, 4]].tolist() == [4.0] * 4


def test_drawn_actions_are_repeatable_marked_and_leave_the_global_generators_alone(tiny_sac):
    th.manual_seed(5)
    expected = th.rand(1)
    th.manual_seed(5)
    first = evaluate(tiny_sac, pendulum, PLAN, deterministic=False)
    assert th.rand(1) == expected
    second = evaluate(tiny_sac, pendulum, PLAN, deterministic=False)
    assert table(first) == table(second)
    assert table(first) != table(evaluate(tiny_sac, pendulum, PLAN))
    assert not first.invariant
    assert any("global generators" in note for note in first.notes)


def test_weights_are_the_same_afterwards(tiny_sac):
    before, after = evaluate(tiny_sac, pendulum, EpisodePlan.seeded(1)).weights_hash
    assert before == after
    assert len(before) == 64


def test_finished_episodes_are_not_played_again():
    first = evaluate(Zero(), lambda: Counter(3), PLAN)
    policy = Zero()
    again = evaluate(policy, lambda: Counter(3), PLAN, store=MemoryStore({"": first.episodes[:4]}), replays=0)
    assert table(again) == table(first)
    assert {seen[0][0] for seen, _ in policy.seen if not _[0]} <= {14.0}


class DiesInWorker(Zero):
    """Ends the process it is in, as running out of memory does, unless it is the parent."""

    def __init__(self):
        super().__init__()
        self.parent = os.getpid()

    def predict(self, observation, **others):
        if os.getpid() != self.parent and (observation[:, 0] == 12).any():
            os._exit(9)
        return super().predict(observation, **others)


def test_a_worker_that_dies_is_named_and_the_finished_episodes_stand():
    store = MemoryStore()
    with pytest.raises(WorkerError, match="exit code 9"):
        evaluate(DiesInWorker(), lambda: Counter(3), PLAN, n_envs=1, workers=2, store=store)
    assert {episode.index for _, episode in store.told} <= {0, 1, 3, 4}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_envs": 0}, "`n_envs` must be >= 1. Received 0"),
        ({"workers": 0}, '`workers` must be a number >= 1 or "auto". Received 0'),
        ({"step_limit": 0}, "`step_limit` must be >= 1. Received 0"),
        ({"model": object()}, "`model` must have Stable-Baselines3's `predict`. Received 'object'"),
        ({"env": "Pendulum-v9"}, "`env` must be the id of a registered environment. Received 'Pendulum-v9': did you"),
        ({"env": 3}, "`env` must be an environment, an id, a spec or a factory"),
        ({"env": Counter(3), "workers": 2}, "`workers` must be 1 for a finished environment"),
    ],
)
def test_bad_input_is_one_clear_line(change, message):
    arguments = {"model": Zero(), "env": lambda: Counter(3), "plan": PLAN} | change
    with pytest.raises(InputError) as raised:
        evaluate(**arguments)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_normalising_twice_is_refused(tiny_sac):
    venv = VecNormalize(DummyVecEnv([pendulum]))
    with pytest.raises(InputError, match="must not normalise where the policy does already"):
        evaluate(Normalized(tiny_sac, Statistics.of(venv)), venv, PLAN)


def test_an_empty_plan_is_refused():
    with pytest.raises(InputError, match=r"`episodes` must be >= 1\. Received 0"):
        EpisodePlan.seeded(0)
    with pytest.raises(InputError, match="at least one episode"):
        EpisodePlan(())
