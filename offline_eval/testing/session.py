"""What surrounds the assertions: where episodes come from, and who is told of the outcomes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from offline_eval.testing.sources import EpisodeSource, FreshEpisodes

if TYPE_CHECKING:
    from offline_eval.testing.outcome import Outcome


DEFAULT_EPISODES = 500
"""That an assertion may play where nobody said a number."""


def tell_nobody(outcome: Outcome) -> None:
    """Nothing."""


def say_nothing(name: str) -> Any:
    """Nobody said anything."""
    return None


@dataclass(frozen=True)
class Session:
    """What surrounds the assertions.

    Attributes:
        source: where episodes come from, where an assertion is given no source of its own.
        on_outcome: told of every outcome, before anything is raised.
        asked: what was said for a whole run, by name (`env`, `episodes`); None where nothing was.
    """

    source: EpisodeSource = field(default_factory=FreshEpisodes)
    on_outcome: Callable[[Outcome], None] = tell_nobody
    asked: Callable[[str], Any] = say_nothing


_CURRENT: ContextVar[Session | None] = ContextVar("offline_eval_session", default=None)


def current() -> Session:
    """The session of the innermost `using`; a fresh one outside."""
    return _CURRENT.get() or Session()


@contextmanager
def using(session: Session) -> Iterator[Session]:
    """Let the assertions in the `with` block use this session."""
    token = _CURRENT.set(session)
    try:
        yield session
    finally:
        _CURRENT.reset(token)
