"""What the commands share while they run: agents, run folders, progress and JSON."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offline_eval.cli.progress import Progress
from offline_eval.environments import environment_id
from offline_eval.episodes.store import EpisodeStore
from offline_eval.errors import OfflineEvalError, printable

if TYPE_CHECKING:
    from offline_eval.datasets.trajectories import Dataset
    from offline_eval.environments import EnvironmentLike
    from offline_eval.episodes import Episode, EpisodePlan, Evaluation
    from offline_eval.run_folder import RunFolder
    from offline_eval.stats import PairedDifference, SeedComparison
    from offline_eval.steering.steering import SteeringRow
    from offline_eval.types import Predictor


class Run(EpisodeStore):
    """One command's episodes: told to a progress bar, kept in the run folder if there is one.

    Args:
        arguments: of the command.
        plan: of every variant.
        variants: by name, as plain data.
        agents: name and weights' hash of each agent.
        options: whatever else must agree for the run to be resumed.
    """

    def __init__(
        self,
        arguments: argparse.Namespace,
        plan: EpisodePlan,
        variants: Mapping[str, Any],
        agents: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> None:
        self.folder: RunFolder | None = None
        self._env = arguments.env
        if arguments.out:
            from offline_eval.run_folder import RunFolder, plan_to_json

            asked = {
                "env": environment_id(arguments.env),
                "agents": dict(agents),
                "plan": plan_to_json(plan),
                "variants": dict(variants),
                "options": dict(options),
            }
            self.folder = RunFolder(
                arguments.out, asked, arguments.resume, arguments.command_line, arguments.log_states
            )
        num_done = sum(len(self.done(name)) for name in variants)
        self._progress = Progress(len(variants) * len(plan) - num_done, "episodes")

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: Any) -> None:
        self._progress.__exit__(*error)

    def done(self, variant: str) -> list[Episode]:
        """What an earlier, interrupted run has finished."""
        return [] if self.folder is None else self.folder.done(variant)

    def states(self, variant: str) -> Path | None:
        """Where a variant's states go."""
        return None if self.folder is None else self.folder.states(variant)

    def side_by_side(self, model: Predictor, options: Mapping[str, Any], num_episodes: int) -> dict[str, Any]:
        """The keywords of `evaluate` with numbers of environments and processes: chosen now, or kept by a resumed run.

        Args:
            model: what plays, or the first of those that do.
            options: the keywords, where "auto" may stand for a number.
            num_episodes: of one call of `evaluate`.
        """
        return {**options, **side_by_side(self.folder, model, self._env, options, num_episodes)}

    def record(self, variant: str, episode: Episode) -> None:
        """One more episode."""
        if self.folder is not None:
            self.folder.record(variant, episode)
        self._progress.advance(variant)

    def finish(self, evaluations: Mapping[str, Evaluation], result: Mapping[str, Any]) -> None:
        """Complete the run folder; say so where nothing was played at all."""
        if self.folder is not None:
            self.folder.finish(evaluations, result)
        for variant, evaluation in evaluations.items():
            if len(evaluation.failures) == len(evaluation.plan):
                raise OfflineEvalError(f"every episode of {variant} failed: {evaluation.failures[0].failed}")


def side_by_side(
    folder: RunFolder | None, model: Predictor, env: EnvironmentLike, options: Mapping[str, Any], num_episodes: int
) -> dict[str, Any]:
    """`n_envs` and `workers` as numbers; what was chosen stands in the folder, and a resumed run keeps it."""
    from offline_eval.episodes.evaluation import parallelism

    given = {name: options[name] for name in ("n_envs", "workers")}

    def choose() -> dict[str, int]:
        return vars(parallelism(model, env, num_episodes, **given, step_limit=options["step_limit"]))

    if "auto" not in given.values():
        return given
    kept = choose() if folder is None else folder.settled("side_by_side", choose)
    return {name: kept.get(name, 1) if value == "auto" else value for name, value in given.items()}


def evaluation_json(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation as the object of `evaluate --json`."""
    from offline_eval.stats.samples import finite_or_none

    before, after = evaluation.weights_hash
    summary = evaluation.summary.to_json() | {
        "length": evaluation.mean_length,
        "share_truncated": evaluation.share_truncated,
        "steps_per_second": evaluation.steps_per_second,
    }
    if evaluation.successes is not None:
        from offline_eval.stats import wilson_interval

        succeeded, told = evaluation.successes
        rate = {"rate": succeeded / told, "n": told, "ci95": wilson_interval(succeeded, told).to_json()}
        summary["success"] = {**rate, "at": evaluation.success_at.words}
    return {
        "env": evaluation.env,
        "algorithm": evaluation.algorithm,
        "episodes": [episode.to_json() for episode in evaluation.episodes],
        "summary": summary,
        "weights_hash": {"before": before, "after": after},
        "invariant": evaluation.invariant,
        "invariance": evaluation.invariance.to_json(),
        "n_envs": evaluation.n_envs,
        "workers": evaluation.workers,
        "notes": list(evaluation.notes),
        **({} if evaluation.curve is None else {"curve": [finite_or_none(value) for value in evaluation.curve]}),
    }


def difference_json(difference: PairedDifference | SeedComparison | None) -> dict[str, Any] | None:
    """A difference as plain data."""
    return None if difference is None else difference.to_json()


def steering_row_json(row: SteeringRow) -> dict[str, Any]:
    """A row of `steer` as plain data."""
    return {
        "rule": row.variant.name,
        "step_size": row.variant.step_size,
        "learning_rate": row.variant.learning_rate,
        "recipe": row.evaluation.recipe,
        "control": row.variant.control,
        **evaluation_json(row.evaluation),
        "steering": row.evaluation.steering,
        "paired": difference_json(row.paired),
        "best_control": row.best_control,
        "against_control": difference_json(row.against_control),
        "verdict": None if row.credit is None else str(row.credit),
    }


def described(dataset: Dataset) -> str:
    """A data set in a few words."""
    name = Path(dataset.source.path).name if dataset.source.path else "arrays in memory"
    return f"{name} ({dataset.num_transitions} transitions, {dataset.num_trajectories} trajectories)"


def names_of(paths: Iterable[str]) -> list[str]:
    """Short names of files that tell them apart: the file's, or with folders where two files share it."""
    parts = [tuple(map(printable, Path(path).parts)) for path in paths]
    for depth in range(1, max(len(part) for part in parts) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(set(parts)):
            break
    return names


def write_report(folder: Path) -> Path:
    """Write the page of a finished run into its folder, and say where."""
    from offline_eval.report.page import write_page
    from offline_eval.report.runs import read_runs

    return write_page(read_runs([folder]), folder / "report.html")
