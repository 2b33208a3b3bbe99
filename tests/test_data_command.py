"""`offline-eval data`: what it prints and how it exits."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from offline_eval.cli import main
from offline_eval.datasets import open_dataset


@pytest.fixture
def flat(tmp_path):
    """A clean flat D4RL file of four episodes of 25 steps, and what makes another of it."""

    def write(**changes):
        rng = np.random.default_rng(0)
        timeouts = np.arange(100) % 25 == 24
        arrays = {
            "observations": rng.normal(size=(100, 3)).astype(np.float32),
            "actions": rng.uniform(-1, 1, size=(100, 2)).astype(np.float32),
            "rewards": rng.normal(size=100).astype(np.float32),
            "terminals": np.zeros(100, dtype=bool),
            "timeouts": timeouts,
        } | changes
        with h5py.File(tmp_path / "data.hdf5", "w") as file:
            for name, array in arrays.items():
                file.create_dataset(name, data=array)
        return str(tmp_path / "data.hdf5")

    return write


def test_describe_says_what_is_in_it(capsys, flat):
    assert main(["data", "describe", flat(), "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert (described["num_trajectories"], described["num_steps"], described["lengths"]["mean"]) == (4, 100, 25.0)
    assert main(["data", "describe", flat()]) == 0
    assert "trajectories  4, 0% end in a terminal state" in capsys.readouterr().out


def test_a_clean_file_has_no_findings(capsys, flat):
    assert main(["data", "check", flat(), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"findings": []}


def test_an_error_is_found_and_is_the_exit_code(capsys, flat):
    rewards = np.ones(100, dtype=np.float32)
    rewards[7] = np.nan
    assert main(["data", "check", flat(rewards=rewards), "--json"]) == 1
    (finding,) = [f for f in json.loads(capsys.readouterr().out)["findings"] if f["code"] == "non_finite"]
    assert finding["severity"] == "error"
    assert "7" in finding["where"]
    assert finding["fix"]


def test_convert_keeps_the_trajectories(capsys, flat, tmp_path):
    path = flat()
    assert main(["data", "convert", path, "--layout", "minari", "--out", str(tmp_path / "minari")]) == 0
    assert "4 trajectories, 100 steps" in capsys.readouterr().out
    assert open_dataset(tmp_path / "minari").returns == pytest.approx(open_dataset(path).returns)


@pytest.mark.parametrize(
    ("layout", "name", "rule"),
    [
        ("d4rl", "out.hdf5", "must not exist yet"),
        ("minari", "out", "must be new, or an empty folder"),
        ("packed", "out", "must be new, or an empty folder"),
    ],
)
def test_convert_overwrites_nothing(capsys, flat, tmp_path, layout, name, rule):
    convert = ["data", "convert", flat(), "--layout", layout, "--out", str(tmp_path / name)]
    assert main(convert) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main(convert) == 2
    assert f"`--out` {rule}" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_environment_given_says_which_actions_there_are(capsys, flat, tmp_path):
    actions = np.random.default_rng(1).uniform(-1, 1, size=(100, 1)).astype(np.float32)
    actions[::20] = 2.0
    path = flat(actions=actions)
    assert main(["data", "check", path, "--json"]) == 0
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert finding["code"] == "actions_out_of_bounds"
    assert "--env ID" in finding["fix"]
    assert main(["data", "check", path, "--env", "Pendulum-v1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"findings": []}
    assert main(["data", "describe", path, "--env", "Pendulum-v1"]) == 0
    assert "Pendulum-v1" in capsys.readouterr().out
    out = tmp_path / "out.hdf5"
    assert main(["data", "convert", path, "--env", "Pendulum-v1", "--out", str(out)]) == 0
    assert open_dataset(out).action_space.high == 2
    assert open_dataset(out).source.env_id == "Pendulum-v1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["describe", "nowhere.hdf5"], "`PATH` must be an existing file or folder"),
        (["check", "DATA", "--env", "Pendulumm-v1"], "`--env` must be the id of a registered environment"),
        (["check", "DATA", "--env", "Pendulum-v1"], "must have the shape of the data's actions"),
        (["convert", "DATA", "--out", "x", "--layout", "csv"], "`--layout` must be one of d4rl, minari, packed"),
    ],
)
def test_bad_input_is_one_line(capsys, flat, arguments, message):
    path = flat()
    assert main(["data", *(path if word == "DATA" else word for word in arguments)]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
