"""The rollout loop: exactly the planned episodes, whatever the seats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from offline_eval.episodes.acting import Acting
from offline_eval.episodes.records import Episode
from offline_eval.episodes.schedule import Schedule
from offline_eval.episodes.seats import Seats, Step
from offline_eval.episodes.success import told
from offline_eval.errors import OfflineEvalError
from offline_eval.types import Array

if TYPE_CHECKING:
    from offline_eval.episodes.log import EpisodeLog

NextEntry = Callable[[], "int | None"]
OnEpisode = Callable[[Episode], None]

_LONGEST_ERROR = 200
_MONITOR_ROUNDING = 1e-5  # SB3's Monitor rounds returns to six digits


@dataclass
class _Playing:
    """The episode at a seat."""

    index: int
    seed: int
    fresh: bool = False
    log: EpisodeLog | None = None
    episode_return: float = 0.0
    length: int = 0
    success_any: bool | None = None

    def take(self, step: Step) -> None:
        """Count a step.

        Raises:
            ValueError: the return is no number any more.
        """
        self.length += 1
        self.episode_return += step.reward
        if not isfinite(self.episode_return):
            raise ValueError(f"the reward of step {self.length} is {step.reward}, the return {self.episode_return}")
        if self.success_any is not True and (success := told(step.info)) is not None:
            self.success_any = success

    def finished(self, step: Step, steering: dict[str, float]) -> Episode:
        """Its row.

        Raises:
            ValueError: the return that a Monitor counted is no number.
        """
        episode_return = _true_return(self.episode_return, step.info)
        if not isfinite(episode_return):
            raise ValueError(f"the Monitor's return is {episode_return}")
        return Episode(
            index=self.index,
            seed=self.seed,
            episode_return=episode_return,
            length=_true_length(self.length, step.info),
            terminated=step.terminated,
            truncated=step.truncated and not step.terminated,
            success=told(step.info),
            success_any=self.success_any,
            steering=steering,
            fresh=self.fresh,
        )

    def failed(self, error: Exception) -> Episode:
        """Its row where something broke."""
        text = " ".join(f"{type(error).__name__}: {error}".split())
        text = text if len(text) <= _LONGEST_ERROR else text[: _LONGEST_ERROR - 3] + "..."
        nothing = float("nan")
        return Episode(self.index, self.seed, nothing, self.length, False, False, failed=text, fresh=self.fresh)


def play(
    seats: Seats,
    acting: Acting,
    schedule: Schedule,
    next_entry: NextEntry,
    step_limit: int | None,
    on_episode: OnEpisode,
    log: EpisodeLog | None = None,
) -> None:
    """Play what the schedule holds until `next_entry` gives None.

    Whatever a foreign environment or policy raises or gives that cannot be used (NaN, another shape) fails the episode
    in which it does, and no other. Where a vector's error does not say which of its environments it comes from, each
    of the episodes is played again alone.

    Args:
        seats: the environments.
        acting: the policy at these seats.
        schedule: what the numbers of episodes stand for; its rules are those that `acting` has.
        next_entry: the number of the next episode to play; processes share it.
        step_limit: steps after which an episode is cut and counted as truncated.
        on_episode: told of every finished episode.
        log: where visited states go, but for those of replays.
    """
    rollout = _Rollout(seats, acting, schedule, next_entry, step_limit, on_episode, log)
    while rollout.fill():
        rollout.step()


@dataclass
class _Rollout:
    """What is being played at which seat."""

    seats: Seats
    acting: Acting
    schedule: Schedule
    next_entry: NextEntry
    step_limit: int | None
    on_episode: OnEpisode
    log: EpisodeLog | None
    playing: dict[int, _Playing] = field(default_factory=dict)
    alone: list[int] = field(default_factory=list)
    """Entries to be played again with no other beside them."""

    def fill(self) -> bool:
        """Give the free seats their next entries; whether there is anything to step."""
        seats, acting = self.seats, self.acting
        while len(self.playing) < seats.num_seats and not (seats.start_together and self.playing):
            indices = self._next_indices()
            if not indices:
                break
            turns = {seat: self.schedule.turn(index) for seat, index in indices.items()}
            for seat, turn in turns.items():
                if turn.fresh:
                    seats.renew(seat)
            starts = seats.begin({seat: turn.entry for seat, turn in turns.items()})
            errors: dict[int, Exception] = {}
            for seat, index in indices.items():
                start, turn = starts[seat], turns[seat]
                log = None if turn.replay else self.log
                self.playing[seat] = _Playing(index, turn.entry.seed, turn.fresh, log)
                if isinstance(start, Exception):
                    errors[seat] = start
                    continue
                try:
                    acting.begin(seat, start.observation, turn.entry.seed, turn.rule)
                except OfflineEvalError:
                    raise
                except Exception as error:  # an observation that is none of the space
                    self._fail(seat, error)
                    continue
                if log is not None:
                    log.begin(seat, start, turn.entry, index)
            self._fail_in_environment(errors)
        return bool(self.playing)

    def _next_indices(self) -> dict[int, int]:
        if self.alone and not self.playing:
            return {0: self.alone.pop(0)}
        indices: dict[int, int] = {}
        for seat in range(self.seats.num_seats):
            if seat not in self.playing and (index := self.next_entry()) is not None:
                indices[seat] = index
        return indices

    def step(self) -> None:
        """Act and step at every seat that plays."""
        acting = self.acting
        chosen, executed, errors = acting.act(list(self.playing))
        for seat, error in errors.items():
            self._fail(seat, error)
        live = list(self.playing)
        if not live:
            return
        steps = self.seats.step(executed, live)
        self._fail_in_environment({seat: step for seat, step in steps.items() if isinstance(step, Exception)})
        ended: dict[int, Episode] = {}
        for seat, episode in list(self.playing.items()):
            step = steps[seat]
            assert isinstance(step, Step)  # the others failed
            try:
                episode.take(step)
                if self.step_limit is not None and episode.length >= self.step_limit and not step.terminated:
                    step = step._replace(truncated=True)
                if episode.log is not None:
                    action = executed[seat]
                    episode.log.step(seat, action if executed is chosen else chosen[seat], action, step)
                if step.terminated or step.truncated:
                    ended[seat] = episode.finished(step, acting.reported(seat, episode.length))
                else:
                    acting.see(seat, step.observation, anew=step.restarted)
            except OfflineEvalError:
                raise
            except Exception as error:  # what a foreign environment gave cannot be used
                self._fail(seat, error)
        # First its states, then its row: an episode that counts as finished has both.
        logged = [seat for seat in ended if self.playing[seat].log is not None]
        if self.log is not None and logged:
            self.log.write(logged)
        for seat, finished in ended.items():
            del self.playing[seat]
            self.on_episode(finished)

    def _fail_in_environment(self, errors: dict[int, Exception]) -> None:
        """Fail these seats; one error of a whole vector is looked for in each of its episodes alone."""
        shared = self.seats.start_together and len(errors) > 1 and len({id(error) for error in errors.values()}) == 1
        for seat, error in errors.items():
            if shared:
                self.alone.append(self.playing[seat].index)
                self._leave(seat)
            else:
                self._fail(seat, error)

    def _fail(self, seat: int, error: Exception) -> None:
        episode = self.playing[seat]
        self._leave(seat)
        self.on_episode(episode.failed(error))

    def _leave(self, seat: int) -> None:
        log = self.playing.pop(seat).log
        self.seats.distrust(seat)
        self.acting.leave(seat)
        if log is not None:
            log.drop(seat)


def _counted(info: Any, key: str) -> float | None:
    """What a Monitor counted, which is right where wrappers outside it change rewards or steps: SB3's own rule."""
    counted = info.get("episode")
    if not isinstance(counted, dict) or key not in counted:
        return None
    return float(np.asarray(counted[key]).reshape(-1)[0])


def _true_length(seen: int, info: Any) -> int:
    monitored = _counted(info, "l")
    return seen if monitored is None else int(monitored)


def _true_return(seen: float, info: Any) -> float:
    monitored = _counted(info, "r")
    if monitored is None:
        return seen
    return seen if abs(monitored - seen) <= _MONITOR_ROUNDING * max(1.0, abs(seen)) else monitored


def in_order(indices: Array | range | list[int]) -> NextEntry:
    """Plan indices one after the other, for a single process."""
    remaining = iter(indices)
    return lambda: next(remaining, None)
