"""Running normalisers of gymnasium in an environment's stack: held still, or each episode would change the next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any


def layers(env: Any) -> Iterator[Any]:
    """An environment's wrappers from the outermost to the environment itself; a VecEnv's or a vector's likewise."""
    while env is not None:
        yield env
        env = vars(env).get("env", vars(env).get("venv")) if hasattr(env, "__dict__") else None


def members(vector: Any) -> list[Any]:
    """The environments of a vector that lives in this process; none of one whose environments are in others."""
    found: list[Any] = getattr(getattr(vector, "unwrapped", vector), "envs", None) or []
    return list(found)


class Still:
    """Holds the normalisers of some environments still until `release`.

    The statistics of observations stay as they were found; the rewards are those before their normaliser, because the
    policy does not see them and returns are to be the true ones.

    Attributes:
        notes: what a reader should know, once for each kind of normaliser.
    """

    def __init__(self, envs: Iterable[Any] = ()) -> None:
        self.notes: tuple[str, ...] = ()
        self._held: list[tuple[Any, Any, bool]] = []
        for env in envs:
            self.hold(env)

    def hold(self, env: Any) -> None:
        """Hold the normalisers in this environment's stack still."""
        for layer in layers(env):
            if not hasattr(type(layer), "update_running_mean"):
                continue
            statistics = getattr(layer, "return_rms", None)
            self._held.append((layer, statistics, layer.update_running_mean))
            layer.update_running_mean = False
            name = type(layer).__name__
            if statistics is not None:
                layer.return_rms = SimpleNamespace(mean=0.0, var=1.0 - layer.epsilon)  # divides by exactly 1
                note = f"the environment's {name} was held still, and returns are those before it"
            elif getattr(getattr(layer, "obs_rms", None), "count", 1.0) < 1.0:
                note = (
                    f"the environment's {name} is new and was held still: the agent sees plain observations. If it was "
                    "trained on normalised ones, give the wrapper the statistics of its training"
                )
            else:
                note = f"the environment's {name} was held still"
            self.notes = tuple(dict.fromkeys((*self.notes, note)))

    def release(self) -> None:
        """Give the normalisers back as they were."""
        for layer, statistics, running in reversed(self._held):
            layer.update_running_mean = running
            if statistics is not None:
                layer.return_rms = statistics
        self._held.clear()
