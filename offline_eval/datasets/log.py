"""A log of episodes: a folder that many processes write shards into, and that opens clean whatever killed them.

::

    <folder>/data/shards/*.hdf5     the episodes (`offline_eval.datasets.shards`)
    <folder>/data/main_data.hdf5    the index, as links: Minari's main file
    <folder>/data/metadata.json     environment, spaces and counts, as Minari reads them

Minari opens it as `MinariDataset("<folder>/data")`, or by name where `<folder>` lies under its root. `kill -9` loses
the episodes that had not been handed over; what else it leaves is an index behind its shards, which `open_log` mends.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, overload

from gymnasium import Space, spaces
from gymnasium.envs.registration import EnvSpec

from offline_eval.datasets.confined import at_the_log
from offline_eval.datasets.index import METADATA_FILE, SHARD_FOLDER, Index, locked, read_metadata, write_metadata
from offline_eval.datasets.recorder import LoggedEpisode
from offline_eval.datasets.shards import SUFFIX, Entry, encode_shard, read_episode
from offline_eval.datasets.space_json import space_from_json, space_to_json
from offline_eval.errors import InputError, SpaceError, StorageError
from offline_eval.files import write_durably

_FORMAT = 1
_MINARI_FORMAT = "0.5.0"  # the earliest version of Minari that reads this layout as it is
_MINARI_NAME = re.compile(r"[-\w]+-v\d+")
_INDEX_SHARE = 20  # the index takes at most a twentieth of the time


class ShardWriter:
    """Writes finished episodes into a log, one immutable shard a call.

    Any number of writers, in any number of processes, may write into one folder, and a later run adds to it.

    Args:
        folder: of the log; made where it is not there.
        env_id: the environment's id.
        observation_space: of one environment: a Box, Discrete, MultiDiscrete or MultiBinary, or a Dict of those.
        action_space: of one environment, not a Dict.
        env_spec: lets Minari make the environment again, without further wrappers.
        index_interval: least number of seconds between two updates of the index while writing; it is also brought up
            to date by `close`, and nothing is lost without it.

    Raises:
        SpaceError: a space of another kind.
        StorageError: the folder cannot be written, or holds the log of another environment.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        env_id: str | None,
        observation_space: Space[Any],
        action_space: Space[Any],
        env_spec: EnvSpec | None = None,
        index_interval: float = 5.0,
    ) -> None:
        _check_space("observation_space", observation_space)
        _check_space("action_space", action_space)
        self.folder = Path(folder)
        self._data = self.folder / "data"
        self._name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}{time.time_ns() // 1000 % 10**6:06d}"
        self._token, self._count = secrets.token_hex(3), 0
        self._index_interval = self._pause = index_interval
        try:
            self._prepare(env_id, observation_space, action_space, env_spec)
        except StorageError:
            raise
        except OSError as error:
            raise StorageError(
                f"`{self.folder}` cannot take a log: {error.strerror or error}. Nothing was written: "
                "give another folder, or make this one writable"
            ) from error
        self._index = Index(self._data)
        self._indexed_at = time.monotonic()

    def write(self, episodes: Sequence[LoggedEpisode]) -> None:
        """Add finished episodes; when this returns they survive whatever happens.

        Raises:
            InputError: two of the episodes have the same key.
            StorageError: the disk is full, or no longer writable. None of these episodes is kept, all earlier ones are.
        """
        if not episodes:
            return
        keys = [episode.key for episode in episodes if episode.key is not None]
        if len(set(keys)) != len(keys):
            raise InputError("episodes", "must have different keys", keys)
        # The process id is asked for every time: a fork has the same writer.
        name = f"{self._name}-{os.getpid()}-{self._token}-{self._count:06d}{SUFFIX}"
        path = self._data / SHARD_FOLDER / name
        image, entries = encode_shard(name, episodes)
        try:
            write_durably(path, image)
        except OSError as error:
            raise StorageError(
                f"`{self.folder}` cannot take {_episodes(len(episodes))} more: {error.strerror or error}. "
                f"What it holds stays ({self._kept()}): free some space or make it writable, then resume"
            ) from error
        self._count += 1
        self._index.add(entries)
        if time.monotonic() - self._indexed_at >= self._pause:
            self._update_index()

    def close(self) -> None:
        """Bring the index up to date.

        Raises:
            StorageError: it cannot be written; the episodes are safe, and `open_log` finds them without it.
        """
        try:
            self._index.save()
        except StorageError:
            raise
        except OSError as error:
            raise StorageError(
                f"the index of `{self.folder}` cannot be written: {error.strerror or error}. What it holds stays "
                f"({self._kept()}), but Minari does not see all of it: free some space and call `open_log` once"
            ) from error

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            with suppress(OSError):  # the error under way says more
                self.close()

    def _prepare(
        self, env_id: str | None, observation_space: Space[Any], action_space: Space[Any], env_spec: EnvSpec | None
    ) -> None:
        (self._data / SHARD_FOLDER).mkdir(parents=True, exist_ok=True)
        asked = {
            "env_id": env_id,
            "observation_space": space_to_json(observation_space),
            "action_space": space_to_json(action_space),
        }
        if not os.access(self._data / SHARD_FOLDER, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        with locked(self._data):
            if not (self._data / METADATA_FILE).exists():
                write_metadata(self._data, _new_metadata(self.folder, asked, env_spec))
        found = _metadata(self.folder)
        for name, value in asked.items():
            if found.get(name) != value:
                raise StorageError(
                    f"`{self.folder}` holds a log of {name} {found.get(name)}, not {value}: give another folder"
                )

    def _update_index(self) -> None:
        started = time.monotonic()
        with suppress(OSError):  # an index behind its shards is no loss; `close` says so
            self._index.save(wait=False)
        self._indexed_at = time.monotonic()
        self._pause = max(self._index_interval, _INDEX_SHARE * (self._indexed_at - started))

    def _kept(self) -> str:
        try:
            return _episodes(len(self._index.scan()))
        except StorageError:
            return "all earlier finished episodes"


class Log(Sequence[LoggedEpisode]):
    """The finished episodes of a log, in the order of their keys; each is read when it is asked for.

    Attributes:
        folder: of the log.
        env_id: the environment's id.
        observation_space: of one environment.
        action_space: of one environment.
        entries: where each episode lies, with its key, seed and number of steps.
    """

    def __init__(self, folder: Path, metadata: dict[str, Any], entries: list[Entry]) -> None:
        self.folder, self.entries = folder, tuple(entries)
        self.env_id: str | None = metadata["env_id"]
        self.observation_space = space_from_json(metadata["observation_space"])
        self.action_space = space_from_json(metadata["action_space"])

    @property
    def keys(self) -> tuple[int | None, ...]:
        """The plan entries' indices; None for an episode without one."""
        return tuple(entry.key for entry in self.entries)

    @property
    def total_steps(self) -> int:
        """Steps of all episodes together."""
        return sum(entry.steps for entry in self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, position: int) -> LoggedEpisode: ...

    @overload
    def __getitem__(self, position: slice) -> list[LoggedEpisode]: ...

    def __getitem__(self, position: int | slice) -> LoggedEpisode | list[LoggedEpisode]:
        if isinstance(position, slice):
            return [self._read(entry) for entry in self.entries[position]]
        return self._read(self.entries[position])

    def _read(self, entry: Entry) -> LoggedEpisode:
        return read_episode(self.folder / "data" / SHARD_FOLDER / entry.shard, entry.group)


def open_log(folder: str | os.PathLike[str]) -> Log:
    """Open a log, also one whose writer was killed or still writes.

    The index is brought up to date where it is behind the shards, which only matters to Minari; on a read-only medium
    nothing is written. Files that a killed writer did not finish (`*.tmp`) are ignored.

    Raises:
        StorageError: there is no log, or a shard is damaged.
    """
    folder = Path(folder)
    with at_the_log(folder):
        metadata = _metadata(folder)
        index = Index(folder / "data")
        try:
            entries = index.save(wait=False)
        except StorageError:
            raise
        except OSError:
            entries = index.scan()
        return Log(folder, metadata, entries)


def _metadata(folder: Path) -> dict[str, Any]:
    try:
        metadata = read_metadata(folder / "data")
        return {**metadata, **metadata["offline_eval"]}
    except FileNotFoundError as error:
        raise StorageError(f"`{folder}` holds no log: there is no data/{METADATA_FILE} in it") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"`{folder}` holds no log that can be read ({error!r}): give another folder") from error


def _new_metadata(folder: Path, asked: dict[str, Any], env_spec: EnvSpec | None) -> dict[str, Any]:
    name = re.sub(r"[^-\w]", "-", folder.resolve().name) or "log"
    metadata = {
        "dataset_id": name if _MINARI_NAME.fullmatch(name) else f"{name}-v0",
        "data_format": "hdf5",
        "minari_version": _MINARI_FORMAT,
        "jpeg_encoding": False,
        "total_episodes": 0,
        "total_steps": 0,
        "observation_space": asked["observation_space"],
        "action_space": asked["action_space"],
        "offline_eval": {"format": _FORMAT, "env_id": asked["env_id"]},
    }
    if env_spec is not None:
        with suppress(TypeError, ValueError, AssertionError):  # it holds what JSON cannot
            metadata["env_spec"] = replace(env_spec, additional_wrappers=()).to_json()
    return metadata


def _check_space(name: str, space: Space[Any]) -> None:
    parts = dict(space.items()) if isinstance(space, spaces.Dict) and name == "observation_space" else {"": space}
    for key, part in parts.items():
        if not isinstance(part, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary) or "/" in key:
            dicts = ", or a Dict of those with names without /" if name == "observation_space" else ""
            raise SpaceError(
                name, f"must be a Box, Discrete, MultiDiscrete or MultiBinary{dicts}", space, "flatten it first"
            )


def _episodes(number: int) -> str:
    return f"{number} finished episode{'' if number == 1 else 's'}"
