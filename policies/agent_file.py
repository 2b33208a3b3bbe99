"""What is readable in a file that Stable-Baselines3's `save` wrote; nothing that is pickled in it is run.

Such a file is a zip: `data` is JSON whose values are plain where they can be and pickled where they cannot, and
`*.pth` are tensors. A pickled value carries readable twins of its attributes: a space its shape and bounds, a policy
class its module. The twins and the tensors say all that is needed.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch as th
from torch import Tensor

from offline_eval.errors import AgentFileError
from offline_eval.policies.archive import is_plain, read_members, read_tensors, reason_of, refused_in_one_line

_SAVED_BY_SB3 = "must be a file that the `save` of a Stable-Baselines3 algorithm wrote"


@dataclass(frozen=True)
class Pickled:
    """A value that the file holds as a pickle.

    Attributes:
        kind: the name of its class, as `gymnasium.spaces.box.Box`.
        twins: its attributes as far as JSON could write them; the others as their `str`.
        encoded: the pickle, base64.
    """

    kind: str
    twins: Mapping[str, Any]
    encoded: str

    def run(self) -> Any:
        """Unpickle: runs whatever the file's author put there."""
        return pickle.loads(base64.b64decode(self.encoded))

    @property
    def code(self) -> str:
        """What would be imported or called to unpickle it, and the classes of one's own that it is made of."""
        named = dict.fromkeys(_names_in(base64.b64decode(self.encoded)))
        own = [str(twin) for twin in self.twins.values() if str(twin).startswith("<class '")]
        return ", ".join([*own, *named]) or "nothing that it names"

    @property
    def class_name(self) -> str:
        """Module and name, where the value is a class: JSON writes neither, but the printed methods hold the name."""
        printed = [str(self.twins.get("__init__", "")), *(str(twin) for twin in self.twins.values())]
        found = (re.match(r"<function (?:.*\.)?(\w+)\.\w+ at ", text) for text in printed)
        name = next((match.group(1) for match in found if match), "<a class>")
        return f"{self.twins.get('__module__', 'an unnamed module')}.{name}"


def _names_in(pickled: bytes) -> Iterator[str]:
    """The names that a pickle imports, as `module.name`; nothing is run."""
    texts: list[str] = []
    memo: list[str] = []
    with suppress(Exception):  # what is no pickle runs nothing either, and is refused when it is read
        for opcode, argument, _ in pickletools.genops(pickled):
            if opcode.name == "GLOBAL":
                yield str(argument).replace(" ", ".")
            elif opcode.name == "STACK_GLOBAL":
                yield ".".join(texts[-2:])
            elif "UNICODE" in opcode.name:
                texts.append(str(argument))
            elif opcode.name == "MEMOIZE":
                memo.append(texts[-1] if texts else "")
            elif opcode.name in ("BINGET", "LONG_BINGET", "GET"):
                texts.append(memo[int(argument or 0)] if int(argument or 0) < len(memo) else "")


@dataclass(frozen=True)
class AgentFile:
    """The readable content of an agent's file.

    Attributes:
        path: where it lies.
        data: attributes of the algorithm: plain JSON values, or `Pickled`.
        weights: the policy's state dict, critics included, on the CPU.
        variables: tensors beside the policy, as `log_ent_coef`.
        version: of the Stable-Baselines3 that wrote it; "before 1.0" where it does not say.
    """

    path: Path
    data: Mapping[str, Any]
    weights: Mapping[str, Tensor]
    variables: Mapping[str, Any]
    version: str

    @property
    def networks(self) -> set[str]:
        """The top-level names in the weights: `actor`, `critic`, ..."""
        return {name.partition(".")[0] for name in self.weights}

    def refusal(self, rule: str, way_out: str = "") -> AgentFileError:
        """An error about this file."""
        return AgentFileError("path", rule, os.fspath(self.path), way_out)


def read_agent_file(path: str | os.PathLike[str]) -> AgentFile:
    """Read an agent's file.

    Args:
        path: of the zip; `.zip` may be left out, as with Stable-Baselines3.

    Raises:
        AgentFileError: there is no such file, it is not a zip, another library wrote it, or a member is not what it
            should be.
    """
    found = find_agent_file(path)
    with refused_in_one_line(found, _SAVED_BY_SB3):
        return _read(found)


def _read(found: Path) -> AgentFile:
    def refuse(rule: str, way_out: str = "") -> AgentFileError:
        return AgentFileError("path", rule, os.fspath(found), way_out)

    try:
        with zipfile.ZipFile(found) as archive:
            members = read_members(archive, _WANTED)
            others = ", ".join(sorted(set(archive.namelist()) - set(members))[:4])
    except OSError:
        raise
    except Exception as error:
        way_out = f"{_SAVED_BY_SB3} ({reason_of(error)}); fetch a damaged one again from its author"
        raise refuse("must be a zip that is whole", way_out) from error
    if missing := [name for name in ("data", "policy.pth") if name not in members]:
        raise refuse(_SAVED_BY_SB3, f"it holds no `{missing[0]}`, but {others or 'nothing'}")

    try:
        data = json.loads(members["data"])
    except (ValueError, RecursionError) as error:
        raise refuse(_SAVED_BY_SB3, f"its `data` is not JSON ({reason_of(error)})") from error
    if not isinstance(data, dict) or "policy_class" not in data:
        raise refuse(_SAVED_BY_SB3, "its `data` names no `policy_class`")

    tensors = {name: _tensors(members[name], name, refuse) for name in members if name.endswith(".pth")}
    weights = tensors.pop("policy.pth")
    if not all(map(is_plain, weights.values())):
        raise refuse(_SAVED_BY_SB3, "its `policy.pth` is not a state dict")
    return AgentFile(
        path=found,
        data={name: _value(value) for name, value in data.items()},
        weights=weights,
        variables={name: value for member in tensors.values() for name, value in member.items()},
        version=members.get("_stable_baselines3_version", b"before 1.0").decode(errors="replace").strip()[:20],
    )


# Optimiser states are not among them: an agent is opened to be looked at, and they are two thirds of the file.
# `tensors.pth` was renamed to `pytorch_variables.pth` in Stable-Baselines3 0.9.
_WANTED = ("data", "policy.pth", "pytorch_variables.pth", "tensors.pth", "_stable_baselines3_version")


def find_agent_file(path: str | os.PathLike[str]) -> Path:
    """The file that a path stands for: `.zip` may be left out.

    Raises:
        AgentFileError: there is none.
    """
    given = Path(path)
    with_suffix = given.with_name(given.name + ".zip") if given.name else given
    for candidate in (given, with_suffix):
        if candidate.is_file():
            return candidate
    if given.is_dir():
        raise AgentFileError("path", "must be a file", os.fspath(path), "this is a folder")
    neighbours = sorted(entry.name for entry in given.parent.glob("*.zip"))[:4] if given.parent.is_dir() else []
    way_out = f"beside it lie {', '.join(neighbours)}" if neighbours else "no agent lies in its folder either"
    raise AgentFileError("path", "must be an existing file", os.fspath(path), way_out)


def _value(value: Any) -> Any:
    if not isinstance(value, dict) or ":serialized:" not in value:
        return value
    kind = re.sub(r"^<class '(.*)'>$", r"\1", str(value.get(":type:", "")))
    twins = {name: twin for name, twin in value.items() if name not in (":type:", ":serialized:")}
    return Pickled(kind, twins, str(value[":serialized:"]))


def _tensors(content: bytes, name: str, refuse: Any) -> dict[str, Any]:
    try:
        loaded = read_tensors(content, th.device("cpu"))
    except Exception as error:  # a foreign file fails in as many ways as there are files
        raise refuse(
            f"must hold tensors and nothing else in `{name}`",
            f"{reason_of(error)}. Nothing of it was run; fetch the file again from its author",
        ) from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise refuse(f"must hold a dict of tensors in `{name}`", f"it holds a {type(loaded).__name__}")
    return loaded
