"""What every host of a steering rule shares: fixed width, units, noise and the report of what was done.

A host is where a rule is applied: around an Env, a VectorEnv, an SB3 VecEnv, a policy, or inside `evaluate`. All of
them call `Steering`, so that the same rule does the same everywhere, to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch as th
from gymnasium import Space, spaces

from offline_eval.batching import WIDTH, blocks, num_rows, take
from offline_eval.errors import InputError
from offline_eval.spaces import ActionScale
from offline_eval.types import Array, Observations, Rule

Metrics = dict[str, Array]

_NOISE_STREAM = 0x5EED
"""Keeps a rule's noise apart from an environment that is seeded with the same number."""


def noise_generator(seed: int | None, episode: int = 0) -> np.random.Generator:
    """The generator of one episode's noise; the same seed and episode number give the same noise on every host.

    Args:
        seed: the seed the episode was reset with; None draws a fresh one.
        episode: 0 for the episode that the seed started, then 1, 2, ... for those that follow without a new seed.
    """
    if seed is None:
        return np.random.default_rng()
    return np.random.default_rng([_NOISE_STREAM, seed, episode])


class Steering:
    """A rule on NumPy batches in the environment's units.

    Args:
        rule: what to do to an action.
        observation_space: of one environment; checked against the rule's critic.
        action_space: of one environment.
        width: rows of a padded batch; "auto" pads on the CPU (`offline_eval.batching`) and not elsewhere; None never.
    """

    def __init__(
        self,
        rule: Rule,
        observation_space: Space[Any] | None,
        action_space: Space[Any],
        width: int | str | None = "auto",
    ) -> None:
        rule.check(observation_space, action_space)
        if isinstance(width, str):
            if width != "auto":
                raise InputError("width", 'must be a number of rows, None or "auto"', width)
            width = WIDTH if rule.device.type == "cpu" else None
        self.rule, self.width, self.action_space = rule, width, action_space
        self.scale = ActionScale(action_space)
        self.action_dim = int(np.prod(action_space.shape or (1,)))
        self.noise_shape = rule.noise_shape(self.action_dim)

    def draw_noise(self, generators: Sequence[np.random.Generator]) -> Array | None:
        """One step's noise (batch, *noise_shape), each row from its episode's generator; None where none is used."""
        if not self.noise_shape:
            return None
        return np.stack([g.standard_normal(self.noise_shape, dtype=np.float32) for g in generators])

    def __call__(self, observations: Observations, actions: Array, noise: Array | None) -> tuple[Array, Metrics]:
        """Steer actions (batch, *action_shape).

        Returns:
            The steered actions, and what was done, each metric (batch,). A row that the rule leaves alone comes back
            with the very same bits.
        """
        if num_rows(observations) != len(actions):
            raise InputError("observations", f"must have one row an action ({len(actions)})", num_rows(observations))
        steered: list[Array] = []
        collected: dict[str, list[Array]] = {}
        for index, size in blocks(len(actions), self.width):
            block = None if noise is None else noise[index]
            after, metrics = self._block(take(observations, index), actions[index], block, self.rule.rows(index))
            steered.append(after[:size])
            for name, values in metrics.items():
                collected.setdefault(name, []).append(values[:size])
        return np.concatenate(steered), {name: np.concatenate(parts) for name, parts in collected.items()}

    def _block(
        self, observations: Observations, given: Array, noise: Array | None, rule: Rule
    ) -> tuple[Array, Metrics]:
        scaled = self.scale.scale(given.astype(np.float32, copy=False))
        before = th.as_tensor(scaled.reshape(len(given), -1), device=rule.device)
        result = rule(
            _to_device(observations, rule.device),
            before,
            None if noise is None else th.as_tensor(noise, device=rule.device),
        )
        # One transfer out: the actions, whether they changed, and the metrics, side by side.
        changed = (result.actions != before).any(dim=-1, keepdim=True)
        columns = [result.actions, changed, *(values[:, None] for values in result.metrics.values())]
        table = th.cat([column.detach().to(result.actions.dtype) for column in columns], dim=1).cpu().numpy()
        after = self.scale.unscale(table[:, : self.action_dim]).reshape(given.shape).astype(given.dtype, copy=False)
        changed_rows = table[:, self.action_dim].astype(bool).reshape(-1, *[1] * (given.ndim - 1))
        metrics = {name: table[:, self.action_dim + 1 + i] for i, name in enumerate(result.metrics)}
        return np.where(changed_rows, self._into_box(after), given), metrics

    def _into_box(self, actions: Array) -> Array:
        # Unscaling rounds: a scaled action of exactly 1 can leave the Box by one unit in the last place.
        if isinstance(self.action_space, spaces.Box):
            return np.clip(actions, self.action_space.low, self.action_space.high)
        return actions


def _to_device(observations: Observations, device: th.device) -> Any:
    if isinstance(observations, dict):
        return {key: _to_device(value, device) for key, value in observations.items()}
    if observations.dtype == np.float64:
        observations = observations.astype(np.float32)  # half the transfer; critics work in float32
    return th.as_tensor(observations, device=device)
