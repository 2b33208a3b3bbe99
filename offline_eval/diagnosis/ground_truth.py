"""From a climbed ladder to its truth-guided rung: whole episodes where they are short, segments where they are long."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch as th

from offline_eval.datasets.recorder import LoggedEpisode
from offline_eval.datasets.writing import replacing
from offline_eval.diagnosis.ladder import Climb, TruthRung
from offline_eval.diagnosis.records import POLICY
from offline_eval.diagnosis.rollout_search import Base, Start, TruthPlay
from offline_eval.diagnosis.simulators import WorldMaker
from offline_eval.diagnostics.returns import horizon
from offline_eval.environments import environment_factory
from offline_eval.errors import InputError
from offline_eval.measurement.plan import Watcher
from offline_eval.policies import spaces_of
from offline_eval.provenance import recipe
from offline_eval.stats import mean_interval
from offline_eval.types import Array
from offline_eval.wrappers.reach import NearbyActions, RandomNear

_GAMMA = 0.99
_TOLERANCE = 0.2
_START_STREAM = 13
_MOST_ROLLOUTS = 8


def seek_truth(climb: Climb, visited: Sequence[LoggedEpisode], folder: Path, watcher: Watcher) -> TruthRung | str:
    """Play the truth-guided rung; or why it cannot be played.

    Args:
        climb: with its rungs by Q.
        visited: the policy's episodes, with their simulator's states.
        folder: keeps what has been played.
        watcher: told of the progress.
    """
    factory = environment_factory(climb.player.env)
    assert factory is not None
    try:
        maker = WorldMaker(factory, visited)  # type: ignore[arg-type]
    except InputError as error:
        return f"states cannot be restored: {error}"
    with closing(maker):
        return _Seeking(climb, visited, maker, folder, watcher).run()


class _Seeking:
    """The plays of one truth-guided rung."""

    def __init__(
        self,
        climb: Climb,
        visited: Sequence[LoggedEpisode],
        maker: WorldMaker,
        folder: Path,
        watcher: Watcher,
    ) -> None:
        self.climb, self.visited, self.folder, self.watcher = climb, visited, folder, watcher
        self.plan = climb.plan.truth
        if climb.best != POLICY:
            self.plan = self.plan.where_steered()
        longest = max(len(episode) for episode in visited)
        self.limit = climb.plan.step_limit or maker.time_limit or longest
        self.whole = self.limit <= self.plan.longest
        critic = climb.critic
        self.gamma = _GAMMA if critic is None else critic.gamma
        self.horizon = (
            self.plan.horizon if self.gamma >= 1.0 else min(self.plan.horizon, horizon(_TOLERANCE, self.gamma))
        )
        observation_space, action_space = spaces_of(climb.player.env)
        self.spaces: tuple[Any, Any] = (observation_space, action_space)
        self.maker = maker
        self.play = self._play()

    def _play(self) -> TruthPlay:
        plan = replace(self.plan, horizon=self.horizon)
        return TruthPlay(self.maker, self.spaces[1], self.gamma, plan, self.climb.plan.seed)

    def run(self) -> TruthRung:
        """Play policy, base and guided base from the same starts; the control too, where these are segments."""
        began = time.perf_counter()
        climb, plan = self.climb, self.plan
        starts, num_steps = self._starts()
        policy, base = self._base(None), self._base(climb.best_rule)
        picks = [self._base(rule) for rule in climb.picks if rule is not climb.best_rule]
        surroundings = climb.surroundings
        proposal = NearbyActions(surroundings.neighbours, plan.num_near, plan.num_offsets, plan.std)
        num_guided = num_steps if self.whole else plan.segment
        plain = self._returns("policy", policy, starts, num_steps)
        based = plain if climb.best == POLICY else self._returns("base", base, starts, num_steps)
        words: dict[str, Any] = {"proposal": proposal, "extra": picks, "num_guided": num_guided}
        guided = self._returns("guided", base, starts, num_steps, **words)
        while _did_harm(guided - based) and 2 * self.plan.num_rollouts <= _MOST_ROLLOUTS:
            # Beside the best actions all differences are small, and the best of a few noisy rollouts is a worse action.
            self.plan = replace(self.plan, num_rollouts=2 * self.plan.num_rollouts)
            self.play = self._play()
            guided = self._returns("guided", base, starts, num_steps, **words)
        control = None
        if not self.whole:
            control = self._returns(
                "control", self._base(RandomNear(surroundings.neighbours, max(climb.plan.num_near))), starts, num_steps
            )
        inside = self._inside(starts, num_steps, proposal) if self.whole and climb.loses_outside else None
        about = self._about(starts, num_steps)
        return TruthRung(plain, based, guided, control, inside, *about, time.perf_counter() - began)

    def _inside(self, starts: Sequence[Start], num_steps: int, proposal: NearbyActions) -> Array:
        """Where does a loss outside begin? The policy with the truth at its side until it leaves the data's region."""
        region, picks = self.climb.surroundings.region(outside=False), [self._base(rule) for rule in self.climb.picks]

        def inside(observations: Any) -> Array:
            seen = th.as_tensor(observations, dtype=th.float32, device=region.neighbours.device)
            return np.asarray(region(seen).cpu().numpy())

        return self._returns(
            "inside", self._base(None), starts, num_steps, proposal=proposal, extra=picks, region=inside
        )

    def _starts(self) -> tuple[list[Start], int]:
        """Where the plays begin, and for how many steps they last."""
        if self.whole:
            return [Start(episode, 0) for episode in self.visited[: self.plan.num_starts]], self.limit
        generator = np.random.default_rng([_START_STREAM, self.climb.plan.seed])
        lengths = np.array([len(episode) for episode in self.visited])
        starts = []
        # One episode after the other, so that segments are as nearly independent as they can be.
        for number in range(self.plan.num_starts):
            episode = number % len(lengths)
            starts.append(Start(self.visited[episode], int(generator.integers(lengths[episode]))))
        return starts, self.plan.segment + self.horizon

    def _about(self, starts: Sequence[Start], num_steps: int) -> tuple[str, str]:
        if self.whole:
            return "episode", f"{len(starts)} whole episodes, {self._rollouts()}"
        note = (
            f"{len(starts)} segments from restored states: {self.plan.segment} steps guided, {num_steps} played; "
            f"{self._rollouts()}"
        )
        return "segment", note

    def _rollouts(self) -> str:
        number = self.plan.num_rollouts
        return f"{number} rollout{'s' if number > 1 else ''} a candidate of {self.horizon} steps"

    def _base(self, rule: Any) -> Base:
        return Base(self.climb.player.policy, rule, *self.spaces)

    def _returns(self, name: str, base: Base, starts: Sequence[Start], num_steps: int, **options: Any) -> Array:
        """Returns (num_starts,); what is played side by side is kept in a file of its own."""
        digest = self._digest(name, starts, num_steps)
        advance = self.watcher.begin(f"truth: {name}", len(starts))
        found = []
        for first in range(0, len(starts), self.play.at_once):
            part = starts[first : first + self.play.at_once]
            path = self.folder / "truth" / f"{digest}-{first}.npy"
            if path.exists():
                found.append(np.load(path, allow_pickle=False))
            else:
                found.append(self.play.returns(base, part, num_steps, first=first, **options))
                with replacing(path) as temporary, temporary.open("wb") as file:
                    np.save(file, found[-1])
            advance(len(part))
        return np.concatenate(found)

    def _digest(self, name: str, starts: Sequence[Start], num_steps: int) -> str:
        about = (name, self.climb.best, [recipe(rule) for rule in self.climb.picks], recipe(self.plan), num_steps)
        where = [(start.episode.seed, start.step) for start in starts]
        return f"{name}-{hashlib.sha256(repr((about, where)).encode()).hexdigest()[:20]}"


def _did_harm(gains: Array) -> bool:
    return bool(np.isfinite(gains).all()) and mean_interval(gains).high < 0.0
