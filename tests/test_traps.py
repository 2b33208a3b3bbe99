"""Signs of a wrong critic: numbers worked out by hand, then the study that plays for them, then the command."""

import json
import math
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC, TD3
from steered import Bang, FunctionCritic, pendulum

from offline_eval.cli import main
from offline_eval.diagnostics.traps import TrapThresholds, find_signs
from offline_eval.errors import InputError
from offline_eval.measurement.critic_warnings import find_traps
from offline_eval.measurement.records import Skipped
from offline_eval.report.traps import trap_lines

EPISODES = np.repeat([0, 1, 2], 10)
FALLING = np.tile(np.arange(10.0, 0.0, -1.0), 3)  # returns 10, 9, ..., 1 in each of three episodes


def signs(q, truth=FALLING, **options):
    return find_signs(np.atleast_2d(q), truth, EPISODES, np.random.default_rng(0), **options)


def test_a_right_critic_raises_nothing():
    traps = signs(np.stack([FALLING, FALLING]))
    assert [sign.value.value for sign in traps.signs] == pytest.approx([1.0, 0.0, 0.0])
    assert [sign.raised for sign in traps.signs] == [False] * 3
    assert traps.raised == ()


def test_a_critic_that_ranks_states_upside_down_is_a_trap():
    traps = signs(11.0 - FALLING)
    assert traps.tau.value.value == pytest.approx(-1.0)
    assert [sign.name for sign in traps.raised] == ["trajectory tau"]


def test_only_the_first_half_of_an_episode_is_looked_at():
    q = FALLING.copy()
    q[EPISODES == 1] = np.concatenate([np.arange(10.0, 5.0, -1.0), np.zeros(5)])
    assert signs(q).tau.value.value == pytest.approx(1.0)
    # The bias is that of all steps: 5 + 4 + 3 + 2 + 1 of 165 are missing.
    assert signs(q).bias.value.value == pytest.approx(-15 / 165)


def test_bias_is_a_multiple_of_the_return():
    # 12 times as much is 11 times too much.
    assert signs(12.0 * FALLING).bias.value.value == pytest.approx(11.0)
    assert signs(12.0 * FALLING).bias.raised
    assert signs(-9.5 * FALLING).bias.raised  # 10.5 too little
    assert not signs(10.5 * FALLING).bias.raised


def test_disagreement_is_in_standard_deviations_of_the_values():
    # The lower head is 10, 9, 8, 7, 6: variance 2. The heads are 0.5 apart.
    traps = signs(np.stack([FALLING, FALLING + 0.5]))
    assert traps.disagreement.value.value == pytest.approx(0.5 / math.sqrt(2.0))
    assert traps.disagreement.raised
    assert not signs(np.stack([FALLING, FALLING + 0.25])).disagreement.raised


def test_large_values_that_vary_little_keep_their_digits():
    traps = signs(np.stack([FALLING, FALLING + 0.5]) + 1e9)
    assert traps.disagreement.value.value == pytest.approx(0.5 / math.sqrt(2.0))


def test_what_cannot_be_told_says_why():
    one = signs(FALLING)
    assert (one.disagreement.value, one.disagreement.raised) == (None, None)
    assert "cannot disagree with itself" in one.disagreement.reason
    unlabelled = signs(np.stack([FALLING, FALLING]), np.full(30, np.nan))
    assert unlabelled.tau.raised is None
    assert unlabelled.bias.raised is None
    assert unlabelled.disagreement.raised is False
    assert signs(np.zeros((2, 30))).disagreement.raised is None


def test_thresholds_can_be_ones_own():
    strict = TrapThresholds(tau=1.1, bias=0.05, disagreement=1e-3)
    assert len(signs(np.stack([FALLING + 1.0, FALLING + 2.0]), thresholds=strict).raised) == 3


# The study


class Stateless(Bang):
    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return super().predict(observation)[0], None


def short():
    return pendulum(30)


def cost_critic(sign, heads=1):
    """Says that an upright pendulum is worth more; or less."""
    return FunctionCritic(
        lambda o, a: sign * (o[:, 0] - 0.1 * o[:, 2].abs())[None].repeat(heads, 1),
        dim=3,
        action_space=spaces.Box(-2.0, 2.0, (1,)),
    )


def test_the_study_plays_labels_and_judges():
    good, bad = (find_traps(Stateless(), short, cost_critic(sign, 2), episodes=3, seed=5) for sign in (1.0, -1.0))
    assert good.tau.value.value == pytest.approx(-bad.tau.value.value)
    assert good.tau.value.num_clusters == 3
    again = find_traps(Stateless(), short, cost_critic(1.0, 2), episodes=3, seed=5)
    assert good == again
    assert good.disagreement.value.value == 0.0


def test_a_policy_with_a_memory_is_said_to_be_one():
    assert "no recurrent state" in find_traps(Bang(), short, cost_critic(1.0), episodes=1).reason


def test_where_there_is_nothing_to_hold_a_critic_against_the_reason_is_said():
    critic = FunctionCritic(lambda o, a: th.zeros(1, len(a)), dim=4, action_space=spaces.Discrete(2))

    class Left:
        observation_space, action_space = spaces.Box(-np.inf, np.inf, (4,)), spaces.Discrete(2)

        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return np.zeros(len(observation), dtype=np.int64), state

    upright = find_traps(Left(), partial(gym.make, "CartPole-v1", max_episode_steps=3), critic)
    assert isinstance(upright, Skipped)
    assert "1.0 at every step" in upright.reason
    finished = find_traps(Left(), gym.make("CartPole-v1"), critic)
    assert isinstance(finished, Skipped)
    assert "none could be looked for" in trap_lines(finished, 5)[0]
    with pytest.raises(InputError, match="`episodes`"):
        find_traps(Left(), "CartPole-v1", critic, episodes=0)


@pytest.mark.parametrize("algorithm", [SAC, TD3])
def test_the_bias_is_the_number_that_measure_prints(algorithm, tmp_path, capsys):
    # SAC's critic counts entropy bonuses, TD3's does not: each is held against what it estimates, in both commands.
    noise = {"use_sde": False, "ent_coef": 0.5} if algorithm is SAC else {}
    model = algorithm("MlpPolicy", "Pendulum-v1", seed=3, policy_kwargs={"net_arch": [16]}, gamma=0.9, **noise)
    model.save(tmp_path / "agent.zip")
    words = [str(tmp_path / "agent.zip"), "--env", "Pendulum-v1", "--seed", "11", "--step-limit", "40", "--json"]
    assert main(["steer", *words, "--step-sizes", "0", "--episodes", "1", "--trap-episodes", "3"]) == 0
    warned = json.loads(capsys.readouterr().out)["traps"]["bias"]["value"]
    assert main(["measure", *words, "--quick", "--episodes", "3", "--states", "4"]) == 0
    measured = json.loads(capsys.readouterr().out)["q_bias"]["normalised"]
    assert warned["value"] == measured["value"]
    assert warned["ci95"] == measured["ci95"]


# The report and the command


def test_the_lines_name_what_warns_and_fit_80_columns():
    lines = trap_lines(signs(np.stack([11.0 - FALLING, 15.0 - FALLING])), 3)
    text = "\n".join(lines)
    assert "WARNS" in text
    assert "misranks the states of an episode's first half" in text
    assert "few agents" in text
    assert max(map(len, lines)) <= 80
    assert "WARNS" not in "\n".join(trap_lines(signs(np.stack([FALLING, FALLING])), 3))
    single = trap_lines(signs(FALLING), 3)
    assert "cannot disagree with itself" in " ".join(" ".join(single).split())
    assert max(map(len, single)) <= 80


def test_steer_announces_them_and_its_json_holds_them(capsys, sac_file):
    words = ["steer", str(sac_file), "--env", "Pendulum-v1", "--episodes", "1", "--workers", "1", "--controls", ""]
    words += ["--step-limit", "30"]
    assert main([*words, "--step-sizes", "0.1", "--trap-episodes", "2", "--json"]) == 0
    traps = json.loads(capsys.readouterr().out)["traps"]
    assert traps["episodes"] == 2
    assert {"tau", "bias", "disagreement", "any_raised"} < traps.keys()
    assert traps["tau"]["threshold"] == 0.3
    assert main([*words, "--step-sizes", "0", "--trap-episodes", "0"]) == 0
    assert "wrong critic" not in capsys.readouterr().out
    assert main([*words, "--step-sizes", "0", "--trap-episodes", "1"]) == 0
    out = capsys.readouterr().out
    assert out.index("signs of a wrong critic, on 1 episodes") < out.index("minus plain")
    assert "the policy's draws, with entropy bonuses" in out
    assert main([*words, "--trap-episodes", "-1"]) != 0
    assert "`--trap-episodes` must be >= 0" in capsys.readouterr().err
