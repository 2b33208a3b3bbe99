"""Where episodes end, and which values flags and choices may have: other instances than those that were reported."""

import numpy as np
import pytest
from gymnasium import spaces

from offline_eval.cli import main
from offline_eval.datasets.arrays import from_arrays, from_trajectories
from offline_eval.datasets.doctor import check
from offline_eval.datasets.ends import jumps
from offline_eval.datasets.opening import open_dataset, save_dataset
from offline_eval.datasets.replay_buffer import from_replay_buffer
from offline_eval.datasets.rows import Rows
from offline_eval.errors import DatasetError, InputError


def arrays(episodes=5, steps=6, seed=0, **changes):
    """Flat rows of episodes that no flag ends, with next observations."""
    generator = np.random.default_rng(seed)
    observations = np.cumsum(generator.normal(size=(episodes, steps + 1, 2)), axis=1) + 10.0
    count = episodes * steps
    rows = {
        "observations": observations[:, :-1].reshape(count, 2),
        "next_observations": observations[:, 1:].reshape(count, 2),
        "actions": generator.uniform(-1, 1, (count, 1)),
        "rewards": np.ones(count),
        "terminals": np.zeros(count, bool),
    }
    return rows | changes


def archive(path, **columns):
    np.savez(path, **{name: column for name, column in columns.items() if column is not None})
    return path


LAST = np.arange(30) % 6 == 5


# -------------------------------------------------------------------------------------------------------- precision


@pytest.mark.parametrize(("here", "after"), [("f4", "f2"), ("f2", "f2"), ("f2", "f8"), ("f8", "f4"), (">f4", "f4")])
def test_rounding_to_the_coarser_precision_is_no_end(tmp_path, here, after):
    rows = arrays()
    rows |= {
        "observations": rows["observations"].astype(here),
        "next_observations": rows["next_observations"].astype(after),
    }
    assert open_dataset(archive(tmp_path / "a.npz", **rows)).lengths.tolist() == [6] * 5


def test_a_jump_is_more_than_rounding_by_hand():
    # float16 has steps of 2**-9 between 2 and 4, so that 4 of them are 0.0078 (0.4 % of 2).
    rows = Rows(np.float16([[2.0], [2.0], [2.0]]), np.zeros((3, 1)), np.zeros(3))
    rows = Rows(rows.observations, rows.actions, rows.rewards, next_observations=np.float32([[2.007], [2.01], [9.0]]))
    assert jumps(rows).tolist() == [False, True, False]


@pytest.mark.parametrize("noise", [1e-4, 0.1])
def test_next_observations_that_were_measured_anew_end_nothing(tmp_path, noise):
    generator = np.random.default_rng(1)
    rows = arrays()
    rows["next_observations"] = rows["next_observations"] + noise * generator.normal(size=(30, 2))
    with pytest.raises(DatasetError, match=r"order of time.*29 of 29 rows.*measured anew.*timeouts.*--transitions"):
        open_dataset(archive(tmp_path / "a.npz", **rows))
    dataset = open_dataset(archive(tmp_path / "b.npz", **rows, timeouts=LAST))
    assert dataset.lengths.tolist() == [6] * 5
    assert any("measured anew" in note for note in dataset.source.notes)
    assert np.allclose(dataset[0].observations[-1], rows["next_observations"][5])


@pytest.mark.parametrize("flagged", [True, False])
def test_shuffled_rows_are_read_as_transitions_or_not_at_all(tmp_path, flagged):
    rows, order = arrays(), np.random.default_rng(2).permutation(30)
    rows |= {"timeouts": LAST if flagged else None, "terminals": np.arange(30) == 29}
    shuffled = {name: None if column is None else column[order] for name, column in rows.items()}
    path = archive(tmp_path / "a.npz", **shuffled)
    with pytest.raises(DatasetError, match=r"order of time.*--transitions.*transitions=True"):
        open_dataset(path)
    (finding,) = [finding for finding in check(path) if finding.code == "missing_episode_ends"]
    assert finding.severity == "error"
    assert "--transitions" in finding.fix
    dataset = open_dataset(path, transitions=True)
    assert dataset.lengths.tolist() == [1] * 30
    batch = dataset.transitions()
    assert np.allclose(batch.observations, shuffled["observations"])
    assert np.allclose(batch.next_observations, shuffled["next_observations"])
    assert batch.masks.tolist() == (1.0 - shuffled["terminals"]).tolist()
    assert not batch.next_action_known.any()
    assert "transition of its own" in dataset.source.notes[-1]


def test_single_transitions_need_what_followed(tmp_path):
    rows = arrays(next_observations=None)
    with pytest.raises(DatasetError, match="next_observations` must be there for single transitions"):
        open_dataset(archive(tmp_path / "a.npz", **rows), transitions=True)
    packed = save_dataset(from_arrays(*(arrays()[name] for name in ORDER), LAST), tmp_path / "b", "packed")
    with pytest.raises(InputError, match=r"`transitions` is for flat rows .*packed"):
        open_dataset(packed, transitions=True)


ORDER = ("observations", "actions", "rewards", "terminals")


def test_rows_that_jump_beside_flags_end_an_episode_and_are_named():
    rows = arrays()
    some = LAST.copy()
    some[11] = False  # one end of five that nobody flagged
    dataset = from_arrays(*(rows[name] for name in ORDER), some, rows["next_observations"])
    assert dataset.lengths.tolist() == [6] * 5
    assert "1 rows that no flag calls an end" in dataset.source.notes[0]
    assert np.allclose(dataset.transitions().next_observations, rows["next_observations"])


def test_the_commands_take_single_transitions(tmp_path, capsys):
    rows, order = arrays(), np.random.default_rng(3).permutation(30)
    path = str(archive(tmp_path / "a.npz", **{name: column[order] for name, column in rows.items()}))
    assert main(["data", "describe", path]) == 2
    assert "--transitions" in capsys.readouterr().err
    assert main(["data", "describe", path, "--transitions"]) == 0
    assert "of them 30 transitions" in capsys.readouterr().out
    out = str(tmp_path / "b.hdf5")
    assert main(["data", "convert", path, "--transitions", "--out", out]) == 0
    assert len(open_dataset(out)) == 30


# -------------------------------------------------------------------------------------------------------- flags


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.where(LAST, 1.0, np.nan), r"must be 0 or 1. Received nan at row 0, and 24 more such rows: a row without"),
        (np.where(LAST, 2, 0), "must be 0 or 1. Received 2 at row 5, and 4 more"),
        (np.where(LAST, 1, -1).astype(np.int8), "must be 0 or 1. Received -1 at row 0"),
        (np.where(LAST, b"yes", b"no"), r"must be 0 or 1. Received dtype \|S3: compare"),
        (np.where(LAST, 0.999, 0.0), "must be 0 or 1. Received 0.999 at row 5"),
    ],
)
@pytest.mark.parametrize("name", ["terminals", "timeouts", "dones", "truncations"])
def test_flags_are_0_or_1(tmp_path, name, values, said):
    with pytest.raises(DatasetError, match=f"`{name}` {said}"):
        open_dataset(archive(tmp_path / "a.npz", **arrays() | {"terminals": LAST} | {name: values}))


def test_flags_of_arrays_and_trajectories_go_by_their_own_names():
    rows = arrays()
    parts = [rows[name] for name in ORDER[:3]]
    with pytest.raises(DatasetError, match=r"`truncated` must be 0 or 1\. Received nan"):
        from_arrays(*parts, LAST, np.where(LAST, 1, np.nan))
    part = {"observations": np.zeros((3, 1)), "actions": np.zeros((2, 1)), "rewards": np.zeros(2)}
    with pytest.raises(DatasetError, match=r"`terminated` must be 0 or 1\. Received -1"):
        from_trajectories([part | {"terminated": np.array([-1, 1]), "truncated": np.zeros(2)}])
    assert from_arrays(*parts, LAST.astype(np.float32)[:, None][:, 0], np.uint8(LAST) * 0).terminated.sum() == 5


# -------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("marks", "terminated"),
    [
        ({"terminals": None, "terminations": LAST, "truncations": LAST & False}, 5),
        ({"terminals": None, "truncateds": LAST}, 0),
        ({"terminals": np.arange(30) == 29, "dones": LAST}, 1),
        ({"terminals": None, "timeouts": LAST & (np.arange(30) < 29), "done": LAST}, 1),
        ({"terminals": None, "dones": LAST}, 5),
        ({"episode_terminals": LAST}, 0),
        ({"episode_ends": LAST}, 0),
        ({"episode_ids": np.arange(30) // 6}, 0),
        ({"is_first": np.arange(30) % 6 == 0}, 0),
    ],
)
def test_ends_by_other_names(tmp_path, marks, terminated):
    rows = arrays(next_observations=None) | marks
    dataset = open_dataset(archive(tmp_path / "a.npz", **rows))
    assert dataset.lengths.tolist() == [6] * 5
    assert dataset.terminated.sum() == terminated


@pytest.mark.parametrize(
    ("marks", "said"),
    [
        ({"terminals": LAST, "terminated": ~LAST}, "`terminals and terminated` must not contradict each other"),
        ({"terminals": np.arange(30) == 3, "dones": LAST}, "`dones` must be an end wherever terminals say so"),
        (
            {"terminals": LAST & False, "timeouts": LAST & False, "dones": LAST},
            "`dones` must be an end only where terminals or timeouts say so. Received 4 rows",
        ),
        ({"dones": LAST, "episode_ids": np.arange(30) // 5}, "must not contradict each other"),
        ({"terminals": np.zeros(7)}, r"`terminals` must have one row an observation \(30\)"),
    ],
)
def test_marks_that_contradict_each_other_are_refused(tmp_path, marks, said):
    with pytest.raises(DatasetError, match=said):
        open_dataset(archive(tmp_path / "a.npz", **arrays(next_observations=None) | marks))


def test_what_is_not_used_is_named(tmp_path):
    rows = arrays(next_observations=None, terminals=LAST)
    dataset = open_dataset(archive(tmp_path / "a.npz", **rows, discounts=np.ones(30), qpos=np.zeros((30, 4)), seed=3))
    assert dataset.source.notes[-2:] == (
        "not used, although the name could mean episode ends: discounts",
        "not used: qpos, seed",
    )
    del rows["terminals"]
    with pytest.raises(DatasetError, match="the file has discounts, resets, which are not read"):
        open_dataset(archive(tmp_path / "b.npz", **rows, discounts=np.ones(30), resets=np.ones(30)))


def test_terminal_rows_in_a_row_are_noted(tmp_path):
    rows = arrays(next_observations=None, terminals=LAST.copy())
    rows["terminals"][[3, 4]] = True
    note = open_dataset(archive(tmp_path / "a.npz", **rows)).source.notes[0]
    assert note.startswith("2 terminal rows follow a terminal row, the first is row 4")


# -------------------------------------------------------------------------------------------------------- spaces


@pytest.mark.parametrize(
    ("actions", "space"),
    [
        (np.array([-2, 0, 1] * 2), spaces.Discrete(4, start=-2)),
        (np.array([[-1, 0], [1, 3]] * 3), spaces.MultiDiscrete([3, 4], start=[-1, 0])),
        (np.array([1, 2, 3] * 2), spaces.Discrete(4)),
        (np.array([-1, -1, -1] * 2), spaces.Discrete(1, start=-1)),
        (np.array([[255, 0]] * 6, np.uint8), spaces.MultiDiscrete([256, 1])),
    ],
)
def test_choices_begin_at_the_lowest_one(actions, space):
    dataset = from_arrays(np.zeros((6, 2)), actions, np.ones(6), np.arange(6) == 5)
    assert dataset.action_space == space
    stored = dataset.actions.astype(np.int64)
    assert all(space.contains(action) for action in (stored if stored.ndim > 1 else list(stored)))


def test_observations_are_choices_in_the_same_way():
    dataset = from_arrays(np.arange(-3, 3), np.zeros((6, 1)), np.ones(6), np.arange(6) == 5)
    assert dataset.observation_space == spaces.Discrete(6, start=-3)


def test_whole_numbers_with_a_point_are_noted_and_measurements_are_not():
    def notes(actions):
        return from_arrays(np.zeros((30, 2)), actions, np.ones(30), LAST).source.notes

    generator = np.random.default_rng(0)
    assert notes(generator.integers(0, 4, (30, 1)) * 2.0)[0].startswith("actions hold 0, 2, 4, 6 with a point")
    assert notes(generator.uniform(-1, 1, (30, 1))) == ()
    assert notes(np.zeros((30, 1))) == ()
    given = from_arrays(np.zeros((30, 2)), np.ones((30, 1)), np.ones(30), LAST, action_space=spaces.Box(-1, 1, (1,)))
    assert given.source.notes == ()


def test_choices_must_be_those_of_a_given_space():
    words = {"action_space": spaces.Discrete(3)}
    with pytest.raises(InputError, match=r"must hold actions of Discrete\(3\). Received \(\) int64 from -1 to 1"):
        from_arrays(np.zeros((6, 2)), np.array([-1, 0, 1] * 2), np.ones(6), np.arange(6) == 5, **words)


def test_whole_numbers_that_reach_far_are_no_choices():
    with pytest.raises(DatasetError, match="`actions` must be indices below 1,048,576"):
        from_arrays(np.zeros((6, 2)), np.array([0, 10**9] * 3), np.ones(6), np.arange(6) == 5)


def test_buffers_that_cannot_tell_a_timeout_say_so():
    from stable_baselines3.common.buffers import ReplayBuffer

    box = spaces.Box(-1, 1, (1,), np.float32)
    buffer = ReplayBuffer(9, box, box, "cpu", handle_timeout_termination=False)
    for step in range(4):
        now, after = (np.full((1, 1), value / 10, np.float32) for value in (step, step + 1))
        buffer.add(now, after, now, np.ones(1), np.array([step == 3]), [{}])
    assert "handle_timeout_termination=False" in from_replay_buffer(buffer).source.notes[0]
