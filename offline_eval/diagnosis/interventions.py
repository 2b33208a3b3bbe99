"""Plays interventions on the reporting seeds and on the selection seeds, and keeps what has been played."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from offline_eval.diagnosis.plan import SELECTION_SEEDS, DiagnosisPlan
from offline_eval.diagnosis.records import Trial
from offline_eval.environments import EnvironmentLike
from offline_eval.episodes import EpisodePlan, EpisodeStore, Evaluation, evaluate_rules
from offline_eval.episodes.store import CountedEpisodes
from offline_eval.measurement.plan import Watcher
from offline_eval.types import Array, Predictor, Rule


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
        store: keeps the episodes of each intervention under its name.
        watcher: told of the progress.
        fresh: an environment of its own for every episode.
    """

    def __init__(
        self,
        policy: Predictor,
        env: EnvironmentLike,
        plan: DiagnosisPlan,
        store: EpisodeStore,
        watcher: Watcher,
        fresh: bool = False,
    ) -> None:
        self._fresh = fresh
        self.policy, self.env, self.plan, self._store, self._watcher = policy, env, plan, store, watcher
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
        advance = self._watcher.begin(title, len(plan) - len(self._store.done(title)))
        # A rule by its name, for a store may keep states, and those of interventions are not wanted.
        found = evaluate_rules(
            policy,
            self.env,
            plan,
            {title: rule},
            n_envs=self.plan.n_envs,
            workers=self.plan.workers,
            step_limit=self.plan.step_limit,
            replays=0,  # the measurement of the policy has checked them
            fresh=self._fresh,
            store=CountedEpisodes(self._store, advance),
        )[title]
        self.seconds[title] = time.perf_counter() - began
        return found

    def seconds_of(self, name: str) -> float:
        """Wall time of a rung and of its selection."""
        return sum(spent for title, spent in self.seconds.items() if title == name or f": {name} " in title)
