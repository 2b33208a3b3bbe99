"""The eleven faults that the data doctor knows; each check gives its findings, or none.

What each means, and what keeps it from a false alarm, is said where it is checked. Numbers here are thresholds of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from gymnasium import spaces

from offline_eval.datasets.alignment import Steps, reward_shift
from offline_eval.datasets.continuity import ends_apart, ends_in_a_row
from offline_eval.datasets.duplicates import duplicated_tail
from offline_eval.datasets.ends import hardly_follow
from offline_eval.datasets.evidence import Evidence
from offline_eval.types import Array, FloatArray

Severity = Literal["error", "warning"]

_HUGE = 1e6
_OUTLYING = 1e3
_APART = 1e4
_DIVERGED = 1e2
_USUAL = 0.95
_SAMPLE = 100_000


@dataclass(frozen=True)
class Finding:
    """One fault of a data set.

    Attributes:
        code: one of the keys of `CHECKS`.
        severity: "error" where learning from the data as they are gives wrong values, else "warning".
        where: which rows, dimensions or trajectories.
        fix: what to do about it.
    """

    code: str
    severity: Severity
    where: str
    fix: str

    def as_dict(self) -> dict[str, str]:
        """As plain data."""
        return asdict(self)


def timeouts_as_terminals(evidence: Evidence) -> Iterator[Finding]:
    """Episodes cut by the time limit that are flagged as terminal: nothing is bootstrapped where a value is needed."""
    last = np.flatnonzero(evidence.flagged)
    terminal, timeout = evidence.terminals[last], evidence.timeouts[last]
    fix = "flag these ends as timeouts (truncated) and not as terminals: the value of the state they reached counts on"
    both = int((terminal & timeout).sum())
    if both >= 2 and both > 0.5 * timeout.sum():
        where = f"{both} of {int(timeout.sum())} timeouts are flagged as terminal, too"
        yield Finding("timeouts_as_terminals", "error", where, fix)
        return
    lengths = np.diff(last, prepend=-1)
    if not len(lengths):
        return
    longest = int(evidence.max_episode_steps or lengths.max())
    at_limit = lengths == longest
    count = int((at_limit & terminal).sum())
    if (at_limit & ~terminal).any() or _tells_time(evidence) or not _is_limit(evidence, lengths, longest, count):
        return
    where = f"{count} of {len(last)} trajectories end as terminal after exactly {longest} steps"
    yield Finding("timeouts_as_terminals", "error", where, fix)


def _tells_time(evidence: Evidence) -> bool:
    """Whether a column is the same in every episode at the same step, and changes from step to step.

    Then the state knows how much time is left, and an end by the time limit is a terminal state.
    """
    lengths = evidence.lengths
    if len(lengths) < 2:
        return False
    step = np.arange(len(evidence.rewards)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    count = np.bincount(step)
    for column in evidence.observations.T.astype(np.float64):
        spread = np.ptp(column)
        mean = np.bincount(step, column) / count
        if spread > 0 and np.abs(column - mean[step]).max() <= 1e-3 * spread and len(np.unique(mean)) > 0.5 * len(mean):
            return True
    return False


def _is_limit(evidence: Evidence, lengths: Array, longest: int, count: int) -> bool:
    """Whether terminal ends after `longest` steps are a time limit and no chance.

    A policy that always falls at the same step makes equal lengths, too. Time limits are round numbers.
    """
    if evidence.max_episode_steps is not None:
        return count >= 2 or count == len(lengths)
    if longest < 10 or (lengths > longest).any():
        return False
    share = count / len(lengths)
    if longest % 50 == 0:
        return count >= max(2, 0.05 * len(lengths))
    return (longest % 10 == 0 and count >= 3 and share >= 0.25) or (count >= 5 and share == 1.0)


def crossing_next_observations(evidence: Evidence) -> Iterator[Finding]:
    """Next observations at the end of an episode that are the first observation of the next one.

    Where the next trajectory goes on where the last one stopped (maze2d, where a timeout is a new goal), they are
    equal without a fault: there the step is as small as any other. A reset is a jump.
    """
    if evidence.next_observations is None or not evidence.names:
        return
    last = np.flatnonzero(evidence.flagged[:-1] & evidence.next_known[:-1])
    if not len(last):
        return
    after, follower = evidence.next_observations[last], evidence.observations[last + 1]
    equal = (np.abs(after - follower) <= 1e-6 * (1 + np.abs(follower))).all(axis=1)
    inner = np.flatnonzero(~evidence.ends)
    if equal.sum() < 0.5 * len(last) or not len(inner):
        return
    inner = inner[:: max(1, len(inner) // _SAMPLE)]
    usual = evidence.next_observations[inner] - evidence.observations[inner]
    spread = usual.std(axis=0) + 1e-12
    usual_size = np.linalg.norm(usual / spread, axis=1)
    crossing = last[equal]
    size = np.linalg.norm((evidence.next_observations[crossing] - evidence.observations[crossing]) / spread, axis=1)
    if np.median(size) <= np.quantile(usual_size, 0.95):
        return
    cut = evidence.timeouts[crossing].any()
    yield Finding(
        "crossing_next_observations",
        "error" if cut else "warning",
        f"next_observations of {len(crossing)} of {len(last)} episode ends are the next episode's first observation, "
        f"first at row {crossing[0]}",
        "store the observation that the step led to, before the reset; or leave next_observations out, "
        "and the last steps of cut episodes are not learned from"
        if cut
        else "harmless for a TD target, which is masked there; not for a model of the dynamics",
    )


def shifted_rewards(evidence: Evidence) -> Iterator[Finding]:
    """Rewards that belong to the row before or after: see `offline_eval.datasets.alignment`."""
    if not evidence.names:
        return
    shift = reward_shift(
        Steps(
            evidence.observations,
            evidence.actions,
            evidence.rewards,
            evidence.ends,
            evidence.next_observations,
            evidence.next_known,
        )
    )
    if shift is not None:
        late = shift.lag < 0
        yield Finding(
            "shifted_rewards",
            "error" if shift.is_certain else "warning",
            f"rewards: row i holds what belongs to row i {'-' if late else '+'} 1: {shift.evidence}",
            f"{'' if shift.is_certain else 'look at how the file was made; if it is so, '}move the rewards one row "
            f"{'up' if late else 'down'}, and drop the row that is left without one: "
            "rewards[i] is for observations[i], actions[i] and what they led to",
        )


def zero_rewards(evidence: Evidence) -> Iterator[Finding]:
    """Rewards that are 0 throughout: a value learned from them is 0, too."""
    if not np.any(evidence.rows.rewards):
        lacking = evidence.source.format == "ogbench"
        yield Finding(
            "zero_rewards",
            "warning" if lacking else "error",
            f"rewards: all {len(evidence.rewards)} are 0",
            "compute the rewards of a task (this layout has none); cloning needs none"
            if lacking
            else "look at how the file was made; cloning needs no rewards, everything else does",
        )


def ends_one_after_the_other(evidence: Evidence) -> Iterator[Finding]:
    """Ends that are flagged row after row, as long as a goal is held, though the trajectory goes on."""
    runs = ends_in_a_row(evidence.observations, evidence.flagged) if evidence.names else None
    if runs is not None:
        yield Finding(
            "ends_in_a_row",
            "warning",
            f"in {runs.runs} places {'terminals' if evidence.terminals[runs.first] else 'timeouts'} follow one "
            f"another, {runs.rows} rows in all, though the observations go on; the first at row {runs.first}",
            "keep the first flag of each run and drop the rows after it up to the reset; or, if what is reached does "
            "not end the episode, clear them and flag the last row before the reset in `timeouts`",
        )


def repeated_end(evidence: Evidence) -> Iterator[Finding]:
    """Last rows that are copies of earlier ones: see `offline_eval.datasets.duplicates`."""
    found = duplicated_tail(evidence.rows)
    if found is not None:
        first = len(evidence.rows) - found.length
        what = "0 throughout: room that was never filled" if found.is_empty else f"copies of those at row {found.first}"
        yield Finding(
            "duplicated_tail",
            "error" if found.is_empty else "warning",
            f"the last {found.length} rows, from row {first} on, are {what}",
            f"keep the first {first} rows",
        )


def actions_out_of_bounds(evidence: Evidence) -> Iterator[Finding]:
    """Actions outside of their space by more than rounding."""
    space, actions = evidence.action_space, evidence.actions
    if isinstance(space, spaces.Box) and int(np.prod(space.shape)) == actions.shape[1]:
        low, high = space.low.reshape(-1).astype(np.float64), space.high.reshape(-1).astype(np.float64)
        slack = np.where(np.isfinite(high - low), 1e-4 * (high - low), 0.0)
        outside = (actions < low - slack) | (actions > high + slack)
        if not outside.any():
            return
        row, column = np.argwhere(outside)[0]
        whose = f", which is {evidence.whose_actions}" if evidence.whose_actions else ""
        yield Finding(
            "actions_out_of_bounds",
            "warning",
            f"actions: {100 * outside.mean():.2g} % of the numbers, in {int(outside.any(axis=0).sum())} of "
            f"{actions.shape[1]} dimensions, first actions[{row}, {column}] = {actions[row, column]:.6g}; they reach "
            f"from {actions.min():.6g} to {actions.max():.6g}, the space from {low.min():.6g} to {high.max():.6g}"
            f"{whose}",
            "if the data are from another environment, name it: `--env ID`, in Python `action_space=`; "
            "else clip the actions, as the environment did",
        )
    elif isinstance(space, spaces.Discrete):
        bad = np.flatnonzero((actions[:, 0] < space.start) | (actions[:, 0] >= space.start + space.n))
        if len(bad):
            where = f"actions: {len(bad)} rows are not in {space}, first actions[{bad[0]}] = {actions[bad[0], 0]:.6g}"
            fix = "name the environment that the data were collected in: `--env ID`, in Python `action_space=`"
            yield Finding("actions_out_of_bounds", "error", where, fix)


def constant_dimension(evidence: Evidence) -> Iterator[Finding]:
    """Dimensions that never change: they carry nothing, and break what divides by their spread."""
    if len(evidence.rewards) < 2:
        return
    for name, columns, values in _tables(evidence):
        is_constant = values.min(axis=0) == values.max(axis=0)
        if evidence.next_observations is not None and values is evidence.observations:
            is_constant &= (evidence.next_observations == values[0]).all(axis=0)  # only final states may differ
        constant = np.flatnonzero(is_constant)
        if len(constant):
            yield Finding(
                "constant_dimension",
                "warning",
                f"{len(constant)} of {values.shape[1]} dimensions of {name}: {_listed([columns[i] for i in constant])}",
                "normalise with a floor under the standard deviation, or leave the dimensions out",
            )


def exploding_dimension(evidence: Evidence) -> Iterator[Finding]:
    """Dimensions beyond 1e6, or a thousand times their own usual range, or of 1e4 times the others' spread.

    A dimension that is large throughout is in other units (a time stamp); one that seldom is has diverged.
    """
    for _, columns, values in _tables(evidence):
        if not values.shape[1]:
            continue
        largest = np.abs(values).max(axis=0)
        low, high = np.quantile(values[:: max(1, len(values) // _SAMPLE)], [0.01, 0.99], axis=0)
        usual = high - low
        beyond = np.maximum(values.max(axis=0) - high, low - values.min(axis=0))
        outlying = (usual > 0) & (beyond > _OUTLYING * usual) & (largest > 100)
        spread = values.std(axis=0, dtype=np.float64)
        others = spread[spread > 0]
        apart = (len(others) >= 3) & (spread > _APART * np.median(others)) if len(others) else np.zeros_like(outlying)
        exploding = np.flatnonzero((largest > _HUGE) | outlying | apart)
        if len(exploding):
            worst = exploding[np.argmax(largest[exploding])]
            row = int(np.argmax(np.abs(values[:, worst])))
            middle = np.quantile(np.abs(values[:, worst]), _USUAL)
            has_diverged = float(largest[worst]) > max(_HUGE, _DIVERGED * float(middle))
            yield Finding(
                "exploding_dimension",
                "error" if has_diverged else "warning",
                f"{_listed([columns[i] for i in exploding])}: {largest[worst]:.3g} in {columns[worst]} at row {row}",
                "drop the trajectories in which the simulation diverged"
                if has_diverged
                else "scale what is in other units; drop the trajectories if a simulation diverged in them",
            )
    yield from _large_rewards(evidence)


def _large_rewards(evidence: Evidence) -> Iterator[Finding]:
    """Rewards of any size are a task's own business; but no network that begins at 0 comes to such values."""
    row = int(np.argmax(np.abs(evidence.rewards)))
    if abs(evidence.rewards[row]) > _HUGE:
        where = f"rewards: {evidence.rewards[row]:.3g} at row {row}"
        yield Finding("exploding_dimension", "warning", where, "divide the rewards by their usual size")


def bad_numbers(evidence: Evidence) -> Iterator[Finding]:
    """NaN, infinite numbers, and those that float32 cannot hold."""
    for where in evidence.bad_numbers:
        fix = "drop the trajectories that hold them: one such number makes every weight NaN"
        yield Finding("non_finite", "error", where, fix)


def missing_episode_ends(evidence: Evidence) -> Iterator[Finding]:
    """Episode ends that nobody flags: steps are learned across resets, and returns run on."""
    fix = "flag the last step of every episode in `timeouts` (truncated)"
    cut_by_limit = f"{fix}, or give the time limit when opening: `--max-episode-steps`, `max_episode_steps=`"
    seams = np.flatnonzero(evidence.seams & ~evidence.flagged)
    if len(seams):
        # Without any timeouts the readers here take these rows for ends; other people's do not.
        severity: Severity = "error" if evidence.timeouts.any() else "warning"
        where = f"{len(seams)} rows that are no end are not followed by their next observation, first row {seams[0]}"
        if hardly_follow(evidence.seams, evidence.flagged):
            severity, where = "error", f"{where}: most rows are in no order of time"
            fix = (
                "if they were shuffled, or each is a transition of its own, open them with `--transitions`, "
                f"`transitions=True`; if next observations were measured anew, {fix}"
            )
        yield Finding("missing_episode_ends", severity, where, fix)
        return
    if not evidence.flagged.any():
        where = f"none of {len(evidence.rewards)} rows is flagged as the end of an episode"
        yield Finding("missing_episode_ends", "error", where, cut_by_limit)
        return
    limit, lengths = evidence.max_episode_steps, evidence.lengths
    if limit is not None and (lengths > limit).any():
        count = int((lengths > limit).sum())
        where = f"{count} of {len(lengths)} trajectories are longer than the time limit of {limit} steps"
        later = f"{fix}; if the episodes had a later limit, give that: `--max-episode-steps`, `max_episode_steps=`"
        yield Finding("missing_episode_ends", "error", where, later)
        return
    # A length that nearly all cut trajectories share is a time limit, which none can exceed.
    cut = np.diff(np.flatnonzero(evidence.ends), prepend=-1)[evidence.timeouts[evidence.ends]]
    if len(cut) >= 5:
        usual = int(np.median(cut))
        too_long = int((lengths > usual).sum())
        if usual > 1 and too_long and (cut == usual).mean() >= 0.8:
            where = f"{too_long} trajectories are longer than {usual} steps, where nearly all others are cut"
            yield Finding("missing_episode_ends", "warning", where, fix)
            return
    apart = ends_apart(evidence.observations, evidence.flagged) if evidence.names else None
    if apart is not None:
        side = "after" if apart.rows > 0 else "before"
        yield Finding(
            "missing_episode_ends",
            "warning",
            f"{apart.agreeing} of {apart.ends} flagged ends are followed by no jump of the observations, which comes "
            f"{abs(apart.rows)} rows {side} them",
            "move the flags to the last row before the reset: episodes end where the observations jump",
        )


def _tables(evidence: Evidence) -> Iterator[tuple[str, list[str], FloatArray]]:
    yield "the observations", list(evidence.names), evidence.observations
    yield "the actions", [f"actions[{i}]" for i in range(evidence.actions.shape[1])], evidence.actions


def _listed(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


CHECKS: dict[str, Callable[[Evidence], Iterator[Finding]]] = {
    "timeouts_as_terminals": timeouts_as_terminals,
    "crossing_next_observations": crossing_next_observations,
    "shifted_rewards": shifted_rewards,
    "zero_rewards": zero_rewards,
    "ends_in_a_row": ends_one_after_the_other,
    "duplicated_tail": repeated_end,
    "actions_out_of_bounds": actions_out_of_bounds,
    "constant_dimension": constant_dimension,
    "exploding_dimension": exploding_dimension,
    "non_finite": bad_numbers,
    "missing_episode_ends": missing_episode_ends,
}
"""Every code with its check, in the order of a report."""
