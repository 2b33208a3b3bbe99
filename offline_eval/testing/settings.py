"""What a person said about the agent under test: in a test's marker, on the command line, in the ini file."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from offline_eval.errors import InputError
from offline_eval.testing.session import DEFAULT_EPISODES as DEFAULT_EPISODES

OPTIONS = {
    "agent": ("FILE", "zip of the agent under test; give it again for further agents"),
    "env": ("ID", "id of its environment"),
    "dataset": ("PATH", "data set that it was trained on: a file or a folder"),
    "oracle": ("FILE", "zip of an agent whose actions are right"),
    "normalize": ("FILE", "statistics of its VecNormalize, or none (default: its own, where they lie beside it)"),
    "episodes": ("N", "episodes to play at most (default: 500)"),
    "json": ("FILE", "write the outcome of every assertion there"),
    "cache": ("DIR", "where episodes are kept (default: in pytest's own cache)"),
}
"""Words of the command line and the ini file, with what stands for their value and their help."""

_FLAGS = {f"--offline-eval-{name}" for name in OPTIONS}

MARKER = "offline_eval"
MARKER_WORDS = ("agent", "env", "dataset", "oracle", "critic", "normalize", "episodes", "seed")


class Settings:
    """Answers in this order: the closest marker that says it, the command line, the ini file.

    Files of the command line are looked for where pytest was started, those of a marker or the ini file beside the
    ini file (pytest's `rootdir`).
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def word(self, name: str, node: pytest.Item | None = None) -> Any:
        """What was said as it was said; None where nothing was."""
        marked = self._marked(name, node)
        if marked is not None:
            return marked
        return self._asked(name) or self._written(name)

    def paths(self, name: str, node: pytest.Item | None = None) -> list[Path]:
        """Files or folders, absolute."""
        marked = self._marked(name, node)
        if marked is not None:
            return _under(self._config.rootpath, marked)
        asked = self._asked(name)
        if asked:
            return _under(self._config.invocation_params.dir, asked)
        return _under(self._config.rootpath, self._written(name) or [])

    def path(self, name: str, node: pytest.Item | None = None) -> Path | None:
        """One file or folder, absolute; None where nothing was said."""
        return next(iter(self.paths(name, node)), None)

    def number(self, name: str, lowest: int, default: int, node: pytest.Item | None = None) -> int:
        """A whole number.

        Raises:
            InputError: it is none, or too small.
        """
        word = self.word(name, node)
        if word is None:
            return default
        argument = f"--offline-eval-{name}" if name in OPTIONS else name
        try:
            number = int(word)
        except (TypeError, ValueError):
            raise InputError(argument, "must be a whole number", word) from None
        if number < lowest:
            raise InputError(argument, f"must be >= {lowest}", number)
        return number

    def check_joined(self) -> None:
        """Refuse a file that lies elsewhere and is written behind a space.

        pytest looks for its ini file before it knows the options of plugins. It takes such a file for a place of tests,
        looks beside it and above, and overlooks the project's own ini file.

        Raises:
            InputError: it lies outside the folder where pytest was started.
        """
        here, words = self._config.invocation_params.dir.resolve(), self._config.invocation_params.args
        for option, value in pairwise(words):
            path = (here / value).resolve()
            if option in _FLAGS and path.exists() and not path.is_relative_to(here):
                rule = "must be joined to its value by = where that lies outside the current folder"
                way_out = "pytest takes a word of its own for a place of tests, and would look there for its ini file"
                raise InputError(str(option), rule, str(value), way_out)

    def _marked(self, name: str, node: pytest.Item | None) -> Any:
        found = None
        for marker in () if node is None else node.iter_markers(MARKER):
            wrong = [*map(repr, marker.args), *(word for word in marker.kwargs if word not in MARKER_WORDS)]
            if wrong:
                rule = f"takes the keywords {', '.join(MARKER_WORDS)}"
                raise InputError(f"@pytest.mark.{MARKER}", rule, ", ".join(wrong))
            if found is None:  # the closest marker comes first
                found = marker.kwargs.get(name)
        return found

    def _asked(self, name: str) -> Any:
        return self._config.getoption(f"offline_eval_{name}") if name in OPTIONS else None

    def _written(self, name: str) -> Any:
        return (self._config.getini(f"offline_eval_{name}") or None) if name in OPTIONS else None


def _under(folder: Path, said: Any) -> list[Path]:
    return [folder / path for path in (said if isinstance(said, list | tuple) else [said])]
