"""How long a data set of a million transitions takes to open, describe and check, in every layout.

    python benchmarks/describe_speed.py [--steps 1000000] [--repeats 3]

Seventeen observations and six actions, as HalfCheetah's. Every layout is written into a temporary folder; reading comes
from the page cache. Rates are the median over interleaved repeats, one thread.
"""

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")

import h5py
import numpy as np

from offline_eval.datasets.description import describe
from offline_eval.datasets.doctor import check
from offline_eval.datasets.opening import open_dataset, save_dataset


def synthetic(steps: int) -> dict[str, np.ndarray]:
    """Flat rows of trajectories of 1000 steps: a slow walk, and a reward that depends on it."""
    generator = np.random.default_rng(0)
    actions = np.tanh(generator.standard_normal((steps, 6), dtype=np.float32))
    observations = generator.standard_normal((steps + 1, 17), dtype=np.float32)
    observations[1:, :6] += 0.5 * actions
    timeouts = np.zeros(steps, bool)
    timeouts[999::1000] = True
    following = observations[1:].copy()
    following[timeouts] += np.float32(0.1)  # not the next episode's first observation
    return {
        "observations": observations[:-1],
        "next_observations": following,
        "actions": actions,
        "rewards": observations[:-1, 0] - 0.1 * np.square(actions).sum(axis=1),
        "terminals": np.zeros(steps, bool),
        "timeouts": timeouts,
    }


def write_layouts(folder: Path, steps: int) -> dict[str, Path]:
    rows = synthetic(steps)
    options = {
        "d4rl, contiguous": {},
        "d4rl, gzip": {"compression": "gzip", "compression_opts": 4},
        "d4rl, no next": {},
    }
    paths = {}
    for name, settings in options.items():
        paths[name] = folder / f"{name.replace(', ', '-').replace(' ', '-')}.hdf5"
        with h5py.File(paths[name], "w") as file:
            for key, array in rows.items():
                if key != "next_observations" or name != "d4rl, no next":
                    chunks = (1024, *array.shape[1:]) if settings else None
                    file.create_dataset(key, data=array, chunks=chunks, **settings)
    dataset = open_dataset(paths["d4rl, contiguous"])
    for layout in ("minari", "packed"):
        paths[layout] = save_dataset(dataset, folder / f"data-{layout}-v0", layout)
    return paths


def seconds(function, *arguments) -> tuple[float, object]:
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = write_layouts(Path(folder), arguments.steps)
        paths["memory-mapped"] = paths["packed"]
        times: dict[str, list[tuple[float, ...]]] = {name: [] for name in paths}
        for _ in range(arguments.repeats):
            for name, path in paths.items():
                limit = 0 if name == "memory-mapped" else 2**40
                opening, dataset = seconds(lambda path=path, limit=limit: open_dataset(path, memory_limit=limit))
                description, _ = seconds(describe, dataset)
                checking, findings = seconds(check, path)
                assert findings == (), findings
                times[name].append((opening, description, checking))
        print(f"{arguments.steps:,} transitions, seconds, median of {arguments.repeats}")
        print(f"{'layout':18} {'open':>8} {'describe':>9} {'check':>8}")
        for name, measured in times.items():
            opening, description, checking = (median(column) for column in zip(*measured, strict=True))
            print(f"{name:18} {opening:8.2f} {description:9.2f} {checking:8.2f}")
        print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB")


if __name__ == "__main__":
    main()
