"""Functions and modules of others as values: asked in their own units, their output checked and put in order."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch as th
from gymnasium import Space, spaces
from torch import Tensor

from offline_eval.errors import CriticError, bare

if TYPE_CHECKING:
    from offline_eval.types import TensorObservations

_NUM_PROBES = 3


class CheckedFunction:
    """A function (observations, actions) -> values; its output is checked once and put in the order (n_critics, batch).

    The check asks twice, with one row more the second time: the axis that grew is the batch. It also looks for values
    that are not finite; that waits for the device, which is why it happens once and not in every call.

    Args:
        function: see `offline_eval.policies.critic_of`.
        action_space: of the environment.
        to_units: from scaled actions to the units in which the function thinks; None where it thinks in scaled ones.
    """

    def __init__(
        self, function: Callable[..., Any], action_space: Space[Any], to_units: Callable[[Tensor], Tensor] | None
    ) -> None:
        self.function, self.action_space, self.to_units = function, action_space, to_units
        self._batch_axis: int | None = None

    def __call__(self, observations: TensorObservations, actions: Tensor) -> Tensor:
        """Values (n_critics, batch) of scaled actions (batch, action_dim), or of action indices (batch,)."""
        if self._batch_axis is None:
            self._check(observations, actions)
        values = self._ask(observations, actions)
        if values.ndim == 1:
            values = values[None]
        elif self._batch_axis == 0:
            values = values.T
        if values.ndim != 2 or values.shape[1] != len(actions):
            raise self._wrong(values.shape, len(actions))
        return values

    def try_out(self, observation_space: Space[Any], device: th.device) -> None:
        """Ask for the values of a few made-up observations."""
        scaled_shape = (
            (int(np.prod(self.action_space.shape or ())),) if isinstance(self.action_space, spaces.Box) else ()
        )
        observations = made_up_observations(observation_space, np.random.default_rng(0), device)
        self._check(observations, th.zeros(_NUM_PROBES, *scaled_shape, device=device))

    def _check(self, observations: TensorObservations, actions: Tensor) -> None:
        batch = len(actions)
        with th.no_grad():
            try:
                values = self._ask(observations, actions)
                longer = self._ask(_one_more(observations), _one_more(actions))
            except CriticError:
                raise
            except Exception as error:
                reason = f"{type(error).__name__}: {error}".partition("\n")[0]
                raise CriticError(
                    "model", "must accept (observations, actions)", bare(_shapes(observations, actions)), reason
                ) from error
            grown = [
                axis
                for axis, (a, b) in enumerate(zip(values.shape, longer.shape, strict=False))
                if (a, b) == (batch, batch + 1)
            ]
            if values.ndim not in (1, 2) or longer.ndim != values.ndim or len(grown) != 1:
                raise self._wrong(values.shape, batch)
            if not bool(values.isfinite().all()):
                raise CriticError(
                    "model",
                    "must return finite values",
                    bare(f"{int((~values.isfinite()).sum())} of {values.numel()} that are not"),
                )
        self._batch_axis = grown[0]

    def _ask(self, observations: TensorObservations, actions: Tensor) -> Tensor:
        if isinstance(self.action_space, spaces.Box):
            actions = actions.reshape(len(actions), *self.action_space.shape)
            actions = actions if self.to_units is None else self.to_units(actions)
        else:
            actions = actions.reshape(-1).long()
        values = self.function(observations, actions)
        if isinstance(values, tuple | list) and all(isinstance(value, Tensor) for value in values):
            values = th.stack([value.reshape(-1) for value in values])
        if not isinstance(values, Tensor) or not values.is_floating_point():
            kind = str(values.dtype) if isinstance(values, Tensor) else type(values).__name__
            raise CriticError("model", "must return a tensor of floats", bare(kind))
        return values

    def _wrong(self, shape: tuple[int, ...], batch: int) -> CriticError:
        return CriticError(
            "model",
            f"must return ({batch},), (n_critics, {batch}) or ({batch}, n_critics) for a batch of {batch}",
            bare(f"shape {tuple(shape)}"),
        )


def _one_more(rows: Any) -> Any:
    if isinstance(rows, Mapping):
        return {key: _one_more(value) for key, value in rows.items()}
    return th.cat([rows, rows[-1:]])


def made_up_observations(space: Space[Any], generator: np.random.Generator, device: th.device) -> Any:
    """A few observations near zero; an infinite Box, sampled as gymnasium does, overflows honest networks."""
    if isinstance(space, spaces.Dict):
        return {key: made_up_observations(part, generator, device) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Box):
        drawn = generator.standard_normal((_NUM_PROBES, *space.shape))
        drawn = np.clip(drawn, space.low, space.high).astype(space.dtype)
    else:
        space = copy.deepcopy(space)  # sampling moves a space's generator, and this one is not ours
        space.seed(0)
        drawn = np.stack([space.sample() for _ in range(_NUM_PROBES)])
    rows = th.as_tensor(drawn, device=device)
    return rows.float() if rows.dtype == th.float64 else rows


def _shapes(observations: TensorObservations, actions: Tensor) -> str:
    if isinstance(observations, Mapping):
        told = ", ".join(f"{key} {tuple(value.shape)}" for key, value in observations.items())
    else:
        told = str(tuple(observations.shape))
    return f"observations {told} and actions {tuple(actions.shape)}"
