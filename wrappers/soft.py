"""Steering discrete actions: `log pi(a|s) + Q(s, a) / temperature` instead of `log pi(a|s)`.

- `SoftSteer` adds a critic's values to what the policy thinks of each action.
- What the policy thinks, its *prior*, is in `offline_eval.wrappers.soft`.
- What is done with the sum: `Greedy()` takes the highest, `Drawn()` draws from its softmax.
- The controls: `ShuffledSoftSteer(like=rule)` gives each action the value of a random other one, `RandomAction` acts at
  random with a fixed probability.

A host that knows the policy (`evaluate`, `SteeredPolicy`) takes its distribution where `prior` is left out. A host
around an environment sees nothing but actions: there a prior must be given.

An action's index takes the place of the scaled action: `displacement` is 1 where another action was taken, else 0.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch as th
from gymnasium import Space, spaces
from torch import Tensor

from offline_eval.errors import InputError, SpaceError, bare
from offline_eval.types import Critic, Steered
from offline_eval.wrappers.arguments import Numbers, column, numbers
from offline_eval.wrappers.directions import Min, Reduction
from offline_eval.wrappers.rule_wrapper import RuleWrapper
from offline_eval.wrappers.rules import SteeringRule, heads, reduced, required, same_observations
from offline_eval.wrappers.seen_states import map_record

if TYPE_CHECKING:
    from offline_eval.types import TensorObservations

__all__ = [
    "Drawn",
    "Greedy",
    "OneHot",
    "PolicyPrior",
    "Prior",
    "RandomAction",
    "ShuffledSoftSteer",
    "SoftSteer",
]


Prior = Callable[["TensorObservations", Tensor, int], Tensor]
"""`(observations, chosen, num_actions) -> (batch, num_actions)` log-probabilities; `chosen` are indices (batch,)."""


@dataclass(frozen=True)
class OneHot:
    """A policy of which only the action is known.

    Args:
        epsilon: probability that is shared evenly by the other actions, in (0, 1). It is an assumption, and decides how
            much value another action must promise before it is taken: with `n` actions and `Greedy()`, more than
            `temperature * log((n - 1) * (1 - epsilon) / epsilon)` above that of the policy's.
    """

    epsilon: float

    def __post_init__(self) -> None:
        if not 0.0 < self.epsilon < 1.0:
            raise InputError("epsilon", "must lie between 0 and 1", self.epsilon, "0 would never take another action")

    def __call__(self, observations: TensorObservations, chosen: Tensor, num_actions: int) -> Tensor:
        """Log-probabilities (batch, num_actions)."""
        others = self.epsilon / max(1, num_actions - 1)
        shares = th.full((len(chosen), num_actions), others, device=chosen.device)
        return shares.scatter(1, chosen[:, None], 1.0 - self.epsilon).log()


@dataclass(frozen=True)
class PolicyPrior:
    """The distribution of a policy with discrete actions.

    Args:
        model: PPO, A2C and whatever else has SB3's `get_distribution`, or its policy. A DQN has none: it knows values.
    """

    model: Any = field(repr=False)

    def __post_init__(self) -> None:
        if _distribution_of(self.model) is None:
            raise InputError(
                "model",
                "must have a distribution of actions",
                bare(type(self.model).__name__),
                "where only its action is known, SoftSteer(..., prior=OneHot(epsilon))",
            )
        held = getattr(self.model, "get_vec_normalize_env", lambda: None)()
        if held is not None and held.norm_obs:
            raise InputError(
                "model",
                "must take raw observations",
                bare(f"a {type(self.model).__name__} that was trained behind a VecNormalize"),
                "Normalized(model, Statistics.of(model.get_vec_normalize_env()))",
            )

    def __call__(self, observations: TensorObservations, chosen: Tensor, num_actions: int) -> Tensor:
        """Log-probabilities (batch, num_actions)."""
        get_distribution = _distribution_of(self.model)
        assert get_distribution is not None  # looked for in the constructor
        with th.no_grad():
            logits = getattr(get_distribution(observations).distribution, "logits", None)
        if not isinstance(logits, Tensor) or logits.shape != (len(chosen), num_actions):
            raise InputError(
                "model",
                f"must have log-probabilities ({len(chosen)}, {num_actions})",
                bare(type(logits).__name__ if not isinstance(logits, Tensor) else f"shape {tuple(logits.shape)}"),
            )
        return logits


def _distribution_of(model: Any) -> Callable[[Any], Any] | None:
    """SB3's `get_distribution`, of a policy, of an algorithm's policy, or of a `Normalized`."""
    inner = getattr(model, "model", model)  # what a `Normalized` normalises for
    if not any(hasattr(owner, "get_distribution") for owner in (inner, getattr(inner, "policy", None))):
        return None
    owners: tuple[Any, ...] = (model, getattr(model, "policy", None))
    return next((owner.get_distribution for owner in owners if hasattr(owner, "get_distribution")), None)


_LARGEST_NOISE = 9.0
"""Standard normal numbers beyond it do not occur, and would have no logarithm in float32."""


@dataclass(frozen=True)
class Greedy:
    """The action with the highest sum; of equals the first."""

    def noise_shape(self, num_actions: int) -> tuple[int, ...]:
        """No noise."""
        return ()

    def __call__(self, logits: Tensor, noise: Tensor | None) -> Tensor:
        """Indices (batch,) from (batch, num_actions)."""
        return logits.argmax(dim=1)


@dataclass(frozen=True)
class Drawn:
    """A draw from the softmax of the sum (Gumbel's trick)."""

    def noise_shape(self, num_actions: int) -> tuple[int, ...]:
        """A number an action."""
        return (num_actions,)

    def __call__(self, logits: Tensor, noise: Tensor | None) -> Tensor:
        """Indices (batch,) from (batch, num_actions) and standard normal noise of that shape."""
        log_uniform: Tensor = th.special.log_ndtr(required(noise).clamp(-_LARGEST_NOISE, _LARGEST_NOISE))
        return (logits - (-log_uniform).log()).argmax(dim=1)


_GREEDY, _MIN = Greedy(), Min()


@dataclass(frozen=True, eq=False)
class SoftSteer(SteeringRule):
    """Acts by `log pi(a|s) + Q(s, a) / temperature`, for discrete actions.

    This is the policy of highest value when leaving `pi` costs `temperature` times the Kullback-Leibler divergence; in
    the limit of a low temperature it is the critic's greedy policy, in that of a high one `pi` itself.

    Example:
        >>> evaluate(ppo, "Acrobot-v1", rule=SoftSteer(critic_of(dqn), temperature=5.0))  # doctest: +SKIP

    Args:
        critic: of discrete actions: of a DQN, a QRDQN, or a function (`critic_of`).
        temperature: > 0, in units of the return; a vector holds one entry a row.
        prior: what the policy thinks of each action; None takes it from the policy, on hosts that know it.
        choose: what is done with the sum.
        reduce: from the ensemble's values to the one that counts.

    One forward pass of the critic on batch * num_actions rows.
    """

    number_per_row = "temperature"

    critic: Critic = field(repr=False)
    temperature: Numbers
    prior: Prior | None = None
    choose: Greedy | Drawn = _GREEDY
    reduce: Reduction = _MIN

    def __post_init__(self) -> None:
        if not all(hasattr(self.critic, name) for name in ("q", "action_space", "device")):
            raise InputError(
                "critic", "must be a Critic", bare(type(self.critic).__name__), "`critic_of(...)` makes one"
            )
        _number_of_actions("SoftSteer", self.critic.action_space)
        temperature = numbers("temperature", self.temperature, "the higher, the nearer to the policy")
        if np.min(temperature) <= 0.0:
            raise InputError("temperature", "must be > 0", self.temperature, "the lower, the nearer to greedy values")
        object.__setattr__(self, "temperature", temperature)

    @property
    def device(self) -> th.device:
        """The critic's."""
        return self.critic.device

    @property
    def num_actions(self) -> int:
        """How many actions there are."""
        return _number_of_actions("SoftSteer", self.critic.action_space)

    def of_policy(self, policy: Any) -> SoftSteer:
        """The rule for this policy: with its distribution, where no prior was given."""
        if self.prior is not None:
            return self
        chosen, prior = copy(self), PolicyPrior(policy)
        device = getattr(policy, "device", self.device)
        if device != self.device:
            raise InputError("critic", f"must be on the policy's device, {device}", self.device)
        object.__setattr__(chosen, "prior", prior)
        return chosen

    def check(self, observation_space: Space[Any] | None, action_space: Space[Any]) -> None:
        """Raise an InputError where the rule cannot serve these spaces, or does not know what the policy thinks."""
        if _number_of_actions("SoftSteer", action_space) != self.num_actions:
            raise SpaceError(
                "critic",
                f"must be made for the environment's actions, {action_space}",
                bare(f"a critic for {self.critic.action_space}"),
                "take the critic of an agent trained on this environment",
            )
        same_observations(self.critic.observation_space, observation_space)
        if self.prior is None:
            raise InputError(
                "prior",
                "must be given where only the policy's action is known",
                None,
                "PolicyPrior(model), or OneHot(epsilon), which assumes a distribution; evaluate and SteeredPolicy "
                "know the policy",
            )

    def noise_shape(self, action_dim: int) -> tuple[int, ...]:
        """What `choose` draws."""
        return self.choose.noise_shape(self.num_actions)

    def __call__(self, observations: TensorObservations, actions: Tensor, noise: Tensor | None = None) -> Steered:
        """Choose among all actions; `actions` (batch, 1) are the indices that the policy chose."""
        return self.steered(observations, actions, noise, lambda table: table)

    def steered(
        self,
        observations: TensorObservations,
        actions: Tensor,
        noise: Tensor | None,
        change: Callable[[Tensor], Tensor],
    ) -> Steered:
        """The same with values (batch, num_actions) that `change` has changed: what a control does."""
        prior: Any = self.prior  # `check` has seen to it
        chosen = actions[:, 0].long()
        values = self._values(observations, len(chosen))
        seen = change(values)
        logits = prior(observations, chosen, self.num_actions) + seen / column("temperature", self.temperature, values)
        usable = values.isfinite().all(dim=1)
        choice = th.where(usable, self.choose(logits.nan_to_num(-th.inf), noise), chosen)
        of_both = values.gather(1, th.stack([chosen, choice], dim=1))
        metrics = {
            "clipped": th.zeros_like(actions[:, 0]),
            "predicted_gain": of_both[:, 1] - of_both[:, 0],
            "non_finite": ~usable,
        }
        return Steered(choice[:, None].to(actions.dtype), metrics)

    def _values(self, observations: TensorObservations, size: int) -> Tensor:
        """The reduced value (batch, num_actions) of every action."""
        every = th.arange(self.num_actions, device=self.device).repeat(size)
        with th.no_grad():
            q = heads(
                self.critic,
                map_record(lambda value: value.repeat_interleave(self.num_actions, dim=0), observations),
                every,
            )
            return reduced(q, self.reduce).view(size, -1)


@dataclass(frozen=True, eq=False)
class ShuffledSoftSteer(RuleWrapper):
    """Control: a `SoftSteer` whose values change places at random among the actions of each state.

    Args:
        like: the rule; its temperature, prior and choice are repeated. What its values know is lost, how far apart they
            lie is not.
    """

    wrapped = "like"

    like: SoftSteer

    def __post_init__(self) -> None:
        if not isinstance(self.like, SoftSteer):
            raise InputError("like", "must be a SoftSteer", bare(type(self.like).__name__))

    def noise_shape(self, action_dim: int) -> tuple[int, ...]:
        """A number an action for the order, then what the rule draws."""
        return (self.like.num_actions + int(np.prod(self.like.noise_shape(action_dim) or (0,))),)

    def __call__(self, observations: TensorObservations, actions: Tensor, noise: Tensor | None = None) -> Steered:
        """Choose among all actions by values in a random order."""
        drawn, num_actions = required(noise), self.like.num_actions
        order = drawn[:, :num_actions].argsort(dim=1)
        rest = drawn[:, num_actions:]
        return self.like.steered(
            observations, actions, rest if rest.shape[1] else None, lambda table: table.gather(1, order)
        )


@dataclass(frozen=True, eq=False)
class RandomAction(SteeringRule):
    """Control: with a fixed probability an action drawn uniformly, else the policy's.

    Args:
        probability: from 0 to 1.
        action_space: the environment's, which says among how many actions is drawn.
    """

    probability: float
    action_space: spaces.Discrete = field(repr=False)

    def __post_init__(self) -> None:
        if not 0.0 <= self.probability <= 1.0:
            raise InputError("probability", "must lie in [0, 1]", self.probability)
        _number_of_actions("RandomAction", self.action_space)

    def check(self, observation_space: Space[Any] | None, action_space: Space[Any]) -> None:
        """Raise a SpaceError where the actions are others."""
        if _number_of_actions("RandomAction", action_space) != self.action_space.n:
            raise SpaceError("action_space", f"must be the environment's, {action_space}", self.action_space)

    def noise_shape(self, action_dim: int) -> tuple[int, ...]:
        """Whether, and which."""
        return (2,)

    def __call__(self, observations: TensorObservations, actions: Tensor, noise: Tensor | None = None) -> Steered:
        """Replace some of the indices (batch, 1)."""
        whether, which = th.special.ndtr(required(noise)).unbind(dim=1)
        num_actions = int(self.action_space.n)
        drawn = (which * num_actions).floor().clamp_max(num_actions - 1)
        return Steered(th.where((whether < self.probability)[:, None], drawn[:, None], actions), {})


def _number_of_actions(rule: str, action_space: Space[Any]) -> int:
    if not isinstance(action_space, spaces.Discrete):
        raise SpaceError(
            "action_space", f"must be Discrete for {rule}", action_space, "OPEX and BestOfN steer in a Box of floats"
        )
    if action_space.start != 0:
        raise SpaceError("action_space", f"must count from 0 for {rule}: critics know actions by index", action_space)
    return int(action_space.n)
