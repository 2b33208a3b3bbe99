"""What to do to an action: steering rules. A host (`env`, `vector`, `sb3`, `predictor`) says where it is done.

- `OPEX` climbs the critic: `a + step_size * grad_a Q(s, a)` (Park et al., 2024, "Is Value Learning Really the Main
  Bottleneck in Offline RL?"). The formula is the paper's; the step sizes, the staying inside the box, several steps,
  directions, reductions and guards are ours.
- `BestOfN` draws candidates around the action and takes the one that the critic rates highest.
- The controls `RandomDirection`, `MultiplyAction` and `Placebo` are in `offline_eval.wrappers.controls`.

All of them work on scaled actions: [-1, 1] in every bounded dimension of the Box.

What a rule did is reported in numbers, each (batch,); this is the whole list:

- `gradient_norm`: L2 norm of the critic's gradient at the policy's action, per unit of scaled action. OPEX only.
- `displacement`: L2 distance from the policy's action to the executed one, in scaled units. With discrete actions 1
  where another one was taken, else 0.
- `clipped`: share of the action's dimensions in which the box cut a step short.
- `predicted_gain`: the reduced value of the executed action minus that of the policy's action. BestOfN asks the
  critic for both; OPEX takes the last step's share from the gradient unless its `gain` is `ExactGain()`. 0 for a row
  left alone; NaN where the critic has no finite value for the policy's own action (`Steering` refuses such a critic
  on its first batch and counts it as 0 later).
- `gated`: share of the rule's step that a guard held back (`offline_eval.wrappers.guards`). `Guarded` only.
- `zero_gradient`: 1 where training had nothing to learn from, saturated. `TestTimeTraining` only.
- `non_finite`: 1 where a gradient or a value was infinite or NaN, else 0. Such a row keeps the policy's action.

`displacement` is measured by the host for every rule, and `clipped` for those that do not report it themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch as th
from torch import Tensor

from offline_eval.errors import CriticError, bare
from offline_eval.types import Steered
from offline_eval.wrappers.arguments import Numbers, check_positive, check_whole, column, numbers
from offline_eval.wrappers.directions import Direction, ExactGain, Gain, LinearGain, Min, Raw, Reduction
from offline_eval.wrappers.rules import CriticRule, required

if TYPE_CHECKING:
    from offline_eval.types import TensorObservations

__all__ = ["OPEX", "BestOfN", "GaussianProposal"]

_RAW, _MIN, _LINEAR = Raw(), Min(), LinearGain()


@dataclass(frozen=True, eq=False)
class OPEX(CriticRule):
    """Steps up the critic, `a + step_size * direction(grad_a Q(s, a))`, projected into the box.

    Example:
        >>> OPEX(critic, step_size=0.1, direction=L2())  # doctest: +SKIP
        OPEX(step_size=0.1, num_steps=1, direction=L2(), reduce=Min(), max_distance=None, keep_best=False,
        gain=LinearGain())

    Args:
        critic: what is climbed.
        step_size: >= 0, in scaled units times the direction's; a vector holds one entry a row. Rows with 0 come back
            with the same bits.
        num_steps: steps of that size, each with a new gradient. The paper takes one.
        direction: `Raw()` is the paper's; with `L2()` a step size means the same for every critic.
        reduce: from the ensemble's values to the one that is climbed.
        max_distance: no step leads further than this from the policy's action (L2, scaled units); None sets no limit.
        keep_best: whether to end at the best of all visited actions by the reduced value, so never at one that the
            critic rates lower than the policy's.
        gain: how `predicted_gain` is known: `LinearGain()` believes the last gradient, `ExactGain()` asks the critic
            again, which is dearer and sees a step that goes over the top. `keep_best` asks in any case.

    A step costs a forward and a backward pass of the critic.
    """

    number_per_row = "step_size"

    step_size: Numbers
    num_steps: int = 1
    direction: Direction = _RAW
    reduce: Reduction = _MIN
    max_distance: float | None = None
    keep_best: bool = False
    gain: Gain = _LINEAR

    def __post_init__(self) -> None:
        super().__post_init__()
        step_size = numbers("step_size", self.step_size, "0 leaves the action as it is")
        object.__setattr__(self, "step_size", step_size)
        check_whole("num_steps", self.num_steps, 1, "step_size=0 takes no step")
        if self.max_distance is not None:
            check_positive("max_distance", self.max_distance, "None sets no limit")

    def __call__(self, observations: TensorObservations, actions: Tensor, noise: Tensor | None = None) -> Steered:
        """Steer scaled actions (batch, action_dim); `noise` is not used."""
        step_size = column("step_size", self.step_size, actions)
        before, gradient = self._climb(observations, actions)
        gradient_norm = th.linalg.vector_norm(gradient, dim=-1)
        best, best_values = actions, before
        # Finite as long as every addend is: one look at the end instead of one at each of them.
        finite = gradient_norm + before
        values, start = before, actions
        current, cut = self._step(actions, start, gradient, step_size)
        for _ in range(self.num_steps - 1):
            start = current.nan_to_num(0.0)  # a critic is never asked about what is no number; the row is lost already
            values, gradient = self._climb(observations, start)
            finite = finite + values + th.linalg.vector_norm(gradient, dim=-1)
            if self.keep_best:
                best, best_values = _better(best, best_values, start, values)
            current, cut_again = self._step(actions, start, gradient, step_size)
            cut = cut | cut_again
        gain = ExactGain() if self.keep_best else self.gain
        after = gain(values, gradient, current - start, partial(self._ask, observations, current))
        usable = (finite + after).abs() < math.inf
        if self.keep_best:
            current, after = _better(best, best_values, current, after)

        # A row is left alone by a flag, not by arithmetic: an action that came from outside the box must not be
        # pulled into it by a step size of 0.
        steered = usable[:, None] & (step_size > 0)
        metrics = {
            "gradient_norm": gradient_norm,
            "clipped": (cut & steered).mean(dim=-1, dtype=actions.dtype),
            "predicted_gain": th.where(steered[:, 0], after, before) - before,
            "non_finite": ~usable,
        }
        return Steered(th.where(steered, current, actions), metrics)

    def _climb(self, observations: TensorObservations, actions: Tensor) -> tuple[Tensor, Tensor]:
        """The reduced values (batch,) and their gradient in the actions (batch, action_dim)."""
        with th.enable_grad():
            leaf = actions.detach().requires_grad_()
            values = self.values(observations, leaf, self.reduce)
            gradient = None
            if values.requires_grad:
                # Only towards the actions: the critic's own parameters get no gradient.
                (gradient,) = th.autograd.grad(values, leaf, th.ones_like(values), allow_unused=True)
        if gradient is None:
            raise CriticError(
                "critic",
                "must be differentiable in the actions for OPEX",
                bare("values without a gradient"),
                "do not detach them or compute them under no_grad; BestOfN needs no gradient",
            )
        return values.detach(), gradient

    def _ask(self, observations: TensorObservations, actions: Tensor) -> Tensor:
        with th.no_grad():
            return self.values(observations, actions.nan_to_num(0.0), self.reduce)

    def _step(
        self, start: Tensor, current: Tensor, gradient: Tensor, step_size: float | Tensor
    ) -> tuple[Tensor, Tensor]:
        """The next actions, and in which dimensions the box cut the step."""
        proposed = current + step_size * self.direction(gradient)
        if self.max_distance is not None:
            way = proposed - start
            length = th.linalg.vector_norm(way, dim=-1, keepdim=True)
            proposed = th.where(length > self.max_distance, start + way * (self.max_distance / length), proposed)
        # After the ball: the box contains the start, so projecting into it brings every dimension nearer.
        projected = th.clamp(proposed, *self.box)
        return projected, projected != proposed


@dataclass(frozen=True)
class GaussianProposal:
    """Candidates around the policy's action.

    Args:
        std: standard deviation in every dimension, in scaled units, > 0.
    """

    std: float = 0.2

    def __post_init__(self) -> None:
        check_positive("std", self.std, "candidates must differ from the policy's action")

    def __call__(self, actions: Tensor, noise: Tensor) -> Tensor:
        """Candidates (batch, n, action_dim) from actions (batch, action_dim) and noise of the candidates' shape."""
        return actions[:, None, :] + self.std * noise


_AROUND = GaussianProposal()


@dataclass(frozen=True, eq=False)
class BestOfN(CriticRule):
    """The candidate that the critic rates highest; the policy's own action is the first of them and wins ties.

    Args:
        critic: who rates.
        num_samples: candidates a row, the policy's action included.
        proposal: `(actions, noise) -> candidates` for the others, with noise (batch, num_samples - 1, action_dim);
            they are projected into the box.
        reduce: from the ensemble's values to the one that is compared.

    One forward pass of the critic on batch * num_samples rows.
    """

    num_samples: int
    proposal: Callable[[Tensor, Tensor], Tensor] = _AROUND
    reduce: Reduction = _MIN

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("num_samples", self.num_samples, 2, "1 would be the policy's action alone")

    def noise_shape(self, action_dim: int) -> tuple[int, ...]:
        """One vector for each candidate but the first."""
        return (self.num_samples - 1, action_dim)

    def __call__(self, observations: TensorObservations, actions: Tensor, noise: Tensor | None) -> Steered:
        """Steer scaled actions (batch, action_dim) given noise (batch, num_samples - 1, action_dim)."""
        proposed = self.proposal(actions, required(noise))
        others = th.clamp(proposed, *self.box)
        candidates = th.cat([actions[:, None, :], others], dim=1)
        with th.no_grad():
            repeated = _repeat(observations, self.num_samples)
            values = self.values(repeated, candidates.flatten(0, 1), self.reduce).view(len(actions), -1)
        usable = values.isfinite().all(dim=1)
        # argmax takes the first of equals, so the policy's own action; NaN would win otherwise.
        choice = th.where(usable[:, None], values, 0.0).argmax(dim=1)
        row = th.arange(len(actions), device=actions.device)
        cut = th.cat([th.zeros_like(actions[:, None, :], dtype=th.bool), others != proposed], dim=1)
        metrics = {
            "clipped": cut[row, choice].mean(dim=-1, dtype=actions.dtype),
            "predicted_gain": values[row, choice] - values[:, 0],
            "non_finite": ~usable,
        }
        return Steered(candidates[row, choice], metrics)


def _better(best: Tensor, best_values: Tensor, actions: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    better = values > best_values
    return th.where(better[:, None], actions, best), th.where(better, values, best_values)


def _repeat(observations: TensorObservations, times: int) -> TensorObservations:
    if isinstance(observations, Tensor):
        return observations.repeat_interleave(times, dim=0)
    return {key: _repeat(value, times) for key, value in observations.items()}  # type: ignore[misc]
