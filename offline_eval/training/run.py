"""One seed of a training: its model, its checkpoints and its curves in one folder, and how a killed one goes on.

::

    seed_0/model.zip             the finished model
    seed_0/checkpoint_1000.zip   the model after 1000 gradient steps: whatever is there is complete
    seed_0/progress.csv          what is logged; TensorBoard's file lies beside it where tensorboard is installed
    seed_0/run.json              rate and last metrics of the finished run
"""

from __future__ import annotations

import csv
import io
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import stable_baselines3.common.logger as sb3_logger
from stable_baselines3.common.callbacks import BaseCallback

from offline_eval.datasets.trajectories import Dataset
from offline_eval.datasets.writing import replacing
from offline_eval.errors import InputError, OfflineEvalError, StorageError
from offline_eval.policies.algorithm import OfflineAlgorithm
from offline_eval.policies.recipes import Recipe
from offline_eval.run_folder import read_json

OnSteps = Callable[[int, int, Mapping[str, float]], None]
"""Told now and then: the seed, the gradient steps since it was told last, and the metrics that were logged last.

Steps that an earlier process made come first, at once.
"""

_SECONDS_BETWEEN_TELLING = 0.5
_ROWS = 100
_STEP = "time/total_timesteps"


@dataclass(frozen=True)
class TrainingPlan:
    """What every seed does.

    Args:
        recipe: what is learned, and how.
        gradient_steps: of each seed.
        checkpoints: files kept on the way, evenly spaced, the last one at the end; 0 for none.
        words: of `OfflineAlgorithm`'s constructor: `batch_size`, `learning_rate`, `gamma`, `policy_kwargs`, ...

    Raises:
        InputError: a number or a word is out of range.
    """

    recipe: Recipe
    gradient_steps: int
    checkpoints: int = 10
    words: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, lowest in (("gradient_steps", 1), ("checkpoints", 0)):
            if getattr(self, name) < lowest:
                raise InputError(name, f"must be >= {lowest}", getattr(self, name))
        self.model(seed=0)

    @property
    def moments(self) -> list[int]:
        """The gradient steps after which a checkpoint is kept, increasing.

        Each ends a row of the log: a run that goes on from there has the rows of one that was never stopped.
        """
        rows = [self.gradient_steps * part // self.checkpoints for part in range(1, self.checkpoints)]
        ends = {max(self.log_interval, steps - steps % self.log_interval) for steps in rows}
        return sorted(ends | ({self.gradient_steps} if self.checkpoints else set()))

    @property
    def log_interval(self) -> int:
        """Gradient steps between two rows of the log, so that it has a hundred or so."""
        return max(1, self.gradient_steps // _ROWS)

    def model(self, seed: int) -> OfflineAlgorithm:
        """An untrained model."""
        return OfflineAlgorithm(self.recipe, seed=seed, **self.words)


@dataclass(frozen=True)
class TrainedRun:
    """A finished seed.

    Attributes:
        seed: of initial weights and batches.
        model: its file.
        gradient_steps_per_second: of the process that finished it; None where nothing was left to do.
        final: the metrics that were logged last: means over the last interval of the log.
    """

    seed: int
    model: Path
    gradient_steps_per_second: float | None
    final: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "seed": self.seed,
            "model": str(self.model),
            "gradient_steps_per_second": self.gradient_steps_per_second,
            "final": dict(self.final),
        }


def train_seed(
    plan: TrainingPlan,
    dataset: Dataset,
    folder: Path,
    seed: int,
    validation: Dataset | None = None,
    on_steps: OnSteps | None = None,
) -> TrainedRun:
    """Train one seed, from where its folder says that it got to; the result is that of an undisturbed run.

    Args:
        plan: what to do.
        dataset: what to learn from.
        folder: of this seed.
        seed: of initial weights and batches.
        validation: trajectories kept apart, whose losses are logged.
        on_steps: told of progress.

    Raises:
        InputError: the data do not suit the plan.
        NonFiniteLoss: a loss became NaN or infinite; the checkpoints before it are kept.
        StorageError: the folder cannot be written; the checkpoints that are there are kept.
    """
    tell = (lambda count, metrics: on_steps(seed, count, metrics)) if on_steps else None
    if (finished := finished_run(folder, seed)) is not None:
        if tell is not None:
            tell(plan.gradient_steps, finished.final)
        return finished
    model = latest_checkpoint(plan, folder) or plan.model(seed)
    begun = model.num_timesteps
    if tell is not None and begun:
        tell(begun, model.last_metrics)
    rate = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if begun < plan.gradient_steps:
            logger = _logger(folder, begun)
            model.set_logger(logger)
            since = time.perf_counter()
            try:
                model.fit(
                    dataset,
                    plan.gradient_steps - begun,
                    Keeper(plan.moments, folder, tell),
                    validation=validation,
                    log_interval=plan.log_interval,
                    reset_num_timesteps=begun == 0,
                )
            finally:
                logger.close()
            rate = (plan.gradient_steps - begun) / (time.perf_counter() - since)
        model.save(folder / "model.zip")
        run = TrainedRun(seed, folder / "model.zip", rate, model.last_metrics)
        with replacing(folder / "run.json") as temporary:
            temporary.write_text(json.dumps({"gradient_steps_per_second": rate, "final": dict(run.final)}) + "\n")
    except OfflineEvalError:
        raise
    except OSError as error:
        raise StorageError(
            f"{folder} could not be written ({error.strerror or error}); checkpoints are kept: make room, then resume"
        ) from error
    return run


def finished_run(folder: Path, seed: int) -> TrainedRun | None:
    """The run that a folder holds, if it is finished."""
    if not ((folder / "model.zip").is_file() and (folder / "run.json").is_file()):
        return None
    found = read_json(folder / "run.json")
    try:
        return TrainedRun(seed, folder / "model.zip", found["gradient_steps_per_second"], dict(found["final"]))
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{folder / 'run.json'} is damaged: remove it, then resume") from error


def latest_checkpoint(plan: TrainingPlan, folder: Path) -> OfflineAlgorithm | None:
    """The model of the last checkpoint in a folder, None where there is none."""
    names = [re.fullmatch(r"checkpoint_(\d+)\.zip", file.name) for file in folder.glob("checkpoint_*.zip")]
    steps = [int(name[1]) for name in names if name is not None]
    if not steps:
        return None
    # What a file does not hold comes from the plan: a policy whose Q is fitted, a learning rate that is a function.
    return OfflineAlgorithm.load(folder / f"checkpoint_{max(steps)}.zip", recipe=plan.recipe, **plan.words)


class Keeper(BaseCallback):
    """Keeps checkpoints, and tells of progress about twice a second.

    Args:
        moments: the gradient steps after which a checkpoint is kept.
        folder: where.
        tell: receives the gradient steps since the last time and the last metrics; None for nobody.
    """

    def __init__(
        self,
        moments: list[int],
        folder: Path | None,
        tell: Callable[[int, Mapping[str, float]], None] | None,
    ) -> None:
        super().__init__()
        self._moments, self._folder, self._tell = frozenset(moments), folder, tell
        self._steps, self._told = 0, time.perf_counter()

    def _on_step(self) -> bool:
        self._steps += 1
        if self._folder is not None and self.num_timesteps in self._moments:
            self.model.save(self._folder / f"checkpoint_{self.num_timesteps}.zip")
        if self._tell is not None and time.perf_counter() - self._told > _SECONDS_BETWEEN_TELLING:
            self._say()
        return True

    def _on_training_end(self) -> None:
        if self._tell is not None:
            self._say()

    def _say(self) -> None:
        assert self._tell is not None
        steps, self._steps, self._told = self._steps, 0, time.perf_counter()
        self._tell(steps, getattr(self.model, "last_metrics", {}))


def _logger(folder: Path, step: int) -> sb3_logger.Logger:
    """A logger into `progress.csv`, which keeps its rows up to a step, and TensorBoard where that is installed."""
    path = folder / "progress.csv"
    earlier = []
    if step and path.exists():
        try:
            text = path.read_bytes().decode()
            lines = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
            rows = [{name: cell for name, cell in row.items() if name and cell} for row in lines]
        except (OSError, ValueError, csv.Error) as error:
            raise StorageError(f"{path} is damaged ({error}): remove it, then resume; its rows are lost") from error
        earlier = [row for row in rows if row.get(_STEP, "").isdigit() and int(row[_STEP]) <= step]
    table = sb3_logger.CSVOutputFormat(str(path))
    table.keys = _InOrder()
    for row in earlier:
        table.write({name: _number(text) for name, text in row.items()}, dict.fromkeys(row, ()), int(row[_STEP]))
    formats: list[sb3_logger.KVWriter] = [table]
    if getattr(sb3_logger, "SummaryWriter", None) is not None:
        formats.append(sb3_logger.TensorBoardOutputFormat(str(folder)))
    return sb3_logger.Logger(str(folder), formats)


class _InOrder(list[str]):
    """The columns of SB3's table, which takes new ones from a set: in another order in every process."""

    def extend(self, columns: Iterable[str]) -> None:
        super().extend(sorted(columns))


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text
