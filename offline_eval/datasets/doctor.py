"""The data doctor: what is wrong with a data set, where, and what to do about it."""

from __future__ import annotations

import os
from typing import Any

from gymnasium import Space

from offline_eval.datasets.evidence import evidence_of
from offline_eval.datasets.faults import CHECKS, Finding
from offline_eval.datasets.rows import Rows
from offline_eval.datasets.trajectories import Dataset

CODES = tuple(CHECKS)
"""Every code that a finding can have."""


def check(
    source: Dataset | Rows | str | os.PathLike[str],
    *,
    action_space: Space[Any] | None = None,
    max_episode_steps: int | None = None,
    env_id: str | None = None,
) -> tuple[Finding, ...]:
    """What is wrong with a data set; empty for a clean one.

    A path is examined as the file has it: what a reader would refuse (NaN, no episode ends) is a finding here. Of more
    than four million rows the first and the last are examined, half of that number each; NaN is looked for everywhere.

    Args:
        source: a data set, flat rows, or a file or folder of any known format.
        action_space: the environment's, instead of what the file says or its name tells.
        max_episode_steps: the environment's time limit; the same.
        env_id: the environment's id, instead of what the file says: tells the time limit, and the action space where
            neither you nor the file state one.

    Raises:
        DatasetError: the file cannot be read at all: it is truncated, empty, or no data set.
        SpaceError: the actions are not shaped as `action_space` is.
    """
    evidence = evidence_of(source, action_space, max_episode_steps, env_id)
    return tuple(finding for look in CHECKS.values() for finding in look(evidence))


def has_errors(findings: tuple[Finding, ...]) -> bool:
    """Whether one of them is an error and not only a warning: the command line's exit code 1."""
    return any(finding.severity == "error" for finding in findings)
