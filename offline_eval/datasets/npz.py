"""NumPy archives (.npz): OGBench's layout and RLDS's, and flat rows under the names that people give them.

The members are looked at before they are read: a header that declares more than the member holds, or a member that
unpacks to far more than it is packed in, is refused, and what no reader takes is never read.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import Space

from offline_eval.datasets.arrays import from_rows
from offline_eval.datasets.columns import rows_of
from offline_eval.datasets.confined import check_size, file_within
from offline_eval.datasets.ogbench import has_final_rows, read_final_rows
from offline_eval.datasets.records import Source
from offline_eval.datasets.rows import Rows
from offline_eval.datasets.store import Place, in_memory
from offline_eval.datasets.trajectories import Dataset
from offline_eval.errors import DatasetError, InputError, bare
from offline_eval.types import Array

_MOST_HEADER = 10_000


def read_npz(
    path: str | os.PathLike[str],
    observation_space: Space[Any] | None = None,
    action_space: Space[Any] | None = None,
    max_episode_steps: int | None = None,
    place: Place = in_memory,
    transitions: bool = False,
) -> Dataset:
    """Read a .npz file; NaN passes (see `Dataset.check_finite`).

    Args:
        path: the file.
        observation_space: the data must fit it.
        action_space: inferred where left out.
        max_episode_steps: cuts episodes of flat rows without timeouts and next observations.
        place: where the large arrays go.
        transitions: every row is a transition of its own.

    Raises:
        DatasetError: the file is damaged, holds pickled objects, or lacks an array.
    """
    with npz_arrays(path) as arrays:
        if has_final_rows(arrays):
            if transitions:
                raise InputError("transitions", "is for rows with next_observations", True, "leave it out here")
            return read_final_rows(arrays, observation_space, action_space, Path(path), place)
        rows, notes = rows_of(arrays)
        source = Source("npz", str(path), Path(path).stem, max_episode_steps, notes=notes)
        return from_rows(rows, observation_space, action_space, source, place, transitions)


@contextmanager
def open_npz_rows(path: str | os.PathLike[str]) -> Iterator[tuple[Rows, Source] | None]:
    """The flat rows of an archive and where they come from; None where it is of a layout with final rows."""
    with npz_arrays(path) as arrays:
        if has_final_rows(arrays):
            yield None
        else:
            rows, notes = rows_of(arrays)
            yield rows, Source("npz", str(path), Path(path).stem, notes=notes)


@contextmanager
def npz_arrays(path: str | os.PathLike[str]) -> Iterator[dict[str, Member]]:
    """The arrays of an archive by name, unread, without unpickling anything.

    Raises:
        DatasetError: it is damaged, or an array is made of objects or declares more than it holds.
    """
    path = Path(path)
    file_within(path.resolve().parent, path)
    try:
        with zipfile.ZipFile(path) as archive:
            size = path.stat().st_size
            infos = [info for info in archive.infolist() if info.filename.endswith(".npy") and "/" not in info.filename]
            yield {info.filename.removesuffix(".npy"): Member(archive, info, size) for info in infos}
    except DatasetError:
        raise
    except Exception as error:  # a damaged archive fails in as many ways as there are archives
        way_out = "it is damaged, or holds pickled objects, which are not opened because that runs code"
        raise DatasetError("path", f"must be a whole NumPy archive ({error})", str(path), way_out) from error


class Member:
    """An array in an archive, whose shape and dtype are known; it is read when it is first indexed.

    Args:
        archive: that it lies in.
        info: where.
        archive_size: bytes of the whole file.

    Raises:
        DatasetError: it holds objects, or declares more than it holds.
    """

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, archive_size: int) -> None:
        self._archive, self._info = archive, info
        self._values: Array | None = None
        name = info.filename.removesuffix(".npy")
        with archive.open(info) as file:
            major, _ = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
            self.shape, _, self.dtype = read(file, max_header_size=_MOST_HEADER)
            content = info.file_size - file.tell()
        if self.dtype.hasobject:
            way_out = "pickled objects are not opened because that runs code: store numbers"
            raise DatasetError(name, "must hold numbers", bare(f"dtype {self.dtype}"), way_out)
        declared = math.prod(self.shape) * self.dtype.itemsize
        if any(length < 0 for length in self.shape) or declared > content:
            received = bare(f"{declared:,} bytes declared, {max(0, content):,} in the archive")
            way_out = "the archive is damaged: copy or download it again"
            raise DatasetError(name, "must hold the rows that it declares", received, way_out)
        is_packed = info.compress_type != zipfile.ZIP_STORED
        check_size(name, info.file_size, min(info.compress_size, archive_size), is_packed)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        return self.read()[index]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.read(), dtype, copy=copy)

    def read(self) -> Array:
        """The array."""
        if self._values is None:
            with self._archive.open(self._info) as file:
                self._values = np.lib.format.read_array(file, allow_pickle=False, max_header_size=_MOST_HEADER)
        return self._values
