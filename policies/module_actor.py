"""Torch modules of others as actors that can be trained at test time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch as th
from gymnasium import Space, spaces
from torch import Tensor, nn
from torch.func import functional_call

from offline_eval.errors import InputError, bare
from offline_eval.policies.actors import Normal, Point
from offline_eval.policies.adaptable import Network, TorchActor
from offline_eval.policies.callables import made_up_observations
from offline_eval.policies.critics import live_view
from offline_eval.spaces import ActionScale
from offline_eval.types import Adaptable

if TYPE_CHECKING:
    from offline_eval.types import TensorObservations


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
