"""`actor_of`: SB3 models, our own algorithms and torch modules become actors that can be trained at test time."""

from __future__ import annotations

from typing import Any, cast

import torch as th
from gymnasium import Space, spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.distributions import StateDependentNoiseDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.td3.policies import TD3Policy
from torch import Tensor, nn

from offline_eval.errors import InputError, bare
from offline_eval.policies.actors import Normal, TanhGaussian, TanhNormal
from offline_eval.policies.adaptable import CutNormal, Network, Spread, TorchActor
from offline_eval.policies.critics import channels_in_front, images_of, through
from offline_eval.policies.module_actor import actor_of_module
from offline_eval.policies.normalization import Normalized, TensorNormalization, as_trained
from offline_eval.policies.offline_policy import OfflinePolicy
from offline_eval.spaces import ActionScale
from offline_eval.types import Adaptable

__all__ = ["actor_of"]

_LOG_STD_RANGE = -20.0, 2.0
"""Where SAC's and TQC's actors hold the logarithm of the standard deviation."""


def actor_of(
    model: Any,
    *,
    action_space: Space[Any] | None = None,
    observation_space: Space[Any] | None = None,
) -> Adaptable:
    """The actor of a model, as a function of its parameters.

    SAC, TQC, CrossQ (squashed Gaussians, with or without gSDE), TD3, DDPG (deterministic), PPO, A2C, TRPO (Gaussians),
    an `OfflineAlgorithm`, each with or without a `Normalized` around it: `actor_of(model)`. The keyword arguments are
    for modules alone.

    Args:
        model: one of these, an `nn.Module`, or an `Adaptable`, which comes back as it is. A module gives the scaled
            deterministic action (batch, action_dim) for a batch of observations, by its `mean` if it has one, else
            when it is called. The trunk's features are cached where it is a `Sequential`.
        action_space: the environment's.
        observation_space: the environment's.

    Raises:
        InputError: torch cannot differentiate what the model does, or its action space is not a Box.
    """
    model = as_trained(model)
    if isinstance(model, Normalized):
        return _of_algorithm(model.model, TensorNormalization(model.statistics))
    if isinstance(model, BaseAlgorithm):
        return _of_algorithm(model, None)
    if isinstance(model, Adaptable):
        return model
    if isinstance(model, nn.Module) and not hasattr(model, "predict"):
        return actor_of_module(model, action_space, observation_space)
    raise _refused(model, "a policy network of its own that torch can see: an SB3 model, or an nn.Module")


def _refused(model: object, lacking: str) -> InputError:
    return InputError(
        "model",
        "must be an actor that torch can differentiate",
        bare(type(model).__name__),
        f"it lacks {lacking}; OPEX and BestOfN need a critic alone",
    )


class _Trunk(nn.Module):
    """What an SB3 policy does with observations before its last layer."""

    def __init__(
        self,
        policy: Any,
        extractor: nn.Module,
        body: nn.Module,
        normalization: TensorNormalization | None,
    ) -> None:
        super().__init__()
        self.extractor, self.body = extractor, body
        self._space, self._scales_images = policy.observation_space, policy.normalize_images
        self._normalization, self._images = normalization, images_of(policy.observation_space)
        # The modules around a small network cost as much as its matrix products.
        self._is_plain = (
            type(extractor) is FlattenExtractor
            and type(self._space) is spaces.Box
            and not self._images
            and isinstance(body, nn.Sequential)
            and all(type(layer) in (nn.Linear, nn.ReLU) for layer in body)
        )

    def forward(self, observations: Any) -> Tensor:
        if self._normalization is not None:
            observations = self._normalization(observations)
        if self._is_plain:
            return through(self.body, observations.flatten(1).float())  # type: ignore[arg-type]
        observations = channels_in_front(observations, self._images)
        seen = preprocess_obs(observations, self._space, normalize_images=self._scales_images)
        return self.body(self.extractor(seen))  # type: ignore[no-any-return]


def _of_algorithm(model: Any, normalization: TensorNormalization | None) -> TorchActor:
    policy = getattr(model, "policy", None)
    if not isinstance(getattr(model, "action_space", None), spaces.Box):
        raise _refused(model, "continuous actions")
    if hasattr(policy, "lstm_actor"):
        raise _refused(model, "a policy without memory: a recurrent one's action depends on all that came before")
    if isinstance(policy, OfflinePolicy):
        return _of_offline(model, policy, normalization)
    if isinstance(policy, ActorCriticPolicy):
        return _of_actor_critic(model, policy, normalization)
    if isinstance(policy, TD3Policy):
        return _of_td3(model, policy, normalization)
    if hasattr(getattr(policy, "actor", None), "latent_pi"):
        return _of_squashed(model, policy, normalization)
    raise _refused(model, "an actor as SAC, TQC, CrossQ, TD3, DDPG, PPO or A2C have it")


def _of_squashed(model: Any, policy: Any, normalization: TensorNormalization | None) -> TorchActor:
    """SAC, TQC and CrossQ; with gSDE the mean is cut by a Hardtanh, which has no gradient beyond its ends."""
    actor = policy.actor
    layers: list[Any] = list(actor.mu) if isinstance(actor.mu, nn.Sequential) else [actor.mu]
    last, *rest = layers
    trunk = _Trunk(actor, actor.features_extractor, actor.latent_pi, normalization)
    spread: Spread
    if actor.use_sde:
        spread = _state_dependent(actor.action_dist, actor.log_std)
    else:
        spread = lambda features: actor.log_std(features).clamp(*_LOG_STD_RANGE)  # noqa: E731
    bend = rest[0] if rest else _unbent
    return _actor(model, Network(trunk, last), bend, TanhNormal, spread)


def _of_td3(model: Any, policy: Any, normalization: TensorNormalization | None) -> TorchActor:
    *body, last, squash = policy.actor.mu
    trunk = _Trunk(policy.actor, policy.actor.features_extractor, nn.Sequential(*body), normalization)
    return _actor(model, Network(trunk, last), squash, Normal, None)


def _of_offline(model: Any, policy: OfflinePolicy, normalization: TensorNormalization | None) -> TorchActor:
    extraction = policy.recipe.extraction
    if extraction is None or extraction.ranks_candidates:
        raise _refused(model, "an action of the actor's own: its recipe learns a critic alone, or ranks candidates")
    rule = policy.recipe.actor
    layers: list[Any] = list(policy.actor.mu)
    *body, last, squash = layers
    trunk = _Trunk(policy.actor, policy.actor.features_extractor, nn.Sequential(*body), normalization)

    def log_std(features: Tensor) -> Tensor:
        output = features.new_zeros(*features.shape[:-1], last.out_features)
        around: Any = rule.distribution(output, features, policy.spread)
        return around.log_std.expand_as(output)  # type: ignore[no-any-return]

    probe: Any = rule.distribution(th.zeros(1, last.out_features), th.zeros(1, last.in_features), policy.spread)
    spread = log_std if hasattr(probe, "log_std") else None
    if isinstance(rule, TanhGaussian):
        return _actor(model, Network(trunk, last), _unbent, TanhNormal, spread)
    return _actor(model, Network(trunk, last), squash, Normal, spread)


def _of_actor_critic(model: Any, policy: Any, normalization: TensorNormalization | None) -> TorchActor:
    """PPO, A2C and TRPO: a Gaussian in the environment's units, which `predict` cuts to the Box."""
    trunk = _Trunk(policy, policy.pi_features_extractor, policy.mlp_extractor.policy_net, normalization)
    network, distribution = Network(trunk, policy.action_net), policy.action_dist
    state_dependent = isinstance(distribution, StateDependentNoiseDistribution)
    spread = _state_dependent(distribution, policy.log_std) if state_dependent else lambda features: policy.log_std
    if policy.squash_output:
        return _actor(model, network, _unbent, TanhNormal, spread)
    scale = ActionScale(policy.action_space)

    # Half the width of the Box is the standard deviation's unit, wherever the middle lies.
    ones = th.ones(network.last.out_features, device=policy.device)
    unit = scale.scale(ones) - scale.scale(th.zeros_like(ones))

    def scaled(features: Tensor) -> Tensor:
        return spread(features) + unit.log()

    bounds = (scale.scaled_low.ravel(), scale.scaled_high.ravel())
    low, high = (th.as_tensor(bound, device=policy.device) for bound in bounds)
    return _actor(model, network, scale.scale, lambda mean, log_std: CutNormal(mean, log_std, low, high), scaled)


def _state_dependent(distribution: Any, log_std: Tensor) -> Spread:
    """gSDE: the features themselves spread the action."""

    def spread(features: Tensor) -> Tensor:
        variance = features.square() @ distribution.get_std(log_std).square()
        return cast("Tensor", 0.5 * (variance + distribution.epsilon).log())

    return spread


def _unbent(output: Tensor) -> Tensor:
    return output


def _actor(model: Any, network: Network, bend: Any, family: Any, spread: Spread | None) -> TorchActor:
    # Where there are images, the environment may have its channels last and the model has them in front.
    known = None if images_of(model.observation_space) else model.observation_space
    return TorchActor(network, bend, family, spread, known, model.action_space, model.device)
