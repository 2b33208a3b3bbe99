"""Episodes in worker processes: each plays its own environments with its own copy of a CPU policy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from offline_eval.episodes.records import Episode
from offline_eval.processes import run_in_workers

Play = Callable[[Callable[[], "int | None"], Callable[[Episode], None], Callable[[], None], int], object]
"""What a worker does: given what hands out entries, what to tell of episodes and when ready, and its number."""

_WAY_OUT = "what was finished is kept; resume the run, or use fewer workers if memory ran out"


def play_in_workers(
    play: Play,
    indices: list[int],
    num_workers: int,
    on_episode: Callable[[Episode], None],
    on_ready: Callable[[], None],
) -> list[Any]:
    """Play the plan entries `indices` with `num_workers` processes; returns what each of them returned.

    Args:
        play: what each of them does.
        indices: what is to be played; every worker takes the next one when a seat is free.
        num_workers: processes.
        on_episode: told of every finished episode, in this process.
        on_ready: told once, when the first worker has made its environments.

    Raises:
        WorkerError: a worker died; the episodes told of until then stand.
    """
    waiting = True

    def on_message(message: Episode | None) -> None:
        nonlocal waiting
        if message is not None:
            on_episode(message)
        elif waiting:
            waiting = False
            on_ready()

    return run_in_workers(partial(_play, play), indices, num_workers, on_message, _WAY_OUT)


def _play(play: Play, next_entry: Callable[[], Any], tell: Callable[[Any], None], number: int) -> object:
    """A worker's job; None says that its environments are made."""
    return play(next_entry, tell, partial(tell, None), number)
