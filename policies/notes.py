"""What a reader of results should know of an agent as it was opened: what normalises for it, what was left aside."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_ATTRIBUTE = "_offline_eval_notes"


def add_notes(model: Any, notes: Iterable[str]) -> None:
    """Keep further notes with a model that was opened or copied here; one that is the caller's stays untouched."""
    setattr(model, _ATTRIBUTE, (*getattr(model, _ATTRIBUTE, ()), *notes))


def notes_of(model: Any) -> tuple[str, ...]:
    """The notes of a model and of what it is built around."""
    found: list[str] = []
    seen: set[int] = set()
    while model is not None and id(model) not in seen:
        seen.add(id(model))
        found += vars(model).get(_ATTRIBUTE, ()) if hasattr(model, "__dict__") else ()
        model = getattr(model, "model", None)
    return tuple(dict.fromkeys(found))
