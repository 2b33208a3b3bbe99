"""Rules that stay within reach of the data: actions that it took near a state, and acting in a part of the states only.

- `RandomNear` takes one of the actions that the data took near the state, at random: what "doing as the data" earns.
- `BestNear` takes the one that the critic rates highest among the policy's action, those, and small offsets of it.
- `Where` lets a rule act in a region of the states and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch as th
from gymnasium import Space, spaces
from scipy.spatial import KDTree
from torch import Tensor

from offline_eval.errors import InputError, SpaceError, bare
from offline_eval.spaces import ActionScale
from offline_eval.types import Array, Rule, Steered
from offline_eval.wrappers.arguments import check_positive, check_whole
from offline_eval.wrappers.directions import Min, Reduction
from offline_eval.wrappers.rule_wrapper import RuleWrapper
from offline_eval.wrappers.rules import CriticRule, SteeringRule, required

if TYPE_CHECKING:
    from offline_eval.types import TensorObservations

__all__ = ["BestNear", "NearbyActions", "Neighbours", "RandomNear", "Region", "Where"]

_BLOCK, _FEW_DIMENSIONS = 256, 6
_MIN = Min()


class Neighbours:
    """The states of a data set and what it did there; distances are Euclidean in standardised dimensions.

    Args:
        observations: (num_states, *observation_shape).
        actions: (num_states, *action_shape), in the environment's units.
        action_space: a Box.
        device: where it is searched.

    Raises:
        InputError: observations that have no distance, or no action for each of them.
    """

    def __init__(self, observations: Any, actions: Array, action_space: Space[Any], device: str = "cpu") -> None:
        if isinstance(observations, dict):
            raise InputError("observations", "must be flat for a distance", bare("a dict"), "flatten them")
        if len(observations) != len(actions) or len(actions) == 0:
            raise InputError("actions", f"must be one an observation ({len(observations)})", len(actions))
        flat = th.as_tensor(observations, dtype=th.float32, device=device).flatten(1)
        spread, self.centre = flat.std(dim=0, correction=0), flat.mean(dim=0)
        # A dimension in which the data never move counts in its own units: leaving it is leaving the data.
        self.scale = th.where(spread > 1e-9 * self.centre.abs(), spread, 1.0)
        self._points = (flat - self.centre) / self.scale
        self._columns = th.cat([-2.0 * self._points.T, self._points.square().sum(dim=1)[None]])
        # In few dimensions a tree finds neighbours in a hundredth of the product's time, in many it visits everything.
        few = flat.shape[1] <= _FEW_DIMENSIONS and flat.device.type == "cpu"
        self._tree = KDTree(self._points.numpy()) if few else None
        scaled = ActionScale(action_space).scale(actions.astype("float32"))
        self._actions = th.as_tensor(scaled, device=device).flatten(1)

    def __len__(self) -> int:
        return len(self._points)

    @property
    def device(self) -> th.device:
        """Where the tensors must lie."""
        return self._points.device

    def to(self, device: th.device) -> Neighbours:
        """The same where a critic is: itself, if it is there already."""
        if device == self.device:
            return self
        moved = copy(self)
        for name in ("centre", "scale", "_points", "_columns", "_actions"):
            setattr(moved, name, getattr(self, name).to(device))
        moved._tree = None
        return moved

    def nearest(self, observations: TensorObservations, num_near: int) -> tuple[Tensor, Tensor]:
        """Distances (batch, num_near) to the nearest states, in standard deviations, and scaled actions taken there."""
        assert isinstance(observations, Tensor)
        queries = (observations.float().flatten(1) - self.centre) / self.scale
        if self._tree is not None:
            found = self._tree.query(queries.numpy(), num_near)[1].reshape(len(queries), num_near)
            index = th.as_tensor(found)
        else:
            rows = th.cat([queries, th.ones_like(queries[:, :1])], dim=1)
            blocks = [
                (part @ self._columns).topk(num_near, dim=1, largest=False).indices
                for part in th.chunk(rows, -(-len(rows) // _BLOCK))
            ]
            index = th.cat(blocks)
        # The product picks the neighbours; its differences of large squares are too coarse for the distances.
        distances = (queries[:, None] - self._points[index]).square().sum(dim=2).sqrt()
        return distances, self._actions[index]

    def distances(self, observations: Any) -> Tensor:
        """Distance (batch,) to the nearest state."""
        given = th.as_tensor(observations, dtype=th.float32, device=self.device)
        return self.nearest(given, 1)[0][:, 0]


@dataclass(frozen=True)
class Region:
    """The states inside, or outside, of what the data cover.

    Args:
        neighbours: the data's states.
        threshold: the distance beyond which a state is outside.
        outside: which of the two parts.
    """

    neighbours: Neighbours
    threshold: float
    outside: bool = False

    def __post_init__(self) -> None:
        if not self.threshold >= 0.0:
            raise InputError("threshold", "must be >= 0", self.threshold)

    def __call__(self, observations: TensorObservations) -> Tensor:
        """(batch,) whether a state belongs to it."""
        distances = self.neighbours.nearest(observations, 1)[0][:, 0]
        return distances > self.threshold if self.outside else distances <= self.threshold


@dataclass(frozen=True, eq=False)
class RandomNear(SteeringRule):
    """One of the actions that the data took near the state, whichever.

    Args:
        neighbours: the data.
        num_near: how many of the nearest states to choose among.
    """

    neighbours: Neighbours
    num_near: int = 12

    def __post_init__(self) -> None:
        _check_near(self.num_near, self.neighbours)

    @property
    def device(self) -> th.device:
        """Where the tensors must lie."""
        return self.neighbours.device

    def check(self, observation_space: Space[Any] | None, action_space: Space[Any]) -> None:
        """Raise a SpaceError where the rule cannot serve these spaces."""
        super().check(observation_space, action_space)
        _check_flat(observation_space)

    def noise_shape(self, action_dim: int) -> tuple[int, ...]:
        """One number: which of them."""
        return (1,)

    def __call__(self, observations: TensorObservations, actions: Tensor, noise: Tensor | None) -> Steered:
        """Replace scaled actions (batch, action_dim) given noise (batch, 1)."""
        _, near = self.neighbours.nearest(observations, self.num_near)
        uniform = 0.5 * (1.0 + th.erf(required(noise)[:, 0] / math.sqrt(2.0)))
        chosen = (uniform * self.num_near).long().clamp_max(self.num_near - 1)
        return Steered(near[th.arange(len(actions), device=actions.device), chosen], {})


@dataclass(frozen=True)
class NearbyActions:
    """Candidates: the policy's own action, those that the data took near the state, and offsets of the own one.

    Args:
        neighbours: the data.
        num_near: actions of the data.
        num_offsets: Gaussian offsets of the policy's action; every other one is a third as long.
        std: of the longer offsets in every dimension, in scaled units.
    """

    neighbours: Neighbours
    num_near: int = 12
    num_offsets: int = 12
    std: float = 0.3

    def __post_init__(self) -> None:
        _check_near(self.num_near, self.neighbours)
        check_whole("num_offsets", self.num_offsets, 0, "0 asks for none")
        check_positive("std", self.std, "offsets must differ from the policy's action")

    @property
    def num_samples(self) -> int:
        """Candidates a state, the policy's own action included."""
        return 1 + self.num_near + self.num_offsets

    def noise_shape(self, action_dim: int) -> tuple[int, ...]:
        """One vector an offset."""
        return (self.num_offsets, action_dim)

    def __call__(self, observations: TensorObservations, actions: Tensor, noise: Tensor) -> Tensor:
        """Scaled actions (batch, num_samples, action_dim), the policy's own first; offsets may leave the box."""
        _, near = self.neighbours.nearest(observations, self.num_near)
        length = th.full((self.num_offsets, 1), self.std, device=actions.device)
        length[1::2] /= 3.0
        return th.cat([actions[:, None], near, actions[:, None] + length * noise], dim=1)


@dataclass(frozen=True, eq=False)
class BestNear(CriticRule):
    """The action that the critic rates highest among those within reach; the policy's own wins ties.

    Args:
        critic: who rates.
        proposal: the candidates.
        reduce: from the ensemble's values to the one that is compared.
    """

    proposal: NearbyActions
    reduce: Reduction = _MIN

    def check(self, observation_space: Space[Any] | None, action_space: Space[Any]) -> None:
        """Raise a SpaceError where the rule cannot serve these spaces."""
        super().check(observation_space, action_space)
        _check_flat(observation_space)

    def noise_shape(self, action_dim: int) -> tuple[int, ...]:
        """The proposal's."""
        return self.proposal.noise_shape(action_dim)

    def __call__(self, observations: TensorObservations, actions: Tensor, noise: Tensor | None) -> Steered:
        """Steer scaled actions (batch, action_dim) given noise (batch, num_offsets, action_dim)."""
        proposed = self.proposal(observations, actions, required(noise))
        candidates = th.cat([actions[:, None], th.clamp(proposed[:, 1:], *self.box)], dim=1)
        assert isinstance(observations, Tensor)
        with th.no_grad():
            repeated = observations.repeat_interleave(self.proposal.num_samples, dim=0)
            values = self.values(repeated, candidates.flatten(0, 1), self.reduce).view(len(actions), -1)
        usable = values.isfinite().all(dim=1)
        # argmax takes the first of equals, so the policy's own action; NaN would win otherwise.
        choice = th.where(usable[:, None], values, 0.0).argmax(dim=1)
        row = th.arange(len(actions), device=actions.device)
        metrics = {"predicted_gain": values[row, choice] - values[:, 0], "non_finite": ~usable}
        return Steered(candidates[row, choice], metrics)


@dataclass(frozen=True, eq=False)
class Where(RuleWrapper):
    """A rule that acts where a mask of the observations says so, and leaves the policy's action alone elsewhere.

    What the rule reports counts as 0 where it does not act; `acted` is 1 where it does.

    Args:
        rule: what is done.
        region: observations (batch, *shape) to (batch,) bool.
    """

    rule: Rule
    region: Callable[[TensorObservations], Tensor]

    def __call__(self, observations: TensorObservations, actions: Tensor, noise: Tensor | None) -> Steered:
        """Steer scaled actions (batch, action_dim) where the region says so."""
        acts = self.region(observations)
        steered = self.rule(observations, actions, noise)
        metrics = {name: th.where(acts, values, 0) for name, values in steered.metrics.items()}
        return Steered(th.where(acts[:, None], steered.actions, actions), {**metrics, "acted": acts})


def _check_near(num_near: int, neighbours: Neighbours) -> None:
    check_whole("num_near", num_near, 1, "the nearest one is the least")
    if num_near > len(neighbours):
        raise InputError("num_near", f"must be at most the {len(neighbours)} states of the data", num_near)


def _check_flat(observation_space: Space[Any] | None) -> None:
    if isinstance(observation_space, spaces.Dict):
        raise SpaceError("observation_space", "must be flat for a distance", observation_space, "flatten it")
