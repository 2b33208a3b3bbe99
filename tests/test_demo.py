"""The demo, with less of everything: it leaves the folders that it names, and takes the verdict's advice."""

from __future__ import annotations

import json

import pytest

from offline_eval.cli import demo, main
from offline_eval.datasets import open_dataset


@pytest.fixture
def small(monkeypatch):
    words = list(demo._TRAINED)
    words[words.index("5000")] = "200"
    monkeypatch.setattr(demo, "_TRAINED", tuple(words))
    monkeypatch.setattr(demo, "_EPISODES", 20)
    monkeypatch.setattr(demo, "_DIAGNOSED", ("--quick", "--episodes", "4", "--selection-episodes", "2"))
    monkeypatch.setattr(demo, "_STEERED", ("--episodes", "2", "--trap-episodes", "0"))


def test_the_demo_runs_through(small, tmp_path, capsys):
    folder = tmp_path / "demo"
    assert main(["demo", "--out", str(folder)]) == 0
    told = capsys.readouterr().out
    assert open_dataset(folder / "maze.hdf5").num_trajectories == 20
    verdict = json.loads((folder / "diagnose" / "manifest.json").read_text())["result"]["verdict"]
    assert verdict["bottleneck"] in ("value", "extraction", "generalisation", "none", "unknown")
    assert verdict["sentence"] in " ".join(told.split())
    page = (folder / "diagnose" / "report.html").read_text(encoding="utf-8")
    assert "<h1>" in page
    assert str(folder / "diagnose" / "report.html") in told
    advised_to_steer = "offline-eval steer" in verdict["recommendation"]["command"]
    assert (folder / "steer" / "manifest.json").exists() == advised_to_steer


def test_a_folder_that_is_not_empty_is_refused(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("keep me")
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert "--out" in capsys.readouterr().err
