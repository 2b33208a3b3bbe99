"""What returns say, and how sure of it one can be: IQM, honest intervals, paired differences. NumPy and SciPy only.

`docs/statistics.md` says which interval is used where, why, and what it covers by simulation.
"""

from offline_eval.stats.comparison import PairedDifference, SeedComparison, compare_seeds, paired_difference
from offline_eval.stats.intervals import Interval, mean_interval, welch_interval, wilson_interval
from offline_eval.stats.summary import AggregateScore, Summary, bootstrap_iqm, iqm, iqm_interval, summarize

__all__ = [
    "AggregateScore",
    "Interval",
    "PairedDifference",
    "SeedComparison",
    "Summary",
    "bootstrap_iqm",
    "compare_seeds",
    "iqm",
    "iqm_interval",
    "mean_interval",
    "paired_difference",
    "summarize",
    "welch_interval",
    "wilson_interval",
]
