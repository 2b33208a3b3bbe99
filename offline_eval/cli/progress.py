"""A progress bar on a terminal, none in a pipe."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from offline_eval.measurement.rollouts import Advance


class Progress:
    """Counts finished units on stderr and estimates the time left; silent where stderr is no terminal or without tqdm.

    Args:
        total: units to come.
        label: what is being done.
        unit: what is counted.
    """

    def __init__(self, total: int, label: str, unit: str = "episode") -> None:
        self._bar: Any = None
        if sys.stderr.isatty():
            try:
                from tqdm import tqdm
            except ImportError:  # the extra `progress` is not installed
                return
            self._bar = tqdm(total=total, desc=label, unit=unit, leave=False, file=sys.stderr)

    def advance(self, label: str | None = None) -> None:
        """One more episode."""
        if self._bar is not None:
            if label is not None:
                self._bar.set_description(label)
            self._bar.update()

    def add(self, count: int, note: str = "") -> None:
        """So many more units; `note` stands behind the bar."""
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()


class Stages:
    """A progress bar for each stage."""

    def __init__(self) -> None:
        self._bar: Progress | None = None

    def begin(self, label: str, total: int) -> Advance:
        """The next stage."""
        self.close()
        self._bar = Progress(total, label, unit="rollout")
        return self._bar.add

    def close(self) -> None:
        """The end of the last stage."""
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None
