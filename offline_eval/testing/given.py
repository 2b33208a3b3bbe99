"""The agent that a test is given: a file, opened when the environment is known."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offline_eval.errors import InputError, bare
from offline_eval.masking import takes_masks

if TYPE_CHECKING:
    from offline_eval.environments import EnvironmentLike
    from offline_eval.types import Array, Predictor


class GivenAgent:
    """An agent's file, and perhaps its environment: what the fixture `agent` is.

    It can act by itself (`predict`) where the environment is known; an assertion opens it for its own.

    Args:
        path: of the zip of an SB3 or sb3-contrib agent.
        env: id of its environment; None where nobody has said it yet.
        normalize: the file of the VecNormalize behind which it was trained.
        device: where it computes.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        env: str | None = None,
        *,
        normalize: str | os.PathLike[str] | None = None,
        device: str = "cpu",
    ) -> None:
        self.path, self.env, self.normalize, self.device = Path(path), env, normalize, device
        self._opened: dict[str, Predictor] = {}

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    def opened(self, env: EnvironmentLike | None = None) -> Predictor:
        """The agent in an environment, its own if left out; opened once for each id.

        Raises:
            AgentFileError: the file is missing, or is no agent.
            SpaceError: the agent was trained on other observations or actions.
            InputError: the environment is not known.
        """
        from offline_eval.policies import load_sb3

        env = self.env if env is None else env
        if env is None:
            raise InputError("env", "must be known to open the agent", bare("nothing"), "pass --offline-eval-env=ID")
        if not isinstance(env, str):
            return load_sb3(self.path, env, self.device, normalize=self.normalize)
        if env not in self._opened:
            self._opened[env] = load_sb3(self.path, env, self.device, normalize=self.normalize)
        return self._opened[env]

    @property
    def model(self) -> Any:
        """The agent in its own environment: an SB3 algorithm, or a `Normalized` around one."""
        return self.opened()

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False, **masks: Any
    ) -> tuple[Array, Any]:
        """SB3's `predict`, in the agent's own environment."""
        return self.opened().predict(observation, state, episode_start, deterministic, **masks)

    @property
    def takes_masks(self) -> bool:
        """Whether it asks which actions are allowed."""
        return takes_masks(self.opened())

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def __repr__(self) -> str:
        where = "" if self.env is None else f", {self.env!r}"
        return f"GivenAgent({os.fspath(self.path)!r}{where})"
