"""Small data sets of every format, and ways to damage them: what `benchmarks/fuzz_readers.py` and its test read.

A damage is drawn from a generator, so that a seed and a number name a file. Bytes are flipped, cut, repeated and
zeroed in any file; arrays change their dtype, their number of rows, their axes and single values, are dropped,
doubled, or declare far more than they hold.
"""

from __future__ import annotations

import io
import json
import shutil
import struct
import zipfile

import h5py
import numpy as np
from gymnasium import spaces

from offline_eval.datasets.arrays import from_trajectories
from offline_eval.datasets.description import describe
from offline_eval.datasets.doctor import check
from offline_eval.datasets.log import ShardWriter, open_log
from offline_eval.datasets.opening import open_dataset, save_dataset
from offline_eval.datasets.recorder import LoggedEpisode
from offline_eval.errors import OfflineEvalError

LENGTHS = (4, 6, 3)
BOX = spaces.Box(-1, 1, (2,), np.float32)
DTYPES = ("f2", "f8", ">f4", "i1", "u8", "i8", "?", "c8", "S3", "U3", "M8[s]")
HUGE = 10**9


def trajectories(seed=0):
    generator = np.random.default_rng(seed)
    for number, length in enumerate(LENGTHS):
        last = np.arange(length) == length - 1
        yield {
            "observations": generator.normal(size=(length + 1, 3)).astype(np.float32),
            "actions": generator.uniform(-1, 1, (length, 2)).astype(np.float32),
            "rewards": generator.normal(size=length).astype(np.float32),
            "terminated": last & (number == 1),
            "truncated": last & (number != 1),
        }


def flat():
    parts = list(trajectories())
    names = {"actions": "actions", "rewards": "rewards", "terminals": "terminated", "timeouts": "truncated"}
    columns = {name: np.concatenate([part[key] for part in parts]) for name, key in names.items()}
    columns["observations"] = np.concatenate([part["observations"][:-1] for part in parts])
    columns["next_observations"] = np.concatenate([part["observations"][1:] for part in parts])
    return columns


def final_rows():
    parts = list(trajectories())
    return {
        "observations": np.concatenate([part["observations"] for part in parts]),
        "actions": np.concatenate([np.concatenate([part["actions"], part["actions"][-1:]]) for part in parts]),
        "terminals": np.concatenate([np.arange(length + 1) == length for length in LENGTHS]).astype(np.float32),
    }


def write_hdf5(path, arrays, **attributes):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
        file.attrs.update(attributes)
    return path


# -------------------------------------------------------------------------------------------------------- formats


def d4rl(folder):
    return write_hdf5(folder / "a.hdf5", flat(), env_id="Nothing-v0", max_episode_steps=6)


def d3rlpy_1(folder):
    arrays = flat()
    ends = arrays.pop("timeouts") | arrays["terminals"]
    del arrays["next_observations"]
    about = {"episode_terminals": ends, "discrete_action": False, "version": "1.0"}
    return write_hdf5(folder / "a.h5", arrays | about)


def d3rlpy_2(folder):
    arrays = {"columns": ["observations", "actions", "rewards", "terminated"], "num_episodes": 3, "version": "2.1"}
    for number, part in enumerate(trajectories()):
        arrays |= {f"observations_{number}": part["observations"][:-1], f"actions_{number}": part["actions"]}
        arrays |= {f"rewards_{number}": part["rewards"][:, None], f"terminated_{number}": part["terminated"].any()}
    return write_hdf5(folder / "a.h5", arrays)


def robomimic(folder):
    arrays = {}
    for number, part in enumerate(trajectories()):
        demo = f"data/demo_{number}"
        arrays |= {f"{demo}/obs/near": part["observations"][:-1], f"{demo}/next_obs/near": part["observations"][1:]}
        arrays |= {f"{demo}/{name}": part[name] for name in ("actions", "rewards")}
        arrays[f"{demo}/dones"] = part["terminated"].astype(np.int64)
    path = write_hdf5(folder / "a.hdf5", arrays)
    with h5py.File(path, "a") as file:
        file["data"].attrs["env_args"] = json.dumps({"env_name": "Lift"})
    return path


def minari(folder):
    return save_dataset(from_trajectories(trajectories(), action_space=BOX), folder / "a", "minari")


def minari_old(folder):
    path = minari(folder)
    described = path / "data" / "metadata.json"
    metadata = json.loads(described.read_text())
    described.unlink()
    with h5py.File(path / "data" / "main_data.hdf5", "a") as file:
        file.attrs.update({name: metadata[name] for name in ("observation_space", "action_space", "total_steps")})
    return path


def log(folder):
    space = spaces.Box(-9, 9, (3,), np.float32)
    with ShardWriter(folder / "a", env_id="E-v0", observation_space=space, action_space=BOX) as writer:
        for key, part in enumerate(trajectories()):
            writer.write([LoggedEpisode(policy_actions=part["actions"], key=key, **part)])
    return folder / "a"


def packed(folder):
    return save_dataset(from_trajectories(trajectories(), action_space=BOX), folder / "a", "packed")


def npz(folder):
    np.savez(folder / "a.npz", **flat())
    return folder / "a.npz"


def npz_packed(folder):
    np.savez_compressed(folder / "a.npz", **flat())
    return folder / "a.npz"


def ogbench(folder):
    np.savez(folder / "a.npz", **final_rows())
    return folder / "a.npz"


def ogbench_compact(folder):
    arrays = final_rows()
    following = np.append(arrays["terminals"][1:], 1)
    np.savez(
        folder / "a.npz",
        **arrays | {"valids": 1 - arrays["terminals"], "terminals": np.minimum(1, arrays["terminals"] + following)},
    )
    return folder / "a.npz"


FORMATS = {
    make.__name__: make
    for make in (
        d4rl, d3rlpy_1, d3rlpy_2, robomimic, minari, minari_old, log, packed, npz, npz_packed, ogbench, ogbench_compact
    )
}  # fmt: skip


# -------------------------------------------------------------------------------------------------------- damage


def damaged(made, folder, generator):
    """A copy of a data set in `folder`, damaged once or twice; returns its path, and what was done in words."""
    path = folder / made.name
    shutil.copytree(made, path) if made.is_dir() else shutil.copy(made, path)
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    done = []
    for _ in range(generator.integers(1, 3)):
        file = files[generator.integers(len(files))]
        damage = _BYTES[generator.integers(len(_BYTES))]
        if generator.random() < 0.6:
            by_kind = {".hdf5": _in_hdf5, ".h5": _in_hdf5, ".npz": _in_npz, ".npy": _in_npy, ".json": _in_json}
            damage = by_kind.get(file.suffix, damage)
        try:
            done.append(f"{file.name}: {damage(file, generator)}")
        except Exception as error:  # a file that an earlier damage left unreadable stays as it is
            done.append(f"{file.name}: {damage.__name__} could not ({type(error).__name__})")
    return path, "; ".join(done)


def _flip(path, generator):
    content = bytearray(path.read_bytes())
    for _ in range(generator.integers(1, 9)):
        content[generator.integers(len(content))] ^= 1 << generator.integers(8)
    path.write_bytes(content)
    return "bits flipped"


def _cut(path, generator):
    content = path.read_bytes()
    path.write_bytes(content[: generator.integers(len(content))])
    return "cut short"


def _zero(path, generator):
    content = bytearray(path.read_bytes())
    start = int(generator.integers(len(content)))
    content[start : start + 64] = bytes(min(64, len(content) - start))
    path.write_bytes(content)
    return "zeros"


def _ones(path, generator):
    content = bytearray(path.read_bytes())
    start = int(generator.integers(max(1, len(content) - 8)))
    content[start : start + 8] = b"\xff" * min(8, len(content) - start)
    path.write_bytes(content)
    return "a number of all ones"


def _repeat(path, generator):
    content = path.read_bytes()
    start, stop = sorted(generator.integers(len(content), size=2))
    path.write_bytes(content[:stop] + content[start:])
    return "a part twice"


def _noise(path, generator):
    path.write_bytes(generator.bytes(int(generator.integers(0, 400))))
    return "noise"


_BYTES = (_flip, _flip, _cut, _zero, _ones, _repeat, _noise)


def _changed(array, generator):
    """An array in which one thing is wrong, and what."""
    array = np.asarray(array)
    match generator.integers(9):
        case 0:
            dtype = DTYPES[generator.integers(len(DTYPES))]
            with np.errstate(all="ignore"):
                return np.nan_to_num(array.astype(float)).astype("i8").astype(dtype) if dtype[
                    0
                ] in "uM" else array.astype(dtype), dtype
        case 1:
            return array[: len(array) // 2] if array.ndim else array, "half of the rows"
        case 2:
            return np.concatenate([array, array]) if array.ndim else array, "twice the rows"
        case 3:
            return array[..., None], "one axis more"
        case 4:
            return array.reshape(-1), "one axis"
        case 5:
            return array[:0] if array.ndim else array, "no rows"
        case 6:
            values = np.array(array, np.float64)
            values.reshape(-1)[:: max(1, values.size // 3)] = generator.choice([np.nan, np.inf, -1.0, 2.0, 1e30, 0.5])
            return values, "odd values"
        case 7:
            return np.full(array.shape, "x" if generator.random() < 0.5 else "True"), "text"
        case _:
            return np.zeros(()), "a single number"


def _in_hdf5(path, generator):
    with h5py.File(path, "a") as file:
        names = []
        file.visititems(lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) else None)
        if not names or generator.random() < 0.1:
            return _in_attributes(file, generator)
        name = names[generator.integers(len(names))]
        if file[name].size > 1000:
            return f"{name} is large already"
        kept = file[name][()]
        match generator.integers(8):
            case 0:
                del file[name]
                return f"{name} dropped"
            case 1:
                file[f"{name}_2"] = kept
                return f"{name} doubled"
            case 2:
                del file[name]
                file.create_dataset(name, (HUGE, *np.shape(kept)[1:]), np.asarray(kept).dtype)
                return f"{name} declares {HUGE} rows"
            case 3:
                del file[name]
                chunk = (1 << 24, *np.shape(kept)[1:])
                file.create_dataset(name, (HUGE, *np.shape(kept)[1:]), np.asarray(kept).dtype, chunks=chunk)
                return f"{name} declares {HUGE} rows in chunks"
            case 4:
                del file[name]
                target = ["/etc/hostname", "gone.hdf5", path.name, "../a.hdf5"][generator.integers(4)]
                file[name] = h5py.ExternalLink(target, name) if generator.random() < 0.7 else h5py.SoftLink(f"/{name}")
                return f"{name} is a link to {target}"
            case 5:
                del file[name]
                file.create_group(f"{name}/inner")
                return f"{name} is a group"
            case _:
                changed, what = _changed(kept, generator)
                del file[name]
                file[name] = changed.astype("S5") if changed.dtype.kind in "UM" else changed
                return f"{name}: {what}"


def _in_attributes(file, generator):
    nodes = [file, *(node for node in file.values() if isinstance(node, h5py.Group))]
    node = nodes[generator.integers(len(nodes))]
    names = list(node.attrs) or ["env_id"]
    name = names[generator.integers(len(names))]
    node.attrs[name] = [-1, np.nan, "x", "[]", "{" * 5000, np.arange(3), "null", 1e30][generator.integers(8)]
    return f"attribute {name}"


def _in_npz(path, generator):
    with path.open("rb") as file, np.load(file) as archive:
        arrays = {name: archive[name] for name in archive.files}
    name = list(arrays)[generator.integers(len(arrays))]
    match generator.integers(5):
        case 0:
            del arrays[name]
            what = f"{name} dropped"
        case 1:
            return declares(path, arrays, name, (HUGE, *arrays[name].shape[1:]))
        case 2:
            arrays[name] = np.array([None], object)
            what = f"{name} holds objects"
        case _:
            arrays[name], what = _changed(arrays[name], generator)
    np.savez(path, **arrays)
    return f"{name}: {what}"


def _header(shape, dtype):
    text = f"{{'descr': {dtype.str!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def declares(path, arrays, name, shape):
    """An archive in which one member declares a shape that it does not hold."""
    with zipfile.ZipFile(path, "w") as archive:
        for other, array in arrays.items():
            content = io.BytesIO()
            np.save(content, array)
            declared = _header(shape, array.dtype) + array.tobytes() if other == name else content.getvalue()
            archive.writestr(f"{other}.npy", declared)
    return f"{name} declares {shape}"


def _in_npy(path, generator):
    with path.open("rb") as file:
        array = np.load(file)
    if generator.random() < 0.2:
        path.write_bytes(_header((HUGE, *array.shape[1:]), array.dtype) + array.tobytes())
        return f"declares {HUGE} rows"
    changed, what = _changed(array, generator)
    np.save(path, changed)
    return what


def _in_json(path, generator):
    fields = json.loads(path.read_text())
    name = list(fields)[generator.integers(len(fields))]
    odd = [None, -1, [], {}, "x", "[" * 5000, {"type": "Box"}, 1e400, '{"type": "Discrete", "n": 1e15}', [[1]], True]
    if generator.random() < 0.2:
        del fields[name]
    else:
        fields[name] = odd[generator.integers(len(odd))]
    path.write_text(json.dumps(fields))
    return f"{name} is odd"


def read(path):
    """Everything that the package reads of a data set, described and examined; True where it could be opened.

    Whatever is no error of ours is raised.
    """
    looks = (
        lambda: open_dataset(path, check_finite=False),
        lambda: describe(open_dataset(path)),
        lambda: check(path),
        lambda: open_dataset(path, transitions=True),
        lambda: list(open_log(path)) if (path / "data" / "shards").is_dir() else None,
    )
    refused = []
    for look in looks:
        try:
            look()
        except OfflineEvalError:
            refused.append(look)
    return looks[1] not in refused
