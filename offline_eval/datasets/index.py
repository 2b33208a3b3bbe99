"""The index of a log: which episode lies in which shard, and the two files that make the folder a Minari data set.

`main_data.hdf5` links `episode_0`, `episode_1`, ... to the groups in the shards and carries the list of entries as
JSON; `metadata.json` describes the log. Both follow from the shards: what a killed run leaves behind is completed by
the next one that looks.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py

from offline_eval.datasets.confined import file_within
from offline_eval.datasets.shards import SUFFIX, Entry, checked_entry, read_entries
from offline_eval.errors import StorageError
from offline_eval.files import write_durably

MAIN_FILE, METADATA_FILE, SHARD_FOLDER = "main_data.hdf5", "metadata.json", "shards"

_LOCK_FILE = "index.lock"


class Index:
    """The entries of the log in a `data` folder.

    Entries come in the order of their keys, then those without a key in the order of their shards. Where two shards
    hold the same key, because two processes played the same plan entry, the one whose writer began first counts.
    """

    def __init__(self, data: Path) -> None:
        self._data = data
        self._shards: dict[str, list[Entry]] = {}
        self._linked: list[Entry] | None = None
        # Absent, or not ours: it is made anew.
        with suppress(Exception), h5py.File(data / MAIN_FILE, "r") as file:
            self._linked = [checked_entry(*row) for row in json.loads(file.attrs["entries"])]
        for entry in self._linked or ():
            self._shards.setdefault(entry.shard, []).append(entry)

    def add(self, entries: list[Entry]) -> None:
        """Take in a shard that this process wrote."""
        if entries:
            self._shards[entries[0].shard] = entries

    def scan(self) -> list[Entry]:
        """All entries of all complete shards in the folder.

        Raises:
            StorageError: a shard is damaged, or the folder cannot be read.
        """
        try:
            with os.scandir(self._data / SHARD_FOLDER) as files:
                present = sorted(file.name for file in files if file.name.endswith(SUFFIX))
        except FileNotFoundError:
            present = []
        except OSError as error:
            raise StorageError(f"`{self._data}` cannot be read: {error.strerror}") from error
        known, self._shards = self._shards, {}
        for name in present:
            self._shards[name] = known[name] if name in known else read_entries(self._data / SHARD_FOLDER / name)
        return self._ordered()

    def _ordered(self) -> list[Entry]:
        first: dict[int, Entry] = {}
        unkeyed: list[Entry] = []
        for entries in self._shards.values():
            for entry in entries:
                if entry.key is None:
                    unkeyed.append(entry)
                else:
                    first.setdefault(entry.key, entry)
        return [first[key] for key in sorted(first)] + unkeyed

    def save(self, wait: bool = True) -> list[Entry]:
        """Bring the two files up to date with the shards, and return the entries.

        Args:
            wait: for another process that is at it; without, leave it to that one.

        Raises:
            OSError: the folder cannot be written.
            StorageError: as `scan`.
        """
        with locked(self._data, wait) as is_mine:
            entries = self.scan()
            if is_mine:
                self._save(entries)
        return entries

    def _save(self, entries: list[Entry]) -> None:
        if entries != self._linked:
            write_durably(self._data / MAIN_FILE, _encode(entries))
            self._linked = entries
        # After the links: Minari counts on no episode then that is not linked yet.
        metadata = read_metadata(self._data)
        counts = {"total_episodes": len(entries), "total_steps": sum(entry.steps for entry in entries)}
        if not counts.items() <= metadata.items():
            write_metadata(self._data, metadata | counts)


def read_metadata(data: Path) -> dict[str, Any]:
    """The description of a log.

    Raises:
        FileNotFoundError: there is none.
    """
    if not (data / METADATA_FILE).exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(data / METADATA_FILE))
    metadata = json.loads(file_within(data, data / METADATA_FILE).read_text(encoding="utf-8"))
    if not isinstance(metadata, dict):
        raise ValueError(f"{METADATA_FILE} holds no object")
    return metadata


def write_metadata(data: Path, metadata: dict[str, Any]) -> None:
    """Replace the description of a log."""
    write_durably(data / METADATA_FILE, (json.dumps(metadata, indent=1) + "\n").encode())


def _encode(entries: list[Entry]) -> bytes:
    with h5py.File("index", "w", driver="core", backing_store=False, block_size=1 << 16, libver="v110") as file:
        for number, entry in enumerate(entries):
            file[f"episode_{number}"] = h5py.ExternalLink(f"{SHARD_FOLDER}/{entry.shard}", f"/{entry.group}")
        file.attrs["entries"] = json.dumps(entries)
        file.flush()
        image: bytes = file.id.get_file_image()
    return image


@contextmanager
def locked(data: Path, wait: bool = True) -> Iterator[bool]:
    """Whether this process may write the index and the metadata; the lock goes with the process, however that ends."""
    try:
        import fcntl
    except ImportError:  # no such locks here: each file is still replaced as a whole
        yield True
        return
    with (data / _LOCK_FILE).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
