"""Gradient steps per CPU-second of IQL and TD3+BC beside SB3's own TD3 and, where it is installed, d3rlpy; interleaved.

    python benchmarks/training_speed.py [--rounds 5] [--seconds 6] [--rows 200000] [--device cpu]

One thread, batch 256, two layers of 256, observations of 17 and actions of 6 numbers, as HalfCheetah has them. Every
round gives each contender one window of CPU time, in turn; a ratio is taken within its round. Sampling is in every
number; `fit` is timed with everything that belongs to it (logging, watching for NaN), d3rlpy without its epochs. On a
CUDA device, wall time is measured, and SB3's and d3rlpy's are left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3 import TD3
from stable_baselines3.common.logger import configure

from offline_eval.datasets.arrays import from_arrays
from offline_eval.datasets.trajectories import Dataset
from offline_eval.policies.algorithm import OfflineAlgorithm
from offline_eval.policies.online import stub_environment

OBSERVATION_DIM, ACTION_DIM, BATCH, NET_ARCH = 17, 6, 256, [256, 256]
Window = Callable[[float], float]
"""Trains for some seconds and returns steps per second."""


def synthetic_data(rows: int) -> Dataset:
    """Gaussian observations and rewards, uniform actions, episodes of 1000 steps that a time limit cuts."""
    rng = np.random.default_rng(0)
    observations = rng.standard_normal((rows + 1, OBSERVATION_DIM), np.float32)
    return from_arrays(
        observations[:-1],
        rng.uniform(-1, 1, (rows, ACTION_DIM)).astype(np.float32),
        rng.standard_normal(rows, np.float32),
        np.zeros(rows, bool),
        np.arange(1, rows + 1) % 1000 == 0,
        observations[1:],
        observation_space=spaces.Box(-np.inf, np.inf, (OBSERVATION_DIM,), np.float32),
        action_space=spaces.Box(-1.0, 1.0, (ACTION_DIM,), np.float32),
    )


def ours(recipe: str, dataset: Dataset, device: str, clock: Callable[[], float]) -> Window:
    model = OfflineAlgorithm(recipe, batch_size=BATCH, policy_kwargs={"net_arch": NET_ARCH}, seed=0, device=device)
    model.fit(dataset, 50)

    def window(seconds: float) -> float:
        start = clock()
        model.fit(dataset, 10**9, callback=lambda *_: clock() - start < seconds)
        return model.num_timesteps / (clock() - start)

    return window


def sb3_td3(dataset: Dataset, clock: Callable[[], float]) -> Window:
    env = stub_environment(dataset.observation_space, dataset.action_space)
    model = TD3(
        "MlpPolicy", env, buffer_size=dataset.num_transitions, batch_size=BATCH,
        policy_kwargs={"net_arch": NET_ARCH}, learning_rate=3e-4, seed=0, device="cpu",
    )  # fmt: skip
    model.set_logger(configure(None, []))
    rows, buffer = dataset.transitions(), model.replay_buffer
    for name in ("observations", "next_observations", "actions", "rewards"):
        into = getattr(buffer, name)
        into[:] = getattr(rows, name).reshape(into.shape)
    buffer.full = True
    model.train(50, BATCH)

    def window(seconds: float) -> float:
        start, steps = clock(), 0
        while clock() - start < seconds:
            model.train(50, BATCH)
            steps += 50
        return steps / (clock() - start)

    return window


def d3rlpy_windows(dataset: Dataset, clock: Callable[[], float]) -> dict[str, Window]:
    try:
        import d3rlpy
    except ImportError:
        return {}
    d3rlpy.logging.LOG.disabled = True
    rows = dataset.transitions()
    episodes = d3rlpy.dataset.MDPDataset(
        rows.observations,
        rows.actions,
        rows.rewards,
        np.zeros(len(rows)),
        timeouts=dataset.truncated.astype(np.float32),
    )
    buffer = d3rlpy.dataset.ReplayBuffer(
        d3rlpy.dataset.InfiniteBuffer(), episodes=episodes.episodes, action_space=d3rlpy.ActionSpace.CONTINUOUS
    )
    encoder = d3rlpy.models.VectorEncoderFactory(NET_ARCH)
    configs = {
        "d3rlpy IQL": d3rlpy.algos.IQLConfig(
            batch_size=BATCH, actor_encoder_factory=encoder, critic_encoder_factory=encoder,
            value_encoder_factory=encoder,
        ),
        "d3rlpy TD3+BC": d3rlpy.algos.TD3PlusBCConfig(
            batch_size=BATCH, actor_encoder_factory=encoder, critic_encoder_factory=encoder,
            observation_scaler=d3rlpy.preprocessing.StandardObservationScaler(
                mean=rows.observations.mean(0), std=rows.observations.std(0)
            ),
        ),
    }  # fmt: skip

    def make(config: object) -> Window:
        algorithm = config.create(device="cpu:0")
        algorithm.create_impl((OBSERVATION_DIM,), ACTION_DIM)

        def window(seconds: float) -> float:
            start, steps = clock(), 0
            while clock() - start < seconds:
                algorithm.update(buffer.sample_transition_batch(BATCH))
                steps += 1
            return steps / (clock() - start)

        return window

    return {name: make(config) for name, config in configs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    th.set_num_threads(1)
    on_cpu = arguments.device == "cpu"
    clock = time.process_time if on_cpu else time.perf_counter

    dataset = synthetic_data(arguments.rows)
    contenders = {name: ours(name, dataset, arguments.device, clock) for name in ("iql", "td3_bc", "bc")}
    if on_cpu:
        contenders["SB3 TD3.train"] = sb3_td3(dataset, clock)
        contenders |= d3rlpy_windows(dataset, clock)
    for window in contenders.values():
        window(0.3 * arguments.seconds)
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(arguments.rounds):
        for name, window in contenders.items():
            rates[name].append(window(arguments.seconds))

    pairs = [("td3_bc", "SB3 TD3.train"), ("iql", "d3rlpy IQL"), ("td3_bc", "d3rlpy TD3+BC")]
    ratios = {
        f"{one} / {other}": [a / b for a, b in zip(rates[one], rates[other], strict=True)]
        for one, other in pairs
        if other in rates
    }
    if arguments.json:
        print(json.dumps({"steps_per_second": rates, "ratios": ratios}))
        return
    for title, table in (("steps per second", rates), ("ratios", ratios)):
        print(title)
        for name, values in table.items():
            print(f"  {name:28s} {statistics.median(values):8.2f}  [{min(values):.2f}, {max(values):.2f}]")


if __name__ == "__main__":
    main()
