"""A name for a set of weights: equal exactly where every number is."""

from __future__ import annotations

import hashlib
from typing import Any

import torch as th
from torch import nn


def weights_hash(model: Any) -> str | None:
    """SHA-256, in hex, over the names, shapes, types and bytes of a policy's weights, critics and buffers included.

    Args:
        model: an SB3 algorithm or policy, an `nn.Module`, or what is built around one of these and keeps it as
            `model` or `policy`.

    Returns:
        None where there are no weights to be found.
    """
    module = _module(model)
    if module is None or not (state := module.state_dict()):
        return None
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        if not isinstance(value, th.Tensor):
            continue
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(th.uint8).numpy().tobytes())
    return digest.hexdigest()


def _module(model: Any) -> nn.Module | None:
    seen: set[int] = set()
    while model is not None and not isinstance(model, nn.Module) and id(model) not in seen:
        seen.add(id(model))
        # `Normalized` and steered policies keep theirs as `model`, SB3's algorithms as `policy`.
        model = getattr(model, "model", None) or getattr(model, "policy", None)
    return model if isinstance(model, nn.Module) else None
