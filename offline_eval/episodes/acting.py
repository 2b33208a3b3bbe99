"""How a policy acts for many seats at once: fixed width, recurrent state, steering and its noise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium import Space

from offline_eval.batching import take
from offline_eval.episodes.masks import ActionMasks
from offline_eval.errors import OfflineEvalError
from offline_eval.masking import MASKS
from offline_eval.spaces import check_observation_space
from offline_eval.types import Array, FloatArray, Observations, Predictor, Remembering
from offline_eval.wrappers.host import Steering, noise_generator


class Played(NamedTuple):
    """What steers an episode.

    Attributes:
        steering: a rule on its host, None for the policy as it is.
        row: the episode's entry where the rule holds several; None where it has one for each seat, or one for all.
    """

    steering: Steering | None
    row: int | None = None


class Acted(NamedTuple):
    """What a policy did at the live seats.

    Attributes:
        chosen: the policy's actions (num_seats, *action_shape); the row of a seat that failed is another's.
        executed: the same after steering.
        errors: by seat, why there is no action for what it shows. Its episode failed, the others' rows are what they
            would be without it.
    """

    chosen: Array
    executed: Array
    errors: dict[int, Exception]


class Acting:
    """A policy, and the rules that steer it, at `num_seats` seats.

    Seats keep their row in their block, and a row without an episode is fed with zeros, so that a recurrent policy's
    state stays where it belongs whatever the number of live seats.

    Args:
        policy: anything with SB3's `predict`.
        played: what an episode may be steered by; each says at its beginning by which.
        observation_space: of one environment.
        num_seats: environments side by side.
        width: rows of a padded batch, None for one batch of `num_seats` rows.
        deterministic: the policy's mean action, or a draw.
        masks: which actions are allowed, for a policy that wants to know.

    Raises:
        SpaceError: observations that no policy takes: a Tuple, a Dict within a Dict, text.
    """

    def __init__(
        self,
        policy: Predictor,
        played: Sequence[Played],
        observation_space: Space[Any],
        num_seats: int,
        width: int | None,
        deterministic: bool,
        masks: ActionMasks | None = None,
    ) -> None:
        check_observation_space("observation_space", observation_space)
        self.policy, self.deterministic, self._masks = policy, deterministic, masks
        self._told: dict[str, Array] = {}
        width = width or num_seats
        num_rows = -(-num_seats // width) * width
        self._blocks = np.arange(num_rows).reshape(-1, width)
        self._num_seats = num_seats
        self._observations = _zeros(observation_space, num_rows)
        self._starts = np.ones(num_rows, dtype=bool)
        self._states: list[Any] = [None] * len(self._blocks)
        self._generators: list[np.random.Generator | None] = [None] * num_rows
        self._played = list(played)
        self._by = [self._played[0]] * num_rows
        self._totals: dict[Steering | None, dict[str, FloatArray]] = {by.steering: {} for by in self._played}

    def begin(self, seat: int, observation: Any, seed: int, number: int = 0) -> None:
        """A new episode at this seat, steered by the given one of `played`.

        Raises:
            Exception: whatever keeps the observation from being one of the space.
        """
        self._starts[seat] = True
        self._by[seat] = self._played[number]
        steering = self._by[seat].steering
        self._generators[seat] = None if steering is None else noise_generator(seed)
        if steering is not None:
            steering.begin([seat])
        for totals in self._totals[steering].values():
            totals[seat] = 0.0
        self.see(seat, observation)

    def see(self, seat: int, observation: Any, anew: bool = False) -> None:
        """What this seat's environment shows now, `anew` after a reset; raises as `begin` does."""
        self._starts[seat] |= anew
        if isinstance(self._observations, dict):
            for key, rows in self._observations.items():
                _put(rows, seat, observation[key])
        else:
            _put(self._observations, seat, observation)

    def leave(self, seat: int) -> None:
        """Forget what this seat's environment showed: its episode failed, and what it left behind may be NaN."""
        self._fill([seat], None)
        block = int(np.flatnonzero((self._blocks == seat).any(axis=1))[0])
        # A recurrent state of NaN would outlive the episode: 0 times NaN is NaN.
        self._states[block] = _each(self._states[block], _finite)

    def reported(self, seat: int, num_steps: int) -> dict[str, float]:
        """What the rule reported at this seat, mean over the steps of its episode."""
        totals = self._totals[self._by[seat].steering]
        return {name: float(values[seat]) / num_steps for name, values in totals.items()}

    def act(self, live: Sequence[int]) -> Acted:
        """Act for the live seats.

        Whatever a foreign policy raises is the failure of the episodes that make it raise; what this package raises on
        purpose goes up.
        """
        errors = self._unreadable(live)
        if self._masks is not None:
            self._told[MASKS], unmasked = self._masks(live, len(self._starts))
            errors.update(unmasked)
        if errors:
            self._fill(errors, next((seat for seat in live if seat not in errors), None))
        parts = [self._ask(number, live, errors) for number in range(len(self._blocks))]
        known = next((part for part in parts if part is not None), None)
        self._starts[:] = True
        self._starts[live] = False
        if known is None:
            nothing = np.zeros((self._num_seats, 0))
            return Acted(nothing, nothing, errors)
        stand_in = np.repeat(known[:1], len(known), axis=0)
        chosen = np.concatenate([stand_in if part is None else part for part in parts])[: self._num_seats]
        if chosen.dtype.kind == "f" and np.isnan(chosen).any():
            unknown = np.isnan(chosen.reshape(len(chosen), -1)).any(axis=1)
            for seat in live:
                if unknown[seat]:
                    errors.setdefault(seat, ValueError("the policy's action holds NaN"))
            chosen[unknown] = 0.0 if unknown.all() else chosen[~unknown][0]
        return self._steered(chosen, [seat for seat in live if seat not in errors], errors)

    def _unreadable(self, live: Sequence[int]) -> dict[int, Exception]:
        """Seats that show NaN: no policy has an answer, and some raise for the whole batch."""
        parts = self._observations if isinstance(self._observations, dict) else {"": self._observations}
        errors: dict[int, Exception] = {}
        for key, rows in parts.items():
            if rows.dtype.kind == "f" and np.isnan(rows).any():
                for seat in live:
                    if np.isnan(rows[seat]).any():
                        errors[seat] = ValueError(f"the observation{f' {key!r}' if key else ''} holds NaN")
        return errors

    def _ask(self, number: int, live: Sequence[int], errors: dict[int, Exception]) -> Array | None:
        """A block's actions; None where every seat of it is among the errors, which grow by what the policy raises."""
        block = self._blocks[number]
        asked = [seat for seat in live if block[0] <= seat <= block[-1] and seat not in errors]
        try:
            actions, self._states[number] = self._predict(number, block)
            return actions
        except OfflineEvalError:
            raise
        except Exception as error:  # of a foreign policy
            if not asked:
                return None
            last = error
        # Rows of a batch don't know each other: with one observation in every row, each seat answers for itself.
        for seat in asked:
            try:
                self._predict(number, np.full_like(block, seat))
            except Exception as error:
                errors[seat] = error
        innocent = [seat for seat in asked if seat not in errors]
        if innocent:
            self._fill([row for row in block if row not in innocent], innocent[0])
            try:
                actions, self._states[number] = self._predict(number, block)
                return actions
            except Exception as error:
                last = error
        errors.update(dict.fromkeys(innocent, last))
        return None

    def _predict(self, number: int, rows: Array) -> tuple[Array, Any]:
        """The policy's actions for the observations in these rows, and its next state; copies, as it may keep both."""
        actions, state = self.policy.predict(
            take(self._observations, rows),
            state=_each(self._states[number], np.array),
            episode_start=self._starts[self._blocks[number]],
            deterministic=self.deterministic,
            **{name: values[rows] for name, values in self._told.items()},
        )
        actions = np.array(actions)
        if actions.ndim == 0 or len(actions) != len(rows):
            raise ValueError(f"`predict` gave actions of shape {actions.shape} for {len(rows)} observations")
        return actions, _each(state, np.array)

    def _fill(self, rows: Iterable[int], like: int | None) -> None:
        """Show the policy another row's observation in these rows, or zeros."""
        parts = self._observations.values() if isinstance(self._observations, dict) else [self._observations]
        for part in parts:
            part[list(rows)] = 0 if like is None else part[like]

    def _steered(self, chosen: Array, live: Sequence[int], errors: dict[int, Exception]) -> Acted:
        groups: dict[Steering, list[int]] = {}
        for seat in live:
            steering = self._by[seat].steering
            if steering is not None:
                groups.setdefault(steering, []).append(seat)
        if not groups:
            return Acted(chosen, chosen, errors)
        executed = chosen.copy()
        for steering, seats in groups.items():
            noise = steering.draw_noise([self._generators[seat] for seat in seats])  # type: ignore[misc]
            try:
                executed[seats] = self._steer(steering, chosen, seats, noise)
                continue
            except OfflineEvalError:
                raise
            except Exception as error:  # of a foreign critic
                if isinstance(steering.rule, Remembering):  # it may have learnt from some of the rows: ask no twice
                    errors.update(dict.fromkeys(seats, error))
                    continue
            for row, seat in enumerate(seats):
                try:
                    alone = None if noise is None else noise[row : row + 1]
                    executed[seat] = self._steer(steering, chosen, [seat], alone)[0]
                except Exception as error:
                    errors[seat] = error
        return Acted(chosen, executed, errors)

    def _steer(self, steering: Steering, chosen: Array, seats: list[int], noise: Array | None) -> Array:
        seated = np.asarray(seats)
        entries = np.array([seat if self._by[seat].row is None else self._by[seat].row for seat in seats])
        steered, metrics = steering(take(self._observations, seated), chosen[seated], noise, entries)
        totals = self._totals[steering]
        for name, values in metrics.items():
            totals.setdefault(name, np.zeros(self._num_seats))[seated] += values
        return steered


def _zeros(space: Space[Any], num_rows: int) -> Observations:
    if hasattr(space, "spaces"):
        return {key: _zeros(part, num_rows) for key, part in space.spaces.items()}  # type: ignore[misc]
    return np.zeros((num_rows, *(space.shape or ())), dtype=space.dtype)


def _put(rows: Array, seat: int, value: Any) -> None:
    """A row; NumPy would also stretch a single number over it."""
    shape, room = np.shape(value), rows.shape[1:]
    if shape != room and np.prod(shape) != np.prod(room):
        raise ValueError(f"an observation of shape {shape}, where the space has {room}")
    rows[seat] = value


def _each(state: Any, change: Any) -> Any:
    """A recurrent state with every array in it changed."""
    if isinstance(state, tuple | list):
        parts = [_each(part, change) for part in state]
        return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)
    if isinstance(state, Mapping):
        return {key: _each(part, change) for key, part in state.items()}
    return change(state) if isinstance(state, np.ndarray) else state


def _finite(array: Array) -> Array:
    return np.where(np.isfinite(array), array, 0) if array.dtype.kind == "f" else array
