"""Signs that a critic will mislead, from a handful of episodes of the unsteered policy."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np

from offline_eval.datasets.recorder import LoggedEpisode
from offline_eval.diagnostics.traps import Traps, TrapThresholds, find_signs
from offline_eval.environments import EnvironmentLike
from offline_eval.episodes import EpisodePlan
from offline_eval.errors import InputError
from offline_eval.studies.candidates import critic_values
from offline_eval.studies.driving import MeanAction
from offline_eval.studies.labelling import label_steps, stacked
from offline_eval.studies.measurement_records import Skipped
from offline_eval.studies.truth import Advance, Brancher, check_restorable, draw_episodes
from offline_eval.types import Critic, Predictor

_STREAM = 0x72A9


def find_traps(
    model: Predictor,
    env: EnvironmentLike,
    critic: Critic,
    *,
    episodes: int = 5,
    seed: int = 0,
    step_limit: int | None = None,
    longest: int = 1000,
    thresholds: TrapThresholds | None = None,
    advance: Advance | None = None,
) -> Traps | Skipped:
    """Play the unsteered policy and hold the critic against what it earned.

    Where the environment's state can be restored, episodes that a time limit cut are rolled on past it, so that the
    returns are whole; elsewhere the last steps have no label, and where the limit comes early, none has.

    Args:
        model: the policy; its deterministic action is played.
        env: an id, a spec or a factory.
        critic: that shall steer.
        episodes: to be played.
        seed: of the first one.
        step_limit: cuts episodes.
        longest: steps to roll on past a limit, at most.
        thresholds: where a sign is raised.
        advance: told of each episode.

    Returns:
        The signs, or why there are none: the environment is a finished one, or all rewards are the same.
    """
    if episodes < 1:
        raise InputError("episodes", "must be >= 1", episodes)
    driver = MeanAction(model)
    try:
        drawn = draw_episodes(driver, env, EpisodePlan.seeded(episodes, seed), advance, step_limit=step_limit)
        played = [part.episode for part in drawn]
        with ExitStack() as stack:
            brancher = _restorable(stack, env, played)
            steps = label_steps(critic, driver, played, brancher, longest=longest)
    except InputError as error:
        return Skipped(str(error))
    actions = np.concatenate([episode.actions for episode in played])
    return find_signs(
        critic_values(critic, stacked(played).observations, actions),
        steps.labels.values,
        steps.labels.episodes,
        np.random.default_rng([_STREAM, seed]),
        thresholds or TrapThresholds(),
    )


def _restorable(stack: ExitStack, env: EnvironmentLike, episodes: Sequence[LoggedEpisode]) -> Brancher | None:
    brancher = stack.enter_context(Brancher(env, episodes))
    try:
        check_restorable(brancher)
    except InputError:
        return None
    return brancher
