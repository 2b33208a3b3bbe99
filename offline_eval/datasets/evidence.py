"""What the doctor looks at: the rows as the file has them, beside finite numeric copies of them."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium import Space, spaces

from offline_eval.datasets.confined import at_the_door
from offline_eval.datasets.d4rl import open_rows
from offline_eval.datasets.data_spaces import acted_space
from offline_eval.datasets.ends import jumps
from offline_eval.datasets.known_spaces import known_spaces
from offline_eval.datasets.npz import open_npz_rows
from offline_eval.datasets.opening import format_of, located, open_dataset
from offline_eval.datasets.records import Source
from offline_eval.datasets.references import time_limit_of
from offline_eval.datasets.rows import Rows
from offline_eval.datasets.store import map_named, named, non_finite, storage_dtype
from offline_eval.datasets.trajectories import Dataset
from offline_eval.errors import SpaceError, bare
from offline_eval.types import Array, FloatArray

MOST_ROWS = 4_000_000
"""Of a larger data set the first and the last rows are examined, this many together (NaN is looked for everywhere)."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """Flat rows, prepared for the checks.

    Args:
        rows: as the file has them, in memory.
        names: of the columns of `observations`: `observations[3]`.
        observations: (num_rows, dimension) float32, finite; pixels are left out.
        next_observations: the same; None where the file has none.
        next_known: (num_rows,) bool; False where a row of `next_observations` stands for nothing.
        actions: (num_rows, dimension) float32, finite.
        rewards: (num_rows,) float64, finite.
        terminals: (num_rows,) bool; False throughout where the file has none.
        timeouts: the same.
        seams: (num_rows,) bool, rows where next_observations do not go on in the following row; False without them.
        action_space: given, the file's, that of the environment it names, or inferred.
        whose_actions: in words, where the action space is not given and not the file's: `Pendulum-v1's`, `assumed`.
        source: where the rows come from.
        max_episode_steps: the environment's time limit, where somebody knows it.
        bad_numbers: where NaN and infinite numbers are, a sentence an array.
    """

    rows: Rows
    names: tuple[str, ...]
    observations: FloatArray
    next_observations: FloatArray | None
    next_known: Array
    actions: FloatArray
    rewards: FloatArray
    terminals: Array
    timeouts: Array
    seams: Array
    action_space: Space[Any]
    whose_actions: str
    source: Source
    max_episode_steps: int | None
    bad_numbers: tuple[str, ...]

    @property
    def flagged(self) -> Array:
        """Rows that say themselves that an episode ends, (num_rows,) bool."""
        return self.terminals | self.timeouts

    @property
    def ends(self) -> Array:
        """Rows that end a trajectory as far as can be known, the last row included, (num_rows,) bool."""
        ends = self.flagged | self.seams
        ends[-1] = True
        return ends

    @property
    def lengths(self) -> Array:
        """Steps of each trajectory."""
        return np.diff(np.flatnonzero(self.ends), prepend=-1)


def evidence_of(
    source: Dataset | Rows | str | os.PathLike[str],
    action_space: Space[Any] | None = None,
    max_episode_steps: int | None = None,
    env_id: str | None = None,
) -> Evidence:
    """Gather the evidence of a data set, of flat rows, or of a file.

    Raises:
        DatasetError: a file that cannot be read at all.
        SpaceError: the actions are not shaped as the given space is.
    """

    def named_by(source: Source) -> Source:
        return source if env_id is None else replace(source, env_id=env_id)

    if isinstance(source, Rows):
        return _from_rows(source, named_by(Source()), action_space, max_episode_steps)
    if isinstance(source, Dataset):
        source = replace(source, source=named_by(source.source))
        return _from_dataset(source, action_space, max_episode_steps)
    with at_the_door(source):
        path = located(source)
        match format_of(path):
            case "d4rl":
                with open_rows(path) as (rows, origin, stated):
                    space = stated.get("action_space") if action_space is None else action_space
                    return _from_rows(rows, named_by(origin), space, max_episode_steps)
            case "npz":
                with open_npz_rows(path) as flat:
                    if flat is not None:
                        return _from_rows(flat[0], named_by(flat[1]), action_space, max_episode_steps)
        dataset = open_dataset(path, check_finite=False)
        return _from_dataset(replace(dataset, source=named_by(dataset.source)), action_space, max_episode_steps)


def _from_dataset(dataset: Dataset, action_space: Space[Any] | None, max_episode_steps: int | None) -> Evidence:
    bad = tuple(_bad(name, array) for name, array in dataset.store.arrays() if non_finite(array))
    if dataset.num_steps > MOST_ROWS:
        reached = np.cumsum(dataset.lengths)
        is_kept = (reached <= MOST_ROWS // 2) | (reached > dataset.num_steps - MOST_ROWS // 2)
        dataset = dataset.select(is_kept)
    steps = dataset.step_rows + np.repeat(dataset.numbers, dataset.lengths)
    known = np.ones(dataset.num_steps, bool)
    known[dataset.offsets[1:] - 1] = dataset.final_known
    rows = Rows(
        map_named("", dataset.store.observations, lambda _, values: values[steps]),
        dataset.actions,
        dataset.rewards,
        dataset.terminated,
        dataset.truncated,
        map_named("", dataset.store.observations, lambda _, values: values[steps + 1]),
        known,
    )
    source = replace(dataset.source, assumed_action_space=dataset.source.assumed_action_space and action_space is None)
    space = dataset.action_space if action_space is None else action_space
    return _gather(rows, source, space, max_episode_steps, bad)


def _from_rows(rows: Rows, source: Source, action_space: Space[Any] | None, max_episode_steps: int | None) -> Evidence:
    rows = rows.checked()
    parts = {
        name: getattr(rows, name)
        for name in ("observations", "actions", "rewards", "next_observations")
        if getattr(rows, name) is not None
    }
    bad = tuple(
        _bad(part, array) for name, values in parts.items() for part, array in named(name, values) if non_finite(array)
    )
    half = MOST_ROWS // 2

    def load(values: Any) -> Any:
        return values[:] if len(rows) <= MOST_ROWS else np.concatenate([values[:half], values[-half:]])

    flags = ("terminals", "timeouts", "next_observation_known")
    columns = {name: load(getattr(rows, name)) for name in flags if getattr(rows, name) is not None}
    if len(rows) > MOST_ROWS and "timeouts" in columns:
        columns["timeouts"][half - 1] = True  # where the two halves meet
    loaded = {name: map_named("", values, lambda _, array: load(array)) for name, values in parts.items()}
    source = replace(source, assumed_action_space=action_space is None)
    return _gather(replace(rows, **columns, **loaded), source, action_space, max_episode_steps, bad)


def _gather(
    rows: Rows, source: Source, action_space: Space[Any] | None, limit: int | None, bad: tuple[str, ...]
) -> Evidence:
    nothing = np.zeros(len(rows), bool)
    names, observations = _columns("observations", rows.observations)
    has_next = rows.next_observations is not None
    known = ~nothing if rows.next_observation_known is None else rows.next_observation_known
    actions = np.asarray(rows.actions)
    numbers = _finite(actions.reshape(len(rows), -1))
    action_space, whose_actions = _acted(actions, numbers, action_space, source)
    return Evidence(
        rows,
        names,
        observations,
        _columns("observations", rows.next_observations)[1] if has_next else None,
        known,
        numbers,
        _finite(np.asarray(rows.rewards, np.float64)[:, None])[:, 0].astype(np.float64),
        nothing if rows.terminals is None else rows.terminals,
        nothing if rows.timeouts is None else rows.timeouts,
        jumps(rows) & known if has_next else nothing,
        action_space,
        whose_actions,
        source,
        limit or source.max_episode_steps or _registered_limit(source.env_id) or time_limit_of(source.env_id),
        bad,
    )


def _acted(actions: Array, numbers: FloatArray, space: Space[Any] | None, source: Source) -> tuple[Space[Any], str]:
    """The action space, and in words whose it is where it is neither given nor the file's."""
    kept = storage_dtype(actions.dtype, "actions")
    if kept.kind == "f":
        stored: Array = numbers if actions.ndim == 1 else numbers.reshape(actions.shape)
    else:
        stored = actions.astype(kept)
        stored = stored[:, 0] if stored.shape[1:] == (1,) else stored
    if source.assumed_action_space or space is None:
        _, known = known_spaces(source.env_id, stored, stored)
        if known is not None:
            return known, f"{source.env_id}'s"
        return (acted_space(stored) if space is None else space), "assumed"
    if isinstance(space, spaces.Box | spaces.Discrete) and math.prod(space.shape or ()) != numbers.shape[1]:
        rule = f"must have the shape of the data's actions, {stored.shape[1:]}"
        raise SpaceError("action_space", rule, bare(str(space)), "name the environment that the data were collected in")
    return space, ""


def _registered_limit(env_id: str | None) -> int | None:
    if env_id is not None and ":" not in env_id:
        with suppress(gymnasium.error.Error, ValueError):
            return gymnasium.spec(env_id).max_episode_steps
    return None


def _columns(name: str, observations: Any) -> tuple[tuple[str, ...], FloatArray]:
    """The numeric columns of observations with their names; pixels are no columns."""
    names: list[str] = []
    columns: list[FloatArray] = []
    for part, array in named(name, observations):
        if array.dtype == np.uint8 and array.ndim > 2:
            continue
        flat = array.reshape(len(array), -1)
        names += [f"{part}[{i}]" for i in range(flat.shape[1])]
        columns.append(_finite(flat))
    count = len(next(iter(observations.values()))) if isinstance(observations, dict) else len(observations)
    return tuple(names), np.concatenate([np.empty((count, 0), np.float32), *columns], axis=1)


def _finite(values: Array) -> FloatArray:
    """As float32, NaN and infinite numbers replaced by the column's median, so that one fault is one finding."""
    with np.errstate(over="ignore"):
        numbers = values.astype(np.float32)
    bad = ~np.isfinite(numbers)
    for column in np.flatnonzero(bad.any(axis=0)):
        good = numbers[~bad[:, column], column]
        numbers[bad[:, column], column] = np.median(good) if len(good) else 0.0
    return numbers


def _bad(name: str, array: Any) -> str:
    found = non_finite(array)
    assert found is not None
    count, first = found
    more = f", and {count - 1} more numbers" if count > 1 else ""
    return f"{name}{list(first)}{more}"
