"""Data: recorded trajectories in any of their formats, and the log of what an evaluation visited.

`open_dataset` reads a data set of any format, `from_arrays` and its like make one; `describe` says what is in it and
`check` what is wrong with it. `ShardWriter` and `EpisodeRecorder` write a log, `open_log` opens it, and `return_to`
brings an environment back to any step of a logged episode.

Names are loaded when they are first used (PEP 562).
"""

from typing import TYPE_CHECKING

from offline_eval.lazy import lazy_names

_HOME = {
    "Dataset": "trajectories",
    "open_dataset": "opening",
    "save_dataset": "opening",
    "from_arrays": "arrays",
    "from_trajectories": "arrays",
    "from_replay_buffer": "replay_buffer",
    "shared": "sharing",
    "describe": "description",
    "check": "doctor",
    "EpisodeRecorder": "recorder",
    "LoggedEpisode": "recorder",
    "Log": "log",
    "ShardWriter": "log",
    "open_log": "log",
    "return_to": "restoring",
}

__all__ = list(_HOME)

if TYPE_CHECKING:
    from offline_eval.datasets.arrays import from_arrays as from_arrays
    from offline_eval.datasets.arrays import from_trajectories as from_trajectories
    from offline_eval.datasets.description import describe as describe
    from offline_eval.datasets.doctor import check as check
    from offline_eval.datasets.log import Log as Log
    from offline_eval.datasets.log import ShardWriter as ShardWriter
    from offline_eval.datasets.log import open_log as open_log
    from offline_eval.datasets.opening import open_dataset as open_dataset
    from offline_eval.datasets.opening import save_dataset as save_dataset
    from offline_eval.datasets.recorder import EpisodeRecorder as EpisodeRecorder
    from offline_eval.datasets.recorder import LoggedEpisode as LoggedEpisode
    from offline_eval.datasets.replay_buffer import from_replay_buffer as from_replay_buffer
    from offline_eval.datasets.restoring import return_to as return_to
    from offline_eval.datasets.sharing import shared as shared
    from offline_eval.datasets.trajectories import Dataset as Dataset

if not TYPE_CHECKING:  # a type checker would take any name
    __getattr__, __dir__ = lazy_names(__name__, _HOME)
