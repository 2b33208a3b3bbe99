"""Plays what a schedule holds and checks it: some episodes are played again, and have to come out the same.

An environment that keeps something from one episode to the next makes a table depend on who played before whom. It is
found out by replays, and then every episode gets an environment of its own.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from math import ceil

from offline_eval.episodes.playing import Share, Told
from offline_eval.episodes.records import Episode, Invariance
from offline_eval.episodes.rollout import in_order
from offline_eval.episodes.schedule import Replay, Schedule, same
from offline_eval.episodes.workers import play_in_workers

_VECTOR = "a vector begins its episodes together and is not made anew"


class CheckedRollout:
    """The rows of a schedule, as they come in.

    Args:
        share: what a process needs; its schedule is played without its replays.
        rows: by number, what is there already.
        num_workers: processes.
        on_row: told of each row as its episode finishes, and again where every episode has to be played anew.

    Attributes:
        rows: by number, every planned episode after `play`.
        seconds: of playing planned episodes, from the first one that could begin to the end of the last.
        notes: what the environments say.
        varies: why the table depends on the number of environments, where that is known.
    """

    def __init__(
        self, share: Share, rows: dict[int, Episode], num_workers: int, on_row: Callable[[Episode], None]
    ) -> None:
        self.rows, self.seconds = rows, 0.0
        self.notes: tuple[str, ...] = ()
        self.varies: str | None = None
        self._share, self._num_workers, self._on_row = share, num_workers, on_row
        self._is_vector = False

    def play(self, num_replays: int) -> Invariance:
        """Play what is missing, and `num_replays` episodes again."""
        schedule = self._share.schedule
        missing = [number for number in range(schedule.num_planned) if number not in self.rows]
        num_workers, n_envs = self._shares(len(missing))
        checked = schedule.checked_by(num_replays, missing, n_envs * num_workers)
        replayed = self._run(checked, missing)
        if self._is_vector:
            return Invariance(None, of=schedule.num_planned, reason=_VECTOR)
        found = Invariance(True, len(replayed), schedule.num_planned, schedule.fresh)
        if apart := self._first_apart(replayed):
            return self._fresh(apart, sorted(number for number, _ in replayed), found)
        return found

    def _fresh(self, apart: str, numbers: list[int], found: Invariance) -> Invariance:
        """Every episode in an environment of its own, if that is repeatable."""
        if found.fresh:
            return replace(found, holds=False, reason=apart)
        schedule = replace(self._share.schedule, fresh=True)
        replays = tuple(Replay(number, True) for number in (*numbers, *reversed(numbers)))
        once: dict[int, Episode] = {}
        for number, episode in self._run(replace(schedule, replays=replays), []):
            if not same(once.setdefault(number, episode), episode):
                reason = f"two new environments with the same seed go apart ({apart})"
                return replace(found, holds=False, reason=reason)
        self.rows.clear()
        if self._share.log is not None:  # of two plays of an episode a log shows the first
            with suppress(FileNotFoundError):
                shutil.rmtree(self._share.log.folder / "data")
        self._run(schedule, range(schedule.num_planned))
        if again := self._first_apart(list(once.items())):
            return replace(found, holds=False, reason=again)
        return replace(found, fresh=True, reason=f"a used one keeps something of earlier episodes ({apart})")

    def _shares(self, num_missing: int) -> tuple[int, int]:
        """Processes, and environments in each: none takes more than its share, or the first would leave none."""
        num_workers = max(1, min(self._num_workers, num_missing))
        return num_workers, max(1, min(self._share.n_envs, ceil(num_missing / num_workers)))

    def _run(self, schedule: Schedule, missing: Sequence[int]) -> list[tuple[int, Episode]]:
        """Play these numbers and the replays; returns the latter with the numbers of the episodes they replay."""
        if not missing and not schedule.replays:
            return []
        num_workers, n_envs = self._shares(len(missing))
        if not missing and all(replay.fresh for replay in schedule.replays):
            n_envs = min(self._share.n_envs, len(schedule.replays))
        share = replace(self._share, schedule=schedule, n_envs=n_envs)
        replayed: list[tuple[int, Episode]] = []
        began = 0.0
        ended: float | None = None

        def start() -> None:
            nonlocal began
            began = time.perf_counter()

        def tell(episode: Episode) -> None:
            nonlocal ended
            if episode.index >= schedule.num_planned:
                replayed.append((schedule.replays[episode.index - schedule.num_planned].number, episode))
                return
            ended = time.perf_counter()
            self.rows[episode.index] = episode
            self._on_row(episode)

        numbers = [*missing, *schedule.replay_numbers]
        told: list[Told]
        if num_workers > 1:
            told = play_in_workers(share, numbers, num_workers, tell, start)
        else:
            told = [share(in_order(numbers), tell, start)]
        self.seconds += 0.0 if ended is None else ended - began
        self.notes = tuple(dict.fromkeys((*self.notes, *(note for each in told for note in each.notes))))
        self.varies = self.varies or next((each.varies for each in told if each.varies), None)
        self._is_vector |= any(each.is_vector for each in told)
        return replayed

    def _first_apart(self, replayed: Sequence[tuple[int, Episode]]) -> str:
        """The first of these that differs from its row, in words; nothing where all agree."""
        for number, episode in replayed:
            row = self.rows[number]
            if not same(row, episode):
                return f"seed {row.seed} gave {_outcome(row)} and, played again, {_outcome(episode)}"
        return ""


def _outcome(episode: Episode) -> str:
    if episode.failed is not None:
        return f"an error ({episode.failed})"
    return f"{episode.episode_return:.9g} in {episode.length} steps"
