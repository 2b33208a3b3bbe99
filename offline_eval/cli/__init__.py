"""The command line: words become objects here, and nowhere else.

Exit codes: 0 done, 1 the data doctor found an error, 2 bad input (one line that names the argument, the rule, the
value and the way out).
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from offline_eval import __version__
from offline_eval.errors import OfflineEvalError

_COMMANDS = (
    "demo",
    "evaluate",
    "steer",
    "compare",
    "collect",
    "train",
    "critic",
    "measure",
    "diagnose",
    "study",
    "track",
    "data",
    "report",
)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"offline-eval: {message}. See `{self.prog} --help`\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; imports nothing heavy."""
    parser = _Parser(
        prog="offline-eval",
        description="Tells why an offline-RL agent underperforms, and mends what can be mended without retraining.",
    )
    parser.add_argument("--version", action="version", version=f"offline-eval {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in _COMMANDS:
        module = import_module(f"offline_eval.cli.{name}")
        command = commands.add_parser(name, help=module.HELP, description=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments of a command, and in `command_line` what was typed."""
    arguments = build_parser().parse_args(argv)
    arguments.command_line = shlex.join(["offline-eval", *argv])
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    arguments = parse(sys.argv[1:] if argv is None else argv)
    try:
        code = arguments.run(arguments)
    except OfflineEvalError as error:
        print(f"offline-eval: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `offline-eval … | head`
        return 0
    except KeyboardInterrupt:
        print("offline-eval: interrupted; with --out, --resume goes on", file=sys.stderr)
        return 130
    return code or 0
