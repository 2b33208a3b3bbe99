"""What a data set gives out: where it came from, a trajectory, a batch of transitions."""

from __future__ import annotations

import math
from dataclasses import dataclass

from offline_eval.errors import DatasetError
from offline_eval.types import Array, Observations


@dataclass(frozen=True)
class Source:
    """Where a data set came from, as far as its file says so.

    Args:
        format: `d4rl`, `minari`, `robomimic`, `d3rlpy`, `ogbench`, `packed`, `npz`, `replay buffer` or `arrays`.
        path: the file or folder; None for arrays in memory.
        env_id: the environment's id, or the data set's own name where the file has no id.
        max_episode_steps: the environment's time limit.
        reference_returns: the returns (minimum, maximum) that stand for 0 and 100 in a normalised score.
        assumed_action_space: whether the file does not state the action space: it is that of the environment it names
            (`known_spaces`), or a guess (`data_spaces.acted_space`).
        notes: what the reader had to decide, and what it did not use, a sentence each.

    Raises:
        DatasetError: a file states a time limit that is no positive whole number, or a name that is no text.
    """

    format: str = "arrays"
    path: str | None = None
    env_id: str | None = None
    max_episode_steps: int | None = None
    reference_returns: tuple[float, float] | None = None
    assumed_action_space: bool = False
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # It is filled in from files, which can hold anything.
        for name in ("path", "env_id"):
            if not isinstance(getattr(self, name), str | None):
                raise DatasetError(name, "must be text", getattr(self, name))
        limit: object = self.max_episode_steps
        reference = self.reference_returns
        if limit is not None and not (isinstance(limit, int) and not isinstance(limit, bool) and limit >= 1):
            raise DatasetError("max_episode_steps", "must be a whole number of at least 1", limit)
        if reference is not None and not (all(map(math.isfinite, reference)) and reference[0] < reference[1]):
            raise DatasetError("reference_returns", "must be two finite numbers that rise", reference)


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One trajectory of T steps; the arrays are views into the data set."""

    observations: Observations  # (T + 1, *shape); the last row repeats the one before where `final_known` is False
    actions: Array  # (T, *shape), in the environment's units
    rewards: Array  # (T,)
    terminated: Array  # (T,) bool
    truncated: Array  # (T,) bool
    final_known: bool = True

    def __len__(self) -> int:
        return len(self.rewards)


@dataclass(frozen=True, eq=False)
class Transitions:
    """Rows for learning; every field is a NumPy array whose first axis is the batch."""

    observations: Observations
    actions: Array  # in the environment's units
    rewards: Array
    next_observations: Observations
    next_actions: Array  # the action itself where there is no next one
    next_action_known: Array  # bool; False at the end of a trajectory
    masks: Array  # float32: 1 - terminated; truncation is not termination

    def __len__(self) -> int:
        return len(self.rewards)
