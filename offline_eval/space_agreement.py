"""Whether an agent is in its own setting: the spaces it was trained with, held against those of an environment.

Stable-Baselines3's `load(env=...)` asks for equal spaces. So does this, but for what the versions of an environment
change although the agent sees the same: the bounds of observations, and the width of a number. That is a note.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from gymnasium import Space, spaces

from offline_eval.errors import SpaceError, bare

What = Literal["observation", "action"]
Bound = tuple[float, ...]
"""The entries of a bound as NumPy prints them, without those that it leaves out; one entry stands for all."""

_AS_GOOD_AS_INFINITE = 1e30  # gym wrote the greatest float32 where gymnasium writes inf
_PRINTED_DIGITS = 1e-5
_UNIT = ((-1.0, 1.0), (0.0, 1.0))  # what observations are scaled to


@dataclass(frozen=True)
class Outline:
    """What is known of a space: of one at hand, or of one that a file prints. None is not known, and agrees with all.

    Attributes:
        kind: `Box`, `Discrete`, ...
        shape: of a Box.
        dtype: of a Box.
        numbers: n of a Discrete, nvec of a MultiDiscrete, n of a MultiBinary.
        start: of a Discrete or MultiDiscrete.
        low: of a Box.
        high: of a Box.
        extremes: `low` is the least of all, and `high` the greatest: what gym printed until 0.20.
        parts: of a Dict, in its order.
    """

    kind: str
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    numbers: tuple[int, ...] | None = None
    start: tuple[int, ...] | None = None
    low: Bound | None = None
    high: Bound | None = None
    extremes: bool = False
    parts: Mapping[str, Outline] | None = None

    @classmethod
    def of(cls, space: Space[Any]) -> Outline:
        """Of a space at hand; of an unknown kind, the kind."""
        match space:
            case spaces.Box():
                return cls("Box", space.shape, str(space.dtype), low=_printed(space.low), high=_printed(space.high))
            case spaces.Discrete():
                return cls("Discrete", numbers=(int(space.n),), start=(int(space.start),))
            case spaces.MultiDiscrete():
                return cls("MultiDiscrete", numbers=_whole(space.nvec), start=_whole(space.start))
            case spaces.MultiBinary():
                return cls("MultiBinary", numbers=_whole(space.n))
            case spaces.Dict():
                return cls("Dict", parts={key: cls.of(part) for key, part in space.spaces.items()})
        return cls(type(space).__name__)

    @property
    def is_image(self) -> bool:
        """Whether Stable-Baselines3 divides its numbers by 255."""
        whole = set(self.low or ()) == {0.0} and set(self.high or ()) == {255.0}
        return self.dtype == "uint8" and len(self.shape or ()) == 3 and whole

    @property
    def is_sized(self) -> bool:
        """Whether its shape is known."""
        if self.parts is not None:
            return all(part.is_sized for part in self.parts.values())
        return self.shape is not None or self.numbers is not None

    @property
    def without_what_was_inferred(self) -> Outline:
        """Of a space that was inferred from data: where these had no bounds, nobody stated a dtype either."""
        if self.parts is not None:
            return Outline("Dict", parts={key: part.without_what_was_inferred for key, part in self.parts.items()})
        is_unbounded = self.low is not None and not np.isfinite([*self.low, *(self.high or ())]).any()
        return Outline("Box", self.shape) if self.kind == "Box" and is_unbounded else self

    def __str__(self) -> str:
        if self.kind == "Dict" and self.parts is not None:
            return f"Dict({', '.join(f'{key}: {part}' for key, part in self.parts.items())})"
        numbers = self.shape if self.kind == "Box" else self.numbers
        if numbers is None:
            return self.kind
        return f"{self.kind}({numbers[0]})" if self.kind == "Discrete" else f"{self.kind}{numbers}"


def shown(printed: str) -> Bound | None:
    """The entries of a printed array; None where it holds something else."""
    try:
        words = printed.replace("[", " ").replace("]", " ").replace(",", " ").replace("...", " ").split()
        return tuple(float(word) for word in words)
    except ValueError:
        return None


def _printed(bound: np.ndarray[Any, Any]) -> Bound | None:
    """As NumPy prints it by default, and therefore in files: beyond 1,000 entries, three at each end of an axis."""
    return shown(np.array2string(bound, precision=8, threshold=1000, edgeitems=3, suppress_small=False))


def check_agreement(
    what: What, agent: Outline, env: Outline, name: str, way_out: str = "", argument: str = "env"
) -> tuple[str, ...]:
    """Raise a SpaceError where an agent cannot be judged in an environment; what a reader should know, else.

    Args:
        what: which of the two spaces.
        agent: what the agent was trained with.
        env: what the environment has.
        name: of the environment.
        way_out: what to do where the bounds of actions differ.
        argument: what is to blame.
    """
    notes: list[str] = []
    for difference in _differences(agent, env):
        said = difference.said(what)
        if difference.harmless and (what == "observation" or difference.of == "dtype"):
            notes.append(
                f"the agent was trained with {said}, {difference.agent}, and {name} has {difference.env}: "
                "another version of the environment, or a wrapper of training is missing"
            )
            continue
        raise SpaceError(
            argument,
            f"must have the {said} that the agent was trained with, {difference.agent}",
            bare(f"{difference.env} of {name}"),
            (way_out if difference.of == "bounds" else "") or _WAYS_OUT[what, difference.of == "bounds"],
        )
    return tuple(notes)


_WRAPPERS = "name the environment it was trained in, with the same wrappers"
_WAYS_OUT = {
    ("observation", False): _WRAPPERS,
    ("action", False): _WRAPPERS,
    ("observation", True): "wrap it as in training (RescaleObservation?); if no more than the declaration changed, "
    "declare the old bounds with gymnasium's TransformObservation",
    ("action", True): "wrap it in gymnasium's RescaleAction as in training",
}


@dataclass(frozen=True)
class _Difference:
    """One thing in which two spaces differ.

    Attributes:
        of: `space`, `keys`, `dtype` or `bounds`.
        agent: the agent's, in words.
        env: the environment's.
        key: of the part of a Dict.
        harmless: the versions of an environment differ so, and the agent may see the same.
    """

    of: str
    agent: str
    env: str
    key: str = ""
    harmless: bool = False

    def said(self, what: What) -> str:
        """What differs, as a noun."""
        noun = {"space": f"{what} space", "keys": f"{what} keys", "dtype": f"{what} dtype"}.get(
            self.of, f"{what} bounds"
        )
        return f"{noun} of `{self.key}`" if self.key else noun


def _differences(agent: Outline, env: Outline, key: str = "") -> Iterator[_Difference]:
    if agent.kind != env.kind:
        yield _Difference("space", str(agent), str(env), key)
        return
    if agent.parts is not None and env.parts is not None:
        if set(agent.parts) != set(env.parts):
            yield _Difference("keys", ", ".join(sorted(agent.parts)), ", ".join(sorted(env.parts)), key)
            return
        for name, part in agent.parts.items():
            yield from _differences(part, env.parts[name], f"{key}.{name}" if key else name)
        return
    if any(_differ(getattr(agent, field), getattr(env, field)) for field in ("shape", "numbers")):
        yield _Difference("space", str(agent), str(env), key)
        return
    if _differ(agent.start, env.start):
        yield _Difference("space", f"{agent} from {agent.start}", f"{env} from {env.start}", key)
        return
    if _differ(agent.dtype, env.dtype):
        harmless = _kind(agent.dtype) == _kind(env.dtype) and agent.is_image == env.is_image
        yield _Difference("dtype", str(agent.dtype), str(env.dtype), key, harmless)
    yield from _bounds_differ(agent, env, key)


def _differ(one: object, other: object) -> bool:
    return one is not None and other is not None and one != other


def _kind(dtype: str | None) -> str:
    try:
        return np.dtype(str(dtype)).kind
    except TypeError:  # it comes from a file
        return str(dtype)


def _bounds_differ(agent: Outline, env: Outline, key: str) -> Iterator[_Difference]:
    if agent.low is None or agent.high is None or env.low is None or env.high is None:
        return
    theirs, ours = _table(agent), _table(env)
    if agent.extremes:
        ours = np.array([[ours[0].min()], [ours[1].max()]])
    try:
        theirs, ours = np.broadcast_arrays(theirs, ours)
    except ValueError:  # one of the two prints leaves out more than the other
        return
    apart = ~np.isclose(theirs, ours, rtol=_PRINTED_DIGITS).all(axis=0)
    if not apart.any():
        return
    is_scaled = _is_unit(theirs) != _is_unit(ours) and bool(np.isfinite(theirs).all() and np.isfinite(ours).all())
    harmless = not is_scaled and agent.is_image == env.is_image
    yield _Difference("bounds", _words(theirs, apart), _words(ours, apart), key, harmless)


def _table(outline: Outline) -> np.ndarray[Any, Any]:
    """Low and high (2, entries); infinite where they are as good as that."""
    table = np.stack(np.broadcast_arrays(np.array(outline.low or ()), np.array(outline.high or ())))
    return np.where(np.abs(table) > _AS_GOOD_AS_INFINITE, np.copysign(np.inf, table), table)


def _is_unit(table: np.ndarray[Any, Any]) -> bool:
    return any(bool(np.all(table[0] == low) and np.all(table[1] == high)) for low, high in _UNIT)


def _words(table: np.ndarray[Any, Any], apart: np.ndarray[Any, Any]) -> str:
    """The bounds where they are all alike, else the first entry that differs."""
    if (table == table[:, :1]).all():
        return f"[{table[0, 0]:g}, {table[1, 0]:g}]"
    entry = int(np.flatnonzero(apart)[0])
    return f"[{table[0, entry]:g}, {table[1, entry]:g}] in entry {entry}"


def _whole(numbers: Any) -> tuple[int, ...]:
    return tuple(int(number) for number in np.asarray(numbers).ravel())
