"""One process at a time: a lock on a file, which goes with its process however that ends."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PAUSE = 0.1  # seconds between two tries, where the system cannot wait by itself


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, and wait for it as long as another process or thread has it.

    Args:
        path: of the file; made where it is not there, and left behind empty.
    """
    with path.open("ab") as file:
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
