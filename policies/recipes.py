"""Recipes: an algorithm is a value rule, an extraction and an actor; the well-known ones have names.

>>> recipe_of("iql").extraction
AWRExtraction(inverse_temperature=3.0, max_weight=100.0, scale=Unscaled())
>>> Recipe(Implicit(expectile=0.9), DDPGBCExtraction(bc_coef=1.0, scale=AdvantageSpread())).value.expectile
0.9
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from types import NoneType
from typing import Any, Protocol

from offline_eval.checks import check_whole
from offline_eval.errors import InputError, bare
from offline_eval.policies import actors, extraction, transforms, values
from offline_eval.policies.actors import (
    ActorRule,
    Deterministic,
    Gaussian,
    StateGaussian,
)
from offline_eval.policies.extraction import (
    AdvantageSpread,
    AWRExtraction,
    BCExtraction,
    BestOfNExtraction,
    DDPGBCExtraction,
    Extraction,
    TD3BCExtraction,
)
from offline_eval.policies.recipe_names import RECIPE_NAMES
from offline_eval.policies.transforms import ObservationTransform, Raw, RewardTransform, Standardize
from offline_eval.policies.values import ActorCritic, FittedQ, Implicit, OneStep, Penalty, ValueRule
from offline_eval.provenance import recipe as as_plain_data


class Schedule(Protocol):
    """How the actor's learning rate changes over a run."""

    def __call__(self, progress: float) -> float:
        """A factor for the learning rate when a share `progress` (0 to 1) of the run is done."""
        ...


@dataclass(frozen=True)
class Constant:
    """The same learning rate throughout."""

    def __call__(self, progress: float) -> float:
        """1."""
        return 1.0


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from the full learning rate to none; while learning online the full rate holds."""

    def __call__(self, progress: float) -> float:
        """From 1 to 0."""
        return 0.5 * (1.0 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))


@dataclass(frozen=True)
class Recipe:
    """What is learned, and how.

    Learning rate, batch size, discount and network sizes are words of the algorithm's constructor.

    Args:
        value: how critics are trained; None trains none.
        extraction: how the policy is read out of them; None trains no policy.
        actor: what the policy network's output means.
        penalties: what is added to the critics' loss.
        observations: how they are normalised.
        rewards: how they are scaled.
        actor_schedule: of the actor's learning rate.
        policy_delay: the policy and the targets are updated every so many steps.
    """

    value: ValueRule | None
    extraction: Extraction | None
    actor: ActorRule = field(default_factory=Deterministic)
    penalties: tuple[Penalty, ...] = ()
    observations: ObservationTransform = field(default_factory=Raw)
    rewards: RewardTransform = field(default_factory=Raw)
    actor_schedule: Schedule = field(default_factory=Constant)
    policy_delay: int = 1

    def __post_init__(self) -> None:
        check_whole("policy_delay", self.policy_delay, 1, "1 updates the policy in every step")
        for name, kinds, way_out in _KINDS_OF_PARTS:
            part = getattr(self, name)
            if isinstance(part, type) or not isinstance(part, kinds):
                raise InputError(name, f"must be an instance of {kinds[0].__name__}", part, way_out)
        if self.value is None and (self.extraction is None or self.extraction.needs_value):
            raise InputError("value", f"must be a value rule for {self.extraction}", None, "Implicit() is one")
        if self.value is not None and self.value.follows_policy and self.extraction is None:
            raise InputError(
                "extraction", f"must be given: {self.value} is the value of the policy that is being learned", None
            )
        if self.value is None and self.penalties:
            raise InputError("penalties", "must be empty without a value rule", self.penalties)
        if self.extraction is not None:
            self.extraction.check_actor(self.actor)


_KINDS_OF_PARTS: tuple[tuple[str, tuple[Any, ...], str], ...] = (
    ("value", (ValueRule, NoneType), "Implicit(), for example; recipe_of(name) gives a recipe by its name"),
    ("extraction", (Extraction, NoneType), "AWRExtraction(), for example; recipe_of(name) gives a recipe by its name"),
    ("actor", (ActorRule,), "Deterministic(), for example"),
    ("penalties", (tuple,), "(), for example"),
    ("observations", (ObservationTransform,), "Raw(), for example"),
    ("rewards", (RewardTransform,), "Raw(), for example"),
    ("actor_schedule", (Callable,), "Constant(), for example"),
)


def bc() -> Recipe:
    """Behaviour cloning with a deterministic actor, mean squared error; no critic."""
    return Recipe(None, BCExtraction())


def awr() -> Recipe:
    """Advantage-weighted regression (Peng et al. 2019) on a learned V of the data policy.

    Weights exp(A / sd(A)), at most 20, as the paper's code; its returns are replaced by Q - V at expectile 0.5.
    """
    extraction = AWRExtraction(inverse_temperature=1.0, max_weight=20.0, scale=AdvantageSpread())
    return Recipe(Implicit(expectile=0.5), extraction, actor=Gaussian())


def iql() -> Recipe:
    """Implicit Q-learning (Kostrikov et al. 2021; ikostrikov/implicit_q_learning), its locomotion settings.

    Expectile 0.7, inverse temperature 3, a learned log-std in [-5, 2], cosine decay of the actor's learning rate. That
    code multiplies locomotion rewards by 1000 / (range of returns): `rewards=ReturnRange()`; not on by default, since
    it needs trajectories of different returns.
    """
    return Recipe(Implicit(0.7), AWRExtraction(3.0), actor=Gaussian(), actor_schedule=Cosine())


def iql_ddpg_bc() -> Recipe:
    """IQL's value with DDPG+BC (the bottleneck study; ogbench gciql.py: expectile 0.9, bc_coef 0.3, Q / mean |Q|)."""
    return Recipe(Implicit(0.9), DDPGBCExtraction(0.3))


def iql_sfbc() -> Recipe:
    """IQL's value, acting with the best of 32 samples of a Gaussian clone (N of IFQL, seohongpark/fql)."""
    return Recipe(Implicit(0.9), BestOfNExtraction(32), actor=StateGaussian())


def onestep() -> Recipe:
    """SARSA's value with AWR (Brandfonbrener et al. 2021 and the bottleneck study); temperature and cap are IQL's.

    onestep-rl's networks are two layers of 1024, its learning rate 1e-4 and its batch 512: constructor words.
    """
    return Recipe(OneStep(), AWRExtraction(3.0), actor=Gaussian())


def onestep_ddpg_bc() -> Recipe:
    """SARSA's value with DDPG+BC, the study's third pair; bc_coef and scale as OGBench."""
    return Recipe(OneStep(), DDPGBCExtraction(0.3))


def ddpg_bc() -> Recipe:
    """TD3's value of the learned policy with OGBench's DDPG+BC: the smallest critic, density summed over dimensions."""
    return Recipe(ActorCritic(), DDPGBCExtraction(0.3), policy_delay=2)


def td3_bc() -> Recipe:
    """TD3+BC (Fujimoto and Gu 2021; sfujim/TD3_BC): alpha 2.5, policy delay 2, standardised observations."""
    return Recipe(ActorCritic(0.2, 0.5), TD3BCExtraction(2.5), observations=Standardize(1e-3), policy_delay=2)


def fqe() -> Recipe:
    """Fitted Q evaluation: the critic of a given policy, `Recipe(FittedQ(policy), None)`; it trains no policy."""
    return Recipe(FittedQ(), None)


RECIPES: dict[str, Callable[[], Recipe]] = {name: globals()[name] for name in RECIPE_NAMES}
"""Every named recipe; call one to get it."""


def recipe_of(choice: str | Recipe) -> Recipe:
    """A recipe by name, or itself.

    Raises:
        InputError: no recipe has that name; the closest ones are named.
    """
    if isinstance(choice, Recipe):
        return choice
    name = str(choice)
    if name in RECIPES:
        return RECIPES[name]()
    close = get_close_matches(name.lower(), RECIPES, n=3, cutoff=0.4)
    raise InputError(
        "recipe",
        "must be a Recipe or the name of one",
        choice,
        f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(RECIPES)}",
    )


def set_field(recipe: Recipe, path: str, value: Any) -> Recipe:
    """The recipe with one hyperparameter changed: `set_field(recipe, "value.expectile", 0.9)`.

    Args:
        recipe: left as it is.
        path: field names joined by dots.
        value: the new value; text is converted to the type of the present one.

    Raises:
        InputError: there is no such field; those that there are are named.
    """
    changed: Recipe = _set_field(recipe, path.split("."), value, path)
    return changed


def _set_field(part: Any, names: list[str], value: Any, path: str) -> Any:
    known = {f.name: getattr(part, f.name) for f in fields(part)} if is_dataclass(part) else {}
    if names[0] not in known:
        has = (
            f"{type(part).__name__} has {', '.join(known) or 'no fields'}" if part is not None else "that part is None"
        )
        raise InputError("set", "must name a field of the recipe", bare(path), has)
    present = known[names[0]]
    if len(names) > 1:
        return replace(part, **{names[0]: _set_field(present, names[1:], value, path)})
    return replace(part, **{names[0]: _as_type(present, value, path)})


def _as_type(present: Any, value: Any, path: str) -> Any:
    if not isinstance(value, str):
        return value
    if not isinstance(present, bool | int | float):
        inner = ", ".join(f"{path}.{f.name}" for f in fields(present)) if is_dataclass(present) else ""
        raise InputError("set", "must name a number", bare(path), f"its own fields are {inner}" if inner else "")
    try:
        if isinstance(present, bool):
            return {"true": True, "false": False}[value.lower()]
        return type(present)(value)
    except (ValueError, KeyError) as error:
        raise InputError("set", f"must be given a {type(present).__name__} for {path}", value) from error


PARTS = {
    name: part
    for module in (values, extraction, actors, transforms)
    for name, part in vars(module).items()
    if is_dataclass(part) and isinstance(part, type) and part.__module__ == module.__name__
} | {part.__name__: part for part in (Constant, Cosine, Recipe)}
"""The classes that a file may name: every rule, extraction, actor and transform of this package."""

_FORMER_NAMES = {name: f"{name}Extraction" for name in ("AWR", "BC", "DDPGBC", "TD3BC", "BestOfN")}
"""What files of earlier versions call a part."""


def recipe_to_json(recipe: Recipe) -> Any:
    """Plain data: `{"name": "Recipe", "value": {"name": "Implicit", "expectile": 0.7}, ...}`."""
    return as_plain_data(recipe)


def recipe_from_json(data: Any) -> Recipe:
    """The recipe that `recipe_to_json` wrote; only classes of this package are made.

    Raises:
        InputError: a part is of another package, or a field is not what it should be.
    """
    made = _from_json(data)
    if not isinstance(made, Recipe):
        raise InputError("recipe", "must be a recipe as this package writes it", data)
    return made


def _from_json(data: Any) -> Any:
    if isinstance(data, list):
        return tuple(_from_json(item) for item in data)
    if not isinstance(data, Mapping):
        return data
    name = str(data.get("name"))
    own = PARTS.get(_FORMER_NAMES.get(name, name))
    if own is None:
        raise InputError(
            "recipe", "must be made of parts that this package knows", data.get("name"), "give `recipe` when loading"
        )
    try:
        return own(**{name: _from_json(value) for name, value in data.items() if name != "name"})
    except TypeError as error:
        raise InputError("recipe", f"must have fields that {own.__name__} has ({error})", data) from error
