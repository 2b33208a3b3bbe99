"""`benchmarks/doctor_false_alarms.py` in small: no error in clean files, and shifted rewards of several kinds found."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from offline_eval.datasets.continuity import ends_apart, ends_in_a_row
from offline_eval.datasets.doctor import check
from offline_eval.datasets.rows import Rows

_FILE = Path(__file__).resolve().parents[1] / "benchmarks" / "doctor_files.py"
_SPEC = importlib.util.spec_from_file_location("doctor_files", _FILE)
files = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = files
_SPEC.loader.exec_module(files)
SEED = 77


def findings(kind, arrays):
    box = None
    if arrays["actions"].dtype.kind == "f":
        reach = 2.0 if kind.startswith("Pendulum") else 1.0
        box = spaces.Box(-reach, reach, arrays["actions"].shape[1:])
    return check(Rows(**arrays), action_space=box)


@pytest.mark.parametrize("kind", [*list(files.CLEAN)[::2], "prices, volumes, time stamps"])
def test_a_clean_file_has_no_error(kind):
    said = findings(kind, files.CLEAN[kind](np.random.default_rng(SEED)))
    assert not [finding for finding in said if finding.severity == "error"], said


@pytest.mark.parametrize("fault", ["rewards late", "rewards early"])
@pytest.mark.parametrize(
    "kind",
    ["random walk, -|s'|^2", "random walk, -|s|^2", "point mass, cost of smooth actions", "linear, quadratic cost"],
)
def test_shifted_rewards_of_several_kinds(kind, fault):
    clean = files.CLEAN[kind](np.random.default_rng(SEED))
    (finding,) = findings(kind, files.FAULTS[fault][1](clean, None))
    assert (finding.code, finding.severity) == ("shifted_rewards", "error")
    assert f"belongs to row i {'-' if fault == 'rewards late' else '+'} 1" in finding.where


def test_a_shift_that_no_end_of_an_episode_confirms_is_a_warning():
    # One long episode in which the reward is for what the next row's action was: nothing else tells.
    rewards = np.zeros(3000)
    actions = np.random.default_rng(0).uniform(-1, 1, (3000, 2)).astype(np.float32)
    rewards[:-1] = -np.square(actions[1:]).sum(axis=1)
    arrays = files.CLEAN["one long episode"](np.random.default_rng(0)) | {"actions": actions, "rewards": rewards}
    (finding,) = findings("one long episode", arrays)
    assert (finding.code, finding.severity) == ("shifted_rewards", "warning")
    assert "too few to confirm it" in finding.where


def test_rewards_of_any_size_are_a_warning():
    arrays = files.CLEAN["point mass, noisy reward"](np.random.default_rng(0))
    (finding,) = findings("", arrays | {"rewards": arrays["rewards"] * 1e8})
    assert (finding.code, finding.severity) == ("exploding_dimension", "warning")
    assert finding.where.startswith("rewards: ")


# ------------------------------------------------------------------------------- ends that do not agree with jumps


def line(lengths):
    """A point that moves by 1 a step, from 0 in each episode."""
    observations = np.concatenate([np.arange(length) for length in lengths])[:, None].astype(np.float32)
    flagged = np.zeros(len(observations), bool)
    flagged[np.cumsum(lengths) - 1] = True
    return observations, flagged


LENGTHS = [30, 41, 35, 52, 28, 33, 47]


@pytest.mark.parametrize("shift", [-7, 3])
def test_ends_that_are_flagged_too_early_or_too_late(shift):
    observations, flagged = line(LENGTHS)
    assert ends_apart(observations, flagged) is None
    moved = np.roll(flagged, shift)
    found = ends_apart(observations, moved)
    assert found.rows == -shift
    assert found.agreeing >= 5
    rows = Rows(observations, np.zeros((len(moved), 1)), np.arange(len(moved)) % 5.0, None, moved)
    (finding,) = (finding for finding in check(rows) if finding.code == "missing_episode_ends")
    assert f"{abs(shift)} rows {'after' if shift < 0 else 'before'} them" in finding.where


def test_ends_without_a_reset_and_jumps_of_their_own_are_none_of_this():
    _, flagged = line(LENGTHS)
    going_on = np.arange(len(flagged))[:, None].astype(np.float32)
    assert ends_apart(going_on, flagged) is None  # a new goal, and no reset
    going_on[np.random.default_rng(0).integers(0, len(flagged), 7)] += 90.0  # jumps anywhere
    assert ends_apart(going_on, flagged) is None


def test_ends_in_a_row_while_a_goal_is_held():
    observations, flagged = line(LENGTHS)
    held = flagged.copy()
    for back in range(1, 6):
        held |= np.roll(flagged, -back)
    found = ends_in_a_row(observations, held)
    assert (found.first, found.runs, found.rows) == (24, 7, 35)
    assert ends_in_a_row(observations, flagged) is None
    single = line([30, 1, 1, 1, 41, 1, 1, 35, 1, 1, 1, 50])  # episodes of one step begin anew each time
    far = single[0] + 100 * np.cumsum(np.concatenate([[0], single[1][:-1]]))[:, None]
    assert ends_in_a_row(far, single[1]) is None
