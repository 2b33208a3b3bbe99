"""One copy of a data set for several processes: memory-mapped, and gone with them, also where they are killed.

::

    offline-eval-shared-x1y2/
        in-use.lock    held by the process that made the copy; the system frees it however that process ends
        data/          see `offline_eval.datasets.packed`
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from offline_eval.datasets.packed import open_store, write_packed
from offline_eval.datasets.trajectories import Dataset
from offline_eval.files import open_regular

try:
    import fcntl
except ImportError:  # Windows, where a folder in use cannot be told from one that was left behind
    fcntl = None  # type: ignore[assignment]

_PREFIX = "offline-eval-shared-"
_LOCK = "in-use.lock"
_MEMORY = "/dev/shm"


@contextmanager
def shared(dataset: Dataset) -> Iterator[Dataset]:
    """The data set memory-mapped, so that processes it is pickled to share one copy of it.

    The arrays are written once into a folder in shared memory where there is room (Linux), else in the folder for
    temporary files, and go when the block ends. What a killed process left there goes when the next one begins. A data
    set that is memory-mapped already is given back as it is.
    """
    if dataset.store.folder is not None:
        yield dataset
        return
    for place in (_MEMORY, tempfile.gettempdir()):
        remove_abandoned(Path(place))
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_shared_memory(dataset.store.num_bytes)))
    with _held(folder):
        try:
            write_packed(replace(dataset, members=None), folder / "data")
            yield replace(dataset, store=open_store(folder / "data"))
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(place: Path) -> None:
    """Remove the copies in a folder whose owner is dead; those in use, and those of other people, stay."""
    if fcntl is None:
        return
    # Everybody may put something under such a name into a folder for temporary files: a FIFO, or a link to elsewhere.
    for folder in place.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if folder.is_symlink() or folder.lstat().st_uid != os.getuid():
                continue
            with os.fdopen(open_regular(folder / _LOCK), "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    if fcntl is None:
        yield
        return
    named = folder / f"{_LOCK}.tmp"
    with named.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        # It gets its name once it is held: nobody may find it free in between.
        named.rename(folder / _LOCK)
        yield


def _shared_memory(num_bytes: int) -> str | None:
    if not os.path.isdir(_MEMORY) or not os.access(_MEMORY, os.W_OK):
        return None
    return _MEMORY if shutil.disk_usage(_MEMORY).free > 2 * num_bytes else None
