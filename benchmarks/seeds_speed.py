"""Wall time of four seeds of IQL side by side in one-thread processes, against the same four in turn on one core.

    python benchmarks/seeds_speed.py [--recipe iql] [--seeds 4] [--workers 2] [--gradient-steps 6000] [--rounds 3]

The time is that of the whole `train`: writing the shared copy of the data, starting processes, training, saving. Every
round takes both ways, in turn, and a ratio is taken within its round. On an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from training_speed import BATCH, NET_ARCH, synthetic_data

from offline_eval.policies.recipes import recipe_of
from offline_eval.training.run import TrainingPlan
from offline_eval.training.training import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="iql")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--gradient-steps", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=200_000)
    arguments = parser.parse_args()
    dataset = synthetic_data(arguments.rows)
    words = {"batch_size": BATCH, "policy_kwargs": {"net_arch": NET_ARCH}, "device": "cpu"}
    plan = TrainingPlan(recipe_of(arguments.recipe), arguments.gradient_steps, checkpoints=0, words=words)

    def seconds(workers: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            since = time.perf_counter()
            train(plan, dataset, Path(folder), range(arguments.seeds), workers=workers)
            return time.perf_counter() - since

    ratios = []
    for number in range(1, arguments.rounds + 1):
        alone, beside = seconds(1), seconds(arguments.workers)
        ratios.append(alone / beside)
        print(f"round {number}: 1 core {alone:.1f} s, {arguments.workers} cores {beside:.1f} s", flush=True)
    print(f"ratio {statistics.median(ratios):.2f}  [{min(ratios):.2f}, {max(ratios):.2f}]")


if __name__ == "__main__":
    main()
