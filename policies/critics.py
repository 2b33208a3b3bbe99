"""Where critics come from: SB3 models, modules and plain functions become a `Critic`.

Every off-policy agent carries its critic, hidden in the file. A critic here is a live view: it follows the model's
weights while the model learns, and neither its parameters' gradients nor its training mode are touched.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import torch as th
from gymnasium import Space, spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy, ContinuousCritic
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import Tensor, nn
from torch.nn import functional as F

from offline_eval.errors import CriticError, bare
from offline_eval.policies.callables import CheckedFunction
from offline_eval.policies.finite import check_finite
from offline_eval.policies.normalization import Normalized, TensorNormalization, as_trained
from offline_eval.spaces import ActionScale
from offline_eval.types import Critic

if TYPE_CHECKING:
    from offline_eval.types import TensorObservations

ActionUnits = Literal["scaled", "environment"]
Values = Callable[["TensorObservations", Tensor], Tensor]


def critic_of(
    model: Any,
    *,
    action_space: Space[Any] | None = None,
    observation_space: Space[Any] | None = None,
    gamma: float | None = None,
    action_units: ActionUnits | None = None,
    soft: bool = False,
    device: str | th.device | None = None,
) -> Critic:
    """The critic of a model, or a critic made of a module or a function.

    SAC, TD3, DDPG, TQC (mean over its quantiles), CrossQ, DQN and QRDQN have one: `critic_of(model)`. Of a
    `Normalized`, or of a live model that learns behind a VecNormalize (its statistics as they are now), it takes raw
    observations, normalises them itself and answers in units of the raw return. Everything else is called as
    `model(observations, actions)`, and only for that are the keyword arguments.

    Args:
        model: an SB3 or sb3-contrib algorithm, a `Normalized` around one, an `nn.Module`, a function, or a `Critic`,
            which comes back as it is. A function gets tensors (batch, *observation_shape), or a dict of those, and
            (batch, *action_shape), or action indices (batch,) where the actions are discrete. It returns (batch,),
            (n_critics, batch), (batch, n_critics) or a tuple of such; which, is found by asking it twice.
        action_space: the environment's.
        observation_space: the environment's; where it is given, the function is tried out here and now, otherwise at
            its first call.
        gamma: the discount per step that the value was trained with.
        action_units: whether the function thinks in the "scaled" space, [-1, 1], or in the units of the
            "environment". Need not be said where the two are the same.
        soft: whether the value contains an entropy bonus.
        device: where the function computes; a module's own device if left out, else the CPU.

    Raises:
        CriticError: the model has no Q, or what stands in for it returns something else than values.
        InputError: its weights are not finite.
    """
    given: dict[str, object] = {"action_space": action_space, "observation_space": observation_space, "gamma": gamma}
    given |= {"action_units": action_units, "device": device}
    if isinstance(model, Normalized | BaseAlgorithm | Critic):
        if said := [name for name, value in given.items() if value is not None]:
            raise CriticError(said[0], "must be left out where the model knows it", given[said[0]])
        model = as_trained(model)
        if isinstance(model, Normalized):
            inner = model.model
            return in_raw_units(own_critic(inner) if isinstance(inner, BaseAlgorithm) else critic_of(inner), model)
        return own_critic(model) if isinstance(model, BaseAlgorithm) else model
    if isinstance(model, BasePolicy):
        raise CriticError(
            "model", "must be the algorithm", type(model).__name__, "its policy does not know its `gamma`"
        )
    if not callable(model):
        raise CriticError("model", "must be an SB3 algorithm, a module or a function", type(model).__name__)
    if action_space is None:
        raise CriticError("action_space", "must be given for a function", action_space, "pass `env.action_space`")
    scale = ActionScale(action_space)
    if action_units is None and not scale.is_identity:
        raise CriticError(
            "action_units",
            f"must say in which space the function thinks, as {action_space} is not [-1, 1]",
            action_units,
            'pass "scaled" for [-1, 1], as SB3 trains its critics, or "environment" for the units of the Box',
        )
    if action_units not in (None, *get_args(ActionUnits)):
        raise CriticError("action_units", 'must be "scaled" or "environment"', action_units)
    if isinstance(model, nn.Module):
        check_finite(model)
        parameter = next(model.parameters(), None)
        device = device or (None if parameter is None else parameter.device)
        model = live_view(model)
    where = th.device(device or "cpu")
    to_units = scale.unscale if action_units == "environment" else None
    function = CheckedFunction(model, action_space, to_units)
    if observation_space is not None:
        function.try_out(observation_space, where)
    return QCritic(function, observation_space, action_space, where, _checked_gamma(gamma), soft)


class QCritic:
    """A `Critic` made of a function; see `offline_eval.types.Critic` and `critic_of`, which makes them.

    Args:
        values: (observations, scaled actions) to (n_critics, batch).
        observation_space: of the environment; None where it is not known.
        action_space: of the environment.
        device: where the tensors must lie.
        gamma: the discount per step.
        soft: whether the value contains an entropy bonus.
    """

    def __init__(
        self,
        values: Values,
        observation_space: Space[Any] | None,
        action_space: Space[Any],
        device: th.device,
        gamma: float,
        soft: bool,
    ) -> None:
        self.values, self.device, self.gamma, self.soft = values, device, gamma, soft
        self.observation_space, self.action_space = observation_space, action_space
        self._scale = ActionScale(action_space)

    def q(self, observations: TensorObservations, actions: Tensor) -> Tensor:
        """Values (n_critics, batch) of scaled actions (batch, action_dim), or of action indices (batch,)."""
        return self.values(observations, actions)

    def scale(self, actions: Tensor) -> Tensor:
        """Environment units to the scaled space."""
        return self._scale.scale(actions)

    def unscale(self, actions: Tensor) -> Tensor:
        """The scaled space to environment units."""
        return self._scale.unscale(actions)


def live_view(module: nn.Module) -> nn.Module:
    """A copy of a module that shares its weights, needs no gradients for them and is in evaluation mode.

    What is trained into `module` shows in the view at once, since optimisers and `load_state_dict` write in place.
    Moving `module` to another device parts them.
    """
    shared: dict[int, Any] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in module.parameters()}
    shared |= {id(buffer): buffer for buffer in module.buffers()}
    # SB3 hangs its optimisers on the networks; a view does not learn.
    shared |= {
        id(part.optimizer): None
        for part in module.modules()
        if isinstance(vars(part).get("optimizer"), th.optim.Optimizer)
    }
    try:
        view = copy.deepcopy(module, shared)
    except Exception as error:
        raise CriticError(
            "model",
            "must be a module that can be copied",
            type(module).__name__,
            f"pass a function that calls it ({error})",
        ) from error
    return view.eval()


def network_name(model: BaseAlgorithm) -> str | None:
    """The attribute of an algorithm's policy that is its Q network; None where it has none."""
    networks = ("critic", "quantile_net", "q_net")
    return next((name for name in networks if isinstance(getattr(model.policy, name, None), nn.Module)), None)


def values_of(network: nn.Module, name: str, observation_space: Space[Any]) -> Values:
    """What a Q network says, which is called `name` in its policy; a live view of its weights."""
    view = live_view(network)
    kinds: dict[str, type[_ModelQ]] = {"critic": _EnsembleQ, "quantile_net": _QuantileQ, "q_net": _DiscreteQ}
    return _PlainEnsembleQ.of(view, observation_space) or kinds[name](view, observation_space)


def own_critic(model: BaseAlgorithm) -> QCritic:
    """The critic of an algorithm in its own terms: of the observations and rewards that it was trained on."""
    policy: Any = model.policy
    name = network_name(model)
    if name is None:
        raise CriticError(
            "model",
            "must have a Q(s, a)",
            bare(f"{type(model).__name__}, which has a V(s) only"),
            "take the critic of another agent of this environment (`--critic FILE`), or a Q fitted to logged data",
        )
    recipe: Any = getattr(model, "recipe", None)  # of an OfflineAlgorithm
    if recipe is not None and recipe.value is None:
        raise CriticError(
            "model",
            "must have learned a value",
            bare("a recipe without one: its critic was never trained"),
            "train one with a value, or fit its Q to logged data: `offline-eval critic`",
        )
    if isinstance(model.action_space, spaces.Discrete) and model.action_space.start != 0:
        # Stable-Baselines3 plays and learns the place of an action in its table as the action itself.
        rule = "must have actions that are counted from 0, as Stable-Baselines3's algorithms count them"
        raise CriticError("model", rule, bare(str(model.action_space)), "wrap the environment so that they begin at 0")
    check_finite(model)
    space = model.observation_space
    values = values_of(getattr(policy, name), name, space)
    soft = name == "critic" and hasattr(model, "ent_coef")
    gamma = _checked_gamma(getattr(model, "gamma", None))
    # Where there are images, the environment may have its channels last and the model has them in front.
    known = None if images_of(space) else space
    return QCritic(values, known, model.action_space, model.device, gamma, soft)


def in_raw_units(inner: Critic, model: Normalized) -> QCritic:
    """A critic of raw observations and returns, from one that was trained on those that `model` normalises."""
    values = _RawUnits(inner.q, TensorNormalization(model.statistics), model.statistics.return_scale)
    return QCritic(values, inner.observation_space, inner.action_space, inner.device, inner.gamma, inner.soft)


def _checked_gamma(gamma: object) -> float:
    if isinstance(gamma, int | float) and not isinstance(gamma, bool) and 0 <= gamma <= 1 and math.isfinite(gamma):
        return float(gamma)
    raise CriticError("gamma", "must be the discount that the value was trained with, in [0, 1]", gamma)


class _RawUnits:
    """Values of raw observations, in units of the raw return, from a critic that was trained on normalised ones."""

    def __init__(self, values: Values, normalization: TensorNormalization, return_scale: float) -> None:
        self.values, self.normalization, self.return_scale = values, normalization, return_scale

    def __call__(self, observations: TensorObservations, actions: Tensor) -> Tensor:
        return self.values(self.normalization(observations), actions) * self.return_scale


class _ModelQ:
    """A network of an SB3 policy; it casts, flattens and one-hot encodes observations itself."""

    def __init__(self, network: nn.Module, observation_space: Space[Any]) -> None:
        self.network, self.images = network, images_of(observation_space)

    def __call__(self, observations: TensorObservations, actions: Tensor) -> Tensor:
        raise NotImplementedError

    def _observations(self, observations: TensorObservations) -> Any:
        return channels_in_front(observations, self.images)


class _EnsembleQ(_ModelQ):
    """SAC, TD3, DDPG, CrossQ: a tuple of (batch, 1). TQC: (batch, n_critics, n_quantiles)."""

    def __call__(self, observations: TensorObservations, actions: Tensor) -> Tensor:
        heads = self.network(self._observations(observations), actions)
        if isinstance(heads, Tensor):
            return heads.mean(dim=2).T
        return th.stack([head.squeeze(-1) for head in heads])


class _PlainEnsembleQ:
    """The same for flat observations and heads of linear layers, without the modules around them.

    In a steering step those calls cost as much as the matrix products of a small network.
    """

    def __init__(self, heads: list[list[nn.Module]]) -> None:
        self.heads = heads

    def __call__(self, observations: TensorObservations, actions: Tensor) -> Tensor:
        inputs = th.cat([cast("Tensor", observations).flatten(1).to(actions.dtype), actions], dim=1)
        return th.cat([through(layers, inputs) for layers in self.heads], dim=1).T

    @staticmethod
    def of(network: nn.Module, observation_space: Space[Any]) -> _PlainEnsembleQ | None:
        """For a network that computes just that; None for any other."""
        heads = [list(head) for head in getattr(network, "q_networks", ()) if isinstance(head, nn.Sequential)]
        plain = (
            isinstance(network, ContinuousCritic)
            and type(network.features_extractor) is FlattenExtractor
            and type(observation_space) is spaces.Box
            and not images_of(observation_space)
            and all(type(layer) in (nn.Linear, nn.ReLU) for layers in heads for layer in layers)
        )
        return _PlainEnsembleQ(heads) if plain and heads else None


def through(layers: Iterable[nn.Module], inputs: Tensor) -> Tensor:
    """What linear layers and ReLUs make of inputs (batch, width), without the modules around them."""
    for layer in layers:
        inputs = F.linear(inputs, layer.weight, layer.bias) if isinstance(layer, nn.Linear) else F.relu(inputs)
    return inputs


class _DiscreteQ(_ModelQ):
    """DQN: (batch, n_actions), from which the actions' entries are taken."""

    def __call__(self, observations: TensorObservations, actions: Tensor) -> Tensor:
        table = self._table(self.network(self._observations(observations)))
        return table.gather(1, actions.reshape(-1, 1).long()).T

    def _table(self, output: Tensor) -> Tensor:
        return output


class _QuantileQ(_DiscreteQ):
    """QRDQN: (batch, n_quantiles, n_actions)."""

    def _table(self, output: Tensor) -> Tensor:
        return output.mean(dim=1)


def images_of(space: Space[Any]) -> dict[str, tuple[int, ...]]:
    """Shapes of the images among the observations, by key; "" where the observation is one."""
    parts = space.spaces if isinstance(space, spaces.Dict) else {"": space}
    return {key: cast("tuple[int, ...]", part.shape) for key, part in parts.items() if is_image_space(part)}


def channels_in_front(observations: TensorObservations, images: Mapping[str, tuple[int, ...]]) -> Any:
    """Observations whose images are of the shapes that a model was made for; the environment may have channels last."""
    if not images:
        return observations
    if isinstance(observations, Mapping):
        return {**observations, **{key: _turned(observations[key], shape) for key, shape in images.items()}}
    return _turned(observations, images[""])


def _turned(images: Tensor, shape: tuple[int, ...]) -> Tensor:
    return images if tuple(images.shape[1:]) == shape else images.permute(0, 3, 1, 2)
