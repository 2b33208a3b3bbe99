"""What the sections of a measurement share: why a part is missing, and what a section hands to its page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from offline_eval.report.content import Figure, KeyNumber

Record = Mapping[str, Any]

SETS = {"train": "training", "validation": "validation", "evaluation": "evaluation"}
"""The sets of states that a policy's error is taken over, in words."""

SET_ROLES = {"train": "second", "validation": "plain", "evaluation": "main"}
"""Their colours."""

Part = tuple[list[str], list[Figure], list[KeyNumber], list[str]]
"""Of a section: clauses for the sentence at the top, figures, key numbers, and what is missing with its reason."""


def skipped(record: Any) -> str:
    """Why a section or a part of one was not measured; empty where it was."""
    if record is None:
        return "no reason given"
    return str(record["skipped"]) if isinstance(record, Mapping) and "skipped" in record else ""


def missing(record: Record, names: Mapping[str, str]) -> list[str]:
    """A line for each part, by its name in words, that was not measured."""
    reasons = {name: skipped(record.get(name)) for name in names}
    return [f"{names[name][0].upper()}{names[name][1:]}: {reason}" for name, reason in reasons.items() if reason]
