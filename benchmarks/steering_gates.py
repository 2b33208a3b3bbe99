"""What a gate keeps and what it lets through, over many splits of a study's episodes.

    python benchmarks/steering_gates.py STUDY_FOLDER [--splits 300]

A study (`offline-eval study steering`) played every candidate and control on selection and on fresh seeds. Here all
those episodes are one pool: 10 of them choose, the others score, and the split is drawn again and again. One trial may
be lucky; this is what it does on average.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from offline_eval.steering.scores import agent_range
from offline_eval.steering.selection import Gate, choose
from offline_eval.steering.steering import PLAIN
from offline_eval.steering.study import PairResult

GATES = {
    "best mean, if > 0": Gate(level=0.999, control_t=0.0),
    "t > 1, leads the control": Gate(level=0.34, control_t=0.0),
    "5 %, leads the control": Gate(level=0.05, control_t=0.0),
    "5 %, lead of 1 error (default)": Gate(),
    "5 %, lead of 2 errors": Gate(level=0.05, control_t=2.0),
    "1 %, lead of 1 error": Gate(level=0.01, control_t=1.0),
}


def pooled(result: PairResult) -> dict[str, np.ndarray]:
    """All episodes of what was played on both plans, by name."""
    return {played.name: np.array(played.selection + played.fresh) for played in result.played if played.selection}


def outcome(result: PairResult, gate: Gate, num_chosen: int, splits: int) -> tuple[float, float, float, float]:
    """What a gate does to one agent, over many splits.

    Returns:
        Mean gain of auto and gain of the best fixed candidate, as shares of (plain - chance); the share of splits with
        a winner; the share of splits in which auto lost more than 1 % of (plain - chance).
    """
    returns, span = pooled(result), agent_range(result)
    candidates = [played.name for played in result.kind("candidate")]
    controls = [played.name for played in result.kind("control")]
    plain = returns[PLAIN]
    best = max(float(np.nanmean(returns[name] - plain)) for name in candidates)
    generator, gains, won = np.random.default_rng(0), [], 0
    for _ in range(splits):
        order = generator.permutation(len(plain))
        trial, rest = order[:num_chosen], order[num_chosen:]
        picked = choose(
            plain[trial],
            {name: returns[name][trial] for name in candidates},
            {name: returns[name][trial] for name in controls},
            gate,
        ).winner
        won += picked is not None
        gains.append(0.0 if picked is None else float(np.nanmean(returns[picked][rest] - plain[rest])))
    shares = np.array(gains) / span
    return float(shares.mean()), best / span, won / splits, float((shares < -0.01).mean())


def main() -> None:
    """Print a line a gate and agent."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, metavar="STUDY_FOLDER")
    parser.add_argument("--splits", type=int, default=300)
    parser.add_argument("--selection-episodes", type=int, default=10)
    arguments = parser.parse_args()
    results = []
    for manifest in sorted(arguments.study.glob("*/manifest.json")):
        found = json.loads(manifest.read_text())
        if found.get("finished"):
            result = PairResult.of_json(found["result"])
            if agent_range(result) > 0:  # gains are shares of it
                results.append(result)
    print(f"{len(results)} agents, {arguments.splits} splits; gains in % of (plain - chance)")
    print(f"{'gate':32}{'agent':38}{'auto':>8}{'best':>8}{'won':>7}{'lost > 1 %':>12}")
    for name, gate in GATES.items():
        for result in results:
            auto, best, won, lost = outcome(result, gate, arguments.selection_episodes, arguments.splits)
            row = f"{100 * auto:8.1f}{100 * best:8.1f}{won:7.0%}{lost:12.0%}"
            print(f"{name:32}{result.pair['name']:38}{row}")


if __name__ == "__main__":
    main()
