"""Statistics of a VecNormalize are found: beside a zip, in a live model, and each entry says what it did with them."""

import json
import shutil

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from offline_eval.cli import main
from offline_eval.episodes import EpisodePlan, evaluate
from offline_eval.errors import AgentFileError, InputError
from offline_eval.policies import Normalized, Statistics, actor_of, critic_of, load_sb3, opened
from offline_eval.policies.notes import notes_of
from offline_eval.testing import assert_return_at_least
from offline_eval.training.collection import collect
from offline_eval.wrappers import OPEX

ENV = "Pendulum-v1"
PLAN = EpisodePlan.seeded(2, seed=5)


def stack_of(mean, env=ENV, **words):
    """A VecNormalize whose numbers are chosen."""
    stack = VecNormalize(DummyVecEnv([lambda: gym.make(env)]), **words)
    if stack.norm_obs:
        stack.obs_rms.mean = np.full(stack.observation_space.shape, mean, np.float64)
        stack.obs_rms.var = np.full(stack.observation_space.shape, 0.25)
    stack.ret_rms.var = np.array(9.0)
    return stack


@pytest.fixture(scope="module")
def ppo():
    return PPO("MlpPolicy", ENV, n_steps=16, batch_size=16, policy_kwargs={"net_arch": [8]}, device="cpu", seed=0)


@pytest.fixture
def folder(ppo, tmp_path):
    ppo.save(tmp_path / "agent.zip")
    return tmp_path


def save(path, mean=0.5, **words):
    path.parent.mkdir(exist_ok=True)
    stack_of(mean, **words).save(path)


def mean_of(policy):
    """Of the statistics that a policy is behind; None where it is behind none."""
    return policy.statistics.observations.mean[0] if isinstance(policy, Normalized) else None


# Beside a zip: whose they are.


@pytest.mark.parametrize(
    "name",
    [
        "agent.vecnormalize.pkl",
        "agent_vecnormalize.pkl",
        "vecnormalize.pkl",
        "vec_normalize.pkl",
        "vecnormalize_of_yesterday.pkl",
        "agent/vecnormalize.pkl",
        "Pendulum-v1/vecnormalize.pkl",
        "Pendulum-v0/vecnormalize.pkl",
    ],
)
def test_the_only_statistics_beside_the_only_agent_are_its_own(name, folder):
    save(folder / name)
    policy = load_sb3(folder / "agent", ENV, device="cpu")
    assert mean_of(policy) == 0.5
    (note,) = notes_of(policy)
    assert note.startswith("observations are normalised by ")
    assert name.rpartition("/")[2] in note
    assert "--normalize none declines" in note


def test_what_is_named_after_the_agent_goes_before_what_lies_in_the_folder(folder):
    shutil.copy(folder / "agent.zip", folder / "other.zip")
    save(folder / "agent.vecnormalize.pkl", 0.25)
    save(folder / "vecnormalize.pkl", 0.75)
    assert mean_of(load_sb3(folder / "agent.zip", ENV)) == 0.25


def test_checkpoints_have_statistics_each(ppo, tmp_path):
    for step in (8, 16):
        ppo.save(tmp_path / f"rl_model_{step}_steps.zip")
        save(tmp_path / f"rl_model_vecnormalize_{step}_steps.pkl", step / 100)
        save(tmp_path / f"vecnormalize_{step}_steps.pkl", step / 100)  # rl-zoo's name, equal numbers
    for step in (8, 16):
        assert mean_of(load_sb3(tmp_path / f"rl_model_{step}_steps.zip", ENV)) == step / 100


def test_a_choice_is_asked_for_where_several_agents_could_own_them(folder):
    shutil.copy(folder / "agent.zip", folder / "best_model.zip")
    save(folder / "vecnormalize.pkl")
    with pytest.raises(
        InputError, match=r"`normalize` must be chosen .*vecnormalize\.pkl: so does best_model\.zip"
    ) as e:
        load_sb3(folder / "agent.zip", ENV)
    assert "--normalize none plays without" in str(e.value)
    declined = load_sb3(folder / "agent.zip", ENV, normalize="none")
    assert mean_of(declined) is None
    assert "was declined (--normalize none)" in notes_of(declined)[0]
    assert mean_of(load_sb3(folder / "agent.zip", ENV, normalize=folder / "vecnormalize.pkl")) == 0.5


def test_what_is_no_agent_owns_nothing(folder):
    (folder / "train_eval_metrics.zip").write_bytes(b"PK no agent")
    shutil.make_archive(str(folder / "videos"), "zip", folder, "agent.zip")
    save(folder / "vec_normalize.pkl")
    assert mean_of(load_sb3(folder / "agent.zip", ENV)) == 0.5


def test_two_that_differ_are_a_choice_and_two_equal_ones_are_one(folder):
    save(folder / "vecnormalize.pkl")
    save(folder / "Pendulum-v1" / "vecnormalize.pkl")
    assert mean_of(load_sb3(folder / "agent.zip", ENV)) == 0.5
    save(folder / "Pendulum-v1" / "vecnormalize.pkl", 0.75)
    with pytest.raises(InputError, match="they differ"):
        load_sb3(folder / "agent.zip", ENV)


def test_another_shape_is_named_and_not_used(folder):
    save(folder / "vecnormalize.pkl", env="CartPole-v1")
    policy = load_sb3(folder / "agent.zip", ENV)
    assert mean_of(policy) is None
    assert "vecnormalize.pkl lies beside the agent and was not used" in notes_of(policy)[0]
    (folder / "vecnormalize.pkl").rename(folder / "agent.vecnormalize.pkl")
    with pytest.raises(InputError, match="named after this agent, and does not fit it"):
        load_sb3(folder / "agent.zip", ENV)


def test_what_is_named_after_another_agent_is_named_and_not_used(folder):
    shutil.copy(folder / "agent.zip", folder / "other.zip")
    save(folder / "other.vecnormalize.pkl")
    policy = load_sb3(folder / "agent.zip", ENV)
    assert mean_of(policy) is None
    assert "other.vecnormalize.pkl fits the agent, is named after another" in notes_of(policy)[0]


def test_a_damaged_file_is_no_reason_to_play_without_it(folder):
    (folder / "vecnormalize.pkl").write_bytes(b"\x80\x04broken")
    with pytest.raises(InputError, match="it cannot be used"):
        load_sb3(folder / "agent.zip", ENV)
    assert mean_of(load_sb3(folder / "agent.zip", ENV, normalize="none")) is None


def test_statistics_of_rewards_alone_change_the_critic_and_not_the_policy(tmp_path):
    sac = SAC("MlpPolicy", ENV, buffer_size=10, policy_kwargs={"net_arch": [8]}, device="cpu", seed=0)
    sac.save(tmp_path / "sac.zip")
    save(tmp_path / "sac.vecnormalize.pkl", norm_obs=False)
    policy, raw = load_sb3(tmp_path / "sac.zip", ENV), np.ones((2, 3), np.float32)
    assert np.array_equal(policy.predict(raw, deterministic=True)[0], sac.predict(raw, deterministic=True)[0])
    shown, actions = th.as_tensor(raw), th.zeros(2, 1)
    assert th.allclose(critic_of(policy).q(shown, actions), 3 * critic_of(sac).q(shown, actions), rtol=1e-5)
    assert "units of the raw return" in notes_of(policy)[0]
    save(tmp_path / "sac.vecnormalize.pkl", norm_obs=False, norm_reward=False)
    assert not isinstance(load_sb3(tmp_path / "sac.zip", ENV), Normalized)


# A live model.


@pytest.fixture(scope="module")
def live():
    stack = stack_of(0.5, norm_reward=True)
    return SAC("MlpPolicy", stack, buffer_size=10, policy_kwargs={"net_arch": [8]}, device="cpu", seed=0)


def test_a_live_model_plays_the_plain_id_as_it_plays_its_own_stack(live):
    plain = evaluate(live, ENV, PLAN, step_limit=30)
    own = evaluate(live, live.get_vec_normalize_env(), PLAN, step_limit=30)
    assert plain.returns == pytest.approx(own.returns, rel=1e-5)
    assert 'the VecNormalize of the model, as it is now (normalize="none" declines)' in plain.notes[0]
    declined = evaluate(live, ENV, PLAN, step_limit=30, normalize="none")
    bare = evaluate(live.policy, ENV, PLAN, step_limit=30)
    assert np.array_equal(declined.returns, bare.returns)
    assert not np.array_equal(declined.returns, plain.returns)
    assert "declined" in declined.notes[0]
    assert live.get_vec_normalize_env() is not None  # the caller's model is as it was
    assert notes_of(live) == ()


def test_workers_receive_the_statistics_and_not_the_stack(live):
    here, there = (evaluate(live, ENV, PLAN, step_limit=20, workers=n).returns for n in (1, 2))
    assert np.array_equal(here, there)


def test_critics_and_actors_of_a_live_model_take_raw_observations(live):
    raw, actions = th.full((1, 3), 1.0), th.zeros(1, 1)
    seen = th.full((1, 3), 1.0)  # (1 - 0.5) / sqrt(0.25)
    expected = th.stack(list(live.critic(seen, actions))).squeeze(-1) * 3
    assert th.allclose(critic_of(live).q(raw, actions), expected, rtol=1e-4)
    own = Normalized(live, Statistics.of(live.get_vec_normalize_env()))
    for made in (live, own):
        assert actor_of(made) is not None
    assert th.allclose(critic_of(own).q(raw, actions), expected, rtol=1e-4)


def test_a_rule_that_normalises_does_not_play_in_a_stack_that_does(live):
    rule = OPEX(critic_of(live), 0.1)
    assert not evaluate(live, ENV, PLAN, rule=rule, step_limit=3).failures
    with pytest.raises(InputError, match="`env` must give raw observations: what the rule asks normalises them"):
        evaluate(live, live.get_vec_normalize_env(), PLAN, rule=rule, step_limit=3)


def test_another_stack_with_other_numbers_is_noted(live):
    other = stack_of(-0.5)
    found = evaluate(live, other, PLAN, step_limit=3)
    assert any("sync_envs_normalization" in note for note in found.notes)


# Every entry.


def test_the_command_line_says_what_it_used(folder, capsys):
    save(folder / "agent.vecnormalize.pkl")
    words = ["evaluate", str(folder / "agent.zip"), "--env", ENV, "--episodes", "2", "--step-limit", "5"]
    assert main(words) == 0
    assert "note: observations are normalised by agent.vecnormalize.pkl" in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    used = json.loads(capsys.readouterr().out)
    assert "agent.vecnormalize.pkl" in used["notes"][0]
    assert main([*words, "--json", "--normalize", "none"]) == 0
    declined = json.loads(capsys.readouterr().out)
    assert "declined" in declined["notes"][0]
    assert declined["summary"]["mean"] != used["summary"]["mean"]
    direct = load_sb3(folder / "agent.zip", ENV, normalize=folder / "agent.vecnormalize.pkl")
    expected = evaluate(direct, ENV, EpisodePlan.seeded(2), step_limit=5).summary.mean
    assert used["summary"]["mean"] == expected


def test_a_choice_on_the_command_line_is_one_line(folder, capsys):
    shutil.copy(folder / "agent.zip", folder / "other.zip")
    save(folder / "vecnormalize.pkl")
    for words in (["evaluate", str(folder / "agent.zip")], ["collect", str(folder / "agent.zip"), "--steps", "9"]):
        out = ["--out", str(folder / "data")] if words[0] == "collect" else []
        assert main([*words, "--env", ENV, *out]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert f"--normalize {folder / 'vecnormalize.pkl'} takes it" in said
    assert not (folder / "data").exists()


def test_a_run_is_not_resumed_with_other_statistics(folder, capsys):
    save(folder / "agent.vecnormalize.pkl")
    words = ["evaluate", str(folder / "agent.zip"), "--env", ENV, "--episodes", "2", "--step-limit", "5"]
    words += ["--out", str(folder / "run")]
    assert main(words) == 0
    assert main([*words, "--resume", "--normalize", "none"]) == 2
    assert "agents" in capsys.readouterr().err


def test_compare_takes_each_agents_own(folder, capsys):
    shutil.copy(folder / "agent.zip", folder / "other.zip")
    save(folder / "other.vecnormalize.pkl")
    files = [str(folder / "other.zip"), str(folder / "agent.zip")]
    assert main(["compare", *files, "--env", ENV, "--episodes", "2", "--step-limit", "5"]) == 0
    out = capsys.readouterr().out
    assert "note: other.zip: observations are normalised by other.vecnormalize.pkl" in out
    assert "note: agent.zip: other.vecnormalize.pkl fits the agent, is named after another" in out


def test_collected_data_are_those_of_the_normalised_policy(folder):
    save(folder / "agent.vecnormalize.pkl")
    policy = load_sb3(folder / "agent.zip", ENV)
    log = collect(opened(str(folder / "agent.zip"), ENV)[0], ENV, 200, folder / "log")
    (episode,) = log
    chosen, _ = policy.predict(episode.observations[:1], deterministic=True)
    assert episode.actions[0] == pytest.approx(chosen[0], rel=1e-4)


def test_assertions_say_so_too(folder):
    save(folder / "agent.vecnormalize.pkl")
    found = assert_return_at_least(folder / "agent.zip", -1990, env=ENV, plan=30, bounds=(-2000, 0))
    assert any("agent.vecnormalize.pkl" in note for note in found.notes)
    shutil.copy(folder / "agent.zip", folder / "other.zip")
    (folder / "agent.vecnormalize.pkl").rename(folder / "vecnormalize.pkl")
    with pytest.raises(InputError, match="must be chosen"):
        assert_return_at_least(folder / "agent.zip", -1e9, env=ENV, plan=30)


def test_a_missing_agent_is_still_a_missing_agent(tmp_path):
    save(tmp_path / "vecnormalize.pkl")
    with pytest.raises(AgentFileError, match="must be an existing file"):
        load_sb3(tmp_path / "agent.zip", ENV)
