"""`steer --step-sizes auto`: the trial table, the winner or "no gain", and the winner on fresh seeds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offline_eval.cli.agents import identity, open_agent
from offline_eval.cli.arguments import check_at_least, episode_plan, evaluate_options, print_json, print_text
from offline_eval.cli.run import Run, steering_row_json
from offline_eval.cli.traps import announce
from offline_eval.environments import environment_id
from offline_eval.episodes import EpisodePlan, Evaluation
from offline_eval.errors import InputError, printable
from offline_eval.policies import critic_of
from offline_eval.policies.notes import notes_of
from offline_eval.provenance import recipe
from offline_eval.report.tables import footnotes
from offline_eval.report.tuning_table import tuning_table
from offline_eval.run_folder import plan_to_json
from offline_eval.steering.steering import SteeringRow
from offline_eval.steering.tuning import Tuning, trainable, trivial_controls, tune_steering, tuning_candidates

if TYPE_CHECKING:
    from collections.abc import Iterator


_CHOSEN_BY_THE_TRIAL = {
    "--direction": "l2",
    "--num-steps": 1,
    "--reduce": "min",
    "--best-of": "",
    "--proposal-std": 0.2,
    "--controls": "random,multiply,placebo",
    "--ttt": "",
}
"""Words of `steer` that a trial decides, with what they are where nobody gave them."""


def run_auto(arguments: argparse.Namespace) -> None:
    """Run the trial that the arguments describe."""
    plan, options = episode_plan(arguments), evaluate_options(arguments)
    check_at_least(2, arguments.selection_episodes, "--selection-episodes")
    if arguments.log_states:
        raise InputError("--log-states", "must be left out with auto", None, "log the winner in a run of its own")
    for flag, usual in _CHOSEN_BY_THE_TRIAL.items():
        given = getattr(arguments, flag.removeprefix("--").replace("-", "_"), usual)
        if given != usual:
            raise InputError(flag, "must be left out with --step-sizes auto", given, "the trial has its own candidates")
    selection = EpisodePlan.seeded(arguments.selection_episodes, arguments.seed + arguments.episodes)
    name = printable(Path(arguments.agent).name)
    model = open_agent(arguments, arguments.agent)
    owner = open_agent(arguments, arguments.critic, is_subject=False) if arguments.critic else model
    critic = critic_of(owner)
    candidates, controls = tuning_candidates(critic, trainable(model)), trivial_controls()
    agents = {name: identity(model)}
    if arguments.critic:
        agents[Path(arguments.critic).name] = identity(owner)
    variants = {f"selection: {v.name}": recipe(v.rule) for v in (*candidates, *controls)} | {"selection: plain": None}
    asked = {key: options[key] for key in ("deterministic", "step_limit")} | {"selection": plan_to_json(selection)}
    with Run(arguments, plan, variants, agents, asked) as current:
        traps = announce(arguments, model, critic)
        tuning = tune_steering(
            model,
            arguments.env,
            candidates=candidates,
            controls=controls,
            selection_plan=selection,
            plan=plan,
            store=current,
            **current.side_by_side(model, options, len(variants) * len(selection)),
        )
        of_critic = [f"critic: {note}" for note in notes_of(owner)] if owner is not model else []
        result = {
            "env": environment_id(arguments.env),
            "traps": traps,
            "tuning": tuning.to_json(),
            "rows": _rows(tuning),
        }
        current.finish(dict(_evaluations(tuning)), result)
    if arguments.json:
        print_json(result)
    else:
        print_text("\n".join([tuning_table(tuning, name), *footnotes([], of_critic)]))


def _evaluations(tuning: Tuning) -> Iterator[tuple[str, Evaluation]]:
    for row in tuning.trial:
        yield f"selection: {row.variant.name}", row.evaluation
    for fresh in tuning.confirmation:
        yield f"confirmation: {fresh.variant.name}", fresh.evaluation


def _rows(tuning: Tuning) -> list[dict[str, Any]]:
    """The winner's rows on fresh seeds as `steer` has them; the trial's where nothing won."""
    rows = tuning.confirmation or [SteeringRow(row.variant, row.evaluation, row.paired, None) for row in tuning.trial]
    return [steering_row_json(row) for row in rows]
