"""The contracts that everything else meets in: protocols and records. Imports none of ours, no torch at run time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch as th
    from gymnasium import Space
    from torch import Tensor

Array = NDArray[Any]
FloatArray = NDArray[np.floating[Any]]
Observations = Array | dict[str, Array]  # a batch as NumPy: (batch, *observation_shape), or a dict of those
State = tuple[Array, ...] | None  # what a recurrent policy carries from step to step
if TYPE_CHECKING:
    TensorObservations = Tensor | Mapping[str, Tensor]  # the same batch on a critic's device


@runtime_checkable
class Predictor(Protocol):
    """Anything that chooses actions: Stable-Baselines3's own contract."""

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[Array, Any]:
        """Actions (batch, *action_shape) in the environment's units, and the next recurrent state."""
        ...


@runtime_checkable
class Critic(Protocol):
    """A state-action value, differentiable in the actions.

    Actions live in the *scaled* space: [-1, 1] in every bounded dimension of a Box, so that a step size means the
    same in every environment. A discrete action is its index. Observations come as the environment gives them;
    normalising them is the critic's own business.
    """

    @property
    def observation_space(self) -> Space[Any] | None:
        """The space the observations come from; None where the critic was made without one."""
        ...

    @property
    def action_space(self) -> Space[Any]:
        """The environment's action space, unscaled."""
        ...

    @property
    def device(self) -> th.device:
        """Where the tensors must lie."""
        ...

    @property
    def gamma(self) -> float:
        """The discount per step that the value was trained with."""
        ...

    @property
    def soft(self) -> bool:
        """Whether the value contains an entropy bonus (SAC, TQC)."""
        ...

    def q(self, observations: TensorObservations, actions: Tensor) -> Tensor:
        """Values (n_critics, batch), in units of the raw, discounted return."""
        ...

    def scale(self, actions: Tensor) -> Tensor:
        """Environment units to the scaled space."""
        ...

    def unscale(self, actions: Tensor) -> Tensor:
        """The scaled space to environment units."""
        ...


@runtime_checkable
class Actor(Protocol):
    """A policy as torch sees it; what cannot give one of these raises and says so."""

    def mean(self, observations: TensorObservations) -> Tensor:
        """The deterministic action (batch, action_dim) in the scaled space, differentiable in the parameters."""
        ...

    def sample(self, observations: TensorObservations, noise: Tensor) -> Tensor:
        """Actions drawn with the given standard normal noise (batch, action_dim)."""
        ...

    def log_prob(self, observations: TensorObservations, actions: Tensor) -> Tensor:
        """Log-density (batch,) of scaled actions."""
        ...


class Batch(NamedTuple):
    """Transitions for a gradient step; every field is a tensor whose first axis is the batch."""

    observations: Tensor
    actions: Tensor  # scaled
    rewards: Tensor
    next_observations: Tensor
    next_actions: Tensor
    masks: Tensor  # 1 - terminated; truncation is not termination


class Steered(NamedTuple):
    """What a steering rule did to a batch of scaled actions."""

    actions: Tensor  # (batch, action_dim), scaled
    metrics: dict[str, Tensor]  # each (batch,): see `offline_eval.wrappers.steering`


@runtime_checkable
class Rule(Protocol):
    """What to do to an action: tensors in, tensors out, batched, on `device`, without state."""

    @property
    def device(self) -> th.device:
        """Where the tensors must lie."""
        ...

    @property
    def num_rows(self) -> int | None:
        """How many rows a batch must have, where a field has one entry a row; None for any number."""
        ...

    def check(self, observation_space: Space[Any] | None, action_space: Space[Any]) -> None:
        """Raise an InputError where the rule cannot serve these spaces."""
        ...

    def noise_shape(self, action_dim: int) -> tuple[int, ...]:
        """Standard normal numbers wanted per row and step; () for none."""
        ...

    def rows(self, index: Array) -> Rule:
        """The rule for the rows `index` of the batch: itself, unless a field has one entry a row."""
        ...

    def __call__(self, observations: TensorObservations, actions: Tensor, noise: Tensor | None) -> Steered:
        """Steer scaled actions (batch, action_dim) given noise (batch, *noise_shape).

        A discrete action is its index (batch, 1). The host projects the result into the box and measures how far it
        lies from the policy's action.
        """
        ...


@runtime_checkable
class Startable(Protocol):
    """A frozen choice that wants a memory: a rule which learns while it acts, or one that holds such a rule."""

    def start(self) -> Rule:
        """A rule for one host: `Remembering` with a memory of its own, or itself where nothing is remembered."""
        ...


@runtime_checkable
class Remembering(Protocol):
    """A rule with a memory of every row of one host; beside these it has all that a `Rule` has.

    The host hands its rows over by `rows(index)`, in which padding repeats the last one.
    """

    @property
    def width(self) -> int | None:
        """Rows of a padded batch; None for the host's own."""
        ...

    def begin(self, rows: Array) -> None:
        """New episodes at these rows (n,)."""
        ...

    def reserve(self, num_rows: int) -> None:
        """Room for so many rows.

        Raises:
            InputError: they would not fit into memory.
        """
        ...


@runtime_checkable
class Adaptable(Actor, Protocol):
    """An actor that acts with other parameters than its own, and is not changed by it.

    Its network is a trunk and a last layer. The last layer gives *locations*, where the policy's Gaussian lies (before
    tanh, where it is squashed), and `actions` makes scaled actions of them.
    """

    @property
    def observation_space(self) -> Space[Any] | None:
        """The space the observations come from; None where the actor was made without one."""
        ...

    @property
    def action_space(self) -> Space[Any]:
        """The environment's action space, unscaled."""
        ...

    @property
    def device(self) -> th.device:
        """Where the tensors must lie."""
        ...

    @property
    def last_layer(self) -> tuple[str, ...]:
        """Names of the last layer's parameters."""
        ...

    def parameters(self) -> dict[str, Tensor]:
        """Those that decide the deterministic action, by name, as they are now."""
        ...

    def features(self, observations: TensorObservations) -> TensorObservations:
        """What the last layer sees (batch, ...), with the actor's own parameters."""
        ...

    def last(self, parameters: Mapping[str, Tensor], features: TensorObservations) -> Tensor:
        """Locations (rows, states, action_dim): each row of features (rows, states, ...) with its own last layer."""
        ...

    def whole(self, parameters: Mapping[str, Tensor], observations: TensorObservations) -> Tensor:
        """Locations (rows, states, action_dim): each row of observations with its own parameters, all of them."""
        ...

    def spread(self, features: TensorObservations) -> Tensor | None:
        """Standard deviation (batch, action_dim) around the locations; None for a deterministic actor."""
        ...

    def actions(self, locations: Tensor) -> Tensor:
        """Scaled actions of locations (..., action_dim)."""
        ...
