"""From a Stable-Baselines3 ReplayBuffer in memory to trajectories."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import Space, spaces

from offline_eval.datasets.arrays import from_rows
from offline_eval.datasets.records import Source
from offline_eval.datasets.rows import Rows, as_flags
from offline_eval.datasets.store import map_named
from offline_eval.datasets.trajectories import Dataset
from offline_eval.errors import DatasetError, InputError, bare
from offline_eval.spaces import ActionScale
from offline_eval.types import Array, Observations

_ALIKE = (
    "the buffer was made with handle_timeout_termination=False: ends by a time limit cannot be told from terminal "
    "states, and count as such"
)


def from_replay_buffer(
    buffer: Any, *, scaled: bool = True, env_id: str | None = None, transitions: bool = False
) -> Dataset:
    """A data set from what a ReplayBuffer or DictReplayBuffer holds, in the order in which it was played.

    Each environment's column is read from its oldest step on. An episode ends where `dones` or `timeouts` say so, and
    where a full buffer or the end of the recording cut it. Rewards and observations are as the buffer has them: not
    normalised, since SB3 keeps them so.

    Args:
        buffer: of any off-policy algorithm: `model.replay_buffer`.
        scaled: whether Box actions lie in [-1, 1], as SB3's algorithms store them; False for a buffer that was filled
            by hand with the environment's own actions.
        env_id: for reference returns and for messages.
        transitions: read every row as a transition of its own; for a buffer that was filled out of order.

    Raises:
        InputError: not a ReplayBuffer.
        DatasetError: an empty one, or NaN in it.
    """
    wanted = (
        "observations",
        "actions",
        "rewards",
        "dones",
        "timeouts",
        "pos",
        "full",
        "observation_space",
        "action_space",
    )
    missing = [name for name in wanted if not hasattr(buffer, name)]
    if missing:
        rule = "must be a ReplayBuffer of Stable-Baselines3 or have its attributes"
        way_out = "a RolloutBuffer has no next observations: record with `offline-eval collect`, or give its arrays to "
        received = bare(f"a {type(buffer).__name__} without {', '.join(missing)}")
        raise InputError("buffer", rule, received, f"{way_out}`from_arrays`")
    saves_memory = getattr(buffer, "optimize_memory_usage", False)
    size = len(buffer.rewards) if buffer.full else buffer.pos
    order = (np.arange(size) + (buffer.pos if buffer.full else 0)) % len(buffer.rewards)
    if saves_memory and buffer.full:
        order = order[1:]  # the oldest observation has been overwritten by the newest next one
    if not len(order):
        raise DatasetError("buffer", "must hold at least one step", bare("an empty ReplayBuffer"))

    def columns(values: Array) -> Array:
        """(size, n_envs, ...) to one environment after the other, each in the order of time."""
        rows: Array = np.swapaxes(values[order], 0, 1).reshape(-1, *values.shape[2:])
        return rows

    done, timeout = (as_flags(name, columns(getattr(buffer, name))) for name in ("dones", "timeouts"))
    ended = done | timeout
    is_newest = np.zeros((buffer.rewards.shape[1], len(order)), bool)
    is_newest[:, -1] = True
    # A buffer that saves memory has overwritten the last observation of each episode with the first of the next.
    following = np.roll(buffer.observations, -1, axis=0) if saves_memory else buffer.next_observations
    space = buffer.observation_space
    rows = Rows(
        _shaped(map_named("", buffer.observations, lambda _, values: columns(values)), space),
        _actions(columns(buffer.actions), buffer.action_space, scaled),
        columns(buffer.rewards),
        terminals=done & ~timeout,
        timeouts=timeout | (is_newest.reshape(-1) & ~done),
        next_observations=_shaped(map_named("", following, lambda _, values: columns(values)), space),
        next_observation_known=~ended if saves_memory else None,
    )
    notes = () if getattr(buffer, "handle_timeout_termination", True) else (_ALIKE,)
    source = Source("replay buffer", env_id=env_id, notes=notes)
    return from_rows(rows, space, buffer.action_space, source, transitions=transitions).check_finite()


def _shaped(observations: Observations, space: Space[Any]) -> Observations:
    """Rows in the shape of the space: SB3 keeps a Discrete observation as (1,)."""
    if isinstance(observations, dict):
        parts = space.spaces if isinstance(space, spaces.Dict) else {}
        return {key: rows.reshape(len(rows), *(parts[key].shape or ())) for key, rows in observations.items()}
    return observations.reshape(len(observations), *(space.shape or ()))


def _actions(actions: Array, space: Space[Any], scaled: bool) -> Array:
    shaped = actions.reshape(len(actions), *(space.shape or ()))
    if scaled and isinstance(space, spaces.Box):
        return ActionScale(space).unscale(shaped)
    return shaped
