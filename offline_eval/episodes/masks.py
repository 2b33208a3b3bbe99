"""Which actions are allowed: asked of the environments before each step, for a policy that wants to know."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from offline_eval.episodes.seats import Seats
from offline_eval.errors import InputError, bare
from offline_eval.masking import MASKS
from offline_eval.types import Array


class ActionMasks:
    """The masks of all rows of a batch; a row without an episode may do everything.

    Args:
        seats: whose environments have a method `action_masks`, as sb3-contrib's MaskablePPO expects.
    """

    def __init__(self, seats: Seats) -> None:
        self._seats, self._were_given, self._size = seats, False, 0

    def __call__(self, live: Sequence[int], num_rows: int) -> tuple[Array, dict[int, Exception]]:
        """Masks (num_rows, number of all choices), True where the choice is allowed; and by seat why there is none.

        Raises:
            InputError: the environment does not say it.
        """
        try:
            masks = self._seats.call(MASKS, live)
        except AttributeError as error:
            if self._were_given:  # an error inside the method
                raise
            raise InputError(
                "env",
                f"must have a method `{MASKS}` for a policy that asks which actions are allowed",
                bare("an environment without it"),
                "wrap it as in training (sb3-contrib's ActionMasker); a mask may be all True",
            ) from error
        self._were_given = True
        errors = {seat: mask for seat, mask in masks.items() if isinstance(mask, Exception)}
        flat = {seat: np.asarray(mask, dtype=bool).ravel() for seat, mask in masks.items() if seat not in errors}
        self._size = max([self._size, *(len(mask) for mask in flat.values())])
        rows = np.ones((num_rows, self._size), dtype=bool)
        for seat, mask in flat.items():
            if len(mask) == self._size:
                rows[seat] = mask
            else:
                errors[seat] = ValueError(f"`{MASKS}` has {len(mask)} entries, and had {self._size}")
        return rows, errors
