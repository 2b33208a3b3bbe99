"""What steering does to an agent beside its controls; which of two agents is better.

Names are loaded when they are first used (PEP 562).
"""

from typing import TYPE_CHECKING

from offline_eval.lazy import lazy_names

_HOME = {
    "Gate": "selection",
    "Tuning": "tuning",
    "compare": "comparison",
    "steer": "steering",
    "steering_variants": "steering",
    "tune_steering": "tuning",
}

__all__ = list(_HOME)

if TYPE_CHECKING:
    from offline_eval.steering.comparison import compare as compare
    from offline_eval.steering.selection import Gate as Gate
    from offline_eval.steering.steering import steer as steer
    from offline_eval.steering.steering import steering_variants as steering_variants
    from offline_eval.steering.tuning import Tuning as Tuning
    from offline_eval.steering.tuning import tune_steering as tune_steering

if not TYPE_CHECKING:  # a type checker would take any name
    __getattr__, __dir__ = lazy_names(__name__, _HOME)
