"""offline-eval tells why an offline-RL agent underperforms, and mends what can be mended without retraining.

The names of the quick start are loaded when they are first used (PEP 562), so that `import offline_eval` costs
nothing: `from offline_eval import OPEX` imports torch, `import offline_eval` does not.
"""

from typing import TYPE_CHECKING

from offline_eval.lazy import lazy_names

__version__ = "0.1.0"

_HOME = {
    "EpisodePlan": "episodes",
    "evaluate": "episodes",
    "compare": "steering",
    "steer": "steering",
    "tune_steering": "steering",
    "collect": "training",
    "train": "training",
    "measure": "measurement",
    "track": "measurement",
    "diagnose": "diagnosis",
    "load_sb3": "policies",
    "critic_of": "policies",
    "actor_of": "policies",
    "OPEX": "wrappers",
    "BestOfN": "wrappers",
    "TestTimeTraining": "wrappers",
    "RandomDirection": "wrappers",
    "MultiplyAction": "wrappers",
    "Placebo": "wrappers",
    "SteerAction": "wrappers",
    "SteeredPolicy": "wrappers",
    "StateLogger": "wrappers",
}

__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from offline_eval.diagnosis import diagnose as diagnose
    from offline_eval.episodes import EpisodePlan as EpisodePlan
    from offline_eval.episodes import evaluate as evaluate
    from offline_eval.measurement import measure as measure
    from offline_eval.measurement import track as track
    from offline_eval.policies import actor_of as actor_of
    from offline_eval.policies import critic_of as critic_of
    from offline_eval.policies import load_sb3 as load_sb3
    from offline_eval.steering import compare as compare
    from offline_eval.steering import steer as steer
    from offline_eval.steering import tune_steering as tune_steering
    from offline_eval.training import collect as collect
    from offline_eval.training import train as train
    from offline_eval.wrappers import OPEX as OPEX
    from offline_eval.wrappers import BestOfN as BestOfN
    from offline_eval.wrappers import MultiplyAction as MultiplyAction
    from offline_eval.wrappers import Placebo as Placebo
    from offline_eval.wrappers import RandomDirection as RandomDirection
    from offline_eval.wrappers import StateLogger as StateLogger
    from offline_eval.wrappers import SteerAction as SteerAction
    from offline_eval.wrappers import SteeredPolicy as SteeredPolicy
    from offline_eval.wrappers import TestTimeTraining as TestTimeTraining

if not TYPE_CHECKING:  # a type checker would take any name
    __getattr__, __dir__ = lazy_names(__name__, _HOME)
