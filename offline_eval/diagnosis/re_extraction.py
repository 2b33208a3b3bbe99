"""Policies read out of the same critic anew, with DDPG+BC and with AWR: what another extraction would have made of it.

They go through our trainer, with the critic as it is given, whoever trained it: only the policy learns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch as th
from torch import Tensor

from offline_eval.datasets.trajectories import Dataset
from offline_eval.diagnosis.plan import Extractions
from offline_eval.policies.actors import Deterministic, Gaussian
from offline_eval.policies.algorithm import OfflineAlgorithm
from offline_eval.policies.extraction import Extraction, advantage_weight, ascend
from offline_eval.policies.recipes import Recipe
from offline_eval.policies.step import Loss, Step
from offline_eval.policies.transforms import Standard, Standardize
from offline_eval.types import Critic

_SMALLEST_SCALE = 1e-6

OnSteps = Callable[[int], None]


@dataclass(frozen=True)
class _Given(Extraction):
    """Base: the critic is given, and asked about observations as the environment gives them."""

    needs_value: ClassVar[bool] = False

    critic: Critic = field(repr=False)
    standard: Standard = field(repr=False)

    def q(self, step: Step, actions: Tensor) -> Tensor:
        """The smallest value (batch,) of scaled actions."""
        mean, scale = (th.as_tensor(part, device=actions.device) for part in (self.standard.mean, self.standard.scale))
        return self.critic.q(step.batch.observations * scale + mean, actions).amin(0)

    def advantages(self, step: Step) -> Tensor:
        """Of the data's actions over the policy's own (batch,), in units of their spread, without gradient."""
        with th.no_grad():
            difference = self.q(step, step.batch.actions) - self.q(step, step.pi.mode)
        return difference / difference.std().clamp(min=_SMALLEST_SCALE)


@dataclass(frozen=True)
class GivenDDPGBC(_Given):
    """DDPG+BC: ascend the critic, and stay near the data.

    Args:
        critic: climbed.
        standard: what the trainer does to observations.
        bc_coef: weight of the negative log-density of the data's actions beside Q in units of its advantages' spread.
    """

    bc_coef: float = 1.0

    def loss(self, step: Step) -> Loss:
        """-Q / spread + bc_coef * negative log-density."""
        with th.no_grad():
            difference = self.q(step, step.batch.actions) - self.q(step, step.pi.mode)
        imitation = step.pi.imitation_loss(step.batch.actions).mean()
        climbed = ascend(self.q(step, step.pi.mode), difference.std().clamp(min=_SMALLEST_SCALE))
        loss = climbed + self.bc_coef * imitation
        return loss, {"actor/loss": loss.detach()}


@dataclass(frozen=True)
class GivenAWR(_Given):
    """Advantage-weighted regression on the data's actions.

    Args:
        critic: weighs.
        standard: what the trainer does to observations.
        inverse_temperature: of advantages in units of their spread.
        max_weight: of one transition.
    """

    inverse_temperature: float = 3.0
    max_weight: float = 100.0

    def loss(self, step: Step) -> Loss:
        """Mean of weight times negative log-density."""
        weight = advantage_weight(self.advantages(step), self.inverse_temperature, self.max_weight)
        loss = (weight / weight.mean() * step.pi.imitation_loss(step.batch.actions)).mean()
        return loss, {"actor/loss": loss.detach()}


class Extractor:
    """Extracts policies from one critic and one data set.

    Args:
        critic: given.
        dataset: whose actions are weighed, or stayed near to.
        plan: steps and networks.
        seed: of initial weights and batches.
        advance: told of gradient steps.
    """

    def __init__(
        self, critic: Critic, dataset: Dataset, plan: Extractions, seed: int, advance: OnSteps | None = None
    ) -> None:
        self._critic, self._dataset, self._plan, self._seed, self._advance = critic, dataset, plan, seed, advance
        self._normalising = Standardize()
        self._standard = self._normalising.statistics(dataset)

    def ddpg_bc(self, bc_coef: float) -> Any:
        """A policy by DDPG+BC.

        Raises:
            InputError: spaces that the trainer cannot serve, or fewer transitions than a batch.
            NonFiniteLoss: the loss became NaN or infinite.
        """
        return self._fit(Recipe(None, GivenDDPGBC(self._critic, self._standard, bc_coef), Deterministic(),
                                observations=self._normalising))  # fmt: skip

    def awr(self, inverse_temperature: float) -> Any:
        """A policy by AWR; raises as `ddpg_bc`."""
        return self._fit(Recipe(None, GivenAWR(self._critic, self._standard, inverse_temperature), Gaussian(),
                                observations=self._normalising))  # fmt: skip

    def _fit(self, recipe: Recipe) -> OfflineAlgorithm:
        words: dict[str, Any] = {"net_arch": list(self._plan.net_arch)}
        size = min(256, self._dataset.num_transitions)
        model = OfflineAlgorithm(
            recipe, learning_rate=1e-3, batch_size=size, policy_kwargs=words, seed=self._seed, device="cpu"
        )
        model.fit(self._dataset, self._plan.gradient_steps)
        if self._advance is not None:
            self._advance(self._plan.gradient_steps)
        return model
