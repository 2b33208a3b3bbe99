"""An environment as the command line describes it: an id, arguments of its constructor, wrappers around it.

::

    --env Pendulum-v1 --env-kwargs g=5.0 --wrapper gymnasium.wrappers:ClipAction --wrapper mine:Stack(n=4)
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from offline_eval.environments import environment_factory, registered_spec
from offline_eval.errors import InputError

if TYPE_CHECKING:
    import gymnasium as gym
    from gymnasium.envs.registration import EnvSpec

_JSON_WORDS = {"true": True, "false": False, "null": None}
_LONGEST = 10_000  # characters of a value


@dataclass(frozen=True)
class Wrapping:
    """A wrapper by name.

    Attributes:
        where: `module:Class`.
        kwargs: of its constructor, beside the environment.
    """

    where: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.where}({_arguments(self.kwargs)})" if self.kwargs else self.where

    @classmethod
    def parse(cls, words: str) -> Wrapping:
        """From `module:Class`, `module.Class`, or `module:Class(name=value, ...)` with literals.

        Raises:
            InputError: it is none of them, or there is no such class.
        """
        rule = "must be module:Class, or module:Class(name=value, ...) with literals"
        where, bracket, inside = words.partition("(")
        kwargs: dict[str, Any] = {}
        if bracket:
            try:
                call = ast.parse(f"f({inside}", mode="eval").body
                if len(words) > _LONGEST or not isinstance(call, ast.Call) or call.args:
                    raise ValueError
                kwargs = {str(word.arg or _no_stars()): ast.literal_eval(word.value) for word in call.keywords}
            except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
                raise InputError("--wrapper", rule, words) from None
        module, colon, name = where.rpartition(":")
        if not colon:
            module, _, name = where.rpartition(".")
        if not (module and name.isidentifier() and all(part.isidentifier() for part in module.split("."))):
            raise InputError("--wrapper", rule, words)
        try:
            found = getattr(import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise InputError("--wrapper", f"must name what can be imported ({error})", words) from error
        if not callable(found):
            raise InputError("--wrapper", "must be a class", words)
        return cls(f"{module}:{name}", kwargs)


def _no_stars() -> str:
    raise ValueError("a name for every value")


@dataclass(frozen=True)
class ConfiguredEnvironment:
    """Makes environments of an id, with arguments and wrappers; a factory that worker processes can receive.

    Attributes:
        env_id: as for `gymnasium.make`.
        kwargs: of the environment's constructor.
        wrappers: around it, the innermost first.
        max_episode_steps: instead of the registered limit.
    """

    env_id: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    wrappers: tuple[Wrapping, ...] = ()
    max_episode_steps: int | None = None

    @property
    def id(self) -> str:
        """The name under which results are filed: whatever is not the registered environment's is in it."""
        changed = f"({_arguments(self.kwargs)})" if self.kwargs else ""
        return " + ".join([f"{self.env_id}{changed}", *map(str, self.wrappers)])

    @property
    def options(self) -> tuple[str, ...]:
        """The words of the command line that describe it, beside `--env ID`."""
        kwargs = [f"{name}={_literal(value)}" for name, value in self.kwargs.items()]
        wrappers = [word for wrapper in self.wrappers for word in ("--wrapper", str(wrapper))]
        return *(["--env-kwargs", *kwargs] if kwargs else []), *wrappers

    def to_spec(self) -> EnvSpec:
        """What `gymnasium.make` takes, wrappers included."""
        from gymnasium.envs.registration import WrapperSpec

        spec = registered_spec(self.env_id)
        wrappers = [WrapperSpec(w.where.rpartition(":")[2], w.where, dict(w.kwargs)) for w in self.wrappers]
        return replace(
            spec,
            kwargs={**spec.kwargs, **self.kwargs},
            additional_wrappers=(*spec.additional_wrappers, *wrappers),
            max_episode_steps=self.max_episode_steps or spec.max_episode_steps,
        )

    def __call__(self) -> gym.Env[Any, Any]:
        """A fresh environment."""
        make = environment_factory(self.to_spec())
        assert make is not None
        made: gym.Env[Any, Any] = make()  # type: ignore[assignment]  # a spec makes single environments
        return made


def configured(env_id: str, kwargs: Sequence[str], wrappers: Sequence[str]) -> ConfiguredEnvironment:
    """From the words of `--env`, `--env-kwargs` and `--wrapper`.

    Raises:
        InputError: one of them is not what it must be.
    """
    given: dict[str, Any] = {}
    for word in kwargs:
        name, equals, value = word.partition("=")
        if not (equals and name.isidentifier()):
            way_out = "as in --env-kwargs g=5.0 domain=shift"
            raise InputError("--env-kwargs", "must be NAME=VALUE", word, way_out)
        if name in given:
            raise InputError("--env-kwargs", "must name each argument once", word)
        given[name] = _value(value)
    return ConfiguredEnvironment(env_id, given, tuple(map(Wrapping.parse, wrappers)))


def _value(word: str) -> Any:
    """A literal of Python or JSON; what is neither is text."""
    if word in _JSON_WORDS:
        return _JSON_WORDS[word]
    if len(word) > _LONGEST:
        raise InputError("--env-kwargs", f"must be shorter than {_LONGEST} characters", word)
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return word


def _literal(value: Any) -> str:
    """The shortest word that is read back as the value."""
    return value if isinstance(value, str) and _value(value) == value else repr(value)


def _arguments(kwargs: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in kwargs.items())
