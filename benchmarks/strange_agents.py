"""Agents of a public collection, opened by `load_sb3` and by Stable-Baselines3: are the actions equal to the last bit?

    python benchmarks/strange_agents.py COLLECTION [--limit 20] [--observations 256] [--seed 0]

COLLECTION is a folder in the layout of rl-zoo, ALGORITHM/ENVIRONMENT_RUN/NAME.zip: a clone of DLR-RM/rl-trained-agents.
Observations come from the agent's environment under random actions where it is installed (under the number that its
version has today), and from its observation space elsewhere; statistics of a VecNormalize are left out on both sides.
Each agent has a process of its own: one that crashes or hangs is counted, and the others go on. Stable-Baselines3's own
`load` unpickles: run this on files that you trust.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import warnings
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import Space, spaces
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm

from offline_eval import load_sb3
from offline_eval.batching import take
from offline_eval.environments import EnvironmentLike
from offline_eval.errors import OfflineEvalError, SpaceError
from offline_eval.policies.agent_file import read_agent_file
from offline_eval.policies.printed_space import printed_outline
from offline_eval.policies.setting import setting_notes
from offline_eval.space_agreement import Outline

EQUAL, DIFFER, REFUSED, ALONE, BROKEN = "equal", "differ", "refused", "opened here alone", "broken"
PATIENCE = 300  # seconds an agent


class Row(NamedTuple):
    """What became of an agent.

    Attributes:
        verdict: one of the words above.
        reason: why it is not equal, or from where the observations come.
    """

    verdict: str
    reason: str


class Shown:
    """The spaces of an environment that is not installed, as the agent's file prints them."""

    def __init__(self, path: Path) -> None:
        file = read_agent_file(path)
        self.observation_space, self.action_space = (
            space_of(printed_outline(file, what)) for what in ("observation", "action")
        )
        self.spec, self.__name__ = None, "the spaces in its file"


def space_of(outline: Outline | None) -> Space[Any]:
    """A space of this outline."""
    match outline:
        case Outline(kind="Dict", parts=dict(parts)):
            return spaces.Dict([(key, space_of(part)) for key, part in parts.items()])
        case Outline(kind="Discrete", numbers=(n,)):
            return spaces.Discrete(n)
        case Outline(kind="MultiDiscrete", numbers=tuple(nvec)):
            return spaces.MultiDiscrete(nvec)
        case Outline(kind="MultiBinary", numbers=tuple(n)):
            return spaces.MultiBinary(n)
        case Outline(kind="Box", shape=tuple(shape), low=tuple(low), high=tuple(high)):
            dtype: Any = np.dtype(outline.dtype or "float32").type
            # A print that leaves entries out is that of images: one bound for all.
            return spaces.Box(*(np.resize(np.array(bound), shape).astype(dtype) for bound in (low, high)), dtype=dtype)
    raise ValueError(f"the file prints {outline}, of which no space can be made")


def setting_of(path: Path) -> EnvironmentLike | None:
    """The environment in the name of the agent's folder, in the newest version that is installed."""
    name = re.sub(r"_\d+$", "", path.parent.name)
    stem, _, version = name.rpartition("-v")
    newer = [spec for spec in gym.registry if re.fullmatch(re.escape(stem) + r"-v\d+", spec)]
    found = sorted(newer, key=lambda spec: int(spec.rpartition("-v")[2]))
    return found[-1] if version and found else None


def observations_in(world: Any, number: int, seed: int) -> Any:
    """A batch (number, ...) seen under random actions, or drawn from a space."""
    space = world.observation_space
    space.seed(seed)
    if not isinstance(world, gym.Env):
        seen = [_near(space.sample()) for _ in range(number)]
    else:
        world.action_space.seed(seed)
        seen, over = [], True
        while len(seen) < number:
            if over:
                observation, _ = world.reset(seed=seed + len(seen))
            seen.append(observation)
            observation, _, terminated, truncated, _ = world.step(world.action_space.sample())
            over = terminated or truncated
    if isinstance(space, spaces.Dict):
        return {key: np.stack([each[key] for each in seen]) for key in space}
    return np.stack(seen)


def _near(sample: Any) -> Any:
    """What is drawn between the greatest floats would overflow every network."""
    if isinstance(sample, dict):
        return {key: _near(value) for key, value in sample.items()}
    return np.clip(sample, -1e3, 1e3) if np.asarray(sample).dtype.kind == "f" else sample


def theirs(kind: type[BaseAlgorithm], path: Path, world: Any) -> BaseAlgorithm:
    """The agent as Stable-Baselines3 opens it, given what its old pickles need."""
    replaced = {
        "observation_space": world.observation_space,
        "action_space": world.action_space,
        "buffer_size": 1,
        "learning_rate": 0.0,
        "optimize_memory_usage": False,
        **dict.fromkeys(("lr_schedule", "clip_range", "clip_range_vf", "exploration_schedule"), _nothing),
        **dict.fromkeys(("replay_buffer_class", "rollout_buffer_class", "action_noise")),
        "replay_buffer_kwargs": {},
    }
    return kind.load(path, device="cpu", custom_objects=replaced)


def _nothing(_: float) -> float:
    return 0.0


def compared(path: Path, number: int, seed: int) -> Row:
    """Open an agent in both ways, and let both act."""
    world: Any = None
    origin = "its environment"
    try:
        env = setting_of(path)
        if env is not None:
            try:
                ours = load_sb3(path, env, "cpu", normalize="none")
                world = gym.make(env, disable_env_checker=True)
            except SpaceError as error:
                origin = f"its space: {env} is another one ({error.received})"
            except OfflineEvalError as error:
                if error.__cause__ is None or "could not be made" not in str(error):
                    raise
        if world is None:
            world = Shown(path)
            origin = "its space" if origin == "its environment" else origin
            ours = load_sb3(path, world, "cpu", normalize="none")
    except (OfflineEvalError, ValueError) as error:
        return Row(REFUSED, str(error).replace(str(path), path.name))
    notes = setting_notes(ours, world)
    try:
        other = theirs(type(ours), path, ours)
    except Exception as error:  # whatever an old file does to it
        return Row(ALONE, f"{type(error).__name__}: {error}".partition("\n")[0])
    batch = observations_in(world, number, seed)
    for rows in (np.arange(number), *(np.array([row]) for row in range(min(number, 16)))):
        mine, other_ones = (model.predict(take(batch, rows), deterministic=True)[0] for model in (ours, other))
        if mine.dtype != other_ones.dtype or mine.tobytes() != other_ones.tobytes():
            return Row(DIFFER, f"by {np.abs(mine.astype(float) - other_ones).max():.3g}; observations of {origin}")
    return Row(EQUAL, "; ".join([f"observations of {origin}", *(f"noted: {note}" for note in notes)]))


def apart(path: Path, number: int, seed: int) -> Row:
    """The same in a process of its own."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    worker = context.Process(target=_tell, args=(there, path, number, seed), daemon=True)
    worker.start()
    there.close()
    try:
        return Row(*here.recv()) if here.poll(PATIENCE) else Row(BROKEN, f"no answer within {PATIENCE} seconds")
    except EOFError:
        worker.join()
        return Row(BROKEN, f"its process ended with {worker.exitcode}")
    finally:
        worker.kill()
        worker.join()


def _tell(pipe: Connection, path: Path, number: int, seed: int) -> None:
    th.set_num_threads(1)
    warnings.simplefilter("ignore")
    try:
        row = compared(path, number, seed)
    except Exception as error:  # so that the reason is known
        row = Row(BROKEN, f"{type(error).__name__}: {error}".partition("\n")[0])
    pipe.send(tuple(row))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", type=Path)
    parser.add_argument("--limit", type=int, help="agents, drawn at random; all of them if left out")
    parser.add_argument("--observations", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for name in ("sb3_contrib", "mujoco", "gymnasium_robotics", "ale_py", "panda_gym", "highway_env"):
        try:
            gym.register_envs(__import__(name))
        except ImportError:
            print(f"{name} is not installed")

    PPO("MlpPolicy", "CartPole-v1", device="cpu")  # imports once what every child would import
    paths = sorted(arguments.collection.glob("*/*/*.zip"))
    chosen = paths
    if arguments.limit is not None and arguments.limit < len(paths):
        drawn = np.random.default_rng(arguments.seed).choice(len(paths), arguments.limit, replace=False)
        chosen = [paths[number] for number in sorted(drawn)]
    rows = []
    for path in chosen:
        rows.append(apart(path, arguments.observations, arguments.seed))
        print(f"{rows[-1].verdict:18s} {path.relative_to(arguments.collection)}: {rows[-1].reason}", flush=True)
    counts = Counter(row.verdict for row in rows)
    opened = sum(counts[verdict] for verdict in (EQUAL, DIFFER, ALONE))
    print(
        f"\n{len(paths)} agents, {len(paths) - len(chosen)} skipped, {opened} of {len(chosen)} opened: {dict(counts)}"
    )


if __name__ == "__main__":
    main()
