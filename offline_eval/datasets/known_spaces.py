"""The spaces that belong to an environment's name, without anything happening that a reader of files may not cause.

A file says which environment it comes from, and often not which actions that takes. What making an environment does is
up to its author: gymnasium's MuJoCo environments write MUJOCO_LOG.TXT where they stand, others may open a window or a
connection. So only those of gymnasium that do nothing of the kind are made here; MuJoCo's and D4RL's are in tables.
"""

from __future__ import annotations

import re
import warnings
from contextlib import suppress
from typing import Any

import gymnasium
from gymnasium import Space, spaces

from offline_eval.datasets.data_spaces import fits
from offline_eval.datasets.references import matching
from offline_eval.types import Array, Observations

_MADE = tuple(f"gymnasium.envs.{part}." for part in ("classic_control", "box2d", "toy_text"))

_D4RL: dict[str, float] = dict.fromkeys(
    ("halfcheetah", "hopper", "walker2d", "ant", "antmaze", "pen", "hammer", "door", "relocate", "kitchen", "maze2d"),
    1.0,
)
"""The largest action of D4RL's tasks, by the beginning of a name."""

_MUJOCO = {
    "Ant": 1.0,
    "HalfCheetah": 1.0,
    "Hopper": 1.0,
    "Humanoid": 0.4,
    "HumanoidStandup": 0.4,
    "InvertedDoublePendulum": 1.0,
    "InvertedPendulum": 3.0,
    "Pusher": 2.0,
    "Reacher": 1.0,
    "Swimmer": 1.0,
    "Walker2d": 1.0,
}
"""The largest action of gymnasium's MuJoCo environments, of any version: the `ctrlrange` of their models."""


def known_spaces(
    env_id: str | None, observations: Observations, actions: Array
) -> tuple[Space[Any] | None, Space[Any] | None]:
    """Observation and action space of the environment that data name; None for one that is not known.

    Args:
        env_id: the name; a `module:Id` is not imported.
        observations: rows; a space that they do not fit is not theirs (a wrapper changed them) and is left out.
        actions: the same.
    """
    observation_space, action_space = _registered(env_id)
    if action_space is None and actions.dtype.kind == "f" and actions.ndim == 2:
        bound = _bound(env_id)
        action_space = None if bound is None else spaces.Box(-bound, bound, actions.shape[1:])
    return (
        observation_space if observation_space is not None and fits(observation_space, observations) else None,
        action_space if action_space is not None and fits(action_space, actions) else None,
    )


def _registered(env_id: str | None) -> tuple[Space[Any] | None, Space[Any] | None]:
    spec = gymnasium.registry.get(env_id or "")
    if spec is None or not (isinstance(spec.entry_point, str) and spec.entry_point.startswith(_MADE)):
        return None, None
    # Whatever keeps it from being made, a missing Box2D for example: then its name says nothing.
    with warnings.catch_warnings(), suppress(Exception):
        warnings.simplefilter("ignore")
        made: gymnasium.Env[Any, Any] = gymnasium.make(spec, disable_env_checker=True)
        found = made.observation_space, made.action_space
        made.close()
        return found
    return None, None


def _bound(env_id: str | None) -> float | None:
    versioned = re.fullmatch(r"(\w+)-v\d+", env_id or "")
    if versioned is not None and versioned[1] in _MUJOCO:
        return _MUJOCO[versioned[1]]
    name = matching(env_id, _D4RL)
    return None if name is None else _D4RL[name]
