"""Collect a data set from an agent, or from chance: whole episodes, the noise of each recorded."""

from __future__ import annotations

import argparse

from offline_eval.cli.agents import identity, open_agent
from offline_eval.cli.arguments import (
    add_environment,
    add_parallelism,
    check_at_least,
    numbers,
    parallelism_words,
    parse,
    print_json,
    print_text,
)
from offline_eval.cli.words import AGENT_OR_RANDOM, NEW_FILE
from offline_eval.errors import InputError, OfflineEvalError

HELP = "make a data set from an agent or from random actions"
_FLAT = (".hdf5", ".h5")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument(
        "agent", type=AGENT_OR_RANDOM, metavar="AGENT", help='zip of an SB3 or sb3-contrib agent, or the word "random"'
    )
    add_environment(parser)
    parser.add_argument("--steps", required=True, metavar="N", help="steps at least; episodes stay whole")
    parser.add_argument("--noise", default="0", help="Gaussian noise in the scaled space: 0.1,0.5,1.0 (default: 0)")
    parser.add_argument("--epsilon", default="0", help="chance of a uniform action at each step: 0,0.3 (default: 0)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first episode (default: 0)")
    add_parallelism(parser)
    parser.add_argument(
        "--out",
        type=NEW_FILE,
        required=True,
        metavar="FILE",
        help="FILE.hdf5 in D4RL's flat layout, or else a folder: a log",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    num_steps = parse(arguments.steps, int, "--steps", "must be a number of steps")
    check_at_least(1, num_steps, "--steps")
    side_by_side = parallelism_words(arguments)
    check_at_least(0, arguments.seed, "--seed")
    noise = numbers(arguments.noise, float, "--noise")
    epsilon = numbers(arguments.epsilon, float, "--epsilon")
    import hashlib
    import shutil
    from contextlib import suppress
    from pathlib import Path

    out = Path(arguments.out)
    if out.exists():
        raise InputError("--out", "must not exist yet", arguments.out, "give another name")
    from offline_eval.cli.progress import Progress
    from offline_eval.environments import environment_id
    from offline_eval.files import FolderLock
    from offline_eval.policies.notes import notes_of
    from offline_eval.report.tables import columns, footnotes, number
    from offline_eval.training.collection import check_collection, collect, levels_of, save_flat

    model = None
    if arguments.agent != "random":
        model = open_agent(arguments, arguments.agent)
    flat = out.suffix in _FLAT
    # What is asked for is in the name, so that only the same command goes on with what was interrupted.
    asked = (
        environment_id(arguments.env),
        identity(model) if model is not None else None,
        noise,
        epsilon,
        arguments.seed,
    )
    folder = out.with_name(f".{out.name}.{hashlib.sha256(repr(asked).encode()).hexdigest()[:12]}.parts")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FolderLock(folder)
        with Progress(num_steps, "collect", unit="step") as progress:
            log = collect(
                model,
                arguments.env,
                num_steps,
                folder,
                levels=levels_of(noise, epsilon),
                seed=arguments.seed,
                **side_by_side,
                on_steps=progress.add,
            )
    except OfflineEvalError:
        with suppress(OSError):  # where nothing was collected
            folder.rmdir()
        raise
    rows: dict[tuple[float, float], list[tuple[float, int]]] = {}
    for episode in log:
        level = float(episode.metadata["noise"] or 0), float(episode.metadata["epsilon"] or 0)
        rows.setdefault(level, []).append((episode.episode_return, len(episode)))
    levels = [
        {
            "noise": level[0],
            "epsilon": level[1],
            "episodes": len(found),
            "steps": sum(length for _, length in found),
            "mean_return": sum(value for value, _ in found) / len(found),
        }
        for level, found in rows.items()
    ]
    total = log.total_steps
    checked = check_collection(model, arguments.env, log, levels=levels_of(noise, epsilon), seed=arguments.seed)
    if flat:
        save_flat(log, out)
        shutil.rmtree(folder)
    else:
        folder.rename(out)
    lock.release()
    result = {
        "env": environment_id(arguments.env),
        "out": str(out),
        "steps": total,
        "episodes": len(log),
        "levels": levels,
        "invariant": checked.holds,
        "invariance": checked.to_json(),
        "notes": list(notes_of(model)),
    }
    if arguments.json:
        print_json(result)
        return
    cells = [("noise", "epsilon", "episodes", "steps", "mean return")]
    cells += [
        (
            f"{row['noise']:g}",
            f"{row['epsilon']:g}",
            f"{row['episodes']}",
            f"{row['steps']}",
            number(row["mean_return"]),
        )
        for row in levels
    ]
    print_text(
        "\n".join(
            [
                f"{out}: {total} steps in {len(log)} episodes; {checked}",
                "",
                *columns(cells, ">>>>>"),
                *footnotes([], notes_of(model)),
            ]
        )
    )
