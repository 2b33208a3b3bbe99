"""What the pytest plugin costs a project that does not use it: seconds of collecting, and of running.

    python benchmarks/plugin_cost.py [--tests 500] [--repeats 30]

A project of trivial tests is collected, and run, with the plugin and with `-p no:offline_eval`, in a new process each
time, the two in turn and in random order. Differences are paired; the interval is that of their mean.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from offline_eval.stats import Interval, mean_interval

WITHOUT = ["-p", "no:offline_eval"]


def project(folder: Path, tests: int) -> None:
    for number in range(10):
        body = "\n".join(f"def test_{i}():\n    pass\n" for i in range(tests // 10))
        (folder / f"test_{number}.py").write_text(body)


def seconds(folder: Path, options: list[str]) -> float:
    """Processor seconds of one run of pytest: what waits for others does not count."""
    before = os.times()
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    return (after.children_user + after.children_system) - (before.children_user + before.children_system)


def difference(folder: Path, options: list[str], repeats: int) -> tuple[float, float, Interval]:
    """Median without it, median with it, and the interval of the mean paired difference."""
    generator = np.random.default_rng(0)
    times = np.zeros((repeats, 2))
    for pair in times:
        for column in generator.permutation(2):
            pair[column] = seconds(folder, options + [WITHOUT, []][column])
    return float(np.median(times[:, 0])), float(np.median(times[:, 1])), mean_interval(times[:, 1] - times[:, 0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tests", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=30)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project(folder, arguments.tests)
        seconds(folder, [])  # compiled files are written once
        start = time.perf_counter()
        print(f"{arguments.tests} tests, {arguments.repeats} pairs of processes, processor seconds")
        print(f"{'':12} {'without':>8} {'with':>8}   mean difference, 95 % interval")
        for what, options in (("collect", ["--collect-only"]), ("run", [])):
            without, with_it, interval = difference(folder, options, arguments.repeats)
            low, high = 1000 * interval.low, 1000 * interval.high
            print(f"{what:12} {without:8.3f} {with_it:8.3f}   {(low + high) / 2:.1f} ms [{low:.1f}, {high:.1f}]")
        print(f"{time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    main()
