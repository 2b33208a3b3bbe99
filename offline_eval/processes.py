"""Worker processes that take one item after the other, as they can; what they raise is raised in the parent.

The processes come from a fork server that has imported torch and SB3 once: a worker starts in a fraction of a second,
and is forked from a process without threads.
"""

from __future__ import annotations

import ast
import inspect
import multiprocessing
import os
import pickle
import queue
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from typing import Any

from offline_eval.errors import InputError, OfflineEvalError, WorkerError, bare

Job = Callable[[Callable[[], Any], Callable[[Any], None], int], object]
"""What a worker does: given what hands out items (None when there are no more), what to tell, and its number."""

_PRELOADED = ("offline_eval.episodes.playing", "stable_baselines3")
_PATIENCE = 0.5  # seconds between two looks at whether the workers still live
_TOLD, _DONE, _FAILED = "told", "done", "failed"


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_in_workers(
    job: Job, items: Sequence[Any], num_workers: int, on_message: Callable[[Any], None], way_out: str
) -> list[Any]:
    """Do a job with `num_workers` processes; returns what each of them returned, in the order of their ends.

    Args:
        job: what each of them does; it is cloudpickled.
        items: what is to be done; every worker asks for the next one.
        num_workers: processes, of one torch thread each.
        on_message: receives in this process what the workers tell.
        way_out: what to do where a worker has died.

    Raises:
        OfflineEvalError: a worker raised it.
        WorkerError: a worker died, or raised something else.
        InputError: the script that asks for this would be run again by every worker.
    """
    import cloudpickle

    check_guarded()
    context: Any = _context()
    results, position = context.Queue(), context.Value("l", 0)
    try:
        pickled = cloudpickle.dumps(job)
    except Exception as error:  # of foreign policies and environments
        reason = f"{type(error).__name__}: {error}".replace("\n", " ")
        rule = "must be 1 for a policy or an environment that cannot be sent to another process"
        raise InputError("workers", rule, num_workers, reason) from error
    workers = [
        context.Process(target=_work, args=(pickled, list(items), position, results, number), daemon=True)
        for number in range(num_workers)
    ]
    for worker in workers:
        worker.start()
    returned: list[Any] = []
    try:
        while len(returned) < num_workers:
            try:
                kind, message = results.get(timeout=_PATIENCE)
            except queue.Empty:
                _check_alive(workers, way_out)
                continue
            if kind == _TOLD:
                on_message(message)
            elif kind == _DONE:
                returned.append(message)
            else:
                raise pickle.loads(message)  # an error of our own, raised in a worker of our own
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()
        results.close()
    return returned


def check_guarded() -> None:
    """Refuse to start processes from a line of a script that each of them would run again.

    A fresh process imports the main script for what is defined in it; what stands under the usual `if` is left out.

    Raises:
        InputError: names the line that is missing.
    """
    main = sys.modules["__main__"]
    path, spec = getattr(main, "__file__", None), getattr(main, "__spec__", None)
    if path is None or not path.endswith(".py") or (spec is not None and spec.name.rpartition(".")[2] == "__main__"):
        return
    frame = inspect.currentframe()
    while frame is not None and not (frame.f_globals is vars(main) and frame.f_code.co_name == "<module>"):
        frame = frame.f_back
    if frame is None:
        return
    try:
        with open(path, "rb") as file:
            lines = ast.parse(file.read()).body
    except (OSError, SyntaxError, ValueError):  # gone, or changed since it was started
        return
    begun = next((node for node in lines if node.lineno <= frame.f_lineno <= (node.end_lineno or node.lineno)), None)
    if isinstance(begun, ast.If) and {"__name__", "'__main__'"} <= set(ast.unparse(begun.test).split()):
        return
    raise InputError(
        "workers",
        "must be 1 in a script that its processes would run again",
        bare(f"line {frame.f_lineno} of {path}"),
        'put that line, and what begins the work, under `if __name__ == "__main__":`',
    )


def _context() -> BaseContext:
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


def _check_alive(workers: Sequence[Any], way_out: str) -> None:
    for number, worker in enumerate(workers):
        if worker.exitcode not in (None, 0):
            raise WorkerError(f"worker {number} died with exit code {worker.exitcode}: {way_out}")


def _work(job: bytes, items: Sequence[Any], position: Any, results: Any, number: int) -> None:
    """The life of a worker."""
    import torch as th

    th.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    parent = multiprocessing.parent_process()

    def next_item() -> Any:
        with position.get_lock():
            place = position.value
            position.value += 1
        return items[place] if place < len(items) else None

    def tell(message: Any) -> None:
        # Whoever resumes a killed run must not meet its workers, still writing.
        if parent is not None and not parent.is_alive():
            os._exit(1)
        results.put((_TOLD, message))

    try:
        work: Job = pickle.loads(job)
        results.put((_DONE, work(next_item, tell, number)))
    except BaseException as error:  # whatever it is, the parent raises it
        if not isinstance(error, OfflineEvalError):
            error = WorkerError(f"worker {number} raised {type(error).__name__}: {error}")
        results.put((_FAILED, pickle.dumps(error)))
