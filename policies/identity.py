"""Which algorithm and which policy a file holds, told from what is readable in it and from the names of its weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch as th
from stable_baselines3.common import torch_layers
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from torch.nn.modules import activation

from offline_eval.errors import MissingExtra
from offline_eval.policies.agent_file import AgentFile, Pickled
from offline_eval.policies.archive import reason_of
from offline_eval.policies.legacy import modern_net_arch, shares_layers

Trust = bool | Callable[[Path, str], None]
"""Whether a file's own code is run: no, yes, or yes and a function is told the file and the code before."""

# What tells the algorithms apart: a network among the weights and an attribute. The first that fits is it.
_SIGNATURES = (
    ("QRDQN", "sb3_contrib", "quantile_net", "exploration_fraction"),
    ("DQN", "stable_baselines3", "q_net", "exploration_fraction"),
    ("TQC", "sb3_contrib", "critic", "top_quantiles_to_drop_per_net"),
    ("TD3", "stable_baselines3", "critic_target", "target_policy_noise"),
    ("SAC", "stable_baselines3", "critic_target", "target_entropy"),
    ("CrossQ", "sb3_contrib", "critic", "target_entropy"),
    ("RecurrentPPO", "sb3_contrib", "lstm_actor", "clip_range"),
    ("PPO", "stable_baselines3", "value_net", "clip_range"),
    ("TRPO", "sb3_contrib", "value_net", "cg_max_steps"),
    ("A2C", "stable_baselines3", "value_net", "gae_lambda"),
    ("ARS", "sb3_contrib", "action_net", "n_delta"),
)


def algorithm_of(file: AgentFile) -> type[BaseAlgorithm]:
    """The class of the algorithm that the file holds.

    Raises:
        AgentFileError: it is none of those known here.
        MissingExtra: it needs sb3-contrib.
    """
    fits = (row for row in _SIGNATURES if row[2] in file.networks and row[3] in file.data)
    name, package, *_ = next(fits, ("", ""))
    if not name:
        known = ", ".join(row[0] for row in _SIGNATURES)
        raise file.refusal(
            f"must hold one of {known}", f"its networks are {', '.join(sorted(file.networks)) or 'none'}"
        )
    if name == "TD3" and _is_ddpg(file.data):
        name = "DDPG"
    if name == "PPO" and _is_masked(file.data):
        name, package = "MaskablePPO", "sb3_contrib"
    try:
        return getattr(import_module(package), name)  # type: ignore[no-any-return]
    except ImportError as error:
        raise MissingExtra(f"opening a {name} agent", "contrib") from error


def _is_ddpg(data: Mapping[str, Any]) -> bool:
    # DDPG is TD3 with one critic, no delay and no smoothing of the target, and is saved as that.
    kwargs = data.get("policy_kwargs")
    num_critics = (kwargs.twins if isinstance(kwargs, Pickled) else kwargs or {}).get("n_critics")
    return num_critics == 1 and data.get("policy_delay") == 1 and data.get("target_noise_clip") == 0


def _is_masked(data: Mapping[str, Any]) -> bool:
    # The same weights and numbers as a PPO; only the classes that the file names tell.
    named = (data.get(name) for name in ("policy_class", "rollout_buffer_class"))
    modules = (str(value.twins.get("__module__", "")) for value in named if isinstance(value, Pickled))
    return any(module.startswith("sb3_contrib.common.maskable") for module in modules)


# The classes that a policy may be made of and that the file only names.
_READABLE_CLASSES = {
    str(cls): cls
    for cls in (
        *(getattr(activation, name) for name in activation.__all__),
        *(cls for cls in vars(th.optim).values() if isinstance(cls, type) and issubclass(cls, th.optim.Optimizer)),
        RMSpropTFLike,
        torch_layers.FlattenExtractor,
        torch_layers.NatureCNN,
        torch_layers.CombinedExtractor,
    )
}


def policy_of(file: AgentFile, algorithm: type[BaseAlgorithm], trust: Trust) -> tuple[type[BasePolicy], dict[str, Any]]:
    """The policy's class and its arguments, from the readable twins; from the pickles only where `trust` allows it.

    Raises:
        AgentFileError: they are not readable, and `trust` is not given.
    """
    found = file.data["policy_class"]
    named = found.class_name if isinstance(found, Pickled) else str(found)
    known = {f"{cls.__module__}.{cls.__name__}": cls for cls in algorithm.policy_aliases.values()}
    policy_class = known.get(named) or _foreign(file, "policy_class", named, trust)

    written = file.data.get("policy_kwargs") or {}
    kwargs = dict(written.twins if isinstance(written, Pickled) else written)
    # 0.8 wrote `device` here, and some arguments are gone since; one that shaped a network shows in the weights.
    parameters = inspect.signature(policy_class).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        kwargs = {key: value for key, value in kwargs.items() if key in parameters}
    kwargs = _readable(kwargs)
    if unread := [f"{key}={value}" for key, value in kwargs.items() if isinstance(value, str)]:
        kwargs = dict(_foreign(file, "policy_kwargs", ", ".join(unread), trust))
    if "net_arch" in kwargs:
        kwargs["net_arch"] = modern_net_arch(kwargs["net_arch"], shares_layers(file.weights))
    return policy_class, kwargs


def _readable(twins: Mapping[str, Any]) -> dict[str, Any]:
    kwargs = {
        key: _READABLE_CLASSES.get(value, value) if isinstance(value, str) else value for key, value in twins.items()
    }
    if any(isinstance(kwargs.get(key), str) for key in ("optimizer_class", "optimizer_kwargs")):
        # Whoever evaluates needs no optimiser.
        kwargs = {key: value for key, value in kwargs.items() if not key.startswith("optimizer_")}
    return kwargs


def _foreign(file: AgentFile, key: str, named: str, trust: Trust) -> Any:
    value = file.data[key]
    if not trust or not isinstance(value, Pickled):
        raise file.refusal(
            f"must be made of Stable-Baselines3's own classes, but its `{key}` is {named}",
            f"--trust {file.path} or `trust=True` would unpickle `{key}`: that imports and runs this code, "
            "and whatever else was put there",
        )
    if callable(trust):
        trust(file.path, f"the pickled `{key}`: {value.code}")
    try:
        return value.run()
    except Exception as error:
        raise file.refusal(f"must have a `{key}` that can be unpickled, {named}", reason_of(error)) from error
