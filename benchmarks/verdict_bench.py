"""Does `diagnose` name the faults that were planted? Known answers, many seeds, confusion tables in Markdown.

    python benchmarks/verdict_bench.py --seeds 100-119 --out bench.jsonl --minutes 9   # again and again: it goes on
    python benchmarks/verdict_bench.py --table bench.jsonl
    python benchmarks/verdict_bench.py --judge bench.jsonl              # the present rule on the ladders that are kept

A case counts where its true gap (the best policy's mean return minus the agent's, on 400 episodes) exceeds 2 * 0.08 of
the ladder's range. Healthy cases always count.
"""

from __future__ import annotations

import argparse
import json
import pickle
import statistics
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch as th

from offline_eval.diagnosis.diagnosis import diagnose
from offline_eval.diagnosis.plan import DiagnosisPlan, Extractions
from offline_eval.diagnosis.rollout_search import TruthPlan
from offline_eval.diagnosis.verdict import Asked, verdict_of
from offline_eval.problems import FAULTS, Case, LinearQuadraticProblem, MazeProblem, plant

LEAST_GAP = 0.16
NAMES = ("value", "extraction", "generalisation", "none", "unknown")
PROBLEMS = {"maze": lambda seed: MazeProblem(), "carts": LinearQuadraticProblem}
PLAN = DiagnosisPlan(
    measure=None,
    extractions=Extractions(gradient_steps=0),
    learning_rates=(),
    workers=1,
    n_envs=32,
    episodes=32,
    selection_episodes=16,
    num_near=(12,),
    step_sizes=(0.0, 0.1, 0.4),
    num_steps=2,
    max_states=4000,
    truth=TruthPlan(num_starts=32),
)
"""Fewer choices than by default, nothing measured beside the ladder: a few seconds of a core a case."""


def main() -> None:
    """Play, judge again, or print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="100-119", help="first and last one")
    parser.add_argument("--problem", choices=[*PROBLEMS, "both"], default="both")
    parser.add_argument("--faults", help="names, separated by semicolons (default: all)")
    parser.add_argument("--out", metavar="FILE", help="one JSON line a case; what it holds is not played again")
    parser.add_argument("--episodes", type=int, default=PLAN.episodes, help="of every rung (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no case after so many")
    parser.add_argument("--table", metavar="FILE", help="print the tables of FILE, and play nothing")
    parser.add_argument("--judge", metavar="FILE", help="the same with the present rule, from FILE.ladders")
    arguments = parser.parse_args()
    if arguments.table or arguments.judge:
        rows = read(Path(arguments.table or arguments.judge))
        if arguments.judge:
            rows = [judged(row, Path(f"{arguments.judge}.ladders")) for row in rows]
        print(tables(rows))
        return
    first, last = (int(word) for word in arguments.seeds.split("-"))
    faults = arguments.faults.split(";") if arguments.faults else list(FAULTS)
    problems = list(PROBLEMS) if arguments.problem == "both" else [arguments.problem]
    plan = replace(PLAN, episodes=arguments.episodes, truth=TruthPlan(num_starts=arguments.episodes))
    play_all(Path(arguments.out), problems, faults, range(first, last + 1), plan, arguments.minutes)


def play_all(
    out: Path, problems: list[str], faults: list[str], seeds: Iterable[int], plan: DiagnosisPlan, minutes: float
) -> None:
    """Play what `out` does not hold yet, one seed after the other."""
    th.set_num_threads(1)
    done = {(row["problem"], row["fault"], row["seed"]) for row in read(out)}
    end = time.monotonic() + 60.0 * minutes
    for seed in seeds:
        for problem in problems:
            for fault in faults:
                if (problem, fault, seed) in done:
                    continue
                if time.monotonic() > end:
                    return
                row = play(problem, fault, seed, plan, Path(f"{out}.ladders"))
                with out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                print(f"{row['seconds']:5.1f} s  {problem} {seed} {fault}: {row['named']}", flush=True)


def play(problem: str, fault: str, seed: int, plan: DiagnosisPlan, ladders: Path) -> dict[str, Any]:
    """Plant, diagnose, and hold the verdict against what was planted."""
    began = time.monotonic()
    case: Case = plant(PROBLEMS[problem](seed), fault, seed)
    diagnosis = diagnose(case.policy, case.env, case.dataset, critic=case.critic, plan=plan)
    ladders.mkdir(parents=True, exist_ok=True)
    kept = pickle.dumps((diagnosis.ladder, diagnosis.measurement))
    (ladders / f"{problem}-{fault}-{seed}.pickle").write_bytes(kept)
    ladder = diagnosis.to_json()
    return {
        "problem": problem,
        "fault": fault,
        "seed": seed,
        "episodes": plan.episodes,
        "planted": list(case.bottlenecks),
        "gap": case.gap,
        "range": diagnosis.ladder.range,
        "named": diagnosis.verdict.bottleneck,
        "sentence": diagnosis.verdict.sentence,
        "evidence": list(diagnosis.verdict.evidence),
        "rungs": {rung["rung"]: [rung["summary"]["mean"], rung["gain"]] for rung in ladder["ladder"]},
        "seconds": round(time.monotonic() - began, 1),
    }


def judged(row: Mapping[str, Any], ladders: Path) -> dict[str, Any]:
    """A row with the verdict that the present rule gives to its ladder."""
    path = ladders / f"{row['problem']}-{row['fault']}-{row['seed']}.pickle"
    ladder, measurement = pickle.loads(path.read_bytes())  # written by this script
    verdict = verdict_of(ladder, measurement, Asked())
    named = {"named": verdict.bottleneck, "sentence": verdict.sentence, "evidence": list(verdict.evidence)}
    return {**row, **named, "range": ladder.range}


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, one a case; none where there is no file."""
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return list({(row.get("problem"), row.get("fault") or row.get("cell"), row["seed"]): row for row in rows}.values())


def counts(row: Mapping[str, Any]) -> bool:
    """Whether a row is scored."""
    costly = row["gap"] > LEAST_GAP * row["range"]
    return costly if row["planted"] else not costly


def outcome(row: Mapping[str, Any]) -> str:
    """Right, wrong or "cannot tell"."""
    if row["named"] == "unknown":
        return "cannot tell"
    return "right" if row["named"] in (row["planted"] or ["none"]) else "wrong"


def tables(rows: list[dict[str, Any]]) -> str:
    """One confusion table a problem; `tables` of no rows are empty."""
    return "\n\n".join(table(problem, [row for row in rows if row["problem"] == problem]) for problem in PROBLEMS)


def table(problem: str, rows: list[dict[str, Any]]) -> str:
    """What was planted against what was named."""
    seeds = sorted({row["seed"] for row in rows})
    if not seeds:
        return ""
    lines = [
        f"**{problem}**, seeds {seeds[0]} to {seeds[-1]}, median {statistics.median(r['seconds'] for r in rows):.0f} s",
        "",
        "| planted | scored | gap | " + " | ".join((*NAMES[:3], "none", "cannot tell")) + " | right | wrong |",
        "|---|---|---|" + "---|" * 7,
    ]
    totals: Counter[str] = Counter()
    for fault in FAULTS:
        mine = [row for row in rows if row["fault"] == fault]
        if not mine:
            continue
        scored = [row for row in mine if counts(row)]
        named = Counter(row["named"] for row in scored)
        outcomes = Counter(map(outcome, scored))
        totals += outcomes
        gap = statistics.median(row["gap"] / row["range"] for row in mine)
        cells = [fault, f"{len(scored)} of {len(mine)}", f"{gap:.2f}", *(str(named[name]) for name in NAMES)]
        lines.append("| " + " | ".join([*cells, str(outcomes["right"]), str(outcomes["wrong"])]) + " |")
    total = sum(totals.values())
    lines.append(
        f"\nOf {total} scored: {totals['right']} right, {totals['cannot tell']} cannot tell, {totals['wrong']} wrong."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
