"""What stands between a policy and an environment.

Rules say what to do to an action (`OPEX`, `BestOfN`; the controls `RandomDirection`, `MultiplyAction`, `Placebo`),
guards how much of it (`Guarded(OPEX(...), LineSearch())`; `offline_eval.wrappers.guards` lists them), hosts where it is
done: `SteerAction` around a `gymnasium.Env`, its namesakes in `offline_eval.wrappers.vector` and
`offline_eval.wrappers.sb3`, and `SteeredPolicy` around anything with `predict`. `StateLogger` writes what happened.

Names are loaded when they are first used (PEP 562).
"""

from typing import TYPE_CHECKING

from offline_eval.lazy import lazy_names

_HOME = {
    "OPEX": "steering",
    "BestOfN": "steering",
    "GaussianProposal": "steering",
    "RandomDirection": "controls",
    "MultiplyAction": "controls",
    "Placebo": "controls",
    "Guarded": "guards",
    "AgreementGate": "guards",
    "AgreementScale": "guards",
    "AllHeadsGain": "guards",
    "GainOverDisagreement": "guards",
    "KeepBest": "guards",
    "LineSearch": "guards",
    "TrustRadius": "guards",
    "SoftSteer": "soft",
    "Drawn": "soft",
    "Greedy": "soft",
    "OneHot": "soft",
    "PolicyPrior": "soft",
    "RandomAction": "soft",
    "ShuffledSoftSteer": "soft",
    "CudaGraph": "cuda_graph",
    "Fused": "fused",
    "fused_policy": "fused",
    "Raw": "directions",
    "L2": "directions",
    "Sign": "directions",
    "Min": "directions",
    "Mean": "directions",
    "LowerBound": "directions",
    "LinearGain": "directions",
    "ExactGain": "directions",
    "TestTimeTraining": "adaptation",
    "BestNear": "reach",
    "NearbyActions": "reach",
    "Neighbours": "reach",
    "RandomNear": "reach",
    "Region": "reach",
    "Where": "reach",
    "LastLayer": "learning",
    "AllParameters": "learning",
    "Adam": "learning",
    "NormalizedGradient": "learning",
    "GradientDescent": "learning",
    "KLAnchor": "learning",
    "EachEpisode": "learning",
    "Never": "learning",
    "Latest": "seen_states",
    "Replay": "seen_states",
    "Mixture": "seen_states",
    "SteerAction": "env",
    "SteeredPolicy": "predictor",
    "StateLogger": "state_log",
}

__all__ = list(_HOME)

if TYPE_CHECKING:
    from offline_eval.wrappers.adaptation import TestTimeTraining as TestTimeTraining
    from offline_eval.wrappers.controls import MultiplyAction as MultiplyAction
    from offline_eval.wrappers.controls import Placebo as Placebo
    from offline_eval.wrappers.controls import RandomDirection as RandomDirection
    from offline_eval.wrappers.cuda_graph import CudaGraph as CudaGraph
    from offline_eval.wrappers.directions import L2 as L2
    from offline_eval.wrappers.directions import ExactGain as ExactGain
    from offline_eval.wrappers.directions import LinearGain as LinearGain
    from offline_eval.wrappers.directions import LowerBound as LowerBound
    from offline_eval.wrappers.directions import Mean as Mean
    from offline_eval.wrappers.directions import Min as Min
    from offline_eval.wrappers.directions import Raw as Raw
    from offline_eval.wrappers.directions import Sign as Sign
    from offline_eval.wrappers.env import SteerAction as SteerAction
    from offline_eval.wrappers.fused import Fused as Fused
    from offline_eval.wrappers.fused import fused_policy as fused_policy
    from offline_eval.wrappers.guards import AgreementGate as AgreementGate
    from offline_eval.wrappers.guards import AgreementScale as AgreementScale
    from offline_eval.wrappers.guards import AllHeadsGain as AllHeadsGain
    from offline_eval.wrappers.guards import GainOverDisagreement as GainOverDisagreement
    from offline_eval.wrappers.guards import Guarded as Guarded
    from offline_eval.wrappers.guards import KeepBest as KeepBest
    from offline_eval.wrappers.guards import LineSearch as LineSearch
    from offline_eval.wrappers.guards import TrustRadius as TrustRadius
    from offline_eval.wrappers.learning import Adam as Adam
    from offline_eval.wrappers.learning import AllParameters as AllParameters
    from offline_eval.wrappers.learning import EachEpisode as EachEpisode
    from offline_eval.wrappers.learning import GradientDescent as GradientDescent
    from offline_eval.wrappers.learning import KLAnchor as KLAnchor
    from offline_eval.wrappers.learning import LastLayer as LastLayer
    from offline_eval.wrappers.learning import Never as Never
    from offline_eval.wrappers.learning import NormalizedGradient as NormalizedGradient
    from offline_eval.wrappers.predictor import SteeredPolicy as SteeredPolicy
    from offline_eval.wrappers.reach import BestNear as BestNear
    from offline_eval.wrappers.reach import NearbyActions as NearbyActions
    from offline_eval.wrappers.reach import Neighbours as Neighbours
    from offline_eval.wrappers.reach import RandomNear as RandomNear
    from offline_eval.wrappers.reach import Region as Region
    from offline_eval.wrappers.reach import Where as Where
    from offline_eval.wrappers.seen_states import Latest as Latest
    from offline_eval.wrappers.seen_states import Mixture as Mixture
    from offline_eval.wrappers.seen_states import Replay as Replay
    from offline_eval.wrappers.soft import Drawn as Drawn
    from offline_eval.wrappers.soft import Greedy as Greedy
    from offline_eval.wrappers.soft import OneHot as OneHot
    from offline_eval.wrappers.soft import PolicyPrior as PolicyPrior
    from offline_eval.wrappers.soft import RandomAction as RandomAction
    from offline_eval.wrappers.soft import ShuffledSoftSteer as ShuffledSoftSteer
    from offline_eval.wrappers.soft import SoftSteer as SoftSteer
    from offline_eval.wrappers.state_log import StateLogger as StateLogger
    from offline_eval.wrappers.steering import OPEX as OPEX
    from offline_eval.wrappers.steering import BestOfN as BestOfN
    from offline_eval.wrappers.steering import GaussianProposal as GaussianProposal

if not TYPE_CHECKING:  # a type checker would take any name
    __getattr__, __dir__ = lazy_names(__name__, _HOME)
