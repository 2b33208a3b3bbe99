"""How a policy acts for many seats at once: fixed width, recurrent state, steering and its noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium import Space

from offline_eval.batching import take
from offline_eval.types import Array, FloatArray, Observations, Predictor
from offline_eval.wrappers.host import Steering, noise_generator


class Played(NamedTuple):
    """What steers an episode.

    Attributes:
        steering: a rule on its host, None for the policy as it is.
        row: the episode's entry where the rule holds several; None where it has one for each seat, or one for all.
    """

    steering: Steering | None
    row: int | None = None


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
    """

    def __init__(
        self,
        policy: Predictor,
        played: Sequence[Played],
        observation_space: Space[Any],
        num_seats: int,
        width: int | None,
        deterministic: bool,
    ) -> None:
        self.policy, self.deterministic = policy, deterministic
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
        """A new episode at this seat, steered by the given one of `played`."""
        self._starts[seat] = True
        self._by[seat] = self._played[number]
        steering = self._by[seat].steering
        self._generators[seat] = None if steering is None else noise_generator(seed)
        if steering is not None:
            steering.begin([seat])
        for totals in self._totals[steering].values():
            totals[seat] = 0.0
        self.see(seat, observation)

    def see(self, seat: int, observation: Any) -> None:
        """What this seat's environment shows now."""
        if isinstance(self._observations, dict):
            for key, rows in self._observations.items():
                rows[seat] = observation[key]
        else:
            self._observations[seat] = observation

    def reported(self, seat: int, num_steps: int) -> dict[str, float]:
        """What the rule reported at this seat, mean over the steps of its episode."""
        totals = self._totals[self._by[seat].steering]
        return {name: float(values[seat]) / num_steps for name, values in totals.items()}

    def act(self, live: Sequence[int]) -> tuple[Array, Array]:
        """Act for the live seats.

        Returns:
            The policy's actions and the executed ones, both (num_seats, *action_shape).
        """
        parts = []
        for number, block in enumerate(self._blocks):
            actions, self._states[number] = self.policy.predict(
                take(self._observations, block),
                state=self._states[number],
                episode_start=self._starts[block],
                deterministic=self.deterministic,
            )
            parts.append(actions)
        chosen = np.concatenate(parts)[: self._num_seats]
        self._starts[:] = True
        self._starts[live] = False
        groups: dict[Steering, list[int]] = {}
        for seat in live:
            steering = self._by[seat].steering
            if steering is not None:
                groups.setdefault(steering, []).append(seat)
        if not groups:
            return chosen, chosen
        executed = chosen.copy()
        for steering, seats in groups.items():
            executed[seats] = self._steer(steering, chosen, seats)
        return chosen, executed

    def _steer(self, steering: Steering, chosen: Array, seats: list[int]) -> Array:
        seated = np.asarray(seats)
        noise = steering.draw_noise([self._generators[seat] for seat in seats])  # type: ignore[misc]
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
