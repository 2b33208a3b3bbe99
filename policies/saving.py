"""An offline algorithm's file: a TD3 zip, and one more member that holds everything else as JSON and arrays.

Plain `TD3.load` opens it and knows nothing of the extra member. Our own reader takes the tensors from the `.pth`
members (with torch's weights-only reader), the rest from the extra member, and unpickles nothing.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.save_util import save_to_zip_file

from offline_eval.errors import AgentFileError, StorageError
from offline_eval.files import write_durably
from offline_eval.policies.archive import is_plain, read_arrays, read_members, read_tensors, refused_in_one_line
from offline_eval.types import Array

MEMBER = "offline_eval.npz"
"""The extra member."""

_FORMAT = 1
_TEXT = "json"
_STATES = ("policy", "actor.optimizer", "critic.optimizer")

TD3_ATTRIBUTES = (
    "policy_class", "verbose", "policy_kwargs", "num_timesteps", "_total_timesteps", "_num_timesteps_at_start", "seed",
    "action_noise", "start_time", "learning_rate", "tensorboard_log", "_last_obs", "_last_episode_starts",
    "_last_original_obs", "_episode_num", "use_sde", "sde_sample_freq", "_current_progress_remaining",
    "_stats_window_size", "ep_info_buffer", "ep_success_buffer", "_n_updates", "observation_space", "action_space",
    "n_envs", "buffer_size", "batch_size", "learning_starts", "tau", "gamma", "gradient_steps",
    "optimize_memory_usage", "replay_buffer_class", "replay_buffer_kwargs", "n_steps", "train_freq",
    "use_sde_at_warmup", "policy_delay", "target_noise_clip", "target_policy_noise", "lr_schedule",
    "actor_batch_norm_stats", "critic_batch_norm_stats", "actor_batch_norm_stats_target",
    "critic_batch_norm_stats_target",
)  # fmt: skip
"""What `TD3.save` writes into `data`."""


@dataclass(frozen=True)
class SavedAlgorithm:
    """The content of an offline algorithm's file.

    Attributes:
        words: the JSON of the extra member.
        arrays: the arrays of the extra member.
        states: state dicts of the policy and of the two optimisers that TD3 has.
    """

    words: Mapping[str, Any]
    arrays: Mapping[str, Array]
    states: Mapping[str, Any]


ASSUMED_ACTION_SPACE = (
    "the data do not say their action space, and it was inferred from their actions: "
    "train with --env, or give action_space to open_dataset"
)
"""The way out where an environment's bounds differ from the inferred ones."""


def is_offline_algorithm(path: str | os.PathLike[str]) -> bool:
    """Whether a file is one that `OfflineAlgorithm.save` wrote; False for anything else, unreadable files included."""
    try:
        with zipfile.ZipFile(_existing(path)) as archive:
            return MEMBER in archive.namelist()
    except Exception:  # damaged in one of many ways: whoever opens it says in which
        return False


def write_algorithm(
    path: str | os.PathLike[str] | io.BufferedIOBase,
    td3_data: Mapping[str, Any],
    states: Mapping[str, Any],
    words: Mapping[str, Any],
    arrays: Mapping[str, Array],
) -> None:
    """Write the file; whoever reads `path` meanwhile, or after a crash, finds the former file or the new one.

    Raises:
        StorageError: it cannot be written. The former file is kept, where there was one.
    """
    zipped, extra = io.BytesIO(), io.BytesIO()
    text = json.dumps({"format": _FORMAT, **words}, default=_plain).encode()
    np.savez(extra, allow_pickle=False, **{_TEXT: np.frombuffer(text, np.uint8), **arrays})
    save_to_zip_file(zipped, data=dict(td3_data), params=dict(states), pytorch_variables={})
    with zipfile.ZipFile(zipped, mode="a") as archive:
        archive.writestr(MEMBER, extra.getvalue())
    content = zipped.getvalue()

    if not isinstance(path, str | os.PathLike):
        path.write(content)
        return
    given = Path(path)
    final = given if given.suffix else given.with_name(given.name + ".zip")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        write_durably(final, content)
    except OSError as error:
        kept = "; the file that was there before is kept" if final.exists() else ""
        raise StorageError(f"{final} could not be written ({error.strerror or error}){kept}") from error


def read_algorithm(path: str | os.PathLike[str] | io.BufferedIOBase, device: th.device) -> SavedAlgorithm:
    """Read a file that `write_algorithm` wrote.

    Raises:
        AgentFileError: there is no such file, or it is not one of these, or it is damaged.
    """
    source = _existing(path) if isinstance(path, str | os.PathLike) else path
    with refused_in_one_line(path, "must be a whole file that OfflineAlgorithm.save wrote"):
        with zipfile.ZipFile(source) as archive:
            if MEMBER not in archive.namelist():
                rule, way_out = "must be a file that OfflineAlgorithm.save wrote", "open other agents with load_sb3"
                raise AgentFileError("path", rule, _shown(path), way_out)
            members = read_members(archive, (MEMBER, *(f"{name}.pth" for name in _STATES)))
        states = {name: read_tensors(members[f"{name}.pth"], device) for name in _STATES}
        arrays = read_arrays(members[MEMBER])
        words = dict(json.loads(arrays.pop(_TEXT).tobytes()))
        if not isinstance(states["policy"], dict) or not all(map(is_plain, states["policy"].values())):
            raise ValueError("its `policy.pth` is not a state dict")
    if words.get("format") != _FORMAT:
        raise AgentFileError(
            "path",
            f"must be of format {_FORMAT}, which this version reads",
            words.get("format"),
            "upgrade offline-eval",
        )
    return SavedAlgorithm(words, arrays, states)


def _plain(value: object) -> Any:
    """A NumPy number, which a word of the constructor may be, as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no place in JSON")


def _shown(path: object) -> str:
    return os.fspath(path) if isinstance(path, str | os.PathLike) else repr(path)


def _existing(path: str | os.PathLike[str]) -> Path:
    given = Path(path)
    return given if given.is_file() else given.with_name(given.name + ".zip")
