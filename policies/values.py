"""Value rules: what Q bootstraps from, and the V that its advantages are measured against.

A rule is a frozen dataclass whose fields are its hyperparameters; it works with every extraction. The target of every
critic is r + gamma * (1 - terminated) * `next_value`; truncation bootstraps like any other step.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
import torch as th
from torch import Tensor

from offline_eval.batching import take
from offline_eval.checks import check_positive, is_finite
from offline_eval.datasets.store import row_blocks
from offline_eval.errors import InputError, bare
from offline_eval.policies.step import Loss, Step
from offline_eval.types import Array, Predictor

if TYPE_CHECKING:
    from offline_eval.datasets.trajectories import Dataset


def td_loss(qs: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of critics (n_critics, batch) against a target that broadcasts; a scalar, the critics summed.

    The sum over critics is IQL's and TD3's; CORL's IQL takes the mean.
    """
    return (qs - target).square().mean(-1).sum()


def expectile_loss(difference: Tensor, expectile: float) -> Tensor:
    """Asymmetric squared error of `difference` (batch,) = target - prediction: IQL, eq. 5.

    An expectile of 0.5 gives half the mean squared error, and its fixed point is the mean.
    """
    weight = th.where(difference > 0, expectile, 1.0 - expectile)
    return (weight * difference.square()).mean()


class ValueRule:
    """What a rule answers; the defaults suit one that trains critics and nothing of its own."""

    trains_v: ClassVar[bool] = False
    """Whether there is a state value network."""
    follows_policy: ClassVar[bool] = False
    """Whether the value depends on the policy that is being learned: then neither is learned alone."""
    needs_next_actions: ClassVar[bool] = False
    """Whether `next_value` reads the data's `next_actions`.

    Transitions whose next action nobody knows are then left out, and learning online is impossible. Without it, a
    trajectory's last transition has its own action there.
    """

    def next_value(self, step: Step) -> Tensor:
        """What follows the next observation, (batch,) or (n_critics, batch); called without gradient."""
        raise NotImplementedError

    def baseline(self, step: Step) -> Tensor:
        """The V (batch,) of an advantage, without gradient: what the policy's own action is worth."""
        with th.no_grad():
            return step.networks.target_qs(step.batch.observations, step.pi.mode).amin(0)

    def loss(self, step: Step) -> Loss:
        """The loss of what the rule trains beside the critics."""
        return step.batch.rewards.new_zeros(()), {}

    def noise_shape(self, action_dim: int) -> tuple[int, ...]:
        """Standard normal numbers a row that the rule wants; () for none."""
        return ()

    def next_actions(self, dataset: Dataset) -> Array | None:
        """Actions (num_transitions, *action_shape), in the environment's units, in place of the data's own; or None."""
        return None


class Penalty(Protocol):
    """Anything that is added to the critics' loss."""

    def __call__(self, step: Step) -> Loss:
        """The scalar to add, and what to log."""
        ...


def critic_loss(step: Step, penalties: tuple[Penalty, ...] = ()) -> Loss:
    """Everything that the value networks are trained on."""
    batch, rule = step.batch, step.rule
    assert rule is not None
    with th.no_grad():
        target = batch.rewards + step.gamma * batch.masks * rule.next_value(step)

    qs = step.networks.qs(batch.observations, batch.actions)
    total = td_loss(qs, target)
    metrics = {"critic/td_loss": total.detach(), "critic/q": qs.detach()}
    for term in (rule.loss, *penalties):
        loss, more = term(step)
        total, metrics = total + loss, metrics | more
    return total, metrics


@dataclass(frozen=True)
class OneStep(ValueRule):
    """SARSA: the value of the policy that collected the data, from the action that it took next.

    Steps whose next action is unknown (the last of a truncated trajectory) are left out. The smallest of the target
    critics, as `double_sarsa` of onestep-rl.
    """

    needs_next_actions: ClassVar[bool] = True

    def next_value(self, step: Step) -> Tensor:
        """Q of the next action in the data."""
        return step.networks.target_qs(step.batch.next_observations, step.batch.next_actions).amin(0)


@dataclass(frozen=True)
class Implicit(ValueRule):
    """IQL: V is an expectile of Q over the data's actions; no action outside the data is ever asked about.

    Args:
        expectile: between 0 and 1; 0.5 gives the data policy's own value, towards 1 the best of the data's actions.
            IQL: 0.7 for locomotion and Adroit, 0.9 for AntMaze.
    """

    expectile: float = 0.7

    trains_v: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not is_finite(self.expectile) or not 0.0 < self.expectile < 1.0:
            raise InputError(
                "expectile", "must lie between 0 and 1, both excluded", self.expectile, "IQL uses 0.7 to 0.9"
            )

    def next_value(self, step: Step) -> Tensor:
        """V of the next state."""
        return step.networks.v(step.batch.next_observations)

    def baseline(self, step: Step) -> Tensor:
        """V of the state."""
        return step.v.detach()

    def loss(self, step: Step) -> Loss:
        """The expectile regression of V on the smallest target critic."""
        loss = expectile_loss(step.data_q - step.v, self.expectile)
        return loss, {"value/loss": loss.detach(), "value/v": step.v.detach()}


@dataclass(frozen=True)
class ActorCritic(ValueRule):
    """TD3: the target actor's next action with clipped noise; the smallest of the target critics.

    Args:
        target_policy_noise: standard deviation of the noise, in the scaled space. TD3 and TD3+BC: 0.2.
        target_noise_clip: its largest absolute value. TD3 and TD3+BC: 0.5.
    """

    target_policy_noise: float = 0.2
    target_noise_clip: float = 0.5

    follows_policy: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("target_policy_noise", "target_noise_clip"):
            check_positive(name, getattr(self, name), "0 asks the target actor alone", or_zero=True)

    def next_value(self, step: Step) -> Tensor:
        """Q of the smoothed next action."""
        assert step.noise is not None
        observations = step.batch.next_observations
        noise = (self.target_policy_noise * step.noise).clamp(-self.target_noise_clip, self.target_noise_clip)
        actions = (step.networks.target_pi(observations).mode + noise).clamp(-1.0, 1.0)
        return step.networks.target_qs(observations, actions).amin(0)

    def noise_shape(self, action_dim: int) -> tuple[int, ...]:
        """A number an action dimension."""
        return (action_dim,)


@dataclass(frozen=True)
class FittedQ(ValueRule):
    """Fitted Q evaluation of any policy: the next action comes from a frozen predictor.

    The actions are asked for once, when training starts. Each critic bootstraps from its own target: the smallest of
    several would value the policy too low.

    Args:
        policy: anything with `predict`; not saved with the model, and needed again to train on.
        deterministic: what `predict` is told; with False one action a transition is drawn.
    """

    policy: Predictor | None = field(default=None, repr=False)
    deterministic: bool = True

    def next_value(self, step: Step) -> Tensor:
        """Each critic's own Q (n_critics, batch) of the policy's next action."""
        return step.networks.target_qs(step.batch.next_observations, step.batch.next_actions)

    def next_actions(self, dataset: Dataset) -> Array:
        """What the policy does in each next observation."""
        if self.policy is None:
            raise InputError("policy", "must be given to fit its Q", None, "FittedQ(policy=agent)")
        store, rows = dataset.store, dataset.observation_rows + 1
        parts = []
        for block in row_blocks(rows):
            actions, _ = self.policy.predict(take(store.observations, rows[block]), deterministic=self.deterministic)
            shape = (len(rows[block]), *(dataset.action_space.shape or ()))
            if np.shape(actions) != shape:
                raise InputError(
                    "policy", f"must give actions of shape {shape} for {shape[0]} observations",
                    bare(f"shape {np.shape(actions)}"), "take the agent that acts in the data's environment",
                )  # fmt: skip
            parts.append(actions)
        return np.concatenate(parts)
