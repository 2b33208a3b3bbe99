"""The steps of on-policy episodes with the critic's values and the true ones beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from offline_eval.datasets.recorder import LoggedEpisode
from offline_eval.diagnostics.clustered import Estimate, mean_estimate
from offline_eval.diagnostics.kendall import row_taus
from offline_eval.diagnostics.q_bias import ValueSample
from offline_eval.diagnostics.q_rank import WindowRank, window_rank
from offline_eval.diagnostics.regret import minimum
from offline_eval.diagnostics.returns import Drop, Extend, ReturnLabels, TailRule, discounted_returns, horizon
from offline_eval.errors import InputError, bare
from offline_eval.measurement.actors import Driver
from offline_eval.measurement.candidates import StateSample, critic_values
from offline_eval.measurement.records import Labels, Skipped
from offline_eval.measurement.rollouts import Advance, Branch, Brancher, continue_past_limit, episode_rewards
from offline_eval.stats import Interval
from offline_eval.types import Array, Critic, Observations

_CEILING_STREAM = 2


@dataclass(frozen=True, eq=False)
class LabelledSteps:
    """Steps in the order of their episodes.

    Attributes:
        episodes: where they are from.
        q: (num_steps,) the critic at the executed actions, reduced over its ensemble.
        labels: the true values.
        record: how the labels were had.
        driver: who acted.
        soft: whether the labels hold entropy bonuses.
    """

    episodes: Sequence[LoggedEpisode]
    q: Array
    labels: ReturnLabels
    record: Labels
    driver: Driver
    soft: bool

    @property
    def sample(self) -> ValueSample:
        """The labelled steps."""
        labelled = self.labels.labelled
        return ValueSample(self.q[labelled], self.labels.values[labelled], self.labels.episodes[labelled])

    def rank(self, generator: np.random.Generator, window: int) -> WindowRank:
        """Tau over windows."""
        return window_rank(self.q, self.labels.values, self.labels.episodes, generator, window=window)


def stacked(episodes: Sequence[LoggedEpisode]) -> StateSample:
    """The states in which the episodes' actions were taken."""
    observations = [_without_last(episode) for episode in episodes]
    lengths = [len(episode) for episode in episodes]
    joined: Observations = (
        {key: np.concatenate([part[key] for part in observations]) for key in observations[0]}
        if isinstance(observations[0], dict)
        else np.concatenate(observations)
    )
    steps = np.concatenate([np.arange(length) for length in lengths])
    return StateSample(joined, np.repeat(np.arange(len(episodes)), lengths), steps)


def label_steps(
    critic: Critic,
    driver: Driver,
    episodes: Sequence[LoggedEpisode],
    brancher: Brancher | None,
    *,
    bonuses: Sequence[Array] | None = None,
    tolerance: float = 0.01,
    longest: int = 5000,
    advance: Advance | None = None,
) -> LabelledSteps:
    """Label the steps of episodes that the driver played.

    Args:
        critic: to be compared with the labels.
        driver: goes on where a time limit cut.
        episodes: on-policy.
        brancher: of these episodes; None where states cannot be restored: then the rule is `Drop` and not `Extend`.
        bonuses: (num_steps,) for each episode: the labels then are those of a soft critic.
        tolerance: of the tail rule.
        longest: steps to roll on past a limit; more are not rolled, and what they would have labelled has no label.
        advance: told of each episode that was rolled on.

    Raises:
        InputError: no step can be labelled.
    """
    gamma = critic.gamma
    cut = any(not episode.terminated[-1] for episode in episodes)
    tail: TailRule = Drop(tolerance) if brancher is None else Extend(tolerance)
    rollouts = [None] * len(episodes)
    notes = []
    if brancher is not None and cut:
        wanted = tail.extra_steps(gamma)
        rollouts = continue_past_limit(brancher, driver, min(wanted, longest), advance)  # type: ignore[assignment]
        if wanted > longest:
            notes.append(f"rolled on for {longest} of the {wanted} steps that gamma {gamma} asks for")
    extras = [None] * len(episodes) if bonuses is None else bonuses
    rewards = [episode_rewards(e, r, b, gamma) for e, r, b in zip(episodes, rollouts, extras, strict=True)]
    labels = discounted_returns(rewards, gamma, tail)
    if critic.soft and bonuses is None:
        notes.append("the critic counts entropy bonuses, the labels do not")
    states = stacked(episodes)
    actions = np.concatenate([episode.actions for episode in episodes])
    record = Labels(
        target=driver.label,
        gamma=gamma,
        tail=repr(tail) if cut else "none needed: every episode terminates",
        share_labelled=labels.share_labelled,
        num_episodes=len(episodes),
        caveat="; ".join([*([labels.caveat] if labels.caveat else []), *notes]),
    )
    q = minimum(critic_values(critic, states.observations, actions))
    return LabelledSteps(episodes, q, labels, record, driver, bonuses is not None)


def window_ceiling(
    steps: LabelledSteps,
    brancher: Brancher | None,
    generator: np.random.Generator,
    *,
    window: int,
    num_windows: int,
    num_steps: int,
    tolerance: float = 0.01,
    advance: Advance | None = None,
) -> Estimate | Skipped:
    """Tau between the labels of some windows and a second set of them, with another future after the window.

    The steps of a window and what they paid stay as they were logged, since it is these that are ranked; from the last
    one's action on everything is drawn again. (Labels with a future of their own for each step are no second set of the
    same kind: those of a trajectory share one, and differ by far less noise.) What was drawn inside the window is thus
    counted as known, so that a perfect critic reaches somewhat less than this. A driver without noise in a simulator
    that repeats itself has exact labels: the ceiling is 1.
    """
    if brancher is None:
        return Skipped("each step has one label only, and states cannot be restored to roll another")
    num_episodes = len(steps.episodes)
    if steps.driver.noise_dim == 0:
        return Estimate(1.0, Interval(1.0, 1.0, "labels without noise: restored rollouts repeat the log"), num_episodes)
    starts = _starts(steps.labels, window)
    if len(starts) == 0:
        raise InputError("window", "must fit into the labelled steps", window)
    chosen = np.sort(generator.choice(starts, min(num_windows, len(starts)), replace=False))
    labels, gamma = steps.labels, steps.labels.gamma
    last = chosen + window - 1
    branches = [
        Branch(
            episode=int(labels.episodes[row]),
            step=int(labels.steps[row]),
            seed=(_CEILING_STREAM, number),
            num_steps=min(num_steps, horizon(tolerance, gamma)),
            action=steps.episodes[labels.episodes[row]].actions[labels.steps[row]],
        )
        for number, row in enumerate(last)
    ]
    first = labels.values[chosen[:, None] + np.arange(window)]
    second = np.empty_like(first)
    second[:, -1] = [rollout.value(gamma, steps.soft) for rollout in brancher.roll(steps.driver, branches, advance)]
    for place in range(window - 2, -1, -1):
        paid = first[:, place] - gamma * first[:, place + 1]
        second[:, place] = paid + gamma * second[:, place + 1]
    taus = row_taus(first, second)
    defined = np.isfinite(taus)
    if not defined.any():
        raise InputError("window", "must hold labels that vary", bare("constant labels in every window"))
    return mean_estimate(taus[defined], steps.labels.episodes[chosen][defined], generator)


def _starts(labels: ReturnLabels, window: int) -> Array:
    """Rows at which a window of labelled steps of one episode begins."""
    last = len(labels.values) - window + 1
    if last < 1:
        return np.zeros(0, dtype=np.int64)
    same = labels.episodes[:last] == labels.episodes[window - 1 :]
    unknown = np.concatenate([[0], np.cumsum(~labels.labelled)])
    return np.flatnonzero(same & (unknown[window:] == unknown[:-window]))


def _without_last(episode: LoggedEpisode) -> Any:
    if isinstance(episode.observations, dict):
        return {key: rows[:-1] for key, rows in episode.observations.items()}
    return episode.observations[:-1]
