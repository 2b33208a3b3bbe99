"""Spaces as the files of Stable-Baselines3 print them, read without unpickling: their outlines, and Dicts in order."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from offline_eval.policies.agent_file import AgentFile, Pickled
from offline_eval.space_agreement import Outline, What, shown

_DEEPEST, _LONGEST = 8, 1_000_000  # what is printed comes from a file
_OPENING, _CLOSING, _QUOTES = "([{", ")]}", "'\""


def printed_outline(file: AgentFile, what: What) -> Outline | None:
    """The outline of one of a file's two spaces; None where it prints no space of gymnasium's (or gym's).

    Raises:
        AgentFileError: a Dict whose keys cannot be read: a policy puts its inputs together in their order.
    """
    value = file.data.get(f"{what}_space")
    if not isinstance(value, Pickled) or not hasattr(spaces, kind := value.kind.rpartition(".")[2]):
        return None
    twins = value.twins
    if kind == "Dict":
        is_old = value.kind.startswith("gym.")
        try:
            return Outline("Dict", parts=_parts(_text(twins, "spaces"), is_old, _DEEPEST))
        except ValueError as error:
            raise file.refusal(
                f"must print the keys of its {what} space",
                f"the inputs of its policy are put together in their order, which is not readable ({error})",
            ) from error
    if kind == "Box":
        shape = twins.get("_shape", twins.get("shape"))
        low, high = (shown(_text(twins, end)) or None for end in ("low", "high"))
        dtype = str(twins["dtype"]) if "dtype" in twins else None
        return Outline("Box", _or_none(_numbers, shape), dtype, low=low, high=high)
    numbers = twins.get("nvec" if kind == "MultiDiscrete" else "n")
    return Outline(kind, numbers=_or_none(_numbers, numbers), start=_or_none(_numbers, twins.get("start")))


def as_printed(outline: Outline | None, space: Space[Any]) -> Space[Any]:
    """An environment's space as the agent knew it: with the order of its keys, and with its bounds where they differ.

    Args:
        outline: of the agent's space; it agrees with the environment's (`check_agreement`).
        space: the environment's.
    """
    if outline is None:
        return space
    if isinstance(space, spaces.Dict) and outline.parts is not None:
        # gymnasium sorts the keys of a plain dict.
        return spaces.Dict(OrderedDict((key, as_printed(part, space[key])) for key, part in outline.parts.items()))
    if not isinstance(space, spaces.Box) or outline.dtype is None:
        return space
    size = int(np.prod(space.shape))
    low, high = outline.low, outline.high
    if outline.extremes or low is None or high is None or {len(low), len(high)} - {1, size}:
        return space
    dtype: Any = np.dtype(outline.dtype)
    with np.errstate(over="ignore"):
        lowest, highest = (np.resize(np.array(bound), space.shape).astype(dtype) for bound in (low, high))
    if not (lowest <= highest).all():
        return space
    close = np.allclose(lowest, space.low, rtol=1e-5) and np.allclose(highest, space.high, rtol=1e-5)
    # The environment's own have all their digits, and not those that are printed.
    return space if close and space.dtype == dtype else spaces.Box(lowest, highest, dtype=dtype.type)


def _parts(text: str, is_old: bool, depth: int) -> dict[str, Outline]:
    """Of `{'a': Box(...)}`, `OrderedDict([('a', Box(...))])` or `'a': Box(...), ...`.

    Raises:
        ValueError: it is none of these.
    """
    if len(text) > _LONGEST or depth < 1:
        raise ValueError("it is too long")
    inner = text.strip()
    if match := re.fullmatch(r"OrderedDict\((.*)\)", inner, re.DOTALL):
        inner = match.group(1).strip()
    if inner[:1] in ("{", "["):
        inner = inner[1:-1]
    found: dict[str, Outline] = {}
    for item in _split(inner):
        key, part = _pair(item)
        found[key.strip().strip(_QUOTES)] = _printed(part.strip(), is_old, depth - 1)
    if not found:
        raise ValueError("there are none")
    return found


def _pair(item: str) -> tuple[str, str]:
    """Key and space of `'a': Box(...)` or `('a', Box(...))`."""
    if item[:1] == "(":
        key, part = _split(item[1:-1])
        return key, part
    match = re.match(r"""('[^']*'|"[^"]*"|[^:'"]+):""", item)
    if match is None:
        raise ValueError(f"{item[:40]!r} has no key")
    return match.group(1), item[match.end() :]


def _printed(text: str, is_old: bool, depth: int) -> Outline:
    """Of a space's `repr`."""
    match = re.fullmatch(r"(\w+)\((.*)\)", text, re.DOTALL)
    if match is None:
        raise ValueError(f"{text[:40]!r} is no space")
    kind, inner = match.groups()
    if kind == "Dict":
        return Outline("Dict", parts=_parts(inner, is_old, depth))
    words = [word.strip() for word in _split(inner)]
    if kind == "Box":
        if len(words) != 4:  # gym 0.17 printed the shape alone
            return Outline("Box", _or_none(_numbers, inner))
        low, high, shape, dtype = words
        return Outline(
            "Box",
            _or_none(_numbers, shape),
            dtype,
            low=shown(low) or None,
            high=shown(high) or None,
            extremes=is_old and "[" not in low + high,
        )
    if kind not in ("Discrete", "MultiDiscrete", "MultiBinary"):
        return Outline(kind)
    start = next((_or_none(_numbers, word) for word in words if word.startswith("start=")), None)
    numbers = _or_none(_numbers, " ".join(word for word in words if "=" not in word))
    if start is None and kind == "Discrete":
        start = (0,)  # which is not printed
    return Outline(kind, numbers=numbers, start=start)


def _split(text: str) -> Iterator[str]:
    """The parts between the commas that stand in no bracket and no quotation marks."""
    depth, quote, begin = 0, "", 0
    for place, sign in enumerate(text):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in _QUOTES:
            quote = sign
        elif sign in _OPENING:
            depth += 1
        elif sign in _CLOSING:
            depth -= 1
        elif sign == "," and depth == 0:
            yield text[begin:place].strip()
            begin = place + 1
    if last := text[begin:].strip():
        yield last


def _numbers(value: Any) -> tuple[int, ...]:
    """Whole numbers of a JSON value; there is no NumPy integer in JSON, and newer files write "2" for 2."""
    if isinstance(value, list):
        return tuple(int(number) for number in value)
    if isinstance(value, int):
        return (value,)
    if not isinstance(value, str) or "..." in value:
        raise ValueError(value)
    return tuple(int(number) for number in re.findall(r"-?\d+", value))


def _or_none(read: Callable[[Any], tuple[int, ...]], value: Any) -> tuple[int, ...] | None:
    try:
        return read(value)
    except (TypeError, ValueError):
        return None


def _text(twins: Any, name: str) -> str:
    value = twins.get(name)
    return value if isinstance(value, str) else ""
