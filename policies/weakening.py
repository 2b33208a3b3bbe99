"""An agent made worse on purpose, its critic left as it is: what steering can win back is then known to be there."""

from __future__ import annotations

import copy
from typing import Any

import cloudpickle
import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import nn

from offline_eval.checks import check_positive
from offline_eval.errors import InputError, bare
from offline_eval.policies.normalization import Normalized
from offline_eval.policies.notes import add_notes, notes_of

_STREAM = 0x3EAC
_NOT_THE_MEAN = ("log_std", "features_extractor")
"""Parts of an actor that do not decide its mean action, or that it may share with the critic."""


def weaken(model: Any, strength: float, seed: int = 0) -> Any:
    """A copy of an agent whose actor's weights are disturbed by Gaussian noise.

    Each tensor of weights gets noise of `strength` times its own root mean square. The critic keeps its weights, and
    the caller's model all of them. How much return a strength costs differs between agents: try a few.

    Args:
        model: an SB3 or sb3-contrib algorithm with an actor (SAC, TD3, DDPG, TQC, PPO, A2C, an `OfflineAlgorithm`), or
            a `Normalized` around one.
        strength: >= 0; 0 gives a copy that acts the same.
        seed: of the noise.

    Raises:
        InputError: the model has no actor, or `strength` is no number >= 0.
    """
    check_positive("strength", strength, "0 gives a copy that acts the same", or_zero=True)
    if isinstance(model, Normalized):
        weakened = Normalized(weaken(model.model, strength, seed), model.statistics)
        add_notes(weakened, notes_of(model))
        return weakened
    if not isinstance(model, BaseAlgorithm):
        raise InputError("model", "must be an SB3 algorithm", bare(type(model).__name__), "`load_sb3` opens one")
    trains_elsewhere = hasattr(model, "learner")  # an OfflineAlgorithm: its policy shows weights that lie there
    if trains_elsewhere:
        weak: Any = copy.deepcopy(model)
    else:
        weak = copy.copy(model)
        # A deep copy refuses what gSDE keeps, tensors in the middle of a graph; a pickle of our own takes them.
        weak.policy = cloudpickle.loads(cloudpickle.dumps(model.policy))
        if hasattr(weak, "_create_aliases"):  # SB3 keeps `actor` and `critic` of the policy at hand
            weak._create_aliases()
    generator = np.random.default_rng([_STREAM, seed])
    with th.no_grad():
        for name, parameter in _actor(weak.policy):
            if any(part in name for part in _NOT_THE_MEAN):
                continue
            noise = th.as_tensor(generator.standard_normal(tuple(parameter.shape), np.float32), device=parameter.device)
            parameter.add_(strength * parameter.square().mean().sqrt() * noise)
    if trains_elsewhere:
        weak.set_parameters({"policy": weak.policy.state_dict()}, exact_match=False)
    return weak


def _actor(policy: Any) -> list[tuple[str, nn.Parameter]]:
    """What decides the mean action of a policy, by name."""
    if isinstance(getattr(policy, "actor", None), nn.Module):
        return list(policy.actor.named_parameters())
    if hasattr(policy, "action_net"):  # PPO and A2C
        hidden = getattr(policy.mlp_extractor, "policy_net", None)
        parts = [policy.action_net] if hidden is None else [hidden, policy.action_net]
        return [named for part in parts for named in part.named_parameters()]
    raise InputError("model", "must have an actor", bare(type(policy).__name__), "a DQN acts by its critic alone")
