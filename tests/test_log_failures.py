"""The log when things go wrong: a full or read-only disk, damaged files, kills. What was finished stays."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import pytest
from log_episodes import assert_same, episode_of, shard_files, writer_of

from offline_eval import files as files_module
from offline_eval.datasets.log import open_log
from offline_eval.datasets.recorder import LoggedEpisode
from offline_eval.errors import StorageError


class FullDisk:
    """Lets so many bytes through, then has no space left."""

    def __init__(self, monkeypatch, room):
        self.room, self._write = room, os.write
        monkeypatch.setattr(files_module.os, "write", self.write)

    def write(self, descriptor, content):
        if self.room < len(content):
            self._write(descriptor, content[: self.room])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= len(content)
        return self._write(descriptor, content)


def test_a_full_disk_keeps_what_was_there_and_says_so(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, writer_of(tmp_path) as writer:
        writer.write([episode_of(0, 1.0)])
        disk = FullDisk(patch, room=1000)
        with pytest.raises(StorageError) as caught:
            writer.write([episode_of(1, 2.0), episode_of(2, 2.0)])
        assert str(caught.value) == (
            f"`{tmp_path}` cannot take 2 finished episodes more: No space left on device. "
            "What it holds stays (1 finished episode): free some space or make it writable, then resume"
        )
        assert [path.name for path in (tmp_path / "data" / "shards").iterdir()] == [shard_files(tmp_path)[0].name]
        assert open_log(tmp_path).keys == (0,)  # though the index cannot be written
        disk.room = 10**9
        writer.write([episode_of(3, 3.0)])  # somebody made room
    assert [(episode.key, episode.rewards[0]) for episode in open_log(tmp_path)] == [(0, 1.0), (3, 3.0)]


def test_an_index_that_finds_no_space_says_that_nothing_is_lost(tmp_path, monkeypatch):
    writer = writer_of(tmp_path)
    writer.write([episode_of(0)])
    FullDisk(monkeypatch, room=10)
    with pytest.raises(StorageError, match=r"the index of .* No space left.*stays \(1 finished episode\)"):
        writer.close()


def test_the_error_under_way_is_not_replaced_by_the_indexs(tmp_path, monkeypatch):
    def run():
        with writer_of(tmp_path) as writer:
            writer.write([episode_of(0)])
            FullDisk(monkeypatch, room=10)
            raise KeyError("the environment's own")

    with pytest.raises(KeyError, match="own"):
        run()


def write_until_it_fails(writer) -> tuple[int, str]:
    for key in range(1000):
        try:
            writer.write([episode_of(key, key, steps=100)])
        except StorageError as error:
            return key, str(error)
    raise AssertionError("the disk was not full")


def test_a_real_disk_that_is_full(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small disk takes Linux and root; the tests with a pretended one cover the same code")
    try:
        writer = writer_of(disk / "log")
        written, message = write_until_it_fails(writer)
        assert written > 3
        assert "No space left on device" in message
        log = open_log(disk / "log")
        assert log.keys == tuple(range(written))
        for key, episode in enumerate(log):
            assert_same(episode_of(key, key, steps=100), episode)
        assert not list((disk / "log").rglob("*.tmp"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def read_only(monkeypatch):
    """What a read-only medium answers, also to root."""
    opened = os.open

    def refuse(path, flags, *rest, **named):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return opened(path, flags, *rest, **named)

    path_open = Path.open

    def refuse_path(path, mode="r", *rest, **named):
        if set(mode) & set("wa+x"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return path_open(path, mode, *rest, **named)

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(Path, "open", refuse_path)
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)


def test_a_read_only_medium_is_read_and_not_written(tmp_path, monkeypatch):
    with writer_of(tmp_path) as writer:
        writer.write([episode_of(0)])
    main = tmp_path / "data" / "main_data.hdf5"
    main.unlink()
    with monkeypatch.context() as patch:
        read_only(patch)
        assert open_log(tmp_path).keys == (0,)
        assert not main.exists()
        with pytest.raises(StorageError, match=r"cannot take a log: .*give another folder, or make this one writable"):
            writer_of(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file` cannot take a log: .*Nothing was written"):
        writer_of(tmp_path / "file")
    with pytest.raises(StorageError, match=r"cannot take a log: Not a directory"):
        writer_of(tmp_path / "file" / "below")
    with monkeypatch.context() as patch:
        read_only(patch)
        with pytest.raises(StorageError, match=r"cannot take a log: .*Nothing was written"):
            writer_of(tmp_path / "fresh")


def test_another_environments_log_is_refused(tmp_path):
    with writer_of(tmp_path) as writer:
        writer.write([episode_of(0)])
    with pytest.raises(StorageError, match=r"holds a log of env_id Toy-v0, not Other-v0: give another folder"):
        writer_of(tmp_path, env_id="Other-v0")
    with pytest.raises(StorageError, match="holds a log of action_space"):
        writer_of(tmp_path, action_space=gym.spaces.Discrete(2))
    assert open_log(tmp_path).keys == (0,)


def test_a_folder_without_a_log_is_refused(tmp_path):
    with pytest.raises(StorageError, match=r"holds no log: there is no data/metadata.json in it"):
        open_log(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "metadata.json").write_text('{"dataset_id": "somebody/elses-v0"}')
    with pytest.raises(StorageError, match="holds no log that can be read"):
        open_log(tmp_path)


def test_a_damaged_shard_is_named_and_the_others_open_without_it(tmp_path):
    with writer_of(tmp_path) as writer:
        writer.write([episode_of(0)])
        writer.write([episode_of(1)])
    damaged = shard_files(tmp_path)[0]
    damaged.write_bytes(damaged.read_bytes()[:1000])
    with pytest.raises(StorageError, match=rf"{damaged.name}` is not a readable shard .*: move it out of the folder"):
        open_log(tmp_path)[0]
    (tmp_path / "data" / "main_data.hdf5").unlink()
    with pytest.raises(StorageError, match=damaged.name):
        open_log(tmp_path)
    damaged.rename(tmp_path / "damaged.hdf5")
    assert open_log(tmp_path).keys == (1,)


def test_what_a_killed_writer_did_not_finish_is_ignored(tmp_path):
    with writer_of(tmp_path) as writer:
        writer.write([episode_of(0)])
    (tmp_path / "data" / "shards" / "20990101-1-abc-000000.hdf5.123.tmp").write_bytes(b"half a shard")
    (tmp_path / "data" / "main_data.hdf5.123.tmp").write_bytes(b"half an index")
    assert open_log(tmp_path).keys == (0,)


CHILD = """
import hashlib, sys
import numpy as np
from gymnasium.spaces import Box
from offline_eval.datasets.log import ShardWriter
from offline_eval.datasets.recorder import LoggedEpisode

folder, start, step = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
spaces = {"observation_space": Box(-1, 1, (4,), np.float64), "action_space": Box(-1, 1, (1,))}
writer = ShardWriter(folder, env_id="Toy-v0", index_interval=0.0, **spaces)
for key in range(start, start + 100 * step, step):
    rng = np.random.default_rng(key)
    steps = int(rng.integers(1, 400))
    flags, actions = np.zeros(steps, dtype=bool), rng.normal(size=(steps, 1))
    arrays = rng.normal(size=(steps + 1, 4)), actions, actions, rng.normal(size=steps), flags, flags
    writer.write([LoggedEpisode(*arrays, key=key)])
    print(key, hashlib.sha256(arrays[0].tobytes() + actions.tobytes() + arrays[3].tobytes()).hexdigest(), flush=True)
writer.close()
"""


def digest(episode: LoggedEpisode) -> str:
    arrays = (episode.observations, episode.actions, episode.rewards)
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def child(tmp_path, *arguments) -> subprocess.Popen:
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    command = [sys.executable, "-P", str(script), *map(str, arguments)]
    return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_five_kills_lose_no_finished_episode(tmp_path):
    reported: dict[int, str] = {}
    for kill in range(5):
        with child(tmp_path, tmp_path / "log", 100 * kill, 1) as process:
            lines = [process.stdout.readline() for _ in range(3 + kill)]
            time.sleep(0.003 * kill)  # another moment every time
            process.send_signal(signal.SIGKILL)
            lines += process.stdout.readlines()
        reported |= {int(key): value for key, value in (line.split() for line in lines if line.endswith("\n"))}
        log = open_log(tmp_path / "log")
        found = {episode.key: digest(episode) for episode in log}
        assert found.items() >= reported.items()
        assert len(found) <= len(reported) + kill + 1  # at most the one in flight more, of each child
    assert len(reported) >= 3 + 4 + 5 + 6 + 7


def test_processes_write_side_by_side(tmp_path):
    processes = [child(tmp_path, tmp_path / "log", start, 2) for start in (0, 1, 0)]
    reported = dict(line.split() for process in processes for line in process.communicate()[0].splitlines())
    assert [process.returncode for process in processes] == [0, 0, 0]
    log = open_log(tmp_path / "log")
    assert log.keys == tuple(range(200))  # the third played what the first did
    assert {str(episode.key): digest(episode) for episode in log} == reported
    assert json.loads((tmp_path / "log" / "data" / "metadata.json").read_text())["total_episodes"] == 200
