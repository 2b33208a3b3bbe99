"""A data set as a folder of .npy files: read at once or memory-mapped, and then shared between processes.

`dataset.json` names the arrays and what the reader found out. It is what `open_dataset` makes of a file that is too
large for memory, what worker processes share, and the fastest format to open.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from offline_eval.datasets.confined import at_the_door, file_within
from offline_eval.datasets.data_spaces import fits
from offline_eval.datasets.records import Source
from offline_eval.datasets.space_json import space_from_json, space_to_json
from offline_eval.datasets.store import Allocate, Store, in_memory, storage_dtype
from offline_eval.datasets.trajectories import Dataset
from offline_eval.datasets.writing import new_folder
from offline_eval.errors import DatasetError, StorageError, bare

INDEX = "dataset.json"
_SMALL = ("terminated", "truncated", "offsets", "final_known")
_VERSION = 1


def in_folder(folder: Path) -> Allocate:
    """Makes arrays that are files of `folder`, with their room on the disk taken beforehand."""

    def allocate(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        path = folder / f"{_file_name(name)}.npy"
        array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        # Writing into a map of a file that the disk has no room for kills the process without a word.
        if hasattr(os, "posix_fallocate"):
            with path.open("rb+") as file:
                try:
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
                except OSError as error:
                    raise StorageError(f"{path} needs {array.nbytes:,} bytes: {error.strerror}") from error
        return array

    return allocate


def _file_name(name: str) -> str:
    return quote(name, safe="")


def write_packed(dataset: Dataset, folder: str | os.PathLike[str]) -> Path:
    """Write a data set, or a part of one, as a folder of .npy files.

    Raises:
        InputError: the folder exists and is not empty.
        StorageError: it could not be written.
    """
    with new_folder(folder) as temporary:
        allocate = in_folder(temporary)
        for name, count, blocks in dataset.blocks():
            first = next(blocks)
            out, start = allocate(name, (count, *first.shape[1:]), first.dtype), 0
            for block in itertools.chain([first], blocks):
                out[start : start + len(block)] = block
                start += len(block)
        write_index(temporary, dataset)
    return Path(folder)


def write_index(folder: Path, dataset: Dataset) -> None:
    """Write `dataset.json`, which makes a folder of arrays a data set."""
    observations = dataset.store.observations
    text = json.dumps(
        {
            "version": _VERSION,
            "keys": list(observations) if isinstance(observations, dict) else None,
            "observation_space": space_to_json(dataset.observation_space),
            "action_space": space_to_json(dataset.action_space),
            "source": asdict(dataset.source),
        },
        indent=1,
    )
    (folder / INDEX).write_text(text, encoding="utf-8")


class LargeToDisk:
    """A place for a store: memory up to a limit, and a new folder of .npy files above it.

    Args:
        folder: appears when `finish` is called; what was begun and not finished is removed at the end of the block.
        memory_limit: in bytes.
    """

    def __init__(self, folder: Path, memory_limit: int) -> None:
        self._folder, self._limit = folder, memory_limit
        self._temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        self.used = False

    def __call__(self, num_bytes: int) -> Allocate:
        """Where arrays of that many bytes together go."""
        if num_bytes <= self._limit:
            return in_memory(num_bytes)
        self.used = True
        try:
            self._temporary.mkdir(parents=True)
        except OSError as error:
            raise StorageError(f"{self._temporary} cannot be made: {error.strerror}; name another `cache`") from error
        return in_folder(self._temporary)

    def finish(self, dataset: Dataset) -> None:
        """Make the folder whole, with the store of `dataset` in it, and give it its name."""
        for name in _SMALL:
            np.save(self._temporary / f"{name}.npy", getattr(dataset.store, name), allow_pickle=False)
        write_index(self._temporary, dataset)
        try:
            os.replace(self._temporary, self._folder)
        except OSError as error:
            if not (self._folder / INDEX).exists():  # else another process was faster
                raise StorageError(f"{self._folder} could not be written: {error.strerror}") from error

    def __enter__(self) -> LargeToDisk:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._temporary, ignore_errors=True)


def read_packed(folder: str | os.PathLike[str], memory_map: bool = False) -> Dataset:
    """Open a folder that `write_packed` wrote.

    Args:
        folder: where it lies.
        memory_map: leave the large arrays on the disk, where processes share the pages that they read.

    Raises:
        DatasetError: the folder is incomplete or of a later version.
    """
    with at_the_door(folder):
        return _read(Path(folder), memory_map)


def _read(folder: Path, memory_map: bool) -> Dataset:
    index = _index(folder)
    fields = index["source"]
    reference = fields["reference_returns"]
    fields |= {"reference_returns": None if reference is None else tuple(reference), "notes": tuple(fields["notes"])}
    store = open_store(folder, memory_map)
    _check(store)
    observation_space, action_space = (space_from_json(index[name]) for name in ("observation_space", "action_space"))
    dataset = Dataset(store, observation_space, action_space, replace(Source(**fields), path=str(folder)))
    for space, values in ((observation_space, store.observations), (action_space, store.actions)):
        if not fits(space, values):
            raise DatasetError("path", f"must hold arrays of its own spaces, {space}", str(folder), "it is damaged")
    return dataset


def _check(store: Store) -> None:
    """Every array is of the kind that a store has."""
    kinds: dict[str, Any] = {"offsets": np.int64, "rewards": np.float32}
    kinds |= dict.fromkeys(("terminated", "truncated", "final_known"), np.bool_)
    for name, array in store.arrays():
        is_flat = name in kinds
        kind = np.dtype(kinds[name]) if is_flat else storage_dtype(array.dtype, name)
        if array.dtype != kind or (array.ndim != 1 if is_flat else array.ndim < 1):
            raise DatasetError(
                name, f"must hold {kind}", bare(f"{array.dtype} of shape {array.shape}"), "it is damaged"
            )


def open_store(folder: Path, memory_map: bool = True) -> Store:
    """The arrays of a folder; this is also how a memory-mapped store comes out of a pickle."""
    keys = _index(folder)["keys"]

    def load(name: str, mapped: bool = memory_map) -> Any:
        # Copy on write: nobody's writing reaches the file or another process. Mode "r" would say the
        # same more plainly, but `torch.as_tensor`, which shares these pages, warns of arrays that are not writable.
        try:
            path = file_within(folder, folder / f"{_file_name(name)}.npy")
            # A map is never larger than its file, whatever the file declares.
            array = np.load(path, mmap_mode="c", allow_pickle=False)
            return array if mapped else np.array(array)
        except (OSError, ValueError) as error:
            raise DatasetError("path", f"must be a whole folder of arrays ({error})", str(folder)) from error

    return Store(
        observations={key: load(f"observations[{key}]") for key in keys} if keys is not None else load("observations"),
        actions=load("actions"),
        rewards=load("rewards"),
        **{name: load(name, mapped=False) for name in _SMALL},
        folder=folder.resolve() if memory_map else None,
        reopen=open_store if memory_map else None,
    )


def _index(folder: Path) -> dict[str, Any]:
    try:
        if not (folder / INDEX).exists():
            raise DatasetError("path", f"must hold {INDEX}; it is gone or was moved", str(folder))
        index: Any = json.loads(file_within(folder, folder / INDEX).read_text(encoding="utf-8"))
    except DatasetError:
        raise
    except (ValueError, RecursionError) as error:
        raise DatasetError("path", f"must hold a readable {INDEX} ({error})", str(folder)) from error
    if not isinstance(index, dict):
        raise DatasetError("path", f"must hold an object in {INDEX}", bare(type(index).__name__))
    if index.get("version") != _VERSION:
        raise DatasetError("path", f"must be of version {_VERSION}", index.get("version"), "update offline-eval")
    found: dict[str, Any] = index
    return found
