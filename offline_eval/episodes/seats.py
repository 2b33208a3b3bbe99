"""Where episodes are played: single environments, a gymnasium VectorEnv or an SB3 VecEnv behind one interface.

A seat plays one episode at a time. Single environments are seated independently (`env_seats`): a free seat takes the
next entry of the plan at once. The environments of a vector are seeded together (`vector_seats`), so they start
together and the next entries wait until all have finished; what autoreset begins in the meantime is ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import numpy as np

from offline_eval.batching import copied
from offline_eval.episodes.plan import PlanEntry
from offline_eval.types import Array

Info = Mapping[str, Any]
_NO_INFO: Info = {}


class Start(NamedTuple):
    """A seat after its reset."""

    observation: Any
    info: Info


class Step(NamedTuple):
    """A seat after a step; `observation` is the true last one where the episode ended, None where it is not told.

    Where a life was lost and the game goes on, nothing ended, the environment was `restarted`, and `observation` is
    the first one afterwards.
    """

    observation: Any
    reward: float
    terminated: bool
    truncated: bool
    info: Info
    restarted: bool = False


class Seats(Protocol):
    """Environments side by side; `varies` says why the table depends on how many they are, where it is known to."""

    num_seats: int
    start_together: bool
    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]
    notes: tuple[str, ...]
    varies: str | None
    max_episode_steps: int | None

    def begin(self, entries: Mapping[int, PlanEntry]) -> dict[int, Start | Exception]:
        """Reset these seats; all of them at once where `start_together`."""
        ...

    def step(self, actions: Array, live: Iterable[int]) -> dict[int, Step | Exception]:
        """Step the live seats with their rows of `actions` (num_seats, *action_shape)."""
        ...

    def env(self, seat: int) -> gym.Env[Any, Any] | None:
        """The environment of a seat where it can be reached."""
        ...

    def call(self, name: str, live: Iterable[int]) -> dict[int, Any]:
        """What a method of these seats' environments returns, or raises; an AttributeError where there is none."""
        ...

    def distrust(self, seat: int) -> None:
        """The episode at this seat failed: what can be made anew is, before the next one begins there."""
        ...

    def renew(self, seat: int) -> None:
        """Let the next episode at this seat begin in an environment where none was played."""
        ...

    def close(self) -> None:
        """Close what was made here; what the caller made stays open."""
        ...


def as_step(observation: Any, reward: Any, terminated: Any, truncated: Any, info: Any) -> Step:
    """A step as environments give it: numbers may be arrays with one entry, and buffers are used again."""
    earned = reward.item() if isinstance(reward, np.ndarray) else reward
    seen = None if observation is None else copied(observation)
    return Step(seen, float(earned), bool(terminated), bool(truncated), dict(info) if info else _NO_INFO)
