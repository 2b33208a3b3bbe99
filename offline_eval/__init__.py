"""offline-eval tells why an offline-RL agent underperforms, and mends what can be mended without retraining.

The names of the quick start are loaded when they are first used (PEP 562), so that `import offline_eval` costs
nothing: `from offline_eval import OPEX` imports torch, `import offline_eval` does not.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOME = {
    "EpisodePlan": "offline_eval.episodes",
    "evaluate": "offline_eval.episodes",
    "steer": "offline_eval.studies.steering",
    "compare": "offline_eval.studies.comparison",
    "load_sb3": "offline_eval.policies",
    "critic_of": "offline_eval.policies",
    "OPEX": "offline_eval.wrappers",
    "BestOfN": "offline_eval.wrappers",
    "RandomDirection": "offline_eval.wrappers",
    "MultiplyAction": "offline_eval.wrappers",
    "Placebo": "offline_eval.wrappers",
    "SteerAction": "offline_eval.wrappers",
    "SteeredPolicy": "offline_eval.wrappers",
    "StateLogger": "offline_eval.wrappers",
}

__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from offline_eval.episodes import EpisodePlan as EpisodePlan
    from offline_eval.episodes import evaluate as evaluate
    from offline_eval.policies import critic_of as critic_of
    from offline_eval.policies import load_sb3 as load_sb3
    from offline_eval.studies.comparison import compare as compare
    from offline_eval.studies.steering import steer as steer
    from offline_eval.wrappers import OPEX as OPEX
    from offline_eval.wrappers import BestOfN as BestOfN
    from offline_eval.wrappers import MultiplyAction as MultiplyAction
    from offline_eval.wrappers import Placebo as Placebo
    from offline_eval.wrappers import RandomDirection as RandomDirection
    from offline_eval.wrappers import StateLogger as StateLogger
    from offline_eval.wrappers import SteerAction as SteerAction
    from offline_eval.wrappers import SteeredPolicy as SteeredPolicy


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
