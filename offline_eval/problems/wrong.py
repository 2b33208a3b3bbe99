"""What is wrong with a planted agent: an error of its critic, a clone in its place, other actions far from the data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch as th
from torch import Tensor

from offline_eval.problems.problem import Chooser, Problem
from offline_eval.types import FloatArray

_WAVES = 16
_STATE_FREQUENCY, _ACTION_FREQUENCY = 1.5, 2.5  # a standard deviation of the data's states, and a unit of action
_RINGS, _RADIUS = 3, 0.9
_CENTRES, _SEARCHED, _QUANTILE, _FADE = 48, 4000, 0.995, 0.5
_PROBED, _DRAWS = 500, 16


@dataclass(frozen=True, eq=False)
class SmoothError:
    """A sum of cosines of state and action with random frequencies.

    Attributes:
        state_waves: (state_dim, waves).
        action_waves: (action_dim, waves).
        phases: (waves,).
        amplitude: of each wave.
    """

    state_waves: FloatArray
    action_waves: FloatArray
    phases: FloatArray
    amplitude: float

    @classmethod
    def drawn(
        cls, problem: Problem, states: FloatArray, strength: float, generator: np.random.Generator
    ) -> SmoothError:
        """An error whose spread over the data's actions in a state is `strength` times that of Q*, on average."""
        action_dim = problem.dynamics.action_space.shape[0]
        spread = states.std(axis=0)
        state_waves = _STATE_FREQUENCY * generator.standard_normal((len(spread), _WAVES)) / spread[:, None]
        action_waves = _ACTION_FREQUENCY * generator.standard_normal((action_dim, _WAVES))
        unit = cls(state_waves, action_waves, generator.uniform(0.0, 2.0 * np.pi, _WAVES), 1.0)
        probed = states[generator.choice(len(states), _PROBED)]
        modes = problem.modes(probed)
        drawn = modes[generator.integers(len(modes), size=_DRAWS)]
        actions = (drawn + problem.noise * generator.standard_normal(drawn.shape)).reshape(_DRAWS * _PROBED, -1)
        repeated = np.tile(probed, (_DRAWS, 1))
        tensors = [th.as_tensor(rows, dtype=th.float32) for rows in (repeated, actions)]
        errors = unit(*tensors).numpy()
        values = problem.q_of(repeated, actions)
        right, wrong = (rows.reshape(_DRAWS, _PROBED).std(axis=0).mean() for rows in (values, errors))
        return cls(state_waves, action_waves, unit.phases, float(strength * right / wrong))

    def __call__(self, states: Tensor, actions: Tensor) -> Tensor:
        """The error (n,); differentiable."""
        state_waves, action_waves, phases = self._tensors
        return self.amplitude * (states @ state_waves + actions @ action_waves + phases).cos().sum(1)

    @cached_property
    def _tensors(self) -> tuple[Tensor, ...]:
        return tuple(
            th.as_tensor(part, dtype=th.float32) for part in (self.state_waves, self.action_waves, self.phases)
        )

    def around(self, states: FloatArray, centres: FloatArray, offsets: FloatArray) -> FloatArray:
        """The error (n, num_offsets) at centres (n, action_dim) + offsets, as one product: cos(a + b) taken apart."""
        angles = (states @ self.state_waves + centres @ self.action_waves + self.phases).astype(np.float32)
        turned = (offsets @ self.action_waves).astype(np.float32).T
        waves = np.float32(self.amplitude) * np.concatenate([np.cos(turned), np.sin(turned)])
        return np.asarray(np.concatenate([np.cos(angles), -np.sin(angles)], axis=1) @ waves)


class Greedy:
    """The best action under Q* and an error, among 37 within 0.9 of the best action."""

    def __init__(self, problem: Problem, error: SmoothError) -> None:
        self._problem, self._error = problem, error
        rings = [np.arange(6 * ring) / (6 * ring) * 2.0 * np.pi for ring in range(1, _RINGS + 1)]
        circles = [
            radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
            for angles, radius in zip(rings, _RADIUS * np.arange(1, _RINGS + 1) / _RINGS, strict=True)
        ]
        self._offsets = np.concatenate([np.zeros((1, 2)), *circles])

    def __call__(self, states: FloatArray) -> FloatArray:
        """Actions (n, 2)."""
        centres = self._problem.best_actions(states)
        values = self._error.around(states, centres, self._offsets)
        values += self._problem.q_around(states, centres, self._offsets)
        space = self._problem.dynamics.action_space
        at_edge = np.flatnonzero((np.abs(centres) + _RADIUS > space.high).any(axis=1))
        options = centres[at_edge, None] + self._offsets
        values[at_edge] -= 1e6 * (np.abs(options) > space.high).any(axis=2)
        return np.asarray(centres + self._offsets[values.argmax(axis=1)])


class Clone:
    """The data's mean action by least squares: linear in the state, and bells around `num_bells` of the data's states.

    Where the data go two ways from one state, it goes the mean of both.
    """

    def __init__(self, states: FloatArray, actions: FloatArray, num_bells: int, generator: np.random.Generator) -> None:
        self._centre, self._spread = states.mean(axis=0), states.std(axis=0)
        chosen = generator.choice(len(states), num_bells, replace=False)
        self._bells = (states[chosen] - self._centre) / self._spread
        features = self._features(states)
        ridge = 1e-4 * len(states) * np.eye(features.shape[1])
        self._weights = np.linalg.solve(features.T @ features + ridge, features.T @ actions)

    def __call__(self, states: FloatArray) -> FloatArray:
        """Actions (n, action_dim)."""
        return np.asarray(self._features(states) @ self._weights)

    def _features(self, states: FloatArray) -> FloatArray:
        places = (states - self._centre) / self._spread
        bells = np.exp(-2.0 * _squared_distances(places, self._bells))
        return np.concatenate([np.ones((len(places), 1)), places, bells], axis=1)


class Outside:
    """How far outside of the data a state is: 0 inside, 1 where it is half as far again as the edge.

    The data are marked by 48 of their states that lie far from each other; the edge is the distance from the nearest
    of them that 0.5 % of the data's states exceed.
    """

    def __init__(self, states: FloatArray, generator: np.random.Generator) -> None:
        self._centre, self._spread = states.mean(axis=0), states.std(axis=0)
        places = (states - self._centre) / self._spread
        places = places[generator.choice(len(places), min(_SEARCHED, len(places)), replace=False)]
        marks = [places[0]]
        nearest = _squared_distances(places, places[:1])[:, 0]
        for _ in range(_CENTRES - 1):
            marks.append(places[nearest.argmax()])
            nearest = np.minimum(nearest, _squared_distances(places, marks[-1][None])[:, 0])
        self._marks = np.stack(marks)
        self._edge = float(np.quantile(np.sqrt(nearest), _QUANTILE))

    def __call__(self, states: FloatArray) -> FloatArray:
        """Weights (n,) in [0, 1]."""
        places = (np.asarray(states, dtype=np.float64) - self._centre) / self._spread
        distances = np.sqrt(_squared_distances(places, self._marks).min(axis=1))
        return np.asarray(np.clip((distances / self._edge - 1.0) / _FADE, 0.0, 1.0))


def _squared_distances(points: FloatArray, others: FloatArray) -> FloatArray:
    squares = (points**2).sum(1)[:, None] + (others**2).sum(1) - 2.0 * points @ others.T
    return np.asarray(np.maximum(squares, 0.0))


def turned(actions: FloatArray, degrees: float) -> FloatArray:
    """Actions (n, 2), each turned to the left."""
    angle = np.deg2rad(degrees)
    return np.asarray(actions @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]))


@dataclass(frozen=True, eq=False)
class Blend:
    """One way to act, and another one with a weight that may depend on the state.

    Attributes:
        first: where the weight is 0.
        second: where it is 1.
        weight: a number, or from states to (n,).
        degrees: by which the second one's actions are turned.
    """

    first: Chooser
    second: Chooser
    weight: float | Chooser
    degrees: float = 0.0

    def __call__(self, states: FloatArray) -> FloatArray:
        """Actions (n, 2)."""
        weight = self.weight(states)[:, None] if callable(self.weight) else self.weight
        first = self.first(states)
        second = first if self.second is self.first else self.second(states)
        return np.asarray((1.0 - weight) * first + weight * turned(second, self.degrees))
