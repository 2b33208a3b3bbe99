"""The file that `VecNormalize.save` wrote, read without unpickling it.

The file is a pickle of the whole wrapper. Here every name in it becomes an inert record of what it would have been
called with, and the few arrays that matter are rebuilt from their bytes: nothing of NumPy, Gymnasium or
Stable-Baselines3 runs, so that it does not matter which versions of them wrote the file.
"""

from __future__ import annotations

import io
import os
import pickle
import pickletools
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from offline_eval.errors import AgentFileError, OfflineEvalError
from offline_eval.policies.normalization import Statistics
from offline_eval.types import FloatArray

LARGEST_FILE = 64 * 2**20
"""Bytes of a file of statistics, at most; those of a thousand images would not fill it."""

MOST_OPCODES = 1_000_000
"""Opcodes of its pickle, at most: each may make an object. Files in use have some 500."""


def read_vecnormalize(path: str | os.PathLike[str]) -> Statistics:
    """Read the statistics of a VecNormalize from its file; nothing in the file is run.

    Names of NumPy, Gymnasium (or gym) and Stable-Baselines3 are recorded and not called; any other name is refused.

    Raises:
        AgentFileError: there is no such file, it is no such pickle, it names something else, or its statistics are none
            (NaN, a negative variance).
    """
    found = Path(path)

    def refuse(rule: str, way_out: str = "") -> AgentFileError:
        return AgentFileError("normalize", rule, os.fspath(path), way_out)

    if not found.is_file():
        raise refuse("must be an existing file")
    try:
        if (size := found.stat().st_size) > LARGEST_FILE:
            raise refuse(f"must have at most {LARGEST_FILE} bytes", f"it has {size}")
        content = found.read_bytes()
        _check_sizes(content)
        attributes = _InertUnpickler(io.BytesIO(content)).load().state
        return Statistics.from_attributes(
            {
                "norm_obs": attributes["norm_obs"],
                "norm_reward": attributes["norm_reward"],
                "obs_rms": _moments(attributes["obs_rms"]) if attributes["norm_obs"] else None,
                "ret_rms": _moments(attributes["ret_rms"]),
                "clip_obs": _array(attributes["clip_obs"]),
                "epsilon": _array(attributes["epsilon"]),
            }
        )
    except _ForeignName as error:
        rule = "must hold nothing but the statistics of a VecNormalize"
        raise refuse(rule, f"it names `{error}`, and nothing of it was run") from error
    except AgentFileError:
        raise
    except OfflineEvalError as error:
        raise refuse("must hold usable statistics", str(error)) from error
    except OSError as error:
        raise refuse("must be readable", str(error.strerror or error)) from error
    except Exception as error:  # a foreign file fails in as many ways as there are files
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise refuse("must be a file that `VecNormalize.save` wrote", reason) from error


class _ForeignName(Exception):
    """A pickle names something that no statistics need."""


class _Inert:
    """What a name in the pickle becomes: a record of its arguments and its state."""

    name: str
    state: Any = None
    arguments: tuple[Any, ...]

    def __new__(cls, *arguments: Any) -> _Inert:
        made = object.__new__(cls)
        made.arguments = arguments
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _check_sizes(content: bytes) -> None:
    """Raise where a pickle asks for more memory than statistics can need.

    Python's own reader makes room for as many entries, or bytes, as an opcode names before it looks whether they are
    there: nine bytes could take gigabytes.
    """
    for number, (opcode, argument, position) in enumerate(pickletools.genops(content)):  # refuses missing bytes
        if number >= MOST_OPCODES:
            raise ValueError(f"more than {MOST_OPCODES} opcodes")
        asks = int(argument or 0) if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT", "FRAME") else 0
        if asks > len(content):
            raise ValueError(f"{opcode.name} {asks} at byte {position} of a file of {len(content)} bytes")


_RECORDED = ("numpy", "gym", "gymnasium", "stable_baselines3")


class _InertUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("builtins", "set"):  # older files keep the keys of goals in one
            return type("_Recorded", (_Inert,), {"name": name})
        if module.partition(".")[0] not in _RECORDED:
            raise _ForeignName(f"{module}.{name}")
        return type("_Recorded", (_Inert,), {"name": name})


def _moments(record: Any) -> Any:
    """Mean and variance from the record of a RunningMeanStd, or from a dict of those."""
    if isinstance(record, dict):
        return {key: _moments(value) for key, value in record.items()}
    return SimpleNamespace(mean=_array(record.state["mean"]), var=_array(record.state["var"]))


def _array(record: Any) -> FloatArray:
    """An array from the record of the call with which NumPy would have rebuilt it."""
    if isinstance(record, int | float):
        return np.array(record, dtype=np.float64)
    shape: tuple[int, ...] = ()
    order = "C"
    if record.name == "scalar":
        number_type, content = record.arguments
    elif record.name == "_reconstruct":
        _, shape, number_type, is_fortran, content = record.state
        order = "F" if is_fortran else "C"
    elif record.name == "_frombuffer":  # pickle protocol 5
        content, number_type, shape, order = record.arguments
    else:
        raise ValueError(f"expected an array, found {record.name}")
    flat = np.frombuffer(content, _number_type(number_type))
    return flat.reshape(shape, order="F" if order == "F" else "C").astype(np.float64)


def _number_type(record: Any) -> np.dtype[Any]:
    code, byte_order = record.arguments[0], record.state[1]
    if record.name != "dtype" or code not in ("f2", "f4", "f8", "i4", "i8", "u4", "u8"):
        raise ValueError(f"expected a type of numbers, found {code!r}")
    number_type: np.dtype[Any] = np.dtype(code).newbyteorder(byte_order)
    return number_type
