"""What can be told about a critic on the policy's own episodes: labels, ranks, bias, and actions tried."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from offline_eval.datasets.recorder import LoggedEpisode
from offline_eval.diagnostics.clustered import Estimate
from offline_eval.diagnostics.q_bias import ValueSample, q_bias
from offline_eval.environments import EnvironmentLike
from offline_eval.episodes import EpisodePlan
from offline_eval.measurement.action_rank import TriedActions, try_actions
from offline_eval.measurement.actors import Driver, MeanAction, NoisyAction, SoftDraws, soft_draws
from offline_eval.measurement.monte_carlo_returns import LabelledSteps, label_steps, window_ceiling
from offline_eval.measurement.plan import MeasurementPlan, Watcher
from offline_eval.measurement.records import Bias, Ranks, Skipped, attempt
from offline_eval.measurement.rollouts import Brancher, check_restorable, draw_episodes
from offline_eval.measurement.state_sets import Sets
from offline_eval.types import Critic

BIAS_STREAM = 7
"""Of the generator that resamples episodes for the bias: whoever prints it prints the same interval."""

_NUM_POINTS = 400


class Target(NamedTuple):
    """The steps whose labels are what the critic estimates, and the ceiling of their rank."""

    steps: LabelledSteps
    ceiling: Estimate | Skipped


class CriticMeasurement:
    """A critic, and the policy whose values it claims to know.

    Args:
        model: the policy.
        env: an id, a spec or a factory.
        critic: to be measured.
        plan: how much.
        watcher: told of the progress.
        rollouts: a folder that keeps rollouts; None for none.
    """

    def __init__(
        self,
        model: Any,
        env: EnvironmentLike,
        critic: Critic,
        plan: MeasurementPlan,
        watcher: Watcher,
        rollouts: Path | None = None,
    ) -> None:
        self.model, self.env, self.critic, self.plan, self.watcher = model, env, critic, plan, watcher
        self.rollouts = rollouts

    def brancher(self, episodes: list[LoggedEpisode]) -> Brancher:
        """What rolls from states of these episodes.

        Raises:
            InputError: their states cannot be restored exactly.
        """
        brancher = Brancher(self.env, episodes, kept=self._folder("visited"))
        check_restorable(brancher)
        return brancher

    def _folder(self, name: str) -> Path | None:
        return None if self.rollouts is None else self.rollouts / name

    def plain(self, visited: list[LoggedEpisode], brancher: Brancher | Skipped) -> LabelledSteps | Skipped:
        """The steps of the mean action, labelled with plain returns."""
        advance = self.watcher.begin("past the time limit", len(visited))
        usable = None if isinstance(brancher, Skipped) else brancher
        options = {"tolerance": self.plan.tolerance, "longest": self.plan.longest}
        return attempt(
            lambda: label_steps(self.critic, MeanAction(self.model), visited, usable, advance=advance, **options)  # type: ignore[arg-type]
        )

    def target(
        self,
        visited: list[LoggedEpisode],
        plain: LabelledSteps | Skipped,
        brancher: Brancher | Skipped,
    ) -> Target | Skipped:
        """The steps whose labels are what the critic estimates: draws with entropy for a soft one, else `plain`."""
        usable = None if isinstance(brancher, Skipped) else brancher
        with ExitStack() as stack:
            found = self.soft_steps(stack)
            if found is None:
                return plain if isinstance(plain, Skipped) else Target(plain, self._ceiling(plain, usable))
            steps, own = found
            return steps if isinstance(steps, Skipped) else Target(steps, self._ceiling(steps, own))

    def soft_steps(self, stack: ExitStack) -> tuple[LabelledSteps | Skipped, Brancher | None] | None:
        """Steps of a soft agent's draws, labelled with entropy bonuses; None where there are none.

        Beside them what rolls on from their states, where these can be restored.
        """
        draws, plan = soft_draws(self.model) if self.critic.soft else None, self.plan
        if draws is None:
            return None
        drawn = attempt(
            lambda: draw_episodes(
                draws,
                self.env,
                EpisodePlan.seeded(plan.episodes, plan.seed),
                self.watcher.begin("draws with entropy", plan.episodes),
                step_limit=plan.step_limit,
            )
        )
        if isinstance(drawn, Skipped):
            return None
        episodes = [part.episode for part in drawn]
        own = stack.enter_context(Brancher(self.env, episodes, kept=self._folder("drawn")))
        usable = None if isinstance(attempt(lambda: check_restorable(own)), Skipped) else own
        steps = attempt(
            lambda: label_steps(
                self.critic,
                draws,
                episodes,
                usable,
                bonuses=[part.bonuses for part in drawn],
                tolerance=plan.tolerance,
                longest=plan.longest,
                advance=self.watcher.begin("draws past the time limit", len(episodes)),
            )
        )
        return steps, usable

    def _ceiling(self, steps: LabelledSteps, brancher: Brancher | None) -> Estimate | Skipped:
        plan = self.plan
        return attempt(
            lambda: window_ceiling(
                steps,
                brancher,
                self._generator(2),
                window=plan.window,
                num_windows=plan.ceiling_windows,
                num_steps=plan.longest,
                tolerance=plan.tolerance,
                advance=self.watcher.begin("second labels", plan.ceiling_windows),
            )
        )

    def trial(self, visited: list[LoggedEpisode], brancher: Brancher, sets: Sets) -> TriedActions | Skipped:
        """Candidate actions at visited states, rolled out."""
        driver = self._continuation()
        return attempt(
            lambda: try_actions(
                self.model,
                self.critic,
                driver,
                visited,
                brancher,
                self.plan.trial,
                self._generator(3),
                reach=None if isinstance(sets.reach, Skipped) else sets.reach,
                soft=isinstance(driver, SoftDraws),
                begin=lambda total: self.watcher.begin("candidate actions", total),
            )
        )

    def _continuation(self) -> Driver:
        """What goes on after a candidate action: what the critic values, with some noise where that has none."""
        draws = soft_draws(self.model) if self.critic.soft else None
        if draws is not None:
            return draws
        is_box = hasattr(self.critic.action_space, "low")
        return NoisyAction(self.model, self.critic.action_space) if is_box else MeanAction(self.model)

    def bias(self, target: Target, plain: LabelledSteps | Skipped, reference: ValueSample | None = None) -> Bias:
        """Does it say the right amount, and more of it than a reference?"""
        generator, sample = self._generator(BIAS_STREAM), target.steps.sample
        bias = q_bias(sample, generator, reference=reference)
        rows = np.sort(generator.permutation(len(sample.q))[:_NUM_POINTS])
        other = None if isinstance(plain, Skipped) or plain is target.steps else q_bias(plain.sample, generator)
        points = np.stack([sample.q[rows], sample.truth[rows]], axis=1)
        return Bias(bias, target.steps.record, points, other)

    def rank(self, target: Target, plain: LabelledSteps | Skipped, tried: TriedActions | Skipped) -> Ranks:
        """Does it order states, and actions at a state?"""
        window = self.plan.window
        actions = tried if isinstance(tried, Skipped) else attempt(lambda: tried.rank(self._generator(8)))
        other = None
        if not isinstance(plain, Skipped) and plain is not target.steps:
            found = attempt(lambda: plain.rank(self._generator(9), window))
            other = None if isinstance(found, Skipped) else found
        ranks = target.steps.rank(self._generator(9), window)
        labels = None if other is None or isinstance(plain, Skipped) else plain.record
        return Ranks(ranks, target.ceiling, target.steps.record, actions, other, labels)

    def _generator(self, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.plan.seed, stream])
