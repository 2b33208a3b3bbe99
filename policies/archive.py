"""The zips that agents come in: a member is unpacked only where its size can be what it says, and all else is refused.

A stranger's bytes fail in as many ways as there are bytes. Whatever it is, it ends in one line that names the file.
"""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard

import numpy as np
import torch as th

from offline_eval.errors import AgentFileError, OfflineEvalError
from offline_eval.types import Array

LARGEST = 2**30
"""Bytes that the members which are read may have together, unpacked."""

MOST_TIMES = 100
"""A member may unpack to so many times its packed size: weights hardly shrink, and JSON to a tenth."""


@contextmanager
def refused_in_one_line(path: str | os.PathLike[str] | io.BufferedIOBase, rule: str) -> Iterator[None]:
    """Turn whatever a file's content makes fail into a refusal of that file.

    Args:
        path: of the file, as the caller named it.
        rule: what holds for it.

    Raises:
        AgentFileError: something failed; what this package refuses by itself passes as it is.
    """
    shown = os.fspath(path) if isinstance(path, str | os.PathLike) else type(path).__name__
    try:
        yield
    except OfflineEvalError:
        raise
    except FileNotFoundError as error:
        raise AgentFileError("path", "must be an existing file", shown) from error
    except OSError as error:
        raise AgentFileError("path", "must be readable", shown, str(error.strerror or error)) from error
    except Exception as error:
        raise AgentFileError("path", rule, shown, reason_of(error)) from error


def reason_of(error: Exception) -> str:
    """An error's class and the first line of what it says."""
    said = str(error).strip().partition("\n")[0][:200]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def read_members(archive: zipfile.ZipFile, wanted: Collection[str]) -> dict[str, bytes]:
    """The wanted members, as far as they are there.

    Raises:
        ValueError: they are larger than an agent's can be, or packed by a method that no agent's are.
    """
    found = {info.filename: info for info in archive.infolist() if info.filename in wanted}
    for name, info in found.items():
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"`{name}` is packed by a method that no agent's are")
        if info.file_size > MOST_TIMES * max(info.compress_size, 1):
            raise ValueError(f"`{name}` would unpack to {info.file_size} bytes, over {MOST_TIMES} times its size")
    if (total := sum(info.file_size for info in found.values())) > LARGEST:
        raise ValueError(f"its members would unpack to {total} bytes, and {LARGEST} is the limit")
    return {name: archive.read(info) for name, info in found.items()}


def read_tensors(content: bytes, device: th.device) -> Any:
    """What `torch.save` wrote, by torch's weights-only reader: tensors and plain containers, no other name.

    Raises:
        ValueError: it unpacks to more than it is; other errors as the content has it.
    """
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            # torch packs nothing: what is larger unpacked is a bomb, or members that share their bytes.
            if (total := sum(info.file_size for info in archive.infolist())) > len(content):
                raise ValueError(f"{len(content)} bytes would unpack to {total}")
    return th.load(io.BytesIO(content), map_location=device, weights_only=True)


def is_plain(value: object) -> TypeGuard[th.Tensor]:
    """Whether a value is a tensor that holds all of its numbers: not sparse, not quantised, not one number repeated."""
    return (
        isinstance(value, th.Tensor)
        and value.layout is th.strided
        and value.device.type != "meta"
        and not value.is_quantized
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def read_arrays(content: bytes) -> dict[str, Array]:
    """The arrays of an npz file.

    Raises:
        ValueError: an array's header asks for more bytes than there are; other errors as the content has it.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        read_members(archive, archive.namelist())
        for info in archive.infolist():
            with archive.open(info) as member:
                shape, dtype = _header(member)
            if math.prod(shape) * dtype.itemsize > info.file_size:
                raise ValueError(f"`{info.filename}` names an array of {shape} in {info.file_size} bytes")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _header(member: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    readers: dict[tuple[int, int], Any] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"an array of version {version}")
    shape, _, dtype = readers[version](member)
    return shape, dtype
