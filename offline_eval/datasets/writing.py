"""Files and folders that appear whole or not at all: written beside their place, flushed, and renamed into it."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from offline_eval.errors import InputError, OfflineEvalError, StorageError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write a file to; it takes the place of `path` when the block ends well, and goes otherwise.

    Raises:
        StorageError: the disk is full, or the folder is not there or read-only; what lay at `path` is untouched.
    """
    path = Path(path)
    with _beside(path) as temporary:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)


@contextmanager
def new_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder to write into; it appears at `path` when the block ends well.

    Raises:
        InputError: something is there already.
        StorageError: as `replacing`.
    """
    path = Path(path)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise InputError("path", "must not exist yet", str(path), "name another folder, or remove this one first")
    with _beside(path) as temporary:
        temporary.mkdir(parents=True)
        yield temporary
        if path.is_dir():
            path.rmdir()
        os.replace(temporary, path)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    # Nobody can guess it: where others may write, a link could lie in wait under a name that is known.
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
    except OfflineEvalError:
        raise
    except OSError as error:
        raise StorageError(f"{path} could not be written: {error.strerror or error}") from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
