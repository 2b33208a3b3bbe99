"""The data set: trajectories first, transitions derived from them, and parts that share one copy of the arrays."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from offline_eval.batching import take
from offline_eval.datasets.data_spaces import fits
from offline_eval.datasets.records import Source, Trajectory, Transitions
from offline_eval.datasets.store import Store, map_named, named, non_finite, ranges, row_blocks
from offline_eval.errors import DatasetError, InputError, SpaceError, bare
from offline_eval.types import Array, FloatArray, Observations

_SPLIT_STREAM, _SUBSET_STREAM = 0x5B117, 0x5AB5E7
"""Keep a split and a subset apart that are drawn with the same seed."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Trajectories of one environment. Treat the arrays as read-only: parts and processes share them.

    A part of a data set (`split`, `subset`, `select`) holds indices into the same store. Of a whole data set
    `observations`, `actions` and so on are the store's own arrays; of a part they are copies, so that a part that
    does not fit into memory is read with `gather`, or through `store` and the `…_rows` arrays::

        observations = torch.as_tensor(dataset.store.observations)   # no copy
        rows = torch.as_tensor(dataset.observation_rows)
        batch = observations.index_select(0, rows[indices])          # the next ones: rows[indices] + 1

    Args:
        store: the arrays.
        observation_space: from the file, or inferred from the data.
        action_space: from the file, or inferred; see `Source.assumed_action_space`.
        source: where it came from.
        members: which of the store's trajectories are in, increasing; None for all.
    """

    store: Store = field(repr=False)
    observation_space: Space[Any]
    action_space: Space[Any]
    source: Source = field(default_factory=Source)
    members: Array | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        store = self.store
        if store.num_steps == 0 or (self.members is not None and not len(self.members)):
            raise DatasetError("dataset", "must have at least one step", bare("an empty data set"))
        lengths = np.diff(store.offsets)
        if lengths.min() < 1 or store.offsets[0] != 0 or store.offsets[-1] != store.num_steps:
            raise DatasetError("offsets", "must rise from 0 to the number of steps", store.offsets)
        expected = {"offsets": len(store.offsets), "final_known": store.num_trajectories}
        for name, array in store.arrays():
            is_observed = name.startswith("observations")
            want = expected.get(name, store.num_steps + is_observed * store.num_trajectories)
            if len(array) != want:
                raise DatasetError(name, f"must have {want} rows", len(array))

    # ---------------------------------------------------------------------------------------- trajectories

    def __len__(self) -> int:
        return self.num_trajectories

    def __getitem__(self, number: int) -> Trajectory:
        if not -len(self) <= number < len(self):
            raise IndexError(f"trajectory {number} of {len(self)}")
        k = range(self.store.num_trajectories)[number] if self.members is None else int(self.members[number])
        start, end = (int(x) for x in self.store.offsets[k : k + 2])
        store, steps = self.store, slice(start, end)
        return Trajectory(
            observations=map_named("", store.observations, lambda _, array: array[start + k : end + k + 1]),
            actions=store.actions[steps],
            rewards=store.rewards[steps],
            terminated=store.terminated[steps],
            truncated=store.truncated[steps],
            final_known=bool(store.final_known[k]),
        )

    def __iter__(self) -> Iterator[Trajectory]:
        return (self[number] for number in range(len(self)))

    @property
    def num_trajectories(self) -> int:
        """How many trajectories there are."""
        return self.store.num_trajectories if self.members is None else len(self.members)

    @property
    def num_steps(self) -> int:
        """Steps (an observation, an action and a reward), the last ones of trajectories included."""
        return int(self.offsets[-1])

    @property
    def num_transitions(self) -> int:
        """Steps whose next observation is known, or not needed because they terminated."""
        return len(self.transition_rows)

    @cached_property
    def lengths(self) -> Array:
        """Steps of each trajectory, (num_trajectories,) int64."""
        lengths: Array = np.diff(self.store.offsets)
        return lengths if self.members is None else lengths[self.members]

    @cached_property
    def offsets(self) -> Array:
        """Where each trajectory's steps begin in `actions`, and their number: (num_trajectories + 1,)."""
        return np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int64)

    @property
    def returns(self) -> FloatArray:
        """Undiscounted return of each trajectory, (num_trajectories,), summed in float64 over all of its steps."""
        return np.add.reduceat(self.rewards.astype(np.float64), self.offsets[:-1])

    # ---------------------------------------------------------------------------------------- flat arrays

    @property
    def observations(self) -> Observations:
        """(num_steps + num_trajectories, *shape): trajectory k has rows offsets[k] + k to offsets[k + 1] + k."""
        return self.store.observations if self.members is None else take(self.store.observations, self._observed)

    @property
    def step_observations(self) -> Observations:
        """(num_steps, *shape), the observation each action was taken in: a copy, aligned with `actions`."""
        return take(self.store.observations, self.step_rows + np.repeat(self.numbers, self.lengths))

    @property
    def actions(self) -> Array:
        """(num_steps, *shape), in the environment's units."""
        return self._steps(self.store.actions)

    @property
    def rewards(self) -> Array:
        """(num_steps,) float32."""
        return self._steps(self.store.rewards)

    @property
    def terminated(self) -> Array:
        """(num_steps,) bool."""
        return self._steps(self.store.terminated)

    @property
    def truncated(self) -> Array:
        """(num_steps,) bool."""
        return self._steps(self.store.truncated)

    @property
    def final_known(self) -> Array:
        """Whether each trajectory's final observation is in the data, (num_trajectories,) bool."""
        known: Array = self.store.final_known[self.numbers]
        return known

    def _steps(self, array: Array) -> Array:
        part: Array = array if self.members is None else array[self.step_rows]
        return part

    @property
    def numbers(self) -> Array:
        """The number that each trajectory has in the store, (num_trajectories,) int64."""
        return np.arange(self.store.num_trajectories) if self.members is None else self.members

    @property
    def _observed(self) -> Array:
        """The row of each observation in the store's observations, (num_steps + num_trajectories,)."""
        return ranges(self.store.offsets[:-1][self.numbers] + self.numbers, self.lengths + 1)

    @cached_property
    def step_rows(self) -> Array:
        """The row of each step in the store's actions, (num_steps,) int64."""
        return ranges(self.store.offsets[:-1][self.numbers], self.lengths)

    # ---------------------------------------------------------------------------------------- transitions

    @cached_property
    def _transition_steps(self) -> Array:
        last = self.offsets[1:] - 1
        unknown = last[~self.final_known & ~self.terminated[last]]
        return np.delete(np.arange(self.num_steps), unknown)

    @cached_property
    def transition_rows(self) -> Array:
        """The row of each transition in the store's actions and rewards, (num_transitions,) int64."""
        rows: Array = self.step_rows[self._transition_steps]
        return rows

    @cached_property
    def observation_rows(self) -> Array:
        """The row of each transition in the store's observations; the next observation is one further."""
        number = np.repeat(self.numbers, self.lengths)
        rows: Array = self.transition_rows + number[self._transition_steps]
        return rows

    @cached_property
    def next_action_rows(self) -> Array:
        """The row of the action that followed each transition; its own row at the end of a trajectory."""
        is_last = np.zeros(self.num_steps, bool)
        is_last[self.offsets[1:] - 1] = True
        rows: Array = self.transition_rows + ~is_last[self._transition_steps]
        return rows

    def gather(self, index: Any) -> Transitions:
        """Some transitions, by number (an index array or a slice of range(num_transitions))."""
        rows, observed, after = self.transition_rows[index], self.observation_rows[index], self.next_action_rows[index]
        store = self.store
        return Transitions(
            observations=take(store.observations, observed),
            actions=store.actions[rows],
            rewards=store.rewards[rows],
            next_observations=take(store.observations, observed + 1),
            next_actions=store.actions[after],
            next_action_known=after != rows,
            masks=1.0 - store.terminated[rows].astype(np.float32),
        )

    def transitions(self) -> Transitions:
        """Every transition, as arrays of their own: twice the observations' size; `gather` reads in blocks."""
        return self.gather(slice(None))

    # ---------------------------------------------------------------------------------------- parts

    def select(self, trajectories: Any) -> Dataset:
        """The part with the given trajectories (numbers or a mask), in the order of the data, sharing the store."""
        chosen = self.numbers[np.unique(np.arange(len(self))[np.asarray(trajectories)])]
        return replace(self, members=chosen)

    def split(self, validation_fraction: float, seed: int) -> tuple[Dataset, Dataset]:
        """Train and validation part, divided **by trajectory**, at random.

        Args:
            validation_fraction: share of the steps, in (0, 1); whole trajectories come nearest to it, at least one
                on either side.
            seed: the same seed gives the same parts.

        Raises:
            InputError: a data set of one trajectory cannot be divided.
        """
        if not 0.0 < validation_fraction < 1.0:
            raise InputError("validation_fraction", "must lie between 0 and 1, both excluded", validation_fraction)
        if len(self) < 2:
            raise InputError(
                "dataset",
                "must have at least two trajectories to be split, since steps of one episode are not independent",
                bare(f"{len(self)} trajectory of {self.num_steps} steps"),
                "collect more episodes, or train without a validation part",
            )
        order = np.random.default_rng([_SPLIT_STREAM, seed]).permutation(len(self))
        count = min(self._count_of(order, validation_fraction), len(self) - 1)
        return self.select(order[count:]), self.select(order[:count])

    def subset(self, fraction: float, seed: int) -> Dataset:
        """A random part of the trajectories; of one seed, a smaller part lies within every larger one.

        Args:
            fraction: share of the steps, in (0, 1]; whole trajectories come nearest to it, at least one.
            seed: the same seed gives the same nested family.
        """
        if not 0.0 < fraction <= 1.0:
            raise InputError("fraction", "must lie above 0 and be at most 1", fraction)
        if fraction == 1.0:
            return self
        order = np.random.default_rng([_SUBSET_STREAM, seed]).permutation(len(self))
        return self.select(order[: self._count_of(order, fraction)])

    def _count_of(self, order: Array, fraction: float) -> int:
        """How many trajectories of `order` come nearest to a share of the steps; at least 1."""
        steps = np.cumsum(self.lengths[order])
        return max(1, int(np.argmin(np.abs(steps - fraction * self.num_steps))) + 1)

    # ---------------------------------------------------------------------------------------- checks

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of what the data are, whatever file they came from: the same trajectories, the same digest."""
        digest = hashlib.sha256(b"offline-eval data set 1")
        for name, count, blocks in self.blocks():
            first = next(blocks)
            digest.update(f"{name} {first.dtype.str} {(count, *first.shape[1:])}".encode())
            for block in itertools.chain([first], blocks):
                digest.update(np.ascontiguousarray(block).data)
        return digest.hexdigest()

    def blocks(self) -> Iterator[tuple[str, int, Iterator[Array]]]:
        """Every array with its name and number of rows, block by block: how a part larger than memory is copied."""
        observed, steps = (None, None) if self.members is None else (self._observed, self.step_rows)
        for name, array in self.store.arrays():
            match name:
                case "offsets" | "final_known":
                    values = getattr(self, name)
                    yield name, len(values), iter([values])
                    continue
                case "actions" | "rewards" | "terminated" | "truncated":
                    rows = steps
                case _:
                    rows = observed
            count = len(array) if rows is None else len(rows)
            yield name, count, _parts(array, rows, count)

    def check_finite(self) -> Dataset:
        """The data set itself; raises a DatasetError that names the first NaN or infinite number by its index."""
        for name, array in self.store.arrays():
            found = non_finite(array)
            if found is not None:
                count, (row, *rest) = found
                where = self.store.place_of(name, row)
                raise DatasetError(
                    f"{name}{[row, *rest]}",
                    f"must be finite ({where})",
                    float(array[(row, *rest)]),
                    f"{count} such numbers in all: `offline-eval data check` lists them; drop these trajectories",
                )
        return self

    def for_spaces(
        self, observation_space: Space[Any] | None = None, action_space: Space[Any] | None = None
    ) -> Dataset:
        """The data set with an environment's spaces, once they fit.

        Raises:
            SpaceError: observations or actions have another shape or kind, or the file's own action bounds differ.
        """
        way_out = "use the environment that the data were collected in"
        if observation_space is not None and not fits(observation_space, self.store.observations):
            raise SpaceError("dataset", f"must hold observations of {observation_space}", self._received(0), way_out)
        if action_space is not None and not fits(action_space, self.store.actions):
            raise SpaceError("dataset", f"must hold actions of {action_space}", self._received(1), way_out)
        stated = action_space is not None and not self.source.assumed_action_space
        if stated and isinstance(action_space, spaces.Box) and isinstance(self.action_space, spaces.Box):
            same = [np.allclose(getattr(action_space, end), getattr(self.action_space, end)) for end in ("low", "high")]
            if not all(same):
                rule = f"must hold actions of {action_space}"
                raise SpaceError("dataset", rule, bare(f"{self.action_space}"), way_out)
        return replace(
            self,
            observation_space=self.observation_space if observation_space is None else observation_space,
            action_space=self.action_space if action_space is None else action_space,
            source=self.source if action_space is None else replace(self.source, assumed_action_space=False),
        )

    def _received(self, which: int) -> str:
        arrays: Sequence[Observations] = (self.store.observations, self.store.actions)
        parts = []
        for name, array in named("", arrays[which]):
            reach = f" from {array.min()} to {array.max()}" if array.dtype.kind in "iu" else ""
            parts.append(f"{name}{array.shape[1:]} {array.dtype}{reach}")
        return bare(f"{', '.join(parts)} in {self.source.path or 'arrays in memory'}")


def _parts(array: Array, rows: Array | None, count: int) -> Iterator[Array]:
    for block in row_blocks(array, count):
        yield array[block] if rows is None else array[rows[block]]
