"""A function on a rectangle from its values on a grid: bilinear in torch, differentiable."""

from __future__ import annotations

import torch as th
from torch import Tensor
from torch.nn.functional import grid_sample

from offline_eval.types import FloatArray


class Surface:
    """Interpolates values on a regular grid; beyond the rectangle the value at its edge.

    Bilinear, so that its gradient is right to within a cell: torch's bicubic interpolation is smoother, but half as
    steep again at the nodes.

    Args:
        values: (n_x, n_y).
        bounds: the rectangle is [-bounds[0], bounds[0]] x [-bounds[1], bounds[1]].
    """

    def __init__(self, values: FloatArray, bounds: tuple[float, float]) -> None:
        self._values = th.as_tensor(values.T.copy(), dtype=th.float32)[None, None]
        self._bounds = th.tensor(bounds)

    def __call__(self, points: Tensor) -> Tensor:
        """Values (n,) at points (n, 2), float32."""
        places = (points / self._bounds)[None, None]
        return grid_sample(self._values, places, padding_mode="border", align_corners=True).reshape(-1)
