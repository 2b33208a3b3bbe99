"""Test-time training: the policy goes on learning from a frozen critic while it acts (Park et al., 2024).

After each observation the policy takes a gradient step on the mean, over some states, of

    Q(s, mu(s)) / mean|Q| - coef * KL(frozen || adapted)

and acts with what it has become. The objective is the paper's but for the division, which is TD3+BC's and makes a
`coef` and a plain gradient's learning rate mean the same for every critic; optimiser, states, schedule, reset and all
defaults are ours, because the paper's appendix was not read.

What was done is reported in numbers, each (batch,), beside those of `offline_eval.wrappers.steering`:

- `zero_gradient`: 1 where there was nothing to learn from: every action saturated (tanh, Hardtanh, or the Box), or the
  critic flat.
- `non_finite`: 1 where a value, a gradient or a step was infinite or NaN. The frozen action is used, and the row begins
  again with the frozen weights.
- `predicted_gain`: the reduced value of the adapted policy's mean action minus that of the frozen policy's: both asked
  for, but for the last gradient step, which is believed.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import Space, spaces
from torch import Tensor

from offline_eval.errors import CriticError, InputError, SpaceError, bare
from offline_eval.types import Adaptable, Array, Steered
from offline_eval.wrappers.arguments import check_positive, check_whole
from offline_eval.wrappers.directions import Min, Reduction
from offline_eval.wrappers.fast_weights import FastWeights, check_memory
from offline_eval.wrappers.learning import Adam, EachEpisode, KLAnchor, LastLayer, Optimizer, Reset, Trained
from offline_eval.wrappers.rules import CriticRule, _layout, _same_box, required
from offline_eval.wrappers.seen_states import (
    Record,
    Replay,
    Seen,
    SeenStates,
    States,
    leaves,
    map_record,
    num_numbers,
    num_real,
    places,
    tensors,
)
from offline_eval.wrappers.transfer import to_device

if TYPE_CHECKING:
    from offline_eval.types import TensorObservations

__all__ = ["Adapting", "TestTimeTraining"]

_LAST_LAYER, _ADAM, _REPLAY, _EACH_EPISODE = LastLayer(), Adam(), Replay(), EachEpisode()
_MIN = Min()
_SMALLEST_SCALE = 1e-8
_WIDTH = 8
"""Rows of a padded batch: each of them is many rows for the critic, and has weights of its own."""


@dataclass(frozen=True, eq=False)
class _Actor:
    """The field that comes before a rule's critic: dataclasses put the last base's first."""

    actor: Adaptable = field(repr=False)


@dataclass(frozen=True, eq=False)
class TestTimeTraining(CriticRule, _Actor):
    """Trains the policy at test time; goes wherever a rule goes.

    The action that the policy chose is moved by as much as training has moved the policy's mean, so that the adapted
    policy acts. Where nothing has moved, as with `learning_rate=0`, it comes back with the same bits. The model that
    the actor is a view of is never written to.

    Example:
        >>> rule = TestTimeTraining(actor_of(model), critic_of(model), learning_rate=3e-4)  # doctest: +SKIP
        >>> evaluate(model, "Hopper-v5", rule=rule)  # doctest: +SKIP

    Args:
        actor: of the policy that acts (`offline_eval.policies.actor_of`).
        critic: what is climbed; it does not learn.
        learning_rate: >= 0.
        parameters: which of them are trained.
        optimizer: from gradients to steps.
        states: over which the mean is taken.
        anchor: what holds the policy near the frozen one; None holds it by nothing but the reset.
        reset: what the next episode begins with.
        gradient_steps: after each observation, each with newly drawn states.
        reduce: from the ensemble's values to the one that is climbed.
    """

    __test__ = False  # pytest would take the class for tests

    learning_rate: float = 3e-4
    parameters: Trained = _LAST_LAYER
    optimizer: Optimizer = _ADAM
    states: States = _REPLAY
    anchor: KLAnchor | None = None
    reset: Reset = _EACH_EPISODE
    gradient_steps: int = 1
    reduce: Reduction = _MIN

    def __post_init__(self) -> None:
        if not isinstance(self.actor, Adaptable):
            raise InputError(
                "actor",
                "must be an actor that acts with other parameters than its own",
                bare(type(self.actor).__name__),
                "`actor_of(...)` makes one",
            )
        super().__post_init__()
        check_positive("learning_rate", self.learning_rate, "0 leaves the policy as it is", or_zero=True)
        check_whole("gradient_steps", self.gradient_steps, 1, "learning_rate=0 takes none")
        if not _same_box(self.actor.action_space, self.critic.action_space):
            raise SpaceError(
                "actor",
                f"must have the critic's actions, {self.critic.action_space}",
                self.actor.action_space,
                "take both from agents of the same environment",
            )
        if self.actor.device != self.critic.device:
            raise InputError("actor", f"must be on the critic's device, {self.critic.device}", self.actor.device)

    def check(self, observation_space: Space[Any] | None, action_space: Space[Any]) -> None:
        """Raise a SpaceError where the actor or the critic was made for other spaces."""
        super().check(observation_space, action_space)
        expected = self.actor.observation_space
        if expected is not None and observation_space is not None and _layout(expected) != _layout(observation_space):
            raise SpaceError(
                "actor",
                f"must be made for the environment's observations, {observation_space}",
                bare(f"an actor for {expected}"),
                "take the actor of the policy that acts",
            )

    def noise_shape(self, action_dim: int) -> tuple[int, ...]:
        """A number for each state that is drawn."""
        num_drawn = self.gradient_steps * (self.states.num_seen - 1 + self.states.num_data)
        return (num_drawn,) if num_drawn else ()

    def start(self) -> Adapting:
        """This rule with a memory of its own, for one host."""
        return Adapting(self)

    def __call__(self, observations: TensorObservations, actions: Tensor, noise: Tensor | None) -> Steered:
        """One step of episodes that begin here: what a host does at its first step."""
        return self.start()(observations, actions, noise)


class _Found(NamedTuple):
    """What the critic says of each row's weights; action and slope are those at its latest state."""

    gradient: Tensor  # (rows, size) of the objective in the weights
    action: Tensor  # (rows, action_dim)
    slope: Tensor  # (rows, action_dim) of the reduced value in that action
    gain: Tensor  # (rows,) the reduced value of that action minus that of the frozen policy's


class Adapting:
    """Test-time training at the rows of one host; what `TestTimeTraining.start` makes.

    Args:
        recipe: the choices.
    """

    num_rows = None
    width = _WIDTH

    def __init__(self, recipe: TestTimeTraining) -> None:
        self.recipe, self.box, self.device = recipe, recipe.box, recipe.device
        self._names = recipe.parameters.names(recipe.actor)
        self._fast = FastWeights(self._frozen(), recipe.optimizer, self.device)
        self._seen = SeenStates(recipe.states.capacity, self.device)
        self._data = None if recipe.states.data is None else self._described(tensors(recipe.states.data, self.device))
        self._rows: Array | None = None
        self._per_state: int | None = None

    def check(self, observation_space: Space[Any] | None, action_space: Space[Any]) -> None:
        """As the recipe."""
        self.recipe.check(observation_space, action_space)

    def noise_shape(self, action_dim: int) -> tuple[int, ...]:
        """As the recipe."""
        return self.recipe.noise_shape(action_dim)

    def rows(self, index: Array) -> Adapting:
        """This memory at the rows `index`, of which the last may be repeated as padding."""
        chosen = copy(self)
        chosen._rows = index
        return chosen

    def begin(self, rows: Array) -> None:
        """New episodes at these rows (n,)."""
        self.reserve(int(rows.max(initial=-1)) + 1)
        if self.recipe.reset.forgets:
            self._fast.refresh(self._frozen())
            self._fast.forget(rows)
            self._seen.forget(rows)

    def reserve(self, num_rows: int) -> None:
        """Room for so many rows; refused where they would not fit into memory."""
        if num_rows <= self._fast.num_rows:
            return
        numbers = self._fast.numbers_per_row + self.recipe.states.capacity * self._numbers_per_state()
        check_memory(num_rows - self._fast.num_rows, numbers, self.device)
        self._fast.reserve(num_rows)
        self._seen.reserve(num_rows)

    def __call__(self, observations: TensorObservations, actions: Tensor, noise: Tensor | None) -> Steered:
        """Learn from the observations (batch, ...), and move scaled actions (batch, action_dim) as the policy moved."""
        rows = np.arange(len(actions)) if self._rows is None else self._rows
        self.reserve(int(rows.max()) + 1)
        now = self._described(observations)
        seen = self._seen.add(rows, now) if self.recipe.states.capacity else None
        index = to_device(rows, self.device) if seen is None else seen.rows
        weights, moments, steps = self._fast.of(index)
        # By the arithmetic of the adapted action below: equal weights give equal bits, and a difference of exactly 0.
        frozen = self._actions(self._fast.frozen.expand_as(weights), now)
        for number in range(self.recipe.gradient_steps):
            found = self._gradient(weights, self._drawn(now, seen, noise, number), now, frozen)
            steps = steps + 1
            step, moments = self.recipe.optimizer(found.gradient, moments, steps)
            weights = weights + self.recipe.learning_rate * step

        adapted = self._actions(weights, now)
        moved = adapted - frozen
        # A gradient that is no number has made weights that are none; one look at the end.
        usable = (weights.sum(dim=1) + moved.sum(dim=1)).isfinite()
        self._fast.put(index[: num_real(rows)], usable, weights, moments, steps)
        gain = found.gain + (found.slope * (adapted - found.action)).sum(dim=1)
        metrics = {
            # Where the frozen action is used there is none; NaN where the critic is no number.
            "predicted_gain": th.where(usable, gain, 0.0 * found.gain),
            "zero_gradient": found.gradient.abs().amax(dim=1) == 0,
            "non_finite": ~usable,
        }
        return Steered(th.where(usable[:, None] & (moved != 0), actions + moved, actions), metrics)

    def _gradient(self, weights: Tensor, states: Record, now: Record, frozen: Tensor) -> _Found:
        """What the critic says of each row's weights.

        Args:
            weights: (rows, size).
            states: over which the mean is taken, a record (rows, num_states, ...), of which the first is the latest.
            now: the latest, a record (rows, ...).
            frozen: the frozen policy's actions there (rows, action_dim).
        """
        recipe, size = self.recipe, len(weights)
        with th.enable_grad():
            leaf = weights.detach().requires_grad_()
            locations = recipe.parameters.locations(recipe.actor, self._fast.by_name(leaf), _inputs(states))
            actions = recipe.actor.actions(locations)
            # One call of the critic, for what is climbed and for what the frozen action is worth.
            observations = map_record(
                lambda each, latest: th.cat([each.flatten(0, 1), latest]), states["observations"], now["observations"]
            )
            everything = recipe.values(observations, th.cat([actions.flatten(0, 1), frozen]), recipe.reduce)
            values = everything[:-size].view(actions.shape[:2])
            if not values.requires_grad:
                raise CriticError(
                    "critic",
                    "must be differentiable in the actions for test-time training",
                    bare("values without a gradient"),
                    "do not detach them or compute them under no_grad",
                )
            # The mean of Q over the mean of |Q|, as what each value counts.
            share = 1.0 / values.detach().abs().sum(dim=1, keepdim=True).clamp_min(_SMALLEST_SCALE)
            climbed, shares = [values], [share.expand_as(values)]
            if recipe.anchor is not None:
                kl = recipe.anchor(locations, states["frozen"], states.get("std"))
                climbed.append(kl)
                shares.append(th.full_like(kl, -recipe.anchor.coef / kl.shape[1]))
            gradient, slope = th.autograd.grad(climbed, [leaf, actions], shares)
        gain = (values[:, 0] - everything[-size:]).detach()
        return _Found(gradient, actions[:, 0].detach(), slope[:, 0] / share, gain)

    def _drawn(self, now: Record, where: Seen | None, noise: Tensor | None, number: int) -> Record:
        """The states of a gradient step: a record (rows, num_states, ...)."""
        states = self.recipe.states
        num_drawn = states.num_seen - 1 + states.num_data
        if num_drawn == 0:
            return map_record(lambda value: value[:, None], now)
        drawn = required(noise)[:, number * num_drawn : (number + 1) * num_drawn]
        if states.num_seen > 1:
            assert where is not None  # such a rule keeps states
            seen = self._seen.draw(where, drawn[:, : states.num_seen - 1])
        else:
            seen = map_record(lambda value: value[:, None], now)
        if self._data is None:
            return seen
        at = places(drawn[:, states.num_seen - 1 :], len(next(leaves(self._data))))
        return map_record(lambda one, other: th.cat([one, other[at]], dim=1), seen, self._data)

    @th.no_grad()
    def _described(self, observations: TensorObservations) -> Record:
        """What is kept of states: a record (batch, ...)."""
        recipe = self.recipe
        record: dict[str, Any] = {"observations": observations}
        inputs = recipe.parameters.inputs(recipe.actor, observations)
        if inputs is not observations:
            record["inputs"] = inputs
        if recipe.anchor is not None:
            frozen = self._fast.by_name(self._fast.frozen[None])
            states = map_record(lambda value: value[None], inputs)
            record["frozen"] = recipe.parameters.locations(recipe.actor, frozen, states)[0]
            std = recipe.actor.spread(recipe.actor.features(observations))
            if std is not None:
                record["std"] = std
        return record

    @th.no_grad()
    def _actions(self, weights: Tensor, now: Record) -> Tensor:
        """Scaled actions (rows, action_dim) of each row's weights at its latest state."""
        inputs = map_record(lambda value: value[:, None], _inputs(now))
        locations = self.recipe.parameters.locations(self.recipe.actor, self._fast.by_name(weights), inputs)
        return self.recipe.actor.actions(locations)[:, 0]

    def _frozen(self) -> dict[str, Tensor]:
        parameters = self.recipe.actor.parameters()
        return {name: parameters[name] for name in self._names}

    def _numbers_per_state(self) -> int:
        """Numbers that are kept of a state; 0 where the observations' space is not known."""
        space = self.recipe.actor.observation_space or self.recipe.critic.observation_space
        if space is None:
            return 0
        if self._per_state is None:
            self._per_state = num_numbers(self._described(_zeros(space, self.device)))
        return self._per_state


def _inputs(record: Record) -> Any:
    return record.get("inputs", record["observations"])


def _zeros(space: Space[Any], device: th.device) -> Any:
    """A batch of one observation of a space."""
    if isinstance(space, spaces.Dict):
        return {key: _zeros(part, device) for key, part in space.spaces.items()}
    return tensors(np.zeros((1, *(space.shape or ())), dtype=space.dtype), device)
