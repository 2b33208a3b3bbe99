"""See it work: learn from two-way data in a maze, find out what holds the agent back, and mend it at test time."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path

from offline_eval.cli.arguments import print_text
from offline_eval.cli.words import NEW_FOLDER
from offline_eval.errors import InputError

HELP = "see it work: data, an agent, its verdict, and what steering mends"

_ENV = "offline_eval/TwoModeMaze-v0"
_EPISODES = 200
_TRAINED = (
    *("--gamma", "0.98", "--gradient-steps", "5000", "--learning-rate", "1e-3", "--net-arch", "64,64"),
    *("--checkpoints", "0", "--set", "value.expectile=0.9"),
)
_DIAGNOSED = ("--n-envs", "50")
_STEERED = ("--episodes", "50", "--seed", "1000", "--n-envs", "50", "--controls", "random", "--log-states")
_DRAWN = 40


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument(
        "--out", type=NEW_FOLDER, metavar="DIR", default="offline-eval-demo", help="new folder (default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    folder = Path(arguments.out)
    if folder.exists() and any(folder.iterdir()):
        raise InputError("--out", "must be a new folder", str(folder), "remove it, or give another one")
    import torch as th

    th.set_num_threads(1)  # networks of this size only lose by more
    data, trained, diagnosed = folder / "maze.hdf5", folder / "train", folder / "diagnose"
    agent = trained / "seed_0" / "model.zip"
    print_text(
        f"A point is to go round a bump ({_ENV}). {_EPISODES} episodes are collected from somebody who goes above it "
        f"or below it, more slowly than is best: {data}",
    )
    _collect(data)
    _show(["train", "iql", "--dataset", str(data), *_TRAINED, "--out", str(trained)])
    _show(["diagnose", str(agent), "--env", _ENV, "--dataset", str(data), *_DIAGNOSED, "--out", str(diagnosed)])
    advice = _advice(diagnosed)
    if advice[:1] == ["steer"]:
        print_text("\nIts advice, taken:")
        _show([*advice, *_STEERED, "--out", str(folder / "steer")])
    print_text(f"\nThe ways that were taken: {_draw(folder, data)}\nThe report: {diagnosed / 'report.html'}")


def _collect(path: Path) -> None:
    from offline_eval.datasets.d4rl import write_d4rl
    from offline_eval.problems import MazeProblem

    path.parent.mkdir(parents=True, exist_ok=True)
    write_d4rl(MazeProblem().collect(_EPISODES, breadth=0.0, seed=0), path)


def _advice(folder: Path) -> list[str]:
    """The command that the diagnosis recommends, without the program's name."""
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return shlex.split(manifest["result"]["verdict"]["recommendation"]["command"])[1:]


def _draw(folder: Path, data: Path) -> Path:
    """The ways of the data, of the agent, and of every rule that was played beside it."""
    from itertools import islice

    import numpy as np

    from offline_eval.datasets import open_dataset, open_log
    from offline_eval.problems.drawing import draw_paths

    panels = {"the data": [np.asarray(trajectory.observations) for trajectory in islice(open_dataset(data), _DRAWN)]}
    logs = {"the agent": folder / "diagnose" / "states" / "policy"}
    logs |= {path.name: path for path in sorted((folder / "steer" / "states").glob("*")) if path.name != "plain"}
    for title, path in logs.items():
        panels[title] = [np.asarray(episode.observations) for episode in islice(open_log(path), _DRAWN)]
    return draw_paths(panels, folder / "maze.svg")


def _show(command: list[str]) -> None:
    """Run a command as a person would type it."""
    from offline_eval.cli import parse

    arguments = parse(command)
    print_text(f"\n$ {arguments.command_line}\n")
    arguments.run(arguments)
