"""What goes wrong, and what to do about it.

::

    OfflineEvalError
    ├── InputError (also a ValueError)      an argument breaks a rule: its name, the rule, the value, the way out
    │   ├── AgentFileError                  a file that cannot be opened as an agent
    │   ├── DatasetError                    a file, a folder or arrays that are no data set, or a broken one
    │   ├── SpaceError                      observations or actions of another shape than expected
    │   └── CriticError                     a critic that returns the wrong shape, or cannot be had
    ├── MissingExtra (also an ImportError)  an optional dependency is absent: the pip line that brings it
    ├── StorageError (also an OSError)      a run could not be written or read back
    ├── NonFiniteLoss                       training met NaN or infinity: the step and the batch
    └── WorkerError                         a worker process died
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

_LONGEST_VALUE = 160


def printable(text: str) -> str:
    """Text of a stranger on one line: what would steer a terminal is shown as it would be written in Python.

    That is control characters (also line ends), what turns the direction of writing, and bytes that are no text.
    """
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)


def _escaped(letter: str) -> str:
    return letter if unicodedata.category(letter) == "Zs" else letter.encode("unicode_escape").decode()


def _shown(text: str, apart: str) -> str:
    return apart.join(map(printable, text.split(apart))) if apart else printable(text)


class OfflineEvalError(Exception):
    """Base of every error that this package raises on purpose; its message is what a terminal can show.

    It is one line, or the table of an assertion that does not hold.
    """

    def __init__(self, *words: object) -> None:
        apart = "\n" if isinstance(self, AssertionError) else ""
        super().__init__(*(_shown(word, apart) if isinstance(word, str) else word for word in words))


class InputError(OfflineEvalError, ValueError):
    """An argument breaks a rule.

    Args:
        argument: its name as the caller wrote it: `step_size`, `--env`.
        rule: what holds for it: "must be >= 0".
        received: the value as it came; shortened where it is long.
        way_out: what to do instead.
    """

    def __init__(self, argument: str, rule: str, received: object, way_out: str = "") -> None:
        value = received if isinstance(received, _Bare) else repr(received)
        if len(value) > _LONGEST_VALUE:
            value = value[: _LONGEST_VALUE - 3] + "..."
        text = f"`{argument}` {rule}. Received {value}"
        super().__init__(f"{text}: {way_out}" if way_out else text)
        self.argument, self.rule, self.received, self.way_out = argument, rule, received, way_out

    def __reduce__(self) -> tuple[object, ...]:
        # The default would call the constructor with the finished message alone.
        return type(self), (self.argument, self.rule, self.received, self.way_out)


class _Bare(str):
    """Text that stands in a message as it is, without quotation marks."""


def bare(text: str) -> str:
    """Text for `received` that is a description and not a value: shown without quotation marks."""
    return _Bare(text)


class AgentFileError(InputError):
    """A file that cannot be opened as an agent."""


class DatasetError(InputError):
    """A file, a folder or arrays that cannot be opened as a data set."""


class SpaceError(InputError):
    """Observations or actions of another shape than the other side expects."""


class CriticError(InputError):
    """A critic that returns the wrong shape, or that cannot be had."""


class MissingExtra(OfflineEvalError, ImportError):
    """An optional dependency is absent; the message holds the pip line that brings it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional dependency: pip install 'offline-eval[{extra}]'")
        self.what, self.extra = what, extra

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.what, self.extra)


class StorageError(OfflineEvalError, OSError):
    """A run could not be written or read back."""


class NonFiniteLoss(OfflineEvalError):
    """A loss became NaN or infinite, and training stopped.

    Args:
        step: the gradient step, counted from 1.
        transitions: the batch, as numbers of the data set's transitions; empty where only weights were looked at.
        broken: those of them that hold a NaN or an infinite number themselves.
    """

    def __init__(self, step: int, transitions: Sequence[int], broken: Sequence[int]) -> None:
        self.step, self.transitions, self.broken = step, tuple(transitions), tuple(broken)
        shown = self.broken or self.transitions
        named = ", ".join(str(number) for number in shown[:8]) + (", ..." if len(shown) > 8 else "")
        if self.broken:
            text = f"transitions {named} of its batch hold NaN or infinity; `offline-eval data check` lists all of them"
        elif self.transitions:
            text = f"its batch is transitions {named}. They are finite: lower the learning rate, or scale the rewards"
        else:
            text = "what it left behind holds NaN or infinity, and is not kept"
        super().__init__(f"the loss of gradient step {step} is not finite: {text}")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.step, self.transitions, self.broken)


class WorkerError(OfflineEvalError):
    """A worker process died; what it had finished is kept."""
