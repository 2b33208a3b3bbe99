"""The demo, with less of everything: it leaves the folders that it names, and takes the verdict's advice."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import numpy as np
import pytest

from offline_eval.cli import demo, main
from offline_eval.datasets import open_dataset
from offline_eval.problems.drawing import draw_paths


@pytest.fixture
def small(monkeypatch):
    words = list(demo._TRAINED)
    words[words.index("5000")] = "200"
    monkeypatch.setattr(demo, "_TRAINED", tuple(words))
    monkeypatch.setattr(demo, "_EPISODES", 20)
    monkeypatch.setattr(demo, "_DIAGNOSED", ("--quick", "--episodes", "4", "--selection-episodes", "2"))
    monkeypatch.setattr(demo, "_STEERED", ("--episodes", "2", "--trap-episodes", "0", "--log-states"))


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
    assert "<polyline" in (folder / "maze.svg").read_text(encoding="utf-8")
    advised_to_steer = "offline-eval steer" in verdict["recommendation"]["command"]
    assert (folder / "steer" / "manifest.json").exists() == advised_to_steer


def test_a_folder_that_is_not_empty_is_refused(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("keep me")
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert "--out" in capsys.readouterr().err


def test_a_picture_has_a_panel_and_a_path_for_each(tmp_path):
    paths = {"one & only": [np.array([[-1.0, 0.0], [1.0, 0.0]])], "two": [np.zeros((3, 2)), np.ones((2, 2))]}
    root = ElementTree.parse(draw_paths(paths, tmp_path / "maze.svg")).getroot()
    names = {"svg": "http://www.w3.org/2000/svg"}
    assert [text.text for text in root.iterfind(".//svg:text", names)] == ["one & only", "two"]
    lines = [line.get("points") for line in root.iterfind(".//svg:polyline", names)]
    assert len(lines) == 3
    assert lines[0] == "66.0,132.0 286.0,132.0"  # 110 pixels a unit, from the walls at 1.6 and 1.2; up is up
