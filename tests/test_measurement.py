"""`measure`: exact on a task that is known exactly, near 0 for chance, and honest about what it cannot tell."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch as th
from episode_stores import MemoryStore
from linear_quadratic import GAIN, GAMMA, Flat, Linear, LinearQuadratic, Opaque, exact_q, limited

from offline_eval.datasets.arrays import from_trajectories
from offline_eval.episodes import EpisodePlan
from offline_eval.errors import DatasetError, InputError, SpaceError
from offline_eval.measurement.action_rank import ActionTrial
from offline_eval.measurement.actors import MeanAction, NoisyAction
from offline_eval.measurement.candidates import Reach, StateSample
from offline_eval.measurement.measurement import measure
from offline_eval.measurement.monte_carlo_returns import label_steps, window_ceiling
from offline_eval.measurement.plan import MeasurementPlan
from offline_eval.measurement.records import Skipped
from offline_eval.measurement.rollouts import Brancher, draw_episodes
from offline_eval.policies import critic_of
from offline_eval.report.measurement_table import measurement_table
from offline_eval.training.collection import Level, collect

TRIAL = ActionTrial(num_states=12, num_rollouts=2, num_each=1)
PLAN = MeasurementPlan(episodes=8, ceiling_windows=4, num_states=200, workers=1, trial=TRIAL)
SECTIONS = ("performance", "policy_error", "q_rank", "q_bias", "regret", "coverage")


def critic(function=None, soft=False):
    return critic_of(
        function or exact_q(),
        action_space=LinearQuadratic.action_space,
        observation_space=LinearQuadratic.observation_space,
        gamma=GAMMA,
        action_units="environment",
        soft=soft,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Twelve noisy episodes of the best policy."""
    folder = tmp_path_factory.mktemp("data") / "log"
    collect(Linear(), limited(), 480, folder, levels=[Level(noise=0.3)], seed=100)
    return folder


@pytest.fixture(scope="module")
def perfect(data):
    return measure(Linear(), limited(), dataset=data, oracle=Linear(), critic=critic(), plan=PLAN)


def test_a_perfect_agent_has_no_fault(perfect):
    bias, ranks = perfect.q_bias.bias, perfect.q_rank
    assert bias.normalised.value == pytest.approx(0.0, abs=1e-3)
    assert ranks.windows.tau.value > 0.99
    assert (ranks.ceiling.value, ranks.labels.share_labelled) == (1.0, 1.0)
    assert ranks.actions.rank.tau.value > 0.9
    errors = perfect.policy_error
    assert (errors.train.mse.value, errors.validation.mse.value, errors.evaluation.mse.value) == (0.0, 0.0, 0.0)
    for regret in (perfect.regret.train, perfect.regret.validation, perfect.regret.evaluation, perfect.regret.truth):
        assert regret.claimed.value == pytest.approx(0.0, abs=1e-3)
    assert perfect.regret.truth.realised.value == pytest.approx(0.0, abs=0.05)


def test_a_planted_bias_is_found_and_no_rank_is_lost(perfect, data):
    half = measure(Linear(), limited(), critic=critic(lambda o, a: 0.5 * exact_q()(o, a)), plan=PLAN)
    assert half.q_bias.bias.normalised.value == pytest.approx(0.5, abs=1e-3)  # values are negative: half is too high
    assert half.q_rank.windows.tau.value == pytest.approx(perfect.q_rank.windows.tau.value)


def test_a_planted_offset_is_the_error(data):
    measured = measure(Linear(offset=0.4), limited(), dataset=data, oracle=Linear(), critic=critic(), plan=PLAN)
    # 0.4 in a box of [-2, 2] is 0.2 in the scaled space.
    assert measured.policy_error.train.mse.value == pytest.approx(0.04, rel=1e-4)
    assert measured.policy_error.evaluation.mse.value == pytest.approx(0.04, rel=1e-4)
    assert measured.regret.evaluation.claimed.value > 0.05


def test_chance_ranks_nothing():
    # A policy that does not know the state, and a Q that is noise: tau is 0 within its interval.
    generator = th.Generator().manual_seed(0)
    frequencies = 40.0 * th.randn(3, 16, generator=generator)

    def noise(observations, actions):
        return th.sin(th.cat([observations, actions], dim=1) @ frequencies).sum(1).expand(2, -1)

    plan = MeasurementPlan(episodes=20, workers=1, trial=ActionTrial(num_states=60, num_rollouts=2))
    measured = measure(Linear(0.0 * GAIN), limited(), critic=critic(noise), plan=plan)
    assert 0.0 in measured.q_rank.windows.tau.ci95
    assert 0.0 in measured.q_rank.actions.rank.tau.ci95


def test_the_schema_is_that_of_the_issue(perfect):
    found = json.loads(json.dumps(perfect.to_json(), allow_nan=False))
    assert list(found) == ["schema", *SECTIONS, "manifest"]
    assert {"train", "validation", "evaluation"} <= found["policy_error"].keys() & found["regret"].keys()
    assert {"mse", "ci95", "n", "curve"} <= found["policy_error"]["evaluation"].keys()
    assert {"window_tau", "ci95", "shuffled", "ceiling", "action_rank", "histogram"} <= found["q_rank"].keys()
    assert sum(found["q_rank"]["histogram"]["counts"]) == found["q_rank"]["num_used"]
    assert len(found["performance"]["returns"]) == 8
    assert found["manifest"]["weights_hash"]["before"] == found["manifest"]["weights_hash"]["after"]


def test_the_example_of_the_report_has_the_same_keys(perfect):
    example = json.loads((Path(__file__).parent / "measurement_example.json").read_text(encoding="utf-8"))
    found = perfect.to_json()
    for section in SECTIONS:
        assert example[section].keys() == found[section].keys(), section


def test_the_table_fits_80_columns(perfect):
    table = measurement_table(perfect.to_json())
    assert max(map(len, table.splitlines())) <= 80
    assert "tau over windows of 10" in table
    assert "visited / training" not in table  # the training error is 0


def test_the_same_call_gives_the_same_measurement(perfect, data):
    again = measure(Linear(), limited(), dataset=data, oracle=Linear(), critic=critic(), plan=PLAN)
    first, second = perfect.to_json(), again.to_json()
    assert {name: first[name] for name in SECTIONS} == {name: second[name] for name in SECTIONS}


def test_an_interrupted_call_goes_on_to_the_same_measurement(tmp_path, perfect, data):
    class Stop(Exception):
        pass

    class StopAtActions:
        def begin(self, label, total):
            if label == "candidate actions":
                raise Stop
            return lambda count: None

    arguments = {"dataset": data, "oracle": Linear(), "critic": critic(), "plan": PLAN}
    first = MemoryStore(directory=tmp_path)
    with pytest.raises(Stop):
        measure(Linear(), limited(), **arguments, store=first, watcher=StopAtActions())
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "rollouts").rglob("*.npz")}
    assert kept
    again = MemoryStore({"": [episode for _, episode in first.told]}, tmp_path)
    found = measure(Linear(), limited(), **arguments, store=again)
    assert not again.told
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    first, second = perfect.to_json(), found.to_json()
    assert {name: first[name] for name in SECTIONS} == {name: second[name] for name in SECTIONS}


def test_without_data_the_rest_is_measured():
    found = measure(Linear(), limited(), critic=critic(), plan=PLAN).to_json()
    assert "no data set" in found["coverage"]["skipped"]
    assert "no data set" in found["policy_error"]["skipped"]
    assert "no data set" in found["regret"]["train"]["skipped"]
    assert found["regret"]["truth"]["num_states"] == 12
    assert found["q_bias"]["num_states"] == 320


def test_an_agent_without_q_is_measured_all_the_same(tiny_ppo_pendulum):
    found = measure(tiny_ppo_pendulum, "Pendulum-v1", plan=PLAN).to_json()
    for name in ("q_rank", "q_bias", "regret"):
        assert "V(s) only" in found[name]["skipped"]
    assert "V(s) only" in found["policy_error"]["skipped"]
    assert len(found["performance"]["returns"]) == 8


def test_an_environment_that_cannot_restore_loses_only_that_part(data):
    found = measure(Linear(), limited(Opaque, 80), dataset=data, critic=critic(), plan=PLAN).to_json()
    assert "restored" in found["q_rank"]["action_rank"]["skipped"]
    assert "restored" in found["regret"]["truth"]["skipped"]
    assert "cannot be restored" in found["q_rank"]["ceiling"]["skipped"]
    assert found["q_rank"]["labels"]["tail"].startswith("Drop")
    assert found["q_rank"]["labels"]["share_labelled"] == pytest.approx((80 - 43) / 80)
    assert any("nothing was rolled out" in note for note in found["manifest"]["notes"])
    assert "claimed" in found["regret"]["evaluation"]


def test_equal_rewards_are_no_truth():
    found = measure(Linear(), limited(Flat), critic=critic(), plan=PLAN).to_json()
    assert "1.0 at every step" in found["q_bias"]["skipped"]
    assert "1.0 at every step" in found["q_rank"]["skipped"]


def test_episodes_shorter_than_a_window_have_no_rank_but_a_bias():
    found = measure(Linear(), limited(steps=6), critic=critic(), plan=PLAN).to_json()
    assert "must not be longer than every episode" in found["q_rank"]["skipped"]
    assert found["q_bias"]["normalised"]["value"] == pytest.approx(0.0, abs=1e-3)


def test_an_environment_that_always_raises_is_said_so():
    class Broken(LinearQuadratic):
        def step(self, action):
            raise RuntimeError("the simulator exploded")

    found = measure(Linear(), limited(Broken), critic=critic(), plan=PLAN).to_json()
    assert found["q_rank"] == {"skipped": "every episode failed"}
    assert found["performance"]["returns"] == [None] * 8


def test_bad_data_are_refused(tiny_td3, tmp_path, data):
    with pytest.raises(SpaceError):
        measure(tiny_td3, "Pendulum-v1", dataset=data, plan=PLAN)
    one = {"actions": np.zeros((3, 1), np.float32), "rewards": np.zeros(3), "terminated": np.zeros(3, bool)}
    broken = {**one, "truncated": np.zeros(3, bool), "observations": np.array([[0, 0], [0, np.nan], [0, 0], [0, 0.0]])}
    with pytest.raises(DatasetError, match=r"observations\[1, 1\]"):
        from_trajectories([broken])
    (tmp_path / "nothing.hdf5").write_bytes(b"nothing")
    with pytest.raises(DatasetError):
        measure(Linear(), limited(), dataset=tmp_path / "nothing.hdf5", critic=critic(), plan=PLAN)


def test_a_single_trajectory_has_no_validation(data):
    from offline_eval.datasets.opening import open_dataset

    found = measure(Linear(), limited(), dataset=open_dataset(data).select([0]), oracle=Linear(), plan=PLAN).to_json()
    assert "two trajectories" in found["policy_error"]["validation"]["skipped"]
    assert "two trajectories" in found["coverage"]["skipped"]
    assert found["policy_error"]["train"]["n"] == 40


def test_an_oracle_with_other_spaces_is_refused(tiny_td3, tiny_dqn, tmp_path):
    tiny_dqn.save(tmp_path / "dqn.zip")
    with pytest.raises(InputError):
        measure(tiny_td3, "Pendulum-v1", oracle=tmp_path / "dqn.zip", plan=PLAN)


def test_a_soft_critic_is_held_against_returns_with_entropy(tiny_sac):
    found = measure(tiny_sac, "Pendulum-v1", plan=PLAN).to_json()
    assert found["q_bias"]["labels"]["target"] == "the policy's draws, with entropy bonuses"
    assert found["q_bias"]["plain"]["difference"]["value"] != found["q_bias"]["difference"]["value"]
    assert found["q_rank"]["action_rank"]["recipe"]["continuation"] == "the policy's draws, with entropy bonuses"


def test_a_soft_critic_of_unknown_draws_says_that_entropy_is_missing():
    found = measure(Linear(), limited(), critic=critic(soft=True), plan=PLAN).to_json()
    assert "counts entropy bonuses, the labels do not" in found["q_bias"]["labels"]["caveat"]


def test_discrete_actions_are_measured(tiny_dqn, tmp_path):
    collect(tiny_dqn, "CartPole-v1", 300, tmp_path / "log", levels=[Level(epsilon=0.5)])
    found = measure(tiny_dqn, "CartPole-v1", dataset=tmp_path / "log", oracle=tiny_dqn, plan=PLAN).to_json()
    assert found["policy_error"]["evaluation"]["mse"] == 0.0
    assert found["regret"]["candidates"] == "all actions"
    assert found["regret"]["evaluation"]["claimed"]["value"] == pytest.approx(0.0, abs=1e-6)  # DQN is greedy
    assert found["policy_error"]["oracle"] == "DQN"
    greedy = measure(tiny_dqn, "CartPole-v1", plan=PLAN).to_json()
    assert greedy["policy_error"]["oracle"] == "the critic's best of all actions"
    assert greedy["policy_error"]["evaluation"]["mse"] == 0.0
    assert found["q_rank"]["action_rank"]["candidates"] == ["policy", "action"]
    assert found["regret"]["truth"]["num_rollouts"] == 1


def test_reach_never_looks_into_the_own_trajectory(data):
    from offline_eval.datasets.opening import open_dataset

    dataset = open_dataset(data)
    states = StateSample(dataset[0].observations[:5], np.zeros(5, int), np.arange(5))
    near = Reach(dataset, np.random.default_rng(0)).near(states, 3)
    assert near.shape == (5, 3, 1)
    assert not np.isin(near, dataset[0].actions).any()
    with pytest.raises(InputError, match="must have more than"):
        Reach(dataset.select([0]), np.random.default_rng(0)).near(states, 40)


def test_skipped_is_one_key():
    assert Skipped("no data").to_json() == {"skipped": "no data"}


def test_the_ceiling_is_that_of_labels_with_another_future():
    # The critic knows all that can be known of the step; what noise does after it caps its tau, and labels that share
    # the window but not the future agree better than it does.
    policy, driver = Linear(), NoisyAction(Linear(), LinearQuadratic.action_space, 1.0)
    episodes = [part.episode for part in draw_episodes(driver, limited(), EpisodePlan.seeded(10))]
    with Brancher(limited(), episodes) as brancher:
        steps = label_steps(critic(), driver, episodes, brancher)
        generator = np.random.default_rng(0)
        noisy = window_ceiling(steps, brancher, generator, window=10, num_windows=80, num_steps=60)
        exact = label_steps(critic(), MeanAction(policy), episodes, brancher)
        certain = window_ceiling(exact, brancher, generator, window=10, num_windows=80, num_steps=60)
    assert certain.value == 1.0
    assert 0.3 < noisy.value < 1.0
    assert steps.rank(generator, 10).tau.value < noisy.value
    assert isinstance(window_ceiling(steps, None, generator, window=10, num_windows=8, num_steps=60), Skipped)


def test_a_reference_agent_takes_its_own_bias_off(tiny_td3):
    # Its own reference: the same bias on both sides, so that nothing is left.
    bias = measure(tiny_td3, "Pendulum-v1", reference=tiny_td3, plan=PLAN).to_json()["q_bias"]
    assert bias["normalised"]["value"] != 0.0
    assert bias["excess"]["value"] == pytest.approx(0.0, abs=1e-9)
    with pytest.raises(InputError):
        measure(tiny_td3, "Pendulum-v1", reference=Linear(), plan=PLAN)
