"""What d3rlpy's IQL and TD3+BC reach on the data, networks and steps that ours had, by the same `evaluate`.

    offline-eval train iql --dataset DATA --env ID --gradient-steps 20000 --seeds 3 --eval-seed 1000 --out runs/iql
    python benchmarks/d3rlpy_comparison.py DATA --env ID --ours iql=runs/iql td3_bc=runs/td3_bc \
        [--seeds 0,1,2] [--gradient-steps 20000] [--episodes 20] [--seed 1000] [--out d3rlpy]

d3rlpy lives in an environment of its own, in which this package is installed too; without it there is nothing to do.
Both have their own defaults, which are those of the papers; d3rlpy's IQL gets the cosine decay of the actor's learning
rate that the paper and our recipe have. A finished run leaves a file in `--out` and is not repeated.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch as th

from offline_eval.cli.arguments import numbers
from offline_eval.cli.run import evaluation_json
from offline_eval.datasets import open_dataset
from offline_eval.datasets.trajectories import Dataset
from offline_eval.episodes import EpisodePlan, evaluate
from offline_eval.policies import spaces_of
from offline_eval.report.tables import columns, interval, number
from offline_eval.stats import compare_seeds, mean_interval

NAMES = {"iql": "IQL", "td3_bc": "TD3PlusBC"}


class Plays:
    """A d3rlpy algorithm as something that `evaluate` takes."""

    def __init__(self, algorithm: Any) -> None:
        self._algorithm = algorithm

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, None]:
        """The mean action, in the environment's units."""
        return self._algorithm.predict(np.asarray(observation, np.float32)), None


def config(d3rlpy: Any, name: str, net_arch: list[int], gradient_steps: int, dataset: Dataset) -> Any:
    encoder = d3rlpy.models.VectorEncoderFactory(net_arch)
    box = dataset.action_space
    words = {
        "batch_size": 256,
        "actor_encoder_factory": encoder,
        "critic_encoder_factory": encoder,
        "action_scaler": d3rlpy.preprocessing.MinMaxActionScaler(minimum=box.low, maximum=box.high),
    }
    if name == "td3_bc":
        observations = dataset.step_observations
        scaler = d3rlpy.preprocessing.StandardObservationScaler(observations.mean(0), observations.std(0), eps=1e-3)
        return d3rlpy.algos.TD3PlusBCConfig(**words, observation_scaler=scaler)
    cosine = d3rlpy.optimizers.CosineAnnealingLRFactory(T_max=gradient_steps)
    adam = d3rlpy.optimizers.AdamFactory(lr_scheduler_factory=cosine)
    return d3rlpy.algos.IQLConfig(**words, value_encoder_factory=encoder, actor_optim_factory=adam)


def run(d3rlpy: Any, name: str, seed: int, dataset: Dataset, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train one seed and play the episodes."""
    d3rlpy.seed(seed)
    # Their data sets drop the last transition of a trajectory that was cut, as it has no next observation there.
    data = d3rlpy.dataset.MDPDataset(
        dataset.step_observations, dataset.actions, dataset.rewards, dataset.terminated.astype(np.float32),
        timeouts=dataset.truncated.astype(np.float32), action_space=d3rlpy.ActionSpace.CONTINUOUS,
    )  # fmt: skip
    net_arch = numbers(arguments.net_arch, int, "--net-arch")
    algorithm = config(d3rlpy, name, net_arch, arguments.gradient_steps, dataset).create(device="cpu:0")
    algorithm.create_impl(dataset.observation_space.shape, int(np.prod(dataset.action_space.shape)))
    since = time.process_time()
    for _ in range(arguments.gradient_steps):
        algorithm.update(data.sample_transition_batch(algorithm.batch_size))
    rate = arguments.gradient_steps / (time.process_time() - since)
    plan = EpisodePlan.seeded(arguments.episodes, arguments.seed)
    evaluation = evaluate(Plays(algorithm), arguments.env, plan)
    return {"seed": seed, "gradient_steps_per_cpu_second": rate, "evaluation": evaluation_json(evaluation)}


def returns_of(runs: list[dict[str, Any]], asked: EpisodePlan) -> list[list[float]]:
    """Of every training seed the returns, which must be those of the planned episodes."""
    for one in runs:
        seeds = [episode["seed"] for episode in one["evaluation"]["episodes"]]
        if seeds != [entry.seed for entry in asked]:
            raise SystemExit(f"seed {one['seed']} played other episodes: seeds {seeds[0]} to {seeds[-1]}")
    return [[episode["return"] for episode in one["evaluation"]["episodes"]] for one in runs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--env", required=True)
    parser.add_argument("--algorithms", nargs="+", default=list(NAMES), choices=NAMES)
    parser.add_argument("--ours", nargs="*", default=[], metavar="RECIPE=DIR", help="folders that `train` made")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--gradient-steps", type=int, default=20_000)
    parser.add_argument("--net-arch", default="256,256")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1000, help="of the first episode")
    parser.add_argument("--out", default="d3rlpy")
    arguments = parser.parse_args()
    try:
        import d3rlpy
    except ImportError:
        print("d3rlpy is not installed here: nothing to compare with (give it an environment of its own)")
        return
    d3rlpy.logging.LOG.disabled = True
    th.set_num_threads(1)
    out, plan = Path(arguments.out), EpisodePlan.seeded(arguments.episodes, arguments.seed)
    out.mkdir(parents=True, exist_ok=True)
    observation_space, action_space = spaces_of(arguments.env)
    dataset = open_dataset(arguments.dataset, observation_space=observation_space, action_space=action_space)
    ours = dict(word.split("=", 1) for word in arguments.ours)

    rows = [("", "mean", "interval over seeds", "ours minus theirs", "steps/CPU-s")]
    for name in arguments.algorithms:
        runs = []
        for seed in numbers(arguments.seeds, int, "--seeds"):
            file = out / f"{name}_{seed}.json"
            if not file.exists():
                file.write_text(json.dumps(run(d3rlpy, name, seed, dataset, arguments)))
            runs.append(json.loads(file.read_text()))
        theirs = returns_of(runs, plan)
        means = [float(np.mean(values)) for values in theirs]
        rate = float(np.median([one["gradient_steps_per_cpu_second"] for one in runs]))
        row = [f"d3rlpy {NAMES[name]}", number(float(np.mean(means))), interval(mean_interval(means)), "", number(rate)]
        if name in ours:
            found = json.loads((Path(ours[name]) / "result.json").read_text())["runs"]
            difference = compare_seeds(returns_of(found, plan), theirs)
            own = list(difference.a_means)
            rows.append((f"our {name}", number(float(np.mean(own))), interval(mean_interval(own)), "", ""))
            row[3] = f"{number(difference.mean_difference)} {interval(difference.ci95)}"
        rows.append(tuple(row))
    print("\n".join(columns(rows, "<>>>>")))


if __name__ == "__main__":
    main()
