"""A gated trial where the truth is known: who should win, and who should not."""

import json
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from episode_stores import MemoryStore
from gymnasium import spaces
from steered import FunctionCritic, square

from offline_eval.episodes import EpisodePlan
from offline_eval.errors import InputError
from offline_eval.steering import Gate, tune_steering
from offline_eval.steering.selection import choose, t_statistic
from offline_eval.steering.steering import Variant
from offline_eval.steering.tuning import trivial_controls, tuning_candidates
from offline_eval.wrappers import L2, OPEX


class Target(gym.Env):
    """Shows where the best action lies and pays minus the squared distance to it; ten steps, each with a new target."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._show(), {}

    def step(self, action):
        reward = -100.0 * float(np.square(action - self.target).sum())
        self.steps += 1
        return self._show(), reward, False, self.steps >= 10, {}

    def _show(self):
        self.target = self.np_random.uniform(-0.55, 0.55, 1).astype(np.float32)
        return self.target


def target():
    return Target()


class Off:
    """A policy that misses the target by an offset and a factor."""

    def __init__(self, offset=0.0, factor=1.0):
        self.offset, self.factor = offset, factor

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return (observation * np.float32(self.factor) + np.float32(self.offset)).clip(-1, 1), state


GOOD, WRONG = FunctionCritic(square), FunctionCritic(lambda o, a: -square(o, a))
HITS = ("OPEX 0.4", "OPEX 10 x 0.1")
FRESH = EpisodePlan.seeded(20)


def test_the_threshold_is_students():
    assert Gate().threshold(10) == pytest.approx(2.262, abs=1e-3)
    assert Gate(level=0.01).threshold(10) == pytest.approx(3.250, abs=1e-3)
    assert Gate().threshold(1) == np.inf


def test_t_by_hand():
    # Differences 1, 2, 3: mean 2, deviation 1, standard error 1 / sqrt(3).
    assert t_statistic(np.array([1.0, 2.0, 3.0]), np.zeros(3)) == pytest.approx(2 * np.sqrt(3))
    # A failure is worse than anything; where only the other failed, nothing is known.
    assert t_statistic(np.array([1.0, np.nan, 3.0]), np.zeros(3)) == -np.inf
    assert t_statistic(np.array([1.0, 2.0, 3.0]), np.array([0.0, np.nan, 0.0])) == 0.0
    assert t_statistic(np.ones(3), np.zeros(3)) == np.inf
    assert t_statistic(np.zeros(3), np.ones(3)) == -np.inf
    assert t_statistic(np.ones(3), np.ones(3)) == 0.0


def returns(mean, spread=1.0):
    return mean + spread * np.array([-1.0, 1.0, -1.0, 1.0])


def test_the_best_must_clear_the_gate_and_the_best_control():
    plain = np.zeros(4)
    cleared = choose(plain, {"a": returns(4.0), "b": returns(5.0)}, {"c": returns(1.0), "d": returns(2.0)})
    assert cleared.winner == cleared.best == "b"
    assert cleared.best_control == "d"
    assert cleared.t == pytest.approx(5 / (np.sqrt(4 / 3) / 2))
    noisy = choose(plain, {"a": returns(4.0, spread=9.0), "b": returns(5.0, spread=9.0)}, {"c": returns(1.0)})
    assert noisy.best == "b"
    assert not noisy.clears_gate
    assert noisy.winner is None
    beaten = choose(plain, {"a": returns(4.0)}, {"c": returns(4.5)})
    assert beaten.clears_gate
    assert not beaten.beats_control
    assert beaten.winner is None


def test_a_lead_over_the_control_must_be_more_than_its_error():
    plain, control = np.zeros(4), np.zeros(4)
    control[:] = [1.0, 3.0, 1.0, 3.0]
    lead = control + 0.1 + np.array([-1.0, 1.0, 1.0, -1.0])
    assert not choose(plain, {"a": lead + 3}, {"c": control + 3}).beats_control
    assert choose(plain, {"a": lead + 3}, {"c": control + 3}, Gate(control_t=0.0)).beats_control


def test_a_candidate_whose_environment_failed_cannot_win():
    failed = returns(9.0)
    failed[2] = np.nan
    assert choose(np.zeros(4), {"a": returns(4.0), "b": failed}, {}).winner == "a"
    assert choose(np.zeros(4), {"b": failed}, {}).winner is None


@pytest.fixture(scope="module")
def weak():
    return tune_steering(Off(offset=0.4), target, GOOD, plan=FRESH)


def test_a_good_critic_under_a_weak_policy_wins_and_is_confirmed(weak):
    # The policy is off by 0.4, which costs 16 a step. One step of 0.4 hits the target, and so do ten of 0.1: six of
    # them go there and back.
    assert weak.winner.name in HITS
    assert weak.holds
    row = weak.confirmed
    assert row.evaluation.summary.mean == pytest.approx(0.0, abs=1e-3)
    assert row.paired.mean_difference == pytest.approx(160.0, abs=1e-3)
    assert row.against_control.ci95.low > 0
    assert {e.seed for e in row.evaluation.episodes}.isdisjoint(e.seed for e in weak.trial[0].evaluation.episodes)
    assert weak.gain == row.paired.mean_difference
    assert weak.rule is weak.winner.rule


def test_the_trial_shows_every_candidate_and_control(weak):
    names = [row.variant.name for row in weak.trial]
    assert names[0] == "plain"
    assert names[1:] == [v.name for v in (*tuning_candidates(GOOD), *trivial_controls())]
    assert [row.variant.name for row in weak.trial if row.control] == [v.name for v in trivial_controls()]
    sizes = [v.step_size for v in tuning_candidates(GOOD) if v.name.startswith("OPEX 0") or v.name == "OPEX 1"]
    assert max(sizes) / min(sizes) == pytest.approx(100.0)


def test_plain_data_holds_the_whole_trial(weak):
    data = json.loads(json.dumps(weak.to_json()))
    assert data["choice"]["winner"] in HITS
    assert data["holds"] is True
    assert len(data["trial"]) == len(weak.trial)
    assert data["confirmation"][1]["returns"] == weak.confirmed.evaluation.returns.tolist()


def test_a_negated_critic_gains_nothing():
    tuning = tune_steering(Off(offset=0.4), target, WRONG, plan=FRESH)
    assert tuning.winner is None
    assert tuning.rule is None
    assert tuning.confirmation == ()
    assert tuning.gain == 0.0
    assert tuning.holds is None


def test_what_a_longer_action_does_as_well_is_no_gain():
    # 1.1 times the action is the best there is: steering gains, but no more than the control.
    tuning = tune_steering(Off(factor=1 / 1.1), target, GOOD, plan=FRESH)
    assert tuning.choice.clears_gate
    assert tuning.choice.best_control == "times 1.1"
    assert not tuning.choice.beats_control
    assert tuning.winner is None


def test_the_table_is_the_same_for_any_number_of_environments():
    candidates = [Variant(f"OPEX {size:g}", OPEX(GOOD, size, direction=L2()), size) for size in (0.1, 0.4)]
    tables = [
        tune_steering(Off(offset=0.4), target, GOOD, candidates, plan=EpisodePlan.seeded(3), n_envs=n_envs).to_json()
        for n_envs in (1, 7)
    ]
    assert tables[0] == tables[1]


def test_an_interrupted_trial_goes_on():
    candidates, first = [Variant("OPEX 0.4", OPEX(GOOD, 0.4, direction=L2()), 0.4)], MemoryStore()
    words = {"selection_plan": EpisodePlan.seeded(4, seed=100), "plan": EpisodePlan.seeded(2), "n_envs": 4}
    whole = tune_steering(Off(0.4), target, GOOD, candidates, **words, store=first)
    kept = {}
    for name, episode in first.told[:-5]:
        kept.setdefault(name, []).append(episode)
    assert {"selection: plain", "selection: OPEX 0.4"} <= kept.keys()
    again = MemoryStore(kept)
    resumed = tune_steering(
        Off(0.4),
        target,
        GOOD,
        candidates,
        **words,
        store=again,
    )
    assert len(again.told) == 5
    assert resumed.to_json() == whole.to_json()


def test_what_chose_cannot_confirm():
    with pytest.raises(InputError, match=r"plan.*share no seed"):
        tune_steering(Off(), target, GOOD, selection_plan=EpisodePlan.seeded(10, seed=15), plan=EpisodePlan.seeded(20))
    with pytest.raises(InputError, match="at least 2 episodes"):
        tune_steering(Off(), target, GOOD, selection_plan=EpisodePlan.seeded(1, seed=100))
    one = tuning_candidates(GOOD)[0]
    with pytest.raises(InputError, match="names of their own"):
        tune_steering(Off(), target, GOOD, [one, replace(one, step_size=0.3)])
    with pytest.raises(InputError, match="level"):
        Gate(level=0.0)
