"""Assertions about a critic: does it order what the policy meets, and does it say the right amount?"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from typing import Any

import numpy as np

from offline_eval.diagnostics.kendall import window_kendall_tau
from offline_eval.environments import EnvironmentLike
from offline_eval.episodes import EpisodePlan
from offline_eval.errors import InputError
from offline_eval.measurement.actors import MeanAction, soft_draws
from offline_eval.measurement.monte_carlo_returns import LabelledSteps, label_steps
from offline_eval.measurement.rollouts import Brancher, check_restorable, draw_episodes
from offline_eval.policies import critic_of
from offline_eval.policies import opened as opened_agent
from offline_eval.policies.opening import is_file
from offline_eval.stats.decisions import Question
from offline_eval.stats.sequential import ratio_interval
from offline_eval.testing import questions
from offline_eval.testing.deciding import IfUndecided, conclude
from offline_eval.testing.outcome import Outcome, Row
from offline_eval.testing.session import current
from offline_eval.testing.sources import EpisodeSource
from offline_eval.testing.subjects import AgentLike, Subject, allowed, command, environment_for, logged, opened
from offline_eval.types import Array, Critic, FloatArray

_NOTHING = float("nan")


def assert_kendall_tau(
    agent: AgentLike,
    at_least: float,
    *,
    env: EnvironmentLike | None = None,
    critic: Any = None,
    window: int = 10,
    plan: EpisodePlan | int | None = None,
    alpha: float = 0.01,
    undecided: IfUndecided = "fail",
    source: EpisodeSource | None = None,
) -> Outcome:
    """Assert that the critic orders neighbouring states of an episode as their true returns do.

    An episode's number is the mean of Kendall's tau over its windows, so that episodes count alike and not steps. Read
    it beside the note: a critic that only counts the steps down has a tau too.

    Assumes: episodes with different seeds are independent. Exact, since tau lies in [-1, 1] (`BoundedMean`).

    Args:
        agent: anything with SB3's `predict`, or the file of an SB3 agent.
        at_least: in [-1, 1].
        env: an id or a factory; where its states can be restored, labels go on past time limits.
        critic: a `Critic`, an agent or its file; the agent's own if left out.
        window: neighbouring steps that are ordered.
        plan: the episodes that may be played, or their number.
        alpha: chance to fail although the property holds; also the chance to pass although it does not.
        undecided: "fail", "skip" (`unittest.SkipTest`) or "warn", where the plan is spent before it is decided.
        source: where episodes come from; the session's if left out. A soft critic's draws are always played afresh.

    Raises:
        Violated: the mean tau is shown to lie below.
        Undecided: neither was shown.
        InputError: an argument breaks a rule, or nothing can be labelled.
        CriticError: there is no critic.
    """
    place = environment_for(agent, env)
    question = questions.kendall_tau(at_least, alpha)
    if window < 2:
        raise InputError("window", "must be at least 2", window)
    subject, whole = opened(agent, place), allowed(plan)
    labels = _Labels(subject, place, critic, source)
    clocks: list[float] = []

    def of_episode(q: Array, truth: Array) -> list[float]:
        clocks.append(_mean_tau(-np.arange(len(q)), truth, window))
        return [_mean_tau(q, truth, window)]

    def show(number: int) -> str:
        return command("measure", [subject], place, whole, number) + labels.word

    def rows(question: Question, columns: FloatArray) -> tuple[Row, ...]:
        (claim,) = question.claims
        values = claim.values(columns)
        clock = f" (a critic that counts the steps down: {np.nanmean(clocks):.3g})"
        interval = question.sequence(claim).interval(values)
        return (Row(claim.label + clock, float(values.mean()), interval, str(claim.side)),)

    def measure(part: EpisodePlan) -> FloatArray:
        return labels.columns(part, of_episode)

    return conclude("assert_kendall_tau", subject, place, question, whole, measure, undecided, show, rows)


def assert_q_bias(
    agent: AgentLike,
    within: float | tuple[float, float],
    *,
    env: EnvironmentLike | None = None,
    critic: Any = None,
    plan: EpisodePlan | int | None = None,
    alpha: float = 0.01,
    undecided: IfUndecided = "fail",
    source: EpisodeSource | None = None,
) -> Outcome:
    """Assert that the critic's normalised bias, mean(q - truth) / mean(|truth|), is small.

    Means are taken over an episode's steps, then over episodes, so that episodes count alike and not steps.

    Assumes: episodes with different seeds are independent. Asymptotic, from 117 episodes on with alpha = 0.01
    (`AsymptoticMean`, alpha / 2 for either side): what a critic may say has no bounds.

    Args:
        agent: anything with SB3's `predict`, or the file of an SB3 agent.
        within: 0.2 allows -0.2 to 0.2; a pair sets both ends.
        env: an id or a factory; where its states can be restored, labels go on past time limits.
        critic: a `Critic`, an agent or its file; the agent's own if left out.
        plan: the episodes that may be played, or their number.
        alpha: chance to fail although the property holds; also the chance to pass although it does not.
        undecided: "fail", "skip" (`unittest.SkipTest`) or "warn", where the plan is spent before it is decided.
        source: where episodes come from; the session's if left out. A soft critic's draws are always played afresh.

    Raises:
        Violated: the bias is shown to lie outside.
        Undecided: neither was shown.
        InputError: an argument breaks a rule, or nothing can be labelled.
        CriticError: there is no critic.
    """
    place = environment_for(agent, env)
    question = questions.q_bias(within, alpha)
    subject, whole = opened(agent, place), allowed(plan)
    labels = _Labels(subject, place, critic, source)

    def of_episode(q: Array, truth: Array) -> list[float]:
        known = np.isfinite(truth)
        if not known.any():
            return [_NOTHING, _NOTHING]
        return [float(np.mean(q[known] - truth[known])), float(np.mean(np.abs(truth[known])))]

    def show(number: int) -> str:
        return command("measure", [subject], place, whole, number) + labels.word

    def rows(question: Question, columns: FloatArray) -> tuple[Row, ...]:
        low, high = (-claim.weights[1] for claim in question.claims)
        if not columns[:, 1].any():
            raise InputError("place", "must pay something: every true return is 0, and the bias has no scale", 0.0)
        value = float(columns[:, 0].sum() / columns[:, 1].sum())
        interval = ratio_interval(question.sequence(question.claims[0]), columns[:, 0], columns[:, 1])
        return (Row(question.claims[0].label, value, interval, f"within [{low:g}, {high:g}]"),)

    def measure(part: EpisodePlan) -> FloatArray:
        return labels.columns(part, of_episode)

    way_out = "their spread is unknown, and a bias has no bounds; ask of starts or seeds that differ"
    return conclude("assert_q_bias", subject, place, question, whole, measure, undecided, show, rows, way_out=way_out)


class _Labels:
    """A critic's values beside the true ones, episode by episode."""

    def __init__(self, subject: Subject, env: EnvironmentLike, critic: Any, source: EpisodeSource | None) -> None:
        self.word = ""
        if is_file(critic):
            self.word = f" --critic {shlex.quote(os.fspath(critic))}"
        critic, _ = opened_agent(critic, env, argument="critic")
        self.policy, self.env, self.source = subject.policy, env, source or current().source
        self.critic: Critic = critic_of(subject.policy if critic is None else critic)

    def columns(self, part: EpisodePlan, of_episode: Callable[[Array, Array], list[float]]) -> FloatArray:
        """What `of_episode` makes of q and truth (num_steps,), truth NaN where there is no label; a row an episode."""
        steps = self._steps(part)
        if not np.isfinite(steps.q).all():
            raise InputError("critic", "must give finite values where the policy goes", float("nan"))
        truth = np.where(steps.labels.labelled, steps.labels.values, _NOTHING)
        parts = [steps.labels.episodes == number for number in range(len(part))]
        return np.array([of_episode(steps.q[inside], truth[inside]) for inside in parts])

    def _steps(self, part: EpisodePlan) -> LabelledSteps:
        """As `offline_eval.measure` labels them: what the critic estimates, past time limits where it can."""
        draws = soft_draws(self.policy) if self.critic.soft else None
        if draws is None:
            episodes = logged(self.source, self.policy, self.env, part)
            with Brancher(self.env, episodes) as brancher:
                return label_steps(self.critic, MeanAction(self.policy), episodes, _usable(brancher))
        drawn = draw_episodes(draws, self.env, part)
        with Brancher(self.env, [one.episode for one in drawn]) as brancher:
            return label_steps(
                self.critic, draws, brancher.episodes, _usable(brancher), bonuses=[one.bonuses for one in drawn]
            )


def _usable(brancher: Brancher) -> Brancher | None:
    """None where states cannot be restored: then steps near a time limit have no label."""
    try:
        check_restorable(brancher)
    except InputError:
        return None
    return brancher


def _mean_tau(q: Array, truth: Array, window: int) -> float:
    """Mean over the windows in which tau is defined; NaN where there is none."""
    if len(q) < window:
        return _NOTHING
    taus = window_kendall_tau(q, truth, window)
    known = np.isfinite(taus)
    return float(taus[known].mean()) if known.any() else _NOTHING
