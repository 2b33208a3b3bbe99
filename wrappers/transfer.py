"""Batches on their way to the device where a rule computes: in one piece."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch as th
from torch import Tensor

from offline_eval.types import Array

__all__ = ["in_one_piece", "to_device"]


def to_device(record: Any, device: th.device) -> Any:
    """Arrays, in dictionaries as deep as they come, as tensors of the same layout on `device`.

    Numbers of double precision arrive as float32. The CPU gets no copy; any other device gets everything of one dtype,
    which is nearly always everything, in a single transfer that nobody waits for.
    """
    arrays = [_single(array) for array in _leaves(record)]
    on_cpu = device.type == "cpu"
    return _like(record, iter([th.as_tensor(array) for array in arrays] if on_cpu else in_one_piece(arrays, device)))


def in_one_piece(arrays: Sequence[Array], device: th.device) -> list[Tensor]:
    """The arrays on a device, those of one dtype by a common buffer; from page-locked memory where that is a GPU."""
    arrived: dict[int, Tensor] = {}
    for dtype in dict.fromkeys(array.dtype for array in arrays):
        places = [place for place, array in enumerate(arrays) if array.dtype == dtype]
        parts = [th.from_numpy(np.ascontiguousarray(arrays[place]).reshape(-1)) for place in places]
        sizes = [len(part) for part in parts]
        # Page-locked, the copy runs beside the CPU, and PyTorch keeps the buffer until it is through.
        buffer = th.empty(sum(sizes), dtype=parts[0].dtype, pin_memory=device.type == "cuda")
        th.cat(parts, out=buffer)
        pieces = buffer.to(device, non_blocking=True).split(sizes)  # type: ignore[no-untyped-call]
        arrived |= {place: piece.view(arrays[place].shape) for place, piece in zip(places, pieces, strict=True)}
    return [arrived[place] for place in range(len(arrays))]


def _single(array: Array) -> Array:
    # Half the transfer; critics work in float32.
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _leaves(record: Any) -> Iterator[Array]:
    if not isinstance(record, dict):
        yield np.asarray(record)
        return
    for part in record.values():
        yield from _leaves(part)


def _like(record: Any, tensors: Iterator[Tensor]) -> Any:
    return {key: _like(part, tensors) for key, part in record.items()} if isinstance(record, dict) else next(tensors)
