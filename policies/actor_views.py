"""`actor_of`: SB3 models, our own algorithms and torch modules become actors that can be trained at test time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch as th
from gymnasium import Space, spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.distributions import StateDependentNoiseDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.td3.policies import TD3Policy
from torch import Tensor, nn
from torch.func import functional_call

from offline_eval.errors import InputError, bare
from offline_eval.policies.actors import Normal, Point, TanhGaussian, TanhNormal
from offline_eval.policies.adaptable import CutNormal, Network, Spread, TorchActor
from offline_eval.policies.callables import made_up_observations
from offline_eval.policies.critics import channels_in_front, images_of, live_view, through
from offline_eval.policies.normalization import Normalized, TensorNormalization, as_trained
from offline_eval.policies.offline_policy import OfflinePolicy
from offline_eval.spaces import ActionScale
from offline_eval.types import Adaptable

if TYPE_CHECKING:
    from offline_eval.types import TensorObservations

__all__ = [
    "actor_of",
]


def actor_of_module(
    module: nn.Module, action_space: Space[Any] | None, observation_space: Space[Any] | None
) -> Adaptable:
    """The actor that a module is; see `actor_of`.

    Raises:
        InputError: a space is missing, or the module's action does not depend on its parameters.
    """
    if not isinstance(action_space, spaces.Box):
        raise InputError("action_space", "must be given for a module, and be a Box", action_space)
    if observation_space is None:
        raise InputError("observation_space", "must be given for a module", None, "pass `env.observation_space`")
    parameter = next(module.parameters(), None)
    device = th.device("cpu") if parameter is None else parameter.device
    if (parts := _parts(module)) is not None:
        trunk, last, bend = parts
        return TorchActor(Network(trunk, last), bend, Normal, None, observation_space, action_space, device)
    return ModuleActor(module, observation_space, action_space, device)


class ModuleActor:
    """An `Adaptable` made of any module; nothing is cached, as nobody knows what comes before its last layer.

    Args:
        module: from observations to scaled actions (batch, action_dim), by `mean` where it has one.
        observation_space: of the environment.
        action_space: of the environment.
        device: where the module lies.
    """

    def __init__(
        self, module: nn.Module, observation_space: Space[Any], action_space: Space[Any], device: th.device
    ) -> None:
        self.observation_space, self.action_space, self.device = observation_space, action_space, device
        scale = ActionScale(action_space)
        bounds = (scale.scaled_low.ravel(), scale.scaled_high.ravel())
        self._box = tuple(th.as_tensor(bound, device=device) for bound in bounds)
        self._module = _Mean(live_view(module))
        used, self.last_layer = self._tried_out(
            made_up_observations(observation_space, np.random.default_rng(0), device)
        )
        self._used = used
        self._whole = th.func.vmap(lambda parameters, rows: functional_call(self._module, parameters, (rows,)))

    def parameters(self) -> dict[str, Tensor]:
        """Those on which the action depends."""
        return {name: value.detach() for name, value in self._module.named_parameters() if name in self._used}

    def features(self, observations: TensorObservations) -> TensorObservations:
        """The observations."""
        return observations

    def last(self, parameters: Mapping[str, Tensor], features: TensorObservations) -> Tensor:
        """Scaled actions (rows, states, action_dim), each row with its own last layer."""
        return self.whole(parameters, features)

    def whole(self, parameters: Mapping[str, Tensor], observations: TensorObservations) -> Tensor:
        """Scaled actions (rows, states, action_dim), each row with its own parameters."""
        return cast("Tensor", self._whole(dict(parameters), observations))

    def spread(self, features: TensorObservations) -> Tensor | None:
        """None: only the deterministic action is known."""
        return None

    def actions(self, locations: Tensor) -> Tensor:
        """The locations, inside the box."""
        return locations.clamp(*self._box)

    def mean(self, observations: TensorObservations) -> Tensor:
        """The deterministic action (batch, action_dim), scaled."""
        return self.actions(self._module(observations))

    def sample(self, observations: TensorObservations, noise: Tensor) -> Tensor:
        """The deterministic action."""
        return Point(self.mean(observations)).sample(noise)

    def log_prob(self, observations: TensorObservations, actions: Tensor) -> Tensor:
        """Raises: a single action has no density."""
        return Point(self.mean(observations)).log_prob(actions)

    def _tried_out(self, observations: Any) -> tuple[set[str], tuple[str, ...]]:
        """The parameters that matter, and those of the linear layer that ran last."""
        ran: list[nn.Module] = []
        hooks = [
            part.register_forward_hook(lambda part, *_: ran.append(part))
            for part in self._module.modules()
            if isinstance(part, nn.Linear)
        ]
        parameters = {n: p.detach().clone().requires_grad_() for n, p in self._module.named_parameters()}
        try:
            actions = functional_call(self._module, parameters, (observations,))
        finally:
            for hook in hooks:
                hook.remove()
        size = int(th.Size(self.action_space.shape or ()).numel())
        if not isinstance(actions, Tensor) or actions.shape[1:] != (size,):
            raise InputError(
                "model", f"must give actions (batch, {size})", bare(str(getattr(actions, "shape", actions)))
            )
        if not actions.requires_grad:
            raise InputError(
                "model",
                "must be an actor that torch can differentiate",
                bare(f"{type(self._module.inner).__name__}, whose actions have no gradient in its parameters"),
                "do not detach them or compute them under no_grad",
            )
        gradients: Any = th.autograd.grad(actions.sum(), list(parameters.values()), allow_unused=True)
        used = {name for name, gradient in zip(parameters, gradients, strict=True) if gradient is not None}
        names = {id(part): name for name, part in self._module.named_modules()}
        last = [f"{names[id(ran[-1])]}.{name}" for name, _ in ran[-1].named_parameters()] if ran else []
        return used, tuple(name for name in last if name in used)


class _Mean(nn.Module):
    """A module's deterministic action as its `forward`, which is what torch calls with other parameters."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, observations: Any) -> Any:
        mean = getattr(self.inner, "mean", self.inner)
        return mean(observations)


def _parts(module: nn.Module) -> tuple[nn.Module, nn.Linear, nn.Module] | None:
    """Trunk, last layer and what bends its output, of a `Sequential`; None for any other module."""
    if not isinstance(module, nn.Sequential):
        return None
    linear = [place for place, layer in enumerate(module) if isinstance(layer, nn.Linear)]
    if not linear or any(True for _ in module[linear[-1] + 1 :].parameters()):
        return None
    return module[: linear[-1]], module[linear[-1]], module[linear[-1] + 1 :]  # type: ignore[return-value]


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
