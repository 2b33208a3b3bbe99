"""The best gain and values of a plant by its Riccati equation, and the turned gain that its data come from."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from scipy.linalg import block_diag, solve_discrete_are
from torch import Tensor

from offline_eval.errors import InputError
from offline_eval.problems.dynamics import GAMMA, Dynamics, ProblemEnv
from offline_eval.problems.problem import Problem
from offline_eval.types import FloatArray

_DIFFERENCE = 0.01
NOISE = 0.01  # standard deviation of what each number of the state receives a step
_START, _START_SPREAD = (1.0, 0.0, -1.0, 0.0), 0.1
_WIDE_START = (0.8, 0.3, 0.8, 0.3)
_STRONGEST = 3.0
_LARGEST = 5.0  # walls: a policy that pushes the wrong way ends there, and not at infinity


class LinearQuadraticDynamics:
    """The state (position and velocity of either cart) moves by matrices; a step costs a tenth of the squares.

    Args:
        plant: number of the random change that is made to the matrices; None for none.

    Attributes:
        dynamics: (4, 4).
        control: (4, 2).
        state_cost: (4, 4).
        action_cost: (2, 2).
    """

    observation_space: Any = spaces.Box(-_LARGEST, _LARGEST, (4,), np.float32)
    action_space: Any = spaces.Box(-_STRONGEST, _STRONGEST, (2,), np.float32)
    noise_dim = 4

    def __init__(self, plant: int | None = None) -> None:
        cart = np.array([[1.0, 0.1], [0.0, 0.95]])
        self.dynamics = np.kron(np.eye(2), cart)
        self.control = np.kron(np.eye(2), [[0.0], [0.2]])
        if plant is not None:
            if plant < 0:
                raise InputError("plant", "must be >= 0", plant)
            generator = np.random.default_rng(plant)
            self.dynamics = self.dynamics + _DIFFERENCE * generator.standard_normal((4, 4))
            self.control = self.control + _DIFFERENCE * generator.standard_normal((4, 2))
        self.state_cost = np.diag([0.1, 0.01, 0.1, 0.01])
        self.action_cost = 0.05 * np.eye(2)
        self._motion = np.concatenate([self.dynamics, self.control], axis=1)
        self._costs = np.concatenate([np.diag(self.state_cost), np.diag(self.action_cost)])

    def starts(self, number: int, breadth: float, generator: np.random.Generator) -> FloatArray:
        """Near the positions 1 and -1; breadth adds a uniform draw."""
        spot = np.array(_START) + _START_SPREAD * generator.standard_normal((number, 4))
        wide = np.array(_WIDE_START) * generator.uniform(-1.0, 1.0, (number, 4))
        return spot + breadth * wide

    def advance(self, states: FloatArray, actions: FloatArray, noise: FloatArray) -> tuple[FloatArray, FloatArray]:
        """One step, as for all `Dynamics`."""
        forces = np.clip(actions, -_STRONGEST, _STRONGEST)
        costs = ((states @ self.state_cost) * states).sum(1) + ((forces @ self.action_cost) * forces).sum(1)
        moved = states @ self.dynamics.T + forces @ self.control.T + NOISE * noise
        return np.clip(moved, -_LARGEST, _LARGEST), -costs

    def advance_one(self, state: FloatArray, action: FloatArray, noise: FloatArray) -> tuple[FloatArray, float]:
        """One step of one state, in two products."""
        both = np.array([*state, *(min(max(float(force), -_STRONGEST), _STRONGEST) for force in action)])
        moved = self._motion @ both + NOISE * noise
        if max(map(abs, moved)) > _LARGEST:
            moved = np.clip(moved, -_LARGEST, _LARGEST)
        return moved, -float(self._costs @ (both * both))


class LinearQuadratic(ProblemEnv):
    """Bring two carts to rest at the origin; four numbers in, two numbers out, 100 steps.

    Args:
        plant: number of the random change that is made to the physics; None for none.
        breadth: of the first states, 0 for a spot.
    """

    def __init__(self, plant: int | None = None, breadth: float = 0.0) -> None:
        super().__init__(LinearQuadraticDynamics(plant), breadth)


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
