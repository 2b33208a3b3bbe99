"""Whether an episode succeeded, where the environment tells it in its infos: at the last step, or at any."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

SUCCESS_KEYS = ("is_success", "success")
"""Where environments tell it; the first of them that is there counts."""


def told(info: Mapping[str, Any]) -> bool | None:
    """What the info of a step says; None where it says nothing."""
    for key in SUCCESS_KEYS:
        if key in info:
            value = np.asarray(info[key]).reshape(-1)[0]
            return None if value is None or value != value else bool(value)
    return None


class Told(Protocol):
    """What an episode's environment told of success: at its last step, and at any."""

    @property
    def success(self) -> bool | None:
        """At the last step; None where it told nothing."""
        ...

    @property
    def success_any(self) -> bool | None:
        """At any step; None where it told nothing."""
        ...


class SuccessAt(Protocol):
    """At which step an episode must succeed."""

    @property
    def words(self) -> str:
        """For a table."""
        ...

    def of(self, episode: Told) -> bool | None:
        """Whether the episode succeeded; None where the environment did not tell."""
        ...

    def counts(self, episode: Told) -> bool:
        """Whether the episode belongs to the rate, in an evaluation in which some episode tells."""
        ...


@dataclass(frozen=True)
class LastStep:
    """At its last one: Gymnasium-Robotics and most others, whose episodes end with the task."""

    words = "last step"

    def of(self, episode: Told) -> bool | None:
        """What the last step told."""
        return episode.success

    def counts(self, episode: Told) -> bool:
        """Where its last step told."""
        return episode.success is not None


@dataclass(frozen=True)
class AnyStep:
    """At any one: Meta-World and ManiSkill, whose episodes go on after the task was done."""

    words = "any step"

    def of(self, episode: Told) -> bool | None:
        """Whether a step told of success."""
        return episode.success_any

    def counts(self, episode: Told) -> bool:
        """Always: some environments tell only when there is a success."""
        return True


def early_successes(episodes: Sequence[Told], success_at: SuccessAt) -> Iterator[str]:
    """A note where episodes succeeded on the way that the chosen step does not count."""
    early = sum(bool(episode.success_any) and not success_at.of(episode) for episode in episodes)
    if early:
        words = f"{early} of {len(episodes)} episodes succeeded at some step and not at the last, which is what counts"
        yield f"{words}: success_at=AnyStep() (--success any) counts them"
