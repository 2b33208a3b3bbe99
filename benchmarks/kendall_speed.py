"""Kendall's tau in sliding windows: ours against a loop of `scipy.stats.kendalltau`, in the same run.

    python benchmarks/kendall_speed.py [--pairs 100000] [--every 1]

Prints processor seconds and their ratio, and how far the two are apart; fails where the ratio is below 1000 or the
difference above 1e-12. A tenth of the pairs are ties and a few are NaN. With `--every 20` the loop takes every 20th
window, and its time is extrapolated; the whole loop takes half a minute.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from scipy.stats import kendalltau

from offline_eval.diagnostics.q_rank import window_kendall_tau

WINDOW, REPEATS = 10, 7
LEAST_RATIO, LARGEST_DIFFERENCE = 1000.0, 1e-12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--every", type=int, default=1, help="the loop takes every so-manieth window")
    options = parser.parse_args()

    generator = np.random.default_rng(0)
    q, truth = generator.normal(size=(2, options.pairs))
    q[generator.random(options.pairs) < 0.1] = 0.0
    truth[generator.random(options.pairs) < 0.1] = 0.0
    truth[generator.choice(options.pairs, 20, replace=False)] = np.nan

    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        taus = window_kendall_tau(q, truth, WINDOW)
        seconds.append(time.process_time() - start)
    ours = float(np.median(seconds))

    starts = range(0, len(taus), options.every)
    start = time.process_time()
    expected = np.array([kendalltau(q[i : i + WINDOW], truth[i : i + WINDOW]).statistic for i in starts])
    loop = (time.process_time() - start) * len(taus) / len(starts)

    found = taus[:: options.every]
    same_gaps = np.array_equal(np.isnan(found), np.isnan(expected))
    difference = float(np.nanmax(np.abs(found - expected)))
    print(f"{options.pairs} pairs, windows of {WINDOW}, {np.isnan(expected).sum()} of {len(starts)} undefined")
    print(f"loop of scipy.stats.kendalltau  {loop:10.4f} s" + (" (extrapolated)" if options.every > 1 else ""))
    print(f"window_kendall_tau              {ours:10.4f} s (median of {REPEATS})")
    print(f"ratio {loop / ours:.0f}, largest difference {difference:.1e}, NaN in the same windows: {same_gaps}")
    if loop / ours < LEAST_RATIO or difference > LARGEST_DIFFERENCE or not same_gaps:
        raise SystemExit(f"wanted: ratio >= {LEAST_RATIO:.0f}, difference <= {LARGEST_DIFFERENCE:.0e}")


if __name__ == "__main__":
    main()
