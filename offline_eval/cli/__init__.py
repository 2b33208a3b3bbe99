"""The command line: words become objects here, and nowhere else.

Exit codes: 0 done, 1 the data doctor found an error, 2 bad input (one line that names the argument, the rule, the
value and the way out).
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import NoReturn

from offline_eval import __version__
from offline_eval.cli.arguments import resolve_environment
from offline_eval.cli.words import as_typed, check_words
from offline_eval.errors import InputError, OfflineEvalError, printable

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
        self.exit(2, f"offline-eval: {printable(message)}. See `{self.prog} --help`\n")


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
    """The arguments of a command, and in `command_line` what was typed.

    Raises:
        InputError: one of them cannot be right; this is found before anything heavy is imported.
    """
    parser = build_parser()
    arguments = parser.parse_args(argv)
    arguments.parser = parser
    arguments.command_line = shlex.join(["offline-eval", *argv])
    check_words(parser, arguments)
    resolve_environment(arguments)
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    _open_closed_streams()
    try:
        arguments = parse(sys.argv[1:] if argv is None else argv)
        try:
            code = arguments.run(arguments)
        except InputError as error:
            raise as_typed(error, arguments) from error
        sys.stdout.flush()
    except SystemExit:  # argparse has printed its help or the version
        try:
            sys.stdout.flush()
        except (OSError, ValueError):
            _discard_output()
        raise
    except OfflineEvalError as error:
        return _say(str(error), 2)
    except BrokenPipeError:  # `offline-eval … | head`
        _discard_output()
        return 0
    except KeyboardInterrupt:
        return _say("interrupted; with --out, --resume goes on", 130)
    except MemoryError:
        return _say("the memory is full: ask for less at once", 2)
    except OSError as error:  # a full disk, or one that went: the world's fault and not the program's
        where = f"{error.filename}: " if error.filename is not None else ""
        if error.filename is None:
            _discard_output()
        return _say(f"{where}{error.strerror or error}", 2)
    return code or 0


def _say(message: str, code: int) -> int:
    with suppress(OSError, ValueError):
        print(f"offline-eval: {printable(message)}", file=sys.stderr, flush=True)
    return code


def _open_closed_streams() -> None:
    """A closed stdin, stdout or stderr becomes one that swallows everything: else the next file gets its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, it stays open
        elif name == "stdout" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # what the terminal's encoding lacks is shown escaped


def _discard_output() -> None:
    """What nobody can take must not be tried again when the program ends."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
