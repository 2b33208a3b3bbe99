"""Networks that a file describes, built only as far as its weights could fill them.

`n_critics`, `net_arch`, `n_quantiles`: any number of a file can ask for more memory than there is. What tells its true
size is its weights, which have been read by then.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_FACTORIES = {
    "empty", "empty_strided", "zeros", "ones", "full", "rand", "randn", "eye", "arange", "linspace", "normal",
    "new_empty", "new_empty_strided", "new_zeros", "new_ones", "new_full",
}  # fmt: skip
# An agent's own networks take one call a tensor, and their bytes once or twice.
_TIMES = 4
_SPARE_BYTES = 64 * 2**20
_CALLS_PER_TENSOR = 10
_SPARE_CALLS = 500


class TooLarge(Exception):
    """Networks would be larger than the weights that are to fill them."""


class AllocationLimit(TorchDispatchMode):
    """While it is entered, torch makes tensors of four times the weights' bytes, and 64 MiB, and no more.

    Args:
        weights: what the networks are made for.

    Raises:
        TooLarge: while entered, by the call that would exceed it, before it allocates anything.
    """

    def __init__(self, weights: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        tensors = list(weights)
        self._held = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        self._most_bytes = _TIMES * self._held + _SPARE_BYTES
        self._most_calls = _CALLS_PER_TENSOR * len(tensors) + _SPARE_CALLS
        self._bytes, self._calls, self._num_tensors = 0, 0, len(tensors)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Count what a factory is about to make."""
        if func.overloadpacket.__name__ in _FACTORIES:
            self._calls += 1
            self._bytes += 4 * _num_entries(args)
            if self._bytes > self._most_bytes or self._calls > self._most_calls:
                raise TooLarge(
                    f"they would be far larger than its weights, which have {self._held} bytes in "
                    f"{self._num_tensors} tensors"
                )
        return func(*args, **(kwargs or {}))


def _num_entries(args: tuple[Any, ...]) -> int:
    """Entries of the tensor that a factory's arguments describe."""
    sizes = next((arg for arg in args if isinstance(arg, list | tuple)), None)
    if sizes is None:
        sizes = [arg for arg in args if isinstance(arg, int)]
    return math.prod(int(size) for size in sizes)
