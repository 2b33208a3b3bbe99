"""Steer an agent at test time and show the gain beside its controls, on the same episodes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from offline_eval.cli.agents import identity, open_agent
from offline_eval.cli.arguments import (
    add_environment,
    add_episodes,
    add_output,
    check_at_least,
    choose,
    episode_plan,
    evaluate_options,
    numbers,
    print_json,
    print_text,
)
from offline_eval.cli.rule_words import describe_rules, make_rule, split_rule
from offline_eval.cli.words import AGENT, LISTING
from offline_eval.errors import InputError, MissingExtra, printable

if TYPE_CHECKING:
    from pathlib import Path

    from offline_eval.steering.steering import SteeringRow

HELP = "steer an agent by its critic, beside controls"
_STEP_SIZES = "0,0.05,0.2"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("agent", type=AGENT, metavar="AGENT", help="zip of an SB3 or sb3-contrib agent")
    add_environment(parser)
    parser.add_argument(
        "--critic", type=AGENT, metavar="FILE", help="zip of an agent whose critic steers (default: AGENT's own)"
    )
    parser.add_argument(
        "--rule",
        action="append",
        default=[],
        metavar="RULE",
        help="what steers, with its fields: opex:0.2, best_of:32,std=0.5 or ttt:3e-4; repeatable; --rules lists them "
        "(default: those of --step-sizes)",
    )
    parser.add_argument("--rules", action=_ListRules, nargs=0, help="list the rules with their fields, and exit")
    parser.add_argument(
        "--step-sizes",
        type=LISTING,
        help="OPEX steps in the scaled action space, or auto: a gated trial of two decades of them and of other rules "
        f"on selection seeds, its winner confirmed on the episodes asked for (default: {_STEP_SIZES}, or none beside "
        "--rule)",
    )
    parser.add_argument(
        "--selection-episodes",
        type=int,
        default=10,
        metavar="N",
        help="episodes of the trial of auto, whose seeds follow those of --episodes (default: %(default)s)",
    )
    parser.add_argument(
        "--direction", default="l2", help="direction of an OPEX step: raw (the paper's), l2 or sign (default: l2)"
    )
    parser.add_argument("--num-steps", type=int, default=1, help="OPEX steps for each action (default: 1)")
    parser.add_argument(
        "--reduce",
        default="min",
        help="how the critic's heads become one value: min, mean or lower_bound (default: min)",
    )
    parser.add_argument(
        "--best-of", type=LISTING, default="", metavar="N,N", help="numbers of candidates for best-of-N (default: none)"
    )
    parser.add_argument(
        "--proposal-std", type=float, default=0.2, help="spread of best-of-N's candidates (default: %(default)s)"
    )
    parser.add_argument(
        "--ttt",
        type=LISTING,
        default="",
        metavar="RATE,RATE",
        help="learning rates for test-time training: the actor's last layer, Adam, 16 replayed states, reset each "
        "episode; 3e-4 is careful, 1e-3 bold (default: none)",
    )
    parser.add_argument(
        "--controls",
        type=LISTING,
        default="random,multiply,placebo",
        help="rows to compare with (default: %(default)s)",
    )
    parser.add_argument(
        "--trap-episodes",
        type=int,
        default=5,
        metavar="N",
        help="plain episodes in which signs of a wrong critic are looked for first; 0 for none (default: %(default)s)",
    )
    add_episodes(parser)
    add_output(parser)


class _ListRules(argparse.Action):
    """Prints the rules, as --help prints the options."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """Print and exit."""
        print_text(describe_rules())
        parser.exit()


def _draw(rows: Sequence[SteeringRow], path: Path, title: str) -> None:
    from offline_eval.report.plots import draw_steering

    try:
        draw_steering(rows, path, title)
    except MissingExtra as error:
        print(f"offline-eval: {error}", file=sys.stderr)


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    check_at_least(0, arguments.trap_episodes, "--trap-episodes")
    for text in arguments.rule:
        split_rule(text)
    if arguments.step_sizes is None:
        arguments.step_sizes = "" if arguments.rule else _STEP_SIZES
    if arguments.step_sizes.strip() == "auto":
        if arguments.rule:
            raise InputError(
                "--rule", "must be left out where --step-sizes auto tries rules of its own", arguments.rule
            )
        from offline_eval.cli.steer_auto import run_auto

        return run_auto(arguments)
    plan, options = episode_plan(arguments), evaluate_options(arguments)
    step_sizes = numbers(arguments.step_sizes, float, "--step-sizes")
    best_of = numbers(arguments.best_of, int, "--best-of")
    learning_rates = numbers(arguments.ttt, float, "--ttt")
    controls = [word.strip() for word in arguments.controls.split(",") if word.strip()]
    if not step_sizes and not best_of and not learning_rates and not arguments.rule:
        raise InputError(
            "--step-sizes",
            "must name a step size where --rule, --best-of and --ttt are not given",
            arguments.step_sizes,
        )
    from pathlib import Path

    from offline_eval.cli.run import Run, steering_row_json
    from offline_eval.cli.traps import announce
    from offline_eval.environments import environment_id
    from offline_eval.policies import actor_of, critic_of
    from offline_eval.policies.notes import notes_of
    from offline_eval.provenance import recipe
    from offline_eval.report.tables import footnotes, steering_table
    from offline_eval.steering.steering import steer, steering_variants
    from offline_eval.wrappers import L2, LowerBound, Mean, Min, Raw, Sign

    direction = choose(arguments.direction, {"raw": Raw(), "l2": L2(), "sign": Sign()}, "--direction")
    heads = {"min": Min(), "mean": Mean(), "lower_bound": LowerBound()}
    reduce = choose(arguments.reduce, heads, "--reduce")
    name = printable(Path(arguments.agent).name)
    model = open_agent(arguments, arguments.agent)
    owner = open_agent(arguments, arguments.critic, is_subject=False) if arguments.critic else model
    critic = critic_of(owner)
    actor = actor_of(model) if learning_rates or any(text.startswith("ttt") for text in arguments.rule) else None
    variants = steering_variants(
        critic,
        step_sizes,
        direction=direction,
        reduce=reduce,
        num_steps=arguments.num_steps,
        best_of=best_of,
        proposal_std=arguments.proposal_std,
        learning_rates=learning_rates,
        actor=actor,
        rules={text: make_rule(text, critic, actor) for text in dict.fromkeys(arguments.rule)},
        controls=controls,
    )
    agents = {name: identity(model)}
    if arguments.critic:
        agents[Path(arguments.critic).name] = identity(owner)
    asked = {"deterministic": options["deterministic"], "step_limit": options["step_limit"]}
    with Run(arguments, plan, {v.name: recipe(v.rule) for v in variants}, agents, asked) as current:
        traps = announce(arguments, model, critic)
        rows = steer(
            model,
            arguments.env,
            variants,
            plan,
            store=current,
            **current.side_by_side(model, options, len(plan)),
        )
        of_critic = [f"critic: {note}" for note in notes_of(owner)] if owner is not model else []
        result = {
            "notes": of_critic,
            "env": environment_id(arguments.env),
            "traps": traps,
            "rows": [steering_row_json(row) for row in rows],
        }
        current.finish({row.variant.name: row.evaluation for row in rows}, result)
    if arguments.out:
        _draw(rows, Path(arguments.out) / "steering.png", f"{name} on {environment_id(arguments.env)}")
    if arguments.json:
        print_json(result)
    else:
        print_text("\n".join([steering_table(rows, name), *footnotes([], of_critic)]))
