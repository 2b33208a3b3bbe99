"""Episode plans and the rollout engine: exactly the planned episodes, whatever the host or width."""

from offline_eval.episodes.evaluate import evaluate
from offline_eval.episodes.plan import EpisodePlan, PlanEntry
from offline_eval.episodes.records import Episode, Evaluation

__all__ = ["Episode", "EpisodePlan", "Evaluation", "PlanEntry", "evaluate"]
