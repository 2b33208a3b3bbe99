"""Diagnose an agent: does the value, the extraction or the generalisation hold it back, and what is to be done?"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from offline_eval.cli.agents import identity, open_agent, opening_words, zip_or_none
from offline_eval.cli.arguments import (
    add_environment,
    add_parallelism,
    add_transitions,
    check_at_least,
    data_of,
    env_id_of,
    parallelism_words,
    print_json,
    print_text,
)
from offline_eval.cli.words import AGENT, DATA, NEW_FOLDER
from offline_eval.errors import InputError, printable

if TYPE_CHECKING:
    from offline_eval.diagnosis.plan import DiagnosisPlan
    from offline_eval.run_folder import RunFolder

HELP = "tell which bottleneck holds an agent back"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("agent", type=AGENT, metavar="AGENT", help="zip of an SB3 or sb3-contrib agent")
    add_environment(parser)
    parser.add_argument(
        "--dataset", type=DATA, required=True, metavar="D", help="what the agent was trained on: a file or a folder"
    )
    add_transitions(parser)
    parser.add_argument(
        "--critic", type=AGENT, metavar="FILE", help="zip of an agent whose critic is asked (default: AGENT's own)"
    )
    parser.add_argument(
        "--critic-dataset",
        type=DATA,
        metavar="D",
        help="what the critic was trained on, where that is other data (default: that of --dataset)",
    )
    parser.add_argument(
        "--oracle",
        type=AGENT,
        metavar="FILE",
        help="zip of an agent whose actions are right, where there is one (default: none)",
    )
    parser.add_argument("--quick", action="store_true", help="20 episodes instead of 50: under 2 minutes for a Hopper")
    parser.add_argument(
        "--episodes", type=int, metavar="N", help="episodes of every intervention (default: 50, with --quick 20)"
    )
    parser.add_argument(
        "--selection-episodes",
        type=int,
        metavar="N",
        help="episodes on which choices are made (default: 20, with --quick 8)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the first episode (default: 0)")
    add_parallelism(parser)
    parser.add_argument(
        "--step-limit",
        type=int,
        metavar="STEPS",
        help="cut episodes after so many steps (default: the environment's limit)",
    )
    parser.add_argument(
        "--rollouts",
        type=int,
        metavar="N",
        help="rollouts of every action that the search by rollouts tries (default: 2)",
    )
    parser.add_argument(
        "--truth-starts", type=int, metavar="N",
        help="starts of the search by rollouts, which serves as ground truth (default: 50, with --quick 20; 10 "
        "where an intervention by Q goes before it)",
    )  # fmt: skip
    parser.add_argument(
        "--extract", type=int, metavar="STEPS",
        help="gradient steps in which a policy is extracted anew from the same critic, by DDPG+BC and by AWR; 0: not "
        "at all (default: 2000, with --quick 0)",
    )  # fmt: skip
    parser.add_argument(
        "--out",
        type=NEW_FOLDER,
        metavar="DIR",
        help="run folder to write: manifest.json, episodes.csv, report.html and more (default: none)",
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run that DIR holds")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def plan_of(arguments: argparse.Namespace) -> DiagnosisPlan:
    """The plan that the options describe."""
    from offline_eval.diagnosis.plan import DiagnosisPlan, Extractions

    for name, lowest in (
        ("episodes", 2),
        ("selection_episodes", 2),
        ("step_limit", 1),
        ("extract", 0),
        ("rollouts", 1),
        ("truth_starts", 2),
    ):
        if getattr(arguments, name) is not None:
            check_at_least(lowest, getattr(arguments, name), f"--{name.replace('_', '-')}")
    check_at_least(0, arguments.seed, "--seed")
    words: dict[str, Any] = {
        "seed": arguments.seed,
        **parallelism_words(arguments),
        "step_limit": arguments.step_limit,
    }
    if arguments.extract is not None:
        words["extractions"] = Extractions(gradient_steps=arguments.extract)
    words |= {
        name: getattr(arguments, name)
        for name in ("episodes", "selection_episodes")
        if getattr(arguments, name) is not None
    }
    plan = DiagnosisPlan.quick(**words) if arguments.quick else DiagnosisPlan(**words)
    truth: dict[str, int] = {}
    if arguments.rollouts is not None:
        truth |= {"num_rollouts": arguments.rollouts}
    if arguments.truth_starts is not None:
        truth |= {"num_starts": arguments.truth_starts, "num_steered": arguments.truth_starts}
    return replace(plan, truth=replace(plan.truth, **truth))


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    if arguments.resume and not arguments.out:
        raise InputError("--resume", "needs the folder to go on with", None, "add --out DIR")
    plan = plan_of(arguments)
    from offline_eval.cli.progress import Stages
    from offline_eval.cli.run import names_of, side_by_side, write_report
    from offline_eval.diagnosis.diagnosis import diagnose
    from offline_eval.diagnosis.records import POLICY
    from offline_eval.diagnosis.wording import Asked
    from offline_eval.report.diagnosis_table import diagnosis_table

    model = open_agent(arguments, arguments.agent)
    name = names_of([path for path in (arguments.agent, arguments.critic, arguments.oracle) if path])[0]
    folder = _folder(arguments, plan, name, identity(model))
    plan = replace(plan, **side_by_side(folder, model, arguments.env, vars(plan), plan.episodes))
    stages = Stages()
    try:
        diagnosis = diagnose(
            model,
            arguments.env,
            data_of(arguments, arguments.dataset),
            critic=zip_or_none(arguments, arguments.critic),
            oracle=zip_or_none(arguments, arguments.oracle),
            plan=plan,
            critic_dataset=data_of(arguments, arguments.critic_dataset),
            device=arguments.device,
            name=name,
            asked=Asked(
                arguments.agent,
                env_id_of(arguments),
                arguments.dataset,
                plan.num_steps,
                critic=arguments.critic,
                critic_dataset=arguments.critic_dataset,
                oracle=arguments.oracle,
                env_options=(*getattr(arguments.env, "options", ()), *opening_words(arguments)),
                data_options=("--transitions",) if arguments.transitions else (),
            ),
            store=folder,
            watcher=stages,
        )
    finally:
        stages.close()
    result = diagnosis.to_json()
    if folder is not None:
        folder.finish({POLICY: diagnosis.measurement.performance.evaluation}, result)
        print(printable(f"report: {write_report(folder.path)}"), file=sys.stderr)
    if arguments.json:
        print_json(result)
    else:
        print_text(diagnosis_table(result))


def _folder(arguments: argparse.Namespace, plan: DiagnosisPlan, name: str, digest: str | None) -> RunFolder | None:
    if not arguments.out:
        return None
    from offline_eval.diagnosis.records import POLICY
    from offline_eval.environments import environment_id
    from offline_eval.episodes import EpisodePlan
    from offline_eval.provenance import recipe
    from offline_eval.run_folder import RunFolder, plan_to_json

    asked = {
        "env": environment_id(arguments.env),
        "agents": {name: digest},
        "plan": plan_to_json(EpisodePlan.seeded(plan.episodes, plan.seed)),
        "variants": {POLICY: None},
        "options": {
            "diagnose": {key: value for key, value in recipe(plan).items() if key not in ("n_envs", "workers")},
            "dataset": arguments.dataset,
            "critic": arguments.critic,
            "critic_dataset": arguments.critic_dataset,
            "oracle": arguments.oracle,
        },
    }
    return RunFolder(arguments.out, asked, arguments.resume, arguments.command_line, log_states=True)
