"""The cache of episodes: each is played once, whoever asks, and anew where anything that decides it is another."""

from __future__ import annotations

import copy
import json
import threading

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from environments import Counter, Zero
from stable_baselines3 import PPO

from offline_eval import OPEX, EpisodePlan, critic_of, evaluate, load_sb3
from offline_eval.errors import StorageError
from offline_eval.policies.normalization import Moments, Normalized, Statistics
from offline_eval.testing.cache import EpisodeCache
from offline_eval.testing.identity import environment_identity, policy_identity

PENDULUM = "Pendulum-v1"


@pytest.fixture
def cache(tmp_path):
    return EpisodeCache(tmp_path / "cache", n_envs=2)


@pytest.fixture
def counter():
    """The id of an environment of five steps that fails for the seed 1 at its third step."""
    env_id = "CacheCounter-v0"
    gym.register(env_id, entry_point="environments:Counter", kwargs={"raise_at": (1, 3)})
    yield env_id
    del gym.registry[env_id]


def test_it_gives_what_evaluate_gives_and_plays_it_once(cache, tiny_td3):
    plan = EpisodePlan.of([3, 0])
    first, second = cache.evaluation(tiny_td3, PENDULUM, plan), cache.evaluation(tiny_td3, PENDULUM, plan)
    expected = evaluate(tiny_td3, PENDULUM, plan, n_envs=2)
    assert first.episodes == second.episodes == expected.episodes
    assert second.weights_hash == expected.weights_hash
    assert (cache.played, cache.found) == (2, 2)


def test_a_longer_plan_plays_what_is_new(cache, tiny_td3):
    cache.evaluation(tiny_td3, PENDULUM, EpisodePlan.of([0, 1]))
    longer = cache.evaluation(tiny_td3, PENDULUM, EpisodePlan.of([2, 1]))
    assert [(episode.index, episode.seed) for episode in longer.episodes] == [(0, 2), (1, 1)]
    assert longer.episodes == evaluate(tiny_td3, PENDULUM, longer.plan).episodes
    assert (cache.played, cache.found) == (3, 1)


def test_the_same_seed_with_other_options_is_another_episode(cache, counter):
    model = PPO("MlpPolicy", Counter(), device="cpu")
    plain, late = (cache.evaluation(model, counter, EpisodePlan.of([0], options)) for options in (None, {"steps": 3}))
    assert (plain.returns[0], late.returns[0]) == (5.0, 2.0)


def test_another_process_finds_what_is_there(cache, tiny_td3, tmp_path):
    tiny_td3.save(tmp_path / "agent.zip")
    plan = EpisodePlan.of([0])
    cache.evaluation(tiny_td3, PENDULUM, plan)
    other = EpisodeCache(tmp_path / "cache")
    other.evaluation(load_sb3(tmp_path / "agent.zip", PENDULUM, "cpu"), PENDULUM, plan)
    assert (other.played, other.found) == (0, 1)


def test_of_those_who_ask_together_one_plays(tmp_path, tiny_td3):
    plan, together = EpisodePlan.seeded(3), threading.Barrier(3)
    caches = [EpisodeCache(tmp_path / "cache", n_envs=1) for _ in range(3)]
    models = [copy.deepcopy(tiny_td3.policy) for _ in caches]
    tables = {}

    def ask(number):
        together.wait()
        tables[number] = caches[number].evaluation(models[number], PENDULUM, plan).episodes

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(cache.played for cache in caches) == [0, 0, 3]
    assert tables[0] == tables[1] == tables[2]


def changed_weight(model):
    with th.no_grad():
        next(model.policy.actor.parameters()).view(-1)[0] += 1e-3
    return model


def changed_activation(model):
    model.policy.actor.mu[1] = th.nn.Tanh()
    return model


def changed_bounds(model):
    model.policy.action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    return model


def normalized(model):
    return Normalized(model, Statistics(Moments(np.zeros(3), np.ones(3)), None))


def normalized_otherwise(model):
    return Normalized(model, Statistics(Moments(np.zeros(3), 2 * np.ones(3)), None))


def test_whatever_decides_an_action_is_in_the_name(tiny_td3):
    fresh = lambda: copy.deepcopy(tiny_td3)  # noqa: E731
    changes = [changed_weight, changed_activation, changed_bounds, normalized, normalized_otherwise]
    names = [policy_identity(tiny_td3), *(policy_identity(change(fresh())) for change in changes)]
    rules = [OPEX(critic_of(fresh()), step_size=size) for size in (0.1, 0.2)]
    rules.append(OPEX(critic_of(changed_critic(fresh())), step_size=0.1))
    names += [policy_identity(tiny_td3, rule) for rule in rules]
    assert None not in names
    assert len(set(names)) == len(names)


def changed_critic(model):
    with th.no_grad():
        next(model.policy.critic.parameters()).view(-1)[0] += 1e-3
    return model


def test_acting_does_not_change_the_name(tiny_sac, tiny_ppo_pendulum):
    for model in (tiny_sac, tiny_ppo_pendulum):
        before = policy_identity(model)
        model.predict(np.zeros((2, 3), np.float32), deterministic=True)
        assert policy_identity(model) == before


def test_the_environment_is_in_the_name():
    pendulum, spec = environment_identity(PENDULUM), copy.deepcopy(gym.spec(PENDULUM))
    spec.kwargs["g"] = 5.0
    assert pendulum == environment_identity(gym.spec(PENDULUM))
    assert environment_identity(spec) not in (pendulum, None)
    assert environment_identity(lambda: gym.make(PENDULUM)) is None


def test_code_of_ones_own_is_played_every_time_unless_it_says_what_it_is(cache, counter):
    policy, plan = Zero(), EpisodePlan.of([0, 2])
    for _ in range(2):
        assert list(cache.evaluation(policy, counter, plan).returns) == [5.0, 5.0]
    assert (cache.played, cache.found) == (4, 0)
    policy.offline_eval_key = "does nothing, version 1"
    for _ in range(2):
        cache.evaluation(policy, counter, plan)
    assert (cache.played, cache.found) == (6, 2)
    policy.offline_eval_key = "does nothing, version 2"
    cache.evaluation(policy, counter, plan)
    assert cache.played == 8


def test_a_module_of_ones_own_class_has_no_name(tiny_td3):
    class Mine(th.nn.Linear):
        pass

    model = copy.deepcopy(tiny_td3)
    model.policy.actor.mu.append(Mine(1, 1))
    assert policy_identity(model) is None


def test_a_failed_episode_is_not_kept(cache, counter):
    model, plan = PPO("MlpPolicy", Counter(), device="cpu"), EpisodePlan.of([0, 1])
    for _ in range(2):
        first, second = cache.evaluation(model, counter, plan).episodes
        assert first.failed is None
        assert "the simulator exploded" in second.failed
    assert (cache.played, cache.found) == (3, 1)


def test_logged_episodes_are_those_of_the_evaluation(cache, tiny_td3):
    cache.logged(tiny_td3, PENDULUM, EpisodePlan.of([4]))
    plan = EpisodePlan.of([5, 4])
    logged, evaluation = cache.logged(tiny_td3, PENDULUM, plan), cache.evaluation(tiny_td3, PENDULUM, plan)
    assert [(episode.seed, episode.key) for episode in logged] == [(5, 0), (4, 1)]
    assert [episode.episode_return for episode in logged] == pytest.approx(evaluation.returns)
    assert logged[0].observations.shape == (201, 3)
    assert (cache.played, cache.found) == (2, 1 + 2)


def test_states_kept_from_the_start_need_no_second_rollout(tmp_path, tiny_td3):
    cache, plan = EpisodeCache(tmp_path, states=True), EpisodePlan.of([0])
    cache.evaluation(tiny_td3, PENDULUM, plan)
    assert len(cache.logged(tiny_td3, PENDULUM, plan)[0]) == 200
    assert (cache.played, cache.found) == (1, 1)


def test_a_failed_episode_has_no_states(cache, counter):
    for policy in (PPO("MlpPolicy", Counter(), device="cpu"), Zero()):
        logged = cache.logged(policy, counter, EpisodePlan.of([1, 0]))
        assert [(episode.seed, episode.key) for episode in logged] == [(0, 1)]


def test_a_line_that_a_kill_has_torn_is_played_again(cache, tiny_td3, tmp_path):
    plan = EpisodePlan.of([0, 1])
    whole = cache.evaluation(tiny_td3, PENDULUM, plan)
    (table,) = (tmp_path / "cache").glob("*/episodes.jsonl")
    table.write_bytes(table.read_bytes()[:-20])
    assert cache.evaluation(tiny_td3, PENDULUM, plan).episodes == whole.episodes
    assert cache.played == 3
    assert [json.loads(line)["seed"] for line in table.read_text().splitlines()] == [0, 1]


def test_a_damaged_table_is_refused_and_a_place_that_is_no_folder_too(cache, tiny_td3, tmp_path):
    plan = EpisodePlan.of([0])
    cache.evaluation(tiny_td3, PENDULUM, plan)
    (table,) = (tmp_path / "cache").glob("*/episodes.jsonl")
    table.write_bytes(b"\x80\x04\x95 something else\n")
    with pytest.raises(StorageError, match="remove that folder"):
        cache.evaluation(tiny_td3, PENDULUM, plan)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="--offline-eval-cache"):
        EpisodeCache(tmp_path / "file").evaluation(tiny_td3, PENDULUM, plan)
