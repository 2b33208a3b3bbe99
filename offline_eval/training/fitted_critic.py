"""A critic for an agent that has none, or none that can be trusted: its Q fitted to a data set, and what it says."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch as th

from offline_eval.batching import num_rows, take
from offline_eval.datasets.notes import notes_of
from offline_eval.datasets.trajectories import Dataset
from offline_eval.errors import InputError, bare
from offline_eval.masking import refuse_masked
from offline_eval.policies import critic_of
from offline_eval.policies.algorithm import OfflineAlgorithm
from offline_eval.policies.finite import check_finite
from offline_eval.policies.learnable import training_notes
from offline_eval.policies.normalization import as_trained
from offline_eval.policies.recipes import Recipe
from offline_eval.policies.values import FittedQ
from offline_eval.training.run import Keeper
from offline_eval.types import Predictor


@dataclass(frozen=True)
class FittedCritic:
    """A critic that was fitted.

    Attributes:
        file: where it lies; `load_sb3` and `critic_of` open it.
        gamma: discount a step.
        gradient_steps_per_second: of the fit.
        final: the metrics that were logged last.
        initial_value: mean Q of the agent's own action in the trajectories' first observations: what it expects of the
            agent, in units of the discounted return.
        num_starts: how many first observations there are.
        notes: what to know of the data.
    """

    file: Path
    gamma: float
    gradient_steps_per_second: float
    final: Mapping[str, float]
    initial_value: float
    num_starts: int
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "critic": str(self.file),
            "gamma": self.gamma,
            "gradient_steps_per_second": self.gradient_steps_per_second,
            "final": dict(self.final),
            "initial_value": {"mean": self.initial_value, "n": self.num_starts},
            "notes": list(self.notes),
        }


def fit_critic(
    agent: Predictor,
    dataset: Dataset,
    file: str | Path,
    gradient_steps: int,
    *,
    deterministic: bool = True,
    seed: int = 0,
    words: Mapping[str, Any] | None = None,
    on_steps: Callable[[int, Mapping[str, float]], None] | None = None,
) -> FittedCritic:
    """Fitted Q evaluation of an agent; its next actions are asked for once, before the first step.

    Args:
        agent: anything with `predict`; of a live model that learns behind a VecNormalize its statistics as they are.
        dataset: of the agent's environment.
        file: receives the critic; `.zip`.
        gradient_steps: how many.
        deterministic: what `predict` is told.
        seed: of initial weights and batches.
        words: of `OfflineAlgorithm`'s constructor: `gamma`, `batch_size`, ...
        on_steps: told, now and then, of the gradient steps since the last time and of the last metrics.

    Raises:
        InputError: the data do not suit, or a word is out of range.
        NonFiniteLoss: the loss became NaN or infinite.
        StorageError: the file cannot be written.
    """
    if gradient_steps < 1:
        raise InputError("gradient_steps", "must be >= 1", gradient_steps)
    refuse_masked(agent, "agent")
    agent = as_trained(agent)
    check_finite(agent, "agent")
    starts = dataset.store.offsets[:-1] + np.arange(dataset.store.num_trajectories)
    observations = take(dataset.store.observations, starts if dataset.members is None else starts[dataset.members])
    episode_start = np.ones(num_rows(observations), bool)
    actions, state = agent.predict(observations, episode_start=episode_start, deterministic=deterministic)
    if state is not None:
        raise InputError(
            "agent",
            "must act on the observation alone",
            bare(f"{type(agent).__name__}, which remembers"),
            "a recurrent policy has no Q of single observations",
        )
    recipe = Recipe(FittedQ(agent, deterministic), None)
    model = OfflineAlgorithm(recipe, seed=seed, **(words or {}))
    since = time.perf_counter()
    model.fit(dataset, gradient_steps, Keeper([], None, on_steps), log_interval=max(1, gradient_steps // 100))
    rate = gradient_steps / (time.perf_counter() - since)
    model.save(file)

    critic = critic_of(model)
    with th.no_grad():
        shown = th.as_tensor(observations, dtype=th.float32, device=critic.device)
        chosen = th.as_tensor(actions, dtype=th.float32, device=critic.device)
        value = float(critic.q(shown, critic.scale(chosen)).mean())
    notes = (*notes_of(dataset), *training_notes(dataset, recipe))
    return FittedCritic(Path(file), model.gamma, rate, model.last_metrics, value, len(episode_start), notes)
