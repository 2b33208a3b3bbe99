"""Back to a step of a logged episode, to branch off from there."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np

from offline_eval.batching import take
from offline_eval.datasets.recorder import LoggedEpisode
from offline_eval.errors import InputError, bare
from offline_eval.simulator import restore
from offline_eval.types import Array


def return_to(env: Any, episode: LoggedEpisode, step: int) -> Any:
    """Bring an environment to where a logged episode stood before `step`, bit for bit, and prove it.

    The environment is reset as the episode was, which brings back what a reset draws (a goal, a door's place), put
    into the state one step earlier, and takes that step: so what a running episode carries along beside its state,
    contact forces and lagging positions among it, is there as well, and time limits count on from `step`.

    Args:
        env: an environment like the episode's, without steering.
        episode: with its simulator's states; the first step of a seeded one needs none.
        step: from 0 to the number of steps.

    Returns:
        The observation before `step`, equal to the logged one.

    Raises:
        InputError: the step is not in the episode, the states are missing, or the environment shows another
            observation than the log: it is another environment, or steps with random numbers.
    """
    if not 0 <= step <= len(episode):
        raise InputError("step", f"must be from 0 to {len(episode)}, the length of the episode", step)
    options = None if episode.options is None else deepcopy(dict(episode.options))
    observation, _ = env.reset(seed=episode.seed, options=options)
    logged = _row(episode.observations, step)
    if step == 0 and episode.seed is None:
        restore(env, episode.state(0))
        return logged
    if step > 0:
        restore(env, episode.state(step - 1), elapsed_steps=step - 1)
        observation, *_ = env.step(episode.actions[step - 1].copy())
    if not _equal(observation, logged):
        raise InputError(
            "env",
            f"must show the logged observation again at step {step}",
            bare("another one"),
            "give the environment that the log was made with; where its steps draw random numbers, there is no return",
        )
    return observation


def _row(observations: Any, step: int) -> Any:
    rows = take(observations, np.array([step]))
    return {key: value[0] for key, value in rows.items()} if isinstance(rows, dict) else rows[0]


def _equal(observation: Any, logged: Any) -> bool:
    if isinstance(logged, dict):
        return all(_equal(observation[key], value) for key, value in logged.items())
    seen: Array = np.asarray(observation)
    return np.array_equal(seen, logged, equal_nan=seen.dtype.kind == "f")
