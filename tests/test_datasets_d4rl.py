"""The flat HDF5 layout: read, written, cut short, larger than memory."""

import os
from pathlib import Path

import gymnasium
import h5py
import numpy as np
import pytest
from gymnasium import spaces

from offline_eval.datasets.arrays import from_trajectories
from offline_eval.datasets.d4rl import read_d4rl, write_d4rl
from offline_eval.datasets.opening import open_dataset, save_dataset
from offline_eval.errors import DatasetError, InputError, SpaceError, StorageError

DOOR = Path(__file__).resolve().parents[2] / "shared" / "data" / "demonstrations" / "door-human.hdf5"


def write(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
    return path


def rows(count=12, ends=(3, 7, 11), **more):
    """Flat rows whose observations count; `ends` are timeouts."""
    timeouts = np.zeros(count, bool)
    timeouts[list(ends)] = True
    arrays = {
        "observations": np.stack([np.arange(count), -np.arange(count)], axis=1).astype(np.float32),
        "actions": np.linspace(-0.5, 0.5, count, dtype=np.float32)[:, None],
        "rewards": np.arange(count, dtype=np.float32),
        "terminals": np.zeros(count, bool),
        "timeouts": timeouts,
    }
    return arrays | more


def trajectories(lengths=(4, 6, 3), known=True):
    generator = np.random.default_rng(0)
    parts = []
    for k, length in enumerate(lengths):
        ends = np.zeros(length, bool)
        ends[-1] = True
        observations = generator.standard_normal((length + 1, 2)).astype(np.float32)
        if not known:
            observations[-1] = observations[-2]
        fields = {"actions": generator.uniform(-1, 1, (length, 1)), "rewards": generator.standard_normal(length)}
        flags = {"terminated": ends & (k == 1), "truncated": ends & (k != 1), "final_known": known}
        parts.append({"observations": observations} | fields | flags)
    return from_trajectories(parts)


def test_timeouts_are_truncation_and_their_last_step_is_no_transition(tmp_path):
    dataset = open_dataset(write(tmp_path / "walker2d-medium-v2.hdf5", **rows()))
    assert dataset.lengths.tolist() == [4, 4, 4]
    assert dataset.truncated.sum() == 3
    assert not dataset.terminated.any()
    assert dataset.returns.tolist() == [6, 22, 38]  # 0+1+2+3 and so on: the last reward counts
    assert dataset.transitions().rewards.tolist() == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    assert np.array_equal(dataset.transitions().next_observations[:, 0], [1, 2, 3, 5, 6, 7, 9, 10, 11])
    assert dataset.source.env_id == "walker2d-medium-v2"
    assert any("no next_observations" in note for note in dataset.source.notes)


def test_next_observations_in_the_file_keep_every_transition(tmp_path):
    arrays = rows()
    after = arrays["observations"] + [1, -1]
    dataset = open_dataset(write(tmp_path / "a.hdf5", **arrays, next_observations=after))
    assert dataset.num_transitions == 12
    assert np.array_equal(dataset.transitions().next_observations, after)


def test_columns_of_shape_n_by_1_and_metadata_are_understood(tmp_path):
    arrays = rows()
    for name in ("rewards", "terminals", "timeouts"):
        arrays[name] = arrays[name].astype(np.float64)[:, None]
    path = write(tmp_path / "a.hdf5", **arrays)
    with h5py.File(path, "a") as file:
        file["metadata/algorithm"] = "SAC"
        file["infos/qpos"] = np.zeros((12, 3))
    assert open_dataset(path).lengths.tolist() == [4, 4, 4]


def test_a_terminal_row_is_a_transition_without_a_successor(tmp_path):
    arrays = rows(ends=(11,))
    arrays["terminals"][5] = True
    dataset = open_dataset(write(tmp_path / "a.hdf5", **arrays))
    assert dataset.lengths.tolist() == [6, 6]
    assert dataset.num_transitions == 11
    assert dataset.transitions().masks.tolist() == [1] * 5 + [0] + [1] * 5


def test_rows_after_the_last_end_are_a_cut_trajectory(tmp_path):
    dataset = open_dataset(write(tmp_path / "a.hdf5", **rows(ends=(3, 7))))
    assert dataset.lengths.tolist() == [4, 4, 4]
    assert dataset[2].truncated.tolist() == [False, False, False, True]


@pytest.mark.parametrize("options", [{}, {"chunks": True}, {"compression": "gzip", "chunks": (7, 2)}])
def test_large_files_are_read_in_blocks_whatever_their_chunks(tmp_path, monkeypatch, options):
    monkeypatch.setattr("offline_eval.datasets.store.BLOCK_ROWS", 16)
    arrays = rows(200, ends=range(6, 200, 7))
    after = np.roll(arrays["observations"], -1, axis=0)
    after[arrays["timeouts"]] += np.float32(0.5)
    arrays["next_observations"] = after
    path = tmp_path / "a.hdf5"
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, **(options if array.ndim == 2 and array.shape[1] == 2 else {}))
    dataset = read_d4rl(path)
    assert np.array_equal(dataset.step_observations, arrays["observations"])
    assert np.array_equal(dataset.actions, arrays["actions"])
    last = dataset.offsets[1:] - 1
    assert np.array_equal(dataset.observations[last + np.arange(len(last)) + 1], arrays["next_observations"][last])


def test_above_the_limit_the_arrays_stay_on_the_disk(tmp_path):
    path = save_dataset(trajectories(), tmp_path / "a.hdf5", "d4rl")
    small = open_dataset(path, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    large = open_dataset(path, cache=tmp_path / "cache", memory_limit=50)
    assert isinstance(large.store.observations, np.memmap)
    assert isinstance(large.store.actions, np.memmap)
    assert large.fingerprint == small.fingerprint
    assert large.source == small.source
    (folder,) = (tmp_path / "cache").iterdir()
    before = (folder / "observations.npy").stat().st_mtime_ns
    open_dataset(path, cache=tmp_path / "cache", memory_limit=50)
    assert (folder / "observations.npy").stat().st_mtime_ns == before  # not written again
    save_dataset(trajectories((9, 9)), path, "d4rl")
    assert open_dataset(path, cache=tmp_path / "cache", memory_limit=50).num_steps == 18  # another file, another key


def test_the_cache_folder_comes_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("OFFLINE_EVAL_CACHE", str(tmp_path / "named"))
    open_dataset(save_dataset(trajectories(), tmp_path / "a.hdf5", "d4rl"), memory_limit=50)
    assert len(list((tmp_path / "named").iterdir())) == 1


def test_a_failed_reading_leaves_nothing_in_the_cache(tmp_path):
    arrays = rows()
    arrays["observations"][5, 1] = np.nan
    path = write(tmp_path / "a.hdf5", **arrays)
    with pytest.raises(DatasetError, match="must be finite"):
        open_dataset(path, cache=tmp_path / "cache", memory_limit=50)
    assert list((tmp_path / "cache").iterdir()) == []
    assert np.isnan(open_dataset(path, check_finite=False).observations).sum() == 1


@pytest.mark.parametrize("known", [True, False])
def test_writing_and_reading_gives_the_same_data(tmp_path, known):
    dataset = trajectories(known=known)
    path = write_d4rl(dataset, tmp_path / "a.hdf5")
    again = open_dataset(path)
    assert again.fingerprint == dataset.fingerprint
    assert again.observation_space == dataset.observation_space
    with h5py.File(path) as file:
        assert ("next_observations" in file) == known
        assert file["observations"].id.get_offset() is not None  # contiguous: others can map it
    part = dataset.select([0, 2])
    assert open_dataset(write_d4rl(part, tmp_path / "b.hdf5")).fingerprint == part.fingerprint


def test_some_final_observations_known_survives_the_file(tmp_path):
    parts = [*trajectories((4, 3)), *trajectories((5,), known=False)]
    dataset = from_trajectories(parts, action_space=spaces.Box(-2, 2, (1,), np.float32), env_id="Pendulum-v1")
    again = open_dataset(write_d4rl(dataset, tmp_path / "a.hdf5"))
    assert again.final_known.tolist() == [True, True, False]
    assert again.fingerprint == dataset.fingerprint
    assert again.action_space == dataset.action_space
    assert again.source.env_id == "Pendulum-v1"


def test_a_truncated_file_says_so(tmp_path):
    path = write_d4rl(trajectories((400, 300)), tmp_path / "a.hdf5")
    content = path.read_bytes()
    for share in (0.3, 0.9):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(DatasetError, match=r"must be a whole, readable HDF5 file.*cut short"):
            open_dataset(path)


def test_files_that_are_no_data_set(tmp_path):
    with pytest.raises(DatasetError, match="must exist"):
        open_dataset(tmp_path / "absent.hdf5")
    (tmp_path / "text.hdf5").write_text("observations")
    with pytest.raises(DatasetError, match="must be a data set"):
        open_dataset(tmp_path / "text.hdf5")
    with pytest.raises(DatasetError, match=r"actions, rewards.*obs_only, observations: actions, rewards not found"):
        open_dataset(write(tmp_path / "other.hdf5", observations=np.zeros((3, 1)), obs_only=np.zeros(3)))
    empty = {"observations": np.zeros((0, 2)), "actions": np.zeros((0, 1)), "rewards": np.zeros(0)}
    with pytest.raises(DatasetError, match="an empty data set"):
        open_dataset(write(tmp_path / "empty.hdf5", **empty))


def test_a_file_without_episode_ends_asks_for_the_time_limit(tmp_path):
    path = write(tmp_path / "a.hdf5", **rows(ends=()))
    with pytest.raises(DatasetError, match=r"where its episodes end.*12 rows without an end: give `max_episode_steps`"):
        open_dataset(path)
    assert open_dataset(path, max_episode_steps=5).lengths.tolist() == [5, 5, 2]


def test_the_time_limit_of_d4rls_own_names_is_known(tmp_path):
    arrays = rows(2500, ends=())
    del arrays["timeouts"]
    arrays["terminals"][300] = True
    dataset = open_dataset(write(tmp_path / "hopper-medium-v0.hdf5", **arrays))
    assert dataset.lengths.tolist() == [301, 1000, 1000, 199]


def test_data_of_another_environment_are_refused(tmp_path):
    path = write(tmp_path / "a.hdf5", **rows())
    with pytest.raises(SpaceError, match=r"must hold observations of Box.*a\.hdf5: use the environment"):
        open_dataset(path, observation_space=spaces.Box(-1, 1, (3,)))
    with pytest.raises(SpaceError, match="must hold actions of"):
        open_dataset(path, action_space=spaces.Box(-1, 1, (2,)))


def test_the_spaces_are_those_of_the_environment_that_the_file_names(tmp_path):
    arrays = rows()
    arrays["observations"] = np.zeros((12, 3), np.float32)
    arrays["actions"][0] = 2.0  # one of twelve: [-1, 1] would be assumed, and it would count as 1
    path = write(tmp_path / "a.hdf5", **arrays)
    assert open_dataset(path).action_space == spaces.Box(-1, 1, (1,))
    with h5py.File(path, "a") as file:
        file.attrs["env_id"] = "Pendulum-v1"
    dataset, env = open_dataset(path), gymnasium.make("Pendulum-v1")
    assert (dataset.observation_space, dataset.action_space) == (env.observation_space, env.action_space)
    assert dataset.for_spaces(action_space=spaces.Box(-3, 3, (1,))).action_space.high == 3  # an environment itself wins
    for layout in ("d4rl", "minari", "packed"):
        assert open_dataset(save_dataset(dataset, tmp_path / layout, layout)).action_space == env.action_space
    two = write(tmp_path / "b.hdf5", **arrays | {"actions": np.repeat(arrays["actions"], 2, axis=1)})
    with h5py.File(two, "a") as file:
        file.attrs["env_id"] = "Pendulum-v1"
    assert open_dataset(two).action_space == spaces.Box(-1, 1, (2,))  # not Pendulum's actions: a wrapper changed them


def test_training_without_an_environment_uses_the_box_of_the_one_that_the_file_names(tmp_path):
    policies = pytest.importorskip("offline_eval.policies")
    arrays = rows()
    arrays["actions"][0] = 2.0
    arrays["observations"] = np.zeros((12, 3), np.float32)
    path = write(tmp_path / "Pendulum-v1.hdf5", **arrays)
    model = policies.OfflineAlgorithm("bc", batch_size=4, policy_kwargs={"net_arch": [4]}, seed=0, device="cpu")
    assert model.fit(open_dataset(path), 1).action_space.high == 2


def test_dict_observations_in_a_flat_file_are_named_as_what_they_are(tmp_path):
    arrays = rows()
    del arrays["observations"]
    path = write(tmp_path / "a.hdf5", **arrays)
    with h5py.File(path, "a") as file:
        file["observations/near"] = np.zeros((12, 2))
    with pytest.raises(DatasetError, match=r"observations: near: dict observations are not read.*Minari") as caught:
        open_dataset(path)
    assert "not found" not in str(caught.value)


def test_what_cannot_be_written(tmp_path):
    dataset = trajectories()
    with pytest.raises(InputError, match="`layout` must be one of d4rl"):
        save_dataset(dataset, tmp_path / "a", "csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not be written"):
        write_d4rl(dataset, tmp_path / "file" / "a.hdf5")
    pairs = from_trajectories([{"observations": {"a": np.zeros((3, 1))}} | dict(ACTED)])
    with pytest.raises(DatasetError, match=r"flat observations.*Minari"):
        write_d4rl(pairs, tmp_path / "a.hdf5")
    assert not (tmp_path / "a.hdf5").exists()


ACTED = {"actions": np.zeros((2, 1)), "rewards": np.zeros(2), "terminated": [0, 1], "truncated": [0, 0]}


def full(*_):
    raise OSError(28, "No space left on device")


def test_a_full_disk_is_a_storage_error_and_keeps_the_old_file(tmp_path, monkeypatch):
    path = write_d4rl(trajectories(), tmp_path / "a.hdf5")
    before = path.read_bytes()
    monkeypatch.setattr("offline_eval.datasets.writing.os.fsync", full)
    with pytest.raises(StorageError, match="No space left on device"):
        write_d4rl(trajectories((9, 9)), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot take room on a disk beforehand")
def test_a_disk_without_room_for_the_cache_is_a_storage_error(tmp_path, monkeypatch):
    path = write_d4rl(trajectories(), tmp_path / "a.hdf5")
    monkeypatch.setattr("offline_eval.datasets.packed.os.posix_fallocate", full)
    with pytest.raises(StorageError, match=r"needs \d+ bytes: No space left on device"):
        open_dataset(path, cache=tmp_path / "cache", memory_limit=50)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.skipif(not DOOR.is_file(), reason="the door demonstrations are not here")
def test_the_human_demonstrations_of_the_door_task():
    dataset = open_dataset(DOOR)
    assert (len(dataset), dataset.num_steps, dataset.num_transitions) == (25, 6729, 6729 - 25)
    assert (dataset.lengths.min(), dataset.lengths.max()) == (223, 300)
    assert round(dataset.returns.min()) == 230
    assert round(dataset.returns.max()) == 1496
    assert dataset.step_observations.shape == (6729, 39)
    assert dataset.transitions().masks.min() == 1
