"""Which way a step goes, which value it climbs, how its gain is known: the choices inside a steering rule.

Directions map a gradient (batch, action_dim) to what `step_size` multiplies, same shape:

- `Raw`: the gradient as it is, the formula of the paper.
- `L2`: the gradient at length 1.
- `Sign`: +1 or -1 in every dimension.

Reductions map an ensemble's values (n_critics, batch) to one value a row (batch,):

- `Min`, `Mean`, `LowerBound`.

Gains say which value the last step is predicted to reach:

- `LinearGain`: by the gradient that the step followed; costs nothing.
- `ExactGain`: by asking the critic again; costs a third of a step.

Any function of the same arguments does as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch as th
from torch import Tensor

from offline_eval.wrappers.arguments import check_positive

__all__ = [
    "L2",
    "Direction",
    "ExactGain",
    "Gain",
    "LinearGain",
    "LowerBound",
    "Mean",
    "Min",
    "Raw",
    "Reduction",
    "Sign",
]

Direction = Callable[[Tensor], Tensor]
Reduction = Callable[[Tensor], Tensor]
Gain = Callable[[Tensor, Tensor, Tensor, Callable[[], Tensor]], Tensor]

_SHORTEST_GRADIENT = 1e-12
"""Below it float32 has no direction left: the squares underflow, and rounding would become a full step."""

_SMALLEST_VARIANCE = 1e-12
"""Below it heads count as equal: the slope of the square root at 0 is infinite."""


@dataclass(frozen=True)
class Raw:
    """The gradient (batch, action_dim) as it is: `a + step_size * grad_a Q(s, a)` (Park et al., 2024).

    Its length depends on the scale of the critic: it differs thirtyfold between agents, and so does the step size
    that suits them.
    """

    def __call__(self, gradient: Tensor) -> Tensor:
        """The gradient itself."""
        return gradient


@dataclass(frozen=True)
class L2:
    """The gradient (batch, action_dim) at length 1: `step_size` is the length of a step in the scaled space (ours)."""

    def __call__(self, gradient: Tensor) -> Tensor:
        """Unit vectors, and shorter ones down to 0 where the gradient is shorter than 1e-12."""
        norm: Tensor = th.linalg.vector_norm(gradient, dim=-1, keepdim=True)
        return gradient / norm.clamp_min(_SHORTEST_GRADIENT)


@dataclass(frozen=True)
class Sign:
    """The signs of the gradient (batch, action_dim): every dimension moves by `step_size` (ours)."""

    def __call__(self, gradient: Tensor) -> Tensor:
        """-1, 0 or 1 in each dimension."""
        return gradient.sign()


@dataclass(frozen=True)
class Min:
    """The most pessimistic head."""

    def __call__(self, q: Tensor) -> Tensor:
        """(n_critics, batch) to (batch,)."""
        return q.min(dim=0).values


@dataclass(frozen=True)
class Mean:
    """The mean of the heads."""

    def __call__(self, q: Tensor) -> Tensor:
        """(n_critics, batch) to (batch,)."""
        return q.mean(dim=0)


@dataclass(frozen=True)
class LowerBound:
    """The mean minus `coef` standard deviations of the heads (over them, not an estimate for more: ddof 0).

    With two heads `coef=1` is their minimum.
    """

    coef: float = 1.0

    def __post_init__(self) -> None:
        check_positive("coef", self.coef, "0 is the mean of the heads", or_zero=True)

    def __call__(self, q: Tensor) -> Tensor:
        """(n_critics, batch) to (batch,)."""
        if len(q) == 1:
            return q[0]
        deviation = q.var(dim=0, correction=0).clamp_min(_SMALLEST_VARIANCE).sqrt()
        return q.mean(dim=0) - self.coef * deviation


@dataclass(frozen=True)
class LinearGain:
    """Value plus gradient times step.

    Exact for a critic that is linear over the step. It does not see that a step has gone over the top: there it still
    promises a gain where the critic, asked, would report a loss.
    """

    def __call__(self, value: Tensor, gradient: Tensor, step: Tensor, ask: Callable[[], Tensor]) -> Tensor:
        """The value (batch,) after `step` (batch, action_dim) from where the critic has `value` and `gradient`."""
        return value + (gradient * step).sum(dim=-1)


@dataclass(frozen=True)
class ExactGain:
    """What the critic says about the final action: one more forward pass."""

    def __call__(self, value: Tensor, gradient: Tensor, step: Tensor, ask: Callable[[], Tensor]) -> Tensor:
        """The value (batch,) that `ask` returns."""
        return ask()
