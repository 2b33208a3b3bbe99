"""What is wrong with an agent, as numbers: arrays in, frozen records out. NumPy and SciPy only, nothing is rolled out.

- `returns`: discounted returns of logged episodes, the labels that a critic is held against.
- `q_rank`: does the critic order states, and actions at a state, as the truth does?
- `q_bias`: does it say the right amount?
- `policy_error`: how far is the policy from an oracle, on training, held-out and visited states?
- `regret`: what does the policy leave on the table, according to the critic and in truth?
- `coverage`: does the policy visit states that the data know?
- `clustered`: numbers that come in episodes, with intervals that resample whole episodes.
- `traps`: signs that a critic will mislead, before it steers.
- `kendall`: Kendall's tau of many short stretches at once.
- `spread`: how far apart the data's actions lie at alike states.

What these modules offer can be had from here, too. `q_bias`, `policy_error` and `coverage` are then the functions of
those names, and `q_rank` is the module with `window_rank` and `action_rank`. Names are loaded when they are first used
(PEP 562), but for the three that are called as their modules are: an imported module would take the name.
"""

from typing import TYPE_CHECKING

from offline_eval.diagnostics import q_rank as q_rank
from offline_eval.diagnostics.coverage import coverage as coverage
from offline_eval.diagnostics.policy_error import policy_error as policy_error
from offline_eval.diagnostics.q_bias import q_bias as q_bias
from offline_eval.lazy import lazy_names

_HOME = {
    "ActionPairs": "policy_error",
    "ActionRank": "q_rank",
    "Bootstrap": "returns",
    "CandidateTruth": "regret",
    "CandidateValues": "regret",
    "Coverage": "coverage",
    "Curve": "clustered",
    "Drop": "returns",
    "EpisodeRewards": "returns",
    "Estimate": "clustered",
    "Extend": "returns",
    "ExtractionRegret": "regret",
    "NoTail": "returns",
    "PolicyError": "policy_error",
    "QBias": "q_bias",
    "ReturnLabels": "returns",
    "SetError": "policy_error",
    "States": "coverage",
    "Support": "coverage",
    "TrapSign": "traps",
    "TrapThresholds": "traps",
    "Traps": "traps",
    "ValueSample": "q_bias",
    "WindowRank": "q_rank",
    "action_rank": "q_rank",
    "action_spread": "spread",
    "calibration_curve": "q_bias",
    "cluster_bootstrap": "clustered",
    "discounted_returns": "returns",
    "extraction_regret": "regret",
    "find_signs": "traps",
    "mean_estimate": "clustered",
    "normal_bound": "q_rank",
    "normalised_bias": "q_bias",
    "reliability_bound": "q_rank",
    "return_correlation": "policy_error",
    "set_error": "policy_error",
    "soft_rewards": "returns",
    "step_curve": "clustered",
    "window_kendall_tau": "kendall",
    "window_rank": "q_rank",
}

__all__ = [*_HOME, "q_rank", "coverage", "policy_error", "q_bias"]

if TYPE_CHECKING:
    from offline_eval.diagnostics.clustered import Curve as Curve
    from offline_eval.diagnostics.clustered import Estimate as Estimate
    from offline_eval.diagnostics.clustered import cluster_bootstrap as cluster_bootstrap
    from offline_eval.diagnostics.clustered import mean_estimate as mean_estimate
    from offline_eval.diagnostics.clustered import step_curve as step_curve
    from offline_eval.diagnostics.coverage import Coverage as Coverage
    from offline_eval.diagnostics.coverage import States as States
    from offline_eval.diagnostics.coverage import Support as Support
    from offline_eval.diagnostics.kendall import window_kendall_tau as window_kendall_tau
    from offline_eval.diagnostics.policy_error import ActionPairs as ActionPairs
    from offline_eval.diagnostics.policy_error import PolicyError as PolicyError
    from offline_eval.diagnostics.policy_error import SetError as SetError
    from offline_eval.diagnostics.policy_error import return_correlation as return_correlation
    from offline_eval.diagnostics.policy_error import set_error as set_error
    from offline_eval.diagnostics.q_bias import QBias as QBias
    from offline_eval.diagnostics.q_bias import ValueSample as ValueSample
    from offline_eval.diagnostics.q_bias import calibration_curve as calibration_curve
    from offline_eval.diagnostics.q_bias import normalised_bias as normalised_bias
    from offline_eval.diagnostics.q_rank import ActionRank as ActionRank
    from offline_eval.diagnostics.q_rank import WindowRank as WindowRank
    from offline_eval.diagnostics.q_rank import action_rank as action_rank
    from offline_eval.diagnostics.q_rank import normal_bound as normal_bound
    from offline_eval.diagnostics.q_rank import reliability_bound as reliability_bound
    from offline_eval.diagnostics.q_rank import window_rank as window_rank
    from offline_eval.diagnostics.regret import CandidateTruth as CandidateTruth
    from offline_eval.diagnostics.regret import CandidateValues as CandidateValues
    from offline_eval.diagnostics.regret import ExtractionRegret as ExtractionRegret
    from offline_eval.diagnostics.regret import extraction_regret as extraction_regret
    from offline_eval.diagnostics.returns import Bootstrap as Bootstrap
    from offline_eval.diagnostics.returns import Drop as Drop
    from offline_eval.diagnostics.returns import EpisodeRewards as EpisodeRewards
    from offline_eval.diagnostics.returns import Extend as Extend
    from offline_eval.diagnostics.returns import NoTail as NoTail
    from offline_eval.diagnostics.returns import ReturnLabels as ReturnLabels
    from offline_eval.diagnostics.returns import discounted_returns as discounted_returns
    from offline_eval.diagnostics.returns import soft_rewards as soft_rewards
    from offline_eval.diagnostics.spread import action_spread as action_spread
    from offline_eval.diagnostics.traps import Traps as Traps
    from offline_eval.diagnostics.traps import TrapSign as TrapSign
    from offline_eval.diagnostics.traps import TrapThresholds as TrapThresholds
    from offline_eval.diagnostics.traps import find_signs as find_signs

if not TYPE_CHECKING:  # a type checker would take any name
    __getattr__, _ = lazy_names(__name__, _HOME)


def __dir__() -> list[str]:
    return sorted(__all__)
