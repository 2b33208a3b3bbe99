"""Networks as pure functions of their parameters: what a loss reads, without a module or a state."""

from __future__ import annotations

from collections.abc import Callable

import torch as th
from torch import Tensor
from torch.nn import functional

Layers = list[Tensor]
"""weight (in, out), bias (out,), weight, bias, ...; an ensemble has one more axis in front.

`torch.nn.Linear` keeps its weight the other way round. This way the gradient of a stacked layer comes out of its matrix
product as the parameter lies in memory; the copy that the other way needs is a twentieth of a gradient step.
"""

Parameters = dict[str, Layers]
"""Layers by name: actor, spread, critic, value, target_actor, target_critic."""

Activation = Callable[[Tensor], Tensor]


class LayerNormReLU(th.nn.Module):
    """LayerNorm without parameters, then ReLU; for `policy_kwargs={"activation_fn": LayerNormReLU}`.

    Having no parameters it leaves the names of TD3's weights as they are. On the two-mode maze of the project's bench
    it raised the rank correlation of a learned Q with the true one from about 0.5 to 0.7.
    """

    def forward(self, x: Tensor) -> Tensor:
        """The same shape; normalised over the last axis."""
        return functional.relu(functional.layer_norm(x, x.shape[-1:]))


def affine(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """(batch, out) for a weight (in, out); (n, batch, out) for n of them and x (batch, in) or (n, batch, in)."""
    if weight.dim() == 2:
        return th.addmm(bias, x, weight)
    if x.dim() == 2:
        x = x.expand(weight.shape[0], *x.shape)
    return th.baddbmm(bias.unsqueeze(1), x, weight)


def hidden(layers: Layers, x: Tensor, activation: Activation) -> Tensor:
    """What the last hidden layer gives, (batch, width), or (n, batch, width) for an ensemble."""
    for weight, bias in zip(layers[:-2:2], layers[1:-2:2], strict=True):
        x = activation(affine(weight, bias, x))
    return x


def scalar(layers: Layers, x: Tensor, activation: Activation) -> Tensor:
    """One number a row, (batch,), or (n, batch) for an ensemble."""
    # A matrix product with one column runs at a fiftieth of the speed of this sum.
    return (hidden(layers, x, activation) * layers[-2].transpose(-1, -2)).sum(-1) + layers[-1]
