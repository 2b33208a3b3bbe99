"""One gradient step: a pure loss of (parameters, batch, hyperparameters), and the optimiser and targets around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import torch as th
from torch import Tensor

from offline_eval.policies.adam import Adam
from offline_eval.policies.finite import all_true
from offline_eval.policies.networks import Activation, Parameters
from offline_eval.policies.recipes import Recipe
from offline_eval.policies.step import Loss, Metrics, Networks, Step
from offline_eval.policies.values import critic_loss
from offline_eval.types import Batch


@dataclass(frozen=True)
class Part:
    """A part of an algorithm that can be trained by itself.

    Args:
        name: `value` or `policy`.
        groups: the names of the parameters that are trained.
        loss: what they are trained on.
        every: trained in every so many steps.
        targets: pairs of a parameter group and its slow copy.
    """

    name: str
    groups: tuple[str, ...]
    loss: Callable[[Step], Loss]
    every: int = 1
    targets: tuple[tuple[str, str], ...] = ()


def value_parts(recipe: Recipe) -> tuple[Part, ...]:
    """The critics and what belongs to them; nothing where the recipe trains none."""
    if recipe.value is None:
        return ()
    loss = partial(critic_loss, penalties=recipe.penalties)
    return (Part("value", ("critic", "value"), loss, targets=(("critic", "target_critic"),)),)


def policy_parts(recipe: Recipe) -> tuple[Part, ...]:
    """The policy; nothing where the recipe trains none."""
    extraction = recipe.extraction
    if extraction is None:
        return ()
    return (
        Part(
            "policy",
            ("actor", "spread"),
            extraction.loss,
            every=recipe.policy_delay,
            targets=(("actor", "target_actor"),),
        ),
    )


def total_loss(parts: Sequence[Part], step: Step) -> Loss:
    """The sum of the parts' losses; each reaches only its own parameters, so that one backward pass serves them all."""
    losses, metrics = [], Metrics()
    for part in parts:
        loss, more = part.loss(step)
        losses.append(loss)
        metrics |= more
    return sum(losses[1:], losses[0]) if losses else step.batch.rewards.new_zeros(()), metrics


def trained(parts: Sequence[Part], parameters: Parameters) -> list[Tensor]:
    """The tensors that the parts train, in order."""
    return [tensor for part in parts for group in part.groups for tensor in parameters[group]]


class Learner:
    """Parameters, their optimiser, and the step that changes both.

    Args:
        recipe: what is learned.
        parameters: changed in place; those of trained groups require gradients.
        activation: between the layers.
        gamma: discount a step.
        tau: share of the new parameters that the targets take over (Polyak).
        adam: keywords for `Adam`: betas, eps, weight_decay.
    """

    def __init__(
        self,
        recipe: Recipe,
        parameters: Parameters,
        activation: Activation,
        gamma: float,
        tau: float,
        adam: Mapping[str, Any] | None = None,
    ) -> None:
        self.recipe, self.parameters, self.gamma, self.tau = recipe, parameters, gamma, tau
        self.networks = Networks(parameters, activation, recipe.actor)
        self.adam = Adam(parameters, ("critic", "value", "actor", "spread"), **(adam or {}))
        self.learning_rates = {"value": 0.0, "policy": 0.0}

    @property
    def is_finite(self) -> bool:
        """Whether every parameter is, and what the optimiser remembers of it."""
        parameters = [tensor for layers in self.parameters.values() for tensor in layers]
        return all(all_true([tensor.isfinite() for tensor in (*parameters, *self.adam.moments().values())]))

    def step(self, batch: Batch, noise: Tensor | None) -> Step:
        """An update's losses at the present parameters, as yet uncomputed."""
        return Step(self.networks, batch, noise, self.gamma, self.recipe.value)

    def update(self, batch: Batch, noise: Tensor | None, number: int, parts: Sequence[Part]) -> tuple[Tensor, Metrics]:
        """Make gradient step `number` (from 1); returns its loss and metrics without waiting for the device."""
        due = [part for part in parts if number % part.every == 0]
        loss, metrics = total_loss(due, self.step(batch, noise))
        tensors = trained(due, self.parameters)
        # Not every loss reads every parameter: TD3+BC has no use for the spread of its actor.
        gradients = iter(th.autograd.grad(loss, tensors, allow_unused=True) if tensors else ())
        for part in due:
            own = list(islice(gradients, len(trained([part], self.parameters))))
            self.adam.update(part.groups, own, self.learning_rates[part.name])

        if number % self.recipe.policy_delay == 0:
            self._move_targets(parts)
        return loss.detach(), metrics

    @th.no_grad()
    def _move_targets(self, parts: Sequence[Part]) -> None:
        pairs = [pair for part in parts for pair in part.targets]
        online = [tensor for name, _ in pairs for tensor in self.parameters[name]]
        slow = [tensor for _, name in pairs for tensor in self.parameters[name]]
        if slow:
            th._foreach_lerp_(slow, online, self.tau)
