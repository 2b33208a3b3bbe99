"""Weights of which every environment has its own, beside its optimiser's moments; and whether they fit into memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch as th
from torch import Tensor

from offline_eval.errors import InputError, bare
from offline_eval.types import Array
from offline_eval.wrappers.learning import Optimizer

__all__ = ["FastWeights", "check_memory", "free_memory"]

BYTES = 4  # of a float32


class FastWeights:
    """One vector of weights a row, with its moments and the number of its steps.

    Args:
        frozen: the weights to begin with, by name.
        optimizer: says how many moments there are.
        device: where they lie.
    """

    def __init__(self, frozen: Mapping[str, Tensor], optimizer: Optimizer, device: th.device) -> None:
        self._shapes = {name: value.shape for name, value in frozen.items()}
        self._sizes = [value.numel() for value in frozen.values()]
        self.size = sum(self._sizes)
        self.frozen = self._vector(frozen)
        self._weights = th.zeros(0, self.size, device=device)
        self._moments = tuple(th.zeros(0, self.size, device=device) for _ in range(optimizer.num_moments))
        self._steps = th.zeros(0, 1, device=device)

    @property
    def num_rows(self) -> int:
        """Rows for which there is room."""
        return len(self._weights)

    @property
    def numbers_per_row(self) -> int:
        """Weights, moments, the number of steps, and the gradient while it is computed."""
        return self.size * (2 + len(self._moments)) + 1

    def reserve(self, num_rows: int) -> None:
        """Room for so many rows; new ones hold the frozen weights."""
        more = num_rows - len(self._weights)
        if more <= 0:
            return
        self._weights = th.cat([self._weights, self.frozen.expand(more, -1)])
        self._moments = tuple(th.cat([kept, kept.new_zeros(more, self.size)]) for kept in self._moments)
        self._steps = th.cat([self._steps, self._steps.new_zeros(more, 1)])

    def refresh(self, frozen: Mapping[str, Tensor]) -> None:
        """The frozen weights as they are now: a model may have learnt between two episodes."""
        self.frozen = self._vector(frozen)

    def forget(self, rows: Array) -> None:
        """These rows begin again with the frozen weights."""
        at = th.as_tensor(rows, device=self._weights.device)
        self._weights[at] = self.frozen
        for kept in self._moments:
            kept[at] = 0.0
        self._steps[at] = 0.0

    def of(self, rows: Tensor) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        """Weights (rows, size), moments alike, and steps (rows, 1)."""
        return self._weights[rows], tuple(kept[rows] for kept in self._moments), self._steps[rows]

    def put(self, rows: Tensor, weights: Tensor, moments: tuple[Tensor, ...], steps: Tensor) -> None:
        """Keep what was computed for these rows; whatever lies behind the last of them is left out."""
        num_rows = len(rows)
        self._weights[rows] = weights[:num_rows]
        for kept, new in zip(self._moments, moments, strict=True):
            kept[rows] = new[:num_rows]
        self._steps[rows] = steps[:num_rows]

    def by_name(self, weights: Tensor) -> dict[str, Tensor]:
        """Weights (rows, size) as parameters (rows, *shape)."""
        parts = th.split(weights, self._sizes, dim=1)
        return {name: part.view(-1, *shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}

    def _vector(self, parameters: Mapping[str, Tensor]) -> Tensor:
        return th.cat([parameters[name].detach().reshape(-1).float() for name in self._shapes])


def check_memory(num_rows: int, numbers_per_row: int, device: th.device) -> None:
    """Raise an InputError where `num_rows` rows of float32 numbers would not fit into the device's free memory."""
    wanted, free = num_rows * numbers_per_row * BYTES, free_memory(device)
    if free is not None and wanted > free:
        raise InputError(
            "n_envs",
            f"must leave room for the fast weights: {num_rows} environments need {_size(wanted)} on {device}, "
            f"{_size(numbers_per_row * BYTES)} each",
            bare(f"{_size(free)} free"),
            "fewer environments side by side, LastLayer(), or a Replay of a smaller capacity",
        )


def free_memory(device: th.device) -> int | None:
    """Free bytes of a device; None where the system does not say."""
    if device.type == "cuda":
        return int(th.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found = dict(line.split(":", 1) for line in lines)
        return int(found["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _size(num_bytes: int) -> str:
    for unit in ("bytes", "kB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes = num_bytes / 1000  # type: ignore[assignment]
    return f"{num_bytes:.3g} GB"
