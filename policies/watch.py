"""What a run looks at while it trains: whether losses are finite, their means, and a progress bar."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from torch import Tensor

from offline_eval.errors import MissingExtra, NonFiniteLoss
from offline_eval.policies.sampling import Rows, Sampler
from offline_eval.policies.step import Metrics

_CHECK_EVERY = 64
"""Steps between two looks at the losses; each look waits for the device."""


def numbers(metrics: Mapping[str, Tensor]) -> dict[str, float]:
    """Scalars of a device as Python's numbers, in one transfer."""
    values = th.stack(list(metrics.values())).cpu().tolist() if metrics else []
    return dict(zip(metrics, values, strict=True))


class Watch:
    """Losses and metrics of recent steps, looked at in blocks.

    Args:
        sampler: knows the batch of every step.
        rows: what it draws from.
    """

    def __init__(self, sampler: Sampler, rows: Rows) -> None:
        self._sampler, self._rows = sampler, rows
        self._losses: list[Tensor] = []
        self._first = 0
        self._metrics: dict[str, list[Tensor]] = {}

    def add(self, number: int, loss: Tensor, metrics: Metrics) -> None:
        """Take in step `number` (from 0); every 64 steps `check` them."""
        if not self._losses:
            self._first = number
        self._losses.append(loss)
        for name, value in metrics.items():
            self._metrics.setdefault(name, []).append(value)
        if len(self._losses) >= _CHECK_EVERY:
            self.check()

    def check(self) -> None:
        """Look at the losses since the last look.

        Raises:
            NonFiniteLoss: one is NaN or infinite; the first is named with the transitions of its batch.
        """
        if not self._losses:
            return
        finite = th.stack(self._losses).isfinite().cpu().numpy()
        self._losses = []
        if not finite.all():
            number = self._first + int(np.argmin(finite))
            index = self._sampler.indices(number)
            batch = self._rows.gather(index)
            broken = th.stack([~part.reshape(len(part), -1).isfinite().all(1) for part in batch]).any(0).cpu().numpy()
            raise NonFiniteLoss(number + 1, self._rows.transitions(index), self._rows.transitions(index[broken]))

    def means(self) -> dict[str, float]:
        """The mean of every metric since the last call."""
        found = numbers({name: th.stack(values).mean() for name, values in self._metrics.items()})
        self._metrics = {}
        return found


class ProgressBar(BaseCallback):
    """A bar over gradient steps, with the losses that were logged last; tqdm shows the rate.

    Args:
        total: gradient steps.
    """

    def __init__(self, total: int) -> None:
        super().__init__()
        try:
            from tqdm import tqdm
        except ImportError as error:
            raise MissingExtra("a progress bar", "progress") from error
        self._bar = tqdm(total=total, unit="step")

    def _on_step(self) -> bool:
        metrics: Mapping[str, float] = getattr(self.model, "last_metrics", {})
        self._bar.set_postfix({name: f"{v:.3g}" for name, v in metrics.items() if "loss" in name}, refresh=False)
        self._bar.update(1)
        return True

    def _on_training_end(self) -> None:
        self._bar.close()
