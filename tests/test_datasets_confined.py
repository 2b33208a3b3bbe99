"""A data set opens no file outside its folder, waits for nothing, and takes no more room than what is stored allows."""

import json
import os
import resource
import zipfile

import h5py
import numpy as np
import pytest
from damaged_data import HUGE, d4rl, declares, flat, log, minari, npz, packed

from offline_eval.cli import main
from offline_eval.datasets.log import open_log
from offline_eval.datasets.opening import open_dataset
from offline_eval.errors import DatasetError, StorageError

LEAVES = "must stay in the data set's folder"


@pytest.fixture
def secret(tmp_path):
    """Somebody's file outside the data set's folder, as HDF5 and as raw bytes."""
    folder = tmp_path / "private"
    folder.mkdir()
    with h5py.File(folder / "secret.hdf5", "w") as file:
        for name, array in flat().items():
            file[name] = array
    (folder / "secret.raw").write_bytes(bytes(range(52)))
    return folder


@pytest.fixture
def home(tmp_path):
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def replaced(path, name, make):
    with h5py.File(path, "a") as file:
        del file[name]
        make(file)
    return path


def layout_of(source, shape=(13,), dtype=np.float32, name="rewards"):
    layout = h5py.VirtualLayout(shape, dtype)
    layout[:] = h5py.VirtualSource(str(source), name, shape)
    return layout


def external_link(file, target):
    file["rewards"] = h5py.ExternalLink(target, "/rewards")


def external_storage(file, target):
    file.create_dataset("rewards", (13,), np.float32, external=[(str(target), 0, 52)])


def virtual(file, target):
    file.create_virtual_dataset("rewards", layout_of(target))


@pytest.mark.parametrize("make", [external_link, external_storage, virtual])
@pytest.mark.parametrize("way", ["absolute", "relative", "link"])
def test_what_leads_out_of_the_folder_is_refused(home, secret, monkeypatch, make, way):
    path = d4rl(home)
    target = secret / ("secret.raw" if make is external_storage else "secret.hdf5")
    if way == "relative":
        target = f"../private/{target.name}"
    elif way == "link":
        (home / "inside").symlink_to(target)
        target = "inside"
    monkeypatch.chdir(home)  # HDF5 looks for raw files where the process stands
    replaced(path, "rewards", lambda file: make(file, str(target)))
    for look in ("describe", "check"):
        assert main(["data", look, str(path)]) == 2
    with pytest.raises(DatasetError, match=LEAVES):
        open_dataset(path)
    assert main(["data", "convert", str(path), "--out", str(home / "copy.hdf5")]) == 2
    assert not (home / "copy.hdf5").exists()


def test_links_within_the_folder_are_followed(home, monkeypatch):
    path, whole = d4rl(home), open_dataset(d4rl(home)).fingerprint
    with h5py.File(home / "far.hdf5", "w") as file:
        file["rewards"] = flat()["rewards"]
    (home / "far.raw").write_bytes(flat()["rewards"].tobytes())
    monkeypatch.chdir(home)
    for make, target in ((external_link, "far.hdf5"), (external_storage, "far.raw"), (virtual, "far.hdf5")):
        replaced(path, "rewards", lambda file, make=make, target=target: make(file, target))
        assert open_dataset(path).fingerprint == whole
    replaced(path, "rewards", lambda file: file.update({"kept": flat()["rewards"], "rewards": h5py.SoftLink("/kept")}))
    assert open_dataset(path).fingerprint == whole
    (home / "link.hdf5").symlink_to(path)
    assert open_dataset(home / "link.hdf5").fingerprint == whole  # the user's own link


def test_what_leads_back_to_itself_or_to_nothing_is_refused(home):
    path = d4rl(home)
    replaced(path, "rewards", lambda file: external_link(file, path.name))
    with pytest.raises(DatasetError, match="must lead to another file, and not back to its own"):
        open_dataset(path)
    with h5py.File(home / "b.hdf5", "w") as file:
        file["rewards"] = h5py.ExternalLink(path.name, "/rewards")
    replaced(path, "rewards", lambda file: external_link(file, "b.hdf5"))
    with pytest.raises(DatasetError, match="not back to its own"):
        open_dataset(path)
    replaced(path, "rewards", lambda file: virtual(file, "."))
    with pytest.raises(DatasetError, match="must be made of arrays that hold their own numbers"):
        open_dataset(path)
    replaced(path, "rewards", lambda file: virtual(file, "gone.hdf5"))
    with pytest.raises(DatasetError, match=r"virtual data set.*must exist.*gone"):
        open_dataset(path)
    replaced(path, "rewards", lambda file: file.update({"rewards": h5py.SoftLink("/rewards")}))
    with pytest.raises(DatasetError, match="too many links"):
        open_dataset(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_nothing_waits_on_a_pipe(home):
    os.mkfifo(home / "pipe.hdf5")
    with pytest.raises(DatasetError, match="no pipe or device"):
        open_dataset(home / "pipe.hdf5")
    path = d4rl(home)
    replaced(path, "rewards", lambda file: external_link(file, "pipe.hdf5"))
    with pytest.raises(DatasetError, match="must be a regular file"):
        open_dataset(path)
    folder = minari(home)
    for name in ("main_data.hdf5", "metadata.json"):
        kept = (folder / "data" / name).rename(home / "kept")
        os.mkfifo(folder / "data" / name)
        with pytest.raises(DatasetError):
            open_dataset(folder)
        kept.replace(folder / "data" / name)
    assert len(open_dataset(folder)) == 3


@pytest.mark.parametrize("make", [minari, packed, log])
def test_folders_hold_their_own_files(home, tmp_path, make):
    folder = make(home)
    files = [file for file in folder.rglob("*") if file.suffix in (".hdf5", ".json", ".npy")]
    for number, file in enumerate(files):
        outside = file.rename(tmp_path / f"outside{number}{file.suffix}")
        file.symlink_to(outside)
        if make is not log or file.name != "main_data.hdf5":  # which is made anew from the shards
            with pytest.raises((DatasetError, StorageError), match=LEAVES):
                open_dataset(folder)
        file.unlink()
        outside.rename(file)
    assert len(open_dataset(folder)) == 3


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_declared_rows_must_be_stored(home):
    before = peak()
    path = d4rl(home)
    replaced(path, "observations", lambda file: file.create_dataset("observations", (HUGE, 3), np.float32))
    with pytest.raises(DatasetError, match=r"`observations` must hold the rows that it declares.*12,000,000,000 bytes"):
        open_dataset(path)
    chunks = {"chunks": (1 << 20, 3), "compression": "gzip"}
    replaced(path, "observations", lambda file: file.create_dataset("observations", (HUGE, 3), np.float32, **chunks))
    with pytest.raises(DatasetError, match="must hold the rows that it declares"):
        open_dataset(path)
    folder = minari(home)
    replaced(
        folder / "data" / "main_data.hdf5",
        "episode_1/rewards",
        lambda file: file.create_dataset("episode_1/rewards", (HUGE,), np.float32),
    )
    with pytest.raises(DatasetError, match=r"episode_1/rewards` must hold the rows"):
        open_dataset(folder)
    assert peak() - before < 100_000  # KiB


def test_archives_hold_what_they_declare(home):
    before = peak()
    path = npz(home)
    declares(path, flat(), "observations", (HUGE, 3))
    with pytest.raises(DatasetError, match=r"`observations` must hold the rows that it declares.*12,000,000,000 bytes"):
        open_dataset(path)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("observations.npy", "w") as member,
    ):
        member.write(b"\x93NUMPY\x01\x00\x76\x00")
        member.write(
            f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({17 << 22},), }}".ljust(117).encode() + b"\n"
        )
        for _ in range(17):
            member.write(bytes(1 << 24))  # 272 MiB of zeros, 0.27 MiB packed
    with pytest.raises(DatasetError, match=r"must unpack to at most 268,435,456 bytes, or 100 times its packed size"):
        open_dataset(path)
    assert peak() - before < 100_000


def test_columns_of_zeros_are_packed_well_and_read(home):
    columns = flat() | {"rewards": np.zeros(13, np.float32)}
    repeats = 20_000
    np.savez_compressed(home / "a.npz", **{name: np.concatenate([c] * repeats) for name, c in columns.items()})
    assert open_dataset(home / "a.npz").num_steps == 13 * repeats


@pytest.mark.parametrize(
    "space",
    [
        {"type": "Discrete", "n": 10**12},
        {"type": "Box", "dtype": "float32", "shape": [10**5, 10**5], "low": -1.0, "high": 1.0},
        {"type": "MultiBinary", "n": [10**5, 10**5]},
        {"type": "Dict", "subspaces": []},
    ],
)
def test_a_short_text_makes_no_large_space(home, space):
    before = peak()
    described = minari(home) / "data" / "metadata.json"
    described.write_text(json.dumps(json.loads(described.read_text()) | {"action_space": json.dumps(space)}))
    with pytest.raises(DatasetError, match="must be a space as Minari writes it"):
        open_dataset(home / "a")
    assert peak() - before < 100_000


def test_a_damaged_log_is_a_storage_error(home):
    folder = log(home)
    shard = sorted((folder / "data" / "shards").iterdir())[1]
    with h5py.File(shard, "a") as file:
        file.attrs["episodes"] = json.dumps([{"group": 3, "key": "x", "seed": [], "steps": None}])
    (folder / "data" / "main_data.hdf5").unlink()
    with pytest.raises(StorageError, match="is not a readable shard"):
        open_log(folder)
    (folder / "data" / "metadata.json").write_text("[]")
    with pytest.raises(StorageError, match="holds no log that can be read"):
        open_log(folder)
