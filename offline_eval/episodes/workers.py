"""Worker processes: each plays its own environments with its own copy of a CPU policy, and takes entries as it can.

The processes come from a fork server that has imported torch and SB3 once: a worker starts in a fraction of a second,
and is forked from a process without threads.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from typing import Any

from offline_eval.episodes.records import Episode
from offline_eval.errors import OfflineEvalError, WorkerError

Job = Callable[[Callable[[], "int | None"], Callable[[Episode], None], Callable[[], None], int], object]
"""What a worker does: given what hands out entries, what to tell of episodes and when ready, and its number."""

_PRELOADED = ("offline_eval.episodes.playing", "stable_baselines3")
_PATIENCE = 0.5  # seconds between two looks at whether the workers still live


def worker_context() -> BaseContext:
    """The start method: a fork server where there is one, else fresh processes."""
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_PRELOADED))
    with _without_current_folder():
        forkserver.ensure_running()
    return context


@contextmanager
def _without_current_folder() -> Iterator[None]:
    """Python as with `-P`: what lies in the current folder, named like a module, is not taken for it."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def play_in_workers(
    job: bytes,
    indices: list[int],
    num_workers: int,
    on_episode: Callable[[Episode], None],
    on_ready: Callable[[], None],
) -> None:
    """Play the plan entries `indices` with `num_workers` processes.

    Args:
        job: a cloudpickled `Job`.
        indices: what is to be played; every worker takes the next one when a seat is free.
        num_workers: processes.
        on_episode: told of every finished episode, in this process.
        on_ready: told once, when the first worker has made its environments.

    Raises:
        WorkerError: a worker died; the episodes told of until then stand.
    """
    context = worker_context()
    results: Any = context.Queue()
    position = context.Value("l", 0)
    workers = [
        context.Process(target=_work, args=(job, indices, position, results, number), daemon=True)  # type: ignore[attr-defined]
        for number in range(num_workers)
    ]
    for worker in workers:
        worker.start()
    running, ready = num_workers, False
    try:
        while running:
            try:
                message = results.get(timeout=_PATIENCE)
            except queue.Empty:
                _check_alive(workers)
                continue
            if message == "ready":
                if not ready:
                    ready = True
                    on_ready()
            elif message == "done":
                running -= 1
            elif isinstance(message, Episode):
                on_episode(message)
            else:
                raise pickle.loads(message)  # an error of our own, raised in a worker of our own
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()
        results.close()


def _check_alive(workers: list[Any]) -> None:
    for number, worker in enumerate(workers):
        if worker.exitcode not in (None, 0):
            raise WorkerError(
                f"worker {number} died with exit code {worker.exitcode}: what was finished is kept; "
                "resume the run, or use fewer workers if memory ran out"
            )


def _work(job: bytes, indices: list[int], position: Any, results: Any, number: int) -> None:
    """The life of a worker."""
    import torch as th

    th.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"

    def next_entry() -> int | None:
        with position.get_lock():
            place = position.value
            position.value += 1
        return indices[place] if place < len(indices) else None

    try:
        play: Job = pickle.loads(job)
        play(next_entry, results.put, lambda: results.put("ready"), number)
        results.put("done")
    except BaseException as error:  # whatever it is, the parent raises it
        if not isinstance(error, OfflineEvalError):
            error = WorkerError(f"worker {number} raised {type(error).__name__}: {error}")
        results.put(pickle.dumps(error))
