"""Options that commands share, and how their words become values."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from offline_eval.cli.agents import add_opening
from offline_eval.cli.words import DATA, NEW_FOLDER, CountOrAuto
from offline_eval.errors import InputError, printable

if TYPE_CHECKING:
    from offline_eval.episodes import EpisodePlan

Number = TypeVar("Number", int, float)
_LARGEST = 2**31 - 1


def add_environment(parser: argparse.ArgumentParser) -> None:
    """`--env`, `--device`, `--normalize`, `--trust`: where and how an agent is opened."""
    parser.add_argument("--env", required=True, metavar="ID", help="id of a gymnasium environment")
    add_environment_options(parser)
    parser.add_argument("--device", default="auto", help="where the policy runs: auto, cpu, cuda (default: auto)")
    add_opening(parser)


def add_environment_options(parser: argparse.ArgumentParser) -> None:
    """`--env-kwargs`, `--wrapper`: how the environment of `--env` is made."""
    parser.add_argument(
        "--env-kwargs",
        action="extend",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="arguments of the environment's constructor: g=5.0 domain=shift (literals of Python, or else text; "
        "default: none)",
    )
    parser.add_argument(
        "--wrapper",
        action="append",
        default=[],
        metavar="MODULE:CLASS",
        help="a wrapper around the environment, with its arguments in brackets: 'gymnasium.wrappers:ClipReward"
        "(max_reward=1)'; repeatable, the innermost first (default: none)",
    )


def env_id_of(arguments: argparse.Namespace) -> str:
    """The id in `--env`, whatever else was said of the environment."""
    return str(getattr(arguments.env, "env_id", arguments.env))


def resolve_environment(arguments: argparse.Namespace) -> None:
    """Put an environment that makes itself in the place of an id with arguments or wrappers; refuse an unknown id.

    Raises:
        InputError: the id, an argument or a wrapper is not what it must be.
    """
    env = getattr(arguments, "env", None)
    kwargs, wrappers = getattr(arguments, "env_kwargs", None), getattr(arguments, "wrapper", None)
    if env is None:
        for name, given in (("--env-kwargs", kwargs), ("--wrapper", wrappers)):
            if given:
                raise InputError(name, "needs the environment that it is for", given, "add --env ID")
        return
    from offline_eval.environments import check_registered

    check_registered(env, "--env")
    if kwargs or wrappers:
        from offline_eval.configured import configured

        arguments.env = configured(env, kwargs or (), wrappers or ())


def add_episodes(parser: argparse.ArgumentParser, episodes: int = 20, seed: str = "--seed") -> None:
    """`--episodes`, `--seed`, `--stochastic`, `--step-limit` and those of `add_parallelism`: what is played.

    Args:
        parser: receives them.
        episodes: as many by default.
        seed: what `--seed` is called in a command that has other seeds, too.
    """
    parser.add_argument("--episodes", type=int, default=episodes, help="episodes to play (default: %(default)s)")
    parser.add_argument(
        seed, type=int, default=0, help="seed of the first episode; the next one has seed + 1 (default: 0)"
    )
    add_parallelism(parser)
    parser.add_argument("--stochastic", action="store_true", help="draw actions instead of taking the mean action")
    parser.add_argument(
        "--step-limit",
        type=int,
        metavar="STEPS",
        help="cut episodes after so many steps, also beyond the environment's own limit (default: that limit)",
    )
    parser.add_argument(
        "--success",
        default="last",
        metavar="STEP",
        help="which step's is_success or success counts: that of the last step, or of any (default: last)",
    )


def add_parallelism(parser: argparse.ArgumentParser) -> None:
    """`--n-envs`, `--workers`: how fast it is played. The results are the same for all of them."""
    parser.add_argument(
        "--n-envs",
        type=CountOrAuto(4096),
        default="auto",
        metavar="N",
        help="environments side by side in each worker: a number, or auto, which goes by what a step costs (default: "
        "auto)",
    )
    parser.add_argument(
        "--workers",
        type=CountOrAuto(1024),
        default="auto",
        metavar="N",
        help="processes: a number, or auto, which starts as many as pay for their start (default: auto)",
    )


def parallelism_words(arguments: argparse.Namespace) -> dict[str, int | str]:
    """The keywords that `add_parallelism` describes."""
    return {
        "n_envs": _count_or_auto(arguments.n_envs, "--n-envs"),
        "workers": _count_or_auto(arguments.workers, "--workers"),
    }


def _count_or_auto(word: str | int, argument: str) -> int | str:
    CountOrAuto(2**31).check(argument, str(word))
    return word if word == "auto" else int(word)


def add_training(parser: argparse.ArgumentParser, gradient_steps: int) -> None:
    """`--dataset`, `--gradient-steps` and the words of training that every algorithm has."""
    parser.add_argument(
        "--dataset", type=DATA, required=True, metavar="FILE", help="data set to learn from: a file or a folder"
    )
    add_transitions(parser)
    parser.add_argument(
        "--gradient-steps",
        type=int,
        default=gradient_steps,
        metavar="N",
        help="steps of the optimiser (default: %(default)s)",
    )
    parser.add_argument("--batch-size", type=int, default=256, help="transitions in each gradient step (default: 256)")
    parser.add_argument("--learning-rate", type=float, default=3e-4, help="learning rate of Adam (default: 3e-4)")
    parser.add_argument(
        "--net-arch", default="256,256", metavar="N,N", help="widths of the hidden layers (default: 256,256)"
    )
    parser.add_argument("--device", default="auto", help="where networks are trained: auto, cpu, cuda (default: auto)")


def add_transitions(parser: argparse.ArgumentParser) -> None:
    """`--transitions`: how the rows of a data set are taken."""
    parser.add_argument(
        "--transitions",
        action="store_true",
        help="take every row of a flat data set as a transition of its own, in whatever order they are",
    )


def data_of(arguments: argparse.Namespace, path: str | None) -> Any:
    """What an option names as a data set: its path, or the data set where `--transitions` says how to open it."""
    if path is None or not arguments.transitions:
        return path
    from offline_eval.datasets import open_dataset

    return open_dataset(path, transitions=True)


def training_words(arguments: argparse.Namespace) -> dict[str, Any]:
    """The constructor words that `add_training` describes."""
    check_at_least(1, arguments.gradient_steps, "--gradient-steps")
    net_arch = numbers(arguments.net_arch, int, "--net-arch")
    for width in net_arch:
        check_at_least(1, width, "--net-arch")
    return {
        "batch_size": arguments.batch_size,
        "learning_rate": arguments.learning_rate,
        "policy_kwargs": {"net_arch": net_arch},
        "device": arguments.device,
    }


def add_output(parser: argparse.ArgumentParser) -> None:
    """`--log-states`, `--out`, `--resume`, `--json`: where results go."""
    parser.add_argument("--log-states", action="store_true", help="write every visited state to DIR/states")
    parser.add_argument(
        "--out",
        type=NEW_FOLDER,
        metavar="DIR",
        help="run folder to write: manifest.json, episodes.csv, states/ (default: none)",
    )
    parser.add_argument("--resume", action="store_true", help="go on with the run that DIR holds")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def episode_plan(arguments: argparse.Namespace, seed: str = "--seed") -> EpisodePlan:
    """The plan that `--episodes` and the option named `seed` describe."""
    from offline_eval.episodes import EpisodePlan

    check_at_least(1, arguments.episodes, "--episodes")
    first = getattr(arguments, seed.removeprefix("--").replace("-", "_"))
    check_at_least(0, first, seed)
    return EpisodePlan.seeded(arguments.episodes, first)


def evaluate_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The keywords of `evaluate` that the shared options describe."""
    from offline_eval.episodes import AnyStep, LastStep

    if arguments.step_limit is not None:
        check_at_least(1, arguments.step_limit, "--step-limit")
    if arguments.resume and not arguments.out:
        raise InputError("--resume", "needs the folder to go on with", None, "add --out DIR")
    if arguments.log_states and not arguments.out:
        raise InputError("--log-states", "needs a folder for the states", None, "add --out DIR")
    return {
        **parallelism_words(arguments),
        "deterministic": not arguments.stochastic,
        "step_limit": arguments.step_limit,
        "success_at": choose(arguments.success, {"last": LastStep(), "any": AnyStep()}, "--success"),
    }


def check_at_least(lowest: int, value: int, argument: str) -> None:
    """Refuse a number below `lowest`."""
    if value < lowest:
        raise InputError(argument, f"must be >= {lowest}", value)


def parse(word: str, kind: Callable[[str], Number], argument: str, rule: str) -> Number:
    """A number from a word."""
    try:
        number = kind(word)
    except ValueError:
        raise InputError(argument, rule, word) from None
    if not abs(number) <= _LARGEST:
        raise InputError(argument, f"must be finite, and <= {_LARGEST}", word)
    return number


def numbers(words: str, kind: Callable[[str], Number], argument: str) -> list[Number]:
    """A comma-separated list of numbers."""
    rule = "must be numbers with commas between them"
    if not words.strip():
        return []
    return [parse(word.strip(), kind, argument, rule) for word in words.split(",")]


def choose(word: str, choices: dict[str, Any], argument: str) -> Any:
    """The object that a word stands for."""
    if word not in choices:
        raise InputError(argument, f"must be one of {', '.join(choices)}", word)
    return choices[word]


def print_text(text: str) -> None:
    """Lines on stdout; what would steer the terminal is shown and not obeyed."""
    print("\n".join(map(printable, text.split("\n"))), flush=True)


def print_json(result: dict[str, Any]) -> None:
    """One object on stdout; what is not finite becomes null, as JSON knows no NaN."""
    json.dump(_finite(result), sys.stdout, indent=2)
    print()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and value - value != 0:  # NaN and infinity
        return None
    return value
