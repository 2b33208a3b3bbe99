"""Compare agents on the same episodes: paired differences to the first one."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from offline_eval.cli.agents import identity, open_agent
from offline_eval.cli.arguments import (
    add_environment,
    add_episodes,
    add_output,
    episode_plan,
    evaluate_options,
    print_json,
    print_text,
)
from offline_eval.cli.words import AGENTS
from offline_eval.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from offline_eval.episodes import Evaluation

HELP = "paired differences between agents"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument(
        "agents",
        type=AGENTS,
        metavar="AGENT",
        nargs="+",
        help="zip of an agent, or a folder with one training seed in each seed_*/model.zip; the first is the baseline",
    )
    add_environment(parser)
    add_episodes(parser)
    add_output(parser)


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    plan, options = episode_plan(arguments), evaluate_options(arguments)
    if len(arguments.agents) < 2:
        raise InputError("AGENT", "must be at least two agents", arguments.agents, "`evaluate` plays a single one")
    from offline_eval.cli.run import Run, difference_json, evaluation_json, names_of
    from offline_eval.environments import environment_id
    from offline_eval.episodes import evaluate
    from offline_eval.report.tables import comparison_table
    from offline_eval.steering.comparison import comparison_rows

    if len(set(arguments.agents)) < len(arguments.agents):
        raise InputError("AGENT", "must be different files", arguments.agents)
    files = dict(zip(names_of(arguments.agents), map(_training_seeds, arguments.agents), strict=True))
    models = {(name, str(path)): open_agent(arguments, path) for name, paths in files.items() for path in paths}
    variants = {key: key[0] if len(files[key[0]]) == 1 else key[1] for key in models}
    hashes = {variants[key]: identity(model) for key, model in models.items()}
    asked = {"deterministic": options["deterministic"], "step_limit": options["step_limit"]}
    evaluations: dict[str, list[Evaluation]] = {name: [] for name in files}
    with Run(arguments, plan, dict.fromkeys(variants.values()), hashes, asked) as current:
        options = current.side_by_side(next(iter(models.values())), options, len(plan))
        for key, model in models.items():
            variant = variants[key]
            evaluations[key[0]].append(
                evaluate(
                    model,
                    arguments.env,
                    plan,
                    **options,
                    store=current.of(variant),
                )
            )
        rows = comparison_rows(evaluations)
        result = {
            "env": environment_id(arguments.env),
            "rows": [
                {
                    "agent": row.name,
                    "summary": row.summary.to_json(),
                    "training_seeds": [evaluation_json(evaluation) for evaluation in row.evaluations],
                    "paired": difference_json(row.difference),
                }
                for row in rows
            ],
        }
        flat = dict(zip(variants.values(), (e for runs in evaluations.values() for e in runs), strict=True))
        current.finish(flat, result)
    if arguments.json:
        print_json(result)
    else:
        print_text(comparison_table(rows, environment_id(arguments.env)))


def _training_seeds(agent: str) -> list[Path]:
    """The zips behind an argument: itself, or one a training seed."""
    from pathlib import Path

    path = Path(agent)
    if not path.is_dir():
        return [path]
    found = sorted(path.glob("seed_*/model.zip"))
    if not found:
        raise InputError("AGENT", "must be a zip, or a folder with seed_*/model.zip", agent)
    return found
