"""Which episodes are to be played: results are keyed by these entries, never by the order of completion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple

from offline_eval.errors import InputError


class PlanEntry(NamedTuple):
    """One episode: the environment is reset with this seed and these options."""

    seed: int
    options: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class EpisodePlan:
    """The episodes of an evaluation, in the order of its table.

    The same plan gives the same table for any number of environments and workers, and two evaluations of one plan
    are compared episode by episode.
    """

    entries: tuple[PlanEntry, ...]

    def __post_init__(self) -> None:
        if not self.entries:
            raise InputError("plan", "must hold at least one episode", self.entries, "EpisodePlan.seeded(20, seed=0)")
        for entry in self.entries:
            if entry.seed < 0:
                raise InputError("seed", "must be >= 0", entry.seed)

    @classmethod
    def seeded(cls, episodes: int = 20, seed: int = 0) -> EpisodePlan:
        """Episodes with the seeds `seed`, `seed + 1`, ..."""
        if episodes < 1:
            raise InputError("episodes", "must be >= 1", episodes)
        return cls(tuple(PlanEntry(seed + i) for i in range(episodes)))

    @classmethod
    def of(cls, seeds: Sequence[int], options: Mapping[str, Any] | None = None) -> EpisodePlan:
        """Episodes with these seeds, all with the same reset options."""
        return cls(tuple(PlanEntry(int(seed), options) for seed in seeds))

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[PlanEntry]:
        return iter(self.entries)

    def __getitem__(self, index: int) -> PlanEntry:
        return self.entries[index]


def planned(plan: EpisodePlan | int) -> EpisodePlan:
    """The plan itself, or so many episodes from seed 0.

    Raises:
        InputError: it is none of these.
    """
    if isinstance(plan, EpisodePlan):
        return plan
    if isinstance(plan, bool) or not isinstance(plan, Integral) or plan < 1:
        way_out = "a number of episodes, EpisodePlan.seeded(20, seed=0), EpisodePlan.of([3, 5, 8])"
        raise InputError("plan", "must hold at least one episode", plan, way_out)
    return EpisodePlan.seeded(int(plan))
