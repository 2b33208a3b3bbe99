"""Policy extractions: how a policy is read out of Q, and how it acts.

An extraction is a frozen dataclass whose fields are its hyperparameters; it works with every value rule and every actor
that has what it needs. Q has no gradient in its parameters here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch as th
from torch import Tensor

from offline_eval.checks import check_positive, check_whole
from offline_eval.errors import InputError
from offline_eval.policies.actors import ActorRule, Deterministic, Distribution
from offline_eval.policies.step import Loss, Step

Score = Callable[[Tensor, Tensor], Tensor]
"""What actions (rows, action_dim) are worth in observations (rows, observation_dim): (rows,)."""

_SMALLEST_SCALE = 1e-6


class Scale(Protocol):
    """What Q, or an advantage, is divided by."""

    def __call__(self, step: Step, q: Tensor) -> Tensor:
        """A scalar > 0 without gradient; `q` (batch,) is the value of the policy's actions."""
        ...


@dataclass(frozen=True)
class Unscaled:
    """Q as it is; the weight of the behaviour term then depends on the rewards' size and the discount."""

    def __call__(self, step: Step, q: Tensor) -> Tensor:
        """One."""
        return q.new_ones(())


@dataclass(frozen=True)
class MeanAbsoluteQ:
    """The batch's mean |Q|, as published (TD3+BC, OGBench).

    It grows while Q is learned (from 1 to 14.5 on the project's bench) although what distinguishes actions does not.
    """

    def __call__(self, step: Step, q: Tensor) -> Tensor:
        """Mean |Q| of the policy's actions."""
        return q.detach().abs().mean().clamp(min=_SMALLEST_SCALE)


@dataclass(frozen=True)
class AdvantageSpread:
    """The standard deviation, over the batch, of the advantage of the data's actions.

    It stayed at 0.82 to 0.89 where mean |Q| grew 14-fold, so that one `bc_coef` suits every checkpoint.
    """

    def __call__(self, step: Step, q: Tensor) -> Tensor:
        """The spread of Q(s, a) - V(s)."""
        return step.advantage.std().clamp(min=_SMALLEST_SCALE)


class Extraction:
    """What an extraction answers; by default it acts as its actor does."""

    needs_value: ClassVar[bool] = True
    """Whether the policy's loss reads the critics."""
    ranks_candidates: ClassVar[bool] = False
    """Whether even the deterministic action needs noise; it is then given the same noise every time."""

    def loss(self, step: Step) -> Loss:
        """The policy's loss; `step.rule` is None only where `needs_value` is False."""
        raise NotImplementedError

    def check_actor(self, actor: ActorRule) -> None:
        """Raise an InputError where the actor lacks something."""

    def noise_shape(self, action_dim: int) -> tuple[int, ...]:
        """Standard normal numbers that one action takes."""
        return (action_dim,)

    def act(self, pi: Distribution, observations: Tensor, noise: Tensor | None, score: Score) -> Tensor:
        """Scaled actions (batch, action_dim).

        Args:
            pi: what the actor does.
            observations: (batch, observation_dim), as `score` wants them.
            noise: (batch, *noise_shape); None for the deterministic action.
            score: the smallest target critic.
        """
        return pi.mode if noise is None else pi.sample(noise)


def ascend(q: Tensor, scale: Tensor) -> Tensor:
    """The loss that raises Q (batch,) in units of `scale`."""
    return -q.mean() / scale


def advantage_weight(advantages: Tensor, inverse_temperature: float, max_weight: float) -> Tensor:
    """exp(inverse_temperature * advantage), at most `max_weight`: (batch,), finite for every finite advantage."""
    return (inverse_temperature * advantages).exp().clamp(max=max_weight)


@dataclass(frozen=True)
class BCExtraction(Extraction):
    """Behaviour cloning: the data's actions, all alike."""

    needs_value: ClassVar[bool] = False

    def loss(self, step: Step) -> Loss:
        """The negative log-density of the data's actions (half the squared error of a deterministic actor)."""
        loss = step.pi.imitation_loss(step.batch.actions).mean()
        return loss, {"actor/bc_loss": loss.detach()}


@dataclass(frozen=True)
class AWRExtraction(Extraction):
    """Advantage-weighted regression: the data's actions, the better ones more.

    Args:
        inverse_temperature: 0 is behaviour cloning. IQL: 3 for locomotion, 10 for AntMaze, 0.5 for Adroit.
        max_weight: of one transition. IQL: 100; AWR: 20.
        scale: what the advantage is divided by.
    """

    inverse_temperature: float = 3.0
    max_weight: float = 100.0
    scale: Scale = Unscaled()

    def __post_init__(self) -> None:
        check_positive("inverse_temperature", self.inverse_temperature, "0 is behaviour cloning", or_zero=True)
        check_positive("max_weight", self.max_weight, "IQL's is 100")

    def loss(self, step: Step) -> Loss:
        """Mean of weight times negative log-density."""
        advantages = step.advantage / self.scale(step, step.data_q)
        weight = advantage_weight(advantages, self.inverse_temperature, self.max_weight)
        loss = (weight * step.pi.imitation_loss(step.batch.actions)).mean()
        effective = weight.mean().square() / weight.square().mean()
        return loss, {
            "actor/loss": loss.detach(),
            "actor/advantage": advantages,
            "actor/effective_sample_share": effective,
        }


@dataclass(frozen=True)
class DDPGBCExtraction(Extraction):
    """Ascend the smallest critic at the actor's mode, and stay near the data: OGBench's `ddpgbc`.

    Args:
        bc_coef: weight of the negative log-density of the data's actions beside Q / scale. OGBench: 0.3. With a
            deterministic actor and one critic, 0.8 / action_dim gives TD3+BC's gradient divided by 2.5.
        scale: what Q is divided by.
    """

    bc_coef: float = 0.3
    scale: Scale = MeanAbsoluteQ()

    def __post_init__(self) -> None:
        check_positive("bc_coef", self.bc_coef, "0 follows Q alone", or_zero=True)

    def loss(self, step: Step) -> Loss:
        """-Q / scale + bc_coef * negative log-density."""
        q = step.frozen.qs(step.batch.observations, step.pi.mode).amin(0)
        scale = self.scale(step, q)
        bc = step.pi.imitation_loss(step.batch.actions).mean()
        loss = ascend(q, scale) + self.bc_coef * bc
        return loss, {"actor/loss": loss.detach(), "actor/bc_loss": bc.detach(), "actor/q_scale": scale}


@dataclass(frozen=True)
class TD3BCExtraction(Extraction):
    """TD3+BC's actor loss as published: -q_coef * Q1 / mean |Q1| + mean squared error (over batch and dimensions).

    Args:
        q_coef: weight of Q; the paper's alpha. sfujim/TD3_BC: 2.5.
    """

    q_coef: float = 2.5

    def __post_init__(self) -> None:
        check_positive("q_coef", self.q_coef, "0 is behaviour cloning", or_zero=True)

    def loss(self, step: Step) -> Loss:
        """The first critic alone, as TD3."""
        actions = step.pi.mode
        q = step.frozen.q1(step.batch.observations, actions)
        scale = MeanAbsoluteQ()(step, q)
        bc = (actions - step.batch.actions).square().mean()
        loss = self.q_coef * ascend(q, scale) + bc
        return loss, {"actor/loss": loss.detach(), "actor/bc_loss": bc.detach(), "actor/q_scale": scale}


@dataclass(frozen=True)
class BestOfNExtraction(BCExtraction):
    """SfBC: clone the data, then act with the best of N samples of the clone, by the smallest target critic.

    The deterministic action ranks one fixed set of noise in every state. Larger N trust the critic more.

    Args:
        num_samples: candidates an action. IFQL (seohongpark/fql): 32; IDQL: 64.
    """

    num_samples: int = 32

    ranks_candidates: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_whole("num_samples", self.num_samples, 1, "1 is the clone itself")

    def check_actor(self, actor: ActorRule) -> None:
        """Refuses an actor whose samples are all the same."""
        if isinstance(actor, Deterministic):
            raise InputError(
                "actor", "must be stochastic, so that its samples differ", actor, "take StateGaussian() or Gaussian()"
            )

    def noise_shape(self, action_dim: int) -> tuple[int, ...]:
        """A row a candidate."""
        return (self.num_samples, action_dim)

    def act(self, pi: Distribution, observations: Tensor, noise: Tensor | None, score: Score) -> Tensor:
        """The candidate of the highest score, the first of equals."""
        assert noise is not None
        candidates = pi.sample(noise.transpose(0, 1))  # (num_samples, batch, action_dim)
        repeated = observations.expand(len(candidates), *observations.shape)
        scores = score(repeated.flatten(0, 1), candidates.flatten(0, 1)).view(len(candidates), -1)
        return candidates[scores.argmax(0), th.arange(len(observations), device=observations.device)]
