"""Assertions about returns: high enough, not worse than a baseline's, better for being steered."""

from __future__ import annotations

import numpy as np

from offline_eval.environments import EnvironmentLike
from offline_eval.episodes import EpisodePlan
from offline_eval.errors import InputError
from offline_eval.stats.decisions import Bounds
from offline_eval.testing import questions
from offline_eval.testing.deciding import IfUndecided, conclude
from offline_eval.testing.outcome import Outcome
from offline_eval.testing.session import current
from offline_eval.testing.sources import EpisodeSource
from offline_eval.testing.subjects import AgentLike, allowed, command, environment_for, opened, refuse_failures
from offline_eval.types import FloatArray, Predictor, Rule


def assert_return_at_least(
    agent: AgentLike,
    threshold: float,
    *,
    env: EnvironmentLike | None = None,
    bounds: Bounds | None = None,
    plan: EpisodePlan | int | None = None,
    alpha: float = 0.01,
    undecided: IfUndecided = "fail",
    source: EpisodeSource | None = None,
) -> Outcome:
    """Assert that the mean return is at least `threshold`.

    Assumes: episodes with different seeds are independent. With `bounds` exact (`BoundedMean`); without them
    asymptotic, from 104 episodes on with alpha = 0.01 (`AsymptoticMean`).

    Args:
        agent: anything with SB3's `predict`, or the file of an SB3 agent.
        threshold: in units of the undiscounted return.
        env: an id or a factory; `--offline-eval-env` if left out.
        bounds: least and largest return that the environment can give; every return is held against them.
        plan: the episodes that may be played, or their number (seeds 0, 1, ...), 500 if nobody said one; no more are
            played than it takes.
        alpha: chance to fail although the property holds; also the chance to pass although it does not.
        undecided: "fail", "skip" (`unittest.SkipTest`) or "warn", where the plan is spent before it is decided.
        source: where episodes come from; the session's if left out.

    Raises:
        Violated: the mean return is shown to lie below.
        Undecided: neither was shown.
        InputError: an argument breaks a rule, a return leaves the bounds, or the environment broke.
    """
    place = environment_for(agent, env)
    question = questions.return_at_least(threshold, bounds, alpha)
    subject, whole = opened(agent, place), allowed(plan)

    def measure(part: EpisodePlan) -> FloatArray:
        return _returns(source, [(subject.policy, None)], place, part)

    def show(number: int) -> str:
        return command("evaluate", [subject], place, whole, number)

    return conclude("assert_return_at_least", subject, place, question, whole, measure, undecided, show)


def assert_not_worse(
    agent: AgentLike,
    than: AgentLike,
    *,
    env: EnvironmentLike | None = None,
    margin: float | None = None,
    relative_margin: float | None = None,
    bounds: Bounds | None = None,
    plan: EpisodePlan | int | None = None,
    alpha: float = 0.01,
    undecided: IfUndecided = "fail",
    source: EpisodeSource | None = None,
) -> Outcome:
    """Assert that the mean return is at most a margin below that of a baseline; episodes are paired by seed.

    Assumes: pairs with different seeds are independent. With `bounds` exact (`BoundedMean` of the differences); without
    them asymptotic, from 104 pairs on with alpha = 0.01 (`AsymptoticMean`).

    With no margin an agent as good as the baseline stays undecided: no number of episodes shows an exact tie.

    Args:
        agent: anything with SB3's `predict`, or the file of an SB3 agent.
        than: the baseline, likewise.
        env: an id or a factory; `--offline-eval-env` if left out.
        margin: in units of the return, >= 0; 0 if both margins are left out.
        relative_margin: a share of |mean return of the baseline|, >= 0; that mean need not be known beforehand.
        bounds: least and largest return that the environment can give.
        plan: the episodes that either may play, or their number.
        alpha: chance to fail although the property holds; also the chance to pass although it does not.
        undecided: "fail", "skip" (`unittest.SkipTest`) or "warn", where the plan is spent before it is decided.
        source: where episodes come from; the session's if left out.

    Raises:
        Violated: the agent is shown to be worse by more than the margin.
        Undecided: neither was shown.
        InputError: an argument breaks a rule, a return leaves the bounds, or the environment broke.
        SpaceError: the agents are of different spaces.
    """
    place = environment_for(agent, env)
    question = questions.not_worse(margin, relative_margin, bounds, alpha)
    subject, baseline, whole = opened(agent, place), opened(than, place, "than"), allowed(plan)

    def measure(part: EpisodePlan) -> FloatArray:
        return _returns(source, [(subject.policy, None), (baseline.policy, None)], place, part)

    def show(number: int) -> str:
        return command("compare", [baseline, subject], place, whole, number)

    notes = [f"the baseline is {baseline.name}", *(f"the baseline: {note}" for note in baseline.notes)]
    return conclude("assert_not_worse", subject, place, question, whole, measure, undecided, show, notes=notes)


def assert_steering_helps(
    agent: AgentLike,
    rule: Rule,
    *,
    env: EnvironmentLike | None = None,
    margin: float = 0.0,
    bounds: Bounds | None = None,
    plan: EpisodePlan | int | None = None,
    alpha: float = 0.01,
    undecided: IfUndecided = "fail",
    source: EpisodeSource | None = None,
) -> Outcome:
    """Assert that steering gains at least `margin` over no steering and over the best of the trivial controls.

    The controls are those of `steer`: a random direction of the same length, actions times 1.1 and 1.2, and a placebo.
    Without them a push that only breaks a bad habit, or a longer action, would take the gradient's credit; without the
    plain policy a rule that harms less than chance would pass. Episodes are paired by seed; to beat the best control is
    to beat each, and each of the five claims gets alpha / 5.

    Assumes: pairs with different seeds are independent. With `bounds` exact (`BoundedMean` of the differences); without
    them asymptotic, from 135 episodes on with alpha = 0.01 (`AsymptoticMean`).

    Args:
        agent: anything with SB3's `predict`, or the file of an SB3 agent.
        rule: an `OPEX` or a `BestOfN`.
        env: an id or a factory; `--offline-eval-env` if left out.
        margin: in units of the return, >= 0.
        bounds: least and largest return that the environment can give.
        plan: the episodes that each of the six may play, or their number.
        alpha: chance to fail although the property holds; also the chance to pass although it does not.
        undecided: "fail", "skip" (`unittest.SkipTest`) or "warn", where the plan is spent before it is decided.
        source: where episodes come from; the session's if left out.

    Raises:
        Violated: steering is shown to gain less than the margin over one of the five.
        Undecided: neither was shown.
        InputError: an argument breaks a rule, a return leaves the bounds, or the environment broke.
    """
    place = environment_for(agent, env)
    from offline_eval.wrappers import RandomDirection
    from offline_eval.wrappers.controls import trivial_rules
    from offline_eval.wrappers.rules import CriticRule

    if not isinstance(rule, CriticRule):
        raise InputError("rule", "must be an OPEX or a BestOfN", rule, "what knows no critic has no random control")
    question = questions.steering_helps(margin, bounds, alpha)
    subject, whole = opened(agent, place), allowed(plan)
    variants: list[Rule | None] = [rule, None, RandomDirection(like=rule), *trivial_rules().values()]

    def measure(part: EpisodePlan) -> FloatArray:
        return _returns(source, [(subject.policy, variant) for variant in variants], place, part)

    def show(number: int) -> str:
        size = getattr(rule, "step_size", None)
        word = f" --step-sizes 0,{size:g}" if isinstance(size, int | float) else ""
        return command("steer", [subject], place, whole, number) + word

    notes = [f"steered by {type(rule).__name__}"]
    return conclude("assert_steering_helps", subject, place, question, whole, measure, undecided, show, notes=notes)


def _returns(
    source: EpisodeSource | None, variants: list[tuple[Predictor, Rule | None]], env: EnvironmentLike, part: EpisodePlan
) -> FloatArray:
    """Returns (num_episodes, num_variants) on the same seeds."""
    columns = []
    for policy, rule in variants:
        evaluation = (source or current().source).evaluation(policy, env, part, rule)
        refuse_failures(evaluation)
        columns.append(evaluation.returns)
    return np.stack(columns, axis=1)
