"""A training run over its checkpoints: does the return follow the errors, and which of the three?"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from offline_eval.checks import check_kind
from offline_eval.datasets.log import open_log
from offline_eval.datasets.notes import notes_of
from offline_eval.datasets.opening import open_dataset
from offline_eval.datasets.trajectories import Dataset
from offline_eval.diagnostics.policy_error import return_correlation
from offline_eval.environments import EnvironmentLike, environment_id
from offline_eval.episodes import EpisodePlan, Evaluation, StateLog, evaluate
from offline_eval.episodes.evaluation import REPLAYS
from offline_eval.errors import InputError, bare
from offline_eval.measurement.candidates import Reach
from offline_eval.measurement.monte_carlo_returns import stacked
from offline_eval.measurement.plan import MeasurementPlan
from offline_eval.measurement.records import SCHEMA, Errors, Skipped, attempt
from offline_eval.measurement.state_sets import (
    Agent,
    CriticsOptimum,
    GreedyChoice,
    Sets,
    critics_optimum,
    policy_errors,
)
from offline_eval.policies import AgentZip, critic_of, opened, spaces_of, weights_hash
from offline_eval.policies.opening import is_file
from offline_eval.provenance import versions
from offline_eval.types import Predictor

_SETS = ("train", "validation", "evaluation")
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """One moment of the training.

    Attributes:
        step: the number in the file's name, or its place where there is none.
        name: of the file.
        evaluation: its episodes, on the same seeds for every checkpoint.
        errors: its three errors.
    """

    step: int
    name: str
    evaluation: Evaluation
    errors: Errors

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        returns = self.evaluation.returns
        return {
            "step": self.step,
            "name": self.name,
            "returns": [None if np.isnan(value) else float(value) for value in returns],
            "summary": self.evaluation.summary.to_json(),
            "weights_hash": self.evaluation.weights_hash[0],
            "notes": list(self.evaluation.notes),
            "policy_error": self.errors.to_json(),
        }


@dataclass(frozen=True, eq=False)
class Track:
    """A training run.

    Attributes:
        checkpoints: in the order of training.
        correlations: Spearman's correlation of the mean return with each of the errors, by set.
        manifest: how it was made.
    """

    checkpoints: tuple[Checkpoint, ...]
    correlations: Mapping[str, float | Skipped]
    manifest: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The object of `track --json`."""
        return {
            "schema": SCHEMA,
            "checkpoints": [checkpoint.to_json() for checkpoint in self.checkpoints],
            "correlations": {
                name: value.to_json() if isinstance(value, Skipped) else value
                for name, value in self.correlations.items()
            },
            "manifest": dict(self.manifest),
        }


def checkpoints_in(folder: str | Path) -> list[tuple[int, Path]]:
    """Zips of a folder and the folders in it, by the last number in their names (`rl_model_4000_steps.zip`: 4000).

    Raises:
        InputError: there are fewer than two.
    """
    folder = Path(folder)
    found = sorted(folder.rglob("*.zip")) if folder.is_dir() else []
    numbered = [(int(_NUMBER.findall(path.stem)[-1]), path) for path in found if _NUMBER.search(path.stem)]
    if len(numbered) < 2:
        raise InputError(
            "RUN_DIR",
            "must hold two or more checkpoints with a number in their names",
            bare(f"{len(numbered)} in {folder}"),
            "save them with SB3's CheckpointCallback, for example",
        )
    return sorted(numbered)


def track(
    run: str | Path,
    env: EnvironmentLike,
    dataset: Dataset | str | Path,
    *,
    oracle: Predictor | str | Path | AgentZip | None = None,
    plan: MeasurementPlan | None = None,
    device: str = "auto",
    opened_as: Callable[[Path], AgentZip] = AgentZip,
    on_checkpoint: Callable[[int, int], None] | None = None,
) -> Track:
    """Return and errors of every checkpoint of a training run, on the same seeds and the same states of the data.

    Args:
        run: folder with the checkpoints' zips.
        env: an id, a spec or a factory.
        dataset: what the policy was trained on.
        oracle: whose actions are right; the last checkpoint's critic within the data's reach if left out.
        plan: how many episodes and states.
        device: where checkpoints are loaded.
        opened_as: says how a checkpoint's file is opened: with which statistics, and whether its own code may be run.
        on_checkpoint: told how many are done, of how many.

    Raises:
        InputError: too few checkpoints, or data of another environment.
    """
    check_kind("plan", plan, MeasurementPlan, "MeasurementPlan(episodes=20)")
    plan = plan or MeasurementPlan.quick()
    files = checkpoints_in(run)

    def checkpoint(path: Path) -> Any:
        return opened(opened_as(path), env, device)[0]

    for _, path in files:
        checkpoint(path)  # refused here, and not after the others were played
    observation_space, action_space = spaces_of(env)
    if not isinstance(dataset, Dataset):
        dataset = open_dataset(dataset, observation_space=observation_space, action_space=action_space)
    dataset = dataset.for_spaces(observation_space, action_space)
    train, validation = dataset.split(plan.validation_fraction, plan.seed)
    name = Path(oracle).name if is_file(oracle) else type(oracle).__name__
    right: Agent | CriticsOptimum | GreedyChoice
    if oracle is not None:
        right = Agent(opened(oracle, env, device, "oracle")[0], name)
    else:
        last = critic_of(checkpoint(files[-1][1]))
        reach = attempt(lambda: Reach(train, np.random.default_rng([plan.seed, 1])))
        optimum = critics_optimum(last, reach, plan.num_near)
        if isinstance(optimum, Skipped):
            raise InputError("oracle", "must be given for these data", None, optimum.reason)
        right = optimum
    rows: list[Checkpoint] = []
    for done, (step, path) in enumerate(files):
        model = checkpoint(path)
        with TemporaryDirectory() as temporary:
            evaluation = evaluate(
                model,
                env,
                EpisodePlan.seeded(plan.episodes, plan.seed),
                n_envs=plan.n_envs,
                workers=plan.workers,
                step_limit=plan.step_limit,
                replays=0 if rows else REPLAYS,  # the environment is the same for all of them
                fresh=bool(rows) and rows[0].evaluation.invariance.fresh,
                store=StateLog(Path(temporary) / "states"),
            )
            sets = Sets(train, validation, stacked(list(open_log(Path(temporary) / "states"))), Skipped(""))
        generator = np.random.default_rng([plan.seed, 5])  # the same states of the data for every checkpoint
        errors = policy_errors(model, action_space, right, sets, plan.num_states, generator)
        rows.append(Checkpoint(step, path.name, evaluation, errors))
        if on_checkpoint is not None:
            on_checkpoint(done + 1, len(files))
    manifest = {
        "run": str(run),
        "env": environment_id(env),
        "dataset": dataset.source.path,
        "oracle": right.name,
        "episodes": plan.episodes,
        "seed": plan.seed,
        "last_weights_hash": weights_hash(model),
        "versions": versions(),
        "notes": [*_notes(rows), *notes_of(dataset)],
    }
    return Track(tuple(rows), {name: _correlation(rows, name) for name in _SETS}, manifest)


def _notes(rows: list[Checkpoint]) -> list[str]:
    """The notes of all checkpoints: those that name a file each, once for all."""
    found = list(dict.fromkeys(note for row in rows for note in row.evaluation.notes))
    return found if len(found) <= 2 else [found[0], f"and {len(found) - 1} more such notes, one by one in the JSON"]


def _correlation(rows: list[Checkpoint], name: str) -> float | Skipped:
    found = [getattr(row.errors, name) for row in rows]
    if skipped := next((part for part in found if isinstance(part, Skipped)), None):
        return skipped
    failed = [f"{row.step}" for row in rows if row.evaluation.failures]
    if failed:
        return Skipped(f"episodes failed at step {', '.join(failed)}: the return there is not known")
    returns = [row.evaluation.summary.mean for row in rows]
    return attempt(lambda: return_correlation(returns, [part.mse.value for part in found]))
