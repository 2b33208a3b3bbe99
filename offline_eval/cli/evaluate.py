"""Play an agent on seeded episodes: mean, IQM, median and honest intervals."""

from __future__ import annotations

import argparse

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
from offline_eval.cli.words import AGENT
from offline_eval.errors import printable

HELP = "play an agent on seeded episodes"
_VARIANT = "plain"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("agent", type=AGENT, metavar="AGENT", help="zip of an SB3 or sb3-contrib agent")
    add_environment(parser)
    add_episodes(parser)
    add_output(parser)


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    plan, options = episode_plan(arguments), evaluate_options(arguments)
    from pathlib import Path

    from offline_eval.cli.run import Run, evaluation_json
    from offline_eval.episodes import evaluate
    from offline_eval.report.tables import evaluation_table

    name = printable(Path(arguments.agent).name)
    model = open_agent(arguments, arguments.agent)
    asked = {"deterministic": options["deterministic"], "step_limit": options["step_limit"]}
    with Run(arguments, plan, {_VARIANT: None}, {name: identity(model)}, asked) as current:
        evaluation = evaluate(
            model,
            arguments.env,
            plan,
            **current.side_by_side(model, options, len(plan)),
            store=current.of(_VARIANT),
        )
        result = evaluation_json(evaluation)
        current.finish({_VARIANT: evaluation}, result)
    if arguments.json:
        print_json(result)
    else:
        print_text(evaluation_table(evaluation, name))
