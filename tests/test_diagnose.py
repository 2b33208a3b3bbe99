"""`diagnose`: planted faults in a task that is known exactly, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch as th
from environments import Counter
from episode_stores import MemoryStore
from gymnasium import spaces
from linear_quadratic import GAIN, GAMMA, Flat, Linear, LinearQuadratic, Noisy, Opaque, Simulated, exact_q, limited

from offline_eval.datasets.arrays import from_trajectories
from offline_eval.datasets.records import Trajectory
from offline_eval.diagnosis import DiagnosisPlan, diagnose
from offline_eval.diagnosis.plan import Extractions
from offline_eval.diagnosis.rollout_search import TruthPlan
from offline_eval.errors import InputError, OfflineEvalError
from offline_eval.measurement.records import Skipped
from offline_eval.policies import critic_of
from offline_eval.training.collection import Level, collect

FEW = {
    "episodes": 10,
    "selection_episodes": 4,
    "num_near": (4,),
    "step_sizes": (0.0, 0.2),
    "num_steps": 2,
    "workers": 1,
    "n_envs": 10,
    "truth": TruthPlan(num_starts=10, num_near=2, num_offsets=4, num_rollouts=1, horizon=20, noise=0.0),
    "measure": None,
    "extractions": Extractions(gradient_steps=0),
    "learning_rates": (),
}
PLAN = DiagnosisPlan(**FEW)


class Far(Simulated):
    """Starts three times as far away."""

    def reset(self, *, seed=None, options=None):
        _, info = super().reset(seed=seed)
        self.state = 3.0 * self.state
        return self._observation(), info


class LostOutside:
    """The best policy near the origin; far from it a push the wrong way."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        right = observation @ GAIN.T
        near = np.linalg.norm(observation, axis=1, keepdims=True) < 1.5
        return np.clip(np.where(near, right, -0.3 * right), -2.0, 2.0).astype(np.float32), None


def critic(function=None):
    return critic_of(
        function or exact_q(),
        action_space=LinearQuadratic.action_space,
        observation_space=LinearQuadratic.observation_space,
        gamma=GAMMA,
        action_units="environment",
    )


def likes_the_offset(observations, actions):
    """Thinks that the best action is 1 too large."""
    best = observations @ th.as_tensor(GAIN, dtype=th.float32).T + 1.0
    return -(actions - best).square().sum(1).expand(2, -1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Twenty noisy episodes of the best policy."""
    folder = tmp_path_factory.mktemp("data") / "log"
    collect(Linear(), limited(Simulated), 800, folder, levels=[Level(noise=0.5)], seed=100)
    return folder


def test_a_healthy_agent_is_not_accused(data):
    found = diagnose(Linear(), limited(Simulated), data, critic=critic(), plan=PLAN)
    assert found.verdict.bottleneck == "none"
    assert found.ladder.best == "policy"
    assert all(share.estimate < 0.05 for share in found.verdict.shares.values())


def test_a_critic_that_likes_what_the_policy_does_wrong(data):
    found = diagnose(Linear(offset=1.0), limited(Simulated), data, critic=critic(likes_the_offset), plan=PLAN)
    assert found.verdict.bottleneck == "value"
    assert found.verdict.shares["value"].estimate > 0.2
    assert found.verdict.shares["extraction"].estimate == 0.0


def test_noise_of_the_environments_own_generator_is_no_obstacle(data):
    found = diagnose(Linear(), limited(Noisy), data, critic=critic(), plan=PLAN)
    assert found.verdict.bottleneck in ("none", "unknown")
    assert found.verdict.shares["value"].estimate < 0.05
    found = diagnose(Linear(offset=1.0), limited(Noisy), data, critic=critic(likes_the_offset), plan=PLAN)
    assert found.verdict.bottleneck == "value"


class Loud(Noisy):
    """With noise that drowns what an action does."""

    def step(self, action):
        _, *rest = super().step(action)
        self.state = self.state + 0.5 * self.np_random.normal(size=2)
        return self._observation(), *rest


def test_a_truth_that_does_harm_is_sought_with_more_rollouts(data):
    # Beside the best policy the best of six noisy rollouts is a worse action than its own.
    truth = TruthPlan(num_starts=20, num_near=2, num_offsets=4, num_rollouts=1, horizon=20, noise=0.0)
    plan = DiagnosisPlan(**{**FEW, "episodes": 20, "truth": truth})
    found = diagnose(Linear(), limited(Loud, 20), data, critic=critic(), plan=plan)
    assert "4 rollouts a candidate" in found.ladder["truth"].note
    assert found.ladder["truth"].against_control.ci95.high > 0.0
    assert found.verdict.bottleneck == "none"


def test_a_policy_that_does_not_do_what_its_critic_knows(data):
    found = diagnose(Linear(offset=1.0), limited(Simulated), data, critic=critic(), plan=PLAN)
    assert found.verdict.bottleneck == "extraction"
    assert found.verdict.shares["extraction"].estimate > 0.2
    assert "steer" in found.verdict.recommendation.command


def test_a_policy_that_is_lost_where_the_data_do_not_reach(data):
    found = diagnose(LostOutside(), limited(Far), data, critic=critic(), plan=PLAN)
    assert found.verdict.bottleneck == "generalisation"
    assert found.ladder.share_outside > 0.1
    assert found.ladder["outside"].summary.mean > found.ladder["inside"].summary.mean
    # The truth mends next to nothing before it leaves.
    assert found.ladder["truth_inside"].gain.estimate < 0.2 * found.ladder["truth"].gain.estimate


def test_without_a_simulator_health_cannot_be_told_but_an_oracle_can_tell(data):
    found = diagnose(Linear(), limited(Opaque), data, critic=critic(), plan=PLAN)
    assert found.verdict.bottleneck == "unknown"
    assert "simulator" in found.verdict.sentence
    assert "cannot be restored" in found.ladder.missing["truth"]
    found = diagnose(Linear(), limited(Opaque), data, critic=critic(), oracle=Linear(), plan=PLAN)
    assert found.verdict.bottleneck == "none"
    assert found.ladder["oracle"].paired.mean_difference == 0.0


def test_long_episodes_are_judged_on_segments(data):
    truth = TruthPlan(num_starts=20, longest=20, segment=10, num_near=2, num_offsets=4, num_rollouts=1, noise=0.0)
    plan = DiagnosisPlan(**{**FEW, "truth": truth})
    found = diagnose(Linear(offset=1.0), limited(Simulated), data, critic=critic(likes_the_offset), plan=plan)
    assert found.ladder["truth"].unit == "segment"
    assert found.ladder.segment_range > 0.0
    assert found.verdict.bottleneck == "value"


def test_it_measures_too_and_is_repeatable(data, tmp_path):
    from offline_eval.measurement.action_rank import ActionTrial
    from offline_eval.measurement.plan import MeasurementPlan

    trial = ActionTrial(num_states=6, num_rollouts=2, num_each=1)
    plan = DiagnosisPlan(**{**FEW, "measure": MeasurementPlan(ceiling_windows=2, num_states=50, trial=trial)})
    words = {"critic": critic(), "plan": plan, "store": MemoryStore(directory=tmp_path)}
    first = diagnose(Linear(offset=1.0), limited(Simulated), data, **words)
    assert first.measurement.regret.evaluation.claimed.value > 0.05
    assert any("spreads" in sentence for sentence in first.verdict.evidence)
    result = first.to_json()
    json.dumps(result, allow_nan=False)
    assert result["manifest"]["diagnosis"]["critic"] == "given"
    again = diagnose(Linear(offset=1.0), limited(Simulated), data, critic=critic(), plan=plan)
    assert [rung.to_json() | {"seconds": 0} for rung in again.ladder.rungs] == [
        rung.to_json() | {"seconds": 0} for rung in first.ladder.rungs
    ]


def test_other_extractions_of_the_same_critic_are_rungs(data):
    wanted = Extractions(gradient_steps=300, bc_coefs=(0.1, 10.0), net_arch=(32,))
    plan = DiagnosisPlan(**{**FEW, "extractions": wanted, "learning_rates": (3e-4,)})
    found = diagnose(Linear(offset=1.0), limited(Simulated), data, critic=critic(), plan=plan)
    ladder = found.ladder
    # The data are those of the best policy: both leave most of the offset's harm behind.
    for rung in ("ddpg_bc", "awr"):
        assert ladder[rung].gain.estimate > 0.5 * ladder["opex"].gain.estimate, rung
    assert [dict(trial.choice) for trial in ladder["ddpg_bc"].selection] == [{"bc_coef": 0.1}, {"bc_coef": 10.0}]
    assert "Linear" in ladder.missing["adapted"]  # no weights to adapt
    assert found.verdict.bottleneck == "extraction"


def test_a_policy_without_a_critic_gets_one_fitted(data):
    plan = DiagnosisPlan(**{**FEW, "fitted_steps": 5, "episodes": 2, "selection_episodes": 2})
    found = diagnose(Linear(), limited(Simulated), data, plan=plan)
    assert found.manifest["critic"].startswith("fitted to the data in 5 steps")
    none = diagnose(Linear(), limited(Opaque), data, plan=DiagnosisPlan(**{**FEW, "fitted_steps": 0, "episodes": 2}))
    assert none.verdict.bottleneck == "unknown"
    assert none.ladder.missing["best_of_n"] == "there is no critic"
    assert isinstance(none.measurement.q_rank, Skipped)


# ------------------------------------------------------------------------------------------------ refusals


def constant(num_trajectories, length, space=Counter.action_space, dimension=2, reward=1.0):
    generator = np.random.default_rng(0)
    parts = [
        Trajectory(
            observations=generator.normal(size=(length + 1, dimension)).astype(np.float32),
            actions=generator.uniform(-1, 1, (length, *space.shape)).astype(np.float32),
            rewards=np.full(length, reward, np.float32),
            terminated=np.arange(length) == length - 1,
            truncated=np.zeros(length, bool),
            final_known=True,
        )
        for _ in range(num_trajectories)
    ]
    seen = spaces.Box(-np.inf, np.inf, (dimension,), np.float32)
    return from_trajectories(parts, observation_space=seen, action_space=space)


class Unpaid(LinearQuadratic):
    """Pays nothing."""

    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, 0.0, *rest


class Broken(LinearQuadratic):
    """Cannot be stepped."""

    def step(self, action):
        raise RuntimeError("the simulator exploded")


@pytest.mark.parametrize(
    ("env", "dataset", "message"),
    [
        (limited(), constant(1, 30, LinearQuadratic.action_space), "at least two trajectories"),
        (limited(), constant(3, 1, LinearQuadratic.action_space), "more than 4 steps in its training part"),
        (limited(Unpaid), constant(9, 9, LinearQuadratic.action_space, reward=0.0), "must pay rewards"),
        (limited()(), constant(9, 9, LinearQuadratic.action_space), "must be an id, a spec or a factory"),
        ("CartPole-v1", constant(9, 9), "must have a Box of actions"),
        (limited(), constant(9, 9, LinearQuadratic.action_space, dimension=5), "observations"),
        (limited(), None, "must be a Dataset, a file or a folder"),
    ],
)
def test_bad_input_is_refused(env, dataset, message):
    with pytest.raises(InputError, match=message):
        diagnose(Linear(), env, dataset, critic=critic(), plan=PLAN)


def test_an_agent_that_fails_every_episode(data):
    with pytest.raises(OfflineEvalError, match="every episode of the policy failed: RuntimeError"):
        diagnose(Linear(), limited(Broken), data, critic=critic(), plan=PLAN)


def test_rungs_whose_every_episode_fails_leave_the_others(data):
    class Fragile(Simulated):
        """Breaks at any action that the policy would not take."""

        def step(self, action):
            if not np.array_equal(np.asarray(action), np.zeros(1, np.float32)):
                raise RuntimeError("too much")
            return super().step(action)

    found = diagnose(Linear(0.0 * GAIN), limited(Fragile), data, critic=critic(), plan=PLAN)
    assert found.ladder["control"].summary.failed == 10
    assert found.ladder.best == "policy"
    json.dumps(found.to_json(), allow_nan=False)


def test_a_policy_that_remembers_is_refused(data):
    class Remembers(Linear):
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return super().predict(observation)[0], (np.zeros(1),)

    with pytest.raises(InputError, match="recurrent"):
        diagnose(Remembers(), limited(Simulated), data, critic=critic(), plan=PLAN)


def test_an_environment_where_nothing_matters_cannot_be_told():
    dataset = constant(9, 9, LinearQuadratic.action_space)
    found = diagnose(Linear(), limited(Flat), dataset, critic=critic(), plan=PLAN)
    assert found.verdict.bottleneck == "unknown"
    assert found.ladder.range == 0.0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"episodes": 1}, "`episodes` must be >= 2"),
        ({"step_sizes": (0.1,)}, "with 0 among them"),
        ({"num_near": ()}, "`num_near`"),
        ({"seed": -1}, "`seed`"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(words, message):
    with pytest.raises(InputError, match=message):
        DiagnosisPlan(**words)
