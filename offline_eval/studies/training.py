"""Train a recipe with several seeds: side by side in one-thread processes that share the data, resumable when killed.

::

    manifest.json    what was asked: recipe, data (by fingerprint), steps, words, versions
    seed_0/          see `offline_eval.studies.training_run`
    seed_1/
"""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch as th

from offline_eval.datasets.sharing import shared
from offline_eval.datasets.trajectories import Dataset
from offline_eval.datasets.writing import replacing
from offline_eval.episodes.workers import worker_context
from offline_eval.errors import InputError, NonFiniteLoss, OfflineEvalError, StorageError, WorkerError
from offline_eval.policies.building import check_spaces
from offline_eval.policies.recipes import recipe_to_json
from offline_eval.provenance import recipe as as_plain_data
from offline_eval.provenance import versions
from offline_eval.studies.training_run import OnSteps, TrainedRun, TrainingPlan, train_seed

_SCHEMA = 1
_PATIENCE = 0.5  # seconds between two looks at whether the workers still live


def train(
    plan: TrainingPlan,
    dataset: Dataset,
    folder: str | Path,
    seeds: Sequence[int] = (0,),
    *,
    validation: Dataset | None = None,
    workers: int | None = None,
    resume: bool = False,
    command: str = "",
    on_steps: OnSteps | None = None,
) -> list[TrainedRun]:
    """Train every seed; each computes with one thread, so that its weights do not depend on who runs beside it.

    A seed whose loss is no longer finite stops alone: the others are finished before the error is raised.

    Args:
        plan: what every seed does.
        dataset: what they learn from.
        folder: receives the runs.
        seeds: of initial weights and batches.
        validation: trajectories kept apart, whose losses are logged.
        workers: processes; None for one a core, as far as there are seeds. One seed at a time needs no process.
        resume: go on with what the folder holds, if it was asked for the same; seeds may be added.
        command: what was typed to start it, for the reader.
        on_steps: told of progress.

    Raises:
        InputError: the data do not suit the plan, or the folder holds another run.
        NonFiniteLoss: a loss became NaN or infinite; the checkpoints before it are kept.
        StorageError: the folder cannot be written; the checkpoints that are there are kept.
        WorkerError: a process died; resume goes on from the checkpoints.
    """
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise InputError("seeds", "must be different numbers >= 0, one at least", list(seeds))
    if workers is not None and workers < 1:
        raise InputError("workers", "must be >= 1", workers)
    check_spaces(plan.recipe, dataset.observation_space, dataset.action_space)
    folder = Path(folder)
    asked = {
        "recipe": recipe_to_json(plan.recipe),
        "dataset": dataset.fingerprint,
        "validation": None if validation is None else validation.fingerprint,
        "gradient_steps": plan.gradient_steps,
        "checkpoints": plan.checkpoints,
        "words": as_json(plan.words),
    }
    _check_folder(folder, asked, resume)
    with replacing(folder / "manifest.json") as temporary:
        manifest = {
            "schema": _SCHEMA,
            "command": command,
            **asked,
            "source": dataset.source.path,
            "seeds": list(seeds),
            "versions": versions(),
        }
        temporary.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")

    num_workers = min(len(seeds), workers or _num_cores())
    if num_workers == 1:
        with _one_thread():
            return _in_turn(partial(train_seed, plan, dataset, validation=validation), folder, seeds, on_steps)
    with shared(dataset) as mapped:
        held = None if validation is None else _on_the_same_store(validation, dataset, mapped)
        return _side_by_side(partial(train_seed, plan, mapped, validation=held), folder, seeds, num_workers, on_steps)


def folder_of(folder: Path, seed: int) -> Path:
    """Where a seed's run lies."""
    return folder / f"seed_{seed}"


def as_json(words: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor words as plain data; classes and functions by their name."""
    return {
        name: as_json(value) if isinstance(value, Mapping) else getattr(value, "__name__", None) or as_plain_data(value)
        for name, value in words.items()
    }


def _check_folder(folder: Path, asked: Mapping[str, Any], resume: bool) -> None:
    """Refuse a folder with trained models, unless they are to go on and were asked for the same."""
    path = folder / "manifest.json"
    if not any(folder.glob("seed_*/*.zip")):
        return
    if not resume:
        raise InputError("out", "must be a new folder", str(folder), "give another one, or go on with resume")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StorageError(f"{path} cannot be read: {error}") from error
    for name, value in json.loads(json.dumps(asked)).items():
        if found.get(name) != value:
            raise InputError(
                "resume",
                f"must go on with the same run, but the folder's {name} is {found.get(name)!r}",
                value,
                "give another folder, or the arguments of that run",
            )


def _num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _one_thread() -> Iterator[None]:
    before = th.get_num_threads()
    th.set_num_threads(1)
    try:
        yield
    finally:
        th.set_num_threads(before)


def _on_the_same_store(part: Dataset, dataset: Dataset, mapped: Dataset) -> Dataset:
    """A part of a data set over the mapped copy of its arrays, so that they are not sent to every process."""
    from dataclasses import replace

    return replace(part, store=mapped.store) if part.store is dataset.store else part


Job = Callable[..., TrainedRun]


def _in_turn(job: Job, folder: Path, seeds: Sequence[int], on_steps: OnSteps | None) -> list[TrainedRun]:
    runs: list[TrainedRun] = []
    failure: NonFiniteLoss | None = None
    for seed in seeds:
        try:
            runs.append(job(folder_of(folder, seed), seed, on_steps=on_steps))
        except NonFiniteLoss as error:
            failure = failure or error
    if failure is not None:
        raise failure
    return runs


def _side_by_side(
    job: Job, folder: Path, seeds: Sequence[int], num_workers: int, on_steps: OnSteps | None
) -> list[TrainedRun]:
    import cloudpickle

    context: Any = worker_context()
    results, position = context.Queue(), context.Value("l", 0)
    arguments = (cloudpickle.dumps(job), folder, list(seeds), position, results)
    workers = [context.Process(target=_work, args=arguments, daemon=True) for _ in range(num_workers)]
    for worker in workers:
        worker.start()
    runs: dict[int, TrainedRun] = {}
    failure: OfflineEvalError | None = None
    running = num_workers
    try:
        while running:
            try:
                message = results.get(timeout=_PATIENCE)
            except queue.Empty:
                _check_alive(workers)
                continue
            if message is None:
                running -= 1
            elif isinstance(message, TrainedRun):
                runs[message.seed] = message
            elif isinstance(message, tuple):
                if on_steps is not None:
                    on_steps(*message)
            else:
                error = pickle.loads(message)  # an error of our own, raised in a worker of our own
                if not isinstance(error, NonFiniteLoss):
                    raise error
                failure = failure or error
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()
        results.close()
    if failure is not None:
        raise failure
    return [runs[seed] for seed in seeds]


def _check_alive(workers: Sequence[Any]) -> None:
    for number, worker in enumerate(workers):
        if worker.exitcode not in (None, 0):
            raise WorkerError(
                f"worker {number} died with exit code {worker.exitcode}: checkpoints are kept; "
                "resume the run, with fewer workers if memory ran out"
            )


def _work(job: bytes, folder: Path, seeds: list[int], position: Any, results: Any) -> None:
    """The life of a worker: one seed after the other, as long as there are any."""
    th.set_num_threads(1)
    parent = multiprocessing.parent_process()

    def tell(seed: int, steps: int, metrics: Mapping[str, float]) -> None:
        # Whoever resumes a killed run must not meet its workers, still writing.
        if parent is not None and not parent.is_alive():
            os._exit(1)
        results.put((seed, steps, dict(metrics)))

    try:
        run: Job = pickle.loads(job)
        while (seed := _next_of(seeds, position)) is not None:
            try:
                results.put(run(folder_of(folder, seed), seed, on_steps=tell))
            except NonFiniteLoss as error:
                results.put(pickle.dumps(error))
        results.put(None)
    except BaseException as error:  # whatever it is, the parent raises it
        if not isinstance(error, OfflineEvalError):
            error = WorkerError(f"a worker raised {type(error).__name__}: {error}")
        results.put(pickle.dumps(error))


def _next_of(seeds: list[int], position: Any) -> int | None:
    with position.get_lock():
        place = position.value
        position.value += 1
    return seeds[place] if place < len(seeds) else None
