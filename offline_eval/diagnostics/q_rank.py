"""Does a critic order states, and actions at a state, as the truth does? Kendall's tau-b, with controls.

Along a trajectory (`window_rank`, as in the SO2 study) tau mostly says which *state* is better, which a ruined critic
still knows; at restored states (`action_rank`) it says which *action* is better, which is what a policy needs. Noise in
the labels caps both: neither is worth anything without its ceiling.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from offline_eval.diagnostics.checks import real, same_rows
from offline_eval.diagnostics.clustered import Estimate, cluster_bootstrap, cluster_sums, mean_estimate, ratio
from offline_eval.diagnostics.kendall import count_in_windows, row_taus
from offline_eval.diagnostics.kendall import window_kendall_tau as window_kendall_tau
from offline_eval.errors import InputError, bare
from offline_eval.stats.intervals import LEVEL, Interval
from offline_eval.types import Array

LOWEST_CEILING = 0.2
"""Below this ceiling the labels are noise, and an action rank says nothing about the critic."""

_NUM_SPLITS = 16


def reliability_bound(ceiling: Any) -> Array:
    """Tau that a perfect critic is credited with, sqrt(2c / (1 + c)) for a split-half tau c: Spearman and Brown.

    The formula is that of correlations. Of Kendall's tau it promises too much: with normal values and noise a perfect
    critic is found at .85 of it where c is .31, at .94 where c is .70. Known thresholds were measured on this scale.
    """
    ceiling = np.clip(ceiling, 0.0, 1.0)
    return np.asarray(np.sqrt(2.0 * ceiling / (1.0 + ceiling)))


def normal_bound(ceiling: Any) -> Array:
    """The same where truth and noise are normal: tau to correlation by Greiner's sine, the formula, and back.

    A perfect critic is then found within 1 % of it, and along a noisy periodic gait within 6 %.
    """
    correlation = np.sin(0.5 * np.pi * np.clip(ceiling, 0.0, 1.0))
    return np.asarray(2.0 / np.pi * np.arcsin(reliability_bound(correlation)))


@dataclass(frozen=True, eq=False)
class WindowRank:
    """Agreement of a critic with the true returns along trajectories.

    Attributes:
        tau: mean of tau over the windows that were used, interval by episodes.
        shuffled: control: the same with the labels of each episode shuffled; mean and range over the shuffles. It is
            narrower than chance for a smooth critic: whether tau differs from 0 is told by tau's own interval.
        clock: control: the same for a critic that only counts the steps down. At 1 or -1 the order of the values is
            the order of time; as high as tau, the critic need not know more than the time.
        ceiling: tau between two independent sets of labels; None where only one was given.
        taus: (num_used,) tau of each window that was used.
        window: values in a window.
        num_windows: windows within an episode.
        num_constant: of those left out because the critic or the truth is constant in them.
        num_nonfinite: of those left out because a value is missing or not finite.
        num_short: episodes shorter than a window: they have none.
    """

    tau: Estimate
    shuffled: Estimate
    clock: float
    ceiling: Estimate | None
    taus: Array
    window: int
    num_windows: int
    num_constant: int
    num_nonfinite: int
    num_short: int

    @property
    def num_used(self) -> int:
        """Windows that were used."""
        return len(self.taus)


def window_rank(
    q: Any,
    truth: Any,
    episodes: Any,
    generator: np.random.Generator,
    *,
    second_truth: Any = None,
    window: int = 10,
    stride: int = 1,
    num_shuffles: int = 20,
) -> WindowRank:
    """Mean Kendall tau of a critic over windows within episodes, beside its controls.

    Args:
        q: (num_steps,) the critic at logged states and the actions taken there.
        truth: (num_steps,) discounted returns: `offline_eval.diagnostics.returns`; NaN where there is no label.
        episodes: (num_steps,) which episode a step belongs to; an episode's rows lie together, in the order of time.
        generator: shuffles labels and resamples episodes.
        second_truth: (num_steps,) a second, independent set of labels of the same steps. Then the critic is held
            against the mean of both, and the two against each other for the ceiling.
        window: values in a window; 10 in the SO2 study.
        stride: steps between the starts of windows.
        num_shuffles: of the control.

    Raises:
        InputError: no window can be used; the message says why.
    """
    q, truth, labels = real("q", q, ndim=1), real("truth", truth, ndim=1), np.asarray(episodes)
    same_rows(q=q, truth=truth, episodes=labels)
    first = truth
    if second_truth is not None:
        second = real("second_truth", second_truth, ndim=1)
        same_rows(q=q, second_truth=second)
        with np.errstate(invalid="ignore"):
            truth = 0.5 * (first + second)
    for name, value, least in (("window", window, 2), ("stride", stride, 1), ("num_shuffles", num_shuffles, 1)):
        if value < least:
            raise InputError(name, f"must be at least {least}", value)

    runs, starts = _runs(labels)
    lengths = np.diff(np.append(starts, len(labels)))
    if lengths.max() < window:
        raise InputError(
            "window",
            f"must not be longer than every episode (at most {lengths.max()} steps)",
            window,
            "choose a shorter window",
        )
    inside = runs[: len(q) - window + 1] == runs[window - 1 :]
    inside &= (np.arange(len(q)) - starts[runs])[: len(inside)] % stride == 0
    whole = count_in_windows(~(np.isfinite(q) & np.isfinite(truth)), window)[inside] == 0
    taus = window_kendall_tau(q, truth, window)[inside]
    used = whole & np.isfinite(taus)
    if not used.any():
        raise _no_window(q, truth, window, int(inside.sum()), int(np.sum(~whole)))

    rows = np.flatnonzero(inside)[used]
    labelled = np.flatnonzero(np.isfinite(q) & np.isfinite(truth))
    shuffles = [
        _mean(window_kendall_tau(q, _shuffled(truth, labelled, runs, generator), window)[rows])
        for _ in range(num_shuffles)
    ]
    ceiling = None
    if second_truth is not None:
        halves = window_kendall_tau(first, second, window)[rows]
        defined = np.isfinite(halves)
        ceiling = mean_estimate(halves[defined], runs[rows][defined], generator)
    return WindowRank(
        tau=mean_estimate(taus[used], runs[rows], generator),
        shuffled=_range(shuffles),
        clock=_mean(window_kendall_tau(-np.arange(len(q)), truth, window)[rows]),
        ceiling=ceiling,
        taus=taus[used],
        window=window,
        num_windows=int(inside.sum()),
        num_constant=int(np.sum(whole & ~used)),
        num_nonfinite=int(np.sum(~whole)),
        num_short=int(np.sum(lengths < window)),
    )


def _runs(episodes: Array) -> tuple[Array, Array]:
    """Which run of equal labels each row is in, and where each run starts."""
    starts = np.flatnonzero(np.append(True, episodes[1:] != episodes[:-1]))
    if len(np.unique(episodes[starts])) < len(starts):
        raise InputError(
            "episodes", "must keep the rows of an episode together", bare(f"{len(starts)} runs"), "sort by episode"
        )
    return np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(episodes)))), starts


def _no_window(q: Array, truth: Array, window: int, num_windows: int, num_nonfinite: int) -> InputError:
    for name, values in (("q", q), ("truth", truth)):
        known = values[np.isfinite(values)]
        if len(np.unique(known)) < 2:
            received = bare(f"{known[0]} everywhere" if len(known) else "no finite number")
            return InputError(name, "must vary: equal values have no order", received)
    return InputError(
        "window",
        "must hold values that are finite and that vary, in the critic and in the truth",
        bare(f"{num_windows} windows of {window}, {num_nonfinite} with a value that is not finite, the rest constant"),
        "sparse rewards need longer windows; labels that a time limit drops need `Extend`",
    )


def _shuffled(truth: Array, labelled: Array, runs: Array, generator: np.random.Generator) -> Array:
    """The labels of the rows `labelled`, each exchanged with another one of its run."""
    order = np.lexsort((generator.random(len(labelled)), runs[labelled]))
    shuffled = truth.copy()
    shuffled[labelled] = truth[labelled[order]]
    return shuffled


def _mean(taus: Array) -> float:
    defined = taus[np.isfinite(taus)]
    return float(defined.mean()) if len(defined) else float("nan")


def _range(means: list[float]) -> Estimate:
    low, high = np.nanquantile(means, [0.5 - 0.5 * LEVEL, 0.5 + 0.5 * LEVEL]).tolist()
    return Estimate(float(np.nanmean(means)), Interval(low, high, "range over shuffles"), len(means))


@dataclass(frozen=True, eq=False)
class ActionRank:
    """Agreement of a critic with the truth about several actions at the same state, over restored states.

    Attributes:
        tau: mean over states of tau between the critic and the mean of the rollouts, interval by episodes.
        shuffled: control: the same with the critic's values shuffled within each state; mean and range over shuffles.
        ceiling: mean tau `c` between the means of two halves of the rollouts; None where each action has one rollout.
        relative: tau divided by what a perfect critic would reach against labels of this noise, `reliability_bound`
            where nothing else was asked for; None, that is silent, where the ceiling is unknown or below
            `LOWEST_CEILING`.
        taus: (num_used,) tau at each state that was used.
        num_states: restored states.
        num_constant: of those left out because the critic or the truth rates all actions the same.
        num_nonfinite: of those left out because a value is missing or not finite.
        num_rollouts: a state and action.
    """

    tau: Estimate
    shuffled: Estimate
    ceiling: Estimate | None
    relative: Estimate | None
    taus: Array
    num_states: int
    num_constant: int
    num_nonfinite: int
    num_rollouts: int

    @property
    def num_used(self) -> int:
        """States that were used."""
        return len(self.taus)


def action_rank(
    q: Any,
    truth: Any,
    episodes: Any,
    generator: np.random.Generator,
    *,
    bound: Callable[[Array], Array] = reliability_bound,
    num_shuffles: int = 20,
) -> ActionRank:
    """Mean Kendall tau of a critic over actions at the same state, beside its control and its ceiling.

    Leave out actions that this critic chose among many: their values are too high because they were chosen.

    Args:
        q: (num_states, num_actions) the critic.
        truth: (num_states, num_actions, num_rollouts) returns of rollouts that start with the action; the same
            random numbers for all actions of a state and rollout make few rollouts suffice.
        episodes: (num_states,) which episode a state was taken from.
        generator: splits the rollouts, shuffles the control and resamples episodes.
        bound: what a perfect critic would reach, given the ceiling: `reliability_bound` or `normal_bound`.
        num_shuffles: of the control.

    Raises:
        InputError: no state can be used.
    """
    q, truth, labels = real("q", q, ndim=2), real("truth", truth, ndim=3), np.asarray(episodes)
    same_rows(q=q, truth=truth, episodes=labels)
    if truth.shape[1] != q.shape[1] or q.shape[1] < 2:
        raise InputError(
            "truth", f"must rate the same two or more actions as `q` {q.shape}", bare(f"shape {truth.shape}")
        )
    if num_shuffles < 1:
        raise InputError("num_shuffles", "must be at least 1", num_shuffles)
    whole = np.isfinite(q).all(axis=1) & np.isfinite(truth).all(axis=(1, 2))
    taus = np.full(len(q), np.nan)
    taus[whole] = row_taus(q[whole], truth[whole].mean(axis=2))
    used = np.isfinite(taus)
    if not used.any():
        raise InputError(
            "q",
            "must rate the actions of some state differently, and so must the truth",
            bare(f"{len(q)} states, {int(np.sum(~whole))} with a value that is not finite, the rest constant"),
            "perturb the actions more, or hold them for several steps",
        )
    q, truth, taus, labels = q[used], truth[used], taus[used], labels[used]
    halves = _split_half_taus(truth, generator)
    defined = np.isfinite(halves)
    ceiling = relative = None
    if defined.any():
        ceiling = mean_estimate(halves[defined], labels[defined], generator)
        if ceiling.value >= LOWEST_CEILING:
            columns = np.stack([taus, np.ones(len(taus)), np.where(defined, halves, 0.0), defined], axis=1)
            relative = cluster_bootstrap(
                lambda sums: ratio(sums) / bound(ratio(sums[..., 2:])),
                cluster_sums(columns, labels),
                generator=generator,
            )
    shuffles = [_mean(row_taus(generator.permuted(q, axis=1), truth.mean(axis=2))) for _ in range(num_shuffles)]
    return ActionRank(
        tau=mean_estimate(taus, labels, generator),
        shuffled=_range(shuffles),
        ceiling=ceiling,
        relative=relative,
        taus=taus,
        num_states=len(whole),
        num_constant=int(np.sum(whole & ~used)),
        num_nonfinite=int(np.sum(~whole)),
        num_rollouts=truth.shape[2],
    )


def _split_half_taus(truth: Array, generator: np.random.Generator) -> Array:
    """Tau (num_states,) between the means of two halves of the rollouts, averaged over random halves."""
    half = truth.shape[2] // 2
    if half == 0:
        return np.full(len(truth), np.nan)
    total, count = np.zeros((2, len(truth)))
    for _ in range(_NUM_SPLITS if truth.shape[2] > 2 else 1):
        order = generator.permutation(truth.shape[2])
        taus = row_taus(truth[..., order[:half]].mean(axis=2), truth[..., order[half : 2 * half]].mean(axis=2))
        total += np.where(np.isfinite(taus), taus, 0.0)
        count += np.isfinite(taus)
    with np.errstate(invalid="ignore"):
        return np.asarray(total / count)
