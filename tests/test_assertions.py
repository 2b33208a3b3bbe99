"""The assertions: what holds passes, what does not fails with a table, what cannot be told says so."""

from __future__ import annotations

import pickle
import subprocess
import sys
import unittest

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from environments import Counter, Zero
from linear_quadratic import GAIN, GAMMA, Linear, LinearQuadratic, exact_q, limited
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from offline_eval.episodes import EpisodePlan
from offline_eval.errors import CriticError, InputError, SpaceError
from offline_eval.policies import Normalized, Statistics, critic_of
from offline_eval.testing import (
    FreshEpisodes,
    Session,
    Undecided,
    UndecidedWarning,
    Violated,
    assert_covers,
    assert_deterministic,
    assert_evaluation_mse,
    assert_kendall_tau,
    assert_normalizer_frozen,
    assert_not_worse,
    assert_q_bias,
    assert_return_at_least,
    assert_steering_helps,
    assert_unchanged,
    using,
)
from offline_eval.training.collection import Level, collect
from offline_eval.wrappers import OPEX, Placebo

BOUNDS = (0.0, 10.0)
PLAN = 300


class Noisy(Counter):
    """Pays 1 a step and some noise; an action costs half its square."""

    def step(self, action):
        observation, reward, *rest = super().step(action)
        reward += 0.2 * float(self.np_random.uniform(-1, 1)) - 0.5 * float(np.square(action).sum())
        return observation, reward, *rest


class Push(Zero):
    """Always pushes by 0.2, which costs 0.1 an episode of five steps."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        actions, state = super().predict(observation, state)
        return actions + np.float32(0.2), state


def noisy():
    return Noisy(5)


def critic(change=lambda q: q):
    known = exact_q()
    return critic_of(
        lambda observations, actions: change(known(observations, actions)),
        action_space=LinearQuadratic.action_space,
        observation_space=LinearQuadratic.observation_space,
        gamma=GAMMA,
        action_units="environment",
    )


def test_a_return_that_is_high_enough_passes_and_is_told():
    heard = []
    with using(Session(on_outcome=heard.append)):
        outcome = assert_return_at_least(Zero(), 4.0, env=noisy, bounds=BOUNDS, plan=PLAN)
    assert heard == [outcome]
    assert (outcome.verdict, outcome.agent, outcome.alpha) == ("holds", "Zero", 0.01)
    assert outcome.rows[0].interval.low >= 4.0
    assert outcome.rows[0].value == pytest.approx(5.0, abs=0.1)
    assert outcome.episodes < PLAN
    assert outcome.to_json()["rows"][0]["threshold"] == "at least 4"


def test_a_failure_is_a_small_table():
    with pytest.raises(Violated) as caught:
        assert_return_at_least(Zero(), 6.0, env=noisy, plan=EpisodePlan.seeded(PLAN, seed=7))
    head, *lines = str(caught.value).splitlines()
    assert head == "assert_return_at_least is violated: Zero in noisy (false-alarm rate 0.01)"
    assert [line.split()[0] for line in lines] == [
        "value",
        "interval",
        "threshold",
        "episodes",
        "seeds",
        "assumes",
        "more",
    ]
    table = dict(line.split(maxsplit=1) for line in lines)
    assert table["threshold"] == "at least 6"
    assert (table["episodes"], table["seeds"]) == (f"104 of {PLAN}", "7..110")
    assert table["assumes"].startswith("asymptotic, from 104 independent episodes on; no event rarer")
    assert table["more"] == "offline-eval evaluate AGENT.zip --env noisy --episodes 104 --seed 7"
    assert table["interval"].endswith("either end wrong in 0.01 of runs at most")
    assert isinstance(caught.value, AssertionError)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_undecided_is_an_outcome_of_its_own():
    def ask(undecided):
        return assert_return_at_least(Zero(), 5.0, env=noisy, plan=110, undecided=undecided)

    with pytest.raises(Undecided, match="neither the property nor its opposite was shown"):
        ask("fail")
    with pytest.raises(unittest.SkipTest, match="is undecided"):
        ask("skip")
    with pytest.warns(UndecidedWarning, match="is undecided") as warned:
        assert ask("warn").verdict == "undecided"
    assert warned[0].filename == __file__


class Counted(FreshEpisodes):
    """Remembers which seeds were asked for."""

    def __init__(self, batches):
        super().__init__()
        object.__setattr__(self, "batches", batches)

    def evaluation(self, policy, env, plan, rule=None):
        self.batches.append([entry.seed for entry in plan])
        return super().evaluation(policy, env, plan, rule)


def test_episodes_are_added_in_the_order_of_the_plan_and_no_more_than_it_takes():
    batches = []
    outcome = assert_return_at_least(Zero(), 4.0, env=noisy, bounds=BOUNDS, plan=PLAN, source=Counted(batches))
    assert [seed for batch in batches for seed in batch] == list(range(outcome.episodes))
    assert [len(batch) for batch in batches] == [32] * len(batches)


def test_a_planted_regression_is_caught_and_the_baseline_passes():
    # Half the gain lets the state run on: the return falls by about a quarter.
    worse, env = Linear(0.4 * GAIN), limited(steps=30)
    with pytest.raises(Violated, match="mean paired difference to the baseline"):
        assert_not_worse(worse, Linear(), env=env, margin=0.2, plan=200)
    with pytest.raises(Violated, match=r"mean of agent - 1\.05 baseline"):
        assert_not_worse(worse, Linear(), env=env, relative_margin=0.05, plan=200)
    alike = Linear(0.999 * GAIN)
    assert assert_not_worse(alike, Linear(), env=env, margin=0.2, plan=200).verdict == "holds"
    assert assert_not_worse(alike, Linear(), env=env, relative_margin=0.05, plan=200).verdict == "holds"
    assert assert_not_worse(Linear(), worse, env=env, plan=200).rows[0].value > 0.0


def test_a_margin_is_in_units_of_return():
    # The push costs exactly 0.1 an episode, on every seed: nothing is known of the spread of such a cost.
    with pytest.raises(Undecided, match=r"120 equal numbers do not show .* declare `bounds=\(low, high\)`"):
        assert_not_worse(Push(), Zero(), env=noisy, margin=0.11, plan=120)
    wide = (-20.0, 30.0)
    assert assert_not_worse(Push(), Zero(), env=noisy, margin=5.0, bounds=wide, plan=120).rows[0].value == (
        pytest.approx(-0.1)
    )
    assert assert_not_worse(Push(), Zero(), env=noisy, relative_margin=0.04, plan=120).verdict == "holds"
    with pytest.raises(Violated):
        assert_not_worse(Push(), Zero(), env=noisy, relative_margin=0.01, plan=200)


def test_an_agent_that_never_fails_needs_bounds_to_be_believed():
    def certain():
        return Counter(5)  # pays 1 a step

    with pytest.raises(Undecided, match="declare `bounds="):
        assert_return_at_least(Zero(), 4.75, env=certain, plan=150)
    with pytest.raises(Undecided, match="declare `bounds="):
        assert_return_at_least(Zero(), 5.5, env=certain, plan=150)
    assert assert_return_at_least(Zero(), 4.75, env=certain, bounds=(0.0, 5.0), plan=150).verdict == "holds"
    with pytest.raises(Undecided, match="declare `bounds="):
        assert_not_worse(Zero(), Zero(), env=certain, margin=1.0, plan=150)
    assert assert_not_worse(Zero(), Zero(), env=certain, margin=1.0, bounds=(0.0, 5.0), plan=150).verdict == "holds"


def test_steering_must_beat_the_random_direction_and_the_plain_policy():
    env, start = limited(steps=20), Linear(0.0 * GAIN)
    helped = assert_steering_helps(start, OPEX(critic(), 0.3), env=env, plan=135)
    gains = [row.value for row in helped.rows]
    assert min(gains) > 0.0
    others = [row.label.split(" over ")[1] for row in helped.rows]
    assert others == ["the plain policy", "the random direction", "times 1.1", "times 1.2", "placebo 1e-06"]
    with pytest.raises(Violated, match="the random direction"):
        assert_steering_helps(start, OPEX(critic(lambda q: -q), 0.3), env=env, plan=135)


def test_steering_that_a_longer_action_matches_does_not_help():
    # The gain is 1 / 1.2 of the best one: a step up the critic gains, and 1.2 times the action gains as much or more.
    env, shy = limited(steps=20), Linear(GAIN / 1.2)
    with pytest.raises((Violated, Undecided), match=r"over times 1\.2"):
        assert_steering_helps(shy, OPEX(critic(), 0.02), env=env, plan=135)


def test_a_perfect_critic_ranks_and_a_reversed_one_does_not():
    env = limited(steps=30)
    good = assert_kendall_tau(Linear(), 0.8, env=env, critic=critic(), plan=96)
    assert good.rows[0].value == pytest.approx(1.0)
    assert "a critic that counts the steps down: -1" in good.rows[0].label
    with pytest.raises(Violated):
        assert_kendall_tau(Linear(), 0.8, env=env, critic=critic(lambda q: -q), plan=96)


def test_half_the_value_is_a_bias_of_a_half():
    env = limited(steps=30)
    assert assert_q_bias(Linear(), 0.05, env=env, critic=critic(), plan=120).verdict == "holds"
    with pytest.raises(Violated) as caught:
        assert_q_bias(Linear(), 0.05, env=env, critic=critic(lambda q: 0.5 * q), plan=117)
    (row,) = caught.value.outcome.rows
    assert row.value == pytest.approx(0.5, abs=1e-3)
    assert row.threshold == "within [-0.05, 0.05]"
    upwards = assert_q_bias(Linear(), (0.4, 0.6), env=env, critic=critic(lambda q: 0.5 * q), plan=117)
    assert upwards.rows[0].interval.low < 0.5 < upwards.rows[0].interval.high


def test_an_offset_of_half_a_unit_is_an_error_of_a_quarter():
    # The box is [-2, 2]: an offset of 1 there is half a unit in the scaled space, where nothing is clipped.
    env = limited(steps=10)

    class Zeros(Zero):
        observation_space, action_space = LinearQuadratic.observation_space, LinearQuadratic.action_space

    class Ones(Zeros):
        def predict(self, *arguments, **keywords):
            actions, state = super().predict(*arguments, **keywords)
            return actions + np.float32(1.0), state

    bounds = (0.0, 0.5)
    found = assert_evaluation_mse(Zeros(), 0.3, env=env, oracle=Ones(), bounds=bounds, plan=104)
    assert found.rows[0].value == pytest.approx(0.25)
    with pytest.raises(Violated, match="the oracle is Ones"):
        assert_evaluation_mse(Zeros(), 0.2, env=env, oracle=Ones(), bounds=bounds, plan=104)
    with pytest.raises(Undecided, match="declare `bounds="):
        assert_evaluation_mse(Zeros(), 0.24, env=env, oracle=Ones(), plan=104)
    with pytest.raises(Violated, match=r"within \[0, 4\]"):
        assert_evaluation_mse(Zeros(), 0.05, env=env, oracle=Ones(), bounds=(0.0, 4.0), plan=104)


def test_the_data_cover_the_policy_that_made_them_and_not_one_that_flees(tmp_path):
    collect(Linear(), limited(), 1600, tmp_path / "log", levels=[Level(noise=0.3)], seed=100)
    assert assert_covers(Linear(), 0.8, env=limited(), dataset=tmp_path / "log", plan=200).verdict == "holds"
    with pytest.raises(Violated, match="--dataset"):
        assert_covers(Linear(offset=2.0), 0.8, env=limited(), dataset=tmp_path / "log", plan=64)


class Restless(Zero):
    """Draws from a generator that nobody seeds."""

    generator = np.random.default_rng(0)

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        actions, state = super().predict(observation, state)
        return actions + self.generator.normal(size=actions.shape).astype(np.float32), state


class Moody(Noisy):
    """Pays as it likes, whatever the seed."""

    generator = np.random.default_rng(0)

    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, float(self.generator.random()), *rest


def test_the_same_seed_gives_the_same_episode_or_the_culprit_is_named():
    assert assert_deterministic(Zero(), env=noisy).alpha is None
    with pytest.raises(Violated, match="seed 0, step 0: the agent does something else at the same observation"):
        assert_deterministic(Restless(), env=noisy)
    with pytest.raises(Violated, match="seed 2, step 0: the environment pays something else"):
        assert_deterministic(Zero(), env=lambda: Moody(5), plan=EpisodePlan.of([2]))


def test_weights_that_change_are_named(tiny_sac, sac_file):
    assert assert_unchanged(str(sac_file), env="Pendulum-v1", plan=1).verdict == "holds"
    assert assert_unchanged(tiny_sac, during=lambda: None).rows[0].value == 0.0
    weight = tiny_sac.policy.actor.mu.weight

    def nudge():
        with th.no_grad():
            weight[0, 0] += 0.25

    try:
        with pytest.raises(Violated, match=r"`actor.mu.weight` changed by up to 0.25"):
            assert_unchanged(tiny_sac, nudge)
    finally:
        with th.no_grad():
            weight[0, 0] -= 0.25


def test_a_normaliser_that_runs_on_is_found():
    class Pendulum(Zero):
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return np.zeros((*np.shape(observation)[:-1], 1), dtype=np.float32), state

    env = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]))
    with pytest.raises(Violated, match=r"`VecNormalize.obs_rms.mean` moved"):
        assert_normalizer_frozen(Pendulum(), env=env, steps=5)
    env.training = False
    assert assert_normalizer_frozen(Pendulum(), env=env, steps=5).rows[0].value == 0.0
    wrapped = gym.wrappers.NormalizeObservation(gym.make("Pendulum-v1"))
    with pytest.raises(Violated, match=r"NormalizeObservation\.obs_rms\.mean"):
        assert_normalizer_frozen(Pendulum(), env=lambda: wrapped, steps=5)
    normalized = Normalized(Pendulum(), Statistics.of(env))
    plain = gym.make("Pendulum-v1")
    assert assert_normalizer_frozen(normalized, env=plain, steps=5).verdict == "holds"

    def drift():
        normalized.statistics.observations.mean[:] += 1.0

    with pytest.raises(Violated, match=r"`statistics\.mean` moved"):
        assert_normalizer_frozen(normalized, drift, env=plain)
    with pytest.raises(InputError, match="must have a normaliser in its stack"):
        assert_normalizer_frozen(Pendulum(), env="Pendulum-v1")


def test_a_policy_that_asks_for_masks_is_not_played_without_them():
    class Masked(Zero):
        def predict(self, observation, state=None, episode_start=None, deterministic=False, action_masks=None):
            raise AssertionError("played without masks")

    wrapped = gym.wrappers.NormalizeObservation(gym.make("Pendulum-v1"))
    with pytest.raises(InputError, match=r"asks for `action_masks`.*give `during`"):
        assert_normalizer_frozen(Masked(), env=wrapped)
    assert assert_normalizer_frozen(Masked(), lambda: None, env=wrapped).verdict == "holds"


def test_neither_torch_nor_pytest_is_imported_before_it_is_needed():
    code = "import sys, offline_eval.testing, offline_eval.testing.session as s; s.current(); "
    code += "sys.exit(any(name in sys.modules for name in ('torch', 'pytest', 'gymnasium')))"
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def outside(name, value):
    return {
        "threshold": lambda: assert_return_at_least(Zero(), value, env=noisy, bounds=BOUNDS),
        "margin": lambda: assert_not_worse(Zero(), Zero(), env=noisy, margin=value),
        "relative_margin": lambda: assert_not_worse(Zero(), Zero(), env=noisy, relative_margin=value),
        "at_least": lambda: assert_kendall_tau(Linear(), value, env=limited(), critic=critic()),
        "share": lambda: assert_covers(Linear(), value, env=limited(), dataset="nowhere"),
        "at_most": lambda: assert_evaluation_mse(Linear(), value, env=limited(), oracle=Linear()),
        "within": lambda: assert_q_bias(Linear(), value, env=limited(), critic=critic()),
        "alpha": lambda: assert_return_at_least(Zero(), 1.0, env=noisy, alpha=value),
        "plan": lambda: assert_return_at_least(Zero(), 1.0, env=noisy, plan=value),
        "undecided": lambda: assert_return_at_least(Zero(), 1.0, env=noisy, undecided=value),
        "bounds": lambda: assert_return_at_least(Zero(), 1.0, env=noisy, bounds=value),
        "rule": lambda: assert_steering_helps(Zero(), value, env=noisy),
        "window": lambda: assert_kendall_tau(Linear(), 0.1, env=limited(), critic=critic(), window=value),
    }[name]


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("threshold", 11.0, r"`threshold` must lie within the declared bounds \(0.0, 10.0\). Received 11.0"),
        ("threshold", np.nan, "`threshold` must be finite"),
        ("margin", -1.0, "`margin` must be finite and >= 0. Received -1.0"),
        ("relative_margin", np.inf, "`relative_margin` must be finite and >= 0"),
        ("at_least", 1.5, r"`at_least` must lie in \[-1, 1\]. Received 1.5"),
        ("share", 1.01, r"`at_least` must lie in \[0, 1\]. Received 1.01"),
        ("at_most", -0.1, "`at_most` must be >= 0"),
        ("within", -0.2, "`within` must be a number >= 0, or two in order"),
        ("within", (0.3, 0.1), "`within` must be a number >= 0, or two in order"),
        ("alpha", 0.5, r"`alpha` must lie in \(0, 0.5\)"),
        ("plan", 0, "`plan` must hold at least one episode. Received 0"),
        ("plan", 103, "`plan` must hold at least 104 episodes where no bounds are declared. Received 103"),
        ("plan", EpisodePlan.of([*range(150), 7]), "`plan` must not hold an episode twice"),
        ("undecided", "ignore", '`undecided` must be "fail", "skip" or "warn"'),
        ("bounds", (2.0, 0.0), "`bounds` must be two finite numbers"),
        ("bounds", (0.0, 3.0), r"`bounds` must hold every value: declared were \[0, 3\]"),
        ("rule", Placebo(1e-6), "`rule` must be an OPEX or a BestOfN"),
        ("window", 1, "`window` must be at least 2"),
    ],
)
def test_a_bad_argument_is_refused_in_one_line(name, value, told):
    with pytest.raises(InputError, match=told) as caught:
        outside(name, value)()
    assert "\n" not in str(caught.value)


def test_two_margins_are_one_too_many():
    with pytest.raises(InputError, match="`relative_margin` must be left out where `margin` is given"):
        assert_not_worse(Zero(), Zero(), env=noisy, margin=1.0, relative_margin=0.1)


def test_agents_that_are_none_are_refused(tiny_sac, sac_file):
    with pytest.raises(InputError, match=r"`agent` must be an agent\. Received None"):
        assert_return_at_least(None, 1.0, env=noisy)
    with pytest.raises(InputError, match=r"`than` must have Stable-Baselines3's `predict`"):
        assert_not_worse(Zero(), object(), env=noisy)
    with pytest.raises(
        SpaceError, match=r"`than` must be an agent for CartPole-v1\. Received SAC: env must have the observation space"
    ):
        assert_not_worse(Zero(), tiny_sac, env="CartPole-v1")
    with pytest.raises(SpaceError, match=r"`than` must be an agent for CartPole-v1\. Received 'agent\.zip'"):
        assert_not_worse(Zero(), sac_file, env="CartPole-v1")
    with pytest.raises(CriticError):
        assert_kendall_tau(Linear(), 0.5, env=limited())
    with pytest.raises(InputError, match="`agent` must have weights to compare"):
        assert_unchanged(Zero(), lambda: None)
    with pytest.raises(InputError, match="`env` must be given"):
        assert_unchanged(Zero())
    with pytest.raises(InputError, match="`agent` must be an agent"):
        assert_unchanged(None, lambda: None)


def test_an_environment_that_is_none_or_breaks_is_refused():
    with pytest.raises(InputError, match=r"`env` must be an id or a factory\. Received None"):
        assert_return_at_least(Zero(), 1.0, env=None)
    with pytest.raises(InputError, match=r"`env` must be the id of a registered environment\. Received 'Hoper-v5'"):
        assert_return_at_least(Zero(), 1.0, env="Hoper-v5")
    with pytest.raises(InputError, match=r"the simulator exploded.* with seed 3: mend the environment"):
        assert_return_at_least(Zero(), 1.0, env=lambda: Counter(5, raise_at=(3, 2)), bounds=BOUNDS)
    with pytest.raises(InputError, match="1 of 5 episodes in which it raised"):
        assert_deterministic(Zero(), env=lambda: Counter(5, raise_at=(3, 2)), plan=5)
