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
    weights = weights_of(model)
    if not weights:
        return None
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(th.uint8).numpy().tobytes())
    return digest.hexdigest()


def weights_of(model: Any) -> dict[str, th.Tensor]:
    """The weights that `weights_hash` looks at, by name and not copied; empty where there are none to be found."""
    module = _module(model)
    state = {} if module is None else module.state_dict()
    return {name: value for name, value in state.items() if isinstance(value, th.Tensor)}


def _module(model: Any) -> nn.Module | None:
    seen: set[int] = set()
    while model is not None and not isinstance(model, nn.Module) and id(model) not in seen:
        seen.add(id(model))
        # `Normalized` and steered policies keep theirs as `model`, SB3's algorithms as `policy`.
        model = getattr(model, "model", None) or getattr(model, "policy", None)
    return model if isinstance(model, nn.Module) else None
