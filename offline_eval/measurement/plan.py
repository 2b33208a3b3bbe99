"""How much is measured, and who is told of the progress."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from offline_eval.measurement.action_rank import ActionTrial
from offline_eval.measurement.rollouts import Advance


@dataclass(frozen=True)
class MeasurementPlan:
    """How much is measured.

    Attributes:
        episodes: played; their seeds are `seed`, `seed + 1`, ...
        seed: of the first episode, and of everything that is drawn.
        n_envs: environments side by side.
        workers: processes that play the episodes.
        step_limit: cuts episodes; by default only where the environment has no limit.
        window: of the rank along trajectories.
        tolerance: share of a steady return that a label may miss.
        longest: steps to roll on past a time limit, at most.
        ceiling_windows: windows that get a second future.
        trial: candidate actions at restored states.
        num_states: states a set in `regret`, and with the critic's own optimum in `policy_error`.
        num_near: the data's actions near a state.
        validation_fraction: of the data set's steps, held out by trajectory.
    """

    episodes: int = 50
    seed: int = 0
    n_envs: int | str = "auto"
    workers: int | str = "auto"
    step_limit: int | None = None
    window: int = 10
    tolerance: float = 0.01
    longest: int = 5000
    ceiling_windows: int = 400
    trial: ActionTrial = field(default_factory=ActionTrial)
    num_states: int = 2000
    num_near: int = 8
    validation_fraction: float = 0.2

    @classmethod
    def quick(cls, **changes: Any) -> MeasurementPlan:
        """Under 2 minutes on two cores for an agent on Hopper."""
        quick: dict[str, Any] = {"episodes": 10, "longest": 1000, "ceiling_windows": 60, "num_states": 500}
        return cls(**{**quick, "trial": ActionTrial(num_states=40, num_rollouts=3, num_each=1), **changes})


class Watcher(Protocol):
    """Told what is being done."""

    def begin(self, label: str, total: int) -> Advance:
        """A stage of `total` units; what is called with the units done."""
        ...


class Silent:
    """Tells nobody."""

    def begin(self, label: str, total: int) -> Advance:
        """Nothing."""
        return lambda count: None
