"""AWR, DDPG+BC and SfBC from one frozen IQL critic, side by side, tuned on selection seeds and reported on fresh ones.

    python benchmarks/extraction_order.py DATA --env Pendulum-v1 --net-arch 64,64 [--value-steps 10000]
        [--policy-steps 5000] [--selection 0,1,2] [--fresh 3,4,5] [--episodes 50] [--critics FILE ...]

A training seed is a critic, and every policy of that seed is read out of it. Selection: critics and policies of the
seeds `--selection`, episodes from seed 20,000; the best coefficient of each extraction is that of the highest mean.
Report: critics and policies of the seeds `--fresh`, episodes from seed 30,000. `--critics` takes models that
`train iql` made, one a seed, in place of critics trained here. The advantage and Q are divided by the advantage's
spread, so that one grid suits every environment; behaviour cloning is the row that uses no critic.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch as th

from offline_eval.cli.arguments import numbers
from offline_eval.datasets import open_dataset
from offline_eval.datasets.trajectories import Dataset
from offline_eval.episodes import EpisodePlan, evaluate
from offline_eval.policies import spaces_of
from offline_eval.policies.actors import Deterministic, Gaussian, StateGaussian
from offline_eval.policies.algorithm import OfflineAlgorithm
from offline_eval.policies.extraction import (
    AdvantageSpread,
    AWRExtraction,
    BCExtraction,
    BestOfNExtraction,
    DDPGBCExtraction,
    Extraction,
)
from offline_eval.policies.recipes import Cosine, Recipe
from offline_eval.policies.values import Implicit
from offline_eval.report.tables import columns, interval, number
from offline_eval.stats import mean_interval

SELECTION_EPISODES, FRESH_EPISODES = 20_000, 30_000
GRIDS: dict[str, dict[float, Extraction]] = {
    "AWR": {t: AWRExtraction(inverse_temperature=t, scale=AdvantageSpread()) for t in (0.1, 0.3, 1.0, 3.0)},
    "DDPG+BC": {c: DDPGBCExtraction(bc_coef=c, scale=AdvantageSpread()) for c in (1.0, 3.0, 10.0, 30.0)},
    "SfBC": {n: BestOfNExtraction(int(n)) for n in (2, 4, 16, 64)},
    "BC": {0.0: BCExtraction()},
}
ACTORS = {"AWR": Gaussian(), "DDPG+BC": Deterministic(), "SfBC": StateGaussian(), "BC": Deterministic()}


def critic(seed: int, dataset: Dataset, arguments: argparse.Namespace) -> OfflineAlgorithm:
    """An IQL value: opened, or trained here."""
    if arguments.critics:
        return OfflineAlgorithm.load(arguments.critics[seed], device="cpu")
    net_arch = numbers(arguments.net_arch, int, "--net-arch")
    recipe = Recipe(Implicit(0.7), BCExtraction(), actor_schedule=Cosine())
    model = OfflineAlgorithm(recipe, seed=seed, policy_kwargs={"net_arch": net_arch}, device="cpu")
    return model.fit_value(dataset, arguments.value_steps)


def policies(
    value: OfflineAlgorithm, name: str, chosen: list[float], dataset: Dataset, steps: int
) -> Iterator[tuple[float, OfflineAlgorithm]]:
    """A policy for every coefficient; those of SfBC differ only in how they act, so that one clone serves them all."""
    grid = GRIDS[name]
    clone: io.BytesIO | None = None
    for coefficient in chosen:
        if clone is not None:
            recipe = replace(value.recipe, extraction=grid[coefficient], actor=ACTORS[name])
            clone.seek(0)
            yield coefficient, OfflineAlgorithm.load(clone, recipe=recipe, device="cpu")
            continue
        policy = value.with_extraction(grid[coefficient], ACTORS[name]).extract(dataset, steps)
        if name == "SfBC":
            clone = io.BytesIO()
            policy.save(clone)
        yield coefficient, policy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--env", required=True)
    parser.add_argument("--net-arch", default="256,256")
    parser.add_argument("--value-steps", type=int, default=10_000)
    parser.add_argument("--policy-steps", type=int, default=5_000)
    parser.add_argument("--selection", default="0,1,2")
    parser.add_argument("--fresh", default="3,4,5")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--critics", nargs="*", default=[], metavar="FILE")
    parser.add_argument("--json", metavar="FILE", help="receives every mean return")
    arguments = parser.parse_args()
    th.set_num_threads(1)
    observation_space, action_space = spaces_of(arguments.env)
    dataset = open_dataset(arguments.dataset, observation_space=observation_space, action_space=action_space)

    def mean_returns(seeds: str, first: int, wanted: dict[str, list[float]]) -> dict[str, dict[float, list[float]]]:
        found: dict[str, dict[float, list[float]]] = {name: {} for name in wanted}
        plan = EpisodePlan.seeded(arguments.episodes, first)
        for seed in numbers(seeds, int, "--selection"):
            value = critic(seed, dataset, arguments)
            for name, chosen in wanted.items():
                for coefficient, policy in policies(value, name, chosen, dataset, arguments.policy_steps):
                    returns = [episode.episode_return for episode in evaluate(policy, arguments.env, plan).episodes]
                    found[name].setdefault(coefficient, []).append(float(np.mean(returns)))
                    print(f"seed {seed} {name} {coefficient:g}: {found[name][coefficient][-1]:.1f}", flush=True)
        return found

    selection = mean_returns(
        arguments.selection, SELECTION_EPISODES, {name: list(grid) for name, grid in GRIDS.items()}
    )
    best = {name: max(table, key=lambda c: np.mean(table[c])) for name, table in selection.items()}
    fresh = mean_returns(arguments.fresh, FRESH_EPISODES, {name: [c] for name, c in best.items()})
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({"selection": selection, "best": best, "fresh": fresh}, indent=1))

    final = {name: fresh[name][best[name]] for name in best}
    print("\nselection: mean return by coefficient")
    for name, table in selection.items():
        print(f"  {name:8s}", "  ".join(f"{c:g}: {np.mean(values):.1f}" for c, values in table.items()))
    rows = [("fresh", "coefficient", "mean return", "interval over seeds", "minus AWR")]
    for name, means in final.items():
        # Both stand on the same critic and play the same episodes: the differences are paired by seed.
        gains = np.subtract(means, final["AWR"])
        beside = "" if name == "AWR" else f"{number(float(gains.mean()))} {interval(mean_interval(gains))}"
        mean = number(float(np.mean(means)))
        rows.append((name, f"{best[name]:g}", mean, interval(mean_interval(means)), beside))
    print("\n".join(["", *columns(rows, "<>>>>")]))


if __name__ == "__main__":
    main()
