"""The setting of an agent: the spaces of an environment, held against those that the agent was trained with."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch as th
from gymnasium import Space, spaces
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.vec_env import VecTransposeImage

from offline_eval.environments import EnvironmentLike, environment_factory, environment_id
from offline_eval.errors import InputError
from offline_eval.policies.agent_file import AgentFile
from offline_eval.policies.printed_space import as_printed, printed_outline
from offline_eval.policies.saving import ASSUMED_ACTION_SPACE, is_offline_algorithm, read_algorithm
from offline_eval.space_agreement import Outline, What, check_agreement

_WHATS: tuple[What, What] = ("observation", "action")


def spaces_of(env: EnvironmentLike) -> tuple[Space[Any], Space[Any]]:
    """Observation and action space of one environment.

    Args:
        env: an id, a spec or a factory (an environment is made and closed again), an Env, VectorEnv or VecEnv, or any
            object with the two spaces.
    """
    for prefix in ("single_", ""):
        observation_space = getattr(env, f"{prefix}observation_space", None)
        action_space = getattr(env, f"{prefix}action_space", None)
        # What a class declares, its constructor may change.
        if isinstance(observation_space, Space) and isinstance(action_space, Space) and not isinstance(env, type):
            return observation_space, action_space
    with quiet():
        factory = environment_factory(env)
        if factory is None:
            raise InputError("env", "must have an `observation_space` and an `action_space`", type(env).__name__)
        made = factory()
        try:
            return spaces_of(made)
        finally:
            made.close()


def spaces_as_trained(
    file: AgentFile, env: EnvironmentLike, observation_space: Space[Any], action_space: Space[Any]
) -> tuple[Space[Any], Space[Any]]:
    """The two spaces of an environment as the agent of a file knew them.

    Images have their channels in front, keys stand in the file's order, and where an environment of another version has
    other bounds they are the file's.

    Raises:
        SpaceError: the agent was trained on other observations or actions.
        AgentFileError: it does not say in which order it puts its observations together.
    """
    is_ours = is_offline_algorithm(file.path)
    found = []
    for what, space in zip(_WHATS, (channels_first(observation_space), action_space), strict=True):
        outline = printed_outline(file, what)
        if outline is not None:
            known = outline.without_what_was_inferred if is_ours and what == "observation" else outline
            way_out = ASSUMED_ACTION_SPACE if is_ours and what == "action" and _assumed(file) else ""
            check_agreement(what, known, Outline.of(space), environment_id(env), way_out)
        found.append(as_printed(outline, space))
    return found[0], found[1]


def setting_notes(model: Any, env: EnvironmentLike, argument: str = "env") -> tuple[str, ...]:
    """What a reader should know of an agent at hand in an environment.

    Args:
        model: anything with `predict`; what does not say its spaces agrees with every environment.
        env: where it is to act.
        argument: what a refusal names.

    Raises:
        SpaceError: the agent was trained on other observations or actions.
    """
    own = [getattr(model, f"{what}_space", None) for what in _WHATS]
    if not any(isinstance(space, Space) for space in own):
        return ()
    from offline_eval.policies.algorithm import OfflineAlgorithm

    inner = getattr(model, "model", model)
    is_ours = isinstance(inner, OfflineAlgorithm)
    way_out = ASSUMED_ACTION_SPACE if is_ours and inner.assumed_action_space else ""
    notes: list[str] = []
    for what, mine, theirs in zip(_WHATS, own, spaces_of(env), strict=True):
        if not isinstance(mine, Space):
            continue
        outline = Outline.of(channels_first(mine))
        if is_ours and what == "observation":
            outline = outline.without_what_was_inferred
        notes += check_agreement(
            what, outline, Outline.of(channels_first(theirs)), environment_id(env), way_out, argument
        )
    return tuple(notes)


def channels_first(space: Space[Any]) -> Space[Any]:
    """The space as SB3's policies see it: images have their channels in front. `predict` turns observations."""
    if isinstance(space, spaces.Dict):
        # gymnasium sorts the keys of a plain dict.
        return spaces.Dict(OrderedDict((key, channels_first(part)) for key, part in space.spaces.items()))
    if isinstance(space, spaces.Box) and is_image_space(space) and not is_image_space_channels_first(space):
        return VecTransposeImage.transpose_space(space)
    return space


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings that concern training: old ids, PPO on a GPU, the age of the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _assumed(file: AgentFile) -> bool:
    """Whether the bounds in the file are a guess: of an OfflineAlgorithm whose data did not say them."""
    return bool(read_algorithm(file.path, th.device("cpu")).words.get("assumed_action_space"))
