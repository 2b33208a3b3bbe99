"""What an evaluation borrows from the process, and gives back: torch's threads and the global generators."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch as th


@contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread: small batches gain nothing from more, and more of them could round differently."""
    before = th.get_num_threads()
    th.set_num_threads(1)
    try:
        yield
    finally:
        th.set_num_threads(before)


@contextmanager
def seeded_globals(seed: int) -> Iterator[None]:
    """Global generators seeded, and afterwards as they were.

    A bare `predict(deterministic=False)` draws from them; seeding makes such a run repeatable, though not
    independent of the number of environments.
    """
    before = random.getstate(), np.random.get_state(), th.get_rng_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    th.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        th.set_rng_state(before[2])
