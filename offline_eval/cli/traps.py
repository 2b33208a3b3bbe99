"""What `steer` says of a critic before it steers: five plain episodes, three signs."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from offline_eval.cli.arguments import print_text
from offline_eval.measurement.critic_warnings import find_traps
from offline_eval.measurement.records import Skipped
from offline_eval.report.traps import trap_lines
from offline_eval.types import Critic, Predictor


def announce(arguments: argparse.Namespace, model: Predictor, critic: Critic) -> dict[str, Any] | None:
    """Look for the signs, print them before anything is steered, and give them as plain data; None where not asked.

    With --json, where the output must be the JSON alone, what is raised is said on stderr.
    """
    if arguments.trap_episodes == 0:
        return None
    traps = find_traps(
        model,
        arguments.env,
        critic,
        episodes=arguments.trap_episodes,
        seed=arguments.seed,
        step_limit=arguments.step_limit,
    )
    lines = trap_lines(traps, arguments.trap_episodes)
    if not arguments.json:
        print_text("\n".join([*lines, ""]))
    elif not isinstance(traps, Skipped) and traps.raised:
        print("\n".join(lines), file=sys.stderr, flush=True)
    return {"episodes": arguments.trap_episodes, **traps.to_json()}
