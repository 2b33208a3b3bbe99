"""Discounted returns of logged episodes, and what to do about the time limit.

A time limit cuts the reward that a critic rightly counts: `k` steps before it a return is short by `gamma**k`, so a
perfect critic is called an optimist and, over the last 100 of 1000 steps, ranks states at random. What to do about it
is a *tail rule*; an episode that terminates needs none.

| rule | the last states of a cut episode | their labels |
|---|---|---|
| `Drop` (the default) | have no label | |
| `Extend` | are rolled on past the limit | right to within the tolerance |
| `Bootstrap` | get the estimator's own value after the last reward | contaminated by the estimator |
| `NoTail` | get what was logged, as in the SO2 study | too small: they partly tell the time |
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Protocol

import numpy as np

from offline_eval.diagnostics.checks import finite, fraction
from offline_eval.errors import InputError, bare
from offline_eval.types import Array


@dataclass(frozen=True, eq=False)
class EpisodeRewards:
    """What one logged episode paid.

    Attributes:
        rewards: (num_steps,), in the critic's units.
        terminated: whether the environment ended the episode; a time limit does not count.
        continuation: (num_extra_steps,) rewards after the time limit, under the same policy; for `Extend`.
        continuation_terminated: whether the environment ended the continuation.
        final_value: the estimator's value of the state after the last reward; for `Bootstrap`.
    """

    rewards: Array
    terminated: bool
    continuation: Array = field(default_factory=lambda: np.zeros(0))
    continuation_terminated: bool = False
    final_value: float = math.nan


class TailRule(Protocol):
    """What to do about the rewards that a time limit cut off."""

    @property
    def caveat(self) -> str:
        """What a reader of the labels must know; empty where there is nothing to know."""
        ...

    def extra_steps(self, gamma: float) -> int:
        """How many steps the caller must roll on past the time limit."""
        ...

    def after(self, episode: EpisodeRewards, gamma: float) -> tuple[float, int]:
        """The value of what follows the last reward of a cut episode, and how many last states stay unlabelled."""
        ...


@dataclass(frozen=True)
class Drop:
    """States stay unlabelled where the time limit cuts more than a share `tolerance` of a steady return."""

    tolerance: float = 0.01

    def __post_init__(self) -> None:
        fraction("tolerance", self.tolerance)

    @property
    def caveat(self) -> str:
        """Nothing to know."""
        return ""

    def extra_steps(self, gamma: float) -> int:
        """None."""
        return 0

    def after(self, episode: EpisodeRewards, gamma: float) -> tuple[float, int]:
        """Nothing, and every state with fewer rewards left than `horizon`."""
        return 0.0, min(len(episode.rewards), horizon(self.tolerance, gamma) - 1)


@dataclass(frozen=True)
class Extend:
    """Cut episodes are rolled on until what is still missing is a share `tolerance` of a steady return."""

    tolerance: float = 0.01

    def __post_init__(self) -> None:
        fraction("tolerance", self.tolerance)

    @property
    def caveat(self) -> str:
        """Nothing to know."""
        return ""

    def extra_steps(self, gamma: float) -> int:
        """As many as the last state needs."""
        return horizon(self.tolerance, gamma) - 1

    def after(self, episode: EpisodeRewards, gamma: float) -> tuple[float, int]:
        """The return of the continuation; states that even so see too little stay unlabelled."""
        rewards = finite("continuation", episode.continuation, ndim=1) if len(episode.continuation) else np.zeros(0)
        value = float(discounted_sums(rewards, gamma))
        if episode.continuation_terminated:
            return value, 0
        missing = horizon(self.tolerance, gamma) - 1 - len(rewards)
        return value, min(max(missing, 0), len(episode.rewards))


@dataclass(frozen=True)
class Bootstrap:
    """The estimator's own value stands for what the time limit cut off."""

    @property
    def caveat(self) -> str:
        """The labels are not independent of what they are to judge."""
        return (
            "the labels of cut episodes contain the estimator's own value: near the limit they agree with it by design"
        )

    def extra_steps(self, gamma: float) -> int:
        """None."""
        return 0

    def after(self, episode: EpisodeRewards, gamma: float) -> tuple[float, int]:
        """The final value."""
        if not math.isfinite(episode.final_value):
            raise InputError("final_value", "must be finite for `Bootstrap`", episode.final_value)
        return float(episode.final_value), 0


@dataclass(frozen=True)
class NoTail:
    """Cut episodes are taken as they were logged, as in the SO2 study; warns where there is one."""

    @property
    def caveat(self) -> str:
        """The labels partly tell the time."""
        return "the labels of cut episodes shrink towards the time limit: bias and rank partly measure the clock"

    def extra_steps(self, gamma: float) -> int:
        """None."""
        return 0

    def after(self, episode: EpisodeRewards, gamma: float) -> tuple[float, int]:
        """Nothing."""
        return 0.0, 0


@dataclass(frozen=True, eq=False)
class ReturnLabels:
    """Discounted returns-to-go, one for each logged step, episode after episode.

    Attributes:
        values: (num_steps,), NaN where the tail rule gives no label.
        episodes: (num_steps,) position of the episode in the list that was given.
        steps: (num_steps,) time step within the episode.
        gamma: the discount per step.
        tail: the rule for cut episodes.
        caveat: what a reader must know; empty where no episode was cut.
    """

    values: Array
    episodes: Array
    steps: Array
    gamma: float
    tail: TailRule
    caveat: str

    @property
    def labelled(self) -> Array:
        """(num_steps,) whether the step has a label."""
        return np.isfinite(self.values)

    @property
    def share_labelled(self) -> float:
        """Share of the steps that have a label."""
        return float(self.labelled.mean())


def discounted_returns(episodes: Sequence[EpisodeRewards], gamma: float, tail: TailRule | None = None) -> ReturnLabels:
    """Label every step of logged episodes with the discounted sum of the rewards from it on.

    Args:
        episodes: rewards in the units the critic was trained on.
        gamma: the discount per step that the critic was trained with, in [0, 1].
        tail: what to do about a time limit; `Drop()` where nothing is said.

    Raises:
        InputError: a reward is not finite, no state is left with a label, or nothing distinguishes the states.
    """
    tail = Drop() if tail is None else tail
    if not 0.0 <= gamma <= 1.0:
        raise InputError("gamma", "must lie in [0, 1]", gamma)
    if len(episodes) == 0:
        raise InputError("episodes", "must hold at least one episode", bare("none"))
    rewards = [finite(f"rewards of episode {i}", episode.rewards, ndim=1) for i, episode in enumerate(episodes)]
    cut = [not episode.terminated for episode in episodes]
    if all(cut) and all(np.all(values == rewards[0][0]) for values in rewards):
        raise InputError(
            "rewards",
            "must differ somewhere where no episode terminates",
            bare(f"{rewards[0][0]} at every step"),
            "every state has the same value, so no critic can be told from another by its returns",
        )
    labels = [_labels(values, episode, gamma, tail) for values, episode in zip(rewards, episodes, strict=True)]
    lengths = [len(values) for values in rewards]
    result = ReturnLabels(
        values=np.concatenate(labels),
        episodes=np.repeat(np.arange(len(lengths)), lengths),
        steps=np.concatenate([np.arange(length) for length in lengths]),
        gamma=gamma,
        tail=tail,
        caveat=tail.caveat if any(cut) else "",
    )
    if not result.labelled.any():
        raise InputError(
            "tail",
            "must leave a state with a label",
            bare(f"{tail} at gamma {gamma} with episodes of at most {max(lengths)} steps"),
            "roll on past the time limit (`Extend`), or judge the critic with a smaller gamma",
        )
    if isinstance(tail, NoTail) and result.caveat:
        warnings.warn(f"`NoTail`: {result.caveat}", stacklevel=2)
    return result


def _labels(rewards: Array, episode: EpisodeRewards, gamma: float, tail: TailRule) -> Array:
    value, missing = (0.0, 0) if episode.terminated else tail.after(episode, gamma)
    backwards = accumulate(reversed(rewards.tolist()), lambda later, now: now + gamma * later, initial=value)
    labels = np.array(list(backwards)[:0:-1])
    labels[len(labels) - missing :] = np.nan
    return labels


def horizon(tolerance: float, gamma: float) -> int:
    """Rewards after which a share of at most `tolerance` of a steady return is missing: 459 at 1 % and gamma .99."""
    fraction("tolerance", tolerance)
    if gamma == 0.0:
        return 1
    if not 0.0 < gamma < 1.0:
        raise InputError(
            "gamma", "must be below 1 for a tolerance to mean anything", gamma, "use `NoTail` or a smaller gamma"
        )
    return math.ceil(math.log(tolerance) / math.log(gamma))


def discounted_sums(branches: Any, gamma: float) -> Array:
    """Discounted sums (...) of rewards (..., num_steps) of branches; 0 after a termination."""
    rewards = np.asarray(branches, dtype=np.float64)
    return np.asarray(np.dot(rewards, gamma ** np.arange(rewards.shape[-1])))


def soft_rewards(rewards: Any, entropy_bonuses: Any, gamma: float) -> Array:
    """Rewards (num_steps,) whose plain return is what a soft critic (SAC, TQC) estimates.

    The soft value of an action counts the entropy of all *later* actions: `r[t] + gamma * bonus[t + 1]`. The bonus
    of the action after the last reward is unknown and counted as 0, which the tail rule has to cover as it covers
    the rewards that were cut. (REDQ's measurement of bias uses the same augmented return.)

    Args:
        rewards: (num_steps,), a continuation included.
        entropy_bonuses: (num_steps,) `-temperature * log_prob` of the action taken at each step.
        gamma: the discount per step.
    """
    rewards, bonuses = finite("rewards", rewards, ndim=1), finite("entropy_bonuses", entropy_bonuses, ndim=1)
    if len(bonuses) != len(rewards):
        raise InputError("entropy_bonuses", f"must have one entry a reward ({len(rewards)})", len(bonuses))
    return np.asarray(rewards + gamma * np.append(bonuses[1:], 0.0))
