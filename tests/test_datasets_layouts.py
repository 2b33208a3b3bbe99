"""robomimic's and d3rlpy's HDF5, older Minari folders, OGBench's compact rows and RLDS's."""

import json

import h5py
import numpy as np
import pytest
from damaged_data import d3rlpy_1, d3rlpy_2, final_rows, log, minari, minari_old, robomimic, trajectories

from offline_eval.cli import main
from offline_eval.datasets.opening import open_dataset
from offline_eval.errors import DatasetError

PARTS = list(trajectories())


def assert_same(dataset, final=True):
    """The trajectories of `damaged_data`, with their last observations where the file has them."""
    for trajectory, part in zip(dataset, PARTS, strict=True):
        observations = trajectory.observations
        observations = observations["near"] if isinstance(observations, dict) else observations
        assert np.array_equal(observations[:-1], part["observations"][:-1])
        assert trajectory.final_known == final
        if final:
            assert np.array_equal(observations[-1], part["observations"][-1])
        for name in ("actions", "rewards", "terminated"):
            assert np.array_equal(getattr(trajectory, name), part[name])


def changed(path, **arrays):
    with h5py.File(path, "a") as file:
        for name, array in arrays.items():
            del file[name.replace("__", "/")]
            if array is not None:
                file[name.replace("__", "/")] = array
    return path


def test_robomimic(tmp_path):
    path = robomimic(tmp_path)
    dataset = open_dataset(path)
    assert_same(dataset)
    assert (dataset.source.format, dataset.source.env_id) == ("robomimic", "Lift")
    assert dataset.num_transitions == 13
    with h5py.File(path, "a") as file:
        file["data/demo_1/states"] = np.zeros((6, 5))
        file["mask/train"] = ["demo_0"]
        for number in range(3):
            del file[f"data/demo_{number}/next_obs"], file[f"data/demo_{number}/rewards"]
    dataset = open_dataset(path)
    assert dataset.num_transitions == 13 - 2  # two of three demonstrations were cut, and what followed is unknown
    text = " ".join(dataset.source.notes)
    for part in ("dones are taken for terminal states", "no rewards", "without next_obs", "not used: mask, states"):
        assert part in text
    with pytest.raises(DatasetError, match=r"must have obs.*demo_2 .*dataset_states_to_obs"):
        open_dataset(changed(path, data__demo_2__obs=None))


def test_demonstrations_come_in_the_order_of_their_numbers(tmp_path):
    path = robomimic(tmp_path)
    with h5py.File(path, "a") as file:
        file.move("data/demo_1", "data/demo_10")
    assert open_dataset(path).lengths.tolist() == [4, 3, 6]


def test_d3rlpys_second_version(tmp_path):
    path = d3rlpy_2(tmp_path)
    dataset = open_dataset(path)
    assert_same(dataset, final=False)
    assert dataset.truncated.sum() == 2
    assert dataset.num_transitions == 11
    with pytest.raises(DatasetError, match="`num_episodes` must be the number of episodes in the file"):
        open_dataset(changed(path, num_episodes=4))
    with h5py.File(path, "a") as file:
        file["num_episodes"][()] = 3
        file.move("observations_2", "observations_2_0")
    with pytest.raises(DatasetError, match="as one array, no tuple"):
        open_dataset(path)


def test_choices_of_d3rlpys_second_version_are_indices(tmp_path):
    path = d3rlpy_2(tmp_path)
    changed(path, **{f"actions_{k}": np.arange(len(part["rewards"]))[:, None] % 3 for k, part in enumerate(PARTS)})
    assert open_dataset(path).action_space.n == 3


def test_d3rlpys_first_version(tmp_path):
    path = d3rlpy_1(tmp_path)
    dataset = open_dataset(path)
    assert_same(dataset, final=False)
    assert dataset.source.notes[-1] == "not used: version"
    changed(path, actions=np.arange(13, dtype=np.float32) % 4, discrete_action=True)
    assert open_dataset(path).action_space.n == 4


def test_older_minari_folders(tmp_path):
    whole = open_dataset(minari(tmp_path))
    (tmp_path / "old").mkdir()
    folder = minari_old(tmp_path / "old")
    main_data = folder / "data" / "main_data.hdf5"
    with h5py.File(main_data, "a") as file:
        file.attrs["env_spec"] = json.dumps({"id": "Thing-v0", "max_episode_steps": 6})
    renamed = tmp_path / "door.hdf5"
    renamed.write_bytes(main_data.read_bytes())
    for path in (folder, folder / "data", main_data, renamed):
        dataset = open_dataset(path)
        assert dataset.fingerprint == whole.fingerprint
        assert dataset.action_space == whole.action_space
        assert (dataset.source.env_id, dataset.source.max_episode_steps) == ("Thing-v0", 6)


def test_what_minari_folders_and_logs_hold_beside_is_named(tmp_path):
    folder = minari(tmp_path)
    with h5py.File(folder / "data" / "main_data.hdf5", "a") as file:
        file["episode_1/infos/success"] = np.zeros(7)
        file["episode_2/images"] = np.zeros(4)
    assert open_dataset(folder).source.notes == ("not used: images, infos",)
    (tmp_path / "b").mkdir()
    assert open_dataset(log(tmp_path / "b")).source.notes == ("not used: infos",)


def archive(path, **arrays):
    np.savez(path, **arrays)
    return path


def compact():
    rows = final_rows()
    last = rows["terminals"]
    return rows | {"valids": 1 - last, "terminals": np.minimum(1, last + np.append(last[1:], 1))}


def test_compact_rows_of_ogbench(tmp_path):
    dataset = open_dataset(archive(tmp_path / "a.npz", **compact()))
    for trajectory, part in zip(dataset, PARTS, strict=True):
        assert np.array_equal(trajectory.observations, part["observations"])
        assert np.array_equal(trajectory.actions, part["actions"])
    assert not dataset.terminated.any()
    rows = compact()
    rewards = np.arange(16.0)
    masks = (np.arange(16) != 2).astype(np.float32)
    dataset = open_dataset(archive(tmp_path / "b.npz", **rows, rewards=rewards, masks=masks))
    assert dataset.rewards.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 12, 13, 14]
    assert np.flatnonzero(dataset.terminated).tolist() == [2]
    rows["terminals"][1] = 1
    with pytest.raises(DatasetError, match="`terminals` must flag a row with valids 0 and the row before"):
        open_dataset(archive(tmp_path / "c.npz", **rows))
    with pytest.raises(DatasetError, match="`valids` must be 0 or 1"):
        open_dataset(archive(tmp_path / "d.npz", **rows | {"valids": rows["valids"] + 1}))


def test_regular_rows_of_ogbench_without_rewards(tmp_path):
    rows = final_rows()
    inner = rows["terminals"] == 0
    arrays = {name: rows[name][inner] for name in ("observations", "actions")}
    arrays["next_observations"] = rows["observations"][np.flatnonzero(inner) + 1]
    dataset = open_dataset(archive(tmp_path / "a.npz", **arrays, terminals=np.append(rows["terminals"][1:], 1)[inner]))
    assert dataset.lengths.tolist() == [4, 6, 3]
    assert not dataset.terminated.any()
    assert any("no rewards" in note for note in dataset.source.notes)


def test_rows_of_rlds(tmp_path):
    rows = final_rows()
    last = rows.pop("terminals").astype(bool)
    first = np.append(True, last[:-1])
    rewards = np.where(last, 0, 1.0)
    marks = {"is_last": last, "is_first": first, "is_terminal": last & (np.arange(16) == 11)}
    dataset = open_dataset(archive(tmp_path / "a.npz", **rows, rewards=rewards, **marks, discount=1.0 - last))
    assert dataset.returns.tolist() == [4, 6, 3]
    assert np.flatnonzero(dataset.terminated).tolist() == [9]
    assert np.array_equal(dataset[1].observations, PARTS[1]["observations"])
    assert any("as in RLDS" in note for note in dataset.source.notes)
    with pytest.raises(DatasetError, match=r"`is_last` must flag final observations, whose rewards are 0"):
        open_dataset(archive(tmp_path / "b.npz", **rows, rewards=rewards + 1, **marks))
    with pytest.raises(DatasetError, match="`is_last` must flag the row before each row with is_first"):
        open_dataset(archive(tmp_path / "c.npz", **rows, rewards=rewards, **marks | {"is_first": np.roll(first, 1)}))


@pytest.mark.parametrize("make", [robomimic, d3rlpy_1, d3rlpy_2, minari_old])
def test_the_commands_know_every_layout(tmp_path, capsys, make):
    path = str(make(tmp_path))
    assert main(["data", "describe", path]) == 0
    assert "trajectories  3" in capsys.readouterr().out
    assert main(["data", "check", path]) == 0
    for layout in ("minari", "packed"):
        out = tmp_path / layout
        assert main(["data", "convert", path, "--layout", layout, "--out", str(out)]) == 0
        assert open_dataset(out).fingerprint == open_dataset(path).fingerprint


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.pkl", b"\x80\x04N.", r"from_replay_buffer.*from_trajectories.*from_arrays"),
        ("buffer", b"\x80\x05N.", "from_replay_buffer"),
        ("a.npy", b"\x93NUMPY\x01\x00", r"np\.savez"),
        ("a.parquet", b"PAR1....", "from_arrays"),
        ("a.bin", b"", "from_trajectories"),
    ],
)
def test_other_files_are_refused_with_a_way_out(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=rf"must be a data set.*{said}"):
        open_dataset(tmp_path / name)
