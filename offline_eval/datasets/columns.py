"""Flat rows from arrays by name, whichever file they lie in: which name means what, and what was not used.

The names are those of D4RL, Gymnasium, OGBench, d3rlpy and of most replay buffers. Two arrays that say the same are
compared, and a contradiction is refused: a reader that picks one of them is wrong in half of the cases.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from offline_eval.datasets.rows import Rows, as_flags
from offline_eval.errors import DatasetError, bare
from offline_eval.types import Array

REQUIRED = ("observations", "actions", "rewards")
NO_REWARDS = "the file has no rewards: they are 0 here, and a value learned from them says nothing"

TERMINALS = ("terminals", "terminated", "terminations", "terminateds", "terminal", "is_terminal")
TIMEOUTS = ("timeouts", "truncated", "truncations", "truncateds", "timeout")
ENDS = ("dones", "done", "episode_terminals", "is_last")
_ROW_LONG_ENDS = ("episode_ends", "ends")
"""Ends where there is one a row; elsewhere they are lists of row numbers."""

_NUMBERS = ("episode_ids", "episode_id", "episode_index", "trajectory_ids", "trajectory_id", "traj_ids", "traj_id")
_STARTS = ("episode_starts", "is_first")
_NOT_TERMINAL = "masks"
_MARKS = re.compile(r"done|end|term|trunc|last|first|timeout|time_limit|reset|start|final|episode|traj|discount|valid")


def rows_of(arrays: Mapping[str, Any], next_observation_known: Any = None) -> tuple[Rows, tuple[str, ...]]:
    """Flat rows, and in notes what had to be decided.

    `terminals` and their like are terminal states, `timeouts` cuts. `dones` and `episode_terminals` are ends of either
    kind: where timeouts are there, too, an end that is none of them is terminal, and where terminals are, the other
    way round. `dones` alone are terminal states, as everybody masks with them; other ends alone are cuts. With
    `masks`, as OGBench's rows with rewards have them, a step terminated where its mask is 0, and `terminals` are ends.

    Args:
        arrays: by name; arrays of other names are named in a note.
        next_observation_known: see `Rows`.

    Raises:
        DatasetError: an array is missing, is no flag, or contradicts another one.
    """
    without_rewards = "rewards" not in arrays and {"next_observations", "terminals"} <= set(arrays)
    missing = [name for name in REQUIRED if name not in arrays and not (name == "rewards" and without_rewards)]
    if missing:
        rule = "must hold observations, actions and rewards, or OGBench's observations, actions and terminals"
        received = bare(", ".join(sorted(arrays)) or "nothing")
        raise DatasetError("path", rule, received, f"{', '.join(missing)} not found")
    if not arrays["observations"].shape:
        raise DatasetError("observations", "must be an array with one row a step", bare("a single value"))
    count = len(arrays["observations"])
    flags = _Flags(arrays, count)
    if "valids" in arrays and not flags.one("valids").all():
        way_out = "leave these rows out, or write OGBench's compact layout as .npz, without next_observations"
        raise DatasetError("valids", "must be 1 in every row", bare("rows that are not valid"), way_out)
    terminals, timeouts = flags.of(TERMINALS), flags.of(TIMEOUTS)
    each = flags.of((*ENDS, *flags.row_long(_ROW_LONG_ENDS)))
    ends = _same("ends of episodes", each, _from_numbers(count, flags), _from_starts(flags))
    notes: list[str] = []
    if _NOT_TERMINAL in arrays:
        terminated = ~flags.one(_NOT_TERMINAL, "0 (terminated) or 1")
        cut = _either(terminals, timeouts, ends)
        terminals, timeouts = terminated, None if cut is None or not cut.any() else cut & ~terminated
    elif without_rewards:
        cut = _either(terminals, timeouts, ends)
        terminals, timeouts = np.zeros(count, bool), cut
        notes.append("terminals are taken for the ends of recordings, and no state for a terminal one")
    elif ends is not None:
        terminals, timeouts, note = _told_apart(terminals, timeouts, ends, flags.taken((*ENDS, *_ROW_LONG_ENDS)))
        notes += note
    rewards = arrays["rewards"] if "rewards" in arrays else np.zeros(count, np.float32)
    notes += [NO_REWARDS] * ("rewards" not in arrays)
    used = [*REQUIRED, "next_observations", *flags.used]
    notes += not_used(arrays, used, count)
    rows = Rows(
        arrays["observations"],
        arrays["actions"],
        rewards,
        terminals,
        timeouts,
        arrays.get("next_observations"),
        next_observation_known,
        others=tuple(sorted(set(arrays) - set(used))),
    )
    return rows, tuple(notes)


def not_used(arrays: Mapping[str, Any], used: Any, count: int | None = None) -> list[str]:
    """Notes that name what a file holds beside the arrays in use; what looks like a mark of episode ends on its own."""
    others = sorted(set(arrays) - set(used))
    lengths = {name: (getattr(arrays[name], "shape", None) or (None,))[0] for name in others}
    marks = [name for name in others if count is not None and lengths[name] == count and _MARKS.search(name.lower())]
    rest = [name for name in others if name not in marks]
    notes = []
    if marks:
        notes.append(f"not used, although the name could mean episode ends: {', '.join(marks)}")
    if rest:
        shown = ", ".join(rest[:20]) + (f" and {len(rest) - 20} more" if len(rest) > 20 else "")
        notes.append(f"not used: {shown}")
    return notes


class _Flags:
    """The arrays of flags among others; remembers which it was asked for."""

    def __init__(self, arrays: Mapping[str, Any], count: int) -> None:
        self._arrays, self._count = arrays, count
        self.used: list[str] = []

    def taken(self, names: tuple[str, ...]) -> list[str]:
        """Those of some names that are in use."""
        return [name for name in names if name in self.used]

    def of(self, names: tuple[str, ...]) -> Array | None:
        """The flag that goes by one of several names; None without one."""
        there = [name for name in names if name in self._arrays]
        return _same(" and ".join(there), *(self.one(name) for name in there))

    def one(self, name: str, rule: str = "0 or 1") -> Array:
        """A flag by its name."""
        self.used.append(name)
        return as_flags(name, self.column(name), rule)

    def column(self, name: str) -> Array:
        """(num_steps,) of an array of that or of shape (num_steps, 1)."""
        column = np.asarray(self._arrays[name][()])
        if column.shape not in ((self._count,), (self._count, 1)):
            raise DatasetError(name, f"must have one row an observation ({self._count})", column.shape)
        return column.reshape(self._count)

    def row_long(self, names: tuple[str, ...]) -> list[str]:
        """Names of arrays with one row a step."""
        shapes = ((self._count,), (self._count, 1))
        return [name for name in names if name in self._arrays and tuple(self._arrays[name].shape) in shapes]


def _from_numbers(count: int, flags: _Flags) -> Array | None:
    """Ends where the number of the episode changes."""
    found = []
    for name in flags.row_long(_NUMBERS):
        flags.used.append(name)
        numbers = flags.column(name)
        found.append(np.concatenate([numbers[1:] != numbers[:-1], [True]])[:count])
    return _same("episode numbers", *found)


def _from_starts(flags: _Flags) -> Array | None:
    """Ends before the first steps of episodes."""
    found = [flags.one(name) for name in flags.row_long(_STARTS)]
    return _same("starts of episodes", *(np.concatenate([first[1:], [True]])[: len(first)] for first in found))


def _same(what: str, *flags: Array | None) -> Array | None:
    """The flag that all of these are, the last row aside: where a recording stops, some say so and some do not."""
    there = [flag for flag in flags if flag is not None]
    for other in there[1:]:
        differ = np.flatnonzero(there[0][:-1] != other[:-1])
        if len(differ):
            received = bare(f"{len(differ)} rows that differ, the first is row {differ[0]}")
            raise DatasetError(what, "must not contradict each other", received, "keep the one that is right")
    return _either(*there)


def _either(*flags: Array | None) -> Array | None:
    there = [flag for flag in flags if flag is not None]
    return np.logical_or.reduce(there) if there else None


def _told_apart(
    terminals: Array | None, timeouts: Array | None, ends: Array, names: list[str]
) -> tuple[Array, Array | None, list[str]]:
    """Terminal states and cuts, once ends of either kind agree with what is known of them."""
    what = " and ".join(names) or "the numbers or starts of episodes"
    for name, flags in {"terminals": terminals, "timeouts": timeouts}.items():
        _refuse(what, f"must be an end wherever {name} say so", flags is not None and flags[:-1] & ~ends[:-1])
    if terminals is not None and timeouts is not None:
        left = ends[:-1] & ~terminals[:-1] & ~timeouts[:-1]
        _refuse(what, "must be an end only where terminals or timeouts say so", left)
        return terminals, timeouts, []
    if terminals is not None:
        return terminals, ends & ~terminals, []
    if timeouts is not None:
        return ends & ~timeouts, timeouts, []
    if "dones" in names or "done" in names:
        note = f"{what}: taken for terminal states, since the file does not say which of them a time limit cut"
        return ends, None, [note]
    note = f"{what}: taken for cuts, since the file does not say which states were terminal"
    return np.zeros(len(ends), bool), ends, [note]


def _refuse(what: str, rule: str, rows: Any) -> None:
    bad = np.flatnonzero(rows)
    if len(bad):
        received = bare(f"{len(bad)} rows that are none, the first is row {bad[0]}")
        raise DatasetError(what, rule, received, "mend or leave out the array that is wrong")
