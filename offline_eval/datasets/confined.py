"""What a stranger's data set may make a reader open, and how much room it may take: checked before either happens.

A file is read where it is a regular file that lies, symbolic links resolved, in the data set's own folder; otherwise a
data set could copy other files of its reader into what is written next, or wait on a pipe for ever. An array that is
packed may unpack to `UNPACKED_FREELY` bytes however well it is packed, to a hundred times its packed size above that,
and never to more than gzip can reach; one that declares rows which were never stored may declare `UNSTORED` bytes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from offline_eval.datasets.store import Allocate, Place
from offline_eval.errors import DatasetError, OfflineEvalError, StorageError, bare

UNSTORED = 1 << 20
UNPACKED_FREELY = 1 << 28
_USUAL_RATIO, _BEST_RATIO, _WIDENED = 100, 1032, 16


def file_within(folder: Path, path: Path, what: str = "path") -> Path:
    """The real path of a regular file in a folder.

    Args:
        folder: the data set's; as it is reached, links in its own path do not matter.
        path: of the file.
        what: led here, for the message.

    Raises:
        DatasetError: there is no such file, it lies elsewhere, or it is a pipe or a device.
    """
    real, home = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    if not real.is_relative_to(home):
        way_out = f"it leads out of {home}, and could copy other files of yours; put the file itself there if it is one"
        raise DatasetError(what, "must stay in the data set's folder", str(path), way_out)
    try:
        mode = real.stat().st_mode
    except OSError:
        raise DatasetError(what, "must exist", str(path)) from None
    if not stat.S_ISREG(mode):
        raise DatasetError(what, "must be a regular file, no folder, pipe or device", str(path))
    return real


def check_size(name: str, declared: int, stored: int, is_packed: bool) -> None:
    """Refuse an array that declares more bytes than what is stored can give.

    Raises:
        DatasetError: it does; nothing has been allocated yet.
    """
    if declared <= max(UNSTORED, stored):
        return
    received = bare(f"{declared:,} bytes declared, {stored:,} stored")
    if not is_packed or declared > _BEST_RATIO * stored:
        way_out = "the file is damaged, or most of the array was never written"
        raise DatasetError(name, "must hold the rows that it declares", received, way_out)
    if declared > max(UNPACKED_FREELY, _USUAL_RATIO * stored):
        rule = f"must unpack to at most {UNPACKED_FREELY:,} bytes, or {_USUAL_RATIO} times its packed size"
        raise DatasetError(name, rule, received, "if you trust the file, write it again without compression")


def bounded(place: Place, path: Path) -> Place:
    """A place that refuses what is far larger than the file, or the files of the folder, that it is read from."""
    files = path.rglob("*") if path.is_dir() else [path]
    stored = sum(file.stat().st_size for file in files if file.is_file())

    def decide(num_bytes: int) -> Allocate:
        # An array of bool becomes one of int64, and a trajectory has a row more.
        check_size("dataset", num_bytes // _WIDENED, stored, is_packed=True)
        return place(num_bytes)

    return decide


@contextmanager
def at_the_door(path: str | os.PathLike[str]) -> Iterator[None]:
    """Whatever goes wrong while a stranger's data set is read becomes a DatasetError; our own errors pass.

    Raises:
        DatasetError: the data set is damaged.
    """
    try:
        yield
    except OfflineEvalError:
        raise
    except Exception as error:  # a foreign file fails in as many ways as there are files
        said = str(error).partition("\n")[0]
        rule = f"must be a whole, readable data set ({type(error).__name__}{': ' if said else ''}{said})"
        way_out = "it is damaged, was cut short, or is of another layout: copy or download it again"
        raise DatasetError("path", rule, os.fspath(path), way_out) from error


@contextmanager
def at_the_log(folder: str | os.PathLike[str]) -> Iterator[None]:
    """The same for a log of ours.

    Raises:
        StorageError: the log is damaged.
    """
    try:
        yield
    except OfflineEvalError:
        raise
    except Exception as error:
        raise StorageError(f"`{os.fspath(folder)}` holds no log that can be read ({error!r})") from error
