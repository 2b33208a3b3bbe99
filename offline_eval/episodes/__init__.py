"""Episode plans and the rollout engine: exactly the planned episodes, whatever the host or width."""

from importlib import import_module
from typing import TYPE_CHECKING

_HOME = {
    "Episode": "offline_eval.episodes.records",
    "EpisodePlan": "offline_eval.episodes.plan",
    "Evaluation": "offline_eval.episodes.records",
    "PlanEntry": "offline_eval.episodes.plan",
    "evaluate": "offline_eval.episodes.evaluation",
}

__all__ = list(_HOME)

if TYPE_CHECKING:
    from offline_eval.episodes.evaluation import evaluate as evaluate
    from offline_eval.episodes.plan import EpisodePlan as EpisodePlan
    from offline_eval.episodes.plan import PlanEntry as PlanEntry
    from offline_eval.episodes.records import Episode as Episode
    from offline_eval.episodes.records import Evaluation as Evaluation


def __getattr__(name: str) -> object:
    # A plan needs no torch, and the workers' fork server is started before this process imports it (PEP 562).
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
