"""Where networks are trained: torch's devices by name, refused here and not deep inside torch."""

from __future__ import annotations

import torch as th
from stable_baselines3.common.utils import get_device

from offline_eval.errors import InputError

_KINDS = ("cpu", "cuda", "mps")


def torch_device(device: th.device | str) -> th.device:
    """The device of a name; as in Stable-Baselines3 "auto" takes a GPU where there is one, and "cuda" may be the CPU.

    Nothing is put there: worker processes that are forked later could not use a GPU that is in use already.

    Raises:
        InputError: torch does not know it, or there are not so many.
    """
    try:
        found = get_device(device)
    except (RuntimeError, TypeError, ValueError, AttributeError):
        found = None
    is_there = found is not None and (found.type != "cuda" or (found.index or 0) < th.cuda.device_count())
    if found is None or found.type not in _KINDS or not is_there:
        raise InputError("device", "must be a device that torch has here", device, "take auto, cpu or cuda")
    return found
