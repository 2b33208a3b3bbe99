"""Files and folders that other processes, and other people, may write to as well: whole files, and locks.

A file under a name that others can guess is opened with care: what lies there may be a FIFO, on which a plain `open`
waits for ever, or a symbolic link to a file of somebody's. Locks go with their process, however that ends.
"""

from __future__ import annotations

import os
import secrets
import stat
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from offline_eval.errors import StorageError

_PAUSE = 0.1  # seconds between two tries, where the system cannot wait by itself
_BINARY = getattr(os, "O_BINARY", 0)  # Windows would translate line ends
_CAREFUL = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)

_held: dict[tuple[int, int], weakref.ref[FolderLock]] = {}
"""The folders that this process holds, by device and inode."""


def open_regular(path: str | os.PathLike[str], flags: int = os.O_RDWR) -> int:
    """The descriptor of a regular file of one's own; it never waits, and follows no link.

    Raises:
        OSError: it cannot be opened, is no regular file, or belongs to somebody else.
    """
    descriptor = os.open(path, flags | _CAREFUL, 0o600)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or (hasattr(os, "getuid") and found.st_uid != os.getuid()):
        os.close(descriptor)
        raise OSError(f"{os.fspath(path)} is not a regular file of this user")
    return descriptor


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, and wait for it as long as another process or thread has it.

    Args:
        path: of the file; made where it is not there, and left behind empty.

    Raises:
        OSError: as `open_regular`.
    """
    with os.fdopen(open_regular(path, os.O_RDWR | os.O_CREAT), "r+b") as file:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            while True:
                try:
                    msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
                    break
                except OSError:  # another has it
                    time.sleep(_PAUSE)
            try:
                yield
            finally:
                file.seek(0)
                msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
            yield  # closing the file gives the lock back


def _nothing() -> None:
    """There is nothing to close."""


class FolderLock:
    """A folder that belongs to this process until `release`, or until nobody needs this object any more.

    The process may take it again. Where the system cannot lock folders (Windows, some network drives) nothing is held.

    Args:
        folder: an existing one.

    Raises:
        StorageError: another process holds it.
    """

    def __init__(self, folder: Path) -> None:
        self._close: Callable[[], object] = _nothing
        try:
            import fcntl

            descriptor = os.open(folder, os.O_RDONLY | _CAREFUL)
        except (ImportError, OSError):
            return
        found = os.fstat(descriptor)
        place = found.st_dev, found.st_ino
        try:
            if place in _held and (before := _held[place]()) is not None:
                before.release()
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            way_out = "wait for it, or give another folder"
            raise StorageError(f"{folder} is being written by another process: {way_out}") from None
        except OSError:  # a file system without locks
            os.close(descriptor)
            return
        self._close = weakref.finalize(self, os.close, descriptor)
        _held[place] = weakref.ref(self)

    def release(self) -> None:
        """Let others have the folder."""
        self._close()


def write_durably(path: Path, content: bytes) -> None:
    """Let a file with this content appear at `path` at once and for good: write, flush to the disk, rename.

    Raises:
        OSError: the disk is full or read-only; what lay at `path` is untouched and nothing is left beside it.
    """
    # Nobody can guess it: where others may write, a link could lie in wait under a name that is known.
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _flush_folder(folder: Path) -> None:
    if os.name == "nt":  # a folder cannot be opened there; its renames are flushed by themselves
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
