"""The table of docs/training.md from the folders that `offline-eval train ... --env ID --seeds 3 --out DIR` made.

    python benchmarks/recipe_table.py runs/bc runs/iql runs/td3_bc

A training seed counts as one value, its mean return: the interval is that of their mean.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from offline_eval.report.tables import columns, interval, number
from offline_eval.stats import mean_interval


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    rows = [("", "seeds", "mean", "interval over seeds", "each seed", "steps/s")]
    for folder in parser.parse_args().folders:
        runs = json.loads((folder / "result.json").read_text(encoding="utf-8"))["runs"]
        means = [run["evaluation"]["summary"]["mean"] for run in runs]
        rates = [run["gradient_steps_per_second"] for run in runs if run["gradient_steps_per_second"]]
        each = ", ".join(number(mean) for mean in means)
        rate = number(float(np.median(rates))) if rates else "-"
        mean, bounds = number(float(np.mean(means))), interval(mean_interval(means))
        rows.append((folder.name, str(len(means)), mean, bounds, each, rate))
    print("\n".join(columns(rows, "<>>>>>")))


if __name__ == "__main__":
    main()
