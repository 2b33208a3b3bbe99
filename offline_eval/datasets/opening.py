"""`open_dataset(path)`: finds the format by itself, and leaves on the disk what is too large for memory."""

from __future__ import annotations

import hashlib
import os
import stat
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
from gymnasium import Space

from offline_eval.datasets.confined import at_the_door
from offline_eval.datasets.d3rlpy import is_d3rlpy, read_d3rlpy
from offline_eval.datasets.d4rl import read_d4rl, write_d4rl
from offline_eval.datasets.hdf5 import reading_hdf5
from offline_eval.datasets.minari import METADATA_FILE, main_file, read_minari, write_minari
from offline_eval.datasets.npz import read_npz
from offline_eval.datasets.packed import INDEX, LargeToDisk, read_packed, write_packed
from offline_eval.datasets.robomimic import is_robomimic, read_robomimic
from offline_eval.datasets.trajectories import Dataset
from offline_eval.errors import DatasetError, InputError, bare

MEMORY_LIMIT = 4 * 2**30
"""Bytes of arrays up to which a data set is read into memory; a larger one is memory-mapped."""

_READING = 3
"""Goes up when the same file gives another data set: what earlier versions left in the cache is not taken then."""

READERS: dict[str, Callable[..., Dataset]] = {
    "d4rl": read_d4rl,
    "minari": read_minari,
    "npz": read_npz,
    "robomimic": read_robomimic,
    "d3rlpy": read_d3rlpy,
}
"""Readers by format: `reader(path, observation_space, action_space, max_episode_steps, place)`."""

FLAT = ("d4rl", "npz")
"""Formats of flat rows, whose readers take `transitions`, too."""

WRITERS: dict[str, Callable[..., Path]] = {"d4rl": write_d4rl, "minari": write_minari, "packed": write_packed}
"""Writers by format: `writer(dataset, path)`."""


def open_dataset(
    path: str | os.PathLike[str],
    *,
    observation_space: Space[Any] | None = None,
    action_space: Space[Any] | None = None,
    max_episode_steps: int | None = None,
    memory_limit: int = MEMORY_LIMIT,
    cache: str | os.PathLike[str] | None = None,
    check_finite: bool = True,
    transitions: bool = False,
) -> Dataset:
    """Open a data set of any known format.

    These are flat HDF5 (D4RL's, d3rlpy's), robomimic's and d3rlpy's HDF5 of episodes, a Minari folder (from version
    0.3 on) or a log, .npz (OGBench's, RLDS's rows, flat rows), and a folder of `write_packed`.

    A folder that holds one log, as a run folder with its states does, stands for that log. A data set whose arrays are
    larger than `memory_limit` is read once, block by block, into a folder of .npy files under `cache`, and is
    memory-mapped from there, then and the next time.

    Args:
        path: a file or a folder.
        observation_space: an environment's; the data must fit it.
        action_space: the same; it also says what a file without action bounds leaves open. Without it, such a file
            has the bounds of the environment that it names where those are known (`Source.env_id`), else a guess.
        max_episode_steps: cuts episodes of a file that has neither timeouts nor next observations.
        memory_limit: in bytes.
        cache: the folder for large data sets; else `$OFFLINE_EVAL_CACHE`, else the user's cache folder.
        check_finite: refuse NaN and infinite numbers. A data set that came out of the cache was checked before.
        transitions: read every row of a flat file as a transition of its own, in whatever order they are.

    Raises:
        InputError: a time limit below 1, or `transitions` for a file of episodes.
        DatasetError: the file is no data set, is damaged, is empty, does not say where its episodes end, leads out of
            its folder, or holds NaN (named by index).
        SpaceError: the data come from another environment.
        StorageError: the cache could not be written.
    """
    if max_episode_steps is not None and max_episode_steps < 1:
        raise InputError("max_episode_steps", "must be at least 1", max_episode_steps)
    with at_the_door(path):
        return _opened(
            located(path),
            observation_space,
            action_space,
            max_episode_steps,
            memory_limit,
            cache,
            check_finite,
            transitions,
        )


def _opened(
    path: Path,
    observation_space: Space[Any] | None,
    action_space: Space[Any] | None,
    max_episode_steps: int | None,
    memory_limit: int,
    cache: str | os.PathLike[str] | None,
    check_finite: bool,
    transitions: bool,
) -> Dataset:
    kind = format_of(path)
    if transitions and kind not in FLAT:
        way_out = "leave it out: this file tells its episodes apart"
        raise InputError("transitions", f"is for flat rows ({', '.join(FLAT)})", bare(kind), way_out)
    if kind == "packed":
        dataset = read_packed(path, memory_map=_size(path) > memory_limit)
        dataset = replace(dataset, source=replace(dataset.source, format=kind))
        dataset = dataset.for_spaces(observation_space, action_space)
        return dataset.check_finite() if check_finite else dataset
    words = {"transitions": transitions} if kind in FLAT else {}
    spaces = str(observation_space), str(action_space)
    wanted = (_READING, _signature(path), *spaces, max_episode_steps, check_finite, transitions)
    folder = _cache_folder(cache) / hashlib.sha256(repr(wanted).encode()).hexdigest()[:32]
    if not (folder / INDEX).exists():
        with LargeToDisk(folder, memory_limit) as place:
            dataset = READERS[kind](path, observation_space, action_space, max_episode_steps, place, **words)
            if check_finite:
                dataset.check_finite()
            if not place.used:
                return dataset
            place.finish(dataset)
    dataset = read_packed(folder, memory_map=_size(folder) > memory_limit)
    return replace(dataset, source=replace(dataset.source, path=str(path)))


def save_dataset(dataset: Dataset, path: str | os.PathLike[str], layout: str) -> Path:
    """Write a data set in one of the layouts of `WRITERS`.

    Raises:
        InputError: no such layout.
        StorageError: it could not be written; nothing is left behind.
    """
    if layout not in WRITERS:
        raise InputError("layout", f"must be one of {', '.join(sorted(WRITERS))}", layout)
    return WRITERS[layout](dataset, path)


def located(path: str | os.PathLike[str]) -> Path:
    """The path itself, or the one log in a folder (`states` of a run folder included) that is no data set itself.

    Raises:
        DatasetError: the folder holds several logs.
    """
    path = Path(path)
    if not path.is_dir() or (path / INDEX).is_file() or main_file(path) is not None:
        return path
    found = sorted(
        file.parent.parent for above in (path, path / "states") for file in above.glob(f"*/data/{METADATA_FILE}")
    )
    if len(found) > 1:
        received = bare(f"{path} with {len(found)} of them")
        way_out = f"name one: {', '.join(map(str, found[:8]))}{', ...' if len(found) > 8 else ''}"
        raise DatasetError("path", "must hold one data set", received, way_out)
    return found[0] if found else path


def format_of(path: str | os.PathLike[str]) -> str:
    """The format of a file or folder, by its content: a key of `READERS`, or `packed`.

    Raises:
        DatasetError: it does not exist, or is none that is known.
    """
    path = Path(path)
    if not path.exists():
        raise DatasetError("path", "must exist", str(path))
    if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():
        raise DatasetError("path", "must be a file or a folder, no pipe or device", str(path))
    if (path / INDEX).is_file():
        return "packed"
    if path.is_file() and h5py.is_hdf5(path):
        with reading_hdf5(path) as file:
            if is_robomimic(file):
                return "robomimic"
            if is_d3rlpy(file):
                return "d3rlpy"
    if main_file(path) is not None:
        return "minari"
    if path.is_file() and h5py.is_hdf5(path):
        return "d4rl"
    if path.is_file() and zipfile.is_zipfile(path):
        return "npz"
    known = (
        "HDF5 of D4RL, robomimic or d3rlpy, a Minari folder, a .npz of OGBench or of flat rows, or a folder written by "
        "`write_packed`"
    )
    raise DatasetError("path", f"must be a data set: {known}", str(path), _way_out(path))


def _way_out(path: Path) -> str:
    """What to do with a file of another kind, by its first bytes."""
    if path.is_dir():
        return ""
    with path.open("rb") as file:
        begin = file.read(8)
    if begin[:1] == b"\x80" or path.suffix in (".pkl", ".pickle"):
        return (
            "a pickle can run code and is not opened here: if you trust it, load it in Python, and give a replay "
            "buffer to `from_replay_buffer`, a list of trajectories to `from_trajectories`, arrays to `from_arrays`"
        )
    if begin.startswith(b"\x93NUMPY"):
        return "a .npy holds one array: put observations, actions, rewards, ... into one .npz with `np.savez`"
    if begin.startswith((b"PAR1", b"ARROW1")) or path.suffix in (".csv", ".json", ".jsonl", ".parquet"):
        return "read the table in Python, and give its columns to `from_arrays`"
    return "read it in Python, and give its arrays to `from_arrays` or `from_trajectories`"


def _signature(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of the file, or of every file of the folder."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    stats = ((str(file.resolve()), file.stat()) for file in files if file.is_file())
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def _cache_folder(cache: str | os.PathLike[str] | None) -> Path:
    if cache is not None:
        return Path(cache)
    named = os.environ.get("OFFLINE_EVAL_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "offline-eval"
