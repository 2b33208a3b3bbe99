"""What an action is really worth: candidate actions at restored states, each rolled out with the same random numbers.

True advantages of single actions are small beside the chaos of a simulator: perturb by about .5 or hold the action for
5 to 10 steps, average over continuations, and believe no rank without its ceiling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from offline_eval.batching import take
from offline_eval.datasets.recorder import LoggedEpisode
from offline_eval.diagnostics.q_rank import LOWEST_CEILING, action_rank
from offline_eval.diagnostics.regret import (
    CandidateTruth,
    CandidateValues,
    ExtractionRegret,
    extraction_regret,
    minimum,
)
from offline_eval.diagnostics.returns import horizon
from offline_eval.errors import InputError
from offline_eval.measurement.actors import Driver, mean_actions
from offline_eval.measurement.candidates import Candidates, Reach, candidate_actions, candidate_values
from offline_eval.measurement.monte_carlo_returns import stacked
from offline_eval.measurement.records import ActionTrialRank
from offline_eval.measurement.rollouts import Advance, Branch, Brancher
from offline_eval.provenance import recipe
from offline_eval.types import Array, Critic, Predictor

_TRIAL_STREAM = 3


@dataclass(frozen=True)
class ActionTrial:
    """How actions are tried.

    Attributes:
        num_states: restored states, drawn from the visited ones.
        num_rollouts: a state and action; 1 where the driver draws nothing.
        perturbation: standard deviation of the perturbed actions in the scaled space.
        hold: steps for which an action is repeated; above 1 the truth is no longer that of a single action.
        num_each: candidates of a kind.
        tolerance: share of a steady return that a rollout may miss.
        longest: steps of a rollout at most.
    """

    num_states: int = 100
    num_rollouts: int = 4
    perturbation: float = 0.5
    hold: int = 1
    num_each: int = 2
    tolerance: float = 0.05
    longest: int = 1000

    def __post_init__(self) -> None:
        for name in ("num_states", "num_rollouts", "hold", "num_each", "longest"):
            if getattr(self, name) < 1:
                raise InputError(name, "must be >= 1", getattr(self, name))
        if self.perturbation <= 0.0:
            raise InputError("perturbation", "must be > 0", self.perturbation)

    def num_steps(self, gamma: float) -> int:
        """Steps of a rollout."""
        return min(horizon(self.tolerance, gamma), self.longest)


@dataclass(frozen=True, eq=False)
class TriedActions:
    """Candidates at restored states, as the critic and as the truth has them; the first one is the policy's own.

    Attributes:
        candidates: the actions.
        q: (n_critics, num_states, num_candidates).
        truth: (num_states, num_candidates, num_rollouts).
        episodes: (num_states,) which episode each state is from.
        trial: how they were tried.
        driver: what the rollouts go on with.
        num_steps: of a rollout.
        missing: share of a steady return that a rollout of `num_steps` misses.
        share_cut: share of the rollouts that ended there; the others terminated and miss nothing.
    """

    candidates: Candidates
    q: Array
    truth: Array
    episodes: Array
    trial: ActionTrial
    driver: Driver
    num_steps: int
    missing: float
    share_cut: float

    def rank(self, generator: np.random.Generator) -> ActionTrialRank:
        """Tau over actions."""
        rank = action_rank(minimum(self.q), self.truth, self.episodes, generator)
        silence = ""
        if rank.ceiling is None:
            silence = "one rollout an action: the noise of the truth is not known"
        elif rank.relative is None:
            silence = f"the ceiling {rank.ceiling.value:.2f} is below {LOWEST_CEILING}: the truth drowns in noise"
        about = {
            **recipe(self.trial),
            "continuation": self.driver.label,
            "num_steps": self.num_steps,
            "missing": self.missing,
            "share_cut": self.share_cut,
            "common_random_numbers": True,
        }
        about.pop("name")
        caveat = ""
        if self.missing * self.share_cut > 2.0 * self.trial.tolerance:
            caveat = (
                f"{self.share_cut:.0%} of the rollouts were cut after {self.num_steps} steps, where {self.missing:.0%} "
                "of a steady return is still to come: longer ones would tell more"
            )
        return ActionTrialRank(rank, self.candidates.names, about, silence, caveat)

    def regret(self, generator: np.random.Generator) -> ExtractionRegret:
        """What the candidates promise and what they bring."""
        # A spread takes two: where there is only one other action, the own one counts as a candidate as well.
        first = 1 if self.q.shape[2] > 2 else 0
        values = CandidateValues(
            policy=self.q[:, :, 0],
            candidates=self.q[:, :, first:],
            episodes=self.episodes,
            from_data=self.candidates.from_data if first else None,
            truth=CandidateTruth(self.truth[:, 0], self.truth[:, first:]),
        )
        return extraction_regret(values, generator)


def try_actions(
    policy: Predictor,
    critic: Critic,
    driver: Driver,
    episodes: Sequence[LoggedEpisode],
    brancher: Brancher,
    trial: ActionTrial,
    generator: np.random.Generator,
    *,
    reach: Reach | None = None,
    soft: bool = False,
    begin: Callable[[int], Advance] | None = None,
) -> TriedActions:
    """Roll out candidate actions at visited states.

    Args:
        policy: whose actions stand first.
        critic: rates and steers.
        driver: goes on after the action.
        episodes: visited by the policy, with simulator states.
        brancher: of these episodes.
        trial: how.
        generator: draws states and actions.
        reach: the data's actions near a state.
        soft: whether the truth counts entropy bonuses, as the critic does.
        begin: told the number of rollouts; gives what is told of each as it finishes.
    """
    states = stacked(episodes).sample(trial.num_states, generator)
    candidates = candidate_actions(
        states,
        mean_actions(policy, states.observations),
        critic,
        generator,
        reach=reach,
        perturbation=trial.perturbation,
        num_each=trial.num_each,
    )
    num_states, num_candidates = candidates.actions.shape[:2]
    num_rollouts = trial.num_rollouts if driver.noise_dim else 1
    num_steps = trial.num_steps(critic.gamma)
    branches = [
        Branch(
            episode=int(states.trajectories[state]),
            step=int(states.steps[state]),
            seed=(_TRIAL_STREAM, state, rollout),
            num_steps=num_steps,
            action=candidates.actions[state, candidate],
            hold=trial.hold,
        )
        for state in range(num_states)
        for candidate in range(num_candidates)
        for rollout in range(num_rollouts)
    ]
    advance = None if begin is None else begin(len(branches))
    rollouts = brancher.roll(driver, branches, advance)
    values = [rollout.value(critic.gamma, soft) for rollout in rollouts]
    return TriedActions(
        candidates=candidates,
        q=candidate_values(critic, take(states.observations, np.arange(num_states)), candidates.actions),
        truth=np.reshape(values, (num_states, num_candidates, num_rollouts)),
        episodes=states.trajectories,
        trial=trial,
        driver=driver,
        num_steps=num_steps,
        missing=critic.gamma**num_steps,
        share_cut=float(np.mean([not rollout.terminated for rollout in rollouts])),
    )
