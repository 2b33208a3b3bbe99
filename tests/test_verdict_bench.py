"""A few clear cases of the bench, on two seeds: the verdict names what was planted. `benchmarks/` has all of them."""

from __future__ import annotations

import pytest

from offline_eval.diagnosis import DiagnosisPlan, diagnose
from offline_eval.diagnosis.plan import Extractions
from offline_eval.diagnosis.rollout_search import TruthPlan
from offline_eval.problems import LinearQuadraticProblem, MazeProblem, plant

PLAN = DiagnosisPlan(
    measure=None,
    extractions=Extractions(gradient_steps=0),
    learning_rates=(),
    workers=1,
    n_envs=20,
    episodes=32,
    selection_episodes=12,  # a policy that fails in a few starts must be seen to fail here, too
    num_near=(12,),
    step_sizes=(0.0, 0.3),
    num_steps=1,
    max_states=3000,
    truth=TruthPlan(num_starts=20),
)
CASES = [
    ("maze", "healthy", 0, "none"),
    ("maze", "healthy", 1, "none"),
    ("maze", "value 2", 0, "value"),
    ("maze", "extraction 1", 1, "extraction"),
    ("maze", "generalisation 1", 0, "generalisation"),
    ("carts", "extraction 1", 0, "extraction"),
    ("carts", "generalisation 1", 1, "generalisation"),
]


@pytest.mark.parametrize(("problem", "fault", "seed", "expected"), CASES)
def test_the_verdict_names_what_was_planted(problem, fault, seed, expected):
    case = plant(MazeProblem() if problem == "maze" else LinearQuadraticProblem(seed), fault, seed, num_trajectories=60)
    verdict = diagnose(case.policy, case.env, case.dataset, critic=case.critic, plan=PLAN).verdict
    assert verdict.bottleneck == expected, verdict.evidence
    assert verdict.sentence
