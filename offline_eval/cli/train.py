"""Train a recipe on a data set: several seeds side by side, with checkpoints, curves and resume."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from offline_eval.cli.arguments import (
    add_environment_options,
    add_episodes,
    add_training,
    check_at_least,
    episode_plan,
    evaluate_options,
    print_json,
    print_text,
    training_words,
)
from offline_eval.cli.words import NEW_FOLDER, Ambiguous
from offline_eval.errors import InputError
from offline_eval.policies.recipe_names import CONSTRUCTORS

if TYPE_CHECKING:
    from pathlib import Path

    from offline_eval.episodes import Evaluation
    from offline_eval.policies.recipes import Recipe
    from offline_eval.training.run import TrainedRun

HELP = "train a recipe on a data set"
_EVAL_SEED = "--eval-seed"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("recipe", metavar="RECIPE", help=", ".join(CONSTRUCTORS))
    add_training(parser, gradient_steps=100_000)
    parser.add_argument("--gamma", type=float, default=0.99, help="discount of each step (default: 0.99)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change a field of the recipe: value.expectile=0.9; repeatable (default: the recipe's own fields)",
    )
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="training runs, with seeds 0 to N-1 (default: 1)"
    )
    parser.add_argument("--checkpoints", type=int, default=10, metavar="N", help="files kept on the way (default: 10)")
    parser.add_argument(
        "--validation",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="share of the trajectories that is kept apart for validation (default: 0)",
    )
    parser.add_argument(
        "--env", metavar="ID", help="id of a gymnasium environment to evaluate in when trained (default: none)"
    )
    add_environment_options(parser)
    add_episodes(parser, seed=_EVAL_SEED)
    parser.add_argument(
        "--seed",
        type=Ambiguous(f"--seeds N is for training, {_EVAL_SEED} S for the first episode"),
        help=argparse.SUPPRESS,
    )
    parser.add_argument(
        "--out",
        type=NEW_FOLDER,
        metavar="DIR",
        help="receives seed_0/model.zip, checkpoints and curves (default: RECIPE-DATASET)",
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run that DIR holds")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.set_defaults(log_states=False)


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    check_at_least(1, arguments.seeds, "--seeds")
    check_at_least(0, arguments.checkpoints, "--checkpoints")
    if not 0.0 <= arguments.validation < 1.0:
        raise InputError("--validation", "must be >= 0 and < 1", arguments.validation)
    words = {**training_words(arguments), "gamma": arguments.gamma}
    changes = [_change(word) for word in arguments.set]
    arguments.out = arguments.out or _name(arguments)
    plan, options = episode_plan(arguments, _EVAL_SEED), evaluate_options(arguments)
    import json
    from pathlib import Path

    from offline_eval.cli.progress import Progress
    from offline_eval.cli.run import described, evaluation_json
    from offline_eval.datasets import open_dataset
    from offline_eval.datasets.notes import notes_of
    from offline_eval.datasets.writing import replacing
    from offline_eval.episodes import EpisodeStore, evaluate
    from offline_eval.episodes.store import CountedEpisodes
    from offline_eval.policies import load_sb3, spaces_of
    from offline_eval.policies.learnable import training_notes
    from offline_eval.training.run import TrainingPlan
    from offline_eval.training.training import train

    training = TrainingPlan(_recipe(arguments.recipe, changes), arguments.gradient_steps, arguments.checkpoints, words)
    observation_space, action_space = spaces_of(arguments.env) if arguments.env else (None, None)
    dataset = open_dataset(
        arguments.dataset,
        observation_space=observation_space,
        action_space=action_space,
        transitions=arguments.transitions,
    )
    learned, held = dataset, None
    if arguments.validation:
        learned, held = dataset.split(arguments.validation, seed=0)
    out = Path(arguments.out)
    with Progress(arguments.seeds * arguments.gradient_steps, arguments.recipe, unit="step") as progress:
        runs = train(
            training,
            learned,
            out,
            range(arguments.seeds),
            validation=held,
            workers=None if options["workers"] == "auto" else options["workers"],
            resume=arguments.resume,
            command=arguments.command_line,
            on_steps=lambda _, steps, metrics: progress.add(steps, _losses(metrics)),
        )
    evaluations: list[Evaluation | None] = [None] * len(runs)
    if arguments.env:
        with Progress(len(runs) * len(plan), "evaluate") as progress:
            for place, trained in enumerate(runs):
                model = load_sb3(trained.model, arguments.env, arguments.device)
                evaluations[place] = evaluate(
                    model, arguments.env, plan, store=CountedEpisodes(EpisodeStore(), progress.add), **options
                )
    notes = [*notes_of(dataset), *training_notes(learned, training.recipe)]
    result = {
        "notes": notes,
        "runs": [
            trained.to_json() | ({} if evaluation is None else {"evaluation": evaluation_json(evaluation)})
            for trained, evaluation in zip(runs, evaluations, strict=True)
        ],
    }
    with replacing(out / "result.json") as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if arguments.json:
        print_json(result)
    else:
        print_text(_table(runs, evaluations, out, f"{arguments.recipe} on {described(dataset)}", notes))


def _name(arguments: argparse.Namespace) -> str:
    from pathlib import Path

    return f"{arguments.recipe}-{Path(arguments.dataset).stem}"


def _change(word: str) -> tuple[str, str]:
    path, equals, value = word.partition("=")
    if not (path and equals and value):
        raise InputError("--set", "must be a field and its value", word, "as in --set value.expectile=0.9")
    return path, value


def _recipe(name: str, changes: Sequence[tuple[str, str]]) -> Recipe:
    from offline_eval.policies.recipes import recipe_of, set_field
    from offline_eval.policies.values import FittedQ

    recipe = recipe_of(name)
    if isinstance(recipe.value, FittedQ):
        raise InputError("recipe", "must learn a policy", name, "`offline-eval critic AGENT` fits the Q of an agent")
    for path, value in changes:
        recipe = set_field(recipe, path, value)
    return recipe


def _losses(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in metrics.items() if "loss" in name)


def _table(
    runs: Sequence[TrainedRun], evaluations: Sequence[Evaluation | None], out: Path, title: str, notes: Sequence[str]
) -> str:
    from offline_eval.report.tables import columns, footnotes, interval, number

    names = list(dict.fromkeys(name for run in runs for name in run.final))
    rows: list[tuple[str, ...]] = [("seed", *(str(run.seed) for run in runs))]
    rows.append(("steps/s", *(_shown(run.gradient_steps_per_second) for run in runs)))
    rows += [(name, *(_shown(run.final.get(name)) for run in runs)) for name in names]
    played = [evaluation for evaluation in evaluations if evaluation is not None]
    if played:
        rows.append(("mean return", *(number(evaluation.summary.mean) for evaluation in played)))
    lines = [title, "", *columns(rows, "<" + ">" * len(runs)), ""]
    lines += [
        f"seed {run.seed}: mean return {number(e.summary.mean)}  95 % interval {interval(e.summary.ci95)} "
        f"over {len(e.episodes)} episodes"
        for run, e in zip(runs, evaluations, strict=True)
        if e is not None
    ]
    told = dict.fromkeys([*notes, *(note for evaluation in played for note in evaluation.notes)])
    return "\n".join([*lines, f"models in {out}/seed_*/model.zip", *footnotes([], list(told))])


def _shown(value: Any) -> str:
    from offline_eval.report.tables import number

    return "-" if value is None else number(value)
