"""Weights that are no numbers any more: found before anything is played, and named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import nn

from offline_eval.errors import InputError, bare

_WAY_OUT = "training had diverged: take an earlier checkpoint, or train again with a lower learning rate"


def check_finite(model: Any, argument: str = "model", received: str = "") -> None:
    """Refuse a policy with a weight that is NaN or infinite, critics included.

    Args:
        model: an SB3 algorithm or policy, an `nn.Module`, or what keeps one of these as `model` or `policy`.
        argument: under which it was given.
        received: the name of the file that it comes from, where there is one.

    Raises:
        InputError: such a weight; the message names it.
    """
    broken = _broken(model)
    if broken:
        said = f"{broken} in {received}" if received else broken
        raise InputError(argument, "must have finite weights", bare(said), _WAY_OUT)


def all_true(masks: Sequence[th.Tensor]) -> list[bool]:
    """Whether each of some masks is true everywhere; a GPU is waited for once."""
    if not masks:
        return []
    whole: list[bool] = th.stack([mask.all().to(masks[0].device) for mask in masks]).cpu().tolist()
    return whole


def _broken(model: Any) -> str:
    found = [entry for entry in _tensors(model) if entry[1].dtype.is_floating_point]
    # A buffer may hold infinity by design, as a mask does.
    finite = [value.isfinite() if is_trained else ~value.isnan() for _, value, is_trained in found]
    for (name, value, _), of_value, is_whole in zip(found, finite, all_true(finite), strict=True):
        if not is_whole:
            wrong = value[~of_value]
            nans = int(wrong.isnan().sum())
            kind = "NaN" if nans == len(wrong) else "NaN or infinite" if nans else "infinite"
            verb = "is" if len(wrong) == 1 else "are"
            return f"{len(wrong)} of the {value.numel()} numbers of `{name}` {verb} {kind}"
    return ""


def _tensors(model: Any) -> list[tuple[str, th.Tensor, bool]]:
    seen: set[int] = set()
    found: list[tuple[str, th.Tensor, bool]] = []
    while model is not None and not isinstance(model, nn.Module) and id(model) not in seen:
        seen.add(id(model))
        if isinstance(model, BaseAlgorithm):
            for name in model._get_torch_save_params()[1]:
                value = getattr(model, name, None)
                if isinstance(value, th.Tensor):
                    found.append((name, value.detach(), True))
        model = getattr(model, "model", None) or getattr(model, "policy", None)
    if isinstance(model, nn.Module):
        found = [(name, value.detach(), True) for name, value in model.named_parameters()] + found
        found += [(name, value, False) for name, value in model.named_buffers()]
    return found
