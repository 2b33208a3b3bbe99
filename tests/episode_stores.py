"""Stores of episodes in memory."""

from __future__ import annotations

from pathlib import Path

from offline_eval.episodes import EpisodeStore


class MemoryStore(EpisodeStore):
    """Keeps episodes while the process lasts.

    Attributes:
        kept: what an earlier call has finished, by name.
        told: (name, episode) of each episode that finished since.
    """

    def __init__(self, kept=None, directory: Path | None = None):
        self.kept, self.told, self._directory = dict(kept or {}), [], directory

    @property
    def directory(self):
        return self._directory

    def done(self, variant):
        return self.kept.get(variant, ())

    def record(self, variant, episode):
        self.told.append((variant, episode))

    def states(self, variant):
        return None if self._directory is None else self._directory / "states"
