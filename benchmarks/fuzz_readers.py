"""Damaged data sets of every format: each ends in data or in an error of ours, soon and in little memory.

    python benchmarks/fuzz_readers.py            # 300 files of each format
    python benchmarks/fuzz_readers.py --files 20 --seed 7 --formats npz d4rl

A file is read in a process of its own, which is killed after some seconds; its peak of resident memory is the
system's. `describe`, `check`, opening with and without `transitions`, and every episode of a log are tried on each.
A seed and a number name a file; what does not end as it should is listed with them. Exit code 1 where there is any.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from damaged_data import FORMATS, damaged, read

SECONDS, MOST_BYTES = 20, 2**30
OPENED, REFUSED, TRACEBACK = 0, 2, 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=300, help="damaged files a format (default: 300)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--formats", nargs="*", default=list(FORMATS), choices=list(FORMATS))
    arguments = parser.parse_args()
    total, peak, faults = Counter(), 0, []
    for name in arguments.formats:
        counts, highest = Counter(), 0
        with tempfile.TemporaryDirectory() as above:
            made = FORMATS[name](Path(above))
            for number in range(arguments.files):
                with tempfile.TemporaryDirectory() as folder:
                    generator = np.random.default_rng([arguments.seed, number])
                    path, done = damaged(made, Path(folder), generator)
                    ended, memory = read_apart(path, Path(folder) / "said")
                    counts[ended] += 1
                    highest = max(highest, memory)
                    if ended not in ("opened", "refused") or memory > MOST_BYTES:
                        said = Path(folder) / "said"
                        text = said.read_text() if said.exists() else ""
                        faults.append(f"{name} {number} ({done}): {ended}, {memory / 2**20:.0f} MiB\n{text}")
        total += counts
        peak = max(peak, highest)
        print(f"{name:16} {dict(counts)}, peak {highest / 2**20:.0f} MiB", flush=True)
    print(f"{'all':16} {dict(total)}, peak {peak / 2**20:.0f} MiB")
    print("\n".join(faults))
    sys.exit(bool(faults))


def read_apart(path: Path, said: Path) -> tuple[str, int]:
    """How reading a data set in a child process ended, and the child's peak of resident memory in bytes."""
    child = os.fork()
    if not child:
        signal.alarm(SECONDS)  # kills, also in the middle of HDF5
        warnings.simplefilter("error")
        os.environ["OFFLINE_EVAL_CACHE"] = str(said.parent / "cache")
        code = TRACEBACK
        try:
            code = OPENED if read(path) else REFUSED
        except BaseException:
            said.write_text(traceback.format_exc())
        os._exit(code)
    _, status, usage = os.wait4(child, 0)
    if os.WIFSIGNALED(status):
        ended = "hung" if os.WTERMSIG(status) == signal.SIGALRM else f"killed by signal {os.WTERMSIG(status)}"
    else:
        ended = {OPENED: "opened", REFUSED: "refused"}.get(os.WEXITSTATUS(status), "traceback")
    return ended, usage.ru_maxrss * 1024


if __name__ == "__main__":
    main()
