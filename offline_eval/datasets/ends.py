"""Where episodes end in flat rows: by flags, by next observations that are not the following row, by a time limit.

A next observation repeats the following row's observation up to the precision in which both are stored. Where hardly
any row does, the rows are no trajectories: they were shuffled, or each is a transition of its own, or the next
observations were measured anew. Only in the last case do the flags still say where episodes end.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from offline_eval.datasets.rows import Rows
from offline_eval.datasets.store import named, row_blocks
from offline_eval.errors import DatasetError, bare
from offline_eval.types import Array

_JUMP = 1e-6
"""A next observation that differs by more than this, and by more than rounding, ends a trajectory (D4RL's, IQL's)."""

_ROUNDINGS = 4
"""Rounding of the coarser of two precisions that is no jump, in its units in the last place."""

_MOST_JUMPS = 0.5
_NOISE = 0.25
"""Next observations that miss the following row by less than this part of a step were measured anew."""


class Ends(NamedTuple):
    """Which rows end an episode, (num_steps,) bool, and in notes what had to be decided."""

    rows: Array
    notes: tuple[str, ...] = ()


def episode_ends(rows: Rows, max_episode_steps: int | None = None) -> Ends:
    """Where checked rows end their episodes.

    Terminal rows and timeouts end them, and so does a row whose next observation is not the following row's
    observation. Without next observations and timeouts it is every `max_episode_steps`-th row of an episode.

    Raises:
        DatasetError: the rows do not say where episodes end, or are not in the order of time.
    """
    ends, notes = np.zeros(len(rows), bool), _in_a_row(rows.terminals)
    for flags in (rows.terminals, rows.timeouts):
        if flags is not None:
            ends |= flags
    # Flags that are all False say no more than flags that are missing.
    are_told = rows.timeouts is not None and bool(ends.any())
    if rows.next_observations is not None:
        found, note = _by_jumps(rows, ends, are_told)
        ends |= found
        notes += note
    elif not are_told and max_episode_steps is not None:
        ends |= _every(max_episode_steps, ends)
    if not ends.any():
        unread = f"; the file has {', '.join(rows.others)}, which are not read" if rows.others else ""
        raise DatasetError(
            "dataset",
            "must say where its episodes end: `terminals`, `timeouts` or `next_observations`",
            bare(f"{len(rows)} rows without an end{unread}"),
            "give `max_episode_steps`, the environment's time limit",
        )
    return Ends(ends, tuple(notes))


def single_transitions(rows: Rows) -> Ends:
    """Every row as an episode of its own.

    Raises:
        DatasetError: there are no next observations to learn from.
    """
    if rows.next_observations is None:
        way_out = "without them a row says nothing about what followed: leave `transitions` out"
        raise DatasetError("next_observations", "must be there for single transitions", None, way_out)
    note = "every row is read as a transition of its own: returns and lengths are those of single steps"
    return Ends(np.ones(len(rows), bool), (note,))


def jumps(rows: Rows) -> Array:
    """Rows whose next observation is not the following row's observation, (num_steps,) bool; never the last row.

    NaN and infinite numbers are reported as themselves, and not as jumps.
    """
    found = np.zeros(len(rows), bool)
    for block, ahead, after, _ in _neighbours(rows):
        with np.errstate(over="ignore", invalid="ignore"):
            room = _JUMP + _ROUNDINGS * _precision(ahead, after) * np.maximum(
                np.abs(_single(ahead)), np.abs(_single(after))
            )
            distance = np.abs(_single(ahead) - _single(after))
        differs = (distance > room) & np.isfinite(distance)
        found[block] |= differs.reshape(len(ahead), -1).any(axis=1)
    return found


def _in_a_row(terminals: Array | None) -> list[str]:
    """A note where terminal rows follow one another, which is one episode in some files and many in others."""
    if terminals is None or terminals.all():
        return []
    again = np.flatnonzero(terminals[1:] & terminals[:-1]) + 1
    if not len(again):
        return []
    note = (
        f"{len(again)} terminal rows follow a terminal row, the first is row {again[0]}: each is read as an episode of "
        "one step; where a goal that was reached stays flagged (antmaze), only the first of them ends the episode"
    )
    return [note]


def hardly_follow(jumping: Array, flagged: Array) -> bool:
    """Whether most of the rows that no flag calls an end jump, so that the rows are in no order of time."""
    inner = int((~flagged[:-1]).sum())
    return inner >= 2 and int((jumping & ~flagged).sum()) > _MOST_JUMPS * inner


def _by_jumps(rows: Rows, flagged: Array, are_told: bool) -> tuple[Array, list[str]]:
    """Rows that a jump ends beside flagged ones, and a note about them."""
    found = jumps(rows) & ~flagged
    if rows.next_observation_known is not None:
        found &= rows.next_observation_known
    count, inner = int(found.sum()), int((~flagged[:-1]).sum())
    if not hardly_follow(found, flagged):
        if count and are_told:
            note = f"{count} rows that no flag calls an end are not followed by their next observation: taken for ends"
            return found, [note]
        return found, []
    share = _share_of_a_step(rows, found)
    if are_told and share < _NOISE:
        note = (
            f"next_observations miss the following row by {share:.2g} of a step (median of {count} rows): "
            "read as measured anew, and taken only at the ends that the flags name"
        )
        return np.zeros_like(found), [note]
    received = bare(f"{count} of {inner} rows that are no end and are not followed by their next observation")
    way_out = "if each row is a transition of its own, or they were shuffled: `--transitions`, `transitions=True`"
    if share < _NOISE:
        way_out = (
            f"they miss it by {share:.2g} of a step, as if measured anew: mark the end of every episode in `timeouts`; "
            "or read each row as a transition of its own: `--transitions`, `transitions=True`"
        )
    raise DatasetError("dataset", "must hold its rows in the order of time", received, way_out)


def _share_of_a_step(rows: Rows, where: Array) -> float:
    """How far next observations miss the following row, as a part of the step before; medians over some rows."""
    missed: list[Array] = []
    steps: list[Array] = []
    for block, ahead, after, here in _neighbours(rows):
        some = np.flatnonzero(where[block])[:1000]
        for distances, one in ((missed, ahead), (steps, here)):
            with np.errstate(over="ignore", invalid="ignore"):
                difference = (_single(one)[some] - _single(after)[some]).reshape(len(some), -1)
                distances.append(np.linalg.norm(difference, axis=1))
    step = float(np.median(np.concatenate(steps)))
    return float(np.median(np.concatenate(missed))) / step if step > 0 else np.inf


def _neighbours(rows: Rows) -> Any:
    """Blocks of rows: the following row's observations, the next observations, the row's own, part by part."""
    after = dict(named("", rows.next_observations))
    for name, values in named("", rows.observations):
        for block in row_blocks(values, len(rows) - 1):
            yield block, values[block.start + 1 : block.stop + 1], after[name][block], values[block]


def _single(values: Array) -> Array:
    return values.astype(np.float32, copy=False)


def _precision(*values: Array) -> float:
    """The coarser precision of two arrays; that of float32 at least, in which they are compared and kept."""
    types = [part.dtype for part in values if part.dtype.kind == "f"]
    return float(max([np.finfo(np.float32).eps, *(np.finfo(dtype).eps for dtype in types)]))


def _every(count: int, ends: Array) -> Array:
    """Every count-th row since the last end."""
    row = np.arange(len(ends))
    start = np.maximum.accumulate(np.where(np.concatenate([[True], ends[:-1]]), row, 0))
    found: Array = (row - start + 1) % count == 0
    return found
