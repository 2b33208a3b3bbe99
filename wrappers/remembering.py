"""Rules that remember: how a host gives one of them a memory of its own, and tells it of new episodes.

A rule has no state, so that one object serves any number of hosts. What learns while it acts must remember; it keeps
to the same rule by being a frozen choice whose `start()` makes, for each host, a rule with its own memory. Hosts know
no more than these functions, so rules that remember are added to hosts, not multiplied by them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from offline_eval.types import Remembering, Rule, Startable

__all__ = ["begin", "forgets", "reserve", "started", "width_of"]


def started(rule: Rule) -> Rule:
    """The rule for one host: itself, or what it makes for that host alone."""
    return rule.start() if isinstance(rule, Startable) else rule


def begin(rule: Rule, rows: Iterable[Any]) -> None:
    """New episodes at these rows of a host; a rule without a memory does not care."""
    if isinstance(rule, Remembering):
        rule.begin(np.asarray(list(rows), dtype=np.int64))


def reserve(rule: Rule, num_rows: int) -> None:
    """Room for so many rows of a host; refused where they would not fit into memory."""
    if isinstance(rule, Remembering):
        rule.reserve(num_rows)


def width_of(rule: Rule) -> int | None:
    """Rows of a padded batch that a rule wants, since it asks a critic about many states for each; None for any."""
    return rule.width if isinstance(rule, Remembering) else None


def forgets(rule: Rule | None) -> bool:
    """Whether every episode begins anew under this rule, and under the rule inside it: only then are they independent.

    A rule that never forgets says so by `reset.forgets`.
    """
    if rule is None:
        return True
    forgetful = getattr(getattr(rule, "reset", None), "forgets", True)
    return bool(forgetful) and forgets(getattr(rule, "inner", None))
