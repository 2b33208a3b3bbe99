"""One run of gradient steps on a data set: what `fit`, `fit_value` and `extract` share."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import numpy as np
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback, ConvertCallback
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.utils import configure_logger

from offline_eval.datasets.trajectories import Dataset
from offline_eval.errors import InputError, bare
from offline_eval.policies.base import OfflineBase
from offline_eval.policies.learner import Part, total_loss
from offline_eval.policies.sampling import DatasetRows, Sampler
from offline_eval.policies.watch import ProgressBar, Watch, numbers

_VALIDATION_ROWS = 2048


def check_dataset(argument: str, dataset: object) -> None:
    """Refuse what is no data set, and say how to make one of it."""
    if isinstance(dataset, Dataset):
        return
    way_out = "from_arrays and from_trajectories make one, open_dataset opens a file"
    if isinstance(dataset, str | os.PathLike):
        way_out = f"open_dataset({os.fspath(dataset)!r}) opens a file"
    elif isinstance(dataset, ReplayBuffer):
        way_out = "from_replay_buffer(buffer) makes one of it"
    raise InputError(argument, "must be a Dataset of this package", bare(f"a {type(dataset).__name__}"), way_out)


class Fitting:
    """Gradient steps of some parts of an algorithm on one data set.

    Args:
        model: what learns.
        parts: of it.
        dataset: with the model's spaces.
        digest: its fingerprint.
        validation: trajectories kept apart; None for none.

    Raises:
        InputError: fewer transitions than a batch.
    """

    def __init__(
        self,
        model: OfflineBase,
        parts: tuple[Part, ...],
        dataset: Dataset,
        digest: str,
        validation: Dataset | None,
    ) -> None:
        self._model, self._parts, self._digest = model, parts, digest
        learns_value = any(part.name == "value" for part in parts)
        self._rule = model.recipe.value if learns_value else None
        self._rows = self._rows_of(dataset)
        if len(self._rows) < model.batch_size:
            raise InputError(
                "dataset", f"must have at least a batch of transitions ({model.batch_size})",
                bare(f"{len(self._rows)}"), "give a smaller batch_size, or more data",
            )  # fmt: skip
        noise_shape = model.noise_shape if learns_value else ()
        self._sampler = Sampler(self._rows, model.run_seed, model.batch_size, noise_shape, model.device)
        self._watch = Watch(self._sampler, self._rows)
        self._validation = None
        if validation is not None:
            rows = self._rows_of(validation.for_spaces(model.observation_space, model.action_space))
            spread = np.linspace(0, len(rows) - 1, min(_VALIDATION_ROWS, len(rows))).astype(np.int64)
            batch = rows.gather(spread)
            self._validation = model.learner.step(batch, th.zeros(len(spread), *noise_shape, device=model.device))

    def _rows_of(self, dataset: Dataset) -> DatasetRows:
        return DatasetRows(dataset, self._rule, self._model.transform, self._model.device)

    def run(
        self,
        gradient_steps: int,
        callback: MaybeCallback = None,
        progress_bar: bool = False,
        log_interval: int = 1000,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "fit",
    ) -> None:
        """Make them; arguments as of `OfflineBase.fit`."""
        model = self._model
        self._note_fingerprint(reset_num_timesteps)
        if reset_num_timesteps:
            model.num_timesteps = 0
        model._num_timesteps_at_start = model.num_timesteps
        model._total_timesteps = total = model.num_timesteps + gradient_steps
        model.start_time = time.time_ns()
        if not model._custom_logger:
            model._logger = configure_logger(model.verbose, model.tensorboard_log, tb_log_name, reset_num_timesteps)
        listeners = _listeners(callback)
        if progress_bar:
            listeners.append(ProgressBar(gradient_steps))
        listening = model._init_callback(listeners)

        listening.on_training_start(locals(), globals())
        since, first = time.perf_counter(), model.num_timesteps
        while model.num_timesteps < total:
            progress = model.num_timesteps / total
            model._current_progress_remaining = 1.0 - progress
            model.advance(self._sampler, self._watch, self._parts, model.recipe.actor_schedule(progress))
            model.num_timesteps += 1
            # The row comes first: a checkpoint that a callback writes then goes on with the next one.
            if model.num_timesteps % log_interval == 0 or model.num_timesteps == total:
                self._log((model.num_timesteps - first) / max(time.perf_counter() - since, 1e-9))
                since, first = time.perf_counter(), model.num_timesteps
            if not listening.on_step():
                if first != model.num_timesteps:
                    self._log((model.num_timesteps - first) / max(time.perf_counter() - since, 1e-9))
                break
        self._watch.check()
        listening.on_training_end()

    def _note_fingerprint(self, is_new_run: bool) -> None:
        digest = self._digest
        for part in self._parts:
            before = self._model.fingerprints.get(part.name)
            if not is_new_run and before not in (None, digest):
                raise InputError(
                    "dataset", "must be the one that the run began with, to go on with it",
                    bare(f"another ({digest[:12]})"), "reset_num_timesteps=True begins a new run on other data",
                )  # fmt: skip
            self._model.fingerprints[part.name] = digest

    def _log(self, rate: float) -> None:
        model = self._model
        self._watch.check()
        model.last_metrics = self._watch.means() | self._validate()
        for name, value in model.last_metrics.items():
            model.logger.record(name, value)
        model.logger.record("train/learning_rate", model.learner.learning_rates["value"])
        model.logger.record("train/n_updates", model._n_updates, exclude="tensorboard")
        model.logger.record("time/gradient_steps_per_second", rate)
        model.logger.record("time/total_timesteps", model.num_timesteps, exclude="tensorboard")
        model.logger.dump(step=model.num_timesteps)

    @th.no_grad()
    def _validate(self) -> dict[str, float]:
        if self._validation is None:
            return {}
        held = self._validation
        _, metrics = total_loss(self._parts, self._model.learner.step(held.batch, held.noise))
        return numbers({f"validation/{name}": value.mean() for name, value in metrics.items()})


def _listeners(callback: MaybeCallback) -> list[BaseCallback]:
    given: Sequence[object] = callback if isinstance(callback, list) else [callback]
    return [c if isinstance(c, BaseCallback) else ConvertCallback(c) for c in given if c is not None]  # type: ignore[arg-type]
