"""Agents as every entry takes them: a file, a live algorithm, anything with `predict`; ready for raw observations."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm

from offline_eval.environments import EnvironmentLike
from offline_eval.errors import InputError, bare
from offline_eval.policies.beside import NONE
from offline_eval.policies.finite import check_finite
from offline_eval.policies.identity import Trust
from offline_eval.policies.loading import load_sb3
from offline_eval.policies.normalization import Normalized, Statistics, as_trained, find_vecnormalize, normalizes
from offline_eval.policies.notes import add_notes, notes_of
from offline_eval.policies.setting import setting_notes
from offline_eval.policies.vecnormalize_file import read_vecnormalize


@dataclass(frozen=True)
class AgentZip:
    """An agent's file and how it is opened, for an entry that opens it itself.

    Attributes:
        path: of the zip.
        normalize: as in `load_sb3`.
        trust: as in `load_sb3`.
    """

    path: str | Path
    normalize: str | os.PathLike[str] | None = None
    trust: Trust = False

    def __fspath__(self) -> str:
        return os.fspath(self.path)


def is_file(agent: object) -> TypeGuard[str | Path | AgentZip]:
    """Whether an agent is given by its file."""
    return isinstance(agent, str | Path | AgentZip)


def opened(
    agent: Any,
    env: EnvironmentLike,
    device: str | th.device = "auto",
    argument: str = "env",
    *,
    normalize: str | os.PathLike[str] | None = None,
) -> tuple[Any, tuple[str, ...]]:
    """An agent that acts on the observations which an environment gives; and what a reader should know of the two.

    A live algorithm that learns behind a VecNormalize gets its statistics, as they are now, where `env` has none.

    Args:
        agent: anything with `predict` or a critic inside, or a file: its path, or an `AgentZip`.
        env: where it is to act.
        device: where a file is loaded.
        argument: what is to blame where an agent at hand does not fit.
        normalize: the file of a VecNormalize; "none" declines the agent's own.

    Raises:
        SpaceError: the agent was trained on other observations or actions.
        InputError: a file cannot be opened, weights are not finite, or it is not plain what normalises.
    """
    if isinstance(agent, AgentZip):
        chosen = agent.normalize if normalize is None else normalize
        ready: Any = load_sb3(agent.path, env, device, normalize=chosen, trust=agent.trust)
    elif isinstance(agent, str | Path):
        ready = load_sb3(agent, env, device, normalize=normalize)
    else:
        check_finite(agent)
        ready = _normalized(agent, env, normalize)
    return ready, (*notes_of(ready), *setting_notes(ready, env, argument))


def _normalized(agent: Any, env: EnvironmentLike, normalize: str | os.PathLike[str] | None) -> Any:
    stack = find_vecnormalize(env)
    if normalize is not None and normalize != NONE:
        if stack is not None:
            rule = "must be left out where the environment has a VecNormalize"
            raise InputError("normalize", rule, os.fspath(normalize), "once is enough")
        return Normalized(agent, read_vecnormalize(normalize), Path(normalize).name)
    if stack is None or not stack.norm_obs:
        return _declined(agent) if normalize == NONE else _behind_its_own(agent)
    if normalizes(agent):
        raise InputError(
            "env",
            "must not normalise where the policy does already",
            bare("a VecNormalize in its stack"),
            "drop one of the two: observations are normalised once",
        )
    return _in_a_stack(agent, Statistics.of(stack))


def _behind_its_own(agent: Any) -> Any:
    inner = agent
    while type(inner).__module__.startswith("offline_eval.") and not normalizes(inner) and hasattr(inner, "model"):
        inner = inner.model
    if isinstance(inner, BaseAlgorithm) and inner is not agent and as_trained(inner) is not inner:
        raise InputError(
            "model",
            "must normalise what it sees: it is made of a model that was trained behind a VecNormalize",
            bare(type(agent).__name__),
            "make it of Normalized(model, Statistics.of(model.get_vec_normalize_env()))",
        )
    return as_trained(agent)


def _declined(agent: Any) -> Any:
    """The same algorithm, sharing its weights, without its VecNormalize."""
    if as_trained(agent) is agent:
        return agent
    without = copy.copy(agent)
    without._vec_normalize_env = None
    add_notes(without, ['the VecNormalize of the model was declined (normalize="none")'])
    return without


def _in_a_stack(agent: Any, statistics: Statistics) -> Any:
    learns_behind = as_trained(agent)
    if learns_behind is agent or learns_behind.statistics.digest == statistics.digest:
        return agent
    noted = copy.copy(agent)
    text = "the environment's VecNormalize has other statistics than that of the model (sync_envs_normalization)"
    add_notes(noted, [text])
    return noted
