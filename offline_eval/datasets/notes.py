"""What whoever uses a data set has to know of it: what its reader decided or guessed, and what it lacks."""

from __future__ import annotations

import numpy as np

from offline_eval.datasets.trajectories import Dataset


def notes_of(dataset: Dataset, name: str = "") -> tuple[str, ...]:
    """A sentence for each thing to know; every command that uses the data set shows them.

    Args:
        dataset: from anywhere.
        name: begins every sentence, where several data sets are used.
    """
    notes = list(dataset.source.notes)
    if not any("no rewards" in note for note in notes) and not np.any(dataset.rewards):
        notes.append(f"all {dataset.num_steps} rewards are 0: a value learned from them says nothing")
    if dataset.source.assumed_action_space:
        notes.append(f"nobody states the action space: {dataset.action_space} is assumed")
    return tuple(f"{name}: {note}" if name else note for note in notes)
