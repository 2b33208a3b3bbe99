"""What yields an action or a value: agents opened from files, critics, normalisation, offline training."""

from typing import TYPE_CHECKING

from offline_eval.lazy import lazy_names

_HOME = {
    "load_sb3": "loading",
    "spaces_of": "setting",
    "AgentZip": "opening",
    "opened": "opening",
    "actor_of": "actor_views",
    "critic_of": "critics",
    "QCritic": "critics",
    "with_target": "target_critic",
    "Normalized": "normalization",
    "Statistics": "normalization",
    "find_vecnormalize": "normalization",
    "read_vecnormalize": "vecnormalize_file",
    "weaken": "weakening",
    "weights_hash": "fingerprint",
    "OfflineAlgorithm": "algorithm",
    "RECIPES": "recipes",
    "Recipe": "recipes",
    "recipe_of": "recipes",
    "BC": "algorithms",
    "AWR": "algorithms",
    "IQL": "algorithms",
    "IQLDDPGBC": "algorithms",
    "IQLSfBC": "algorithms",
    "OneStepAWR": "algorithms",
    "OneStepDDPGBC": "algorithms",
    "DDPGBC": "algorithms",
    "TD3BC": "algorithms",
}

__all__ = list(_HOME)

if TYPE_CHECKING:
    from offline_eval.policies.actor_views import actor_of as actor_of
    from offline_eval.policies.algorithm import OfflineAlgorithm as OfflineAlgorithm
    from offline_eval.policies.algorithms import AWR as AWR
    from offline_eval.policies.algorithms import BC as BC
    from offline_eval.policies.algorithms import DDPGBC as DDPGBC
    from offline_eval.policies.algorithms import IQL as IQL
    from offline_eval.policies.algorithms import IQLDDPGBC as IQLDDPGBC
    from offline_eval.policies.algorithms import TD3BC as TD3BC
    from offline_eval.policies.algorithms import IQLSfBC as IQLSfBC
    from offline_eval.policies.algorithms import OneStepAWR as OneStepAWR
    from offline_eval.policies.algorithms import OneStepDDPGBC as OneStepDDPGBC
    from offline_eval.policies.critics import QCritic as QCritic
    from offline_eval.policies.critics import critic_of as critic_of
    from offline_eval.policies.fingerprint import weights_hash as weights_hash
    from offline_eval.policies.loading import load_sb3 as load_sb3
    from offline_eval.policies.normalization import Normalized as Normalized
    from offline_eval.policies.normalization import Statistics as Statistics
    from offline_eval.policies.normalization import find_vecnormalize as find_vecnormalize
    from offline_eval.policies.opening import AgentZip as AgentZip
    from offline_eval.policies.opening import opened as opened
    from offline_eval.policies.recipes import RECIPES as RECIPES
    from offline_eval.policies.recipes import Recipe as Recipe
    from offline_eval.policies.recipes import recipe_of as recipe_of
    from offline_eval.policies.setting import spaces_of as spaces_of
    from offline_eval.policies.target_critic import with_target as with_target
    from offline_eval.policies.vecnormalize_file import read_vecnormalize as read_vecnormalize
    from offline_eval.policies.weakening import weaken as weaken

if not TYPE_CHECKING:  # a type checker would take any name
    __getattr__, __dir__ = lazy_names(__name__, _HOME)
