"""Where finished episodes are kept, so that an interrupted call goes on: nowhere, in a run folder, in a cache."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from offline_eval.episodes.records import Episode
from offline_eval.errors import InputError, bare


class EpisodeStore:
    """Keeps finished episodes by the name of what was played; this one keeps nothing, and subclasses what they can.

    `offline_eval.run_folder.RunFolder` is one on disk. `evaluate` plays a single policy, whose name is empty; a caller
    that plays several gives each `store.of(name)`.
    """

    @property
    def directory(self) -> Path | None:
        """Where further files of the same run are kept, such as rollouts; None where nothing lasts."""
        return None

    def done(self, variant: str) -> Collection[Episode]:
        """The finished episodes of an interrupted call; they are not played again."""
        return ()

    def record(self, variant: str, episode: Episode) -> None:
        """Keep an episode that has just finished."""

    def states(self, variant: str) -> Path | None:
        """The folder that receives every visited state (`offline_eval.datasets`); None where they are not kept."""
        return None

    def of(self, name: str) -> EpisodeStore:
        """The part of this store that holds one variant, or the variants "name: variant" of one stage."""
        return _Part(self, name)


class _Part(EpisodeStore):
    """What a store keeps under a name."""

    def __init__(self, store: EpisodeStore, name: str) -> None:
        self._store, self._name = store, name

    @property
    def directory(self) -> Path | None:
        return self._store.directory

    def done(self, variant: str) -> Collection[Episode]:
        return self._store.done(self._full(variant))

    def record(self, variant: str, episode: Episode) -> None:
        self._store.record(self._full(variant), episode)

    def states(self, variant: str) -> Path | None:
        return self._store.states(self._full(variant))

    def _full(self, variant: str) -> str:
        return f"{self._name}: {variant}" if variant else self._name


class CountedEpisodes(EpisodeStore):
    """A store beside which the episodes that finish are counted.

    Args:
        store: keeps them.
        advance: called with 1 for each.
    """

    def __init__(self, store: EpisodeStore, advance: Callable[[int], None]) -> None:
        self._store, self._advance = store, advance

    @property
    def directory(self) -> Path | None:
        """As of the store."""
        return self._store.directory

    def done(self, variant: str) -> Collection[Episode]:
        """As of the store."""
        return self._store.done(variant)

    def record(self, variant: str, episode: Episode) -> None:
        """Keep an episode, and count it."""
        self._store.record(variant, episode)
        self._advance(1)

    def states(self, variant: str) -> Path | None:
        """As of the store."""
        return self._store.states(variant)


class StateLog(EpisodeStore):
    """Visited states of one evaluation in a folder; its episodes are all played, for a log without them has gaps.

    Args:
        folder: receives the states.
        store: is told of the episodes.
        directory: for further files; the store's own if left out.
    """

    def __init__(self, folder: str | Path, store: EpisodeStore | None = None, directory: Path | None = None) -> None:
        self._folder, self._store = Path(folder), store or EpisodeStore()
        self._directory = directory or self._store.directory

    @property
    def directory(self) -> Path | None:
        """For further files."""
        return self._directory

    def record(self, variant: str, episode: Episode) -> None:
        """Tell the store."""
        self._store.record(variant, episode)

    def states(self, variant: str) -> Path | None:
        """The folder."""
        if variant:
            raise InputError("store", "must have a place for each variant", bare("a StateLog"), "give a RunFolder")
        return self._folder
