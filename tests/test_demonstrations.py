"""Demonstrations by a person, 25 times a hand that opens a door: learned from without an environment, then played."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

from offline_eval.cli import main
from offline_eval.policies import OfflineAlgorithm

DOOR = Path(__file__).resolve().parents[2] / "shared" / "data" / "demonstrations" / "door-human.hdf5"
SMALL = ["--net-arch", "8,8", "--gradient-steps", "4", "--checkpoints", "0", "--device", "cpu"]

pytestmark = pytest.mark.skipif(not DOOR.exists(), reason="needs ../shared/data/demonstrations/door-human.hdf5")


@pytest.fixture(scope="module", params=["bc", "iql"])
def model(request, tmp_path_factory):
    out = tmp_path_factory.mktemp(request.param)
    assert main(["train", request.param, "--dataset", str(DOOR), *SMALL, "--out", str(out)]) == 0
    return out / "seed_0" / "model.zip"


def test_the_spaces_come_from_the_data(model):
    agent = OfflineAlgorithm.load(model)
    assert (agent.observation_space.shape, agent.action_space.shape) == ((39,), (28,))


def test_it_plays_the_door_for_as_long_as_the_demonstrations_took(model, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the packages that it imports
        pytest.importorskip("gymnasium_robotics", reason="needs offline-eval[robotics]")
    options = ["--env", "gymnasium_robotics:AdroitHandDoor-v1", "--episodes", "2", "--step-limit", "300", "--json"]
    assert main(["evaluate", str(model), *options]) == 0
    played = json.loads(capsys.readouterr().out)["episodes"]
    assert [(episode["length"], episode["truncated"]) for episode in played] == [(300, True)] * 2
