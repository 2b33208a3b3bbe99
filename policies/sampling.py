"""Batches for gradient steps, a function of (seed, number of the step) and of the data alone.

Indices and noise are drawn in blocks of steps from a generator that is made anew for each block. A run that goes on
from a file therefore draws what an undisturbed one would have drawn, and a bad batch can be named afterwards.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch as th
from torch import Tensor

from offline_eval.errors import InputError, bare
from offline_eval.policies.transforms import Standard, flat_observations
from offline_eval.spaces import ActionScale
from offline_eval.types import Array, Batch

if TYPE_CHECKING:
    from stable_baselines3.common.buffers import ReplayBuffer

    from offline_eval.datasets.trajectories import Dataset
    from offline_eval.policies.values import ValueRule

_BATCH_STREAM = 0xBA7C4
"""Keeps batches apart from everything else that is seeded with the same number."""


class Rows(Protocol):
    """Transitions that can be gathered by number."""

    block_steps: int
    """Steps whose indices are drawn together; 1 where the number of rows grows."""

    def __len__(self) -> int: ...

    def gather(self, index: Array) -> Batch:
        """Transitions by number (n,), on the device, actions scaled and the rest transformed."""
        ...

    def transitions(self, index: Array) -> list[int]:
        """What the numbers (n,) are called outside: the data set's transitions, or the buffer's rows."""
        ...


class Transform:
    """What happens to observations and rewards on their way to the networks.

    Args:
        standard: of observations; None leaves them alone.
        reward_factor: what rewards are multiplied by.
        device: where the networks are.
    """

    def __init__(self, standard: Standard | None, reward_factor: float, device: th.device) -> None:
        self.standard, self.reward_factor = standard, reward_factor
        self._shift_and_factor: tuple[Tensor, Tensor] | None = None
        if standard is not None:
            self._shift_and_factor = (
                th.as_tensor(standard.mean, device=device),
                th.as_tensor(1.0 / standard.scale, device=device),
            )

    def observations(self, values: Tensor) -> Tensor:
        """float32, standardised where that was asked for."""
        values = values.float()
        if self._shift_and_factor is None:
            return values
        mean, inverse = self._shift_and_factor
        return (values - mean) * inverse

    def rewards(self, values: Tensor) -> Tensor:
        """float32, scaled."""
        values = values.float()
        return values if self.reward_factor == 1.0 else values * self.reward_factor


class DatasetRows:
    """The transitions of a data set, gathered from its arrays without a copy of them (on the CPU).

    Actions outside the box count as if they lay on its side: what an environment makes of them.

    Args:
        dataset: with flat observations and continuous actions.
        rule: which transitions and next actions it wants; None for cloning.
        transform: of observations and rewards.
        device: where batches go; another one than the CPU receives a copy of the arrays.
    """

    block_steps = 32

    def __init__(self, dataset: Dataset, rule: ValueRule | None, transform: Transform, device: th.device) -> None:
        store, scale = dataset.store, ActionScale(dataset.action_space)
        self._transform, self._scale = transform, scale
        self._action_shape = dataset.action_space.shape or ()
        rows, next_rows = dataset.transition_rows, dataset.next_action_rows
        self._numbers: Array | None = None
        observed = dataset.observation_rows
        given = None if rule is None else rule.next_actions(dataset)
        if given is not None:
            next_rows = np.arange(len(rows))
        if rule is not None and rule.needs_next_actions:
            known = (next_rows != rows) | store.terminated[rows]
            rows, next_rows, observed = rows[known], next_rows[known], observed[known]
            self._numbers = np.flatnonzero(known)
        if not len(rows):
            rule_broken = "must have transitions whose next action is known"
            raise InputError("dataset", rule_broken, bare("none"), "a recipe that needs none learns from it: iql")

        actions = store.actions.reshape(len(store.actions), -1)
        self._rows, self._observed, self._next_rows = (_tensor(x, device) for x in (rows, observed, next_rows))
        self._observations = _tensor(flat_observations(dataset), device)
        self._actions = _tensor(actions, device)
        self._next_actions = self._actions if given is None else _tensor(given.reshape(len(given), -1), device)
        self._rewards, self._terminated = _tensor(store.rewards, device), _tensor(store.terminated, device)
        self._device = device

    def __len__(self) -> int:
        return len(self._rows)

    def gather(self, index: Array) -> Batch:
        """Transitions by number."""
        chosen = th.as_tensor(index, device=self._device)
        rows, observed = self._rows[chosen], self._observed[chosen]
        return Batch(
            observations=self._transform.observations(self._observations.index_select(0, observed)),
            actions=self._scaled(self._actions.index_select(0, rows)),
            rewards=self._transform.rewards(self._rewards.index_select(0, rows)),
            next_observations=self._transform.observations(self._observations.index_select(0, observed + 1)),
            next_actions=self._scaled(self._next_actions.index_select(0, self._next_rows[chosen])),
            masks=1.0 - self._terminated.index_select(0, rows).float(),
        )

    def transitions(self, index: Array) -> list[int]:
        """Numbers of the data set's transitions."""
        numbers = index if self._numbers is None else self._numbers[index]
        return [int(number) for number in numbers]

    def _scaled(self, actions: Tensor) -> Tensor:
        return self._scale.scale(actions.float().view(-1, *self._action_shape)).flatten(1).clamp(-1.0, 1.0)


class BufferRows:
    """The transitions of an SB3 replay buffer, which grows; a timeout is not a termination.

    Args:
        buffer: its actions are scaled already.
        transform: of observations and rewards.
        device: where batches go.
    """

    block_steps = 1

    def __init__(self, buffer: ReplayBuffer, transform: Transform, device: th.device) -> None:
        self._buffer, self._transform, self._device = buffer, transform, device

    def __len__(self) -> int:
        return self._buffer.size() * self._buffer.n_envs

    def gather(self, index: Array) -> Batch:
        """Transitions by number."""
        buffer = self._buffer
        row, env = np.divmod(index, buffer.n_envs)
        ended = buffer.dones[row, env] * (1.0 - buffer.timeouts[row, env])
        actions = self._tensor(buffer.actions[row, env])
        return Batch(
            observations=self._transform.observations(self._tensor(buffer.observations[row, env])),
            actions=actions,
            rewards=self._transform.rewards(self._tensor(buffer.rewards[row, env])),
            next_observations=self._transform.observations(self._tensor(buffer.next_observations[row, env])),
            next_actions=actions,  # never read: a rule that wants them does not learn online
            masks=1.0 - self._tensor(ended),
        )

    def transitions(self, index: Array) -> list[int]:
        """Rows of the buffer."""
        return [int(number) for number in index]

    def _tensor(self, values: Array) -> Tensor:
        flat = values.reshape(len(values), -1) if values.ndim > 1 else values
        return th.as_tensor(flat, device=self._device).float()


class Sampler:
    """The batch of every step.

    Args:
        rows: what to draw from, uniformly, with replacement.
        seed: of indices and noise.
        batch_size: rows a step.
        noise_shape: standard normal numbers a row; () for none.
        device: where the noise goes.
    """

    def __init__(self, rows: Rows, seed: int, batch_size: int, noise_shape: tuple[int, ...], device: th.device) -> None:
        self._rows, self._seed, self._batch_size = rows, seed, batch_size
        self._noise_shape, self._device = noise_shape, device
        self._block: int | None = None
        self._batches: list[Batch] = []
        self._noise: Tensor | None = None

    def indices(self, number: int) -> Array:
        """The numbers (batch_size,) of the transitions in the batch of step `number` (from 0)."""
        block, within = divmod(number, self._rows.block_steps)
        drawn: Array = self._draw(self._generator(block))[within]
        return drawn

    def batch(self, number: int) -> tuple[Batch, Tensor | None]:
        """The batch of step `number` (from 0), and its noise (batch_size, *noise_shape)."""
        block, within = divmod(number, self._rows.block_steps)
        if block != self._block or self._rows.block_steps == 1:
            self._fill(block)
        return self._batches[within], None if self._noise is None else self._noise[within]

    def _fill(self, block: int) -> None:
        generator = self._generator(block)
        gathered = self._rows.gather(self._draw(generator).ravel())
        columns = [column.view(self._rows.block_steps, self._batch_size, *column.shape[1:]) for column in gathered]
        self._batches, self._block = [Batch(*parts) for parts in zip(*columns, strict=True)], block
        if self._noise_shape:
            shape = (self._rows.block_steps, self._batch_size, *self._noise_shape)
            self._noise = th.as_tensor(generator.standard_normal(shape, np.float32), device=self._device)

    def _generator(self, block: int) -> np.random.Generator:
        return np.random.default_rng([_BATCH_STREAM, self._seed, block])

    def _draw(self, generator: np.random.Generator) -> Array:
        drawn: Array = generator.integers(len(self._rows), size=(self._rows.block_steps, self._batch_size))
        return drawn


def _tensor(values: Array, device: th.device) -> Tensor:
    """A tensor on the same memory (on the CPU), also where that is a read-only map of a file."""
    with warnings.catch_warnings():
        # torch warns that writing would be undefined; nothing here writes.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return th.as_tensor(np.ascontiguousarray(values), device=device)
