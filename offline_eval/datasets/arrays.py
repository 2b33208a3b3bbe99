"""From flat rows, as D4RL, SB3 and most people keep them, to trajectories: in blocks, without a loop over rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from gymnasium import Space

from offline_eval.datasets.data_spaces import acted_space, observed_space
from offline_eval.datasets.known_spaces import known_spaces
from offline_eval.datasets.records import Source, Trajectory
from offline_eval.datasets.store import (
    Place,
    Store,
    allocate_store,
    fill,
    in_memory,
    map_named,
    named,
    row_blocks,
)
from offline_eval.datasets.trajectories import Dataset
from offline_eval.errors import DatasetError, bare
from offline_eval.types import Array, Observations

_JUMP = 1e-6
"""A next observation further than this from the following row's observation ends a trajectory (IQL's and D4RL's)."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Flat rows, one a step; NumPy arrays or anything that can be sliced and has `shape` and `dtype` (HDF5).

    Args:
        observations: (num_steps, *shape), or a dict of those.
        actions: (num_steps, *shape).
        rewards: (num_steps,) or (num_steps, 1).
        terminals: (num_steps,) or (num_steps, 1): the episode ended in a terminal state. None where nobody says.
        timeouts: the episode was cut. None where nobody says.
        next_observations: as `observations`; the state reached, never the first one of the next episode.
        next_observation_known: (num_steps,) bool; where False, that row of `next_observations` stands for nothing.
    """

    observations: Any
    actions: Any
    rewards: Any
    terminals: Any = None
    timeouts: Any = None
    next_observations: Any = None
    next_observation_known: Any = None

    def __len__(self) -> int:
        return len(self.rewards)

    def checked(self) -> Rows:
        """The same with the flags and rewards as flat arrays in memory, once the shapes agree."""
        if len(self) == 0:
            raise DatasetError("rewards", "must have at least one row", bare("an empty data set"))
        columns = {name: self._column(name) for name in _COLUMNS if getattr(self, name) is not None}
        for name in ("observations", "actions", "next_observations"):
            for part, array in named(name, {} if getattr(self, name) is None else getattr(self, name)):
                if len(array.shape) == 0 or len(array) != len(self):
                    raise DatasetError(part, f"must have one row a reward ({len(self)})", tuple(array.shape))
        if self.next_observations is not None:
            shapes = [{name: a.shape for name, a in named("", x)} for x in (self.observations, self.next_observations)]
            if shapes[0] != shapes[1]:
                raise DatasetError("next_observations", f"must be shaped as `observations` ({shapes[0]})", shapes[1])
        return replace(self, **columns)

    def _column(self, name: str) -> Array:
        column = np.asarray(getattr(self, name)[:])
        if column.shape not in ((len(self),), (len(self), 1)):
            raise DatasetError(name, f"must be of shape ({len(self)},)", column.shape)
        column = column.reshape(len(self))
        return column if name == "rewards" else column.astype(bool)


_FIELDS = ("observations", "actions", "rewards", "terminated", "truncated")
_COLUMNS = ("rewards", "terminals", "timeouts", "next_observation_known")


def from_arrays(
    observations: Observations,
    actions: Array,
    rewards: Array,
    terminated: Array,
    truncated: Array | None = None,
    next_observations: Observations | None = None,
    *,
    observation_space: Space[Any] | None = None,
    action_space: Space[Any] | None = None,
    max_episode_steps: int | None = None,
    env_id: str | None = None,
) -> Dataset:
    """A data set from flat rows, one a step.

    Args:
        observations: (num_steps, *shape), or a dict of those; (num_steps,) numbers with a point count as one column.
        actions: (num_steps, *shape), in the environment's units; the same.
        rewards: (num_steps,).
        terminated: (num_steps,): the step led to a terminal state.
        truncated: (num_steps,): the episode was cut after the step, by a time limit for example.
        next_observations: as `observations`. Without them the final observation of a trajectory is not known: its
            last step is kept, but is a transition only where it terminated.
        observation_space: of the environment where left out, as far as its name is known; else inferred.
        action_space: the same; inferred, it is [-1, 1], or the range of the data if much lies outside.
        max_episode_steps: cuts trajectories where there is neither `truncated` nor `next_observations`.
        env_id: for the spaces, for reference returns and for messages.

    Raises:
        DatasetError: shapes that disagree, no rows, no episode ends, NaN or infinite numbers.
    """
    observed, following = (
        None if given is None else map_named("", given, lambda _, values: np.asarray(values))
        for given in (observations, next_observations)
    )
    rows = Rows(observed, np.asarray(actions), np.asarray(rewards), terminated, truncated, following)
    source = Source(env_id=env_id, max_episode_steps=max_episode_steps)
    return from_rows(rows, observation_space, action_space, source).check_finite()


def from_trajectories(
    trajectories: Iterable[Trajectory | Mapping[str, Any]],
    *,
    observation_space: Space[Any] | None = None,
    action_space: Space[Any] | None = None,
    env_id: str | None = None,
) -> Dataset:
    """A data set from trajectories with T + 1 observations and T actions, rewards, `terminated` and `truncated`.

    Raises:
        DatasetError: no trajectories, shapes that disagree, NaN or infinite numbers.
    """
    parts = [t if isinstance(t, Trajectory) else _trajectory(t) for t in trajectories]
    parts = [part for part in parts if len(part)]
    if not parts:
        raise DatasetError("trajectories", "must have at least one step", bare("an empty data set"))
    first = parts[0]
    store = allocate_store(np.array([len(part) for part in parts]), first.observations, first.actions)
    for k, part in enumerate(parts):
        put_trajectory(store, k, part)
    return assemble(store, observation_space, action_space, Source(env_id=env_id)).check_finite()


def _trajectory(fields: Mapping[str, Any]) -> Trajectory:
    missing = [name for name in _FIELDS if name not in fields]
    if missing:
        raise DatasetError(
            "trajectories",
            f"must have {', '.join(_FIELDS)} each",
            bare(f"one with {', '.join(map(str, fields)) or 'nothing'}"),
            f"add {' and '.join(missing)}: (T,) bool where it is a flag",
        )
    arrays = {name: np.asarray(fields[name]) for name in _FIELDS[1:]}
    observations = map_named("observations", fields["observations"], lambda _, values: np.asarray(values))
    return Trajectory(observations, **arrays, final_known=bool(fields.get("final_known", True)))


def put_trajectory(store: Store, number: int, part: Trajectory) -> None:
    """Write trajectory `number` of a store that was allocated for its length."""
    start, end = (int(x) for x in store.offsets[number : number + 2])
    theirs = dict(named("observations", part.observations))
    pairs: list[tuple[str, Array, slice, Array | None]] = [
        (name, array, slice(start + number, end + number + 1), theirs.get(name))
        for name, array in named("observations", store.observations)
    ]
    for name in ("actions", "rewards", "terminated", "truncated"):
        pairs.append((name, getattr(store, name), slice(start, end), getattr(part, name)))
    for name, whole, rows, values in pairs:
        want = (rows.stop - rows.start, *whole.shape[1:])
        if values is None or values.shape != want:
            received = None if values is None else values.shape
            raise DatasetError(f"{name} of trajectory {number}", f"must be of shape {want}", received)
        fill(whole, rows, values)
    store.final_known[number] = part.final_known
    if not part.final_known:
        for _, whole in named("observations", store.observations):
            whole[end + number] = whole[end + number - 1]
    store.truncated[end - 1] |= not store.terminated[end - 1]


def from_rows(
    rows: Rows,
    observation_space: Space[Any] | None = None,
    action_space: Space[Any] | None = None,
    source: Source | None = None,
    place: Place = in_memory,
) -> Dataset:
    """A data set from flat rows, read block by block.

    An end is a row that is terminal or a timeout. Where there are no timeouts, it is also a row whose next observation
    is not the following row's observation, or, without next observations either, every `source.max_episode_steps`-th
    row of an episode. The rows after the last end are a trajectory that was cut.

    Raises:
        DatasetError: shapes that disagree, no rows, or no way to know where episodes end.
    """
    rows, source = rows.checked(), source or Source()
    rows = _shaped(rows)
    ends = episode_ends(rows, source.max_episode_steps)
    ends[-1] = True
    last = np.flatnonzero(ends)
    starts = np.concatenate([[0], last[:-1] + 1])
    store = allocate_store(last + 1 - starts, rows.observations, rows.actions, place)
    number = np.cumsum(ends) - ends  # the trajectory of each row
    fill(store.rewards, slice(None), rows.rewards)
    if rows.terminals is not None:
        store.terminated[:] = rows.terminals
    store.truncated[last] = ~store.terminated[last] if rows.timeouts is None else rows.timeouts[last]
    store.truncated[last] |= ~store.terminated[last]
    store.final_known[:] = rows.next_observations is not None
    if rows.next_observation_known is not None:
        store.final_known[:] &= rows.next_observation_known[last]

    final = dict(named("", store.observations if rows.next_observations is None else rows.next_observations))
    for (name, out), (_, values) in zip(named("", store.observations), named("", rows.observations), strict=True):
        _copy_observations(out, values, number, ends, store.final_known, final[name])
    for block in row_blocks(rows.actions):
        fill(store.actions, block, rows.actions[block])
    return assemble(store, observation_space, action_space, source)


def _shaped(rows: Rows) -> Rows:
    """An index a row has shape (N,), as Discrete wants it; a number with a point (N, 1), as Box wants it."""
    changed: dict[str, Any] = {}
    if rows.actions.dtype.kind in "iub" and rows.actions.shape[1:] == (1,):
        changed["actions"] = np.asarray(rows.actions[:])[:, 0]
    for name in ("observations", "actions", "next_observations"):
        values = getattr(rows, name)
        if values is not None and not isinstance(values, dict) and len(values.shape) == 1 and values.dtype.kind == "f":
            changed[name] = np.asarray(values[:])[:, None]
    return replace(rows, **changed)


def _copy_observations(out: Array, values: Any, number: Array, ends: Array, final_known: Array, final: Any) -> None:
    """Rows of `values` to their places; a trajectory's extra row from `final` where that is known."""
    for block in row_blocks(values):
        at = np.arange(block.start, block.stop) + number[block]
        observed = values[block]
        fill(out, at, observed)
        last = np.flatnonzero(ends[block])
        if not len(last):
            continue
        known = final_known[number[block][last]]
        fill(out, at[last] + 1, observed[last])
        if known.any():
            fill(out, at[last[known]] + 1, final[block][last[known]])


def episode_ends(rows: Rows, max_episode_steps: int | None = None) -> Array:
    """Which of checked rows end an episode, (num_steps,) bool: see `from_rows`.

    Raises:
        DatasetError: the rows do not say where episodes end.
    """
    ends = np.zeros(len(rows), bool)
    for flags in (rows.terminals, rows.timeouts):
        if flags is not None:
            ends |= flags
    # Flags that are all False say no more than flags that are missing.
    if rows.timeouts is None or not ends.any():
        if rows.next_observations is not None:
            ends |= jumps(rows)
        elif max_episode_steps is not None:
            ends |= _every(max_episode_steps, ends)
    if not ends.any():
        raise DatasetError(
            "dataset",
            "must say where its episodes end: `terminals`, `timeouts` or `next_observations`",
            bare(f"{len(rows)} rows without an end"),
            "give `max_episode_steps`, the environment's time limit",
        )
    return ends


def jumps(rows: Rows) -> Array:
    """Rows whose next observation is not the following row's observation, (num_steps,) bool; never the last row."""
    found = np.zeros(len(rows), bool)
    after = dict(named("", rows.next_observations))
    for name, values in named("", rows.observations):
        for block in row_blocks(values, len(rows) - 1):
            ahead = values[block.start + 1 : block.stop + 1]
            # In float32, so that a file with observations of two precisions does not jump at every row. NaN and
            # infinity are reported as themselves, not as jumps.
            with np.errstate(over="ignore", invalid="ignore"):
                difference = ahead.astype(np.float32) - after[name][block].astype(np.float32)
                distance = np.linalg.norm(difference.reshape(len(ahead), -1), axis=1)
            found[block] |= (distance > _JUMP) & np.isfinite(distance)
    return found


def _every(count: int, ends: Array) -> Array:
    """Every count-th row since the last end."""
    row = np.arange(len(ends))
    start = np.maximum.accumulate(np.where(np.concatenate([[True], ends[:-1]]), row, 0))
    found: Array = (row - start + 1) % count == 0
    return found


def assemble(
    store: Store, observation_space: Space[Any] | None, action_space: Space[Any] | None, source: Source
) -> Dataset:
    """A data set with the spaces given, checked against the data; else of the environment it names; else inferred."""
    assumed = replace(source, assumed_action_space=True)
    observed, acted = known_spaces(source.env_id, store.observations, store.actions)
    dataset = Dataset(
        store,
        observed_space(store.observations) if observed is None else observed,
        acted_space(store.actions) if acted is None else acted,
        assumed,
    )
    return dataset.for_spaces(observation_space, action_space)
