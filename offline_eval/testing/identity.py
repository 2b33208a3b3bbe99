"""Names for what decides an episode: equal only where the policy, the rule and the environment are the same.

A name is given where everything that matters can be looked at: weights, numbers, spaces, and classes of packages whose
versions are known. What runs code of its own (a class or a function of the user's) gets none, as an edit of that code
would not show.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from gymnasium import Space
from gymnasium.envs.registration import EnvSpec
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import nn

from offline_eval.datasets.space_json import space_to_json
from offline_eval.environments import registered_spec
from offline_eval.errors import InputError

KEY = "offline_eval_key"
"""Attribute by which an object of the user's own class can say what it is, as text."""

_KNOWN = ("torch", "stable_baselines3", "sb3_contrib", "offline_eval", "gymnasium", "numpy", "builtins", "collections")
"""Packages whose classes are known by their name, as the versions are named beside it."""

_LOOKED_INTO = ("offline_eval.policies.critics", "offline_eval.policies.normalization")
"""Modules whose plain objects are nothing but their attributes."""

_PLAIN = (bool, int, float, str, bytes, type(None), np.generic, th.device, th.dtype)


class _Unnameable(Exception):
    """Something runs code that no version names."""


def policy_identity(model: Any, rule: Any = None) -> str | None:
    """SHA-256, in hex, of everything that decides an action.

    Args:
        model: the policy: an SB3 algorithm or policy, a `Normalized`, or an object with the attribute `KEY`.
        rule: what steers it.

    Returns:
        None where it cannot be told.
    """
    digest = hashlib.sha256()
    try:
        for part in (model, rule):
            _feed(digest, part)
    except _Unnameable:
        return None
    return digest.hexdigest()


def environment_identity(env: Any) -> dict[str, Any] | None:
    """What an environment is, as plain data: its spec, and the hash of the file that holds its class.

    Args:
        env: an id or a spec; for anything else None.

    Returns:
        None where the spec holds what cannot be written down.
    """
    if not isinstance(env, str | EnvSpec):
        return None
    spec = registered_spec(env) if isinstance(env, str) else env
    if not isinstance(spec.entry_point, str):
        return None
    try:
        described = json.loads(spec.to_json())
        module = import_module(spec.entry_point.partition(":")[0])
        source = Path(inspect.getfile(module)).read_bytes()
    except (TypeError, ValueError, ImportError, OSError):
        return None
    version = getattr(import_module(module.__name__.partition(".")[0]), "__version__", None)
    return {"spec": described, "source": hashlib.sha256(source).hexdigest(), "version": str(version)}


def _feed(digest: Any, value: Any) -> None:
    """Put a value into the digest, with its kind and its length, so that no two values read alike."""
    if isinstance(key := getattr(value, KEY, None), str) and not isinstance(value, type):
        return _say(digest, "key", key)
    if isinstance(value, _PLAIN):
        return _say(digest, type(value).__name__, value)
    if isinstance(value, Space):
        with suppress(InputError):
            return _say(digest, "space", space_to_json(value))
        raise _Unnameable
    if isinstance(value, BaseAlgorithm):
        _say(digest, "algorithm", _name(type(value)))
        return _feed(digest, value.policy)
    if isinstance(value, nn.Module):
        return _feed_module(digest, value)
    if isinstance(value, th.Tensor):
        _say(digest, "tensor", (tuple(value.shape), value.dtype))
        return _feed(digest, value.detach().cpu().contiguous().reshape(-1).view(th.uint8).numpy())
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise _Unnameable
        _say(digest, "array", (value.shape, str(value.dtype)))
        digest.update(np.ascontiguousarray(value).tobytes())
        return None
    if isinstance(value, Mapping):
        return _feed_all(
            digest, "mapping", [part for item in sorted(value.items(), key=lambda item: repr(item[0])) for part in item]
        )
    if isinstance(value, list | tuple):
        return _feed_all(digest, "sequence", value)
    if isinstance(value, type):
        return _say(digest, "class", _name(value))
    _feed_object(digest, value)


def _feed_object(digest: Any, value: Any) -> None:
    kind = type(value)
    if is_dataclass(kind) and _name(kind).startswith("offline_eval."):
        attributes = {field.name: getattr(value, field.name) for field in fields(value)}
    elif kind.__module__ in _LOOKED_INTO:
        # What begins with an underscore is worked out from the rest.
        attributes = {name: part for name, part in vars(value).items() if not name.startswith("_")}
    else:
        raise _Unnameable
    _say(digest, "object", _name(kind))
    _feed(digest, attributes)


def _feed_module(digest: Any, module: nn.Module) -> None:
    """Classes, settings and weights of a network and of all its parts."""
    for path, part in module.named_modules():
        _say(digest, "module", (path, _name(type(part))))
        for name, value in sorted(vars(part).items()):
            if name != "training" and _is_setting(value):
                _say(digest, "setting", name)
                _feed(digest, value)
    for name, value in sorted(module.state_dict().items()):
        _say(digest, "weight", name)
        _feed(digest, value)


def _is_setting(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_setting(part) for part in value)
    ours = is_dataclass(value) and type(value).__module__.startswith("offline_eval.")
    return ours or isinstance(value, (*_PLAIN, th.Tensor, np.ndarray, Space))


def _feed_all(digest: Any, kind: str, parts: Any) -> None:
    _say(digest, kind, len(parts))
    for part in parts:
        _feed(digest, part)


def _say(digest: Any, kind: str, value: Any) -> None:
    text = repr(value)
    digest.update(f"{kind} {len(text)} {text}\n".encode())


def _name(kind: type) -> str:
    if kind.__module__.partition(".")[0] not in _KNOWN:
        raise _Unnameable
    return f"{kind.__module__}.{kind.__qualname__}"
