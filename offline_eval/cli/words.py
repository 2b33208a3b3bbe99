"""What a word of the command line must be, looked at before anything heavy is imported.

A parser's argument has one of these as its `type`. The word stays a word; `check` says in one line what is wrong with
it: a file that is not there, a folder that cannot be made, a name that is too long.
"""

from __future__ import annotations

import argparse
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from offline_eval.errors import InputError, bare

_LARGEST = 2**31 - 1
_DEEPEST = 200  # folders: Python makes them by calling itself
_MOST = {"episodes": 1_000_000, "selection_episodes": 1_000_000, "seeds": 10_000}
"""Numbers beyond which a plan alone would fill the memory."""


class Word:
    """Any word but an empty one."""

    def __call__(self, word: str) -> str:
        """What argparse asks for."""
        return word

    def check(self, argument: str, word: str) -> None:
        """Refuse what cannot be right.

        Raises:
            InputError: says what.
        """
        if not word.strip():
            raise InputError(argument, "must not be empty", word)


@dataclass(frozen=True)
class Ambiguous(Word):
    """An option that other commands have, and that would have two meanings in this one.

    Args:
        options: what there is in its place, and what each of them means.
    """

    options: str

    def check(self, argument: str, word: str) -> None:
        """Refuse every word."""
        raise InputError(argument, "must say which seed is meant", word, self.options)


class Listing(Word):
    """Words with commas between them; none at all is allowed."""

    def check(self, argument: str, word: str) -> None:
        """Any listing will do here: its parts are read later."""


@dataclass(frozen=True)
class CountOrAuto(Word):
    """A number of things, or the word "auto".

    Attributes:
        most: beyond it they alone would fill the memory.
    """

    most: int

    def check(self, argument: str, word: str) -> None:
        """It must be either."""
        if word == "auto":
            return
        try:
            number = int(word)
        except ValueError:
            raise InputError(argument, 'must be a number or "auto"', word) from None
        if not 1 <= number <= self.most:
            raise InputError(argument, "must be >= 1" if number < 1 else f"must be <= {self.most}", bare(str(number)))


@dataclass(frozen=True)
class Existing(Word):
    """A file or a folder that is there.

    Attributes:
        what: it is, in words.
        files: whether it may be a file.
        folders: whether it may be a folder.
        suffix: that may be left out.
        words: that stand for something else.
    """

    what: str
    files: bool = True
    folders: bool = False
    suffix: str = ""
    words: tuple[str, ...] = ()

    def check(self, argument: str, word: str) -> None:
        """It must be there, and be read without waiting: no FIFO, no device."""
        super().check(argument, word)
        if word in self.words:
            return
        mode = _mode(argument, word)
        if mode is None and self.suffix:
            mode = _mode(argument, word + self.suffix)
        allowed = [kind for kind, yes in (("file", self.files), ("folder", self.folders)) if yes]
        if mode is None:
            raise InputError(argument, f"must be an existing {' or '.join(allowed)}: {self.what}", word)
        if not ((stat.S_ISREG(mode) and self.files) or (stat.S_ISDIR(mode) and self.folders)):
            raise InputError(argument, f"must be a {' or a '.join(allowed)}: {self.what}", word)


class Pairs(Word):
    """A file of pairs, or `AGENT.zip=ENV` and more words behind commas."""

    def check(self, argument: str, word: str) -> None:
        """The file of either must be there."""
        super().check(argument, word)
        if word.endswith((".toml", ".json")):
            Existing("a TOML or JSON file of pairs").check(argument, word)
        else:
            AGENT.check(argument, word.partition(",")[0].partition("=")[0])


@dataclass(frozen=True)
class Output(Word):
    """A file or a folder to be written; that it is new is for the command to ask.

    Attributes:
        folder: whether a folder is written, or else a file.
        shared: whether the folder may hold other things; otherwise it is new, empty, or that of a run.
    """

    folder: bool = False
    shared: bool = False

    def check(self, argument: str, word: str) -> None:
        """Its folder must be there or can be made, and be written to."""
        super().check(argument, word)
        mode = _mode(argument, word)
        rights = stat.S_ISDIR if self.folder else stat.S_ISREG
        if mode is not None and not (rights(mode) or stat.S_ISDIR(mode)):
            raise InputError(argument, f"must be a {'folder' if self.folder else 'file'}", word, "give another name")
        if mode is not None and stat.S_ISDIR(mode) and not self.shared:
            inside = [name for name in os.listdir(word) if not name.startswith(".")]
            if inside and not (self.folder and (Path(word) / "manifest.json").exists()):
                raise InputError(argument, "must be new, or an empty folder", word, "give another name")
        path = Path(word).absolute()
        nearest = path if mode is not None and stat.S_ISDIR(mode) else path.parent
        while not os.path.lexists(nearest):
            nearest = nearest.parent
        if not nearest.is_dir():
            raise InputError(argument, "must lie in a folder", word, f"{nearest} is none")
        if len(path.parts) > _DEEPEST:
            raise InputError(argument, f"must lie in {_DEEPEST} folders at most", word)
        for part in path.parts:
            if len(os.fsencode(part)) > 255:
                raise InputError(argument, "must have names of 255 bytes at most", word)
        from tempfile import TemporaryFile  # it is not light

        try:
            with TemporaryFile(dir=nearest):
                pass
        except OSError as error:
            reason = f"must be a place to write to ({nearest}: {error.strerror or error})"
            raise InputError(argument, reason, word, "give another one") from None


AGENT = Existing("the zip of an agent", suffix=".zip")
AGENT_OR_RANDOM = Existing("the zip of an agent, or the word random", suffix=".zip", words=("random",))
AGENTS = Existing("the zip of an agent, or a folder of training seeds", folders=True, suffix=".zip")
STATISTICS = Existing("the statistics of a VecNormalize, or none", words=("none",))
DATA = Existing("a data set", folders=True)
RUN = Existing("a run folder, or what --json printed", folders=True)
FOLDER = Existing("a folder", files=False, folders=True)
NEW_FILE = Output()
NEW_FOLDER = Output(folder=True)
SHARED_FOLDER = Output(folder=True, shared=True)
LISTING = Listing()
PAIRS = Pairs()


def check_words(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuse words that cannot be right.

    Raises:
        InputError: names the argument as it is typed.
    """
    for action in actions_of(parser, arguments):
        value = getattr(arguments, action.dest, None)
        if value is None or value == action.default:
            continue
        is_list = action.nargs in ("+", "*") or isinstance(action, argparse._AppendAction)
        for word in value if is_list else [value]:
            _check(action, word)


def actions_of(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> Iterator[argparse.Action]:
    """The arguments of the command that was typed."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from actions_of(action.choices[getattr(arguments, action.dest)], arguments)
        else:
            yield action


def name_of(action: argparse.Action) -> str:
    """An argument as it is typed, or as the help calls it."""
    return max(action.option_strings, key=len, default="") or str(action.metavar or action.dest)


def as_typed(error: InputError, arguments: argparse.Namespace) -> InputError:
    """An error that names a Python argument, under the name that was typed for it."""
    actions = list(actions_of(arguments.parser, arguments))
    flag = f"--{error.argument.replace('_', '-')}"
    names = [name_of(action) for action in actions]
    if flag not in names:
        same = [name_of(action) for action in actions if getattr(arguments, action.dest, None) == error.received]
        if error.argument in names or not isinstance(error.received, str) or not same:
            return error
        flag = same[0]
    return type(error)(flag, error.rule, error.received, error.way_out)


def _check(action: argparse.Action, word: Any) -> None:
    argument = name_of(action)
    if isinstance(word, list):  # argparse makes one of `--env=--`
        raise InputError(argument, "must be a word", bare("--"))
    if isinstance(word, str):
        kind = action.type if isinstance(action.type, Word) else Word()
        if "\0" in word:
            raise InputError(argument, "must not hold a NUL", word)
        kind.check(argument, word)
    elif isinstance(word, float) and not isfinite(word):
        raise InputError(argument, "must be finite", word)
    elif isinstance(word, int) and not isinstance(word, bool):
        most = _MOST.get(action.dest, _LARGEST)
        if abs(word) > most:
            raise InputError(argument, f"must be <= {most}", word)


def _mode(argument: str, word: str) -> int | None:
    """What lies at a path, links followed; None where nothing does."""
    try:
        return os.stat(word).st_mode
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(argument, "must have names of 255 bytes at most", word) from None
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise InputError(argument, f"must be readable ({error.strerror or error})", word) from None
    except ValueError as error:  # a NUL, a lone surrogate
        raise InputError(argument, f"must be a path ({error})", word) from None
