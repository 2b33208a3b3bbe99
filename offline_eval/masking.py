"""Policies that are told which actions are allowed, as sb3-contrib's MaskablePPO is."""

from __future__ import annotations

import inspect
from typing import Any

from offline_eval.errors import InputError, bare

MASKS = "action_masks"
"""sb3-contrib's name for which actions are allowed: a method of the environment, and an argument of `predict`."""


def takes_masks(policy: Any) -> bool:
    """Whether its `predict` asks which actions are allowed."""
    said = getattr(policy, "takes_masks", None)
    if isinstance(said, bool):  # what wraps a policy knows
        return said
    try:
        return MASKS in inspect.signature(policy.predict).parameters
    except (AttributeError, TypeError, ValueError):  # no `predict`, or one that is written in C
        return False


def refuse_masked(policy: Any, argument: str, way_out: str = "") -> None:
    """Raise an InputError where a policy would act without an environment that says which actions are allowed."""
    if takes_masks(policy):
        raise InputError(
            argument,
            "must choose without being told which actions are allowed",
            bare(f"{type(policy).__name__}, which asks for `{MASKS}`"),
            way_out or "`evaluate`, `compare` and `collect` ask the environment; what is logged does not say it",
        )
