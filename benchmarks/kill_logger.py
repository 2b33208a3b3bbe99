"""Kills a process that logs, 200 times at moments drawn by chance, and counts what was lost.

A child plays Pendulum, hands its finished episodes over and then reports each with a digest of what had passed by. The
parent kills it (SIGKILL) and opens the log: every reported episode must be there and equal, every other one must be an
episode of the plan that had not been reported yet, and what the index pointed at must have been readable even before
the log was opened. Logs are resumed after each kill and finally completed; a completed log holds its plan once.

    python benchmarks/kill_logger.py --kills 200

Half of the logs have one episode a shard and leave the index to the end; the others four episodes a shard and an index
after every one, so that kills also hit its writing.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import gymnasium as gym
import h5py
import numpy as np

from offline_eval.datasets.log import ShardWriter, open_log
from offline_eval.datasets.recorder import EpisodeRecorder

STEPS = 50
PLAN = range(400)
KILLS_A_LOG = 10


def play(recorder, env, key):
    """One episode into the recorder; returns the digest of what passed by."""
    rng, passed = np.random.default_rng(key), hashlib.sha256()
    observation, _ = env.reset(seed=key)
    recorder.reset(0, observation, seed=key, key=key, env=env)
    passed.update(observation.tobytes())
    ended = False
    while not ended:
        action = rng.uniform(-2, 2, size=1).astype(np.float32)
        observation, reward, terminated, truncated, _ = env.step(action)
        recorder.step(0, None, action, reward, terminated, truncated, observation, env)
        passed.update(action.tobytes() + np.float64(reward).tobytes() + observation.tobytes())
        ended = terminated or truncated
    return passed.hexdigest()


def digest(episode):
    """The same digest from an episode of the log."""
    passed = hashlib.sha256(episode.observations[0].tobytes())
    for action, reward, observation in zip(episode.actions, episode.rewards, episode.observations[1:], strict=True):
        passed.update(action.tobytes() + reward.tobytes() + observation.tobytes())
    return passed.hexdigest()


def child(folder, keys, episodes_a_shard, index_interval, report):
    env, recorder = gym.make("Pendulum-v1", max_episode_steps=STEPS, disable_env_checker=True), EpisodeRecorder()
    spaces = {"observation_space": env.observation_space, "action_space": env.action_space}
    with ShardWriter(folder, env_id="Pendulum-v1", index_interval=index_interval, **spaces) as writer:
        for start in range(0, len(keys), episodes_a_shard):
            played = []
            for key in keys[start : start + episodes_a_shard]:
                value = play(recorder, env, key)
                played.append((key, value, recorder.finish(0)))
            writer.write([episode for _, _, episode in played])
            report.send([(key, value) for key, value, _ in played])


def start(folder, keys, kind):
    # A fork: importing everything anew would take most of the time of 200 kills.
    ours, theirs = multiprocessing.Pipe(duplex=False)
    arguments = (folder, keys, 4, 0.0, theirs) if kind == "four a shard" else (folder, keys, 1, 3600.0, theirs)
    process = multiprocessing.get_context("fork").Process(target=child, args=arguments)
    process.start()
    theirs.close()
    return process, ours


def received(pipe):
    reports = {}
    try:
        while True:
            reports |= dict(pipe.recv())
    except EOFError:
        return reports


def index_state(folder):
    """What a reader like Minari's finds before the log is opened: links that resolve, and how many shards they miss."""
    data = folder / "data"
    shards = {path.name for path in (data / "shards").glob("*.hdf5")} if data.exists() else set()
    if not (data / "main_data.hdf5").exists():
        return "absent" if shards else "no shard yet"
    with h5py.File(data / "main_data.hdf5") as file:
        linked = {row[0] for row in json.loads(file.attrs["entries"])}
        promised = json.loads((data / "metadata.json").read_text())["total_episodes"]
        for number in range(promised):
            if len(file[f"episode_{number}/observations"]) != STEPS + 1:
                raise AssertionError(f"episode_{number} of {folder} is not whole")
    return "up to date" if linked == shards else "behind"


def run(kills, root, rng):
    counts, expected = {"one a shard": Counter(), "four a shard": Counter()}, expected_digests()
    for number in range(-(-kills // KILLS_A_LOG)):
        kind = list(counts)[number % 2]
        count, folder, reported = counts[kind], root / f"log-{number}", {}
        for _ in range(min(KILLS_A_LOG, kills - number * KILLS_A_LOG)):
            missing = [key for key in PLAN if key not in reported]
            process, pipe = start(folder, missing, kind)
            time.sleep(rng.uniform(0.02, 0.15))
            os.kill(process.pid, signal.SIGKILL)
            reported |= received(pipe)
            process.join()
            count["kills"] += process.exitcode == -signal.SIGKILL
            count[f"index {index_state(folder)}"] += 1
            if not (folder / "data" / "metadata.json").exists():
                continue
            found = {episode.key: digest(episode) for episode in open_log(folder)}
            count["reported and missing"] += len(reported.keys() - found.keys())
            count["different"] += sum(expected[key] != value for key, value in found.items())
            count["written, not yet reported"] += len(found.keys() - reported.keys())
            reported |= found
        count["half shards ignored"] += len(list(folder.rglob("*.tmp")))
        process, pipe = start(folder, [key for key in PLAN if key not in reported], kind)
        received(pipe)
        process.join()
        log = open_log(folder)
        complete = log.keys == tuple(PLAN) and all(expected[episode.key] == digest(episode) for episode in log)
        count["logs completed"] += complete
        count["logs not complete"] += not complete
        count["episodes logged"] += len(log)
        print(f"\r{sum(count['kills'] for count in counts.values())} kills", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return counts


def expected_digests():
    env, recorder = gym.make("Pendulum-v1", max_episode_steps=STEPS, disable_env_checker=True), EpisodeRecorder()
    return {key: play(recorder, env, key) for key in PLAN}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        counts = run(arguments.kills, Path(folder), np.random.default_rng(arguments.seed))
    names = list(dict.fromkeys(name for count in counts.values() for name in sorted(count)))
    print("| | " + " | ".join(counts) + " |\n|---|" + "---|" * len(counts))
    for name in names:
        print(f"| {name} | " + " | ".join(str(count[name]) for count in counts.values()) + " |")
    print(f"{time.monotonic() - began:.0f} s")
    lost = sum(
        count["reported and missing"] + count["different"] + count["logs not complete"] for count in counts.values()
    )
    raise SystemExit(1 if lost else 0)


if __name__ == "__main__":
    main()
