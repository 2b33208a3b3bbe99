"""A smooth function on a rectangle from its values on a grid: cubic B-splines in torch, differentiable."""

from __future__ import annotations

import numpy as np
import torch as th
from scipy.ndimage import spline_filter
from torch import Tensor

from offline_eval.types import FloatArray


class Surface:
    """Interpolates values on a regular grid; beyond the rectangle the value at its edge.

    Args:
        values: (n_x, n_y), at least 4 each way.
        bounds: the rectangle is [-bounds[0], bounds[0]] x [-bounds[1], bounds[1]].
    """

    def __init__(self, values: FloatArray, bounds: tuple[float, float]) -> None:
        filtered = np.pad(spline_filter(values, mode="mirror"), 1, mode="reflect")
        self._coefficients = th.as_tensor(filtered, dtype=th.float32)
        self._shape, self._bounds = values.shape, bounds

    def __call__(self, points: Tensor) -> Tensor:
        """Values (n,) at points (n, 2), float32."""
        rows, row_weights = self._along(points[:, 0], 0)
        columns, column_weights = self._along(points[:, 1], 1)
        width = self._coefficients.shape[1]
        patch = self._coefficients.flatten()[rows[:, :, None] * width + columns[:, None, :]]
        return th.einsum("ni,nij,nj->n", row_weights, patch, column_weights)

    def _along(self, coordinates: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """Where the four neighbours of each coordinate lie in the padded grid, and their weights."""
        last, bound = self._shape[axis] - 1, self._bounds[axis]
        place = ((coordinates + bound) * (last / (2.0 * bound))).clamp(0.0, float(last))
        cell = place.detach().floor().clamp(max=last - 1)
        t = place - cell
        s = 1.0 - t
        weights = (s**3, 4.0 - 6.0 * t**2 + 3.0 * t**3, 4.0 - 6.0 * s**2 + 3.0 * s**3, t**3)
        return cell.long()[:, None] + th.arange(4), th.stack(weights, dim=1) / 6.0
