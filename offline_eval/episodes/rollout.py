"""The rollout loop: exactly the planned episodes, whatever the seats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from offline_eval.episodes.acting import Acting
from offline_eval.episodes.plan import EpisodePlan
from offline_eval.episodes.records import Episode
from offline_eval.episodes.seats import Seats, Start, Step
from offline_eval.types import Array

if TYPE_CHECKING:
    from offline_eval.episodes.log import EpisodeLog

NextEntry = Callable[[], "int | None"]
OnEpisode = Callable[[Episode], None]

_MONITOR_ROUNDING = 1e-5  # SB3's Monitor rounds returns to six digits


@dataclass
class _Playing:
    """The episode at a seat."""

    index: int
    seed: int
    episode_return: float = 0.0
    length: int = 0


def play(
    seats: Seats,
    acting: Acting,
    plan: EpisodePlan,
    next_entry: NextEntry,
    step_limit: int | None,
    on_episode: OnEpisode,
    log: EpisodeLog | None = None,
) -> None:
    """Play plan entries until `next_entry` gives None.

    Indices run through the plan once for each of the rules that `acting` has, one rule after the other.

    Args:
        seats: the environments.
        acting: the policy at these seats.
        plan: the entries that indices refer to.
        next_entry: the index of the next entry to play; processes share it.
        step_limit: steps after which an episode is cut and counted as truncated.
        on_episode: told of every finished episode.
        log: where visited states go.
    """
    playing: dict[int, _Playing] = {}
    while True:
        _fill(seats, acting, plan, next_entry, on_episode, playing, log)
        if not playing:
            return
        live = list(playing)
        chosen, executed = acting.act(live)
        steps = seats.step(executed, live)
        ended: dict[int, Episode] = {}
        for seat in live:
            episode, step = playing[seat], steps[seat]
            if isinstance(step, Exception):
                on_episode(_failed(episode, step))
                if log is not None:
                    log.drop(seat)
                del playing[seat]
                continue
            episode.episode_return += step.reward
            episode.length += 1
            if step_limit is not None and episode.length >= step_limit and not step.terminated:
                step = step._replace(truncated=True)
            if log is not None:
                action = executed[seat]
                log.step(seat, action if executed is chosen else chosen[seat], action, step)
            if step.terminated or step.truncated:
                ended[seat] = _finished(episode, step, acting.reported(seat, episode.length))
                del playing[seat]
            else:
                acting.see(seat, step.observation)
        # First its states, then its row: an episode that counts as finished has both.
        if log is not None and ended:
            log.write(ended)
        for finished in ended.values():
            on_episode(finished)


def _fill(
    seats: Seats,
    acting: Acting,
    plan: EpisodePlan,
    next_entry: NextEntry,
    on_episode: OnEpisode,
    playing: dict[int, _Playing],
    log: EpisodeLog | None,
) -> None:
    """Give the free seats their next entries; an environment that cannot be reset is a failed episode."""
    while len(playing) < seats.num_seats and not (seats.start_together and playing):
        indices: dict[int, int] = {}
        for seat in range(seats.num_seats):
            if seat not in playing and (index := next_entry()) is not None:
                indices[seat] = index
        if not indices:
            return
        entries = {seat: plan[index % len(plan)] for seat, index in indices.items()}
        starts = seats.begin(entries)
        for seat, index in indices.items():
            start, episode = starts[seat], _Playing(index, entries[seat].seed)
            if not isinstance(start, Start):
                on_episode(_failed(episode, start))
                continue
            playing[seat] = episode
            acting.begin(seat, start.observation, episode.seed, index // len(plan))
            if log is not None:
                log.begin(seat, start, entries[seat], index)


def _failed(episode: _Playing, error: Exception) -> Episode:
    text = f"{type(error).__name__}: {error}".replace("\n", " ")
    return Episode(episode.index, episode.seed, float("nan"), episode.length, False, False, failed=text)


def _finished(episode: _Playing, step: Step, steering: dict[str, float]) -> Episode:
    return Episode(
        index=episode.index,
        seed=episode.seed,
        episode_return=_true_return(episode.episode_return, step.info),
        length=episode.length,
        terminated=step.terminated,
        truncated=step.truncated and not step.terminated,
        success=_success(step.info),
        steering=steering,
    )


def _true_return(seen: float, info: Any) -> float:
    """The return before wrappers changed the rewards, where a Monitor counted it: SB3's own rule."""
    counted = info.get("episode")
    if not isinstance(counted, dict) or "r" not in counted:
        return seen
    monitored = float(np.asarray(counted["r"]).reshape(-1)[0])
    return seen if abs(monitored - seen) <= _MONITOR_ROUNDING * max(1.0, abs(seen)) else monitored


def _success(info: Any) -> bool | None:
    for key in ("is_success", "success"):
        if key in info:
            return bool(np.asarray(info[key]).reshape(-1)[0])
    return None


def in_order(indices: Array | range | list[int]) -> NextEntry:
    """Plan indices one after the other, for a single process."""
    remaining = iter(indices)
    return lambda: next(remaining, None)
