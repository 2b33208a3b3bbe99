"""A point in the plane, a bump in its way and two ways round it: `offline_eval/TwoModeMaze-v0`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium import spaces

from offline_eval.errors import InputError
from offline_eval.problems.dynamics import ProblemEnv
from offline_eval.types import FloatArray

GOAL = (1.0, 0.0)
WALLS = (1.6, 1.2)
STEP, NOISE = 0.1, 0.02
_START, _START_SPREAD = (-1.0, 0.0), 0.05
_WIDE_START = ((0.0, 0.7), (-0.9, 0.9))
_PULL, _BUMP, _BUMP_WIDTH, _EFFORT = 0.1, 0.4, 0.3, 0.01
_PIXELS = 100  # a unit of length
_DOT = 6.0


class MazeDynamics:
    """The position moves by a tenth of the action and a little noise, between walls.

    A step costs a tenth of the squared distance to the goal at (1, 0), up to 0.4 on the bump at the origin, and a
    hundredth of the squared action.
    """

    observation_space: Any = spaces.Box(-np.array(WALLS, np.float32), np.array(WALLS, np.float32))
    action_space: Any = spaces.Box(-1.0, 1.0, (2,), np.float32)
    noise_dim = 2

    def starts(self, number: int, breadth: float, generator: np.random.Generator) -> FloatArray:
        """Near (-1, 0); with breadth 1, x reaches from -1 to -0.3 and y from -0.9 to 0.9."""
        spot = np.array(_START) + _START_SPREAD * generator.standard_normal((number, 2))
        wide = np.stack([generator.uniform(*bounds, number) for bounds in _WIDE_START], axis=1)
        return np.clip(spot + breadth * wide, -np.array(WALLS), WALLS)

    def advance(self, states: FloatArray, actions: FloatArray, noise: FloatArray) -> tuple[FloatArray, FloatArray]:
        """One step, as for all `Dynamics`."""
        forces = np.clip(actions, -1.0, 1.0)
        moved = np.clip(states + STEP * forces + NOISE * noise, -np.array(WALLS), WALLS)
        return moved, -cost(*states.T, *forces.T)

    def advance_one(self, state: FloatArray, action: FloatArray, noise: FloatArray) -> tuple[FloatArray, float]:
        """One step of one state, in plain numbers."""
        place = state.tolist()
        forces = [min(max(float(force), -1.0), 1.0) for force in action]
        moved = [
            min(max(here + STEP * force + NOISE * luck, -wall), wall)
            for here, force, luck, wall in zip(place, forces, noise.tolist(), WALLS, strict=True)
        ]
        return np.array(moved), -cost(*place, *forces)


def cost(x: Any, y: Any, right: Any, up: Any) -> Any:
    """What a step from (x, y) with the action (right, up) costs: numbers, arrays and tensors alike."""
    bump = _BUMP * math.e ** ((x * x + y * y) * (-0.5 / _BUMP_WIDTH**2))
    return _PULL * ((x - GOAL[0]) ** 2 + (y - GOAL[1]) ** 2) + bump + _EFFORT * (right * right + up * up)


class TwoModeMaze(ProblemEnv):
    """A point that is pushed around; two numbers in, two numbers out, 100 steps.

    Args:
        breadth: of the first states: 0 for a spot left of the bump, 1 for the left side of the plane.
        render_mode: "rgb_array" or None.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012, as gymnasium declares it

    def __init__(self, breadth: float = 0.0, render_mode: str | None = None) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise InputError("render_mode", "must be None or rgb_array", render_mode)
        super().__init__(MazeDynamics(), breadth)
        self.render_mode = render_mode

    def render(self) -> Any:
        """The plane from above (height, width, 3): darker where a step costs more, the goal green, the point red."""
        if self.render_mode is None:
            return None
        x, y = (np.arange(-wall, wall, 1.0 / _PIXELS) for wall in WALLS)
        rows, columns = np.meshgrid(y[::-1], x, indexing="ij")
        picture = np.repeat(255.0 - 250.0 * cost(columns, rows, 0.0, 0.0)[..., None], 3, axis=2)
        for centre, colour in ((GOAL, (40, 160, 70)), (tuple(self._state), (210, 40, 40))):
            distance = np.hypot(columns - centre[0], rows - centre[1]) * _PIXELS
            picture[distance < _DOT] = colour
        return np.clip(picture, 0, 255).astype(np.uint8)
