"""Assertions about agents, for pytest and everywhere else: plain functions, each a test with a declared error rate.

Episodes are added until the question is decided or the plan is spent; undecided is an outcome of its own.
`docs/assertions.md` says what each takes for granted and how often it errs.
"""

from typing import TYPE_CHECKING

from offline_eval.lazy import lazy_names

_HOME = {
    "assert_return_at_least": "returns",
    "assert_not_worse": "returns",
    "assert_steering_helps": "returns",
    "assert_kendall_tau": "values",
    "assert_q_bias": "values",
    "assert_evaluation_mse": "actions",
    "assert_covers": "actions",
    "assert_deterministic": "invariants",
    "assert_unchanged": "invariants",
    "assert_normalizer_frozen": "normalizers",
    "EpisodeSource": "sources",
    "FreshEpisodes": "sources",
    "Outcome": "outcome",
    "Session": "session",
    "Undecided": "outcome",
    "UndecidedWarning": "outcome",
    "Violated": "outcome",
    "using": "session",
}

__all__ = list(_HOME)

if TYPE_CHECKING:
    from offline_eval.testing.actions import assert_covers as assert_covers
    from offline_eval.testing.actions import assert_evaluation_mse as assert_evaluation_mse
    from offline_eval.testing.invariants import assert_deterministic as assert_deterministic
    from offline_eval.testing.invariants import assert_unchanged as assert_unchanged
    from offline_eval.testing.normalizers import assert_normalizer_frozen as assert_normalizer_frozen
    from offline_eval.testing.outcome import Outcome as Outcome
    from offline_eval.testing.outcome import Undecided as Undecided
    from offline_eval.testing.outcome import UndecidedWarning as UndecidedWarning
    from offline_eval.testing.outcome import Violated as Violated
    from offline_eval.testing.returns import assert_not_worse as assert_not_worse
    from offline_eval.testing.returns import assert_return_at_least as assert_return_at_least
    from offline_eval.testing.returns import assert_steering_helps as assert_steering_helps
    from offline_eval.testing.session import Session as Session
    from offline_eval.testing.session import using as using
    from offline_eval.testing.sources import EpisodeSource as EpisodeSource
    from offline_eval.testing.sources import FreshEpisodes as FreshEpisodes
    from offline_eval.testing.values import assert_kendall_tau as assert_kendall_tau
    from offline_eval.testing.values import assert_q_bias as assert_q_bias

if not TYPE_CHECKING:  # a type checker would take any name
    __getattr__, __dir__ = lazy_names(__name__, _HOME)
