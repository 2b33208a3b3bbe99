"""One finished episode, and what collects episodes step by step."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, SupportsFloat

import numpy as np

from offline_eval.errors import InputError, bare
from offline_eval.simulator import Simulator, SimulatorState, simulator_of, split, width
from offline_eval.types import Array, FloatArray, Observations

Scalar = str | int | float | bool | None

_FEWEST_ROWS = 64


@dataclass(frozen=True, eq=False)
class LoggedEpisode:
    """An episode of T steps that ended by itself or by its time limit.

    Attributes:
        observations: (T + 1, *observation_shape) as the environment gave them, or a dict of those.
        policy_actions: (T, *action_shape) as the policy chose them.
        actions: (T, *action_shape) as the environment executed them; the same array where nothing steered.
        rewards: (T,) float64.
        terminated: (T,) bool.
        truncated: (T,) bool.
        seed: what the environment was reset with; None where nobody gave one.
        options: of the reset.
        key: index of the plan entry; None where there was no plan.
        states: the simulator's state beside each observation, each part (T + 1, *shape) float64; empty where it cannot
            be read. The last row is NaN where a vector had already begun the next episode.
        metadata: whatever else belongs to the episode.
    """

    observations: Observations
    policy_actions: Array
    actions: Array
    rewards: FloatArray
    terminated: Array
    truncated: Array
    seed: int | None = None
    options: Mapping[str, Any] | None = None
    key: int | None = None
    states: Mapping[str, Array] = field(default_factory=dict)
    metadata: Mapping[str, Scalar] = field(default_factory=dict)

    def __post_init__(self) -> None:
        steps = len(self.rewards)
        if steps < 1:
            raise InputError("rewards", "must have one entry a step, of at least one step", self.rewards)
        if self.key is not None and self.key < 0:
            raise InputError("key", "must be the index of a plan entry, >= 0", self.key)
        observed = self.observations if isinstance(self.observations, dict) else {"observations": self.observations}
        for name, rows in {**observed, **self.states}.items():
            _check_rows(name, rows, steps + 1)
        for name in ("policy_actions", "actions", "terminated", "truncated"):
            _check_rows(name, getattr(self, name), steps)

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def episode_return(self) -> float:
        """Undiscounted sum of the rewards."""
        return float(self.rewards.sum())

    def state(self, step: int) -> SimulatorState:
        """The simulator's state before `step`, for `offline_eval.simulator.restore`."""
        if not self.states:
            raise InputError("episode", "must hold the simulator's states", bare("an episode without them"))
        return {name: rows[step] for name, rows in self.states.items()}


def _check_rows(name: str, rows: Array, number: int) -> None:
    if len(rows) != number:
        raise InputError(name, f"must have {number} rows, to go with the rewards", bare(f"{len(rows)} rows"))


class EpisodeRecorder:
    """Collects what passes by into episodes, one at a time in each of `num_slots` slots.

    Everything is copied at once, so environments may reuse their arrays.
    """

    def __init__(self, num_slots: int = 1) -> None:
        self.num_slots = num_slots
        self._tapes: list[_Tape | None] = [None] * num_slots
        self._rows = [_FEWEST_ROWS] * num_slots  # an episode starts with room for one as long as the last

    def reset(
        self,
        slot: int,
        observation: Any,
        seed: int | None = None,
        key: int | None = None,
        env: Any = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Begin an episode; one that is still in the slot is dropped.

        Args:
            slot: which of the environments side by side.
            observation: the first one.
            seed: what the environment was reset with.
            key: index of the plan entry.
            env: the environment whose simulator is to be read, in the state that `observation` shows; None for none.
            options: of the reset.
        """
        about: dict[str, Any] = {"options": None if options is None else deepcopy(dict(options))}
        about["seed"], about["key"] = None if seed is None else int(seed), None if key is None else int(key)
        simulator = None if env is None else simulator_of(env)
        self._tapes[slot] = _Tape(observation, self._rows[slot], simulator, about)

    def step(
        self,
        slot: int,
        policy_action: Any,
        action: Any,
        reward: SupportsFloat,
        terminated: bool,
        truncated: bool,
        observation: Any,
        env: Any = None,
    ) -> None:
        """Append a step.

        Args:
            slot: which of the environments side by side.
            policy_action: what the policy chose; the very object `action`, or None, where nothing steered.
            action: what the environment executed.
            reward: of the step.
            terminated: of the step.
            truncated: of the step.
            observation: the one after the step, also where the episode ends with it.
            env: the environment of the reset, if its simulator is in the state that `observation` shows; None where it
                is not, as in a vector that has already begun the next episode.
        """
        tape = self._tapes[slot]
        if tape is None:
            raise InputError("slot", "must hold an episode: reset it first", slot)
        tape.append(policy_action, action, reward, terminated, truncated, observation, env is not None)

    def finish(self, slot: int, metadata: Mapping[str, Scalar] | None = None) -> LoggedEpisode:
        """Take the episode out of its slot."""
        tape = self._tapes[slot]
        if tape is None:
            raise InputError("slot", "must hold an episode: reset it first", slot)
        self._tapes[slot] = None
        self._rows[slot] = max(_FEWEST_ROWS, len(tape.rewards) + 1)
        return tape.episode(metadata or {})

    def discard(self, slot: int) -> bool:
        """Drop the episode in a slot; whether there was one with at least a step."""
        tape, self._tapes[slot] = self._tapes[slot], None
        return tape is not None and bool(tape.rewards)

    def is_recording(self, slot: int) -> bool:
        """Whether an episode has begun in the slot and not been finished."""
        return self._tapes[slot] is not None


class _Tape:
    """An episode in the making."""

    def __init__(self, observation: Any, rows: int, simulator: Simulator | None, about: dict[str, Any]) -> None:
        self._about = about
        self.rewards: list[float] = []
        self._terminated: list[bool] = []
        self._truncated: list[bool] = []
        self._keys = tuple(observation) if isinstance(observation, Mapping) else None
        firsts = [observation] if self._keys is None else [observation[key] for key in self._keys]
        self._observed = [_Rows(np.asarray(first), rows) for first in firsts]
        for column, first in zip(self._observed, firsts, strict=True):
            column.append(first)
        self._actions: _Rows | None = None
        self._policy_actions: _Rows | None = None
        self._simulator = simulator
        if simulator is not None:
            self._states = np.empty((rows, width(simulator.layout)))
            simulator.read_into(self._states[0])

    def append(
        self,
        policy_action: Any,
        action: Any,
        reward: SupportsFloat,
        terminated: bool,
        truncated: bool,
        observation: Any,
        state_is_readable: bool,
    ) -> None:
        if self._actions is None:
            self._actions = _Rows(np.asarray(action), len(self._observed[0].array))
        if policy_action is not None and policy_action is not action and self._policy_actions is None:
            self._policy_actions = self._actions.copy()
        self._actions.append(action)
        if self._policy_actions is not None:
            self._policy_actions.append(action if policy_action is None else policy_action)
        self.rewards.append(float(reward.item() if isinstance(reward, np.ndarray) else reward))
        self._terminated.append(bool(terminated))
        self._truncated.append(bool(truncated))
        if self._keys is None:
            self._observed[0].append(observation)
        else:
            for key, column in zip(self._keys, self._observed, strict=True):
                column.append(observation[key])
        if self._simulator is not None:
            self._append_state(len(self.rewards), state_is_readable)

    def _append_state(self, row: int, is_readable: bool) -> None:
        if row == len(self._states):
            self._states = _grown(self._states)
        if is_readable:
            self._simulator.read_into(self._states[row])  # type: ignore[union-attr]  # the caller has looked
        else:
            self._states[row] = np.nan

    def episode(self, metadata: Mapping[str, Scalar]) -> LoggedEpisode:
        if self._actions is None:
            raise InputError("slot", "must hold an episode of at least one step", bare("none"))
        columns = [column.filled() for column in self._observed]
        actions = self._actions.filled()
        states = {}
        if self._simulator is not None:
            states = split(self._simulator.layout, self._states[: len(self.rewards) + 1])
        return LoggedEpisode(
            observations=columns[0] if self._keys is None else dict(zip(self._keys, columns, strict=True)),
            policy_actions=actions if self._policy_actions is None else self._policy_actions.filled(),
            actions=actions,
            rewards=np.array(self.rewards, dtype=np.float64),
            terminated=np.array(self._terminated),
            truncated=np.array(self._truncated),
            states=states,
            metadata=dict(metadata),
            **self._about,
        )


class _Rows:
    """An array that grows along its first axis, and to a wider dtype where a row needs it."""

    __slots__ = ("array", "length")

    def __init__(self, first: Array, rows: int) -> None:
        self.array, self.length = np.empty((rows, *first.shape), first.dtype), 0

    def append(self, row: Any) -> None:
        if row.__class__ is not np.ndarray:
            row = np.asarray(row)
        if row.dtype != self.array.dtype:
            self._widen(np.result_type(self.array.dtype, row.dtype))
        if self.length == len(self.array):
            self.array = _grown(self.array)
        self.array[self.length] = row
        self.length += 1

    def _widen(self, dtype: np.dtype[Any]) -> None:
        if dtype != self.array.dtype:
            wider = np.empty(self.array.shape, dtype)
            wider[: self.length] = self.filled()  # what lies behind was never written, and may not even convert
            self.array = wider

    def filled(self) -> Array:
        return self.array[: self.length]

    def copy(self) -> _Rows:
        copied = _Rows(self.array[0], len(self.array))
        copied.array[:], copied.length = self.array, self.length
        return copied


def _grown(array: Array) -> Array:
    larger = np.empty((2 * len(array), *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger
