"""Wrappers that end an episode before its game is over, at every lost life; what counts the game knows better.

The rule is SB3's: where a Monitor counts inside such a wrapper, an episode is over when the Monitor reports it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from offline_eval.episodes.still import layers
from offline_eval.errors import InputError


class Counter:
    """What counts the steps of a game in an environment's stack: SB3's Monitor, or gymnasium's statistics.

    Args:
        env: a single environment; None for one in another process.
    """

    def __init__(self, env: Any) -> None:
        from gymnasium.wrappers import RecordEpisodeStatistics
        from stable_baselines3.common.atari_wrappers import EpisodicLifeEnv
        from stable_baselines3.common.monitor import Monitor

        found = list(layers(env))
        counts = [layer for layer in found if isinstance(layer, Monitor | RecordEpisodeStatistics)]
        self._counts = counts[0] if counts else None
        self._lives = [layer for layer in found if isinstance(layer, EpisodicLifeEnv)]
        self._key = getattr(self._counts, "_stats_key", "episode")

    def over(self, info: Mapping[str, Any]) -> bool:
        """Whether a termination with this info ends the episode; False where only a wrapper outside says so."""
        return self._counts is None or self._key in info

    @property
    def cuts_games(self) -> bool:
        """Whether a wrapper ends an episode before the game that is counted inside it is over."""
        return self._counts is not None and bool(self._lives)

    @property
    def midway(self) -> bool:
        """Whether the game goes on: steps were counted since its true reset."""
        rewards = getattr(self._counts, "rewards", None)
        steps = getattr(self._counts, "episode_lengths", 0) if rewards is None else len(rewards)
        return bool(np.any(steps))

    def forget(self) -> None:
        """Let the next reset begin a new game, where a wrapper would otherwise go on with the one it is in."""
        for layer in self._lives:
            layer.was_real_done = True


def not_anew(env: Any) -> InputError:
    """The error of an environment whose reset goes on with the game it is in."""
    rule = "must begin anew when it is reset, but a wrapper that counts lives goes on with the game it is in"
    return InputError("env", rule, type(env).__name__, "pass a factory")
