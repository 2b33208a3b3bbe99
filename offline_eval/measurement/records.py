"""What a measurement consists of, and its JSON: seven sections, each a record or the reason why there is none.

Figures are drawn from the JSON alone, so that it holds what they need: curves, histograms, returns by episode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from offline_eval.diagnostics.clustered import Estimate
from offline_eval.diagnostics.coverage import Coverage
from offline_eval.diagnostics.policy_error import SetError
from offline_eval.diagnostics.q_bias import QBias
from offline_eval.diagnostics.q_rank import ActionRank, WindowRank
from offline_eval.diagnostics.regret import ExtractionRegret
from offline_eval.episodes import Evaluation
from offline_eval.errors import InputError
from offline_eval.stats.samples import finite_or_none
from offline_eval.types import Array

NUM_BINS = 20
"""Of a histogram."""


def estimate_json(estimate: Estimate | None) -> dict[str, Any] | None:
    """An estimate as plain data, None where there is none."""
    return None if estimate is None else estimate.to_json()


def control_json(control: Estimate) -> dict[str, Any]:
    """A control's mean and its range."""
    return {"value": finite_or_none(control.value), "range": control.ci95.to_json()}


def tau_histogram(taus: Array) -> dict[str, list[float]]:
    """Counts of tau in equal bins over [-1, 1]."""
    counts, edges = np.histogram(taus, bins=NUM_BINS, range=(-1.0, 1.0))
    return {"edges": edges.tolist(), "counts": counts.tolist()}


SCHEMA = 1
"""Of the JSON: grows when a key changes its meaning or goes away."""

T = TypeVar("T")


@dataclass(frozen=True)
class Skipped:
    """A section, or a part of one, that could not be measured."""

    reason: str

    def to_json(self) -> dict[str, Any]:
        """The reason under the key `skipped`."""
        return {"skipped": self.reason}


def attempt(make: Callable[[], T]) -> T | Skipped:
    """What `make` gives, or why it cannot."""
    try:
        return make()
    except InputError as error:
        return Skipped(str(error))


@dataclass(frozen=True)
class Performance:
    """What the policy earns."""

    evaluation: Evaluation

    def to_json(self) -> dict[str, Any]:
        """Returns, lengths and ends by episode, and their summary."""
        evaluation = self.evaluation
        result: dict[str, Any] = {
            "returns": [finite_or_none(episode.episode_return) for episode in evaluation.episodes],
            "lengths": [episode.length for episode in evaluation.episodes],
            "seeds": [episode.seed for episode in evaluation.episodes],
            "terminated": [episode.terminated for episode in evaluation.episodes],
            "summary": evaluation.summary.to_json(),
            "share_truncated": evaluation.share_truncated,
            "invariant": evaluation.invariant,
            "invariance": evaluation.invariance.to_json(),
            "notes": list(evaluation.notes),
        }
        if evaluation.successes is not None:
            succeeded, told = evaluation.successes
            result["success"] = {"rate": succeeded / told, "n": told}
        return result


@dataclass(frozen=True, eq=False)
class Errors:
    """The policy's error against an oracle on three sets of states.

    Attributes:
        oracle: what it was compared with.
        train: at states of the data's training trajectories.
        validation: at states of held-out trajectories.
        evaluation: at states that the policy visits.
        generalisation: evaluation over training error; None without both.
    """

    oracle: str
    train: SetError | Skipped
    validation: SetError | Skipped
    evaluation: SetError | Skipped
    generalisation: Estimate | None = None

    def to_json(self) -> dict[str, Any]:
        """The three sets and the oracle's name."""
        sets = {name: getattr(self, name) for name in ("train", "validation", "evaluation")}
        return {
            "oracle": self.oracle,
            **{name: part.to_json() if isinstance(part, Skipped) else _set_json(part) for name, part in sets.items()},
            "generalisation": estimate_json(self.generalisation),
        }


def _set_json(error: SetError) -> dict[str, Any]:
    return {
        "mse": finite_or_none(error.mse.value),
        "ci95": error.mse.ci95.to_json(),
        "caveat": error.mse.ci95.caveat,
        "n": error.num_states,
        "num_trajectories": error.mse.num_clusters,
        "curve": error.curve.to_json(),
    }


@dataclass(frozen=True)
class Labels:
    """How the true values were had.

    Attributes:
        target: what they are the value of: the policy's mean action, or its draws with entropy bonuses.
        gamma: the discount.
        tail: the rule for episodes that the time limit cut.
        share_labelled: of the steps.
        num_episodes: labelled.
        caveat: what a reader must know.
    """

    target: str
    gamma: float
    tail: str
    share_labelled: float
    num_episodes: int
    caveat: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return dict(vars(self))


@dataclass(frozen=True, eq=False)
class Ranks:
    """Does the critic order states, and actions at a state?

    Attributes:
        windows: along trajectories.
        ceiling: tau between these labels and those with another future after the window, or why it is not known.
        labels: the true values.
        actions: at restored states.
        plain: along the trajectories of the mean action, without entropy, where `windows` is of another target.
        plain_labels: the true values behind `plain`.
    """

    windows: WindowRank
    ceiling: Estimate | Skipped
    labels: Labels
    actions: ActionTrialRank | Skipped
    plain: WindowRank | None = None
    plain_labels: Labels | None = None

    def to_json(self) -> dict[str, Any]:
        """Tau beside its controls, and the same for actions."""
        windows = self.windows
        ceiling = self.ceiling
        return {
            "window_tau": finite_or_none(windows.tau.value),
            "ci95": windows.tau.ci95.to_json(),
            "caveat": windows.tau.ci95.caveat,
            "num_episodes": windows.tau.num_clusters,
            "shuffled": control_json(windows.shuffled),
            "clock": finite_or_none(windows.clock),
            "ceiling": ceiling.to_json(),
            "window": windows.window,
            "num_windows": windows.num_windows,
            "num_used": windows.num_used,
            "num_constant": windows.num_constant,
            "num_nonfinite": windows.num_nonfinite,
            "num_short": windows.num_short,
            "histogram": tau_histogram(windows.taus),
            "labels": self.labels.to_json(),
            "plain": None
            if self.plain is None
            else {
                "window_tau": finite_or_none(self.plain.tau.value),
                "ci95": self.plain.tau.ci95.to_json(),
                "caveat": self.plain.tau.ci95.caveat,
                "clock": finite_or_none(self.plain.clock),
                "labels": None if self.plain_labels is None else self.plain_labels.to_json(),
            },
            "action_rank": self.actions.to_json(),
        }


@dataclass(frozen=True, eq=False)
class ActionTrialRank:
    """The critic's order of actions at restored states.

    Attributes:
        rank: the numbers.
        candidates: what each action is.
        recipe: how the actions were rolled out, as plain data.
        silence: why there is no `relative`, empty where there is one.
        truth_caveat: what a reader must know of the truth.
    """

    rank: ActionRank
    candidates: tuple[str, ...]
    recipe: Mapping[str, Any]
    silence: str = ""
    truth_caveat: str = ""

    def to_json(self) -> dict[str, Any]:
        """Tau, its control and its ceiling."""
        rank = self.rank
        return {
            "tau": finite_or_none(rank.tau.value),
            "ci95": rank.tau.ci95.to_json(),
            "caveat": rank.tau.ci95.caveat,
            "shuffled": control_json(rank.shuffled),
            "ceiling": estimate_json(rank.ceiling),
            "relative": estimate_json(rank.relative),
            "silence": self.silence,
            "truth_caveat": self.truth_caveat,
            "num_states": rank.num_states,
            "num_used": rank.num_used,
            "num_constant": rank.num_constant,
            "num_nonfinite": rank.num_nonfinite,
            "num_rollouts": rank.num_rollouts,
            "candidates": list(self.candidates),
            "histogram": tau_histogram(rank.taus),
            "recipe": dict(self.recipe),
        }


@dataclass(frozen=True, eq=False)
class Bias:
    """Does the critic say the right amount?

    Attributes:
        bias: against the labels.
        labels: the true values.
        points: (num_points, 2) a sample of the pairs (q, truth).
        plain: the same against the returns of the mean action, without entropy, where `bias` is of another target.
    """

    bias: QBias
    labels: Labels
    points: Array
    plain: QBias | None = None

    def to_json(self) -> dict[str, Any]:
        """The bias, its calibration curve and a sample of pairs."""
        return {
            **_bias_json(self.bias),
            "calibration": self.bias.calibration.to_json(),
            "points": {"q": self.points[:, 0].tolist(), "truth": self.points[:, 1].tolist()},
            "labels": self.labels.to_json(),
            "plain": None if self.plain is None else _bias_json(self.plain),
        }


def _bias_json(bias: QBias) -> dict[str, Any]:
    names = ("difference", "normalised", "per_state", "excess")
    return {
        **{name: estimate_json(getattr(bias, name)) for name in names},
        "floor": bias.floor,
        "share_floored": bias.share_floored,
        "num_states": bias.num_states,
    }


@dataclass(frozen=True, eq=False)
class Regrets:
    """What the policy leaves on the table, by set of states; `candidates` says among which actions."""

    candidates: str
    train: ExtractionRegret | Skipped
    validation: ExtractionRegret | Skipped
    evaluation: ExtractionRegret | Skipped
    truth: ExtractionRegret | Skipped

    def to_json(self) -> dict[str, Any]:
        """Claimed, corrected and true gains; `truth` is at the restored states, among the candidates rolled out."""
        sets = {name: getattr(self, name) for name in ("train", "validation", "evaluation", "truth")}
        return {
            "candidates": self.candidates,
            **{n: part.to_json() if isinstance(part, Skipped) else _regret_json(part) for n, part in sets.items()},
        }


def _regret_json(regret: ExtractionRegret) -> dict[str, Any]:
    gains = ("claimed", "corrected", "realised", "attainable")
    return {
        **{name: estimate_json(getattr(regret, name)) for name in gains},
        "winners_curse": regret.winners_curse,
        "spread": regret.spread,
        "share_better": regret.share_better,
        "num_states": regret.num_states,
        "n_critics": regret.n_critics,
        "num_rollouts": regret.num_rollouts,
    }


@dataclass(frozen=True, eq=False)
class Cover:
    """Does the policy visit states that the data know?"""

    coverage: Coverage

    def to_json(self) -> dict[str, Any]:
        """Ratio, share outside, drift over the time step, and both histograms of distances over the same bins."""
        found = self.coverage
        highest = max(float(found.visited_distances.max()), float(found.validation_distances.max()), 1e-12)
        edges = np.linspace(0.0, highest, 2 * NUM_BINS + 1)
        return {
            "ratio": estimate_json(found.ratio),
            "share_outside": estimate_json(found.share_outside),
            "threshold": found.threshold,
            "drift": found.drift.to_json(),
            "num_visited": found.num_visited,
            "num_training": found.num_training,
            "num_training_used": found.num_training_used,
            "histogram": {
                "edges": edges.tolist(),
                "visited": np.histogram(found.visited_distances, edges)[0].tolist(),
                "validation": np.histogram(found.validation_distances, edges)[0].tolist(),
            },
        }


@dataclass(frozen=True, eq=False)
class Measurement:
    """Everything that was measured on one agent; a section is a record or `Skipped`."""

    performance: Performance
    policy_error: Errors | Skipped
    q_rank: Ranks | Skipped
    q_bias: Bias | Skipped
    regret: Regrets | Skipped
    coverage: Cover | Skipped
    manifest: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The object of `measure --json`."""
        sections = ("performance", "policy_error", "q_rank", "q_bias", "regret", "coverage")
        return {
            "schema": SCHEMA,
            **{name: getattr(self, name).to_json() for name in sections},
            "manifest": dict(self.manifest),
        }
