"""Trajectories, the transitions derived from them, parts that share one copy, and the checks."""

import itertools
import multiprocessing
import os
import pickle
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

from offline_eval.datasets.arrays import from_arrays, from_trajectories
from offline_eval.datasets.doctor import check
from offline_eval.datasets.packed import read_packed, write_packed
from offline_eval.datasets.sharing import shared
from offline_eval.errors import DatasetError, InputError, SpaceError


def counting(lengths, first=0, terminal=()):
    """Trajectories whose observations count 0, 1, 2, ... through the data: every row tells where it came from."""
    parts = []
    for k, length in enumerate(lengths):
        ends = np.zeros(length, bool)
        ends[-1] = True
        parts.append(
            {
                "observations": np.arange(first, first + length + 1, dtype=np.float32)[:, None],
                "actions": np.full((length, 1), k / 10, np.float32),
                "rewards": np.arange(length, dtype=np.float32),
                "terminated": ends & (k in terminal),
                "truncated": ends & (k not in terminal),
            }
        )
        first += length + 1
    return from_trajectories(parts)


def test_transitions_of_two_short_trajectories():
    dataset = counting([2, 3], terminal=[1])
    rows = dataset.transitions()
    assert dataset.observations[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert rows.observations[:, 0].tolist() == [0, 1, 3, 4, 5]
    assert rows.next_observations[:, 0].tolist() == [1, 2, 4, 5, 6]
    assert rows.rewards.tolist() == [0, 1, 0, 1, 2]
    assert rows.masks.tolist() == [1, 1, 1, 1, 0]  # the first trajectory was cut, the second terminated
    assert rows.next_action_known.tolist() == [True, False, True, True, False]
    assert np.allclose(rows.next_actions[:, 0], [0, 0, 0.1, 0.1, 0.1])
    assert dataset.returns.tolist() == [1, 3]
    assert dataset.lengths.tolist() == [2, 3]


def test_everything_is_float32_and_returns_are_summed_in_float64():
    dataset = from_arrays(
        np.zeros((3, 1)), np.zeros((3, 1)), np.array([2.0**25, 1.0, 1.0]), np.array([False, False, True])
    )
    assert {dataset.observations.dtype, dataset.actions.dtype, dataset.rewards.dtype} == {np.dtype(np.float32)}
    assert dataset.returns[0] == 2.0**25 + 2  # float32 would lose both ones


def test_unknown_final_observations_leave_a_transition_only_where_it_terminated():
    observations = np.arange(5, dtype=np.float32)[:, None]
    terminated = np.array([False, True, False, False, False])
    truncated = np.array([False, False, False, False, True])
    dataset = from_arrays(observations, np.zeros((5, 1)), np.ones(5), terminated, truncated)
    rows = dataset.transitions()
    assert dataset.num_steps == 5  # the cut step counts for the return ...
    assert dataset.returns.tolist() == [2, 3]
    assert rows.observations[:, 0].tolist() == [0, 1, 2, 3]  # ... but is no transition
    assert rows.next_observations[:, 0].tolist() == [1, 1, 3, 4]  # never the next trajectory's first observation
    assert rows.masks.tolist() == [1, 0, 1, 1]


def test_next_observations_make_timeouts_transitions():
    observations = np.arange(4, dtype=np.float32)[:, None]
    dataset = from_arrays(
        observations,
        np.zeros((4, 1)),
        np.ones(4),
        np.zeros(4, bool),
        np.array([False, True, False, True]),
        next_observations=np.array([1, 10, 3, 11], np.float32)[:, None],
    )
    assert dataset.transitions().next_observations[:, 0].tolist() == [1, 10, 3, 11]
    assert dataset.transitions().masks.tolist() == [1, 1, 1, 1]
    assert dataset[0].observations[:, 0].tolist() == [0, 1, 10]
    assert dataset[0].truncated.tolist() == [False, True]


def test_without_timeouts_a_jump_between_rows_is_an_end():
    observations = np.array([0, 1, 5, 6, 7], np.float32)[:, None]
    after = np.array([1, 2, 6, 7, 8], np.float32)[:, None]
    dataset = from_arrays(observations, np.zeros((5, 1)), np.ones(5), np.zeros(5), next_observations=after)
    assert dataset.lengths.tolist() == [2, 3]
    assert not dataset.terminated.any()


def test_without_ends_the_time_limit_cuts():
    terminated = np.array([0, 1, 0, 0, 0, 0, 0, 0])
    arguments = (np.zeros((8, 1)), np.zeros((8, 1)), np.ones(8), terminated)
    assert from_arrays(*arguments, max_episode_steps=3).lengths.tolist() == [2, 3, 3]


def test_parts_by_trajectory_share_the_store():
    dataset = counting([5, 9, 3, 7, 6, 4, 8, 2])
    train, validation = dataset.split(0.25, seed=3)
    assert train.store is validation.store is dataset.store
    assert sorted([*train.numbers, *validation.numbers]) == list(range(8))
    assert abs(validation.num_steps - 0.25 * dataset.num_steps) <= 9  # to within a trajectory
    firsts = {row for part in (train, validation) for row in part.transitions().observations[:, 0].tolist()}
    assert firsts == set(dataset.transitions().observations[:, 0].tolist())
    assert np.array_equal(train.split(0.5, 1)[0].numbers, dataset.split(0.25, 3)[0].split(0.5, 1)[0].numbers)
    assert not np.array_equal(dataset.split(0.25, 4)[1].numbers, validation.numbers) or len(validation) == 1


def test_smaller_subsets_lie_within_larger_ones():
    dataset = counting(np.random.default_rng(0).integers(1, 30, 60))
    sizes = [0.05, 0.1, 0.3, 0.7, 1.0]
    parts = [set(dataset.subset(fraction, seed=1).numbers) for fraction in sizes]
    assert all(small < large for small, large in itertools.pairwise(parts))
    for fraction in sizes:
        steps = dataset.subset(fraction, seed=1).num_steps
        assert abs(steps - fraction * dataset.num_steps) <= 15  # half of the longest trajectory
    assert set(dataset.subset(0.3, seed=2).numbers) != parts[2]


def test_a_part_equals_the_data_set_made_of_its_trajectories():
    dataset = counting([5, 9, 3, 7], terminal=[1, 3])
    part = dataset.select([3, 1])
    alone = from_trajectories([dataset[1], dataset[3]])
    for name in ("observations", "step_observations", "actions", "rewards", "terminated", "truncated", "offsets"):
        assert np.array_equal(getattr(part, name), getattr(alone, name)), name
    for name in ("observations", "next_observations", "next_actions", "next_action_known", "masks"):
        assert np.array_equal(getattr(part.transitions(), name), getattr(alone.transitions(), name)), name
    assert part.fingerprint == alone.fingerprint != dataset.fingerprint
    assert np.array_equal(part[0].observations, dataset[1].observations)
    assert len(list(part)) == 2


def test_rows_index_the_store_as_gather_does():
    part = counting([5, 9, 3, 7], terminal=[1, 3]).select([0, 2, 3])
    index = np.array([0, 4, 5, 13, 2])
    rows, store = part.gather(index), part.store
    assert np.array_equal(rows.observations, store.observations[part.observation_rows[index]])
    assert np.array_equal(rows.next_observations, store.observations[part.observation_rows[index] + 1])
    assert np.array_equal(rows.next_actions, store.actions[part.next_action_rows[index]])


def test_the_fingerprint_sees_every_array():
    def variant(**changes):
        fields = {
            "observations": np.arange(4.0)[:, None],
            "actions": np.zeros((3, 1)),
            "rewards": np.arange(3.0),
            "terminated": np.array([0, 0, 1], bool),
            "truncated": np.array([0, 0, 0], bool),
        }
        return from_trajectories([fields | changes]).fingerprint

    changes = [
        {"observations": np.arange(4.0)[:, None] + 1},
        {"actions": np.ones((3, 1))},
        {"rewards": np.zeros(3)},
        {"terminated": np.zeros(3, bool)},
        {"truncated": np.array([0, 0, 1], bool)},
        {"final_known": False},
    ]
    assert variant() == variant()
    assert len({variant(), *(variant(**change) for change in changes)}) == 7


def test_dict_observations_and_discrete_actions():
    observations = {"near": np.arange(8.0).reshape(4, 2), "image": np.zeros((4, 3, 3), np.uint8)}
    dataset = from_arrays(observations, np.array([0, 2, 1, 1]), np.ones(4), np.array([0, 1, 0, 1]))
    assert isinstance(dataset.action_space, spaces.Discrete)
    assert dataset.action_space.n == 3
    assert dataset.observation_space["image"].dtype == np.uint8
    assert dataset.observations["image"].dtype == np.uint8
    assert dataset.transitions().next_observations["near"].tolist() == [[2, 3], [2, 3], [6, 7], [6, 7]]
    assert dataset.split(0.5, 0)[0].observations["near"].shape == (3, 2)


def fingerprint_in_child(dataset, queue):
    queue.put((dataset.fingerprint, type(dataset.store.observations).__name__))


def test_processes_share_a_mapped_copy():
    dataset = counting([5, 9, 3, 7])
    train, _ = dataset.split(0.3, 0)
    with shared(train) as mapped:
        folder = mapped.store.folder
        assert len(pickle.dumps(mapped)) < 4000  # the path, not the arrays
        context = multiprocessing.get_context("spawn")
        queue = context.Queue()
        child = context.Process(target=fingerprint_in_child, args=(mapped, queue))
        child.start()
        assert queue.get(timeout=60) == (train.fingerprint, "memmap")
        child.join()
        mapped.store.rewards[0] = 99.0  # copy on write: nobody else sees it
        assert pickle.loads(pickle.dumps(mapped)).store.rewards[0] == 0.0
    assert not folder.exists()
    with pytest.raises(DatasetError, match="it is gone"):
        pickle.loads(pickle.dumps(mapped))


def hold_a_copy(dataset, queue):
    with shared(dataset) as mapped:
        queue.put(mapped.store.folder.parent)
        time.sleep(60)


def test_the_copy_of_a_killed_process_goes_when_the_next_begins():
    dataset = counting([5, 9])
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    child = context.Process(target=hold_a_copy, args=(dataset, queue))
    child.start()
    left_behind = queue.get(timeout=60)
    with shared(dataset):
        assert left_behind.exists()  # its owner lives
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert left_behind.exists()
    with shared(dataset) as mapped:
        assert not left_behind.exists()
        with shared(dataset):
            assert mapped.store.folder.exists()


def test_packed_folders_keep_everything(tmp_path: Path):
    dataset = counting([5, 9, 3, 7], terminal=[2]).select([0, 2, 3])
    for memory_map in (False, True):
        again = read_packed(write_packed(dataset, tmp_path / str(memory_map)), memory_map)
        assert again.fingerprint == dataset.fingerprint
        assert again.action_space == dataset.action_space
        assert again.source.notes == dataset.source.notes
        assert isinstance(again.store.observations, np.memmap) == memory_map
    with pytest.raises(InputError, match="must not exist yet"):
        write_packed(dataset, tmp_path / "True")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["False", "True"]


def test_spaces_of_another_environment_are_refused():
    dataset = counting([5, 9])
    box = spaces.Box(-1, 1, (1,), np.float32)
    assert dataset.for_spaces(box, box).action_space == box
    with pytest.raises(SpaceError, match=r"observations of Box\(-1\.0, 1\.0, \(2,\).*Received \(1,\) float32"):
        dataset.for_spaces(spaces.Box(-1, 1, (2,), np.float32))
    with pytest.raises(SpaceError, match="must hold actions of Discrete"):
        dataset.for_spaces(action_space=spaces.Discrete(3))
    with pytest.raises(SpaceError, match="must hold observations of Dict"):
        dataset.for_spaces(spaces.Dict({"a": box}))
    # [-1, 1] was assumed, so that an environment's own box wins; once stated, another one is an error.
    stated = dataset.for_spaces(action_space=spaces.Box(-2, 2, (1,), np.float32))
    assert not stated.source.assumed_action_space
    with pytest.raises(SpaceError, match="must hold actions of Box"):
        stated.for_spaces(action_space=box)


def test_nan_is_named_by_its_index():
    observations = np.zeros((6, 2))
    observations[4, 1] = np.nan
    ends = np.array([0, 0, 1, 0, 0, 1])
    with pytest.raises(DatasetError, match=r"observations\[5, 1\].*trajectory 1, step 1.*Received nan: 1 such"):
        from_arrays(observations, np.zeros((6, 1)), np.zeros(6), ends)
    with pytest.raises(DatasetError, match=r"rewards\[3\].*trajectory 1, step 0.*Received inf"):
        from_arrays(np.zeros((6, 2)), np.zeros((6, 1)), np.array([0, 0, 0, 1e40, 0, 0]), ends)


def test_what_is_no_data_set_is_refused():
    with pytest.raises(DatasetError, match="an empty data set"):
        from_arrays(np.zeros((0, 2)), np.zeros((0, 1)), np.zeros(0), np.zeros(0))
    with pytest.raises(DatasetError, match="an empty data set"):
        from_trajectories([])
    with pytest.raises(DatasetError, match=r"`actions` must have one row a reward \(3\).*Received \(2, 1\)"):
        from_arrays(np.zeros((3, 2)), np.zeros((2, 1)), np.zeros(3), np.ones(3))
    with pytest.raises(DatasetError, match=r"`terminals` must be of shape \(3,\)"):
        from_arrays(np.zeros((3, 2)), np.zeros((3, 1)), np.zeros(3), np.ones(4))
    with pytest.raises(DatasetError, match=r"where its episodes end.*3 rows without an end.*max_episode_steps"):
        from_arrays(np.zeros((3, 2)), np.zeros((3, 1)), np.zeros(3), np.zeros(3))
    with pytest.raises(DatasetError, match="`observations` must hold numbers"):
        from_arrays(np.full((3, 2), "a"), np.zeros((3, 1)), np.zeros(3), np.ones(3))
    good = {"observations": np.zeros((3, 1)), "rewards": np.zeros(2), "terminated": [0, 1], "truncated": [0, 0]}
    with pytest.raises(DatasetError, match=r"`actions of trajectory 1` must be of shape \(2, 1\)"):
        from_trajectories([good | {"actions": np.zeros((2, 1))}, good | {"actions": np.zeros((3, 1))}])


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_a_validation_fraction_lies_between_zero_and_one(fraction):
    with pytest.raises(InputError, match="validation_fraction"):
        counting([3, 4]).split(fraction, 0)


def test_numbers_in_one_column_are_a_box_of_one_dimension():
    generator = np.random.default_rng(0)
    column, ends = generator.uniform(-1, 1, 6), np.arange(6) % 3 == 2
    after = np.where(ends, column + 1, np.roll(column, -1))
    flat = from_arrays(column, column, column, ends, None, after)
    wide = from_arrays(column[:, None], column[:, None], column, ends, None, after[:, None])
    assert flat.fingerprint == wide.fingerprint
    assert (flat.observation_space.shape, flat.action_space.shape) == ((1,), (1,))
    assert check(flat) == check(wide)
    index = from_arrays(column, np.arange(6), column, ends)
    assert index.action_space == spaces.Discrete(6)  # an index a row stays one


def test_a_trajectory_names_what_it_lacks():
    part = {"observations": np.zeros((3, 1)), "actions": np.zeros((2, 1)), "rewards": np.zeros(2)}
    with pytest.raises(
        InputError, match=r"`trajectories` must have .*Received one with .*: add terminated and truncated"
    ):
        from_trajectories([part])


def test_one_episode_cannot_be_split():
    with pytest.raises(InputError, match=r"at least two trajectories.*1 trajectory of 3 steps"):
        counting([3]).split(0.1, 0)
    assert counting([3]).subset(0.1, 0).num_steps == 3
    with pytest.raises(InputError, match="fraction"):
        counting([3]).subset(0.0, 0)


def test_torch_takes_the_arrays_without_a_copy():
    torch = pytest.importorskip("torch")
    dataset = counting([3, 4])
    with shared(dataset) as mapped:
        for store in (dataset.store, mapped.store):
            tensor = torch.as_tensor(store.observations)
            assert tensor.data_ptr() == store.observations.ctypes.data
