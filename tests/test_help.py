"""What `--help` says: every line fits a terminal of 80 columns, and every option says what holds without it."""

from __future__ import annotations

import argparse

import pytest

from offline_eval.cli import build_parser


def commands(parser, words=""):
    """Every command with the parser of its arguments, those of commands of commands included."""
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not inner:
        yield words, parser
    for name, child in (item for action in inner for item in action.choices.items()):
        yield from commands(child, f"{words} {name}".strip())


COMMANDS = dict(commands(build_parser()))


def defaults_unsaid(parser):
    """Options that take a value, need not be given, and do not say what holds without them."""
    options = [action for action in parser._actions if action.option_strings and action.nargs != 0]
    shown = [action for action in options if not action.required and action.help != argparse.SUPPRESS]
    return [action.option_strings[-1] for action in shown if "default" not in action.help]


def test_an_option_without_its_default_is_found():
    parser = argparse.ArgumentParser()
    parser.add_argument("--a", help="a number (default: 3)")
    parser.add_argument("--b", help="a number")
    parser.add_argument("--c", required=True, help="a number")
    parser.add_argument("--d", action="store_true", help="a switch")
    assert defaults_unsaid(parser) == ["--b"]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_fits_and_says_each_default(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, COMMANDS[command].format_help().splitlines())) <= 80
    assert defaults_unsaid(COMMANDS[command]) == []
