"""Distances of visited to training states: `coverage` as a whole, and a k-d tree beside its search.

    python benchmarks/coverage_speed.py [--training 1000000] [--visited 10000] [--dimensions 17]

Two kinds of states: all dimensions independent, the worst case, and four of them moving the rest. The tree answers a
sample of the queries on one core, and its time is extrapolated.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from scipy.spatial import cKDTree

from offline_eval.diagnostics.coverage import States, Support, coverage

TREE_QUERIES, STEPS = 100, 100


def independent(generator: np.random.Generator, num_states: int, dimensions: int) -> np.ndarray:
    return generator.standard_normal((num_states, dimensions))


def dependent(generator: np.random.Generator, num_states: int, dimensions: int) -> np.ndarray:
    weights = np.random.default_rng(1).standard_normal((4, dimensions))
    noise = generator.standard_normal((num_states, dimensions))
    return np.tanh(generator.standard_normal((num_states, 4)) @ weights) + 0.02 * noise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--training", type=int, default=1_000_000)
    parser.add_argument("--visited", type=int, default=10_000)
    parser.add_argument("--dimensions", type=int, default=17)
    options = parser.parse_args()

    for draw in (independent, dependent):
        generator = np.random.default_rng(0)
        training = draw(generator, options.training, options.dimensions)
        rows = np.arange(options.visited)
        validation, visited = (
            States(draw(generator, options.visited, options.dimensions), rows // STEPS, rows % STEPS) for _ in range(2)
        )
        start = time.perf_counter()
        support = Support(training, validation, generator)
        built = time.perf_counter()
        result = coverage(support, visited, generator)
        end = time.perf_counter()
        print(
            f"{draw.__name__}: support with {options.visited} validation states {built - start:.1f} s, "
            f"coverage of {options.visited} visited states {end - built:.1f} s, together {end - start:.1f} s"
        )

        points = (training - support.centre) / support.scale
        queries = ((visited.observations - support.centre) / support.scale)[:TREE_QUERIES]
        start = time.perf_counter()
        tree = cKDTree(points)
        built = time.perf_counter()
        exact, _ = tree.query(queries)
        answered = (time.perf_counter() - built) * options.visited / len(queries)
        difference = np.abs(exact - result.visited_distances[: len(queries)]).max()
        print(
            f"  k-d tree: built in {built - start:.1f} s, the same visited states in {answered:.1f} s (extrapolated); "
            f"distances differ by at most {difference:.1e}"
        )


if __name__ == "__main__":
    main()
