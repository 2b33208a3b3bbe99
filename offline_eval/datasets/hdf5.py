"""HDF5 files opened and written with errors that say what to do.

HDF5 follows links into other files, and takes arrays from raw files and from other HDF5 files, by itself. All of that
stays in the data set's folder here (`offline_eval.datasets.confined`): links are checked when a file is opened, where
an array comes from when `array_of` hands it out.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5l, h5s

from offline_eval.datasets.confined import check_size, file_within
from offline_eval.datasets.writing import replacing
from offline_eval.errors import DatasetError, OfflineEvalError, StorageError, bare
from offline_eval.types import Array

_DAMAGED = "it is damaged or was cut short: copy or download it again"


@contextmanager
def reading_hdf5(path: str | os.PathLike[str], folder: Path | None = None) -> Iterator[h5py.File]:
    """An HDF5 file open for reading; whatever HDF5 objects to, now or later, becomes a DatasetError.

    Args:
        path: the file.
        folder: that the file, and all that its links lead to, must lie in; the file's own if left out.

    Raises:
        DatasetError: it does not exist, is damaged, or leads out of the folder.
    """
    path = Path(path)
    real = file_within(path.resolve().parent if folder is None else folder, path)
    try:
        with h5py.File(path, "r") as file:
            _check_links(file, real.parent if folder is None else folder, (real,), set())
            yield file
    except OfflineEvalError:
        raise
    except (OSError, RuntimeError) as error:
        raise DatasetError("path", f"must be a whole, readable HDF5 file ({error})", str(path), _DAMAGED) from error


def _check_links(file: h5py.File, folder: Path, chain: tuple[Path, ...], seen: set[Path]) -> None:
    """Every link of a file, and of the files that it links to, stays in the folder and never leads back."""
    found: list[tuple[str, str]] = []

    def look(name: bytes, about: Any) -> None:
        if about.type == h5l.TYPE_EXTERNAL:
            target, _ = file.id.links.get_val(name)
            found.append((name.decode(errors="replace"), os.fsdecode(target)))
        elif about.type not in (h5l.TYPE_HARD, h5l.TYPE_SOFT):
            found.append((name.decode(errors="replace"), ""))

    file.id.links.visit(look, info=True)
    for name, target in found:
        real = file_within(folder, chain[-1].parent / target, f"link {name}")
        if real in chain:
            raise DatasetError(f"link {name}", "must lead to another file, and not back to its own", target)
        if real not in seen:
            seen.add(real)
            with h5py.File(real, "r") as other:
                _check_links(other, folder, (*chain, real), seen)


def array_of(group: Any, name: str, folder: Path | None = None) -> h5py.Dataset | None:
    """An array of a group by its name, once its size and what it is stored in have been checked; None if there is none.

    Args:
        group: or file.
        name: of the array.
        folder: that everything must lie in; the file's own if left out.

    Raises:
        DatasetError: it declares more than it stores, or takes its numbers from somewhere else.
    """
    node = group.get(name)
    if not isinstance(node, h5py.Dataset):
        return None
    check_array(node.id, name, Path(group.file.filename).resolve().parent if folder is None else folder)
    return node


def check_array(array: Any, name: str, folder: Path) -> None:
    """What `array_of` checks, of an array opened with h5py's low-level interface."""
    plan = array.get_create_plist()
    declared = math.prod(array.shape or ()) * array.dtype.itemsize
    sources = _sources(array, plan, name, folder)
    # More than the file itself cannot be stored in it, whatever it says.
    stored = sources if sources is not None else min(array.get_storage_size(), _size_of(array))
    is_packed = plan.get_nfilters() > 0
    if plan.get_layout() == h5d.CHUNKED:
        declared = max(declared, math.prod(plan.get_chunk()) * array.dtype.itemsize)
    check_size(name, declared, stored, is_packed)


def _size_of(array: Any) -> int:
    return os.stat(h5py.h5i.get_file_id(array).name).st_size


def _sources(array: Any, plan: Any, name: str, folder: Path) -> int | None:
    """Bytes in the raw files or the other arrays that an array is made of; None where it holds its own."""
    above = Path(os.fsdecode(h5py.h5i.get_file_id(array).name)).resolve()
    if plan.get_layout() == h5d.VIRTUAL:
        return sum(
            _virtual_source(plan.get_virtual_filename(i), plan.get_virtual_dsetname(i), name, above, folder)
            for i in range(plan.get_virtual_count())
        )
    count = plan.get_external_count()
    if not count:
        return None
    # HDF5 looks for these where the process stands, and not beside the file.
    names = [os.fsdecode(plan.get_external(i)[0]) for i in range(count)]
    return sum(file_within(folder, Path.cwd() / raw, f"{name} (external storage)").stat().st_size for raw in names)


def _virtual_source(file_name: str, array_name: str, name: str, above: Path, folder: Path) -> int:
    what = f"{name} (virtual data set)"
    if "%" in file_name or "%" in array_name:
        raise DatasetError(what, "must name its sources one by one", file_name)
    real = above if file_name == "." else file_within(folder, above.parent / file_name, what)
    with h5py.File(real, "r") as other:
        source = other.get(array_name)
        if not isinstance(source, h5py.Dataset):
            raise DatasetError(what, "must be made of arrays that exist", f"{file_name}:{array_name}")
        plan = source.id.get_create_plist()
        if plan.get_layout() == h5d.VIRTUAL or plan.get_external_count():
            received = bare(f"{file_name}:{array_name}, which takes them from somewhere else itself")
            raise DatasetError(what, "must be made of arrays that hold their own numbers", received)
        if real != above:
            _check_links(other, folder, (above, real), set())
        check_array(source.id, array_name, folder)
        return (
            int(source.id.get_storage_size())
            if not plan.get_nfilters()
            else math.prod(source.shape) * source.dtype.itemsize
        )


def read_array(group: Any, name: str) -> Array:
    """An array of numbers of a group, read whole.

    Raises:
        DatasetError: there is none, or it is a group, JPEG frames or text.
    """
    # h5py's low-level interface: the high-level one takes three times as long, which short episodes notice.
    try:
        dataset = h5d.open(group.id, name.encode())
    except (TypeError, KeyError):
        rule = f"must have arrays as {name} (no nested Dict or Tuple spaces)"
        raise DatasetError("path", rule, group.file.filename, "flatten them with a wrapper") from None
    if dataset.dtype.kind == "O":
        way_out = "write it with jpeg_encoding=False"
        raise DatasetError("path", f"must have numbers as {name}, no JPEG frames or text", group.file.filename, way_out)
    check_array(dataset, f"{group.name.strip('/')}/{name}", Path(group.file.filename).resolve().parent)
    array = np.empty(dataset.shape, dataset.dtype)
    dataset.read(h5s.ALL, h5s.ALL, array)
    return array


def read_observations(group: Any, name: str) -> Array | dict[str, Array]:
    """Observations of an episode: an array, or a dict of them where there is a group."""
    node = group.get(name)
    return {key: read_array(node, key) for key in node} if isinstance(node, h5py.Group) else read_array(group, name)


def unused(names: Sequence[str], used: Sequence[str]) -> list[str]:
    """Names of a file that no reader takes, sorted."""
    return sorted(set(names) - set(used))


@contextmanager
def writing_hdf5(path: str | os.PathLike[str]) -> Iterator[h5py.File]:
    """A new HDF5 file that appears at `path` when the block ends well; see `replacing`."""
    with replacing(path) as temporary:
        try:
            with h5py.File(temporary, "w", track_order=True) as file:
                yield file
        except RuntimeError as error:  # how HDF5 reports a disk that fills up while it closes
            raise StorageError(f"{path} could not be written: {error}") from error
