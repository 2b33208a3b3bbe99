"""The same question with critics and actors that were learned: faults that come from the data and the training.

    python benchmarks/verdict_learned.py --seeds 100-109 --out learned.jsonl --minutes 9   # again and again: it goes on
    python benchmarks/verdict_learned.py --table learned.jsonl

The truth is known from the environments. Cells: critics of 300 and of 1000 updates ("value"); weak AWR and behaviour
cloning on data that go two ways ("extraction"); a policy that never saw the lower half of the plane, whose critic did
("generalisation"); agents without a fault ("none"). What a fault costs is known as well: beside every agent its twin is
trained, which has everything but the fault. A case counts where that costs more than 2 * 0.08 of the ladder's range.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from verdict_bench import LEAST_GAP, NAMES, PLAN, read

from offline_eval.datasets import Dataset
from offline_eval.diagnosis.diagnosis import diagnose
from offline_eval.diagnosis.rollout_search import TruthPlan
from offline_eval.policies import OfflineAlgorithm, Recipe
from offline_eval.policies.extraction import AdvantageSpread, AWRExtraction, BCExtraction, DDPGBCExtraction, Extraction
from offline_eval.policies.networks import LayerNormReLU
from offline_eval.policies.transforms import Standardize
from offline_eval.policies.values import Implicit
from offline_eval.problems import LinearQuadraticProblem, MazeProblem
from offline_eval.problems.dynamics import GAMMA
from offline_eval.problems.problem import Problem

UPDATES, POLICY_UPDATES = 10_000, 1200
BREADTH, NUM_TRAJECTORIES = 1.0, 200
LEARNED_PLAN = replace(PLAN, episodes=50, truth=TruthPlan(num_starts=50))
SEEN = 0.25  # a policy with a hole saw the trajectories that start above it


def ddpg_bc(bc_coef: float) -> DDPGBCExtraction:
    """In units of the advantage's spread."""
    return DDPGBCExtraction(bc_coef, AdvantageSpread())


def awr(inverse_temperature: float) -> AWRExtraction:
    """Likewise."""
    return AWRExtraction(inverse_temperature, scale=AdvantageSpread())


class Trained:
    """What is learned on one problem with one seed; critics are trained when they are first asked for, and kept."""

    def __init__(
        self, problem: Problem, seed: int, kept: Path, breadth: float = BREADTH, optimal: bool = False
    ) -> None:
        self.problem, self.seed, self.kept = problem, seed, kept
        self.data = problem.collect(NUM_TRAJECTORIES, breadth, seed, optimal=optimal)

    @cached_property
    def upper(self) -> Dataset:
        """The trajectories that never come below a line."""
        lowest = [float(trajectory.observations[:, 1].min()) for trajectory in self.data]
        return self.data.select(np.array(lowest) > -SEEN)

    def seen(self, cell: Cell) -> Dataset:
        """What a policy is trained on."""
        return self.upper if cell.holed else self.data

    def agent(self, cell: Cell) -> OfflineAlgorithm:
        """A policy read out of its critic."""
        critic = self.critic(cell.updates).with_extraction(cell.extraction)
        return critic.extract(self.seen(cell), POLICY_UPDATES)

    def critic(self, updates: int) -> OfflineAlgorithm:
        """IQL's value after so many updates on all of the data."""
        path = self.kept / f"{type(self.problem).__name__}-{self.seed}-{updates}.zip"
        if not path.exists():
            recipe = Recipe(Implicit(0.9), ddpg_bc(2.0), observations=Standardize())
            networks = {"net_arch": [64, 64], "activation_fn": LayerNormReLU}
            words: dict[str, Any] = {"learning_rate": 1e-3, "gamma": GAMMA, "policy_kwargs": networks}
            model = OfflineAlgorithm(recipe, seed=self.seed, device="cpu", **words)
            model.fit_value(self.data, updates).save(path)
        return OfflineAlgorithm.load(path, device="cpu")


@dataclass(frozen=True)
class Cell:
    """A way to train.

    Attributes:
        bottleneck: what a right verdict names.
        problem: "maze" or "carts".
        extraction: how the policy is read out.
        updates: of the critic.
        holed: whether the policy sees the upper trajectories only.
    """

    bottleneck: str
    problem: str
    extraction: Extraction
    updates: int = UPDATES
    holed: bool = False

    @property
    def twin(self) -> Cell:
        """The same without its fault."""
        if self.bottleneck == "extraction":
            return replace(self, extraction=ddpg_bc(2.0))
        return replace(self, updates=UPDATES, holed=False)


CELLS = {
    "critic of 300 updates": Cell("value", "maze", ddpg_bc(0.6), updates=300),
    "critic of 1000 updates": Cell("value", "maze", ddpg_bc(0.6), updates=1000),
    "behaviour cloning": Cell("extraction", "maze", BCExtraction()),
    "weak AWR": Cell("extraction", "maze", awr(1.0)),
    "hole, AWR": Cell("generalisation", "maze", awr(3.0), holed=True),
    "hole, DDPG+BC": Cell("generalisation", "maze", ddpg_bc(2.0), holed=True),
    "DDPG+BC": Cell("none", "maze", ddpg_bc(6.0)),
    "carts, BC": Cell("extraction", "carts", BCExtraction()),
    "carts, DDPG+BC": Cell("none", "carts", ddpg_bc(2.0)),
    "carts, AWR": Cell("none", "carts", awr(3.0)),
}
PROBLEMS: dict[str, Callable[[int], Problem]] = {"maze": lambda _: MazeProblem(), "carts": LinearQuadraticProblem}


def main() -> None:
    """Train and diagnose, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="100-109", help="first and last one")
    parser.add_argument("--cells", help="names, separated by semicolons (default: all)")
    parser.add_argument("--out", metavar="FILE", help="one JSON line a case; what it holds is not trained again")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no case after so many")
    parser.add_argument("--table", metavar="FILE", help="print the table of FILE, and train nothing")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(read(Path(arguments.table))))
        return
    first, last = (int(word) for word in arguments.seeds.split("-"))
    cells = arguments.cells.split(";") if arguments.cells else list(CELLS)
    run(Path(arguments.out), cells, range(first, last + 1), arguments.minutes)


def run(out: Path, cells: list[str], seeds: Iterable[int], minutes: float) -> None:
    """Do what `out` does not hold yet, one seed after the other."""
    th.set_num_threads(1)
    done = {(row["cell"], row["seed"]) for row in read(out)}
    end = time.monotonic() + 60.0 * minutes
    for seed in seeds:
        trained = {name: Trained(make(seed), seed, Path(f"{out}.critics")) for name, make in PROBLEMS.items()}
        for name in cells:
            if (name, seed) in done:
                continue
            if time.monotonic() > end:
                return
            row = diagnosed(name, CELLS[name], trained[CELLS[name].problem])
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{row['seconds']:5.1f} s  {seed} {name}: {row['named']}, gap {row['gap']:.2f}", flush=True)


def diagnosed(name: str, cell: Cell, trained: Trained) -> dict[str, Any]:
    """Train a cell and its twin, diagnose it, and hold the verdict against the cell."""
    began = time.monotonic()
    problem = trained.problem
    model, twin = trained.agent(cell), trained.agent(cell.twin)
    diagnosis = diagnose(
        model,
        problem.env(BREADTH),
        trained.seen(cell),
        critic=trained.critic(cell.updates),
        plan=LEARNED_PLAN,
        critic_dataset=trained.data if cell.holed else None,
    )
    best, sound, own = (problem.returns(who, BREADTH, gamma=1.0).mean() for who in (problem.oracle, twin, model))
    return {
        "cell": name,
        "seed": trained.seed,
        "planted": cell.bottleneck,
        "gap": float(best - own),
        "cost": float(sound - own),
        "range": diagnosis.ladder.range,
        "named": diagnosis.verdict.bottleneck,
        "sentence": diagnosis.verdict.sentence,
        "evidence": list(diagnosis.verdict.evidence),
        "rungs": {rung.name: [rung.summary.mean, str(rung.gain)] for rung in diagnosis.ladder.rungs},
        "seconds": round(time.monotonic() - began, 1),
    }


def counts(row: dict[str, Any]) -> bool:
    """Whether a row is scored: the fault is there and costs something, or the agent has none and lacks nothing."""
    least = LEAST_GAP * row["range"]
    return row["gap"] <= least if row["planted"] == "none" else row["cost"] > least


def table(rows: list[dict[str, Any]]) -> str:
    """What each cell is, against what was named."""
    lines = [
        "| cell | is | scored | gap | cost | " + " | ".join((*NAMES[:4], "cannot tell")) + " | right | wrong |",
        "|---|---|---|---|---|" + "---|" * 7,
    ]
    for name, cell in CELLS.items():
        mine = [row for row in rows if row["cell"] == name]
        if not mine:
            continue
        scored = [row for row in mine if counts(row)]
        named = Counter(row["named"] for row in scored)
        right, unknown = named[cell.bottleneck], named["unknown"]
        shares = [f"{statistics.median(row[key] / row['range'] for row in mine):.2f}" for key in ("gap", "cost")]
        cells = [name, cell.bottleneck, f"{len(scored)} of {len(mine)}", *shares]
        cells += [str(named[word]) for word in NAMES] + [str(right), str(len(scored) - right - unknown)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
