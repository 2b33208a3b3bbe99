"""What is played, by number: the planned episodes of every rule, and replays that check them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from offline_eval.episodes.plan import EpisodePlan, PlanEntry
from offline_eval.episodes.records import Episode


class Turn(NamedTuple):
    """One episode to be played.

    Attributes:
        entry: what the environment is reset with.
        rule: number of the rule that steers it.
        fresh: in an environment where nothing was played before.
        replay: of an episode that is planned; only its row counts.
    """

    entry: PlanEntry
    rule: int
    fresh: bool
    replay: bool


class Replay(NamedTuple):
    """A planned episode that is played once more.

    Attributes:
        number: of the planned episode.
        fresh: in an environment where nothing was played before; otherwise in one where others were.
    """

    number: int
    fresh: bool


@dataclass(frozen=True)
class Schedule:
    """Numbers of episodes and what they stand for.

    With several rules every one of them plays the whole plan: number `k * len(plan) + i` is entry i under rule k. The
    numbers from `num_planned` on are the replays.

    Attributes:
        plan: of every rule.
        num_rules: how many there are.
        replays: what is played once more.
        fresh: an environment of its own for every episode.
    """

    plan: EpisodePlan
    num_rules: int = 1
    replays: tuple[Replay, ...] = ()
    fresh: bool = False

    @property
    def num_planned(self) -> int:
        """Planned episodes."""
        return len(self.plan) * self.num_rules

    @property
    def replay_numbers(self) -> list[int]:
        """Numbers of the replays."""
        return list(range(self.num_planned, self.num_planned + len(self.replays)))

    def turn(self, number: int) -> Turn:
        """What a number stands for."""
        replayed = None if number < self.num_planned else self.replays[number - self.num_planned]
        planned, fresh = (number, self.fresh) if replayed is None else replayed
        rule, index = divmod(planned, len(self.plan))
        return Turn(self.plan[index], rule, fresh, replayed is not None)

    def checked_by(self, count: int, missing: Sequence[int], num_seats: int) -> Schedule:
        """This schedule with up to `count` replays.

        Each gets another history than its episode had: what began in a new environment is played again where others
        were before, and the reverse. Among them are an episode of the first turn of the environments, one of the
        second, and the last.

        Args:
            count: of replays.
            missing: the numbers that will be played, in this order.
            num_seats: environments side by side, in all processes.
        """
        total = self.num_planned
        spread = [round(k * (total - 1) / max(1, count - 1)) for k in range(count)]
        chosen = dict.fromkeys([total - 1, min(num_seats, total - 1), 0, *reversed(spread), *range(total)])
        numbers = list(chosen)[: min(count, total)]
        place = {number: position for position, number in enumerate(missing)}
        replays = [Replay(number, self.fresh or place.get(number, number) >= num_seats) for number in numbers]
        # An environment that is used must have been: what needs a new one comes first.
        return replace(self, replays=tuple(sorted(replays, key=lambda replay: not replay.fresh)))


def same(row: Episode, other: Episode) -> bool:
    """Whether two plays of an episode agree to the last bit."""

    def told(episode: Episode) -> tuple[object, ...]:
        numbers = (episode.episode_return, *episode.steering.values())
        flags = (episode.length, episode.terminated, episode.truncated, episode.success, episode.failed is None)
        return (flags, tuple(episode.steering), tuple(float(number).hex() for number in numbers))

    return told(row) == told(other)
