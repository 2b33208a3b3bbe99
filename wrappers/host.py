"""What every host of a steering rule shares: fixed width, units, noise and the report of what was done.

A host is where a rule is applied: around an Env, a VectorEnv, an SB3 VecEnv, a policy, or inside `evaluate`. All of
them call `Steering`, so that the same rule does the same everywhere, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch as th
from gymnasium import Space, spaces

from offline_eval.batching import WIDTH, num_rows, take
from offline_eval.errors import CriticError, InputError, bare
from offline_eval.spaces import ActionScale
from offline_eval.types import Array, Observations, Rule
from offline_eval.wrappers.remembering import begin, reserve, started, width_of
from offline_eval.wrappers.transfer import to_device

Metrics = dict[str, Array]

PREFIX = "steering/"
"""What the names of metrics begin with in an `info`."""

EXECUTED = "steering/executed_action"
"""The `info` key of the action that the environment got; what a logger around the host writes beside the policy's."""

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


class EpisodeNoise:
    """The current episode's generator of each row of a host.

    Args:
        num_rows: of the host.
        on_begin: told of the rows at which episodes begin, as `Steering.begin` wants to be.
    """

    def __init__(self, num_rows: int, on_begin: Callable[[Iterable[Any]], None]) -> None:
        self._on_begin = on_begin
        self._seeds: list[int | None] = [None] * num_rows
        self._episodes = [0] * num_rows
        self._generators = [noise_generator(None) for _ in range(num_rows)]

    def begin(self, rows: Iterable[Any], seeds: Sequence[int | None] | None = None) -> None:
        """New episodes at `rows`.

        Args:
            rows: their numbers.
            seeds: one for each row of the host; None, here or as an entry, goes on to the next episode of the seed
                before.
        """
        for row in rows:
            seed = None if seeds is None else seeds[row]
            if seed is None:
                self._episodes[row] += 1
            else:
                self._seeds[row], self._episodes[row] = int(seed), 0
            self._generators[row] = noise_generator(self._seeds[row], self._episodes[row])
        self._on_begin(rows)

    def of(self, rows: Iterable[Any]) -> list[np.random.Generator]:
        """The generators of these rows."""
        return [self._generators[row] for row in rows]


class Steering:
    """A rule on NumPy batches in the environment's units.

    Args:
        rule: what to do to an action.
        observation_space: of one environment; checked against the rule's critic.
        action_space: of one environment.
        width: rows of a padded batch; "auto" pads to `WIDTH` on the CPU (`offline_eval.batching` says why) and not
            elsewhere; None never.
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
        self.rule = started(rule)
        self.width, self.action_space = width and (width_of(self.rule) or width), action_space
        self.scale = ActionScale(action_space)
        self.action_dim = int(np.prod(action_space.shape or (1,)))
        self.noise_shape = rule.noise_shape(self.action_dim)
        self._box = self.scale.scaled_low.ravel(), self.scale.scaled_high.ravel()
        self._is_discrete = isinstance(action_space, spaces.Discrete)
        if isinstance(action_space, spaces.Discrete):
            self._box = np.zeros(1, np.float32), np.full(1, action_space.n - 1, np.float32)
        self._is_first_batch, self._room = True, 0

    def draw_noise(self, generators: Sequence[np.random.Generator]) -> Array | None:
        """One step's noise (batch, *noise_shape), each row from its episode's generator; None where none is used."""
        if not self.noise_shape:
            return None
        return np.stack([g.standard_normal(self.noise_shape, dtype=np.float32) for g in generators])

    def begin(self, rows: Iterable[Any]) -> None:
        """New episodes at these rows of the host: what a rule learnt in the one before may be forgotten."""
        begin(self.rule, rows)

    def check_rows(self, num_rows: int) -> None:
        """Raise an InputError where the rule has one entry a row and not for this number of rows, or has no room."""
        if num_rows > self._room:  # asked once: what a rule can do is looked up method by method
            reserve(self.rule, num_rows)
            self._room = num_rows
        if self.rule.num_rows not in (None, num_rows):
            raise InputError(
                "rule",
                f"must have one entry a row, here {num_rows}",
                bare(f"{self.rule.num_rows} entries"),
                "a single number serves any number of rows",
            )

    def __call__(
        self, observations: Observations, actions: Array, noise: Array | None, rows: Array | None = None
    ) -> tuple[Array, Metrics]:
        """Steer actions (batch, *action_shape).

        Args:
            observations: what the actions answer, one row each.
            actions: in the environment's units.
            noise: what `draw_noise` gave.
            rows: which rows of the host these are, where a host steers only some of its rows and the rule has one
                entry for each of all of them; None where the batch is all there is.

        Returns:
            The steered actions, and what was done, each metric (batch,) float32 (`offline_eval.wrappers.steering`
            lists them). A row that the rule leaves alone comes back with the very same bits.

        Raises:
            CriticError: the critic returns the wrong shape, or NaN on the first batch.
        """
        size = len(actions)
        if num_rows(observations) != size:
            raise InputError("observations", f"must have one row an action ({size})", num_rows(observations))
        if rows is None:
            self.check_rows(size)
            rows = np.arange(size)
        dtype = actions.dtype
        if dtype.kind != "f":
            actions = actions.astype(np.float32)
        scaled = self.scale.scale(actions.astype(np.float32, copy=False)).reshape(size, -1)

        # Padded rows repeat the last one: a real row keeps the padding finite.
        width = self.width or size
        padded = np.minimum(np.arange(-(-size // width) * width), size - 1)
        # One transfer in, whatever a rule wants to know.
        sent: dict[str, Any] = {"seen": take(observations, padded), "given": scaled[padded]}
        arrived = to_device(sent if noise is None else {**sent, "drawn": noise[padded]}, self.rule.device)
        seen, given, drawn = arrived["seen"], arrived["given"], arrived.get("drawn")
        tables, names = [], []
        for start in range(0, len(padded), width):
            block = slice(start, start + width)
            rule = self.rule.rows(rows[padded[block]])
            steered = rule(_block(seen, block), given[block], None if drawn is None else drawn[block])
            names = list(steered.metrics)
            columns = [steered.actions, *(values[:, None] for values in steered.metrics.values())]
            tables.append(th.cat(columns, dim=1).detach())
        # One transfer out: the actions and the metrics, side by side.
        table = (th.cat(tables) if len(tables) > 1 else tables[0])[:size].to("cpu", given.dtype).numpy()
        metrics = {name: table[:, self.action_dim + number] for number, name in enumerate(names)}
        after, measured = self._finish(actions, scaled, table[:, : self.action_dim], metrics)
        return (after.astype(dtype) if self._is_discrete else after), measured

    def _finish(self, actions: Array, scaled: Array, proposed: Array, metrics: Metrics) -> tuple[Array, Metrics]:
        """Back into the box and the environment's units; what the rule did, measured."""
        changed = (proposed != scaled).any(axis=1)
        low, high = self._box
        projected = np.minimum(np.maximum(proposed, low), high)
        way = (projected - scaled) * changed[:, None]
        if self._is_discrete:
            way = np.sign(way)  # any other action is one step away
        measured = {"displacement": np.sqrt((way * way).sum(axis=1)), **metrics}
        if "clipped" not in metrics:
            measured["clipped"] = ((projected != proposed) & changed[:, None]).mean(axis=1, dtype=np.float32)
        gain = metrics.get("predicted_gain")
        if gain is not None:
            unknown = np.isnan(gain)
            if self._is_first_batch and unknown.any():
                raise CriticError(
                    "critic",
                    "must return finite values",
                    bare(f"NaN or infinity for {int(unknown.sum())} of the first {len(gain)} rows"),
                    "check its weights, and that it was made for these observations",
                )
            measured["predicted_gain"] = np.where(unknown, np.float32(0.0), gain)
        self._is_first_batch = False
        after = self.scale.unscale(projected.reshape(actions.shape)).astype(actions.dtype, copy=False)
        if not self.scale.is_identity and isinstance(self.action_space, spaces.Box):
            # Unscaling rounds: a scaled action of exactly 1 can leave the Box by one unit in the last place.
            after = np.clip(after, self.action_space.low, self.action_space.high)
        return np.where(changed.reshape(-1, *[1] * (actions.ndim - 1)), after, actions), measured


def batch_of_one(observation: Any) -> Observations:
    """One observation as a batch with a single row."""
    if isinstance(observation, dict):
        return {key: np.asarray(value)[None] for key, value in observation.items()}
    return np.asarray(observation)[None]


def _block(rows: Any, block: slice) -> Any:
    return {key: value[block] for key, value in rows.items()} if isinstance(rows, dict) else rows[block]
