"""Look at a data set: what is in it, what is wrong with it, and the same in another layout."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offline_eval.cli.arguments import add_environment_options, add_transitions, choose, print_json, print_text
from offline_eval.cli.words import DATA, NEW_FILE
from offline_eval.environments import environment_id
from offline_eval.errors import InputError

if TYPE_CHECKING:
    from gymnasium import Space

    from offline_eval.datasets import Dataset
    from offline_eval.environments import EnvironmentLike

HELP = "describe, check or convert a data set"

_FORMATS = "HDF5 of D4RL, robomimic or d3rlpy, a Minari folder, a log of states, .npz of OGBench or of flat rows"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    tasks = parser.add_subparsers(dest="task", metavar="TASK", required=True)
    for name, run_task, explanation in (
        ("describe", _describe, "returns, lengths, coverage of the action box, normalised score"),
        ("check", _check, "the doctor: eleven faults, where each is and how to mend it; exit code 1 on an error"),
        ("convert", _convert, "write the same trajectories in another layout"),
    ):
        task = tasks.add_parser(name, help=explanation, description=explanation)
        task.add_argument("path", type=DATA, metavar="PATH", help=_FORMATS)
        task.add_argument(
            "--env",
            metavar="ID",
            help="environment whose spaces the data have (default: the one that the file names)",
        )
        add_environment_options(task)
        task.add_argument(
            "--max-episode-steps",
            type=int,
            help="the environment's time limit, where the file has none (default: the environment's)",
        )
        if name != "check":
            add_transitions(task)
        if name == "convert":
            task.add_argument("--out", type=NEW_FILE, required=True, metavar="PATH", help="new file or folder")
            task.add_argument("--layout", default="d4rl", help="d4rl, minari or packed (default: %(default)s)")
        else:
            task.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
        task.set_defaults(run_task=run_task)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; 1 where the doctor found an error."""
    task: Callable[[argparse.Namespace], int] = arguments.run_task
    return task(arguments)


def _describe(arguments: argparse.Namespace) -> int:
    from offline_eval.datasets import describe

    description = describe(_open(arguments))
    if arguments.json:
        print_json(description.as_dict())
    else:
        from offline_eval.report.data_tables import description_table

        print_text(description_table(description))
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from offline_eval.datasets import check
    from offline_eval.datasets.doctor import has_errors

    _, action_space = _spaces(arguments.env)
    findings = check(
        arguments.path,
        action_space=action_space,
        max_episode_steps=arguments.max_episode_steps,
        env_id=None if arguments.env is None else environment_id(arguments.env),
    )
    if arguments.json:
        print_json({"findings": [finding.as_dict() for finding in findings]})
    else:
        from offline_eval.report.data_tables import findings_table

        print_text(findings_table(findings))
    return int(has_errors(findings))


def _convert(arguments: argparse.Namespace) -> int:
    from offline_eval.datasets import save_dataset
    from offline_eval.datasets.opening import WRITERS

    choose(arguments.layout, dict(WRITERS), "--layout")
    out = Path(arguments.out)
    is_empty_folder = arguments.layout != "d4rl" and out.is_dir() and not any(out.iterdir())
    if out.exists() and not is_empty_folder:
        raise InputError("--out", "must not exist yet", arguments.out, "name another path, or remove this one first")
    dataset = _open(arguments)
    save_dataset(dataset, out, arguments.layout)
    print_text(f"{len(dataset)} trajectories, {dataset.num_steps} steps: {arguments.out}")
    return 0


def _open(arguments: argparse.Namespace) -> Dataset:
    """The data set, of the environment `--env` where that is given."""
    from offline_eval.datasets import open_dataset

    observation_space, action_space = _spaces(arguments.env)
    dataset = open_dataset(
        arguments.path,
        observation_space=observation_space,
        action_space=action_space,
        max_episode_steps=arguments.max_episode_steps,
        transitions=arguments.transitions,
    )
    if arguments.env is None:
        return dataset
    return replace(dataset, source=replace(dataset.source, env_id=environment_id(arguments.env)))


def _spaces(env: EnvironmentLike | None) -> tuple[Space[Any] | None, Space[Any] | None]:
    """Observation and action space of the environment that `--env` names."""
    if env is None:
        return None, None
    from offline_eval.policies import spaces_of

    return spaces_of(env)
