"""Every visited state of an evaluation, on disk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from offline_eval.datasets.log import ShardWriter
from offline_eval.datasets.recorder import EpisodeRecorder
from offline_eval.episodes.plan import PlanEntry
from offline_eval.episodes.seats import Seats, Start, Step
from offline_eval.errors import InputError, bare
from offline_eval.types import Array


@dataclass(frozen=True)
class LogFolder:
    """Where the states go; each process opens it for its own seats."""

    folder: Path
    env_id: str

    def open(self, seats: Seats) -> EpisodeLog:
        """A log for these seats."""
        return EpisodeLog(self, seats)


class EpisodeLog:
    """Records the episodes at some seats and writes those that ended; episodes in flight are lost with the process."""

    def __init__(self, folder: LogFolder, seats: Seats) -> None:
        env = seats.env(0)
        self._seats = seats
        self._recorder = EpisodeRecorder(seats.num_seats)
        self._writer = ShardWriter(
            folder.folder,
            env_id=folder.env_id,
            observation_space=seats.observation_space,
            action_space=seats.action_space,
            env_spec=None if env is None else env.spec,
        )

    def begin(self, seat: int, start: Start, entry: PlanEntry, index: int) -> None:
        """A seat after its reset."""
        self._recorder.reset(seat, start.observation, entry.seed, index, self._seats.env(seat), entry.options)

    def step(self, seat: int, chosen: Array, executed: Array, step: Step) -> None:
        """A seat after a step."""
        ended = step.terminated or step.truncated
        if step.observation is None:
            raise InputError(
                "env",
                "must tell each episode's last observation where states are logged",
                bare("no `terminal_observation` in the info of an episode's last step"),
                "put it there, or leave the log out",
            )
        # An environment that was reset meanwhile no longer shows the last state in its simulator.
        env = None if step.restarted or (ended and self._seats.start_together) else self._seats.env(seat)
        self._recorder.step(seat, chosen, executed, step.reward, step.terminated, step.truncated, step.observation, env)

    def drop(self, seat: int) -> None:
        """The environment of this seat raised."""
        self._recorder.discard(seat)

    def write(self, seats: Iterable[int]) -> None:
        """The episodes at these seats ended: from now on they survive this process."""
        self._writer.write([self._recorder.finish(seat) for seat in seats])

    def close(self) -> None:
        """Bring the index up to date."""
        self._writer.close()
