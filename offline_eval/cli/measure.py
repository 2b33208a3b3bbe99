"""Measure an agent: ranks, bias, regret, errors and coverage, each beside its control, or why it could not be told."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from offline_eval.cli.agents import identity, open_agent, zip_or_none
from offline_eval.cli.arguments import (
    add_environment,
    add_parallelism,
    add_transitions,
    check_at_least,
    data_of,
    parallelism_words,
    print_json,
    print_text,
)
from offline_eval.cli.words import AGENT, DATA, NEW_FOLDER
from offline_eval.errors import InputError, printable

if TYPE_CHECKING:
    from offline_eval.measurement.plan import MeasurementPlan

HELP = "measure an agent and its critic, beside controls"
_VARIANT = "plain"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("agent", type=AGENT, metavar="AGENT", help="zip of an SB3 or sb3-contrib agent")
    add_environment(parser)
    parser.add_argument(
        "--dataset",
        type=DATA,
        metavar="D",
        help="what the agent was trained on: a file or a folder (default: none, and nothing is said of the data)",
    )
    add_transitions(parser)
    parser.add_argument(
        "--oracle",
        type=AGENT,
        metavar="FILE",
        help="zip of an agent whose actions are right, where there is one (default: none)",
    )
    parser.add_argument(
        "--critic", type=AGENT, metavar="FILE", help="zip of an agent whose critic is measured (default: AGENT's own)"
    )
    parser.add_argument(
        "--reference", type=AGENT, metavar="FILE", help="zip of an agent whose bias is subtracted (default: none)"
    )
    add_plan(parser)
    parser.add_argument(
        "--out",
        type=NEW_FOLDER,
        metavar="DIR",
        help="run folder to write: manifest.json, episodes.csv, states/, report.html (default: none)",
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run that DIR holds")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def add_plan(parser: argparse.ArgumentParser) -> None:
    """How much is measured."""
    parser.add_argument("--quick", action="store_true", help="less of everything: under 2 minutes for a Hopper")
    parser.add_argument("--episodes", type=int, metavar="N", help="episodes to play (default: 50, with --quick 10)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first episode (default: 0)")
    add_parallelism(parser)
    parser.add_argument(
        "--step-limit",
        type=int,
        metavar="STEPS",
        help="cut episodes after so many steps (default: the environment's limit)",
    )
    parser.add_argument(
        "--states",
        type=int,
        metavar="N",
        help="restored states at which actions are tried (default: 100, with --quick 40)",
    )
    parser.add_argument(
        "--rollouts", type=int, metavar="N", help="rollouts of each action (default: 4, with --quick 3)"
    )
    parser.add_argument(
        "--perturbation", type=float, metavar="STD", help="spread of the perturbed actions, scaled (default: 0.5)"
    )
    parser.add_argument(
        "--hold", type=int, metavar="STEPS", help="steps for which a tried action is repeated (default: 1)"
    )


def plan_of(arguments: argparse.Namespace) -> MeasurementPlan:
    """The plan that the options describe."""
    from dataclasses import replace

    from offline_eval.measurement.plan import MeasurementPlan

    for name in ("episodes", "step_limit", "states", "rollouts", "hold"):
        if getattr(arguments, name) is not None:
            check_at_least(1, getattr(arguments, name), f"--{name.replace('_', '-')}")
    check_at_least(0, arguments.seed, "--seed")
    if arguments.perturbation is not None and not arguments.perturbation > 0:
        raise InputError("--perturbation", "must be > 0", arguments.perturbation)
    asked = {"seed": arguments.seed, "step_limit": arguments.step_limit, **parallelism_words(arguments)}
    if arguments.episodes is not None:
        asked["episodes"] = arguments.episodes
    plan = MeasurementPlan.quick(**asked) if arguments.quick else MeasurementPlan(**asked)
    names = {"num_states": "states", "num_rollouts": "rollouts", "perturbation": "perturbation", "hold": "hold"}
    given = {field: getattr(arguments, name) for field, name in names.items() if getattr(arguments, name) is not None}
    return replace(plan, trial=replace(plan.trial, **given))


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    if arguments.resume and not arguments.out:
        raise InputError("--resume", "needs the folder to go on with", None, "add --out DIR")
    plan = plan_of(arguments)
    from dataclasses import replace

    from offline_eval.cli.progress import Stages
    from offline_eval.cli.run import names_of, side_by_side, write_report
    from offline_eval.environments import environment_id
    from offline_eval.episodes import EpisodePlan
    from offline_eval.measurement.measurement import measure
    from offline_eval.provenance import recipe
    from offline_eval.report.measurement_table import measurement_table
    from offline_eval.run_folder import RunFolder, plan_to_json

    files = [path for path in (arguments.agent, arguments.oracle, arguments.critic, arguments.reference) if path]
    names = dict(zip(files, names_of(files), strict=True))
    model = open_agent(arguments, arguments.agent)
    folder = None
    if arguments.out:
        asked = {
            "env": environment_id(arguments.env),
            "agents": {names[arguments.agent]: identity(model)},
            "plan": plan_to_json(EpisodePlan.seeded(plan.episodes, plan.seed)),
            "variants": {_VARIANT: None},
            "options": {
                "measure": {key: value for key, value in recipe(plan).items() if key not in ("n_envs", "workers")},
                "dataset": arguments.dataset,
                "oracle": arguments.oracle,
                "critic": arguments.critic,
                "reference": arguments.reference,
            },
        }
        folder = RunFolder(arguments.out, asked, arguments.resume, arguments.command_line, log_states=True)
    plan = replace(plan, **side_by_side(folder, model, arguments.env, vars(plan), plan.episodes))
    stages = Stages()
    try:
        measurement = measure(
            model,
            arguments.env,
            dataset=data_of(arguments, arguments.dataset),
            oracle=zip_or_none(arguments, arguments.oracle),
            critic=zip_or_none(arguments, arguments.critic),
            reference=zip_or_none(arguments, arguments.reference),
            plan=plan,
            device=arguments.device,
            name=names[arguments.agent],
            store=None if folder is None else folder.of(_VARIANT),
            watcher=stages,
        )
    finally:
        stages.close()
    result = measurement.to_json()
    if folder is not None:
        folder.finish({_VARIANT: measurement.performance.evaluation}, result)
        print(printable(f"report: {write_report(folder.path)}"), file=sys.stderr)
    if arguments.json:
        print_json(result)
    else:
        print_text(measurement_table(result))
