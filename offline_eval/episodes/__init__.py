"""Episode plans and the rollout engine: exactly the planned episodes, whatever the host or width."""

from typing import TYPE_CHECKING

from offline_eval.lazy import lazy_names

_HOME = {
    "AnyStep": "success",
    "Episode": "records",
    "EpisodePlan": "plan",
    "EpisodeStore": "store",
    "Evaluation": "records",
    "LastStep": "success",
    "PlanEntry": "plan",
    "StateLog": "store",
    "SuccessAt": "success",
    "evaluate": "evaluation",
    "evaluate_rules": "evaluation",
}

__all__ = list(_HOME)

if TYPE_CHECKING:
    from offline_eval.episodes.evaluation import evaluate as evaluate
    from offline_eval.episodes.evaluation import evaluate_rules as evaluate_rules
    from offline_eval.episodes.plan import EpisodePlan as EpisodePlan
    from offline_eval.episodes.plan import PlanEntry as PlanEntry
    from offline_eval.episodes.records import Episode as Episode
    from offline_eval.episodes.records import Evaluation as Evaluation
    from offline_eval.episodes.store import EpisodeStore as EpisodeStore
    from offline_eval.episodes.store import StateLog as StateLog
    from offline_eval.episodes.success import AnyStep as AnyStep
    from offline_eval.episodes.success import LastStep as LastStep
    from offline_eval.episodes.success import SuccessAt as SuccessAt

if not TYPE_CHECKING:  # a type checker would take any name
    __getattr__, __dir__ = lazy_names(__name__, _HOME)
