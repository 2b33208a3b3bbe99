"""HDF5 files opened and written with errors that say what to do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import h5py

from offline_eval.datasets.writing import replacing
from offline_eval.errors import DatasetError, OfflineEvalError, StorageError


@contextmanager
def reading_hdf5(path: str | os.PathLike[str]) -> Iterator[h5py.File]:
    """An HDF5 file open for reading; whatever HDF5 objects to, now or later, becomes a DatasetError."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except OfflineEvalError:
        raise
    except FileNotFoundError:
        raise DatasetError("path", "must exist", str(path)) from None
    except (OSError, RuntimeError) as error:
        way_out = "it is damaged or was cut short: copy or download it again"
        raise DatasetError("path", f"must be a whole, readable HDF5 file ({error})", str(path), way_out) from error


@contextmanager
def writing_hdf5(path: str | os.PathLike[str]) -> Iterator[h5py.File]:
    """A new HDF5 file that appears at `path` when the block ends well; see `replacing`."""
    with replacing(path) as temporary:
        try:
            with h5py.File(temporary, "w", track_order=True) as file:
                yield file
        except RuntimeError as error:  # how HDF5 reports a disk that fills up while it closes
            raise StorageError(f"{path} could not be written: {error}") from error
