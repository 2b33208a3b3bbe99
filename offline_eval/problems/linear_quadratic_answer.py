"""The best gain and values of a plant by its Riccati equation, and the turned gain that its data come from."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch as th
from scipy.linalg import block_diag, solve_discrete_are
from torch import Tensor

from offline_eval.problems.dynamics import GAMMA, Dynamics
from offline_eval.problems.linear_quadratic import NOISE, LinearQuadraticDynamics
from offline_eval.problems.problem import Problem
from offline_eval.types import FloatArray

_WEAKER, _TURN = 0.55, np.deg2rad(50.0)


class LinearQuadraticProblem(Problem):
    """One plant. Its data come from the best gain, weakened and turned by 50 degrees.

    The answer is that of unbounded actions: from the starts the best action stays within the box.

    Args:
        plant: number of the plant; None for the plain one.

    Attributes:
        gain: the best action is -gain @ state, (2, 4).
        value: V* is -(state' value state) - `offset`, (4, 4).
        offset: what the noise costs.
    """

    env_id: ClassVar[str] = "offline_eval/LinearQuadratic-v0"
    noise: ClassVar[float] = 0.3
    num_bells: ClassVar[int] = 0
    dynamics: Dynamics
    env_kwargs: dict[str, Any]

    def __init__(self, plant: int | None = None) -> None:
        carts = LinearQuadraticDynamics(plant)
        self.dynamics, self.env_kwargs = carts, {"plant": plant}
        moves, pushes, root = carts.dynamics, carts.control, np.sqrt(GAMMA)
        self.value = solve_discrete_are(root * moves, root * pushes, carts.state_cost, carts.action_cost)
        self.hessian = carts.action_cost + GAMMA * pushes.T @ self.value @ pushes
        self.gain = np.linalg.solve(self.hessian, GAMMA * pushes.T @ self.value @ moves)
        self.offset = float(GAMMA / (1.0 - GAMMA) * NOISE**2 * np.trace(self.value))
        motion = np.concatenate([moves, pushes], axis=1)
        now = block_diag(carts.state_cost, carts.action_cost)
        self._form = th.as_tensor(now + GAMMA * motion.T @ self.value @ motion, dtype=th.float32)
        turn = np.array([[np.cos(_TURN), -np.sin(_TURN)], [np.sin(_TURN), np.cos(_TURN)]])
        self.data_gain = _WEAKER * turn @ self.gain

    def best_actions(self, states: FloatArray) -> FloatArray:
        """The best gain's."""
        return np.asarray(-states @ self.gain.T)

    def modes(self, states: FloatArray) -> FloatArray:
        """There is one."""
        return np.asarray(-states @ self.data_gain.T)[None]

    def q_around(self, states: FloatArray, centres: FloatArray, offsets: FloatArray) -> FloatArray:
        """Around the best action it falls by the square of the offset."""
        return np.asarray(-((offsets @ self.hessian) * offsets).sum(1)[None])

    def q(self, states: Tensor, actions: Tensor) -> Tensor:
        """The optimal value."""
        both = th.cat([states, actions], dim=1)
        return -((both @ self._form) * both).sum(1) - self.offset
