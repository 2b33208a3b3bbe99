"""The recipes as classes: `IQL("MlpPolicy", env, expectile=0.9)` is `OfflineAlgorithm("iql", env)` with that number.

>>> IQL(expectile=0.9, seed=0).recipe.value
Implicit(expectile=0.9)

Each takes the numbers of its recipe as keywords, how observations and rewards are treated, and the words of
`OfflineAlgorithm`. Files are those of `OfflineAlgorithm`; other parts (another actor, say) are put together there.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from typing import Any, ClassVar, Self

import torch as th
from stable_baselines3.common.type_aliases import GymEnv

from offline_eval.errors import InputError, bare
from offline_eval.policies.algorithm import OfflineAlgorithm
from offline_eval.policies.recipe_names import CONSTRUCTORS
from offline_eval.policies.recipes import RECIPES, Recipe

_WHOLE = ("observations", "rewards", "policy_delay")
"""Fields of a recipe that are keywords as they are."""


class NamedAlgorithm(OfflineAlgorithm):
    """An `OfflineAlgorithm` whose recipe is that of its class, but for the numbers that are given.

    Args:
        policy: "MlpPolicy", as for Stable-Baselines3's algorithms; there is no other.
        env: to learn online in, or its id; without it the spaces come from the data.
        words: the recipe's numbers, `observations`, `rewards`, `policy_delay`, and the words of `OfflineAlgorithm`.

    Raises:
        InputError: a keyword that neither has, or a value that is out of range.
    """

    recipe_name: ClassVar[str]

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        names = {constructor: name for name, constructor in CONSTRUCTORS.items()}
        if cls.__name__ in names:
            cls.recipe_name = names[cls.__name__]
        # What help() and editors show: the keywords with the recipe's own values.
        kind = inspect.Parameter
        own = [
            kind(name, kind.KEYWORD_ONLY, default=value) for name, value in _hyperparameters(cls._own_recipe()).items()
        ]
        first = [
            kind("policy", kind.POSITIONAL_OR_KEYWORD, default="MlpPolicy"),
            kind("env", kind.POSITIONAL_OR_KEYWORD, default=None),
        ]
        general = [word.replace(kind=kind.KEYWORD_ONLY) for word in _GENERAL.values()]
        cls.__signature__ = inspect.Signature([*first, *own, *general])  # type: ignore[attr-defined]

    def __init__(self, policy: str = "MlpPolicy", env: GymEnv | str | None = None, **words: Any) -> None:
        if policy != "MlpPolicy":
            way_out = f"the environment comes second: {type(self).__name__}('MlpPolicy', env), or env=..."
            raise InputError("policy", 'must be "MlpPolicy"', policy, way_out)
        recipe = self._own_recipe()
        known = _hyperparameters(recipe)
        for name, value in words.items():
            if name not in known and name not in _GENERAL:
                close = get_close_matches(name, [*known, *_GENERAL], n=1)
                way_out = f"did you mean {close[0]}?" if close else f"its own are {', '.join(known)}"
                raise InputError(name, f"must be a keyword of {type(self).__name__}", value, way_out)
        own = {name: value for name, value in words.items() if name in known}
        general = {name: value for name, value in words.items() if name not in known}
        super().__init__(_changed(recipe, own), env, **general)

    @classmethod
    def _own_recipe(cls) -> Recipe:
        return RECIPES[cls.recipe_name]()

    @classmethod
    def _of_recipe(cls, recipe: Recipe, device: th.device | str, words: Mapping[str, Any]) -> Self:
        known = _hyperparameters(cls._own_recipe())
        theirs = {name: value for name, value in _hyperparameters(recipe).items() if name in known}
        if _changed(cls._own_recipe(), theirs) != recipe:
            names = {make(): CONSTRUCTORS[name] for name, make in RECIPES.items() if name in CONSTRUCTORS}
            way_out = f"{names[recipe]}.load opens it" if recipe in names else "OfflineAlgorithm.load opens any recipe"
            raise InputError("path", f"must hold the recipe of {cls.__name__}", bare(str(recipe)), way_out)
        return cls(**{**theirs, **words}, device=device)


_GENERAL = {
    name: word
    for name, word in inspect.signature(OfflineAlgorithm).parameters.items()
    if name not in ("self", "recipe", "env")
}
"""The words that every offline algorithm has."""


def _numbers(part: Any) -> dict[str, Any]:
    """The fields of a rule that are numbers."""
    if not is_dataclass(part):
        return {}
    values = {field.name: getattr(part, field.name) for field in fields(part)}
    return {name: value for name, value in values.items() if isinstance(value, bool | int | float)}


def _hyperparameters(recipe: Recipe) -> dict[str, Any]:
    """The keywords of a recipe's class, and their values."""
    whole = {name: getattr(recipe, name) for name in _WHOLE}
    return {**_numbers(recipe.value), **_numbers(recipe.extraction), **whole}


def _changed(recipe: Recipe, words: Mapping[str, Any]) -> Recipe:
    """The recipe with other values of some of its keywords."""
    parts = {}
    for name in ("value", "extraction"):
        part: Any = getattr(recipe, name)
        inside = {word: value for word, value in words.items() if word in _numbers(part)}
        parts[name] = replace(part, **inside) if inside else part
    return replace(recipe, **parts, **{name: words[name] for name in _WHOLE if name in words})


class BC(NamedAlgorithm):
    """Behaviour cloning: a deterministic actor by squared error.

    Keywords: `observations`, `rewards`, `policy_delay`; `NamedAlgorithm` describes them and the general ones.
    """


class AWR(NamedAlgorithm):
    """Advantage-weighted regression on the data policy's own value; the recipe `awr`.

    Keywords: `expectile` (0.5), `inverse_temperature` (1.0, of advantages divided by their spread), `max_weight` (20).
    """


class IQL(NamedAlgorithm):
    """Implicit Q-learning (Kostrikov, Nair and Levine 2022); the recipe `iql`.

    Keywords: `expectile` (0.7), `inverse_temperature` (3.0), `max_weight` (100).
    """


class IQLDDPGBC(NamedAlgorithm):
    """IQL's value, read out by DDPG+BC (Park et al. 2024); the recipe `iql_ddpg_bc`.

    Keywords: `expectile` (0.9), `bc_coef` (0.3).
    """


class IQLSfBC(NamedAlgorithm):
    """IQL's value, acting with the best of some samples of a Gaussian clone; the recipe `iql_sfbc`.

    Keywords: `expectile` (0.9), `num_samples` (32).
    """


class OneStepAWR(NamedAlgorithm):
    """The data policy's value by SARSA, read out by AWR (Brandfonbrener et al. 2021); the recipe `onestep`.

    Keywords: `inverse_temperature` (3.0), `max_weight` (100).
    """


class OneStepDDPGBC(NamedAlgorithm):
    """The data policy's value by SARSA, read out by DDPG+BC; the recipe `onestep_ddpg_bc`.

    Keywords: `bc_coef` (0.3).
    """


class DDPGBC(NamedAlgorithm):
    """TD3's value of the learned policy, with DDPG+BC; the recipe `ddpg_bc`.

    Keywords: `target_policy_noise` (0.2), `target_noise_clip` (0.5), `bc_coef` (0.3).
    """


class TD3BC(NamedAlgorithm):
    """TD3+BC (Fujimoto and Gu 2021); the recipe `td3_bc`.

    Keywords: `target_policy_noise` (0.2), `target_noise_clip` (0.5), `q_coef` (2.5, the paper's alpha).
    """
