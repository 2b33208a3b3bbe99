"""Success at the last step, or at any: both are recorded, and the table says which one counts."""

from __future__ import annotations

import numpy as np
import pytest
from environments import Counter, Zero
from gymnasium.vector import SyncVectorEnv
from stable_baselines3.common.vec_env import DummyVecEnv

from offline_eval import EpisodePlan, evaluate
from offline_eval.episodes import AnyStep, Episode, LastStep
from offline_eval.report.tables import evaluation_table
from offline_eval.run_folder import RunFolder, plan_to_json, read_episodes

PLAN = EpisodePlan.of([10, 11, 12, 13])


class Passing(Counter):
    """Reaches its goal at step 2 with an odd seed and walks on; stays there to the end with seed 12."""

    def __init__(self, key="success", always=True):
        super().__init__(4)
        self.key, self.always = key, always

    def step(self, action):
        observation, reward, terminated, truncated, _ = super().step(action)
        there = (self.seed % 2 == 1 and self.steps == 2) or (self.seed == 12 and self.steps >= 3)
        info = {self.key: np.array([float(there)])} if there or self.always else {}
        return observation, reward, terminated, truncated, info


HOSTS = {
    "factory": lambda make: make,
    "vector": lambda make: SyncVectorEnv([make] * 2),
    "same step": lambda make: SyncVectorEnv([make] * 2, autoreset_mode="SameStep"),
    "sb3": lambda make: DummyVecEnv([make] * 2),
}


@pytest.mark.parametrize("key", ["success", "is_success"])
@pytest.mark.parametrize("host", HOSTS)
def test_both_are_recorded(host, key):
    last = evaluate(Zero(), HOSTS[host](lambda: Passing(key)), PLAN)
    assert [e.success for e in last.episodes] == [False, False, True, False]
    assert [e.success_any for e in last.episodes] == [False, True, True, True]
    assert last.successes == (1, 4)
    assert any(note.startswith("2 of 4 episodes succeeded at some step and not at the last") for note in last.notes)
    any_step = evaluate(Zero(), HOSTS[host](lambda: Passing(key)), PLAN, success_at=AnyStep())
    assert any_step.successes == (3, 4)
    assert not any("succeeded" in note for note in any_step.notes)


def test_an_environment_that_tells_only_of_success():
    last = evaluate(Zero(), lambda: Passing(always=False), PLAN)
    assert [e.success for e in last.episodes] == [None, None, True, None]
    assert last.successes == (1, 1)
    assert last.successes_at(AnyStep()) == (3, 4)


def test_the_table_says_which_step_counts():
    def row(success_at):
        table = evaluation_table(evaluate(Zero(), lambda: Passing(), PLAN, success_at=success_at), "agent.zip")
        return next(line for line in table.splitlines() if line.startswith("success"))

    assert "1 of 4 (last step)" in row(None)
    assert "1 of 4 (last step)" in row(LastStep())
    assert "3 of 4 (any step)" in row(AnyStep())


def test_a_failed_episode_did_not_succeed():
    class Failing(Passing):
        def step(self, action):
            observation, reward, *rest = super().step(action)
            return observation, np.nan if (self.seed, self.steps) == (12, 4) else reward, *rest

    found = evaluate(Zero(), lambda: Failing(), PLAN)
    assert found.episodes[2].failed is not None
    assert (found.successes, found.successes_at(AnyStep())) == ((0, 4), (2, 4))


def test_a_run_folder_keeps_both_and_reads_what_older_ones_hold(tmp_path):
    asked = {"env": "x", "agents": {}, "plan": plan_to_json(PLAN), "variants": {}, "options": {}}
    kept = Episode(0, 10, 4.0, 4, True, False, success=False, success_any=True)
    RunFolder(tmp_path / "run", asked).record("plain", kept)
    assert read_episodes(tmp_path / "run") == {"plain": [kept]}
    table = tmp_path / "run" / "episodes.csv"
    older = [line.rsplit(",", 2)[0] for line in table.read_text().splitlines()]
    table.write_text("\n".join(older) + "\n")
    assert read_episodes(tmp_path / "run")["plain"][0].success_any is None
