"""Train a small agent on Pendulum-v1, evaluate it, steer it beside its controls, log it, draw the result."""

from __future__ import annotations

import argparse
from pathlib import Path

from offline_eval.errors import InputError

HELP = "see it work: a small agent, evaluated, steered, logged and drawn"

_ENV = "Pendulum-v1"
_TRAINING_STEPS = 4_000
_PLAYED = ["--env", _ENV, "--episodes", "50", "--seed", "1000"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("--out", metavar="DIR", default="offline-eval-demo", help="new folder (default: %(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    folder = Path(arguments.out)
    if folder.exists() and any(folder.iterdir()):
        raise InputError("--out", "must be a new folder", str(folder), "remove it, or give another one")
    agent = folder / "agent.zip"
    print(f"A SAC agent with 64 x 64 networks learns {_ENV} for {_TRAINING_STEPS} steps: {agent}", flush=True)
    _train(agent)
    _show(["evaluate", str(agent), *_PLAYED, "--log-states", "--out", str(folder / "evaluate")])
    _show(["steer", str(agent), *_PLAYED, "--step-sizes", "0,0.05,0.2,0.5", "--out", str(folder / "steer")])
    print(f"\nEverything is in {folder}: episodes.csv and manifest.json of both runs, states/, steering.png")


def _train(path: Path) -> None:
    import torch as th
    from stable_baselines3 import SAC

    th.set_num_threads(1)  # networks of this size only lose by more
    model = SAC(
        "MlpPolicy",
        _ENV,
        learning_rate=2e-3,
        learning_starts=200,
        gamma=0.98,
        policy_kwargs={"net_arch": [64, 64]},
        seed=0,
        device="cpu",
    )
    model.learn(_TRAINING_STEPS)
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save(path)


def _show(command: list[str]) -> None:
    """Run a command as a person would type it."""
    from offline_eval.cli import parse

    arguments = parse(command)
    print(f"\n$ {arguments.command_line}\n", flush=True)
    arguments.run(arguments)
