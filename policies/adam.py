"""Adam over named groups of parameters, in one operation a step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch as th
from torch import Tensor

from offline_eval.errors import InputError
from offline_eval.policies.networks import Layers, Parameters


class Adam:
    """What `torch.optim.Adam(fused=True)` computes, without its bookkeeping, which costs as much as the operation.

    Moments lie in dicts of the parameters' own shape: they are split, stacked and saved by name.

    Args:
        parameters: changed in place.
        groups: the names of those that are trained; each has its own count of steps.
        betas: decay of the moments.
        eps: added to the root of the second moment.
        weight_decay: of the parameters, as Adam's L2 penalty.
    """

    def __init__(
        self,
        parameters: Parameters,
        groups: Iterable[str],
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        self._parameters, self._groups = parameters, tuple(groups)
        self._betas, self._eps, self._weight_decay = betas, eps, weight_decay
        self.first = {name: [th.zeros_like(p) for p in parameters[name]] for name in self._groups}
        self.second = {name: [th.zeros_like(p) for p in parameters[name]] for name in self._groups}
        self.steps = {
            name: th.zeros((), device=parameters[name][0].device) for name in self._groups if parameters[name]
        }
        for name in self._groups:
            for parameter in parameters[name]:
                if not parameter.is_contiguous():
                    raise InputError("parameters", "must be contiguous", name)
                parameter.requires_grad_()

    @th.no_grad()
    def update(self, groups: Sequence[str], gradients: Sequence[Tensor | None], learning_rate: float) -> None:
        """Step the groups by gradients of all of their parameters, in order; None where a loss does not read one."""
        chosen = [name for name in groups if name in self.steps]
        for name in chosen:
            self.steps[name] += 1
        columns = zip(
            _joined(self._parameters, chosen),
            gradients,
            _joined(self.first, chosen),
            _joined(self.second, chosen),
            [self.steps[name] for name in chosen for _ in self._parameters[name]],
            strict=True,
        )
        # It walks over memory: a transposed gradient (of a stacked layer) would be mixed up without an error.
        rows = [(p, g.contiguous(), first, second, step) for p, g, first, second, step in columns if g is not None]
        if not rows:
            return
        parameters, used, firsts, seconds, steps = (list(column) for column in zip(*rows, strict=True))
        th._fused_adam_(
            parameters,
            used,
            firsts,
            seconds,
            [],
            steps,
            lr=learning_rate,
            beta1=self._betas[0],
            beta2=self._betas[1],
            weight_decay=self._weight_decay,
            eps=self._eps,
            amsgrad=False,
            maximize=False,
        )

    def moments(self) -> dict[str, Tensor]:
        """Everything that an update changes beside the parameters, by name."""
        found = {f"{name}.steps": value for name, value in self.steps.items()}
        for kind, table in (("first", self.first), ("second", self.second)):
            found |= {f"{name}.{kind}.{i}": p for name, layers in table.items() for i, p in enumerate(layers)}
        return found


def _joined(table: Parameters, names: Sequence[str]) -> Layers:
    return [layer for name in names for layer in table[name]]
