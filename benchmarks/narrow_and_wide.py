"""Data from a spot and from everywhere, good and poor, as many of each: what do agents trained on them lack?

    python benchmarks/narrow_and_wide.py --seeds 0-2 --out narrow.jsonl      # again and again: it goes on
    python benchmarks/narrow_and_wide.py --table narrow.jsonl

The two-mode maze, 200 episodes of 100 steps, by the problem's two-mode behaviour ("poor") or by the optimal policy with
as much noise ("good"); IQL's value (10,000 updates), and from it a clone, AWR and DDPG+BC (1200 each), as in
`verdict_learned.py`. All are diagnosed where starts are wide; their squared error is against the optimal actions.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch as th
from verdict_bench import PLAN
from verdict_learned import UPDATES, Cell, Trained, awr, ddpg_bc

from offline_eval.diagnosis import diagnose
from offline_eval.measurement.action_rank import ActionTrial
from offline_eval.measurement.plan import MeasurementPlan
from offline_eval.policies.extraction import BCExtraction, Extraction
from offline_eval.problems import MazeProblem

DATA: dict[str, dict[str, Any]] = {
    "narrow, poor": {"breadth": 0.0},
    "narrow, good": {"breadth": 0.0, "optimal": True},
    "wide, poor": {"breadth": 1.0},
}
EXTRACTIONS: dict[str, Extraction] = {"bc": BCExtraction(), "iql": awr(3.0), "iql_ddpg_bc": ddpg_bc(2.0)}
TRIAL = ActionTrial(num_states=10, num_rollouts=2, num_each=1, longest=50)
MEASURED = replace(PLAN, measure=MeasurementPlan(longest=50, ceiling_windows=4, num_states=1000, trial=TRIAL))


def main() -> None:
    """Train and diagnose, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0-2", help="first and last one")
    parser.add_argument("--out", metavar="FILE", help="one JSON line a case; what it holds is not trained again")
    parser.add_argument("--table", metavar="FILE", help="print the table of FILE, and train nothing")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(read(Path(arguments.table))))
        return
    th.set_num_threads(1)
    out = Path(arguments.out)
    done = {(row["data"], row["agent"], row["seed"]) for row in read(out)}
    first, last = (int(word) for word in arguments.seeds.split("-"))
    for seed in range(first, last + 1):
        for data, words in DATA.items():
            collected = Trained(MazeProblem(), seed, Path(f"{out}.critics") / data, **words)
            for agent, extraction in EXTRACTIONS.items():
                if (data, agent, seed) not in done:
                    row = {"data": data, "agent": agent, "seed": seed, **diagnosed(collected, extraction)}
                    with out.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file; none where there is no file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def diagnosed(collected: Trained, extraction: Extraction) -> dict[str, Any]:
    """Train and diagnose where starts are wide."""
    problem, critic = collected.problem, collected.critic(UPDATES)
    model = collected.agent(Cell("", "maze", extraction))
    found = diagnose(
        model, problem.env(1.0), collected.data, critic=critic, oracle=problem.oracle, plan=MEASURED
    ).to_json()
    errors = {name: found["policy_error"][name]["mse"] for name in ("train", "validation", "evaluation")}
    return {
        "data_return": float(collected.data.returns.mean()),
        "return": found["performance"]["summary"]["mean"],
        **errors,
        "verdict": found["verdict"]["bottleneck"],
        "shares": {name: share["estimate"] for name, share in found["verdict"]["shares"].items()},
        "outside": found["ladder_range"]["share_outside"],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Means over the seeds, and what was named how often."""
    names = ("data_return", "return", "train", "validation", "evaluation", "outside")
    lines = [
        "| data | agent | data's return | return | MSE training | validation | visited | outside | named |",
        "|" + "---|" * 9,
    ]
    for data in DATA:
        for agent in EXTRACTIONS:
            part = [row for row in rows if (row["data"], row["agent"]) == (data, agent)]
            if part:
                cells = [f"{statistics.mean(row[name] for row in part):.2f}" for name in names]
                named = Counter(row["verdict"] for row in part)
                words = ", ".join(f"{name} {count}" for name, count in named.items())
                lines.append(f"| {data} | {agent} | {' | '.join(cells)} | {words} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
