"""Opens agents and statistics that were damaged in many ways, and counts tracebacks, hangs and the memory needed.

    python benchmarks/fuzz_agents.py --files 400 --seed 0

Small agents of SB3 and of this package and a VecNormalize's file are made here, and copies of them damaged: bytes
flipped, cut, swapped; members of a zip dropped, exchanged, packed otherwise or declared to be huge; words of the JSON
replaced; tensors of another shape or kind; pickles that ask for memory. Each is opened in a process forked from a warm
one, and acts once where it opens. It offends where it ends in anything but an agent or one line that names the file,
is not over in time, or needs a gigabyte. Offenders are printed; exit code 1.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

SECONDS = 60
GIGABYTE = 2**30
ENV = "Pendulum-v1"

ODD = (
    None, True, -1, 0, 1, 3, 10**7, 10**9, 10**30, -(10**9), 1e300, 0.5, "", "x", "nan", [], [[]], {}, [10**9],
    [10**6] * 3, [1] * 1000, {"a": 1}, {":serialized:": "x"}, {":type:": 3, ":serialized:": []}, [None], ["a"],
    "\x1b[31m", "x" * 5000,
)  # fmt: skip
SHAPING = (
    "n_critics",
    "net_arch",
    "n_quantiles",
    "features_extractor_kwargs",
    "activation_fn",
    "share_features_extractor",
)


def make_sources(folder: Path) -> dict[str, Path]:
    """An intact file of each kind, by name."""
    import gymnasium as gym
    import numpy as np
    from sb3_contrib import TQC
    from stable_baselines3 import DQN, PPO, SAC
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    from offline_eval.datasets import from_trajectories
    from offline_eval.policies import OfflineAlgorithm

    def small() -> dict[str, Any]:
        return {"policy_kwargs": {"net_arch": [8]}, "device": "cpu", "seed": 0}  # SB3 writes into the inner one

    SAC("MlpPolicy", ENV, buffer_size=10, **small()).save(folder / "sac.zip")
    TQC("MlpPolicy", ENV, buffer_size=10, **small()).save(folder / "tqc.zip")
    PPO("MlpPolicy", ENV, n_steps=16, batch_size=16, use_sde=True, **small()).save(folder / "ppo.zip")
    DQN("MlpPolicy", "CartPole-v1", buffer_size=10, **small()).save(folder / "dqn.zip")
    generator = np.random.default_rng(0)
    rows = {
        "observations": generator.uniform(-1, 1, (21, 3)).astype(np.float32),
        "actions": generator.uniform(-2, 2, (20, 1)).astype(np.float32),
        "rewards": generator.uniform(-1, 0, 20).astype(np.float32),
        "terminated": np.zeros(20, bool),
        "truncated": np.arange(20) == 19,
    }
    env = gym.make(ENV)
    dataset = from_trajectories([rows]).for_spaces(env.observation_space, env.action_space)
    words = {"batch_size": 8, **small()}
    OfflineAlgorithm("iql", **words).fit(dataset, 2).save(folder / "iql.zip")
    stack = VecNormalize(make_vec_env(ENV, 1))
    stack.save(folder / "vecnormalize.pkl")
    return {path.name: path for path in sorted(folder.iterdir())}


# --------------------------------------------------------------------------------------------------- any file


def flip(content: bytes, rng: random.Random) -> bytes:
    """A few bytes replaced."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 2, 5, 50))):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def cut(content: bytes, rng: random.Random) -> bytes:
    """The end missing, or a part in the middle, or one there twice."""
    start, end = sorted((rng.randrange(len(content)), rng.randrange(len(content))))
    return rng.choice((content[:start], content[:start] + content[end:], content[:end] + content[start:]))


# --------------------------------------------------------------------------------------------------- zips


def rewritten(content: bytes, change: Callable[[dict[str, bytes]], dict[str, bytes]], method: int = 0) -> bytes:
    """A zip with other members, whole in itself."""
    with zipfile.ZipFile(io.BytesIO(content)) as old:
        members = {name: old.read(name) for name in old.namelist()}
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as new:
        for name, part in change(members).items():
            new.writestr(name, part)
    return made.getvalue()


def members(content: bytes, rng: random.Random) -> bytes:
    """Members flipped, cut, dropped or exchanged, with right checksums."""

    def change(parts: dict[str, bytes]) -> dict[str, bytes]:
        names = [name for name in parts if parts[name]]
        one, other = rng.choice(names), rng.choice(names)
        kind = rng.randrange(5)
        if kind == 0:
            parts[one] = flip(parts[one], rng)
        elif kind == 1:
            parts[one] = cut(parts[one], rng)
        elif kind == 2:
            del parts[one]
        elif kind == 3:
            parts[one], parts[other] = parts[other], parts[one]
        else:
            parts[one] = rng.randbytes(rng.randrange(200))
        return parts

    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    return rewritten(content, change, method)


def bomb(content: bytes, rng: random.Random) -> bytes:
    """A member that unpacks to far more than it is, or says so."""

    def change(parts: dict[str, bytes]) -> dict[str, bytes]:
        parts[rng.choice(["data", "policy.pth", *parts])] = bytes(rng.choice((3, 30, 150)) * 10**6)
        return parts

    if rng.random() < 0.5:
        return rewritten(content, change, rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)))
    changed, place = bytearray(content), 0
    while (place := changed.find(b"PK\x01\x02", place)) >= 0:  # the sizes in the central directory
        size = rng.choice((2**32 - 2, 2**31, 10**9))
        struct.pack_into("<I", changed, place + rng.choice((20, 24)), size)
        place += 4
    return bytes(changed)


def words(content: bytes, rng: random.Random) -> bytes:
    """Words of the JSON replaced; those that shape the networks above all."""

    def change(parts: dict[str, bytes]) -> dict[str, bytes]:
        data = json.loads(parts["data"])
        for _ in range(rng.choice((1, 1, 3))):
            value = rng.choice(ODD)
            kind = rng.randrange(4)
            if kind == 0:
                data[rng.choice(list(data))] = value
            elif kind == 1:
                data.setdefault("policy_kwargs", {})
                if isinstance(data["policy_kwargs"], dict):
                    data["policy_kwargs"][rng.choice(SHAPING)] = value
            elif kind == 2:
                data.pop(rng.choice(list(data)))
            else:
                space = data.get(rng.choice(("observation_space", "action_space")))
                if isinstance(space, dict):
                    space[rng.choice(list(space))] = value
        parts["data"] = json.dumps(data).encode()
        if rng.random() < 0.05:
            parts["data"] = b"[" * 100_000
        return parts

    return rewritten(content, change)


def own_words(content: bytes, rng: random.Random) -> bytes:
    """The same in the member that this package adds."""
    import numpy as np

    def change(parts: dict[str, bytes]) -> dict[str, bytes]:
        if "offline_eval.npz" not in parts:
            return parts
        with np.load(io.BytesIO(parts["offline_eval.npz"])) as found:
            arrays = {name: found[name] for name in found.files}
        data = json.loads(arrays["json"].tobytes())
        place = rng.choice([data, data["constructor"], data["counters"], data["recipe"]])
        if isinstance(place, dict):
            place[rng.choice(list(place))] = rng.choice(ODD)
        if rng.random() < 0.3:
            name = rng.choice(["observation_space", "action_space"])
            space = json.loads(data[name]) if isinstance(data[name], str) else {}
            space[rng.choice(list(space) or ["type"])] = rng.choice((*ODD, "U100000000", "S1000000000"))
            data[name] = json.dumps(space)
        arrays["json"] = np.frombuffer(json.dumps(data).encode(), np.uint8)
        if rng.random() < 0.4:
            name = rng.choice(list(arrays))
            arrays[name] = rng.choice(
                [arrays[name].reshape(-1)[:1], arrays[name].astype("S3"), np.zeros((2, 0, 3)), np.array(np.nan)]
            )
        made = io.BytesIO()
        np.savez(made, **arrays)
        parts["offline_eval.npz"] = made.getvalue()
        return parts

    return rewritten(content, change)


def tensors(content: bytes, rng: random.Random) -> bytes:
    """Weights of another shape, kind or number; or a file of torch's damaged inside."""
    import torch as th

    def odd(value: th.Tensor) -> object:
        kinds: list[Callable[[], object]] = [
            lambda: value[:0],
            lambda: value.reshape(-1)[:1].expand(10**6, 10**6),
            lambda: value.to(th.float16),
            lambda: value.to(th.int64),
            lambda: value * th.nan,
            lambda: th.sparse_coo_tensor([[0]], [1.0], (10**9,), check_invariants=True),
            lambda: th.empty(10**12, device="meta"),
            lambda: [value],
            lambda: None,
            lambda: value.unsqueeze(0),
        ]
        return rng.choice(kinds)()

    def change(parts: dict[str, bytes]) -> dict[str, bytes]:
        name = rng.choice([name for name in parts if name.endswith(".pth")])
        if rng.random() < 0.3:
            parts[name] = rewritten(parts[name], lambda inner: {key: flip(part, rng) for key, part in inner.items()})
            return parts
        state = th.load(io.BytesIO(parts[name]), weights_only=True)
        if isinstance(state, dict) and state:
            key = rng.choice(list(state))
            if isinstance(state[key], th.Tensor):
                state[key] = odd(state[key])
            else:
                state.pop(key)
        made = io.BytesIO()
        th.save(state, made, _use_new_zipfile_serialization=rng.random() < 0.8)
        parts[name] = made.getvalue()
        return parts

    return rewritten(content, change)


# --------------------------------------------------------------------------------------------------- pickles


def opcodes(content: bytes, rng: random.Random) -> bytes:
    """Opcodes put in between that ask for memory, recurse or name something."""
    size = rng.choice((2**28 - 1, 2**31 - 1, 10**6))
    evil = rng.choice((
        b"r" + struct.pack("<I", size),
        b"\x96" + struct.pack("<Q", size),
        b"\x8e" + struct.pack("<Q", size),
        b"\x95" + struct.pack("<Q", size),
        b"\x8b" + struct.pack("<i", size % 2**31),
        f"p{size}\n".encode(),
        b"]" * 100_000,
        b"}q\x00h\x00h\x00s",
        b"cposix\nsystem\n",
        b"cnumpy\nfromfile\n",
        pickle.dumps([float("nan")] * 10, 0)[:-1],
    ))  # fmt: skip
    place = rng.choice((2, len(content) - 1, rng.randrange(len(content))))
    return content[:place] + evil + content[place:]


def numbers(content: bytes, rng: random.Random) -> bytes:
    """Eight bytes that may be a number replaced by NaN, infinity or minus one."""
    place = rng.randrange(len(content) - 8)
    return content[:place] + struct.pack("<d", rng.choice((float("nan"), float("inf"), -1.0))) + content[place + 8 :]


_ANY = (flip, cut)
_OF_ZIPS = (*_ANY, members, members, bomb, words, words, words, tensors, tensors)
_OF_PICKLES = (*_ANY, opcodes, opcodes, numbers)


def damaged(name: str, content: bytes, rng: random.Random) -> tuple[bytes, str]:
    """A damaged copy of a file, and how it was damaged."""
    kinds = _OF_PICKLES if name.endswith(".pkl") else (*_OF_ZIPS, *([own_words] * 4 if name.startswith("iql") else []))
    kind = rng.choice(kinds)
    return kind(content, rng), kind.__name__


# --------------------------------------------------------------------------------------------------- trying


def offence(path: Path) -> str:
    """Open a file, and let it act: "" where that works or is refused in one line, else what happened."""
    import gymnasium as gym
    import numpy as np

    from offline_eval.errors import OfflineEvalError
    from offline_eval.policies import opened, read_vecnormalize

    env = "CartPole-v1" if path.name.startswith("dqn") else ENV
    try:
        if path.suffix == ".pkl":
            read_vecnormalize(path)
            return ""
        agent, _ = opened(path, env, "cpu", normalize="none")
        agent.predict(np.stack([gym.make(env).observation_space.sample()]), deterministic=True)
    except OfflineEvalError as error:
        return "" if "\n" not in str(error) else f"several lines: {error}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return ""


def offence_apart(path: Path) -> str:
    """The same in a process of its own, with limits on time and memory."""
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(SECONDS)
        found = offence(path)
        needed = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if not found and needed > GIGABYTE:
            found = f"it needed {needed / 1e6:.0f} MB"
        with suppress(OSError):
            os.write(writes, found.encode(errors="replace")[:4000])
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads, "rb") as pipe:
        found = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"not over in {SECONDS} s" if number == signal.SIGALRM else f"ended by signal {number}"
    return found


def main() -> int:
    """Damage, open and count."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder that receives the files that offend")
    arguments = parser.parse_args()
    rng, began = random.Random(arguments.seed), time.perf_counter()
    counts: Counter[str] = Counter()
    offenders = 0
    with tempfile.TemporaryDirectory() as folder:
        sources = {name: path.read_bytes() for name, path in make_sources(Path(folder)).items()}
        for name in sources:
            if found := offence(Path(folder) / name):
                raise SystemExit(f"{name} does not even open undamaged: {found}")
        for number in range(arguments.files):
            name = rng.choice(list(sources))
            content, kind = damaged(name, sources[name], rng)
            path = Path(folder) / f"{Path(name).stem}-{number}{Path(name).suffix}"
            path.write_bytes(content)
            counts[f"{kind} of {Path(name).stem}"] += 1
            if found := offence_apart(path):
                offenders += 1
                print(f"{number} {kind} of {name}: {found}", flush=True)
                if arguments.keep:
                    arguments.keep.mkdir(parents=True, exist_ok=True)
                    (arguments.keep / path.name).write_bytes(content)
            path.unlink()
    for what, count in sorted(counts.items()):
        print(f"{count:5d}  {what}")
    spent = time.perf_counter() - began
    print(f"{arguments.files} damaged files, seed {arguments.seed}: {offenders} offend; {spent:.0f} s")
    return 1 if offenders else 0


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
