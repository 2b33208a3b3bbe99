"""Who acts in a rollout: the policy's mean action, that action with noise, or a soft policy's draws with their entropy.

Noise comes in as numbers, so that the branches of one state can share it. Every batch is padded to one width, so that a
rollout is the same to the last bit whatever rolls beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch as th

from offline_eval.batching import WIDTH, num_rows, take
from offline_eval.errors import InputError
from offline_eval.masking import refuse_masked
from offline_eval.policies import Normalized
from offline_eval.spaces import ActionScale
from offline_eval.types import Array, Observations, Predictor


class Driver(Protocol):
    """Chooses actions for a batch of observations."""

    @property
    def label(self) -> str:
        """What its rollouts are the value of."""
        ...

    @property
    def noise_dim(self) -> int:
        """Standard normal numbers wanted per row and step; 0 for none."""
        ...

    def act(self, observations: Observations, noise: Array) -> tuple[Array, Array]:
        """Actions (batch, *action_shape) in the environment's units and entropy bonuses (batch,), in reward units."""
        ...


@dataclass(frozen=True, eq=False)
class MeanAction:
    """The policy as it is deployed: its deterministic action."""

    policy: Predictor

    @property
    def label(self) -> str:
        """The deterministic policy."""
        return "the policy's mean action"

    @property
    def noise_dim(self) -> int:
        """None."""
        return 0

    def act(self, observations: Observations, noise: Array) -> tuple[Array, Array]:
        """The mean actions, without a bonus."""
        actions = mean_actions(self.policy, observations)
        return actions, np.zeros(len(actions))


@dataclass(frozen=True, eq=False)
class NoisyAction:
    """The mean action with Gaussian noise in the scaled space, which averages over a chaotic simulator."""

    policy: Predictor
    action_space: Any
    std: float = 0.1

    def __post_init__(self) -> None:
        if self.std < 0.0:
            raise InputError("std", "must be >= 0", self.std)

    @property
    def label(self) -> str:
        """The policy and its noise."""
        return f"the policy's mean action with noise of {self.std:g}"

    @property
    def noise_dim(self) -> int:
        """One number an action dimension."""
        return int(np.prod(self.action_space.shape))

    def act(self, observations: Observations, noise: Array) -> tuple[Array, Array]:
        """The noisy actions, clipped to the box, without a bonus."""
        actions = mean_actions(self.policy, observations)
        scale = ActionScale(self.action_space)
        noisy = scale.scale(actions) + self.std * noise.reshape(actions.shape)
        clipped = np.clip(noisy, scale.scaled_low, scale.scaled_high).astype(np.float32)
        return np.clip(scale.unscale(clipped), self.action_space.low, self.action_space.high), np.zeros(len(actions))


@dataclass(frozen=True, eq=False)
class SoftDraws:
    """Draws of a squashed Gaussian policy (SAC, TQC), and the entropy bonuses that its soft critic counts.

    With state-dependent exploration (gSDE) the draws come from the marginal distribution at each state, which is what
    the critic's targets are averages over.

    Args:
        model: an SB3 SAC, TQC or CrossQ, or a `Normalized` around one.
    """

    model: Any

    @property
    def label(self) -> str:
        """The stochastic policy, entropy included."""
        return "the policy's draws, with entropy bonuses"

    @property
    def noise_dim(self) -> int:
        """One number an action dimension."""
        return int(np.prod(self.model.action_space.shape))

    @property
    def temperature(self) -> float:
        """The weight of the entropy, in reward units."""
        inner, factor = _inner(self.model)
        learned = getattr(inner, "log_ent_coef", None)
        with th.no_grad():
            weight = inner.ent_coef_tensor if learned is None else learned.exp()
            return factor * float(weight.cpu())

    def act(self, observations: Observations, noise: Array) -> tuple[Array, Array]:
        """Draws and their bonuses `-temperature * log_prob`."""
        inner, _ = _inner(self.model)
        normalise = self.model.statistics.normalize if isinstance(self.model, Normalized) else _as_it_is
        actor = inner.policy.actor
        inner.policy.set_training_mode(False)  # as `predict` does: CrossQ's layers would learn from what they see
        parts = []
        with th.no_grad():
            for rows in blocks(num_rows(observations)):
                seen, _ = inner.policy.obs_to_tensor(normalise(take(observations, rows)))
                mean, log_std, extra = actor.get_action_dist_params(seen)
                gaussian = actor.action_dist.proba_distribution(mean, log_std, **extra).distribution
                drawn = gaussian.mean + gaussian.stddev * th.as_tensor(noise[rows]).to(mean)
                squashed = th.tanh(drawn)
                correction = th.log(1.0 - squashed.square() + 1e-6)  # SB3's own
                log_prob = (gaussian.log_prob(drawn) - correction).sum(dim=1)
                parts.append(th.cat([squashed, log_prob[:, None]], dim=1).cpu().numpy())
        table = np.concatenate(parts)[: num_rows(observations)]
        space = self.model.action_space
        actions = ActionScale(space).unscale(table[:, :-1].reshape(-1, *space.shape))
        return np.clip(actions, space.low, space.high), -self.temperature * table[:, -1].astype(np.float64)


def soft_draws(model: Any) -> SoftDraws | None:
    """The draws of a soft agent; None where the model has no temperature or no squashed Gaussian."""
    inner, _ = _inner(model)
    actor = getattr(getattr(inner, "policy", None), "actor", None)
    has_temperature = getattr(inner, "log_ent_coef", None) is not None or hasattr(inner, "ent_coef_tensor")
    return SoftDraws(model) if has_temperature and hasattr(actor, "get_action_dist_params") else None


def mean_actions(policy: Predictor, observations: Observations) -> Array:
    """Deterministic actions (batch, *action_shape) in the environment's units, in padded batches.

    Raises:
        InputError: a recurrent policy, whose state at a logged step is not known, or one that asks for masks.
    """
    refuse_masked(policy, "model")
    parts, size = [], num_rows(observations)
    for rows in blocks(size):
        actions, state = policy.predict(take(observations, rows), deterministic=True)
        if state is not None:
            raise InputError("model", "must have no recurrent state to act at a single state", type(policy).__name__)
        parts.append(actions)
    return np.concatenate(parts)[:size]


def blocks(size: int, width: int = WIDTH) -> list[Array]:
    """Rows in blocks of one width; the last row pads the last block."""
    padded = np.minimum(np.arange(-(-size // width) * width), size - 1)
    return np.split(padded, len(padded) // width)


def _inner(model: Any) -> tuple[Any, float]:
    """The algorithm, and what a unit of its return is in raw units."""
    if isinstance(model, Normalized):
        return model.model, model.statistics.return_scale
    return model, 1.0


def _as_it_is(observations: Observations) -> Observations:
    return observations
