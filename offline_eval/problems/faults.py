"""Agents with a fault that is known because it was planted, and what the fault costs."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch as th
from gymnasium.envs.registration import EnvSpec
from torch import Tensor

from offline_eval.datasets import Dataset
from offline_eval.errors import InputError
from offline_eval.policies import critic_of
from offline_eval.problems.dynamics import GAMMA
from offline_eval.problems.problem import Chooser, Chosen, Problem
from offline_eval.problems.wrong import Blend, Clone, Greedy, Outside, SmoothError
from offline_eval.types import Critic, FloatArray, Predictor

if TYPE_CHECKING:
    from collections.abc import Mapping

_HEALTHY_ERROR = 0.1  # no learned critic is exact
_TURN = 120.0
_STREAM = 0xFA017


@dataclass(frozen=True)
class Fault:
    """What is planted, and where the agent starts. The data always start in a spot.

    Args:
        value: of the critic's error over the data's actions, in spreads of Q*; the policy is greedy under that critic.
        extraction: how much of the policy is a clone of the data, 0 to 1.
        generalisation: how much of the policy is turned by 120 degrees outside of the data's region, 0 to 1.
        breadth: of the starts of the agent's own episodes.
        critic_outside: the critic's error is there outside of the region only, and the policy is greedy without it.
    """

    value: float = _HEALTHY_ERROR
    extraction: float = 0.0
    generalisation: float = 0.0
    breadth: float = 0.0
    critic_outside: bool = False

    def __post_init__(self) -> None:
        for name in ("value", "breadth"):
            if not getattr(self, name) >= 0.0:
                raise InputError(name, "must be >= 0", getattr(self, name))
        for name in ("extraction", "generalisation"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InputError(name, "must lie between 0 and 1", getattr(self, name))

    @property
    def bottlenecks(self) -> tuple[str, ...]:
        """The names of what is planted; none for a healthy agent."""
        planted = {
            "value": self.value > _HEALTHY_ERROR and not self.critic_outside,
            "extraction": self.extraction > 0.0,
            "generalisation": self.generalisation > 0.0,
        }
        return tuple(name for name, there in planted.items() if there)


FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        "healthy": Fault(),
        "healthy, broad": Fault(breadth=1.0),
        "value 0.5": Fault(value=0.5),
        "value 1": Fault(value=1.0),
        "value 2": Fault(value=2.0),
        "value 2, broad": Fault(value=2.0, breadth=1.0),
        "value 4": Fault(value=4.0),
        "extraction 0.6": Fault(extraction=0.6),
        "extraction 1": Fault(extraction=1.0),
        "extraction 1, broad": Fault(extraction=1.0, breadth=1.0),
        "generalisation 0.5": Fault(generalisation=0.5, breadth=1.0),
        "generalisation 1": Fault(generalisation=1.0, breadth=1.0),
        "generalisation 1, broader": Fault(generalisation=1.0, breadth=1.5),
        "value + extraction": Fault(value=2.0, extraction=1.0),
        "extraction + generalisation": Fault(extraction=1.0, generalisation=1.0, breadth=1.0),
        "value + generalisation": Fault(value=2.0, generalisation=1.0, breadth=1.0),
        "critic wrong outside": Fault(value=2.0, breadth=1.0, critic_outside=True),
    }
)
"""The bench's faults by name."""


@dataclass(frozen=True, eq=False)
class Case:
    """An agent with a planted fault.

    Attributes:
        fault: what was planted.
        problem: where.
        seed: of the data and of whatever is random in the fault.
        policy: the agent.
        critic: its critic.
        dataset: what it may be said to have been trained on.
        optimal_return: of the best policy, undiscounted, mean over 400 episodes.
        policy_return: of the agent, on the same episodes.
        behaviour_return: of the data's modes with their noise, from the agent's starts.
    """

    fault: Fault
    problem: Problem
    seed: int
    policy: Predictor
    critic: Critic
    dataset: Dataset
    optimal_return: float
    policy_return: float
    behaviour_return: float

    @property
    def env(self) -> EnvSpec:
        """Where it is diagnosed."""
        return self.problem.env(self.fault.breadth)

    @property
    def bottlenecks(self) -> tuple[str, ...]:
        """What a right verdict names one of; empty for a healthy agent."""
        return self.fault.bottlenecks

    @property
    def gap(self) -> float:
        """What the faults cost, in return units."""
        return self.optimal_return - self.policy_return

    @property
    def gap_share(self) -> float:
        """The same as a share of the range from the worse of agent and data to the best policy."""
        return self.gap / (self.optimal_return - min(self.policy_return, self.behaviour_return))


def plant(problem: Problem, fault: Fault | str, seed: int, num_trajectories: int = 200) -> Case:
    """Plant a fault.

    Args:
        problem: where.
        fault: what, or its name in `FAULTS`.
        seed: the same seed gives the same agent, critic and data.
        num_trajectories: of the data.

    Raises:
        InputError: there is no fault of that name.
    """
    if isinstance(fault, str):
        if fault not in FAULTS:
            raise InputError("fault", f"must be one of {', '.join(FAULTS)}", fault)
        fault = FAULTS[fault]
    generator = np.random.default_rng([_STREAM, seed])
    dataset = problem.collect(num_trajectories, 0.0, seed)
    states = np.asarray(dataset.step_observations, dtype=np.float64)
    outside = Outside(states, generator)
    error = SmoothError.drawn(problem, states, fault.value, generator)
    followed = error
    if fault.critic_outside:
        followed = SmoothError.drawn(problem, states, _HEALTHY_ERROR, generator)
    choose: Chooser = Greedy(problem, followed)
    if fault.extraction > 0.0:
        clone = Clone(states, dataset.actions.astype(np.float64), problem.num_bells, generator)
        choose = clone if fault.extraction == 1.0 else Blend(choose, clone, fault.extraction)
    if fault.generalisation > 0.0:
        choose = Blend(choose, choose, _Scaled(outside, fault.generalisation), degrees=_TURN)
    space = problem.dynamics.action_space
    policy = Chosen(problem.compiled(choose), space)
    q = PlantedQ(problem, error, outside if fault.critic_outside else None, followed)
    return Case(
        fault=fault,
        problem=problem,
        seed=seed,
        policy=policy,
        critic=critic_of(
            q,
            action_space=space,
            observation_space=problem.dynamics.observation_space,
            gamma=GAMMA,
            action_units="environment",
        ),
        dataset=dataset,
        optimal_return=float(problem.returns(problem.oracle, fault.breadth, gamma=1.0).mean()),
        policy_return=float(problem.returns(policy, fault.breadth, gamma=1.0).mean()),
        behaviour_return=float(problem.behaviour_returns(fault.breadth, gamma=1.0).mean()),
    )


@dataclass(frozen=True, eq=False)
class _Scaled:
    """A weight times a factor."""

    weight: Chooser
    factor: float

    def __call__(self, states: FloatArray) -> FloatArray:
        return self.factor * self.weight(states)


@dataclass(frozen=True, eq=False)
class PlantedQ:
    """Q* and an error, as a function of tensors (observations, actions in the environment's units).

    Attributes:
        problem: has Q*.
        error: added everywhere, or where `outside` says.
        outside: from states to the weight of `error`; `inside` has the rest. None for `error` everywhere.
        inside: the other error.
    """

    problem: Problem
    error: SmoothError
    outside: Outside | None
    inside: SmoothError

    def __call__(self, observations: Any, actions: Tensor) -> Tensor:
        """Values (n,)."""
        error = self.error(observations, actions)
        if self.outside is not None:
            weight = th.as_tensor(self.outside(observations.detach().numpy()), dtype=error.dtype)
            error = weight * error + (1.0 - weight) * self.inside(observations, actions)
        return self.problem.q(observations, actions) + error
