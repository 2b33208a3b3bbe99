"""What an evaluation returns: frozen records that know how they were made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from offline_eval.episodes.plan import EpisodePlan
from offline_eval.episodes.success import LastStep, SuccessAt
from offline_eval.types import FloatArray

if TYPE_CHECKING:
    from offline_eval.stats import Summary


@dataclass(frozen=True)
class Episode:
    """One planned episode.

    Attributes:
        index: its place in the plan.
        seed: what the environment was reset with.
        episode_return: undiscounted sum of rewards; NaN where the episode failed.
        length: steps played.
        terminated: the environment ended it.
        truncated: a time limit, or the step limit of the evaluation, cut it.
        failed: the error where the environment or the policy raised, or gave what cannot be used (NaN, another shape);
            else None.
        success: the last step's `is_success` or `success`, None where the environment does not tell.
        steering: mean over the steps of what the rule reported (`offline_eval.wrappers.steering`), without the rule {}.
        success_any: whether any step told of success; None where none told either way.
        fresh: it had an environment of its own, because every episode of the run has one.
    """

    index: int
    seed: int
    episode_return: float
    length: int
    terminated: bool
    truncated: bool
    failed: str | None = None
    success: bool | None = None
    steering: Mapping[str, float] = field(default_factory=dict)
    success_any: bool | None = None
    fresh: bool = False

    def to_json(self) -> dict[str, Any]:
        """The row of `--json`."""
        row: dict[str, Any] = {
            "seed": self.seed,
            "return": None if np.isnan(self.episode_return) else self.episode_return,
            "length": self.length,
            "terminated": self.terminated,
            "truncated": self.truncated,
            "failed": self.failed is not None,
        }
        if self.failed is not None:
            row["error"] = self.failed
        if self.success is not None:
            row["success"] = self.success
        if self.success_any is not None:
            row["success_any"] = self.success_any
        if self.steering:
            row["steering"] = dict(self.steering)
        return row


@dataclass(frozen=True)
class Invariance:
    """Whether a table is the same for any number of environments and workers, as far as it was checked.

    Attributes:
        holds: True where every episode that was played again came out the same, to the last bit; False where one did
            not, or where the table is known to depend on what plays it; None where nothing was checked.
        checked: episodes that were played again, in another order and in environments with another past.
        of: episodes that were played together with them.
        fresh: every episode had an environment of its own.
        reason: why it does not hold, why nothing was checked, or why environments are not used twice; else empty.
    """

    holds: bool | None
    checked: int = 0
    of: int = 0
    fresh: bool = False
    reason: str = ""

    def __str__(self) -> str:
        if self.holds is None:
            return f"not checked: {self.reason}"
        if not self.holds:
            return f"not invariant: {self.reason}"
        words = f"checked on {self.checked} of {self.of} episodes"
        return f"{words}, each in a new environment" if self.fresh else words

    @property
    def note(self) -> str | None:
        """What a reader of the table must know; None where nothing is out of the ordinary."""
        if self.holds is False:
            return str(self)
        return (
            f"every episode was played in a new environment, for {self.reason}" if self.fresh and self.reason else None
        )

    def to_json(self) -> dict[str, Any]:
        """What stands beside `invariant` in `--json`."""
        return {"checked": self.checked, "of": self.of, "fresh_environments": self.fresh, "words": str(self)}


NOT_CHECKED = Invariance(None, reason="nothing was played again")


@dataclass(frozen=True)
class Evaluation:
    """The table of an evaluated policy, in the order of its plan.

    Attributes:
        env: id of the environment.
        algorithm: class of the policy's algorithm.
        recipe: the steering rule as plain data, None for the policy as it is.
        plan: what was asked for.
        episodes: one record per plan entry.
        wall_time: seconds of playing, without the start of worker processes and the making of environments.
        weights_hash: of the policy before and after; None where it has no weights.
        invariance: whether the table is independent of the number of environments and workers, as far as checked.
        notes: what a reader should know: a normaliser was held still, a limit was set, ...
        independent: whether every episode begins anew. Where the policy goes on learning from one to the next, the
            summary has no intervals, and `curve` says what there is to say.
        success_at: at which step an episode must succeed.
        n_envs: environments side by side in each process; 0 where it is not known.
        workers: processes.
    """

    env: str
    algorithm: str
    recipe: Any
    plan: EpisodePlan
    episodes: tuple[Episode, ...]
    wall_time: float
    weights_hash: tuple[str | None, str | None] = (None, None)
    invariance: Invariance = NOT_CHECKED
    notes: tuple[str, ...] = ()
    independent: bool = True
    success_at: SuccessAt = field(default_factory=LastStep)
    n_envs: int = 0
    workers: int = 1

    @property
    def invariant(self) -> bool | None:
        """Whether the table is independent of the number of environments and workers; None where it is not checked."""
        return self.invariance.holds

    @cached_property
    def returns(self) -> FloatArray:
        """Undiscounted returns (num_episodes,), NaN for failed episodes."""
        return np.array([episode.episode_return for episode in self.episodes])

    @cached_property
    def summary(self) -> Summary:
        """Mean, IQM, median and intervals of the returns (`offline_eval.stats`)."""
        from offline_eval.stats import summarize
        from offline_eval.stats.comparison import summary_without_interval

        summary = summarize(self.returns)
        return summary if self.independent else summary_without_interval(summary)

    @property
    def curve(self) -> FloatArray | None:
        """Returns in the order in which they were played, where they are not independent; None where they are."""
        return None if self.independent else self.returns

    @property
    def num_steps(self) -> int:
        """Environment steps played."""
        return sum(episode.length for episode in self.episodes)

    @property
    def steps_per_second(self) -> float:
        """Environment steps a second of wall time."""
        return self.num_steps / self.wall_time if self.wall_time > 0 else float("nan")

    @property
    def share_truncated(self) -> float:
        """Share of the episodes that a limit cut."""
        return float(np.mean([episode.truncated for episode in self.episodes]))

    @property
    def mean_length(self) -> float:
        """Mean number of steps."""
        return float(np.mean([episode.length for episode in self.episodes]))

    @property
    def successes(self) -> tuple[int, int] | None:
        """Successful episodes and episodes that tell, `success_at` deciding; None where none tells.

        A failed episode counts among those that did not succeed.
        """
        return self.successes_at(self.success_at)

    def successes_at(self, at: SuccessAt) -> tuple[int, int] | None:
        """The same with success asked at another step."""
        if all(at.of(episode) is None for episode in self.episodes):
            return None
        counted = [episode for episode in self.episodes if episode.failed is not None or at.counts(episode)]
        return sum(bool(at.of(episode)) for episode in counted), len(counted)

    @property
    def failures(self) -> tuple[Episode, ...]:
        """Episodes that failed."""
        return tuple(episode for episode in self.episodes if episode.failed is not None)

    @property
    def steering(self) -> dict[str, float]:
        """Mean over all steps of what the rule reported."""
        names = dict.fromkeys(name for episode in self.episodes for name in episode.steering)
        lengths = np.array([episode.length for episode in self.episodes], dtype=float)
        rows = {name: [episode.steering.get(name, 0.0) for episode in self.episodes] for name in names}
        return {name: float(np.average(values, weights=lengths)) for name, values in rows.items()}
