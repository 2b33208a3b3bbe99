"""A progress bar on a terminal, none in a pipe."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any


class Progress:
    """Counts finished episodes on stderr; silent where stderr is no terminal or tqdm is not installed.

    Args:
        total: episodes to come.
        label: what is being done.
    """

    def __init__(self, total: int, label: str) -> None:
        self._bar: Any = None
        if sys.stderr.isatty():
            try:
                from tqdm import tqdm
            except ImportError:  # the extra `progress` is not installed
                return
            self._bar = tqdm(total=total, desc=label, unit="episode", leave=False, file=sys.stderr)

    def advance(self, label: str | None = None) -> None:
        """One more episode."""
        if self._bar is not None:
            if label is not None:
                self._bar.set_description(label)
            self._bar.update()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
