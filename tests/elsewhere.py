"""A device that is nowhere, on which every mistake shows that only a GPU would punish.

Tensors of torch's `meta` device have no numbers. While `Elsewhere` is entered

- tensors of two devices in one operation are refused, an index included;
- what would wait for a GPU is refused: a number asked for, a choice by a mask, a search for what is not zero;
- what travels is counted, `sent` and `fetched`; what was fetched is full of ones. `waited` counts what was sent from
  ordinary memory, for which a GPU is waited for too.
"""

from collections.abc import Iterable

import torch as th
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

NOWHERE = th.device("meta")

_WAITS = {
    "_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "_unique2", "unique_dim",
    "unique_consecutive", "repeat_interleave", "bincount", "histc", "_linalg_check_errors",
}  # fmt: skip
_COPIES = {"_to_copy", "copy_", "copy"}
_CONSTANTS = {th.tensor}


def tensors_in(value):
    """The tensors of an operation's arguments, lists included."""
    if isinstance(value, th.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors_in(value.values())
    elif isinstance(value, Iterable) and not isinstance(value, str | bytes):
        for part in value:
            yield from tensors_in(part)


class _Constants(TorchFunctionMode):
    """Sees what dispatch does not: tensors that are made of Python's numbers."""

    def __init__(self, device):
        super().__init__()
        self._device = device

    def __torch_function__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if func in _CONSTANTS and made.device == NOWHERE:
            self._device.sent += 1
            self._device.waited += 1
        return made


class Elsewhere(TorchDispatchMode):
    """Enter it with tensors and modules on `NOWHERE`."""

    def __init__(self):
        super().__init__()
        self.sent = self.fetched = self.waited = 0
        self._constants = _Constants(self)

    def __enter__(self):
        self._constants.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._constants.__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        given = list(tensors_in((args, kwargs)))
        devices = {tensor.device for tensor in given}
        if name in _COPIES:
            return self._copy(func, name, args, kwargs)
        if NOWHERE not in devices:
            return func(*args, **kwargs)
        # A GPU takes a number of the CPU as one of its arguments.
        strangers = [tensor for tensor in given if tensor.device != NOWHERE and tensor.dim()]
        assert not strangers, f"{name} mixes devices: {[tuple(tensor.shape) for tensor in strangers]} is on the CPU"
        assert name not in _WAITS or (name == "repeat_interleave" and "output_size" in kwargs), f"{name} waits"
        if name in ("index", "index_put", "index_put_", "_unsafe_index"):
            chosen = [index for index in args[1] if index is not None]
            assert all(index.dtype != th.bool for index in chosen), f"{name} by a mask waits"
            assert all(index.device == NOWHERE for index in chosen), f"{name} by an index of the CPU waits"
        return func(*args, **kwargs)

    def _copy(self, func, name, args, kwargs):
        into, source = (args[0], args[1]) if name != "_to_copy" else (None, args[0])
        there = into.device if into is not None else kwargs.get("device") or source.device
        if th.device(there) == source.device:
            return func(*args, **kwargs)
        if source.device == NOWHERE:
            self.fetched += 1
            if into is not None:
                return into.fill_(1)
            return th.ones(source.shape, dtype=kwargs.get("dtype") or source.dtype)
        self.sent += 1
        self.waited += not (kwargs.get("non_blocking") or (into is not None and len(args) > 2 and args[2]))
        return func(*args, **kwargs)
