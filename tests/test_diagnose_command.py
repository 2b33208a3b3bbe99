"""`diagnose` from the command line: what it prints, keeps, goes on with, and refuses in one line."""

from __future__ import annotations

import json

import pytest

from offline_eval.cli import main
from offline_eval.datasets import save_dataset
from offline_eval.policies import OfflineAlgorithm
from offline_eval.problems import LinearQuadraticProblem

ENV = ["--env", "offline_eval/LinearQuadratic-v0"]
FEW = ["--quick", "--episodes", "3", "--selection-episodes", "2", "--workers", "1", "--step-limit", "25"]


def run(capsys, *arguments):
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as stop:  # argparse
        code = stop.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An agent's file and its data."""
    folder = tmp_path_factory.mktemp("agent")
    dataset = LinearQuadraticProblem().collect(12, 0.0, seed=0)
    save_dataset(dataset, folder / "data.hdf5", "d4rl")
    words = {"policy_kwargs": {"net_arch": [8]}, "seed": 0, "device": "cpu", "batch_size": 64}
    OfflineAlgorithm("iql_ddpg_bc", **words).fit(dataset, 30).save(folder / "agent.zip")
    return folder


def test_it_prints_keeps_and_resumes(capsys, folder, tmp_path):
    out = tmp_path / "run"
    words = ["diagnose", folder / "agent.zip", *ENV, "--dataset", folder / "data.hdf5", *FEW, "--out", out]
    code, text, err = run(capsys, *words)
    assert code == 0
    assert "the policy" in text
    assert "next: " in text
    assert err.splitlines()[-1] == f"report: {out / 'report.html'}"
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["finished"]
    assert manifest["command"].startswith("offline-eval diagnose ")
    assert (out / "report.html").exists()
    assert list((out / "truth").glob("guided-*.npy"))
    code, _, err = run(capsys, *words)
    assert code == 2
    assert "`--out` must be a new folder" in err

    # As a killed run leaves it: some episodes are missing, and a part of the truth.
    table = (out / "episodes.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in table if not line.startswith(("control,", "outside,"))]
    assert len(kept) < len(table)
    (out / "episodes.csv").write_text("".join(kept) + "control,0,0,-1.5", encoding="utf-8")
    for path in (out / "truth").glob("guided-*.npy"):
        path.unlink()
    code, text, _ = run(capsys, *words, "--resume", "--json")
    found = json.loads(text)
    assert code == 0
    first = manifest["result"]
    for rung, before in zip(found["ladder"], first["ladder"], strict=True):
        assert rung | {"seconds": 0} == before | {"seconds": 0}
    for key in ("verdict", "ladder_range", "performance", "regret"):
        assert found[key] == first[key], key
    assert found["verdict"]["bottleneck"] in ("value", "extraction", "generalisation", "none", "unknown")

    code, _, err = run(capsys, *words[:-2], "--out", out, "--resume", "--seed", "5")
    assert code == 2
    assert "must go on with the same run" in err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--episodes", "1"], "`--episodes` must be >= 2"),
        (["--resume"], "`--resume` needs the folder"),
        (["--dataset", "nothing.hdf5"], "`--dataset` must be an existing"),
        (["--critic-dataset", "nothing.hdf5"], "`--critic-dataset` must be an existing"),
        (["--env", "offline_eval/LinearQuadratik-v0"], "did you mean"),
        (["--oracle", "nobody.zip"], "nobody.zip"),
        (["--env", "CartPole-v1"], "CartPole"),
    ],
)
def test_bad_input_is_one_line(capsys, folder, changes, message):
    words = ["diagnose", folder / "agent.zip", *ENV, "--dataset", folder / "data.hdf5", *changes]
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_data_set_too_small_for_a_split(capsys, folder, tmp_path):
    save_dataset(LinearQuadraticProblem().collect(1, 0.0, seed=0), tmp_path / "one.hdf5", "d4rl")
    words = ["diagnose", folder / "agent.zip", *ENV, "--dataset", tmp_path / "one.hdf5"]
    code, _, err = run(capsys, *words)
    assert code == 2
    assert "at least two trajectories to be split" in err
