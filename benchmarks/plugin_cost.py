"""What the pytest plugin costs a project that does not use it: seconds of collecting, and of running.

    python benchmarks/plugin_cost.py [collect | run] [--tests 500] [--repeats 30]

A project of trivial tests is collected, and run, with the plugin and with `-p no:offline_eval`, in a new process each
time, the two in turn and in random order. Differences are paired; the interval is that of their median, by order
statistics, as a busy machine delays a few of the runs by a lot.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import numpy as np
from scipy.stats import binom

WITHOUT = ["-p", "no:offline_eval"]


def project(folder: Path, tests: int) -> None:
    for number in range(10):
        body = "\n".join(f"def test_{i}():\n    pass\n" for i in range(tests // 10))
        (folder / f"test_{number}.py").write_text(body)


def seconds(folder: Path, options: list[str]) -> float:
    """Processor seconds of one run of pytest: what waits for others does not count."""
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    before = getrusage(RUSAGE_CHILDREN)
    # Compiled files are kept, as they usually are, but for nobody else.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(folder / "compiled")
    subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=True)
    after = getrusage(RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


def median_interval(values: np.ndarray) -> tuple[float, float, float]:
    """The median and its 95 % interval."""
    ordered = np.sort(values)
    first = max(int(binom.ppf(0.025, len(values), 0.5)) - 1, 0)
    return float(np.median(values)), float(ordered[first]), float(ordered[-1 - first])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=["collect", "run"], default="collect")
    parser.add_argument("--tests", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=30)
    arguments = parser.parse_args()
    options = ["--collect-only"] if arguments.what == "collect" else []
    generator, times = np.random.default_rng(0), np.zeros((arguments.repeats, 2))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project(folder, arguments.tests)
        seconds(folder, [])
        seconds(folder, WITHOUT)
        for pair in times:
            for column in generator.permutation(2):
                pair[column] = seconds(folder, options + [WITHOUT, []][column])
    without, with_it = np.median(times, axis=0)
    median, low, high = 1000 * np.array(median_interval(times[:, 1] - times[:, 0]))
    print(f"{arguments.what} {arguments.tests} tests, {arguments.repeats} pairs of processes, processor seconds:")
    print(f"without {without:.3f}, with {with_it:.3f}, difference {median:.1f} ms [{low:.1f}, {high:.1f}]")


if __name__ == "__main__":
    main()
