"""Signs that a critic will mislead, from a handful of episodes of the unsteered policy."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np

from offline_eval.diagnostics.traps import Traps, TrapThresholds, find_signs
from offline_eval.environments import EnvironmentLike
from offline_eval.episodes import EpisodePlan
from offline_eval.errors import InputError
from offline_eval.measurement.actors import MeanAction
from offline_eval.measurement.candidates import critic_values
from offline_eval.measurement.critic import BIAS_STREAM, CriticMeasurement
from offline_eval.measurement.monte_carlo_returns import LabelledSteps, stacked
from offline_eval.measurement.plan import MeasurementPlan, Silent, Watcher
from offline_eval.measurement.records import Skipped, attempt
from offline_eval.measurement.rollouts import draw_episodes
from offline_eval.policies import opened
from offline_eval.types import Critic, Predictor


def find_traps(
    model: Predictor,
    env: EnvironmentLike,
    critic: Critic,
    *,
    episodes: int = 5,
    seed: int = 0,
    step_limit: int | None = None,
    longest: int = 5000,
    thresholds: TrapThresholds | None = None,
    watcher: Watcher | None = None,
) -> Traps | Skipped:
    """Play the policy and hold the critic against what it earned, as `measure` does: the bias is the same number.

    A soft critic (SAC, TQC) counts entropy bonuses: it is held against the policy's draws, bonuses included. Any other
    is held against the deterministic policy.

    Where the environment's state can be restored, episodes that a time limit cut are rolled on past it, so that the
    returns are whole; elsewhere the last steps have no label, and where the limit comes early, none has.

    Args:
        model: the policy.
        env: an id, a spec or a factory.
        critic: that shall steer.
        episodes: to be played.
        seed: of the first one.
        step_limit: cuts episodes.
        longest: steps to roll on past a limit, at most.
        thresholds: where a sign is raised.
        watcher: told of the progress.

    Returns:
        The signs, or why there are none: the environment is a finished one, or all rewards are the same.
    """
    if episodes < 1:
        raise InputError("episodes", "must be >= 1", episodes)
    plan = MeasurementPlan(episodes=episodes, seed=seed, step_limit=step_limit, longest=longest)
    measuring = CriticMeasurement(opened(model, env)[0], env, critic, plan, watcher or Silent())
    with ExitStack() as stack:
        found = measuring.soft_steps(stack)
        steps = attempt(lambda: _plain(measuring, stack)) if found is None else found[0]
    if isinstance(steps, Skipped):
        return steps
    actions = np.concatenate([episode.actions for episode in steps.episodes])
    return find_signs(
        critic_values(critic, stacked(steps.episodes).observations, actions),
        steps.labels.values,
        steps.labels.episodes,
        np.random.default_rng([seed, BIAS_STREAM]),
        thresholds or TrapThresholds(),
        target=steps.record.target,
    )


def _plain(measuring: CriticMeasurement, stack: ExitStack) -> LabelledSteps | Skipped:
    """Steps of the deterministic policy."""
    plan, driver = measuring.plan, MeanAction(measuring.model)
    episodes = EpisodePlan.seeded(plan.episodes, plan.seed)
    advance = measuring.watcher.begin("episodes", len(episodes))
    drawn = draw_episodes(driver, measuring.env, episodes, advance, step_limit=plan.step_limit)
    played = [part.episode for part in drawn]
    brancher = attempt(lambda: stack.enter_context(measuring.brancher(played)))
    return measuring.plain(played, brancher)
