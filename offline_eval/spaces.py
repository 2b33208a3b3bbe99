"""Between the environment's action units and the scaled space in which critics and rules work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from offline_eval.errors import SpaceError
from offline_eval.types import Array

if TYPE_CHECKING:
    from gymnasium import Space
    from torch import Tensor

Numbers = TypeVar("Numbers", Array, "Tensor")


def check_observation_space(argument: str, space: Space[Any]) -> None:
    """Raise a SpaceError where observations are neither arrays nor a flat dict of them, as SB3's policies want."""
    from gymnasium import spaces

    plain = spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary
    parts = space.spaces.values() if isinstance(space, spaces.Dict) else [space]
    if not all(isinstance(part, plain) for part in parts):
        rule = "must be a Box, Discrete, MultiDiscrete or MultiBinary, or a Dict of those"
        raise SpaceError(argument, rule, space, "flatten it first: gymnasium.wrappers.FlattenObservation")


class ActionScale:
    """The map of a Box to [-1, 1] in its bounded dimensions; other dimensions and discrete actions stay as they are.

    Works on NumPy arrays and on tensors alike, with Stable-Baselines3's arithmetic. Pendulum's Box is [-2, 2]: a
    critic asked with unscaled actions answers without an error, and wrongly.
    """

    def __init__(self, action_space: Space[Any]) -> None:
        low = np.asarray(getattr(action_space, "low", ()), dtype=np.float32)
        high = np.asarray(getattr(action_space, "high", ()), dtype=np.float32)
        bounded = np.isfinite(low) & np.isfinite(high)
        self.action_space = action_space
        self.low = np.where(bounded, low, -1.0).astype(np.float32)
        self.high = np.where(bounded, high, 1.0).astype(np.float32)
        self.is_identity = not bounded.any() or bool(np.all(self.low == -1.0) and np.all(self.high == 1.0))
        # The bounds of the scaled space: infinite where the Box is.
        self.scaled_low = np.where(bounded, -1.0, -np.inf).astype(np.float32)
        self.scaled_high = np.where(bounded, 1.0, np.inf).astype(np.float32)
        self._sent: dict[tuple[Any, Any], tuple[Tensor, Tensor]] = {}

    def scale(self, actions: Numbers) -> Numbers:
        """Environment units to the scaled space, shape unchanged."""
        if self.is_identity:
            return actions
        low, high = self._bounds(actions)
        scaled: Numbers = 2.0 * ((actions - low) / (high - low)) - 1.0
        return scaled

    def unscale(self, actions: Numbers) -> Numbers:
        """The scaled space to environment units, shape unchanged."""
        if self.is_identity:
            return actions
        low, high = self._bounds(actions)
        unscaled: Numbers = low + (0.5 * (actions + 1.0) * (high - low))
        return unscaled

    def _bounds(self, like: Numbers) -> tuple[Any, Any]:
        if isinstance(like, np.ndarray):
            return self.low, self.high
        kind = like.device, like.dtype
        if kind not in self._sent:  # once: a GPU waits for numbers that come from ordinary memory
            import torch as th

            low, high = (th.as_tensor(bound, dtype=like.dtype, device=like.device) for bound in (self.low, self.high))
            self._sent[kind] = low, high
        return self._sent[kind]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_sent": {}}  # another process may lack the device
