"""What a data set is said to hold: numbers worked out by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from offline_eval.datasets.arrays import from_arrays, from_trajectories
from offline_eval.datasets.description import describe
from offline_eval.datasets.opening import open_dataset, save_dataset
from offline_eval.datasets.records import Source
from offline_eval.datasets.references import reference_of, time_limit_of

DOOR = Path(__file__).resolve().parents[2] / "shared" / "data" / "demonstrations" / "door-human.hdf5"


def actions_only(actions, space=None, **more):
    """One trajectory with the given actions."""
    count = len(actions)
    ends = np.arange(count) == count - 1
    return from_arrays(np.zeros((count, 1)), actions, np.ones(count), ends, action_space=space, **more)


def test_two_trajectories_by_hand():
    dataset = from_arrays(
        observations=np.array([[1.0], [2.0], [3.0], [10.0], [20.0]]),
        actions=np.zeros((5, 1)),
        rewards=np.array([1.0, 0.0, 3.0, 0.0, 2.0]),
        terminated=np.array([0, 0, 1, 0, 0]),
        truncated=np.array([0, 0, 0, 0, 1]),
        next_observations=np.array([[2.0], [3.0], [4.0], [20.0], [30.0]]),
        env_id="hopper-medium-v2",
    )
    about = describe(dataset)
    assert (about.num_trajectories, about.num_steps, about.num_transitions) == (2, 5, 5)
    assert (about.lengths.minimum, about.lengths.mean, about.lengths.maximum) == (2, 2.5, 3)
    assert (about.returns.minimum, about.returns.mean, about.returns.maximum, about.returns.std) == (2, 3, 4, 1)
    assert about.rewards.mean == pytest.approx(1.2)
    assert about.zero_rewards == pytest.approx(0.4)
    assert about.terminated == 0.5
    (column,) = about.observations  # 1 2 3 4 10 20 30: the final observations are in
    assert (column.name, column.minimum, column.mean, column.maximum) == ("observations[0]", 1, 10, 30)
    assert column.std == pytest.approx(np.std([1, 2, 3, 4, 10, 20, 30]))
    score = about.normalized_score
    assert score.mean == pytest.approx(100 * (3 + 20.272305) / (3234.3 + 20.272305))
    assert score.maximum == pytest.approx(100 * (4 + 20.272305) / (3234.3 + 20.272305))
    assert "D4RL's for hopper" in score.origin
    json.dumps(about.as_dict(), allow_nan=False)


def test_coverage_of_uniform_constant_and_half_filled_actions():
    box = spaces.Box(-2, 2, (2,), np.float32)
    grid = np.stack(np.meshgrid(np.linspace(-2, 2, 101), np.linspace(-2, 2, 101)), axis=-1).reshape(-1, 2)
    uniform = describe(actions_only(grid, box)).coverage
    assert uniform.dimensions == (1.0, 1.0)
    assert uniform.mean == uniform.pairs == 1.0
    assert uniform.at_bounds == pytest.approx(2 / 101, abs=1e-3)
    constant = describe(actions_only(np.zeros((500, 2)), box)).coverage
    assert constant.dimensions == (0.05, 0.05)
    assert constant.pairs == 0.01
    half = describe(actions_only(np.abs(grid) * [1, 0], box)).coverage
    assert half.dimensions == (0.5, 0.05)
    diagonal = describe(actions_only(np.repeat(np.linspace(-2, 2, 400)[:, None], 2, axis=1), box)).coverage
    assert diagonal.dimensions == (1.0, 1.0)
    assert diagonal.pairs == pytest.approx(0.1)  # each dimension is covered, but only together


def test_actions_outside_of_the_box_count_as_at_its_bounds():
    coverage = describe(actions_only(np.array([[-1.4], [0.0], [0.5], [1.0]]))).coverage
    assert coverage.at_bounds == 0.5
    assert coverage.pairs is None


def test_discrete_and_unbounded_actions_have_no_box():
    about = describe(actions_only(np.array([0, 2, 2, 2])))
    assert about.coverage is None
    assert about.action_shares == (0.25, 0.0, 0.75)
    unbounded = describe(actions_only(np.zeros((4, 1)), spaces.Box(-np.inf, np.inf, (1,))))
    assert unbounded.coverage is unbounded.action_shares is None


def test_large_numbers_keep_their_spread():
    values = 1e6 + np.array([0.0, 1.0, 2.0, 3.0])[:, None]
    dataset = from_arrays(values, np.zeros((4, 1)), np.ones(4), [0, 0, 0, 1], next_observations=values + 1)
    (column,) = describe(dataset).observations
    assert column.std == pytest.approx(np.std([0, 1, 2, 3, 4]))


def test_a_part_is_described_alone_and_a_mapped_data_set_as_any_other(tmp_path):
    generator = np.random.default_rng(0)
    ends = np.arange(40) % 8 == 7
    rows = (generator.standard_normal((40, 2)), generator.uniform(-1, 1, (40, 1)), generator.standard_normal(40))
    dataset = from_arrays(*rows, np.zeros(40), ends)
    part = dataset.select([1, 3])
    alone = from_trajectories([dataset[1], dataset[3]])
    described, expected = describe(part).as_dict(), describe(alone).as_dict()
    described.pop("num_bytes"), expected.pop("num_bytes")  # the part holds the whole store
    assert described == expected
    path = save_dataset(dataset, tmp_path / "a", "packed")
    mapped = describe(open_dataset(path, memory_limit=0))
    assert mapped.memory_mapped
    assert mapped.fingerprint == dataset.fingerprint
    assert mapped.returns == describe(dataset).returns


@pytest.mark.parametrize(
    ("env_id", "minimum"),
    [
        ("halfcheetah-medium-expert-v2", -280.178953),
        ("HalfCheetah-v5", -280.178953),
        ("mujoco/halfcheetah/expert-v0", -280.178953),
        ("D4RL/door/human-v2", -56.512833),
        ("AdroitHandDoor-v1", -56.512833),
        ("AntMaze_UMaze-v5", 0.0),
        ("Ant-v5", -325.6),
        ("maze2d-umaze-dense-v1", 68.537689),
        ("maze2d-umaze-v1", 23.85),
        ("Pendulum-v1", None),
        ("InvertedPendulum-v5", None),
        (None, None),
    ],
)
def test_references_by_name(env_id, minimum):
    reference = reference_of(Source(env_id=env_id))
    assert (reference and reference.minimum) == minimum


def test_the_files_own_references_win():
    reference = reference_of(Source(env_id="hopper-medium-v2", reference_returns=(0.0, 10.0)))
    assert reference == (0.0, 10.0, "the data set's own metadata")


def test_published_scores():
    # 95.6 on HalfCheetah is a return of 11,588.7, and 13,000 is 106.97.
    low, high, _ = reference_of(Source(env_id="halfcheetah-random-v2"))
    assert low + 0.956 * (high - low) == pytest.approx(11588.7, abs=0.1)
    assert 100 * (13000 - low) / (high - low) == pytest.approx(106.97, abs=0.01)


def test_time_limits_only_where_data_keep_to_them():
    assert time_limit_of("hopper-medium-v0") == 1000
    assert time_limit_of("antmaze-umaze-v2") == 700
    assert time_limit_of("door-human-v1") is None
    assert time_limit_of(None) is None


@pytest.mark.skipif(not DOOR.is_file(), reason="the door demonstrations are not here")
def test_the_door_demonstrations():
    about = describe(open_dataset(DOOR))
    assert about.returns.mean == pytest.approx(794.1, abs=0.1)
    assert about.normalized_score.mean == pytest.approx(28.96, abs=0.01)
    assert 0.5 < about.coverage.mean < 0.8
    assert 0.05 < about.coverage.at_bounds < 0.07
    assert about.assumed_action_space
