"""Layouts with T + 1 rows a trajectory, whose last row is the final observation: OGBench's and RLDS's.

OGBench's own files flag that row by `terminals`, those of `load_dataset(compact_dataset=True)` by `valids` = 0 (their
`terminals` flag the row before, too). Neither says that a state is terminal; rows with rewards have `masks` for that.
RLDS flags the row by `is_last`, and by `is_terminal` where the state is terminal; its action and reward stand for
nothing. Some write `is_last` at the last step instead; rewards there tell them apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import Space

from offline_eval.datasets.arrays import assemble
from offline_eval.datasets.columns import ENDS, NO_REWARDS, TERMINALS, TIMEOUTS, not_used
from offline_eval.datasets.records import Source
from offline_eval.datasets.rows import as_flags
from offline_eval.datasets.store import Place, allocate_store, fill, in_memory, named
from offline_eval.datasets.trajectories import Dataset
from offline_eval.errors import DatasetError, bare
from offline_eval.types import Array

_MARKS = {*TERMINALS, *TIMEOUTS, *ENDS} - {"is_last", "is_terminal"}
_READ = ("observations", "actions", "rewards", "terminals", "valids", "masks", "is_last", "is_first", "is_terminal")


def has_final_rows(names: Any) -> bool:
    """Whether arrays of these names are laid out with a row more a trajectory, which is its final observation."""
    if "next_observations" in names:
        return False
    if "valids" in names:
        return True
    marks = _MARKS.intersection(names)
    return ("is_last" in names and not marks) or (marks == {"terminals"} and "rewards" not in names)


def read_final_rows(
    arrays: Mapping[str, Any],
    observation_space: Space[Any] | None,
    action_space: Space[Any] | None,
    path: Path,
    place: Place = in_memory,
) -> Dataset:
    """A data set from arrays with final rows.

    Raises:
        DatasetError: an array is missing, they are of different lengths, or they contradict each other.
    """
    missing = [name for name in ("observations", "actions") if name not in arrays]
    if missing:
        received = bare(", ".join(sorted(arrays)))
        raise DatasetError("path", "must hold observations and actions", received, f"{', '.join(missing)} not found")
    observations, actions = arrays["observations"], arrays["actions"]
    sizes = {name: arrays[name].shape[:1] for name in _READ if name in arrays}
    if len(set(sizes.values())) > 1 or () in sizes.values():
        received = bare(", ".join(f"{name} {size}" for name, size in sizes.items()))
        raise DatasetError("path", f"must have as many {', '.join(sizes)}", received)
    flags = {name: as_flags(name, arrays[name][:]).reshape(-1) for name in _READ[3:] if name in arrays}
    if any(len(flag) != len(observations) for flag in flags.values()):
        raise DatasetError("path", f"must have one flag a row in each of {', '.join(flags)}", bare(str(sizes)))
    is_final, notes = _final(flags, arrays)
    is_final[-1:] = True
    ends = np.flatnonzero(is_final)
    lengths = np.diff(ends, prepend=-1) - 1
    if not lengths.sum():
        raise DatasetError("dataset", "must have at least one step", bare("an empty data set"))
    # A final row right after another one is a trajectory without a step.
    kept = np.ones(len(is_final), bool)
    kept[ends[lengths == 0]] = False
    store = allocate_store(lengths[lengths > 0], observations, actions, place)
    for _, out in named("observations", store.observations):
        fill(out, slice(None), observations[kept])
    fill(store.actions, slice(None), actions[~is_final])
    fill(store.rewards, slice(None), _rewards(arrays, is_final))
    store.terminated[:] = _terminated(flags, is_final)
    last = store.offsets[1:] - 1
    store.truncated[last] = ~store.terminated[last]
    notes += not_used(arrays, _READ, len(observations))
    source = Source("ogbench", str(path), env_id=path.stem, notes=tuple(notes))
    return assemble(store, observation_space, action_space, source)


def _final(flags: Mapping[str, Array], arrays: Mapping[str, Any]) -> tuple[Array, list[str]]:
    """Which rows are final observations, and notes."""
    notes = [] if "rewards" in arrays else [NO_REWARDS]
    if "valids" in flags:
        is_final = ~flags["valids"]
        if "terminals" in flags:
            following = np.concatenate([is_final[1:], [True]])
            _refuse(
                "terminals",
                "must flag a row with valids 0 and the row before it",
                flags["terminals"],
                is_final | following,
            )
        return is_final, notes
    if "is_last" not in flags:
        return flags["terminals"].copy(), notes
    is_final = flags["is_last"].copy()
    if "is_first" in flags:
        following = np.concatenate([flags["is_first"][1:], is_final[-1:]])
        _refuse("is_last", "must flag the row before each row with is_first", is_final, following)
    if np.any(np.nan_to_num(_column("rewards", arrays)[is_final])):
        rule = "must flag final observations, whose rewards are 0 (RLDS)"
        way_out = "if it flags the last step of an episode, name it terminals or timeouts, whichever it is"
        raise DatasetError("is_last", rule, bare("rewards other than 0 in such rows"), way_out)
    terminal = flags.get("is_terminal")
    if terminal is not None and (terminal & ~is_final).any():
        rule, row = "must be a row with is_last", np.flatnonzero(terminal & ~is_final)[0]
        raise DatasetError("is_terminal", rule, bare(f"row {row}, which is none"))
    return is_final, [*notes, "a row with is_last is read as the final observation, as in RLDS: its action is not used"]


def _refuse(name: str, rule: str, flags: Array, expected: Array) -> None:
    """Two flags that must agree, the last row aside: a recording may stop anywhere."""
    bad = np.flatnonzero(flags[:-1] != expected[:-1])
    if len(bad):
        received = bare(f"{len(bad)} rows that contradict it, the first is row {bad[0]}")
        raise DatasetError(name, rule, received, "mend or leave out the array that is wrong")


def _column(name: str, arrays: Mapping[str, Any]) -> Array:
    """Rewards of every row, (num_rows,); zeros where there are none."""
    count = len(arrays["observations"])
    values = np.asarray(arrays[name][:]) if name in arrays else np.zeros(count, np.float32)
    if values.shape not in ((count,), (count, 1)) or values.dtype.kind not in "biuf":
        raise DatasetError(name, f"must be numbers of shape ({count},)", bare(f"{values.shape} of {values.dtype}"))
    return values.reshape(count)


def _rewards(arrays: Mapping[str, Any], is_final: Array) -> Array:
    rewards: Array = _column("rewards", arrays)[~is_final]
    return rewards


def _terminated(flags: Mapping[str, Array], is_final: Array) -> Array:
    """Which steps terminated: by masks of their own row, or because the final row is a terminal state."""
    steps = ~is_final
    terminated = np.zeros(int(steps.sum()), bool)
    if "masks" in flags:
        terminated |= ~flags["masks"][steps]
    if "is_terminal" in flags:
        following: Array = np.concatenate([flags["is_terminal"][1:], [False]])
        terminated |= following[steps]
    return terminated
