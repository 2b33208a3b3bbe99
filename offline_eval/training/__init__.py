"""From data to agents and critics, and from agents to data.

Names are loaded when they are first used (PEP 562).
"""

from typing import TYPE_CHECKING

from offline_eval.lazy import lazy_names

_HOME = {
    "TrainingPlan": "run",
    "collect": "collection",
    "fit_critic": "fitted_critic",
    "train": "training",
}

__all__ = list(_HOME)

if TYPE_CHECKING:
    from offline_eval.training.collection import collect as collect
    from offline_eval.training.fitted_critic import fit_critic as fit_critic
    from offline_eval.training.run import TrainingPlan as TrainingPlan
    from offline_eval.training.training import train as train

if not TYPE_CHECKING:  # a type checker would take any name
    __getattr__, __dir__ = lazy_names(__name__, _HOME)
