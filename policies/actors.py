"""Actors: what the output of the policy network means, and how far actions spread around it.

Each is a frozen dataclass whose fields are its hyperparameters. All of them keep the mean in the network that TD3's
actor has, so that every recipe's file holds a TD3 policy; what a spread needs beyond it are parameters of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch as th
from torch import Tensor
from torch.nn import functional

from offline_eval.checks import check_positive, is_finite
from offline_eval.errors import InputError
from offline_eval.policies.networks import Layers, affine

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
_EDGE = 1e-5
"""Actions are kept this far from the ends of [-1, 1] before atanh (IQL's code: 1e-5)."""


class Distribution(Protocol):
    """What an actor does in a batch of states; actions are scaled."""

    @property
    def mode(self) -> Tensor:
        """The deterministic action (batch, action_dim)."""
        ...

    def sample(self, noise: Tensor) -> Tensor:
        """Actions for standard normal noise (..., batch, action_dim), differentiable."""
        ...

    def log_prob(self, actions: Tensor) -> Tensor:
        """Log-density (batch,) of actions (batch, action_dim)."""
        ...

    def imitation_loss(self, actions: Tensor) -> Tensor:
        """What cloning the actions costs, (batch,): the negative log-density, up to a constant."""
        ...


@dataclass(frozen=True)
class Point:
    """One action, without a density."""

    mode: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """The action itself."""
        return self.mode.expand_as(noise)

    def log_prob(self, actions: Tensor) -> Tensor:
        """Raises: a single action has no density."""
        raise InputError("actor", "must be stochastic to have a density", Deterministic(), "take FixedGaussian()")

    def imitation_loss(self, actions: Tensor) -> Tensor:
        """Half the squared distance, as of a Gaussian of standard deviation 1 (OGBench's `const_std`)."""
        return 0.5 * (self.mode - actions).square().sum(-1)


@dataclass(frozen=True)
class Normal:
    """A diagonal Gaussian around the mode, not squashed; samples are clipped to the box."""

    mode: Tensor
    log_std: Tensor  # broadcasts against `mode`

    def sample(self, noise: Tensor) -> Tensor:
        """Mode plus noise, clipped to [-1, 1]."""
        return (self.mode + self.log_std.exp() * noise).clamp(-1.0, 1.0)

    def log_prob(self, actions: Tensor) -> Tensor:
        """Of the Gaussian before clipping."""
        standard = (actions - self.mode) * (-self.log_std).exp()
        return -(0.5 * standard.square() + self.log_std + _LOG_SQRT_2PI).sum(-1)

    def imitation_loss(self, actions: Tensor) -> Tensor:
        """Negative log-density."""
        return -self.log_prob(actions)


@dataclass(frozen=True)
class TanhNormal:
    """tanh of a diagonal Gaussian."""

    mean: Tensor  # before tanh
    log_std: Tensor

    @property
    def mode(self) -> Tensor:
        """Tanh of the mean (not the density's own maximum), as in SAC."""
        return self.mean.tanh()

    def sample(self, noise: Tensor) -> Tensor:
        """Tanh of mean plus noise."""
        return (self.mean + self.log_std.exp() * noise).tanh()

    def log_prob(self, actions: Tensor) -> Tensor:
        """With the change of variables; actions closer than 1e-5 to an end of [-1, 1] count as if they lay there."""
        before = th.atanh(actions.clamp(-1.0 + _EDGE, 1.0 - _EDGE))
        standard = (before - self.mean) * (-self.log_std).exp()
        normal = -(0.5 * standard.square() + self.log_std + _LOG_SQRT_2PI)
        # log(1 - tanh(x)^2) in the form that does not cancel for large |x|.
        jacobian = 2.0 * (math.log(2.0) - before - functional.softplus(-2.0 * before))
        return (normal - jacobian).sum(-1)

    def imitation_loss(self, actions: Tensor) -> Tensor:
        """Negative log-density."""
        return -self.log_prob(actions)


@runtime_checkable
class ActorRule(Protocol):
    """What the actor network's output means."""

    def initial_spread(self, width: int, action_dim: int) -> Layers:
        """Parameters beside the network, for features of `width`; an empty list where there are none."""
        ...

    def distribution(self, output: Tensor, features: Tensor, spread: Layers) -> Distribution:
        """From the last layer's output (batch, action_dim), what it was computed from, and the own parameters."""
        ...


@dataclass(frozen=True)
class Deterministic:
    """TD3's actor: tanh of the network."""

    def initial_spread(self, width: int, action_dim: int) -> Layers:
        """Nothing."""
        return []

    def distribution(self, output: Tensor, features: Tensor, spread: Layers) -> Distribution:
        """One action a state."""
        return Point(output.tanh())


@dataclass(frozen=True)
class FixedGaussian:
    """A Gaussian of a fixed standard deviation around tanh of the network.

    Args:
        std: of each action dimension, in the scaled space. OGBench's `const_std` is 1.
    """

    std: float = 1.0

    def __post_init__(self) -> None:
        check_positive("std", self.std, "take Deterministic() for no spread at all")

    def initial_spread(self, width: int, action_dim: int) -> Layers:
        """Nothing."""
        return []

    def distribution(self, output: Tensor, features: Tensor, spread: Layers) -> Distribution:
        """A Gaussian a state."""
        return Normal(output.tanh(), th.full_like(output[..., :1], math.log(self.std)))


@dataclass(frozen=True)
class Gaussian:
    """A Gaussian around tanh of the network whose standard deviation is learned, the same in every state.

    IQL's actor (ikostrikov/implicit_q_learning: not squashed, log-std between -5 and 2).

    Args:
        log_std_min: lower end of the logarithm of the standard deviation.
        log_std_max: upper end.
    """

    log_std_min: float = -5.0
    log_std_max: float = 2.0

    def __post_init__(self) -> None:
        _check_ends(self.log_std_min, self.log_std_max)

    def initial_spread(self, width: int, action_dim: int) -> Layers:
        """A logarithm a dimension, 0 at first."""
        return [th.zeros(action_dim)]

    def distribution(self, output: Tensor, features: Tensor, spread: Layers) -> Distribution:
        """A Gaussian a state."""
        return Normal(output.tanh(), spread[0].clamp(self.log_std_min, self.log_std_max))


@dataclass(frozen=True)
class StateGaussian:
    """As `Gaussian`, with a standard deviation that the state decides: a clone for noise that differs between states.

    Args:
        log_std_min: lower end of the logarithm of the standard deviation.
        log_std_max: upper end.
    """

    log_std_min: float = -5.0
    log_std_max: float = 2.0

    def __post_init__(self) -> None:
        _check_ends(self.log_std_min, self.log_std_max)

    def initial_spread(self, width: int, action_dim: int) -> Layers:
        """A second output layer."""
        return _output_layer(width, action_dim)

    def distribution(self, output: Tensor, features: Tensor, spread: Layers) -> Distribution:
        """A Gaussian a state."""
        log_std = affine(spread[0], spread[1], features)
        return Normal(output.tanh(), log_std.clamp(self.log_std_min, self.log_std_max))


@dataclass(frozen=True)
class TanhGaussian:
    """SAC's actor: tanh of a Gaussian whose mean and standard deviation the state decides.

    Args:
        log_std_min: lower end of the logarithm of the standard deviation; SAC's code and CORL: -20.
        log_std_max: upper end.
    """

    log_std_min: float = -20.0
    log_std_max: float = 2.0

    def __post_init__(self) -> None:
        _check_ends(self.log_std_min, self.log_std_max)

    def initial_spread(self, width: int, action_dim: int) -> Layers:
        """A second output layer."""
        return _output_layer(width, action_dim)

    def distribution(self, output: Tensor, features: Tensor, spread: Layers) -> Distribution:
        """A squashed Gaussian a state."""
        log_std = affine(spread[0], spread[1], features)
        return TanhNormal(output, log_std.clamp(self.log_std_min, self.log_std_max))


def _output_layer(width: int, action_dim: int) -> Layers:
    layer = th.nn.Linear(width, action_dim)
    return [layer.weight.detach().t().contiguous(), layer.bias.detach()]


def _check_ends(low: float, high: float) -> None:
    for name, value in (("log_std_min", low), ("log_std_max", high)):
        if not is_finite(value):
            raise InputError(name, "must be a finite number", value, "IQL's are -5 and 2")
    if not low < high:
        raise InputError("log_std_min", f"must be < log_std_max ({high})", low)
