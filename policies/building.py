"""From spaces, a seed and network sizes to a policy and the parameters that are trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch as th
from gymnasium import Space, spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import create_mlp, get_actor_critic_arch
from stable_baselines3.common.type_aliases import Schedule
from torch import nn

from offline_eval.checks import check_positive, check_whole, is_finite
from offline_eval.errors import InputError, SpaceError, bare
from offline_eval.policies.networks import Activation, LayerNormReLU, Parameters
from offline_eval.policies.offline_policy import OfflinePolicy
from offline_eval.policies.recipes import Recipe
from offline_eval.policies.td3_layout import read_networks, turned

NET_ARCH = (256, 256)
"""Widths of the hidden layers where `policy_kwargs` says nothing: IQL's and TD3+BC's."""

_LAST_SEED = 2**32 - 1
_ADAM_WORDS = ("betas", "eps", "weight_decay")
_POLICY_KWARGS = ("net_arch", "activation_fn", "n_critics", "optimizer_kwargs")


def check_spaces(recipe: Recipe, observation_space: Space[Any], action_space: Space[Any]) -> None:
    """Refuse what the networks cannot take: dicts, images, discrete and unbounded actions."""
    if isinstance(observation_space, spaces.Dict):
        raise SpaceError(
            "observation_space", "must be a Box", bare(f"a Dict of {', '.join(observation_space)}"),
            "wrap the environment in gymnasium.wrappers.FlattenObservation, and flatten the data alike",
        )  # fmt: skip
    if is_image_space(observation_space):
        raise SpaceError(
            "observation_space", "must be a Box of features", observation_space, "encode the images to vectors first"
        )
    if not isinstance(observation_space, spaces.Box):
        raise SpaceError("observation_space", "must be a Box", observation_space, "encode observations one-hot")
    learner = type(recipe.extraction or recipe.value).__name__
    if not isinstance(action_space, spaces.Box):
        raise SpaceError(
            "action_space", f"must be a Box: {learner} learns continuous actions", action_space,
            "Stable-Baselines3's DQN learns discrete ones, from its replay buffer",
        )  # fmt: skip
    if not np.isfinite(np.stack([action_space.low, action_space.high])).all():
        raise SpaceError(
            "action_space", "must be bounded", action_space, "wrap the environment in gymnasium.wrappers.RescaleAction"
        )


def check_words(
    learning_rate: float | Schedule,
    buffer_size: int,
    learning_starts: int,
    batch_size: int,
    tau: float,
    gamma: float,
    gradient_steps: int,
    seed: int | None,
) -> None:
    """Refuse numbers that are out of range, and what is no number."""
    if not callable(learning_rate):
        check_positive("learning_rate", learning_rate, "3e-4 is usual; a function of the remaining share will do, too")
    check_whole("buffer_size", buffer_size, 1)
    check_whole("learning_starts", learning_starts, 0)
    check_whole("batch_size", batch_size, 1, "256 is usual")
    if not is_finite(tau) or not 0.0 < tau <= 1.0:
        raise InputError("tau", "must be above 0 and at most 1", tau, "0.005 is usual")
    if not is_finite(gamma) or not 0.0 <= gamma <= 1.0:
        raise InputError("gamma", "must lie between 0 and 1", gamma, "0.99 is usual")
    check_whole("gradient_steps", gradient_steps, -1, "-1 makes as many as there were steps in the environment")
    if seed is not None:
        check_whole("seed", seed, 0, "None draws one")
        if seed > _LAST_SEED:
            raise InputError("seed", f"must be at most {_LAST_SEED}, the largest that NumPy takes", seed)


def check_policy_kwargs(policy_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """The words for the networks, with defaults filled in.

    Raises:
        InputError: a word that TD3's policy has and these networks do not, or no word of it at all.
    """
    given = dict(policy_kwargs or {})
    if unknown := [word for word in given if word not in _POLICY_KWARGS]:
        raise InputError("policy_kwargs", f"must be some of {', '.join(_POLICY_KWARGS)}", unknown[0])
    check_whole("n_critics", given.get("n_critics", 2), 1, "2 is usual")
    _check_net_arch(given.get("net_arch", list(NET_ARCH)))
    _check_activation(given.get("activation_fn", nn.ReLU))
    if unknown := [word for word in given.get("optimizer_kwargs") or {} if word not in _ADAM_WORDS]:
        raise InputError("optimizer_kwargs", f"must be some of {', '.join(_ADAM_WORDS)}", unknown[0])
    return {"net_arch": list(NET_ARCH), "n_critics": 2, **given}


def _check_net_arch(net_arch: object) -> None:
    parts = [net_arch.get(name) for name in ("pi", "qf")] if isinstance(net_arch, dict) else [net_arch]
    way_out = "[256, 256] are the widths of two, {'pi': [256], 'qf': [256, 256]} says it by network"
    for widths in parts:
        if not isinstance(widths, list) or not widths:
            raise InputError("net_arch", "must have a hidden layer", net_arch, way_out)
        for width in widths:
            check_whole("net_arch", width, 1, way_out)


def _check_activation(kind: object) -> None:
    """Layers are joined by one function for all networks: it cannot have parameters of its own."""
    try:
        made = kind() if isinstance(kind, type) else None
    except TypeError:
        made = None
    if not isinstance(made, nn.Module) or any(True for _ in made.parameters()):
        raise InputError(
            "activation_fn", "must be the class of an activation without parameters", kind,
            "take torch.nn.ReLU, or this package's LayerNormReLU",
        )  # fmt: skip


def build(
    recipe: Recipe,
    observation_space: spaces.Box,
    action_space: spaces.Box,
    policy_kwargs: Mapping[str, Any],
    learning_rate: Schedule,
    seed: int,
    device: th.device,
) -> tuple[OfflinePolicy, Parameters]:
    """A policy and, apart from it in memory, the parameters to train; of one seed the same on every device.

    torch's global generator is left as it was.
    """
    with th.random.fork_rng(devices=[]):
        th.manual_seed(seed)
        policy = OfflinePolicy(observation_space, action_space, learning_rate, **policy_kwargs)
        networks = read_networks(policy)
        actor_arch, critic_arch = get_actor_critic_arch(policy_kwargs["net_arch"])
        observation_dim, action_dim = (int(np.prod(space.shape)) for space in (observation_space, action_space))
        spread = recipe.actor.initial_spread(([observation_dim, *actor_arch])[-1], action_dim)
        value: list[th.Tensor] = []
        if recipe.value is not None and recipe.value.trains_v:
            module = nn.Sequential(*create_mlp(observation_dim, 1, critic_arch, policy.activation_fn))
            value = [turned(parameter.detach()).contiguous() for parameter in module.parameters()]
    parameters = {**networks, "spread": spread, "value": value}
    policy = policy.to(device)
    policy.act_by(recipe, [], seed)
    return policy, {name: [p.to(device) for p in layers] for name, layers in parameters.items()}


def activation_of(kind: type[nn.Module]) -> Activation:
    """What stands between the layers; ReLU writes over its input, which nobody else reads."""
    return th.relu_ if kind is nn.ReLU else kind()


def activation_to_json(policy_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The words with the activation by its name."""
    words = dict(policy_kwargs)
    if "activation_fn" in words:
        words["activation_fn"] = words["activation_fn"].__name__
    return words


def activation_from_json(words: Mapping[str, Any]) -> dict[str, Any]:
    """The words with the activation's class; only torch's own and this package's are known."""
    policy_kwargs = dict(words)
    if name := policy_kwargs.get("activation_fn"):
        found = LayerNormReLU if name == LayerNormReLU.__name__ else getattr(nn.modules.activation, str(name), None)
        if not (isinstance(found, type) and issubclass(found, nn.Module)):
            raise InputError("activation_fn", "must be one of torch.nn's", name, "give `policy_kwargs` when loading")
        policy_kwargs["activation_fn"] = found
    return policy_kwargs
