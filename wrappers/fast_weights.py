"""Weights of which every environment has its own, beside its optimiser's moments; and whether they fit into memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch as th
from torch import Tensor

from offline_eval.errors import InputError, bare
from offline_eval.types import Array
from offline_eval.wrappers.learning import Optimizer
from offline_eval.wrappers.transfer import to_device

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
        # Of a row: the weights, each of the moments, the number of steps.
        self._widths = [self.size] * (1 + optimizer.num_moments) + [1]
        self._tables = [th.zeros(0, width, device=device) for width in self._widths]
        self.refresh(frozen)

    @property
    def num_rows(self) -> int:
        """Rows for which there is room."""
        return len(self._tables[0])

    @property
    def numbers_per_row(self) -> int:
        """Numbers that are kept of a row, and its gradient while it is computed."""
        return sum(self._widths) + self.size

    def reserve(self, num_rows: int) -> None:
        """Room for so many rows; new ones hold the frozen weights."""
        more = num_rows - self.num_rows
        if more > 0:
            pairs = zip(self._tables, self.fresh, strict=True)
            self._tables = [th.cat([table, fresh.expand(more, -1)]) for table, fresh in pairs]

    def refresh(self, frozen: Mapping[str, Tensor]) -> None:
        """The frozen weights as they are now: a model may have learnt between two episodes."""
        self.frozen = th.cat([frozen[name].detach().reshape(-1).float() for name in self._shapes])
        self.fresh = [self.frozen, *(self.frozen.new_zeros(width) for width in self._widths[1:])]
        """A row before its first step."""

    def forget(self, rows: Array) -> None:
        """These rows begin again with the frozen weights."""
        index = to_device(rows, self.frozen.device)
        for table, fresh in zip(self._tables, self.fresh, strict=True):
            table[index] = fresh

    def of(self, rows: Tensor) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
        """Weights (rows, size), moments alike, and steps (rows, 1)."""
        weights, *moments, steps = (table.index_select(0, rows) for table in self._tables)
        return weights, tuple(moments), steps

    def put(self, rows: Tensor, usable: Tensor, weights: Tensor, moments: tuple[Tensor, ...], steps: Tensor) -> None:
        """Keep what was computed for these rows, and begin again where it is not `usable` (batch,).

        What lies behind the last of the rows, padding, is left out.
        """
        # No choice of rows by a mask: a GPU would have to be waited for.
        kept = usable[: len(rows), None]
        for table, fresh, after in zip(self._tables, self.fresh, (weights, *moments, steps), strict=True):
            table[rows] = th.where(kept, after[: len(rows)], fresh)

    def by_name(self, weights: Tensor) -> dict[str, Tensor]:
        """Weights (rows, size) as parameters (rows, *shape)."""
        parts = th.split(weights, self._sizes, dim=1)
        return {name: part.view(-1, *shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}


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
