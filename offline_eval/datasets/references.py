"""The returns that stand for 0 and 100 in a normalised score, and the time limits that belong to D4RL's names.

Source: d4rl/infos.py and the registrations of Farama-Foundation/D4RL at 89141a6 (Apache-2.0). The numbers were measured
on D4RL's own environments (gym with mujoco-py, v2 dynamics): for the data sets and environments of today they are the
same scale, used again, and not a D4RL score.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from offline_eval.datasets.records import Source


class Reference(NamedTuple):
    """Returns that stand for 0 and 100, and where they are from."""

    minimum: float
    maximum: float
    origin: str


RETURNS: dict[str, tuple[float, float]] = {
    "halfcheetah": (-280.178953, 12135.0),
    "hopper": (-20.272305, 3234.3),
    "walker2d": (1.629008, 4592.3),
    "ant": (-325.6, 3879.7),
    "antmaze": (0.0, 1.0),
    "pen": (96.262799, 3076.8331017826877),
    "hammer": (-274.856578, 12794.134825156867),
    "door": (-56.512833, 2880.5693087298737),
    "relocate": (-6.425911, 4233.877797728884),
    "kitchen": (0.0, 4.0),
    "maze2d-umaze": (23.85, 161.86),
    "maze2d-medium": (13.13, 277.39),
    "maze2d-large": (6.7, 273.99),
    "maze2d-umaze-dense": (68.537689, 193.66285641),
    "maze2d-medium-dense": (44.264742, 297.45525478),
    "maze2d-large-dense": (30.569041, 303.48573827),
    "maze2d-open": (0.01, 20.66),
    "flow-ring": (-165.22, 24.42),
    "flow-merge": (118.67993, 330.03179),
    "minigrid-fourrooms": (0.01442, 2.89685),
    "carla-lane": (-0.85038399, 1023.57843854),
    "carla-town": (-114.81579501, 2440.17720222),
}
"""By the beginning of a D4RL name; the longest that fits counts."""

_SAME_TASK = {
    "adroithandpen": "pen",
    "adroithandhammer": "hammer",
    "adroithanddoor": "door",
    "adroithandrelocate": "relocate",
    "frankakitchen": "kitchen",
}
"""Names of the same task in Gymnasium-Robotics."""

_NAMESPACES = ("d4rl", "mujoco")

_TIME_LIMITS = {
    "halfcheetah": 1000,
    "hopper": 1000,
    "walker2d": 1000,
    "ant": 1000,
    "antmaze": 1000,
    "antmaze-umaze": 700,
}
"""Only where data sets keep to them: human demonstrations of the Adroit tasks are longer than their environment."""


def reference_of(source: Source) -> Reference | None:
    """The reference returns of a data set: its file's own, else D4RL's of the same task, else None."""
    if source.reference_returns is not None:
        return Reference(*source.reference_returns, origin="the data set's own metadata")
    name = matching(source.env_id, RETURNS)
    if name is None:
        return None
    return Reference(*RETURNS[name], origin=f"D4RL's for {name}, measured on D4RL's own version of the environment")


def time_limit_of(env_id: str | None) -> int | None:
    """The time limit that belongs to a D4RL name; None where data sets do not keep to one, or the name is unknown."""
    name = matching(env_id, _TIME_LIMITS)
    return None if name is None else _TIME_LIMITS[name]


def matching(env_id: str | None, table: Mapping[str, object]) -> str | None:
    """The longest key of a table that an id, without name spaces and case, begins with as whole words."""
    # "D4RL/door/human-v2" is the task door, "mujoco/halfcheetah/expert-v0" is halfcheetah, "AntMaze_UMaze-v5" antmaze.
    words = (env_id or "").lower().replace("_", "-").split("/")
    name = "-".join(word for word in words if word not in _NAMESPACES)
    for alias, task in _SAME_TASK.items():
        name = re.sub(rf"^{alias}(?![a-z])", task, name)
    return max((key for key in table if re.match(rf"{key}(?![a-z0-9])", name)), key=len, default=None)
