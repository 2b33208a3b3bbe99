"""Train a recipe with several seeds: side by side in one-thread processes that share the data, resumable when killed.

::

    manifest.json    what was asked: recipe, data (by fingerprint), steps, words, versions
    seed_0/          see `offline_eval.training.run`
    seed_1/
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from offline_eval.datasets.sharing import shared
from offline_eval.datasets.trajectories import Dataset
from offline_eval.datasets.writing import replacing
from offline_eval.episodes.isolation import one_thread
from offline_eval.errors import InputError, NonFiniteLoss, StorageError
from offline_eval.files import FolderLock
from offline_eval.policies.building import check_spaces
from offline_eval.policies.learnable import check_learnable
from offline_eval.policies.recipes import recipe_to_json
from offline_eval.processes import num_cores, run_in_workers
from offline_eval.provenance import recipe as as_plain_data
from offline_eval.provenance import versions
from offline_eval.run_folder import read_json
from offline_eval.training.run import OnSteps, TrainedRun, TrainingPlan, train_seed

_SCHEMA = 1
_WAY_OUT = "checkpoints are kept; resume the run, with fewer workers if memory ran out"


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
    check_learnable(dataset, plan.recipe.value is not None, plan.words.get("gamma", 0.99))
    folder = Path(folder)
    asked = {
        "recipe": recipe_to_json(plan.recipe),
        "dataset": dataset.fingerprint,
        "validation": None if validation is None else validation.fingerprint,
        "gradient_steps": plan.gradient_steps,
        "checkpoints": plan.checkpoints,
        "words": as_json(plan.words),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder} cannot be made: {error.strerror or error}") from error
    lock = FolderLock(folder)
    try:
        _check_folder(folder, asked, resume)
        _write_manifest(folder, {"command": command, **asked, "source": dataset.source.path, "seeds": list(seeds)})
        return _trained(plan, dataset, validation, folder, seeds, workers, on_steps)
    finally:
        lock.release()


def _write_manifest(folder: Path, words: Mapping[str, Any]) -> None:
    with replacing(folder / "manifest.json") as temporary:
        manifest = {"schema": _SCHEMA, **words, "versions": versions()}
        temporary.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _trained(
    plan: TrainingPlan,
    dataset: Dataset,
    validation: Dataset | None,
    folder: Path,
    seeds: Sequence[int],
    workers: int | None,
    on_steps: OnSteps | None,
) -> list[TrainedRun]:
    num_workers = min(len(seeds), workers or num_cores())
    if num_workers == 1:
        with one_thread():
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
    found = read_json(path)
    if not isinstance(found, dict):
        raise StorageError(f"{path} is not the manifest of a run: give another folder")
    for name, value in json.loads(json.dumps(asked)).items():
        if found.get(name) != value:
            raise InputError(
                "resume",
                f"must go on with the same run, but the folder's {name} is {found.get(name)!r}",
                value,
                "give another folder, or the arguments of that run",
            )


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
    runs: dict[int, TrainedRun] = {}
    failures: list[NonFiniteLoss] = []

    def on_message(message: Any) -> None:
        if isinstance(message, TrainedRun):
            runs[message.seed] = message
        elif isinstance(message, NonFiniteLoss):
            failures.append(message)
        elif on_steps is not None:
            on_steps(*message)

    run_in_workers(partial(_work, job, folder), seeds, num_workers, on_message, _WAY_OUT)
    if failures:
        raise failures[0]
    return [runs[seed] for seed in seeds]


def _work(
    job: Job, folder: Path, next_seed: Callable[[], int | None], tell: Callable[[Any], None], number: int
) -> None:
    """A worker's job: one seed after the other, as long as there are any."""

    def on_steps(seed: int, steps: int, metrics: Mapping[str, float]) -> None:
        tell((seed, steps, dict(metrics)))

    while (seed := next_seed()) is not None:
        try:
            tell(job(folder_of(folder, seed), seed, on_steps=on_steps))
        except NonFiniteLoss as error:
            tell(error)
