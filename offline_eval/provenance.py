"""How a result was made: versions, machine and recipe, as plain data for a manifest."""

from __future__ import annotations

import dataclasses
import platform
from importlib import metadata
from typing import Any

_PACKAGES = (
    "offline-eval",
    "gymnasium",
    "stable-baselines3",
    "sb3-contrib",
    "torch",
    "numpy",
    "scipy",
    "h5py",
    "mujoco",
)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages a number can depend on; absent ones are left out."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def recipe(choice: Any) -> Any:
    """An object and its fields as plain data: `OPEX(step_size=0.2)` becomes {"name": "OPEX", "step_size": 0.2, ...}.

    What is no dataclass (a critic, a network) is named by its type.
    """
    if choice is None or isinstance(choice, bool | int | float | str):
        return choice
    if isinstance(choice, list | tuple):
        return [recipe(item) for item in choice]
    if hasattr(choice, "tolist"):
        return choice.tolist()
    if dataclasses.is_dataclass(choice) and not isinstance(choice, type):
        fields = {f.name: recipe(getattr(choice, f.name)) for f in dataclasses.fields(choice) if f.repr}
        return {"name": type(choice).__name__, **fields}
    return type(choice).__name__
