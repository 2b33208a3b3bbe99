"""Fit the Q of an agent on a data set: fitted Q evaluation, for any agent, with a critic of its own or without."""

from __future__ import annotations

import argparse
from typing import Any

from offline_eval.cli.agents import add_opening, open_agent
from offline_eval.cli.arguments import (
    add_environment_options,
    add_training,
    check_at_least,
    print_json,
    print_text,
    training_words,
)
from offline_eval.cli.words import AGENT, NEW_FILE
from offline_eval.errors import InputError, SpaceError, bare

HELP = "fit the Q of any agent on a data set (for `steer --critic`)"
_GAMMA = 0.99


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("agent", type=AGENT, metavar="AGENT", help="zip of an SB3 or sb3-contrib agent")
    add_training(parser, gradient_steps=100_000)
    parser.add_argument(
        "--env", metavar="ID", help="where the agent was trained (default: the data set says its spaces)"
    )
    add_environment_options(parser)
    add_opening(parser)
    parser.add_argument("--gamma", type=float, help=f"discount of each step (default: the agent's, else {_GAMMA})")
    parser.add_argument("--stochastic", action="store_true", help="value the agent's draws instead of its mean action")
    parser.add_argument("--seed", type=int, default=0, help="seed of the initial weights and the batches (default: 0)")
    parser.add_argument("--out", type=NEW_FILE, required=True, metavar="FILE", help="zip that receives the critic")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    check_at_least(0, arguments.seed, "--seed")
    words = training_words(arguments)
    from pathlib import Path

    out = Path(arguments.out)
    out = out if out.suffix else out.with_name(out.name + ".zip")
    if out.exists():
        raise InputError("--out", "must not exist yet", str(out), "give another name")
    from offline_eval.cli.progress import Progress
    from offline_eval.cli.run import described
    from offline_eval.datasets import open_dataset
    from offline_eval.policies import spaces_of
    from offline_eval.policies.notes import notes_of
    from offline_eval.report.tables import columns, footnotes, number
    from offline_eval.training.fitted_critic import fit_critic

    observation_space, action_space = spaces_of(arguments.env) if arguments.env else (None, None)
    dataset = open_dataset(
        arguments.dataset,
        observation_space=observation_space,
        action_space=action_space,
        transitions=arguments.transitions,
    )
    has_spaces: Any = arguments.env or dataset
    try:
        agent = open_agent(arguments, arguments.agent, has_spaces)
    except SpaceError as error:
        if arguments.env or not dataset.source.assumed_action_space:
            raise
        raise InputError(
            "--env",
            "must be given, as the data set does not say the bounds of actions, and the agent has others",
            bare(str(dataset.action_space)),
            "name the environment that both are from",
        ) from error
    gamma = arguments.gamma
    if gamma is None:
        gamma = float(getattr(getattr(agent, "model", agent), "gamma", _GAMMA))
    with Progress(arguments.gradient_steps, "critic", unit="step") as progress:
        fitted = fit_critic(
            agent,
            dataset,
            out,
            arguments.gradient_steps,
            deterministic=not arguments.stochastic,
            seed=arguments.seed,
            words={**words, "gamma": gamma},
            on_steps=lambda steps, metrics: progress.add(
                steps, f"loss {metrics.get('critic/td_loss', float('nan')):.3g}"
            ),
        )
    if arguments.json:
        print_json({"agent": arguments.agent, **fitted.to_json(), "notes": [*notes_of(agent), *fitted.notes]})
        return
    rows = [
        ("gradient steps", f"{arguments.gradient_steps}, {number(fitted.gradient_steps_per_second)} a second"),
        ("gamma", f"{fitted.gamma:g}"),
        *((name, number(value)) for name, value in fitted.final.items()),
        (
            "value at the start",
            f"{number(fitted.initial_value)} (discounted return, mean of {fitted.num_starts} starts)",
        ),
    ]
    print_text(
        "\n".join(
            [
                f"{out}: Q of {Path(arguments.agent).name} on {described(dataset)}",
                "",
                *columns(rows, "<<"),
                *footnotes([], (*notes_of(agent), *fitted.notes)),
            ]
        )
    )
