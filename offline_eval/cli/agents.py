"""The agents that a command's words name: opened with their statistics, and with trust where it was given."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from offline_eval.cli.words import AGENT, STATISTICS
from offline_eval.errors import printable

if TYPE_CHECKING:
    from pathlib import Path

    from offline_eval.policies import AgentZip


def add_opening(parser: argparse.ArgumentParser) -> None:
    """`--normalize`, `--trust`: how an agent's file is opened."""
    parser.add_argument(
        "--normalize",
        type=STATISTICS,
        metavar="FILE",
        help="statistics of the agent's VecNormalize, or none (default: what lies beside it and plainly is its own)",
    )
    parser.add_argument(
        "--trust",
        type=AGENT,
        action="append",
        default=[],
        metavar="FILE",
        help="run the code that is pickled in this file, and in no other; repeatable (default: none)",
    )


def agent_zip(arguments: argparse.Namespace, path: str | Path, is_subject: bool = False) -> AgentZip:
    """A file that an argument names, as the options say that it is opened.

    Args:
        arguments: of the command.
        path: of the file.
        is_subject: whether it is what the command is about, and the statistics that `--normalize` names are for it;
            `none` declines those of every file.
    """
    from offline_eval.policies import AgentZip
    from offline_eval.policies.agent_file import find_agent_file

    found = find_agent_file(path)
    is_trusted = any(found.samefile(find_agent_file(word)) for word in arguments.trust)
    normalize = arguments.normalize if is_subject or arguments.normalize == "none" else None
    return AgentZip(path, normalize, _announced if is_trusted else False)


def zip_or_none(arguments: argparse.Namespace, path: str | None) -> AgentZip | None:
    """The same for a file beside the subject, if one is named."""
    return agent_zip(arguments, path) if path else None


def open_agent(arguments: argparse.Namespace, path: str | Path, env: Any = None, *, is_subject: bool = True) -> Any:
    """The agent of a file, in the environment of `--env` if no other is given."""
    from offline_eval.policies import opened

    agent = agent_zip(arguments, path, is_subject)
    return opened(agent, arguments.env if env is None else env, arguments.device)[0]


def opening_words(arguments: argparse.Namespace) -> tuple[str, ...]:
    """`--normalize` and `--trust` as they were typed, for a command that is advised."""
    normalize = ("--normalize", arguments.normalize) if arguments.normalize else ()
    return (*normalize, *(word for file in arguments.trust for word in ("--trust", file)))


def identity(model: Any) -> str | None:
    """What must be the same where a run is resumed: the hash of the weights, and that of what normalises for them."""
    from offline_eval.policies import Normalized, weights_hash

    found = weights_hash(model)
    if not isinstance(model, Normalized) or found is None:
        return found
    return f"{found} behind {model.statistics.digest}"


def _announced(path: Path, code: str) -> None:
    """Say what is about to be run; classes of one's own mostly lie where the command is given."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    print(printable(f"offline-eval: --trust {path} runs {code}"), file=sys.stderr, flush=True)
