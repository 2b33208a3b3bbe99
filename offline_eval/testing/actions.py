"""Assertions about what the policy does where it goes: as an oracle would, and where the data have been."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from gymnasium import spaces

from offline_eval.datasets.opening import open_dataset
from offline_eval.datasets.recorder import LoggedEpisode
from offline_eval.datasets.trajectories import Dataset
from offline_eval.diagnostics.coverage import States, Support
from offline_eval.environments import EnvironmentLike
from offline_eval.episodes import EpisodePlan
from offline_eval.errors import InputError, bare
from offline_eval.measurement.actors import mean_actions
from offline_eval.measurement.candidates import states_of
from offline_eval.measurement.monte_carlo_returns import stacked
from offline_eval.measurement.state_sets import comparable_actions
from offline_eval.policies import spaces_of
from offline_eval.stats.decisions import Bounds
from offline_eval.testing import questions
from offline_eval.testing.deciding import IfUndecided, conclude
from offline_eval.testing.outcome import Outcome
from offline_eval.testing.session import current
from offline_eval.testing.sources import EpisodeSource
from offline_eval.testing.subjects import AgentLike, Subject, allowed, command, environment_for, logged, opened
from offline_eval.types import FloatArray

_VALIDATION_FRACTION, _SEED = 0.2, 0


def assert_evaluation_mse(
    agent: AgentLike,
    at_most: float,
    *,
    env: EnvironmentLike | None = None,
    oracle: AgentLike,
    bounds: Bounds | None = None,
    plan: EpisodePlan | int | None = None,
    alpha: float = 0.01,
    undecided: IfUndecided = "fail",
    source: EpisodeSource | None = None,
) -> Outcome:
    """Assert that the policy acts much as an oracle would at the states that the policy itself visits.

    An episode's number is the mean over its steps of the mean squared difference of the actions, in the scaled space
    ([-1, 1] a dimension; a discrete action as a one-hot row), so that episodes count alike and not steps.

    Assumes: episodes with different seeds are independent. With `bounds` exact (`BoundedMean`); without them
    asymptotic, from 104 episodes on with alpha = 0.01 (`AsymptoticMean`).

    Args:
        agent: anything with SB3's `predict`, or the file of an SB3 agent.
        at_most: >= 0.
        env: an id or a factory; `--offline-eval-env` if left out.
        oracle: whose actions are right: an agent or its file.
        bounds: least and largest error of an episode. (0, 4) holds for every action in a box and (0, 1) for discrete
            ones, but bounds far above the threshold ask for many episodes: a small error may hide a rare large one.
        plan: the episodes that may be played, or their number.
        alpha: chance to fail although the property holds; also the chance to pass although it does not.
        undecided: "fail", "skip" (`unittest.SkipTest`) or "warn", where the plan is spent before it is decided.
        source: where episodes come from; the session's if left out.

    Raises:
        Violated: the error is shown to lie above.
        Undecided: neither was shown.
        InputError: an argument breaks a rule.
        SpaceError: the oracle is of other spaces.
    """
    place = environment_for(agent, env)
    subject, teacher, whole = opened(agent, place), opened(oracle, place, "oracle"), allowed(plan)
    space = spaces_of(place)[1]
    question = questions.evaluation_mse(at_most, bounds, alpha)

    def of_episode(episode: LoggedEpisode) -> float:
        seen = stacked([episode]).observations
        own, right = (comparable_actions(space, mean_actions(one.policy, seen)) for one in (subject, teacher))
        return float(np.square(own - right).mean())

    def show(number: int) -> str:
        oracle_word = "" if teacher.path is None else f" --oracle {teacher.shell}"
        return command("measure", [subject], place, whole, number) + oracle_word

    def measure(part: EpisodePlan) -> FloatArray:
        return _by_episode(of_episode, subject, place, part, source)

    notes = [f"the oracle is {teacher.name}", *(f"the oracle: {note}" for note in teacher.notes)]
    return conclude("assert_evaluation_mse", subject, place, question, whole, measure, undecided, show, notes=notes)


def assert_covers(
    agent: AgentLike,
    at_least: float = 0.9,
    *,
    env: EnvironmentLike | None = None,
    dataset: Dataset | str | Path,
    plan: EpisodePlan | int | None = None,
    alpha: float = 0.01,
    undecided: IfUndecided = "fail",
    source: EpisodeSource | None = None,
) -> Outcome:
    """Assert that a data set covers the states that the policy visits.

    A state is covered where it lies as near to the training part of the data as 99 % of the held-out part do
    (`offline_eval.diagnostics.coverage.Support`); the policy that made the data would reach .99. An episode's number is
    the share of its states that are, so that episodes count alike and not steps.

    Assumes: episodes with different seeds are independent. Exact, since a share lies in [0, 1] (`BoundedMean`).

    Args:
        agent: anything with SB3's `predict`, or the file of an SB3 agent.
        at_least: share of the states, in [0, 1].
        env: an id or a factory; `--offline-eval-env` if left out.
        dataset: a `Dataset`, a file or a folder.
        plan: the episodes that may be played, or their number.
        alpha: chance to fail although the property holds; also the chance to pass although it does not.
        undecided: "fail", "skip" (`unittest.SkipTest`) or "warn", where the plan is spent before it is decided.
        source: where episodes come from; the session's if left out.

    Raises:
        Violated: the share is shown to lie below.
        Undecided: neither was shown.
        InputError: an argument breaks a rule, or the observations have no distance.
        DatasetError: the data cannot be opened.
    """
    place = environment_for(agent, env)
    question = questions.covers(at_least, alpha)
    subject, whole = opened(agent, place), allowed(plan)
    support = _support(dataset, place)

    def of_episode(episode: LoggedEpisode) -> float:
        return 1.0 - float(support.outside(stacked([episode]).observations).mean())

    def show(number: int) -> str:
        word = "" if isinstance(dataset, Dataset) else f" --dataset {dataset}"
        return command("measure", [subject], place, whole, number) + word

    def measure(part: EpisodePlan) -> FloatArray:
        return _by_episode(of_episode, subject, place, part, source)

    return conclude("assert_covers", subject, place, question, whole, measure, undecided, show)


def _by_episode(
    of_episode: Callable[[LoggedEpisode], float],
    subject: Subject,
    env: EnvironmentLike,
    part: EpisodePlan,
    source: EpisodeSource | None,
) -> FloatArray:
    """A number an episode (num_episodes, 1)."""
    episodes = logged(source or current().source, subject.policy, env, part)
    return np.array([[of_episode(episode)] for episode in episodes])


def _support(dataset: Dataset | str | Path, env: EnvironmentLike) -> Support:
    observation_space, action_space = spaces_of(env)
    if isinstance(observation_space, spaces.Dict):
        raise InputError("env", "must have flat observations for a distance", bare("a dict"), "flatten them")
    if isinstance(dataset, Dataset):
        dataset = dataset.for_spaces(observation_space, action_space)
    else:
        dataset = open_dataset(dataset, observation_space=observation_space, action_space=action_space)
    train, validation = (states_of(part) for part in dataset.split(_VALIDATION_FRACTION, _SEED))
    held_out = States(np.asarray(validation.observations), validation.trajectories, validation.steps)
    return Support(train.observations, held_out, np.random.default_rng(_SEED))
