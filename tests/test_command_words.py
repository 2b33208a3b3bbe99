"""Words of the command line that cannot be right: one line, exit code 2, and nothing heavy imported before it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from offline_eval.cli import main

ENV = ["--env", "Pendulum-v1"]
MISSING = [
    (["evaluate", "none.zip", *ENV], "`AGENT` must be an existing file"),
    (["compare", "none.zip", "other.zip", *ENV], "`AGENT` must be an existing file or folder"),
    (["steer", "agent.zip", *ENV, "--critic", "none.zip"], "`--critic` must be an existing file"),
    (["collect", "none.zip", *ENV, "--steps", "5", "--out", "new"], "`AGENT` must be an existing file"),
    (["train", "bc", "--dataset", "none.hdf5"], "`--dataset` must be an existing file or folder"),
    (["critic", "agent.zip", "--dataset", "none.hdf5", "--out", "q.zip"], "`--dataset` must be an existing"),
    (["measure", "agent.zip", *ENV, "--oracle", "none.zip"], "`--oracle` must be an existing file"),
    (["measure", "agent.zip", *ENV, "--reference", "none.zip"], "`--reference` must be an existing file"),
    (["diagnose", "agent.zip", *ENV, "--dataset", "d", "--critic-dataset", "none"], "`--critic-dataset` must be an"),
    (["evaluate", "agent.zip", *ENV, "--normalize", "none.pkl"], "`--normalize` must be an existing file"),
    (["track", "none", *ENV, "--dataset", "d"], "`RUN_DIR` must be an existing folder"),
    (["data", "check", "none.hdf5"], "`PATH` must be an existing file or folder"),
    (["report", "none"], "`RUN` must be an existing file or folder"),
]
WRONG = [
    (["evaluate", "agent.zip", *ENV, "--out", ""], "`--out` must not be empty"),
    (["evaluate", "agent.zip", "--env", ""], "`--env` must not be empty"),
    (["steer", "agent.zip", *ENV, "--critic", ""], "`--critic` must not be empty"),
    (["steer", "agent.zip", *ENV, "--ttt", ",,"], "`--ttt` must be numbers with commas"),
    (["steer", "agent.zip", *ENV, "--step-sizes", "0.1,nan"], "`--step-sizes` must be finite"),
    (["steer", "agent.zip", *ENV, "--proposal-std", "nan"], "`--proposal-std` must be finite"),
    (["evaluate", "agent.zip", *ENV, "--episodes", "9" * 18], "`--episodes` must be <= 1000000"),
    (["evaluate", "agent.zip", *ENV, "--step-limit", "9" * 18], "`--step-limit` must be <= 2147483647"),
    (["evaluate", "a" * 300, *ENV], "`AGENT` must have names of 255 bytes at most"),
    (["evaluate", "agent.zip", *ENV, "--out", "x/" + "a" * 300], "`--out` must have names of 255 bytes at most"),
    (["train", "bc", "--dataset", "d", "--out", "agent.zip/x"], "`--out` must lie in a folder"),
    (["critic", "agent.zip", "--dataset", "d", "--out", "agent.zip/q.zip"], "`--out` must lie in a folder"),
    (["evaluate", "agent.zip", *ENV, "--out", "m/" * 999 + "x"], "`--out` must lie in 200 folders at most"),
    (["evaluate", "agent.zip", *ENV, "--out", "/"], "`--out` must be new, or an empty folder"),
    (["train", "bc", "--dataset", "d", "--out", "."], "`--out` must be new, or an empty folder"),
    (["track", "d", *ENV, "--dataset", "d", "--out", "."], "`--out` must be new, or an empty folder"),
    (["demo", "--out", "/proc/x"], "`--out` must be a place to write to"),
    (["track", "d", *ENV, "--dataset", "d", "--out", "/dev/full"], "`--out` must be a file"),
    (["report", "fifo"], "`RUN` must be a file or a folder"),
    (["evaluate", "fifo", *ENV], "`AGENT` must be a file"),
    (["evaluate", "d", *ENV], "`AGENT` must be a file"),
    (["track", "agent.zip", *ENV, "--dataset", "d"], "`RUN_DIR` must be a folder"),
    (["data", "describe", "d\0x"], "`PATH` must"),
    (["evaluate", "no\x1b[2Jne\n.zip", *ENV], r"no\x1b[2Jne\n.zip"),
    (["train", "bc", "--dataset", "d", "--wrapper", "m:C"], "`--wrapper` needs the environment"),
    (["evaluate", "agent.zip", *ENV, "--env-kwargs", "g"], "`--env-kwargs` must be NAME=VALUE"),
    (["evaluate", "agent.zip", *ENV, "--env-kwargs", "g=1", "g=2"], "`--env-kwargs` must name each argument once"),
    (["evaluate", "agent.zip", *ENV, "--wrapper", "ClipAction"], "`--wrapper` must be module:Class"),
    (["evaluate", "agent.zip", *ENV, "--wrapper", "gymnasium.wrappers:None1"], "`--wrapper` must name what can be"),
    (["evaluate", "agent.zip", *ENV, "--wrapper", "gymnasium.wrappers:ClipAction(exit())"], "`--wrapper` must be mod"),
]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "agent.zip").write_bytes(b"PK")
    (tmp_path / "d").mkdir()
    os.mkfifo(tmp_path / "fifo")
    return tmp_path


@pytest.mark.skipif(os.name == "nt", reason="there are no FIFOs")
@pytest.mark.parametrize(("words", "message"), [*MISSING, *WRONG], ids=lambda v: " ".join(v)[:60].encode().hex()[:16])
def test_a_word_that_cannot_be_right_is_one_line(capsys, place, words, message):
    before = sorted(path.name for path in place.rglob("*"))
    assert main(words) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert "\x1b" not in captured.err
    assert sorted(path.name for path in place.rglob("*")) == before


def test_what_is_missing_is_found_before_anything_heavy_is_imported(place):
    code = f"""
import sys
from offline_eval.cli import main
for words in {[words for words, _ in MISSING]!r}:
    assert main(words) == 2, words
assert not {{"torch", "stable_baselines3", "scipy", "h5py", "pandas"}} & set(sys.modules), sys.modules
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(os.name == "nt", reason="there is no /dev/full")
@pytest.mark.parametrize("words", ["report result.json", "--version", "report none"])
@pytest.mark.parametrize("streams", [">/dev/full", ">&-", "2>&-", ">&- 2>&- <&-", "2>/dev/full", "| true"])
def test_streams_that_take_nothing_end_in_a_line_at_most(place, words, streams):
    command = f'exec "{sys.executable}" -P -m offline_eval {words} {streams}'
    done = subprocess.run(["bash", "-c", command], cwd=place, capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert done.stderr.count("\n") <= 1
