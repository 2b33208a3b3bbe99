"""How much is played for a diagnosis, and from where on a number counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from offline_eval.diagnosis.rollout_search import TruthPlan
from offline_eval.errors import InputError
from offline_eval.measurement.action_rank import ActionTrial
from offline_eval.measurement.plan import MeasurementPlan

SELECTION_SEEDS = 1_000_000
"""What is added to the first seed for the episodes on which choices are made."""


@dataclass(frozen=True)
class Extractions:
    """Policies that are read out of the same critic anew.

    Attributes:
        gradient_steps: of each; 0 leaves these rungs out.
        bc_coefs: of DDPG+BC, one is chosen on the selection seeds.
        inverse_temperatures: of AWR, likewise.
        net_arch: of the new policies.
    """

    gradient_steps: int = 2000
    bc_coefs: tuple[float, ...] = (0.3, 1.0, 3.0)
    inverse_temperatures: tuple[float, ...] = (3.0,)
    net_arch: tuple[int, ...] = (128, 128)


@dataclass(frozen=True)
class DiagnosisPlan:
    """How much is played.

    Attributes:
        episodes: of every rung; their seeds are `seed`, `seed + 1`, ...
        selection_episodes: on which step sizes and numbers of candidates are chosen; other seeds.
        seed: of the first episode, and of everything that is drawn.
        n_envs: environments side by side; a batch is padded to 32 rows anyway, and rules are dearer than steps.
        workers: processes that play the episodes.
        step_limit: cuts episodes; by default only where the environment has no limit.
        num_near: numbers of the data's actions near a state to choose among for best-of-N; as many offsets of the
            policy's action are added, and the action itself.
        offset_std: of those offsets, scaled.
        step_sizes: lengths of the whole OPEX step to choose among, scaled; 0 is the policy as it is.
        num_steps: OPEX steps that the length is cut into.
        validation_fraction: of the data set's steps, held out by trajectory.
        quantile: of the held-out states' distances; beyond it a state is outside of the data's region.
        max_states: of more training states a sample is searched.
        truth: how much truth is sought.
        extractions: policies read out of the same critic anew.
        learning_rates: of test-time training, to choose among; none leaves that rung out.
        fitted_steps: gradient steps of the critic that is fitted where the policy has none.
        measure: what is measured beside the ladder; None for the returns alone.
    """

    episodes: int = 50
    selection_episodes: int = 20
    seed: int = 0
    n_envs: int | str = "auto"
    workers: int | str = "auto"
    step_limit: int | None = None
    num_near: tuple[int, ...] = (4, 12)
    offset_std: float = 0.3
    step_sizes: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
    num_steps: int = 4
    validation_fraction: float = 0.2
    quantile: float = 0.99
    max_states: int = 10_000
    truth: TruthPlan = field(default_factory=lambda: TruthPlan(num_starts=50))
    extractions: Extractions = field(default_factory=Extractions)
    learning_rates: tuple[float, ...] = (3e-4, 1e-3)
    fitted_steps: int = 5000
    measure: MeasurementPlan | None = field(
        default_factory=lambda: MeasurementPlan(
            longest=1000,
            ceiling_windows=60,
            num_states=500,
            trial=ActionTrial(num_states=40, num_rollouts=3, num_each=1),
        )
    )

    def __post_init__(self) -> None:
        for name in ("episodes", "selection_episodes"):
            if getattr(self, name) < 2:
                raise InputError(name, "must be >= 2, to tell a spread", getattr(self, name))
        if not 0 <= self.seed < SELECTION_SEEDS - self.episodes:
            raise InputError("seed", f"must be >= 0 and below {SELECTION_SEEDS - self.episodes}", self.seed)
        if not self.num_near or min(self.num_near) < 1:
            raise InputError("num_near", "must be numbers >= 1, one at least", self.num_near)
        if 0.0 not in self.step_sizes or min(self.step_sizes) < 0.0:
            raise InputError("step_sizes", "must be numbers >= 0 with 0 among them", self.step_sizes)

    @classmethod
    def quick(cls, **changes: Any) -> DiagnosisPlan:
        """Under 2 minutes on two cores for an agent on Hopper."""
        trial = ActionTrial(num_states=20, num_rollouts=2, num_each=1, longest=200)
        quick: dict[str, Any] = {
            "episodes": 20,
            "selection_episodes": 8,
            "num_near": (8,),
            "step_sizes": (0.0, 0.1, 0.4),
            "truth": TruthPlan(num_starts=20, num_near=4, num_offsets=8),
            "extractions": Extractions(gradient_steps=0),
            "learning_rates": (),
            "fitted_steps": 2000,
            "measure": MeasurementPlan(longest=300, ceiling_windows=20, num_states=300, trial=trial),
        }
        return cls(**{**quick, **changes})
