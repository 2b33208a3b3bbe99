"""Plays interventions on the reporting seeds and on the selection seeds, and keeps what has been played."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from offline_eval.diagnosis.plan import SELECTION_SEEDS, DiagnosisPlan
from offline_eval.diagnosis.records import Trial
from offline_eval.environments import EnvironmentLike
from offline_eval.episodes import Episode, EpisodePlan, Evaluation, evaluate
from offline_eval.measurement.plan import Watcher
from offline_eval.types import Array, Predictor, Rule


class Keeper(Protocol):
    """Keeps finished episodes by what was played."""

    def done(self, variant: str) -> Collection[Episode]:
        """The finished episodes of an interrupted run."""
        ...

    def record(self, variant: str, episode: Episode) -> None:
        """One more."""
        ...


class Forgetful:
    """Keeps nothing."""

    def done(self, variant: str) -> Collection[Episode]:
        """Nothing."""
        return ()

    def record(self, variant: str, episode: Episode) -> None:
        """Let go of it."""


@dataclass(frozen=True, eq=False)
class Option:
    """One of several choices of an intervention.

    Attributes:
        choice: what it is: `{"step_size": 0.2}`; it names its episodes.
        policy: who acts.
        rule: what steers; None for the policy as it is.
    """

    choice: Mapping[str, Any]
    policy: Predictor
    rule: Rule | None


@dataclass(frozen=True, eq=False)
class Chosen:
    """The option that did best on the selection seeds.

    Attributes:
        option: it.
        gain: its mean difference to the policy there.
        trials: all of them.
    """

    option: Option
    gain: float
    trials: tuple[Trial, ...]


class Player:
    """Plays a policy and what is done to it.

    Args:
        policy: the one that is diagnosed.
        env: an id, a spec or a factory.
        plan: how much.
        keeper: of episodes.
        watcher: told of the progress.
        fresh: an environment of its own for every episode.
    """

    def __init__(
        self,
        policy: Predictor,
        env: EnvironmentLike,
        plan: DiagnosisPlan,
        keeper: Keeper,
        watcher: Watcher,
        fresh: bool = False,
    ) -> None:
        self._fresh = fresh
        self.policy, self.env, self.plan, self._keeper, self._watcher = policy, env, plan, keeper, watcher
        self._reporting = EpisodePlan.seeded(plan.episodes, plan.seed)
        self._selection = EpisodePlan.seeded(plan.selection_episodes, plan.seed + SELECTION_SEEDS)
        self._policy_there: Array | None = None
        self.seconds: dict[str, float] = {}

    def report(self, name: str, rule: Rule | None, policy: Predictor | None = None) -> Array:
        """Returns (episodes,) on the reporting seeds."""
        return self._play(name, self._reporting, rule, policy or self.policy).returns

    def select(self, name: str, options: Sequence[Option]) -> Chosen:
        """The option with the best mean return on the selection seeds; the first of equals.

        One of which an episode fails, and the policy's does not, comes last.
        """
        if self._policy_there is None:
            self._policy_there = self._play("selection: policy", self._selection, None, self.policy).returns
        before = self._policy_there
        gains, trials = [], []
        for option in options:
            if option.rule is None and option.policy is self.policy:
                differences = np.zeros(len(before))
            else:
                words = " ".join(f"{word} {value:g}" for word, value in option.choice.items())
                title = f"selection: {name} {words}"
                differences = self._play(title, self._selection, option.rule, option.policy).returns - before
            counted = differences[np.isfinite(before)]
            whole = len(counted) > 0 and bool(np.isfinite(counted).all())
            gains.append(float(counted.mean()) if whole else -np.inf)
            trials.append(Trial(option.choice, gains[-1], int(np.isfinite(differences).sum())))
        best = int(np.argmax(gains))
        return Chosen(options[best], gains[best], tuple(trials))

    def _play(self, title: str, plan: EpisodePlan, rule: Rule | None, policy: Predictor) -> Evaluation:
        began = time.perf_counter()
        done = list(self._keeper.done(title))
        advance = self._watcher.begin(title, len(plan) - len(done))
        tell = self._teller(title, advance)
        found = evaluate(
            policy,
            self.env,
            plan,
            rule=rule,
            n_envs=self.plan.n_envs,
            workers=self.plan.workers,
            step_limit=self.plan.step_limit,
            replays=0,  # the measurement of the policy has checked them
            fresh=self._fresh,
            done=done,
            on_episode=tell,
        )
        self.seconds[title] = time.perf_counter() - began
        return found

    def _teller(self, title: str, advance: Callable[[int], None]) -> Callable[[Episode], None]:
        def tell(episode: Episode) -> None:
            self._keeper.record(title, episode)
            advance(1)

        return tell

    def seconds_of(self, name: str) -> float:
        """Wall time of a rung and of its selection."""
        return sum(spent for title, spent in self.seconds.items() if title == name or f": {name} " in title)
