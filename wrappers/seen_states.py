"""Which states test-time training learns from, and the memory of those that each environment has seen.

- `Latest`: the state that the next action answers.
- `Replay`: that one, and others of the same episode.
- `Mixture`: those, and states of a data set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch as th
from torch import Tensor

from offline_eval.errors import InputError
from offline_eval.types import Array, Observations
from offline_eval.wrappers.arguments import check_whole
from offline_eval.wrappers.transfer import to_device

__all__ = [
    "Latest",
    "Mixture",
    "Record",
    "Replay",
    "Seen",
    "SeenStates",
    "States",
    "leaves",
    "map_record",
    "num_numbers",
    "num_real",
    "places",
    "tensors",
]

Record = Any
"""What is kept of states: a tensor, or a (nested) dict of them, with the same leading axes."""

_FIRST_LENGTH = 64


class States(Protocol):
    """Which states a gradient step takes its mean over."""

    @property
    def num_seen(self) -> int:
        """States of the episode in each gradient step, the latest included."""
        ...

    @property
    def capacity(self) -> int:
        """States of the episode that are kept; 0 keeps none."""
        ...

    @property
    def num_data(self) -> int:
        """States of the data set in each gradient step."""
        ...

    @property
    def data(self) -> Observations | None:
        """The data set's states."""
        ...


@dataclass(frozen=True)
class Latest:
    """The state that the next action answers, alone. Cheap, and it shares OPEX's failures: see the documentation."""

    num_seen = 1
    capacity = 0
    num_data = 0
    data = None


@dataclass(frozen=True)
class Replay:
    """The latest state, and others drawn from those that this episode has seen, each as likely as any other.

    Args:
        num_states: in each gradient step, the latest included.
        capacity: states kept of an episode; a longer one forgets its oldest.
    """

    num_states: int = 16
    capacity: int = 1000

    num_data = 0
    data = None

    def __post_init__(self) -> None:
        check_whole("num_states", self.num_states, 2, "Latest() is a single one")
        check_whole("capacity", self.capacity, 1, "1000 is an episode of MuJoCo")

    @property
    def num_seen(self) -> int:
        """As many as were asked for."""
        return self.num_states


@dataclass(frozen=True)
class Mixture:
    """States of the episode, and others drawn from a data set.

    Args:
        data: observations (n, *observation_shape) as the environment gives them, or a dict of those.
        num_data: of them in each gradient step.
        seen: `Latest()` or a `Replay`, for the states of the episode.
    """

    data: Observations = field(repr=False)
    num_data: int = 8
    seen: States = field(default_factory=lambda: Replay(8))

    def __post_init__(self) -> None:
        check_whole("num_data", self.num_data, 1, "without data take Replay()")
        lengths = {len(part) for part in (self.data.values() if isinstance(self.data, dict) else [self.data])}
        if len(lengths) != 1 or 0 in lengths:
            raise InputError("data", "must be observations, one a row", sorted(lengths), "for example of a data set")

    @property
    def num_seen(self) -> int:
        """As `seen`."""
        return self.seen.num_seen

    @property
    def capacity(self) -> int:
        """As `seen`."""
        return self.seen.capacity


class Seen(NamedTuple):
    """Where the states of some rows are kept, each (rows,)."""

    rows: Tensor
    latest: Tensor
    """The place of the newest state."""
    num_kept: Tensor


class SeenStates:
    """The last `capacity` states of every row's episode.

    Room grows with the longest episode, so that short ones cost little.
    """

    def __init__(self, capacity: int, device: th.device) -> None:
        self.capacity, self.device = capacity, device
        self._counts = np.zeros(0, dtype=np.int64)
        self._length = min(_FIRST_LENGTH, capacity)
        self._kept: Record = None

    def reserve(self, num_rows: int) -> None:
        """Room for so many rows; what is kept stays."""
        more = num_rows - len(self._counts)
        if more <= 0:
            return
        self._counts = np.concatenate([self._counts, np.zeros(more, dtype=np.int64)])
        if self._kept is not None:
            self._kept = map_record(lambda kept: _longer(kept, 0, more), self._kept)

    def forget(self, rows: Array) -> None:
        """Nothing is kept of these rows."""
        self._counts[rows] = 0

    def add(self, rows: Array, states: Record) -> Seen:
        """Keep a state of each of these rows: a record (len(rows), ...).

        Args:
            rows: the last of them may be repeated, as padding, whose states are left out.
            states: the newest of each row.
        """
        real = rows[: num_real(rows)]
        if self._kept is None:
            shape = (len(self._counts), self._length)
            self._kept = map_record(lambda new: new.new_zeros(*shape, *new.shape[1:]), states)
        if self._length < self.capacity and self._counts[real].max() >= self._length:
            more = min(2 * self._length, self.capacity) - self._length
            self._kept = map_record(lambda kept: _longer(kept, 1, more), self._kept)
            self._length += more
        slots = self._counts[rows] % self.capacity
        self._counts[real] += 1
        # Everything that says where, in one transfer: a GPU must not be waited for at each of them.
        where = {"rows": rows, "latest": slots, "num_kept": np.minimum(self._counts[rows], self.capacity)}
        seen = Seen(**to_device(where, self.device))
        at = seen.rows[: len(real)], seen.latest[: len(real)]

        def write(kept: Tensor, new: Tensor) -> Tensor:
            kept[at] = new[: len(real)]
            return kept

        map_record(write, self._kept, states)
        return seen

    def draw(self, seen: Seen, noise: Tensor) -> Record:
        """The latest state of these rows, and one for each number of `noise` (rows, n): a record (rows, 1 + n, ...).

        Args:
            seen: the rows, each with its latest state: what `add` gave.
            noise: standard normal; its distribution function makes it a uniform place among the states that are kept.
        """
        slots = th.cat([seen.latest[:, None], places(noise, seen.num_kept[:, None])], dim=1)
        at = (seen.rows[:, None] * self._length + slots).flatten()
        return map_record(lambda kept: kept.flatten(0, 1).index_select(0, at).unflatten(0, slots.shape), self._kept)


def num_real(rows: Array) -> int:
    """How many of these rows are no padding, which repeats the last one."""
    return int((rows == rows[-1]).argmax()) + 1


def places(noise: Tensor, num_places: Tensor | int) -> Tensor:
    """Whole numbers from 0 to num_places - 1, each as likely, from standard normal noise of the same shape."""
    drawn = (th.special.ndtr(noise) * num_places).long()
    # A noise of 6 and more rounds to probability 1, one place too far.
    return th.clamp_max(drawn, num_places - 1)


def map_record(function: Callable[..., Tensor], record: Record, *others: Record) -> Record:
    """The record of the same keys, made tensor by tensor."""
    if isinstance(record, dict):
        return {key: map_record(function, value, *(other[key] for other in others)) for key, value in record.items()}
    return function(record, *others)


def leaves(record: Record) -> Iterator[Tensor]:
    """The record's tensors."""
    if isinstance(record, dict):
        for value in record.values():
            yield from leaves(value)
    else:
        yield record


def tensors(observations: Observations, device: th.device) -> Record:
    """Observations on a device, in single precision."""
    if isinstance(observations, dict):
        return {key: tensors(value, device) for key, value in observations.items()}
    narrow = observations.astype(np.float32) if observations.dtype == np.float64 else observations
    return th.as_tensor(narrow, device=device)


def num_numbers(record: Record) -> int:
    """Numbers in each row of a record."""
    return sum(value[0].numel() for value in leaves(record))


def _longer(kept: Tensor, axis: int, more: int) -> Tensor:
    shape = list(kept.shape)
    shape[axis] = more
    return th.cat([kept, kept.new_zeros(shape)], dim=axis)
