"""Episodes that follow from one another: their mean means something, an interval around it does not."""

from __future__ import annotations

from dataclasses import replace
from math import nan

from offline_eval.stats.comparison import PairedDifference
from offline_eval.stats.intervals import unbounded
from offline_eval.stats.summary import Summary

__all__ = ["DEPENDENT", "difference_without_interval", "summary_without_interval"]

DEPENDENT = "the episodes are not independent: each goes on from what the one before has learnt; see the curve"


def summary_without_interval(summary: Summary) -> Summary:
    """The summary with marked, infinite intervals and no standard error."""
    nothing = unbounded(DEPENDENT)
    return replace(summary, standard_error=nan, ci95=nothing, iqm_ci95=nothing)


def difference_without_interval(difference: PairedDifference) -> PairedDifference:
    """The difference with a marked, infinite interval, no test and no number of episodes to plan for."""
    return replace(difference, ci95=unbounded(DEPENDENT), sign_test_p_value=nan, required_n=None)
