"""Another future for copies of a state: what a copy must not know of the one that will be played.

Where the state holds what the noise of later steps comes from, the environment's `with_future` puts something else
there. An environment that has none may still hold such a thing: a number that stays the same throughout an episode, is
another one in every episode, and is not to be seen. No critic can know it, be it a key to the noise or a mass that was
drawn, so a copy gets that of another episode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from offline_eval.datasets.recorder import LoggedEpisode
from offline_eval.types import Array


class Futures:
    """Puts other futures into states.

    Args:
        episodes: logged with simulator states.
    """

    def __init__(self, episodes: Sequence[LoggedEpisode]) -> None:
        self._hidden = hidden_constants(episodes)

    def __call__(self, env: Any, states: Mapping[str, Array], seeds: Array) -> dict[str, Array]:
        """States (every part with a leading axis n) with other futures, the same for equal seeds (n,)."""
        change = getattr(env.unwrapped, "with_future", None)
        if callable(change):
            return named(change(given(env, states), seeds))
        changed = dict(states)
        for name, (places, values) in self._hidden.items():
            part = np.array(states[name], dtype=np.float64)
            part.reshape(len(part), -1)[:, places] = values[np.asarray(seeds) % len(values)]
            changed[name] = part
        return changed


def hidden_constants(episodes: Sequence[LoggedEpisode]) -> dict[str, tuple[Array, Array]]:
    """Numbers of the state that stay the same in every episode, differ between episodes, and cannot be seen.

    Where an observation has such a number, a goal for instance, all of them count as seen.

    Returns:
        By the part's name, their places in it and the episodes' values (num_episodes, num_places).
    """
    known = [episode for episode in episodes if episode.states]
    if len(known) < 2 or any(isinstance(episode.observations, dict) for episode in known):
        return {}
    if len(_constants([np.asarray(episode.observations) for episode in known])[0]):
        return {}
    found = {name: _constants([np.asarray(episode.states[name]) for episode in known]) for name in known[0].states}
    return {name: (places, values) for name, (places, values) in found.items() if len(places)}


def _constants(rows: Sequence[Array]) -> tuple[Array, Array]:
    """Places of numbers that are constant in each (num_steps, ...) and differ between them, and what they are there."""
    flat = [part.reshape(len(part), -1) for part in rows]
    constant = np.all([(part == part[0]).all(axis=0) for part in flat], axis=0)
    first = np.stack([part[0] for part in flat])
    places = np.flatnonzero(constant & (first != first[0]).any(axis=0))
    return places, first[:, places].astype(np.float64)


def given(env: Any, states: Mapping[str, Array]) -> Any:
    """States as the environment itself gives them: a mapping, or a bare array."""
    return dict(states) if isinstance(env.unwrapped.get_state(), Mapping) else states["state"]


def named(states: Any) -> dict[str, Array]:
    """Every part of what an environment gave by name."""
    parts = states if isinstance(states, Mapping) else {"state": states}
    return {name: np.asarray(part, dtype=np.float64) for name, part in parts.items()}
