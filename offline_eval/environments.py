"""From what a person names, an id, a spec, a factory or an environment, to something that makes environments."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

from offline_eval.errors import InputError, OfflineEvalError, bare

if TYPE_CHECKING:
    import gymnasium as gym
    from gymnasium.envs.registration import EnvSpec
    from gymnasium.vector import VectorEnv
    from stable_baselines3.common.vec_env import VecEnv

Environment: TypeAlias = "gym.Env[Any, Any] | VectorEnv[Any, Any, Any] | VecEnv"
EnvironmentFactory = Callable[[], "Environment"]
EnvironmentLike: TypeAlias = "str | EnvSpec | EnvironmentFactory | Environment"

_ANY_OF = "must be an environment, an id, a spec or a factory without arguments"
_WAY_OUT = "a class is one where its constructor needs nothing; else `lambda: MyEnv(...)`"

_NAMESPACE = "offline_eval/"
_OWN = {
    "TwoModeMaze-v0": "offline_eval.problems.maze:TwoModeMaze",
    "LinearQuadratic-v0": "offline_eval.problems.linear_quadratic_answer:LinearQuadratic",
}
_OWN_STEPS = 100


def register_own() -> None:
    """Make this package's environments known to gymnasium; nothing of them is imported.

    It is done when one of them is asked for, and not by installing the package: a bystander's registry stays as it is.
    """
    import gymnasium as gym

    for name, entry_point in _OWN.items():
        if _NAMESPACE + name not in gym.registry:
            gym.register(_NAMESPACE + name, entry_point, max_episode_steps=_OWN_STEPS)


def check_registered(env_id: str, argument: str = "env") -> None:
    """Raise an InputError that names the closest ids where gymnasium does not know `env_id`."""
    import gymnasium as gym

    if ":" in env_id:  # "module:Name-v0": gymnasium imports the module, which registers the id
        return
    if env_id.startswith(_NAMESPACE):
        register_own()
    if env_id in gym.registry:
        return
    from difflib import get_close_matches

    close = get_close_matches(env_id, gym.registry, n=3, cutoff=0.5)
    known = f"did you mean {' or '.join(close)}? " if close else ""
    way_out = f"{known}what another package registers is named with it, as package:Name-v0"
    raise InputError(argument, "must be the id of a registered environment", env_id, way_out)


def registered_spec(env_id: str) -> EnvSpec:
    """The registered spec; of "module:Name-v0" too, which gymnasium's own `spec` does not know before the import.

    Raises:
        InputError: there is none.
    """
    import gymnasium as gym

    module, _, name = env_id.rpartition(":")
    if module:
        try:
            import_module(module)
        except ImportError as error:
            raise InputError("env", f"must name a package that is installed ({error})", env_id) from error
    check_registered(name)
    return gym.spec(name)


def environment_factory(env: EnvironmentLike) -> EnvironmentFactory | None:
    """What makes fresh environments of this kind; None where `env` is a finished environment.

    Environments made from an id or a spec skip gymnasium's passive checker: it costs a tenth of the run.
    """
    import gymnasium as gym

    if isinstance(env, str):
        check_registered(env)
        return _Make(env)
    if isinstance(env, gym.envs.registration.EnvSpec):
        return _Make(env)
    # A class has the `step` and `reset` of its instances, and makes them.
    if not isinstance(env, type) and hasattr(env, "step") and hasattr(env, "reset"):
        return None
    if callable(env):
        return _Call(env)
    raise InputError("env", _ANY_OF, env, _WAY_OUT)


class _Call:
    """Someone's factory, held to what a factory promises."""

    def __init__(self, factory: Callable[[], Any]) -> None:
        self.factory = factory

    def __call__(self) -> Environment:
        try:
            made = self.factory()
        except OfflineEvalError:
            raise
        except Exception as error:  # it wants arguments, or its simulator is missing, or its constructor is broken
            reason = f"could not be made: {type(error).__name__}: {error}".replace("\n", " ")
            raise InputError("env", reason, bare(environment_id(self.factory)), f"{_ANY_OF}; {_WAY_OUT}") from error
        if not is_environment(made):
            received = made if isinstance(made, str) else type(made).__name__
            raise InputError("env", "must make a gymnasium environment", received, _not_gymnasium(made))
        return made  # type: ignore[no-any-return]


def is_environment(thing: object) -> bool:
    """Whether it is a finished environment: an instance of gymnasium's Env or VectorEnv, or of SB3's VecEnv."""
    import gymnasium as gym
    from gymnasium.vector import VectorEnv

    if isinstance(thing, gym.Env | VectorEnv):
        return True
    from stable_baselines3.common.vec_env import VecEnv

    return isinstance(thing, VecEnv)


def _not_gymnasium(made: object) -> str:
    if isinstance(made, str):
        return "an id is passed as it is, without a factory"
    if hasattr(made, "step") and hasattr(made, "reset"):
        return "derive its class from gymnasium.Env; shimmy converts environments of the older gym"
    return _WAY_OUT


class _Make:
    """`gymnasium.make` as a factory that a worker process can receive."""

    def __init__(self, env: str | EnvSpec) -> None:
        self.env = env

    def __call__(self) -> gym.Env[Any, Any]:
        import gymnasium as gym

        if isinstance(self.env, str) and self.env.startswith(_NAMESPACE):
            register_own()  # a worker process has a registry of its own
        try:
            with _native_stderr_muted():
                return gym.make(self.env, disable_env_checker=True)
        except OfflineEvalError:
            raise
        except Exception as error:  # a missing simulator, a deprecated version, a broken constructor
            name = self.env if isinstance(self.env, str) else self.env.id
            reason = f"could not be made: {type(error).__name__}: {error}".replace("\n", " ")
            raise InputError("env", reason, name, "check that the package which brings it is installed") from error


@contextmanager
def _native_stderr_muted() -> Iterator[None]:
    """Without what C code writes to stderr: MuJoCo repeats its remarks on a model for every environment made of it.

    Python's own warnings go where they went.
    """
    try:
        usual = os.dup(2)
    except OSError:  # no stderr at all
        yield
        return
    python_stderr = sys.stderr
    try:
        with open(os.devnull, "w") as nowhere, os.fdopen(os.dup(usual), "w", buffering=1) as spare:
            if python_stderr is sys.__stderr__:
                sys.stderr = spare
            os.dup2(nowhere.fileno(), 2)
            try:
                yield
            finally:
                sys.stderr = python_stderr
                os.dup2(usual, 2)
    finally:
        os.close(usual)


def environment_id(env: EnvironmentLike) -> str:
    """The name under which results are filed."""
    if isinstance(env, str):
        return env
    spec = getattr(env, "spec", env)
    name = getattr(spec, "id", None)
    if isinstance(name, str):
        return name
    made_by = getattr(env, "func", env)  # functools.partial has no name of its own
    return getattr(made_by, "__name__", type(env).__name__)
