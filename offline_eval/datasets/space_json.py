"""Gymnasium spaces as JSON text, in the words that Minari writes into its metadata."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from typing import Any

import numpy as np
from gymnasium import Space, spaces

from offline_eval.errors import DatasetError, InputError, bare

LARGEST = 1 << 24
"""Numbers in a Box or MultiBinary, and choices of a Discrete: a short text must not make a large array."""


def space_to_json(space: Space[Any]) -> str:
    """A Box, Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple of those, as JSON text."""
    return json.dumps(_fields(space))


def space_from_json(text: str) -> Space[Any]:
    """The space that `space_to_json`, or Minari, wrote.

    Raises:
        DatasetError: not JSON, a space that is not supported, or one of more than `LARGEST` numbers or choices.
    """
    try:
        return _space(json.loads(text))
    except Exception as error:  # a foreign text fails in as many ways as there are texts
        raise DatasetError("space", f"must be a space as Minari writes it ({error!r})", text) from error


def _fields(space: Space[Any]) -> dict[str, Any]:
    match space:
        case spaces.Box():
            bounds = {"low": space.low.tolist(), "high": space.high.tolist()}
            return {"type": "Box", "dtype": str(space.dtype), "shape": list(space.shape), **bounds}
        case spaces.Discrete():
            return {"type": "Discrete", "dtype": "int64", "start": int(space.start), "n": int(space.n)}
        case spaces.MultiDiscrete():
            numbers = {"nvec": space.nvec.tolist(), "start": space.start.tolist()}
            return {"type": "MultiDiscrete", "dtype": str(space.dtype), **numbers}
        case spaces.MultiBinary():
            return {"type": "MultiBinary", "n": space.n if isinstance(space.n, int) else list(space.n)}
        case spaces.Dict():
            return {"type": "Dict", "subspaces": {key: _fields(part) for key, part in space.items()}}
        case spaces.Tuple():
            return {"type": "Tuple", "subspaces": [_fields(part) for part in space]}
    raise InputError("space", "must be a Box, Discrete, MultiDiscrete, MultiBinary, Dict or Tuple", bare(f"{space}"))


def _space(fields: dict[str, Any]) -> Space[Any]:
    match fields["type"]:
        case "Box":
            dtype = np.dtype(fields["dtype"])
            _check_size(*fields["shape"])
            low, high = (np.array(fields[end], dtype=dtype) for end in ("low", "high"))
            return spaces.Box(low, high, tuple(fields["shape"]), dtype.type)
        case "Discrete":
            _check_size(fields["n"])
            return spaces.Discrete(fields["n"], start=fields.get("start", 0))
        case "MultiDiscrete":
            return spaces.MultiDiscrete(fields["nvec"], dtype=fields["dtype"], start=fields.get("start"))
        case "MultiBinary":
            _check_size(*np.atleast_1d(fields["n"]).tolist())
            return spaces.MultiBinary(fields["n"])
        case "Dict":
            # gymnasium sorts the keys of a plain dict.
            return spaces.Dict(OrderedDict((key, _space(part)) for key, part in fields["subspaces"].items()))
        case "Tuple":
            return spaces.Tuple([_space(part) for part in fields["subspaces"]])
    raise ValueError(f"unknown type {fields['type']}")


def _check_size(*numbers: int) -> None:
    if math.prod(numbers) > LARGEST:
        raise ValueError(f"more than {LARGEST:,} numbers or choices")
