"""Statistics of a VecNormalize that lie beside an agent's file: whose they are, told by their names.

Stable-Baselines3 saves them apart from the agent, and an agent without them plays as if it had learned nothing.
Names in use: `NAME.vecnormalize.pkl`, `rl_model_vecnormalize_1000_steps.pkl` (CheckpointCallback), `vecnormalize.pkl`
and `vec_normalize.pkl` (for the whole folder), and `ENV/vecnormalize.pkl` (rl-zoo).
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gymnasium import Space
from stable_baselines3.common.base_class import BaseAlgorithm

from offline_eval.environments import EnvironmentLike, environment_id
from offline_eval.errors import InputError, OfflineEvalError, bare
from offline_eval.policies.normalization import Normalized, Statistics, find_vecnormalize
from offline_eval.policies.notes import add_notes
from offline_eval.policies.saving import is_offline_algorithm
from offline_eval.policies.vecnormalize_file import read_vecnormalize

NONE = "none"
"""In the place of a file of statistics: the agent's own are declined."""

_WORD = re.compile(r"vec[._ -]?normali[sz]e[dr]?", re.IGNORECASE)
_SEPARATORS = "._- "


def with_statistics(
    model: BaseAlgorithm, agent: Path, env: EnvironmentLike, normalize: str | os.PathLike[str] | None
) -> BaseAlgorithm | Normalized:
    """A model behind the statistics that are given, or that lie beside its file and are plainly its own.

    Args:
        model: opened from the file.
        agent: the file.
        env: where it shall act; nothing is looked for where a VecNormalize in its stack normalises.
        normalize: a file; None looks beside the agent; "none" declines.

    Raises:
        InputError: a choice is needed, or the statistics are not usable.
    """
    if normalize is not None and normalize != NONE:
        return Normalized(model, read_vecnormalize(normalize), Path(normalize).name)
    if find_vecnormalize(env) is not None or is_offline_algorithm(agent):
        return model
    if normalize == NONE:
        add_notes(model, declined(agent, environment_id(env)))
        return model
    found = find_beside(agent, environment_id(env), model.observation_space)
    add_notes(model, found.notes)
    if found.path is None or found.statistics is None:
        return model
    source = f"{_shown(found.path)}, which lies beside the agent (--normalize none declines)"
    return Normalized(model, found.statistics, source)


@dataclass(frozen=True)
class Found:
    """The statistics that are an agent's own, and what a reader should know of the others.

    Attributes:
        path: of its own; None where there are none.
        statistics: of that file.
        notes: files that lie there, too, and were not used.
    """

    path: Path | None = None
    statistics: Statistics | None = None
    notes: tuple[str, ...] = ()


def find_beside(agent: Path, env_id: str, observation_space: Space[Any]) -> Found:
    """The statistics that plainly belong to an agent: named after it, or the only ones beside the only agent.

    Args:
        agent: its file.
        env_id: the environment's; `ENV/vecnormalize.pkl` may be in a folder of that name.
        observation_space: the agent's.

    Raises:
        InputError: a choice is needed: some fit and may be its own, or its own do not fit or cannot be read.
    """
    files = _Files.beside(agent, env_id)
    if files.own:
        read = {path: _read(path, agent) for path in files.own}
        if len(path_of := _different(read)) > 1:
            raise _choice(agent, files.own, "they are named after this agent, and differ")
        path = path_of[0]
        if read[path].changes_nothing:
            return Found()
        try:
            read[path].check(observation_space)
        except OfflineEvalError as error:
            raise _choice(agent, [path], f"it is named after this agent, and does not fit it ({error})") from error
        return Found(path, read[path])
    read = {path: _read(path, agent) for path in files.of_the_folder}
    read = {path: statistics for path, statistics in read.items() if not statistics.changes_nothing}
    fitting = {path: statistics for path, statistics in read.items() if _fits(statistics, observation_space)}
    notes = tuple(
        f"{_shown(path)} lies beside the agent and was not used: its observations have another shape"
        for path in read
        if path not in fitting
    )
    if not fitting:
        return Found(notes=notes + _of_others(files, observation_space))
    different = _different(fitting)
    if len(different) == 1 and not files.other_agents:
        return Found(different[0], fitting[different[0]], notes)
    if all(statistics.observations is None for statistics in fitting.values()):
        return Found(notes=notes)  # they change nothing that a policy sees
    reason = f"so does {files.other_agents[0]}, and it may be of either" if files.other_agents else "they differ"
    raise _choice(agent, list(fitting), reason)


def declined(agent: Path, env_id: str) -> tuple[str, ...]:
    """What a reader should know where the caller declined the statistics beside an agent."""
    files = _Files.beside(agent, env_id)
    found = [*files.own, *files.of_the_folder]
    return (f"{_shown(found[0])} lies beside the agent and was declined (--normalize none)",) if found else ()


@dataclass(frozen=True)
class _Files:
    """Files of statistics around an agent, by whose they are; `other_agents` are names of files."""

    own: list[Path]
    of_the_folder: list[Path]
    of_others: list[Path]
    other_agents: list[str]

    @classmethod
    def beside(cls, agent: Path, env_id: str) -> _Files:
        folder = agent.parent
        whose = {path: _core(path.stem) for path in sorted(folder.glob("*.pkl")) if _WORD.search(path.stem)}
        names = {agent.stem, *_env_names(env_id)}
        for inner in sorted(entry for entry in folder.iterdir() if entry.is_dir()):
            # rl-zoo keeps `ENV_1/ENV.zip` and `ENV_1/ENV/vecnormalize.pkl`.
            if inner.name in names or _base(inner.name) in names or folder.absolute().name.startswith(f"{inner.name}_"):
                inside = [path for path in sorted(inner.glob("*.pkl")) if not _core(path.stem)]
                whose |= dict.fromkeys(inside, agent.stem if inner.name == agent.stem else "")
        if not whose:
            return cls([], [], [], [])
        agents = _agents_in(folder) - {agent.stem}
        files = cls([], [], [], [f"{name}.zip" for name in sorted(agents)])
        for path, core in whose.items():
            owners = _owners(core, {agent.stem, *agents})
            own = owners == [agent.stem]
            (files.own if own else files.of_others if owners and agent.stem not in owners else files.of_the_folder
             ).append(path)  # fmt: skip
        return files


def _core(stem: str) -> str:
    """What a name says besides that it is of a VecNormalize: `rl_model_vecnormalize_9_steps`, `rl_model_9_steps`."""
    if not _WORD.search(stem):
        return stem
    return "_".join(part for part in (part.strip(_SEPARATORS) for part in _WORD.split(stem)) if part)


def _owners(core: str, agents: Iterable[str]) -> list[str]:
    """The agents that a file may be named after: `vecnormalize_9_steps` after `rl_model_9_steps`, too."""
    if not core:
        return []
    exact = [name for name in agents if name == core]
    return exact or sorted(name for name in agents if name.endswith(core) and name[: -len(core)][-1:] in _SEPARATORS)


def _env_names(env_id: str) -> set[str]:
    """As folders are called: `ALE/Pong-v5` is `ALE-Pong-v5`, and versions do not matter."""
    name = re.split("[( ]", env_id)[0].rpartition(":")[2].replace("/", "-")  # without arguments and wrappers
    return {name, _base(name)}


def _base(name: str) -> str:
    return re.sub(r"-v\d+$", "", name)


def _agents_in(folder: Path) -> set[str]:
    """Stems of the zips that Stable-Baselines3 wrote; this package's own were never trained behind a VecNormalize."""
    return {path.stem for path in folder.glob("*.zip") if _is_agent(path)}


def _is_agent(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # damaged in one of many ways: no agent that anybody trained
        return False
    return {"data", "policy.pth"} <= set(names) and not is_offline_algorithm(path)


def _read(path: Path, agent: Path) -> Statistics:
    try:
        return read_vecnormalize(path)
    except OfflineEvalError as error:
        raise _choice(agent, [path], f"it cannot be used ({error})") from error


def _fits(statistics: Statistics, space: Space[Any]) -> bool:
    try:
        statistics.check(space)
    except OfflineEvalError:
        return False
    return True


def _different(read: dict[Path, Statistics]) -> list[Path]:
    """One path for each of the statistics that are not equal."""
    found: list[Path] = []
    for path, statistics in read.items():
        if statistics.digest not in [read[other].digest for other in found]:
            found.append(path)
    return found


def _of_others(files: _Files, space: Space[Any]) -> tuple[str, ...]:
    for path in files.of_others:
        try:
            statistics = read_vecnormalize(path)
        except OfflineEvalError:
            continue
        if statistics.observations is not None and _fits(statistics, space):
            return (f"{_shown(path)} fits the agent, is named after another and was not used (--normalize uses it)",)
    return ()


def _choice(agent: Path, files: list[Path], reason: str) -> InputError:
    named = " and ".join(_shown(path) for path in files[:2])
    return InputError(
        "normalize",
        "must be chosen where it is not plain which statistics of a VecNormalize are the agent's",
        bare(f"nothing, and beside {agent.name} lies {named}"),
        f"{reason}. --normalize {files[0]} takes it, --normalize none plays without, and under the name "
        f"{agent.stem}.vecnormalize.pkl it is taken by itself",
    )


def _shown(path: Path) -> str:
    return os.fspath(path.relative_to(path.parents[1])) if not _core(path.stem) else path.name
