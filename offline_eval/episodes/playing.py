"""One process's share of an evaluation: seats are made, the entries played, the seats closed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from offline_eval.environments import EnvironmentLike
from offline_eval.episodes.acting import Acting, Played
from offline_eval.episodes.env_seats import make_seats
from offline_eval.episodes.isolation import one_thread, seeded_globals
from offline_eval.episodes.masks import ActionMasks
from offline_eval.episodes.records import Episode
from offline_eval.episodes.rollout import play
from offline_eval.episodes.schedule import Schedule
from offline_eval.episodes.seats import Seats
from offline_eval.errors import InputError, bare
from offline_eval.masking import takes_masks
from offline_eval.policies.playable import seeded
from offline_eval.types import Predictor, Rule
from offline_eval.wrappers.host import Steering
from offline_eval.wrappers.remembering import forgets
from offline_eval.wrappers.rules import of_policy
from offline_eval.wrappers.stacking import stack

if TYPE_CHECKING:
    from offline_eval.episodes.log import LogFolder

DEFAULT_STEP_LIMIT = 10_000
"""Steps after which an episode is cut where neither the environment nor the caller sets a limit."""


class Told(NamedTuple):
    """What a process says of its seats at the end.

    Attributes:
        notes: what a reader should know.
        varies: why the table depends on their number, if it is known to.
        is_vector: they belong to one vector, which begins its episodes together and is not made anew.
    """

    notes: tuple[str, ...]
    varies: str | None
    is_vector: bool


@dataclass(frozen=True)
class Share:
    """Everything a process needs to play its share; called with what hands out the numbers of episodes."""

    policy: Predictor
    rules: tuple[Rule | None, ...]
    env: EnvironmentLike
    schedule: Schedule
    n_envs: int
    width: int | None
    deterministic: bool
    step_limit: int | None
    log: LogFolder | None

    def __call__(
        self,
        next_entry: Callable[[], int | None],
        on_episode: Callable[[Episode], None],
        on_ready: Callable[[], None],
        number: int = 0,
    ) -> Told:
        """Play, and say when the seats are made."""
        seats = make_seats(self.env, self.n_envs)
        on_ready()
        try:
            self.play_at(seats, next_entry, on_episode, number)
            return Told(seats.notes, seats.varies, seats.start_together)
        finally:
            seats.close()

    def play_at(
        self,
        seats: Seats,
        next_entry: Callable[[], int | None],
        on_episode: Callable[[Episode], None],
        number: int = 0,
    ) -> None:
        """Play at these seats; a vector, which is not made anew, without the replays."""
        if seats.start_together:
            if self.schedule.fresh:
                raise InputError("fresh", "must be left out for a vector", True, "pass a factory of one environment")
            next_entry = self._planned(next_entry)
        hosts: dict[int, Steering] = {}
        played = []
        for rule, row in stack([None if rule is None else of_policy(rule, self.policy) for rule in self.rules]):
            if rule is not None and id(rule) not in hosts:
                hosts[id(rule)] = Steering(rule, seats.observation_space, seats.action_space, self.width)
            played.append(Played(None if rule is None else hosts[id(rule)], row))
        if seats.num_seats > 1 and not all(forgets(rule) for rule in self.rules):
            raise InputError(
                "env",
                "must be a single environment for a policy that never forgets: its episodes follow from one another",
                bare(f"{seats.num_seats} environments"),
                "pass an id or a factory, or reset each episode",
            )
        policy = self.policy if self.deterministic else seeded(self.policy, self.schedule.plan[0].seed + number)
        masks = ActionMasks(seats) if takes_masks(policy) else None
        space = seats.observation_space
        acting = Acting(policy, played, space, seats.num_seats, self.width, self.deterministic, masks)
        limit = self.step_limit
        if limit is None and seats.max_episode_steps is None:
            limit = DEFAULT_STEP_LIMIT
        log = None if self.log is None else self.log.open(seats)
        try:
            # Drawn actions are repeatable, and differ between processes.
            generators = nullcontext() if self.deterministic else seeded_globals(self.schedule.plan[0].seed + number)
            with one_thread(), generators:
                play(seats, acting, self.schedule, next_entry, limit, on_episode, log)
        finally:
            if log is not None:
                log.close()

    def _planned(self, next_entry: Callable[[], int | None]) -> Callable[[], int | None]:
        def planned() -> int | None:
            while (number := next_entry()) is not None and number >= self.schedule.num_planned:
                pass
            return number

        return planned
