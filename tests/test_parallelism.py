"""Environments and processes are chosen by what they cost, and the table is the same whatever was chosen."""

from __future__ import annotations

import json
import os

import pytest
from environments import Counter, Zero

from offline_eval.cli import main
from offline_eval.episodes import EpisodePlan, evaluate, parallelism
from offline_eval.episodes.parallelism import Costs, Parallelism, choose
from offline_eval.run_folder import RunFolder


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(parallelism, "num_cores", lambda: 2)


def chosen(monkeypatch, costs, num_episodes, **words):
    monkeypatch.setattr(parallelism, "probe", lambda policy, env: costs)
    return choose(Zero(), lambda: Counter(3), num_episodes, **words)


def test_by_hand(monkeypatch, two_cores):
    cheap = Costs(make=0.0, step=1e-5, policy=1e-3)
    # 7 of 10 steps: all at once take 10 ms, and no process pays for its start.
    assert chosen(monkeypatch, cheap, 7, limit=10) == Parallelism(7, 1)
    # 197 of 1,000 steps. One process: 7 batches of 32, 7 s, and 2 s of steps; two: 4 batches, 4 s, 1 s of steps and
    # 3 s for the start. 25 are the fewest with 4 batches of 50.
    assert chosen(monkeypatch, cheap, 197, limit=1000) == Parallelism(25, 2)
    # What takes long to make is made less often: 4 x 100 batches of 1 ms cost less than a second environment of 1 s.
    dear = Costs(make=1.0, step=1e-5, policy=1e-3)
    assert chosen(monkeypatch, dear, 4, limit=100) == Parallelism(1, 1)


def test_numbers_stay(monkeypatch, two_cores):
    slow = Costs(make=0.0, step=1.0, policy=1.0)
    assert chosen(monkeypatch, slow, 64, n_envs=3, workers=1) == Parallelism(3, 1)
    assert chosen(monkeypatch, slow, 64, n_envs=3).n_envs == 3
    assert chosen(monkeypatch, slow, 64, workers=1).workers == 1
    assert chosen(monkeypatch, slow, 64).workers == 2
    assert chosen(monkeypatch, slow, 64, on_cpu=False).workers == 1


def test_python_starts_no_process_and_measures_nothing_unless_asked(monkeypatch, two_cores):
    def fails(policy, env):
        raise AssertionError("nothing was to be measured")

    monkeypatch.setattr(parallelism, "probe", fails)
    result = evaluate(Zero(), lambda: Counter(3), EpisodePlan.seeded(40))
    assert (result.n_envs, result.workers) == (20, 1)  # two turns


def test_a_probe_counts_what_it_sees_and_never_fails():
    costs = parallelism.probe(Zero(), lambda: Counter(3))
    assert 0 < costs.step < 1
    assert 0 < costs.policy < 1
    assert parallelism.probe(Zero(), lambda: Counter(3, raise_at=(0, 1))) == parallelism.TYPICAL
    assert parallelism.probe(object(), lambda: Counter(3)) == parallelism.TYPICAL


def test_a_resumed_run_keeps_what_was_chosen(tmp_path):
    asked = {"env": "E", "agents": {}, "plan": [], "variants": {}, "options": {}}
    folder = RunFolder(tmp_path, asked)
    assert folder.settled("side_by_side", lambda: {"n_envs": 7, "workers": 2}) == {"n_envs": 7, "workers": 2}
    del folder
    again = RunFolder(tmp_path, asked, resume=True)
    assert again.settled("side_by_side", lambda: {"n_envs": 1, "workers": 1}) == {"n_envs": 7, "workers": 2}


def test_the_command_line_chooses_shows_and_keeps_it(sac_file, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["evaluate", str(sac_file), "--env", "Pendulum-v1", "--episodes", "4", "--step-limit", "5", "--out", "run"]
    assert main(words) in (0, None)
    out = capsys.readouterr().out
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    found = manifest["settled"]["side_by_side"]
    assert found["workers"] == 1  # a short run starts no process
    assert f"({found['n_envs']} environment" in out
    assert "checked on 3 of 4 episodes" in out
    assert {key: manifest["result"][key] for key in ("n_envs", "workers")} == found
    assert manifest["result"]["invariant"] is True
    assert manifest["result"]["invariance"]["checked"] == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert main([*words, "--n-envs", "2", "--workers", "2", "--resume"]) in (0, None)
    resumed = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert (resumed["result"]["n_envs"], resumed["result"]["workers"]) == (2, 2)
    assert resumed["result"]["episodes"] == manifest["result"]["episodes"]
