"""From flat rows, as D4RL, SB3 and most people keep them, to trajectories: in blocks, without a loop over rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium import Space

from offline_eval.datasets.data_spaces import acted_space, observed_space, whole_numbers
from offline_eval.datasets.ends import episode_ends, single_transitions
from offline_eval.datasets.known_spaces import known_spaces
from offline_eval.datasets.records import Source, Trajectory
from offline_eval.datasets.rows import Rows, as_flags
from offline_eval.datasets.store import (
    Place,
    Store,
    allocate_store,
    fill,
    in_memory,
    map_named,
    named,
    row_blocks,
    storage_dtype,
)
from offline_eval.datasets.trajectories import Dataset
from offline_eval.errors import DatasetError, bare
from offline_eval.types import Array, Observations

_FIELDS = ("observations", "actions", "rewards", "terminated", "truncated")


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
    transitions: bool = False,
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
        transitions: read every row as a transition of its own, in whatever order they are; wants `next_observations`.

    Raises:
        DatasetError: shapes that disagree, no rows, flags that are not 0 or 1, no episode ends, rows that are not in
            the order of time, NaN or infinite numbers.
    """
    observed, following = (
        None if given is None else map_named("", given, lambda _, values: np.asarray(values))
        for given in (observations, next_observations)
    )
    terminals, timeouts = (
        None if given is None else as_flags(name, given)
        for name, given in (("terminated", terminated), ("truncated", truncated))
    )
    rows = Rows(observed, np.asarray(actions), np.asarray(rewards), terminals, timeouts, following)
    source = Source(env_id=env_id, max_episode_steps=max_episode_steps)
    return from_rows(rows, observation_space, action_space, source, transitions=transitions).check_finite()


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
    store = stacked(np.array([len(part) for part in parts], np.int64), parts)
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
    arrays |= {name: as_flags(name, arrays[name]) for name in ("terminated", "truncated")}
    observations = map_named("observations", fields["observations"], lambda _, values: np.asarray(values))
    return Trajectory(observations, **arrays, final_known=bool(fields.get("final_known", True)))


def stacked(lengths: Array, parts: Iterable[Trajectory], place: Place = in_memory) -> Store:
    """A store of trajectories that are read one after the other; those without a step are left out.

    Args:
        lengths: of each, (num_trajectories,).
        parts: the trajectories, in the same order.
        place: where the large arrays go.

    Raises:
        DatasetError: there is no step at all, or shapes or kinds of numbers disagree.
    """
    store, number = None, 0
    for length, part in zip(lengths, parts, strict=True):
        if not length:
            continue
        if store is None:
            store = allocate_store(lengths[lengths > 0], part.observations, part.actions, place)
        put_trajectory(store, number, part)
        number += 1
    if store is None:
        raise DatasetError("dataset", "must have at least one step", bare("an empty data set"))
    return store


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
        kept = values.dtype if whole.dtype == np.bool_ else storage_dtype(values.dtype, name)
        if not np.can_cast(kept, whole.dtype, "same_kind"):
            rule = f"must hold numbers of the kind that other trajectories hold ({whole.dtype})"
            raise DatasetError(f"{name} of trajectory {number}", rule, bare(f"dtype {values.dtype}"))
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
    transitions: bool = False,
) -> Dataset:
    """A data set from flat rows, read block by block.

    Where episodes end is said in `offline_eval.datasets.ends`; the rows after the last end are a trajectory that was
    cut.

    Args:
        rows: as the file has them.
        observation_space: the data must fit it.
        action_space: the same.
        source: where they come from, and the time limit.
        place: where the large arrays go.
        transitions: every row is a transition of its own.

    Raises:
        DatasetError: shapes that disagree, no rows, or no way to know where episodes end.
    """
    rows, source = rows.checked(), source or Source()
    rows = _shaped(rows)
    ends, notes = single_transitions(rows) if transitions else episode_ends(rows, source.max_episode_steps)
    source = replace(source, notes=source.notes + notes)
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


def assemble(
    store: Store, observation_space: Space[Any] | None, action_space: Space[Any] | None, source: Source
) -> Dataset:
    """A data set with the spaces given, checked against the data; else of the environment it names; else inferred."""
    observed, acted = known_spaces(source.env_id, store.observations, store.actions)
    guessed = {
        "actions": store.actions if action_space is None and acted is None else None,
        "observations": store.observations if observation_space is None and observed is None else None,
    }
    notes = tuple(note for name, values in guessed.items() for note in whole_numbers(name, values))
    assumed = replace(source, assumed_action_space=True, notes=source.notes + notes)
    dataset = Dataset(
        store,
        observed_space(store.observations) if observed is None else observed,
        acted_space(store.actions) if acted is None else acted,
        assumed,
    )
    return dataset.for_spaces(observation_space, action_space)
