"""The maze's best values by dynamic programming on a grid, and the two ways that its data go."""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch as th
from scipy.ndimage import gaussian_filter, map_coordinates
from torch import Tensor
from torch.nn.functional import grid_sample

from offline_eval.problems.dynamics import GAMMA, Dynamics
from offline_eval.problems.maze import GOAL, NOISE, STEP, WALLS, MazeDynamics, cost
from offline_eval.problems.problem import Chooser, Problem
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


_CELL = 0.0125  # of the fine grid, an eighth of a full step; the coarse one takes every other node
_REACH = 8
_SWEEPS, _TOLERANCE = 400, 1e-5
_WAYPOINT, _SPEED, _SLOWING = 0.8, 0.6, 0.25


def fine_nodes() -> tuple[FloatArray, FloatArray]:
    """The coordinates of the fine grid."""
    x, y = (np.linspace(-wall, wall, round(2 * wall / _CELL) + 1) for wall in WALLS)
    return x, y


@cache
def continuation() -> Surface:
    """What is expected after a step that leads, noise apart, to a point: the mean of V around it.

    Value iteration: V lives on every other node, its mean after the noise on all of them, and the actions are those
    that lead from node to node, so that a sweep is a maximum over shifted copies of one array.
    """
    x, y = fine_nodes()
    coarse_x, coarse_y = x[::2], y[::2]
    shifts = np.arange(-_REACH, _REACH + 1)
    right, up = (a.ravel() / _REACH for a in np.meshgrid(shifts, shifts, indexing="ij"))
    costs = cost(coarse_x[:, None], coarse_y[None, :], 0.0, 0.0)
    efforts = cost(*GOAL, right, up) - cost(*GOAL, 0.0, 0.0)
    places = np.meshgrid(np.arange(len(x)) / 2, np.arange(len(y)) / 2, indexing="ij")
    values = np.zeros(costs.shape)
    for _ in range(_SWEEPS):
        mean = gaussian_filter(map_coordinates(values, places, order=3, mode="mirror"), NOISE / _CELL, mode="nearest")
        around = np.pad(mean, _REACH, mode="edge")
        best = np.full(costs.shape, -np.inf)
        for number, (i, j) in enumerate((i, j) for i in range(len(shifts)) for j in range(len(shifts))):
            np.maximum(best, GAMMA * around[i : i + len(x) : 2, j : j + len(y) : 2] - efforts[number], out=best)
        change = best - costs - values
        # All values still change by about the same: what that comes to in the end is added at once.
        values += change + GAMMA / (1.0 - GAMMA) * (change.max() + change.min()) / 2.0
        if np.ptp(change) < _TOLERANCE:
            break
    return Surface(mean, WALLS)


class MazeProblem(Problem):
    """The maze. Its data go above the bump or below it, more slowly than is best."""

    env_id: ClassVar[str] = "offline_eval/TwoModeMaze-v0"
    noise: ClassVar[float] = 0.3
    num_bells: ClassVar[int] = 100
    dynamics: Dynamics
    env_kwargs: dict[str, Any]

    def __init__(self) -> None:
        self.dynamics, self.env_kwargs = MazeDynamics(), {}

    def q(self, states: Tensor, actions: Tensor) -> Tensor:
        """The optimal value."""
        forces = actions.clamp(-1.0, 1.0)
        paid: Tensor = cost(*states.T, *forces.T)
        return GAMMA * continuation()(states + STEP * forces) - paid

    def best_actions(self, states: FloatArray) -> FloatArray:
        """The optimal policy's, from its table."""
        return best_table()(states)

    def compiled(self, choose: Chooser) -> Chooser:
        """As a table."""
        return Table(choose)

    def modes(self, states: FloatArray) -> FloatArray:
        """Over the bump and under it: towards a point beside it, and then to the goal."""
        side = np.array([1.0, -1.0])[:, None]
        x, y = states.T
        target_x = np.where(x < 0.0, 0.05, GOAL[0])
        target_y = np.where(x < 0.0, side * _WAYPOINT, GOAL[1])
        way = np.stack([np.broadcast_to(target_x, target_y.shape) - x, target_y - y], axis=2)
        length = np.linalg.norm(way, axis=2, keepdims=True)
        return np.asarray(_SPEED * way / np.maximum(length, _SLOWING))


class Table:
    """Actions at the nodes of a grid; a state has those of the nearest one.

    A mean of neighbours would go straight on where one of them goes left and the other one right.

    Args:
        choose: asked once for each node.
        spacing: of the nodes.
    """

    def __init__(self, choose: Chooser, spacing: float = 0.025) -> None:
        x, y = (np.linspace(-wall, wall, round(2 * wall / spacing) + 1) for wall in WALLS)
        nodes = np.stack(np.meshgrid(x, y, indexing="ij"), axis=2)
        self._actions = choose(nodes.reshape(-1, 2)).reshape(nodes.shape)
        self._spacing, self._last = spacing, np.array(nodes.shape[:2]) - 1

    def __call__(self, states: FloatArray) -> FloatArray:
        """Actions (n, 2)."""
        places = np.rint((states + np.array(WALLS)) / self._spacing).astype(np.intp)
        i, j = np.minimum(np.maximum(places, 0), self._last).T
        return np.asarray(self._actions[i, j])


@cache
def best_table() -> Table:
    """The optimal policy: Q* at 81 actions, then twice at 25 around the best so far."""
    problem = MazeProblem()

    def best(states: FloatArray) -> FloatArray:
        centres, step = np.zeros_like(states), 0.25
        for width in (4, 2, 2):
            ticks = step * np.arange(-width, width + 1)
            offsets = np.stack(np.meshgrid(ticks, ticks), axis=2).reshape(-1, 2)
            options = np.clip(centres[:, None] + offsets, -1.0, 1.0)
            repeated = np.repeat(states, len(offsets), axis=0)
            values = problem.q_of(repeated, options.reshape(-1, 2)).reshape(len(states), -1)
            centres, step = options[np.arange(len(states)), values.argmax(axis=1)], step / 3.0
        return centres

    return Table(best)
