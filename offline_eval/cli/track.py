"""Follow a training run over its checkpoints: the return, the three errors, and how they go together.

With --out FILE, `offline-eval report FILE` makes a page of it.
"""

from __future__ import annotations

import argparse

from offline_eval.cli.agents import agent_zip, zip_or_none
from offline_eval.cli.arguments import add_environment, add_transitions, check_at_least, data_of, print_json, print_text
from offline_eval.cli.words import AGENT, DATA, FOLDER, NEW_FILE

HELP = "return and errors over the checkpoints of a training run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument(
        "run_dir", type=FOLDER, metavar="RUN_DIR", help="folder with the checkpoints' zips, a number in each name"
    )
    add_environment(parser)
    parser.add_argument("--dataset", type=DATA, required=True, metavar="D", help="what the policy was trained on")
    add_transitions(parser)
    parser.add_argument(
        "--oracle",
        type=AGENT,
        metavar="FILE",
        help="zip of an agent whose actions are right, where there is one (default: none)",
    )
    parser.add_argument(
        "--episodes", type=int, default=10, metavar="N", help="episodes of each checkpoint (default: 10)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the first episode (default: 0)")
    parser.add_argument(
        "--out",
        type=NEW_FILE,
        metavar="FILE",
        help="write the JSON object there as well; `report FILE` shows it (default: none)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    check_at_least(1, arguments.episodes, "--episodes")
    check_at_least(0, arguments.seed, "--seed")
    import json
    from pathlib import Path

    from offline_eval.cli.progress import Progress
    from offline_eval.datasets.writing import replacing
    from offline_eval.measurement.checkpoints import checkpoints_in, track
    from offline_eval.measurement.plan import MeasurementPlan
    from offline_eval.report.measurement_table import track_table

    plan = MeasurementPlan.quick(episodes=arguments.episodes, seed=arguments.seed)
    with Progress(len(checkpoints_in(arguments.run_dir)), "checkpoints", unit="checkpoint") as progress:
        found = track(
            arguments.run_dir,
            arguments.env,
            data_of(arguments, arguments.dataset),
            oracle=zip_or_none(arguments, arguments.oracle),
            plan=plan,
            device=arguments.device,
            opened_as=lambda path: agent_zip(arguments, path, is_subject=True),
            on_checkpoint=lambda done, total: progress.add(1),
        ).to_json()
    if arguments.out:
        with replacing(Path(arguments.out)) as temporary:
            temporary.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if arguments.json:
        print_json(found)
    else:
        print_text(track_table(found))
