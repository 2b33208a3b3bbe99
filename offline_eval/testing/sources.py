"""Where the assertions get their episodes from: played afresh, or from whoever kept them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from offline_eval.datasets.recorder import LoggedEpisode
    from offline_eval.environments import EnvironmentLike
    from offline_eval.episodes import EpisodePlan, Evaluation
    from offline_eval.types import Predictor, Rule


class EpisodeSource(Protocol):
    """Plays episodes, or knows them already.

    Assertions ask for a plan in parts, a batch of its entries at a time; what is kept should be kept by entry.
    """

    def evaluation(
        self, policy: Predictor, env: EnvironmentLike, plan: EpisodePlan, rule: Rule | None = None
    ) -> Evaluation:
        """The planned episodes, in the order of the plan."""
        ...

    def logged(self, policy: Predictor, env: EnvironmentLike, plan: EpisodePlan) -> Sequence[LoggedEpisode]:
        """The planned episodes with every visited state, in the order of the plan; without those that failed."""
        ...


@dataclass(frozen=True)
class FreshEpisodes:
    """Plays every episode that is asked for; nothing is played again to check it (`assert_deterministic` does).

    Attributes:
        n_envs: environments side by side; "auto" takes up to as many as a padded batch has rows.
        workers: processes; "auto" takes one a core where a batch is long enough.
    """

    n_envs: int | str = "auto"
    workers: int | str = 1

    def evaluation(
        self, policy: Predictor, env: EnvironmentLike, plan: EpisodePlan, rule: Rule | None = None
    ) -> Evaluation:
        """The planned episodes, in the order of the plan."""
        from offline_eval.episodes import evaluate

        return evaluate(policy, env, plan, rule=rule, n_envs=self.n_envs, workers=self.workers, replays=0)

    def logged(self, policy: Predictor, env: EnvironmentLike, plan: EpisodePlan) -> Sequence[LoggedEpisode]:
        """The planned episodes with every visited state, in the order of the plan; without those that failed."""
        from offline_eval.datasets.log import open_log
        from offline_eval.episodes import StateLog, evaluate

        with TemporaryDirectory() as temporary:
            folder = Path(temporary) / "states"
            evaluation = evaluate(
                policy, env, plan, n_envs=self.n_envs, workers=self.workers, replays=0, store=StateLog(folder)
            )
            if len(evaluation.failures) == len(plan):
                return []
            return sorted(open_log(folder), key=lambda episode: episode.key or 0)
