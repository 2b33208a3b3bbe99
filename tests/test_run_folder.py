"""A run on disk: killed and resumed, it ends in the identical table."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from environments import Counter, Zero
from episode_stores import MemoryStore

from offline_eval.cli import main
from offline_eval.datasets.log import open_log
from offline_eval.episodes import Episode, EpisodePlan, evaluate
from offline_eval.errors import InputError, StorageError
from offline_eval.run_folder import RunFolder, plan_to_json, read_episodes

PLAN = EpisodePlan.seeded(3, seed=4)
ASKED = {
    "env": "Counter",
    "agents": {"zero": None},
    "plan": plan_to_json(PLAN),
    "variants": {"plain": None},
    "options": {},
}


def episode(index, value=1 / 3, **fields):
    return Episode(index, 4 + index, value, 7, True, False, **fields)


def test_episodes_survive_as_they_were(tmp_path):
    folder = RunFolder(tmp_path, ASKED)
    written = [
        episode(2, success=True, steering={"displacement": 0.1 + 0.2}),
        episode(0, 1e-17),
        episode(1, float("nan"), failed='Error: a "quoted", broken\tone'),
    ]
    for one in written:
        folder.record("plain", one)
    again = RunFolder(tmp_path, ASKED, resume=True)
    assert again.done("plain") == [written[1], written[0]]  # in the plan's order; the failed one is played again
    assert [e.failed for e in read_episodes(tmp_path)["plain"]] == [None, 'Error: a "quoted", broken\tone', None]


def test_a_torn_last_row_is_played_again(tmp_path):
    folder = RunFolder(tmp_path, ASKED)
    folder.record("plain", episode(0))
    folder.record("plain", episode(1))
    table = tmp_path / "episodes.csv"
    table.write_bytes(table.read_bytes()[:-9])
    assert RunFolder(tmp_path, ASKED, resume=True).done("plain") == [episode(0)]


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path):
    RunFolder(tmp_path, ASKED)
    with pytest.raises(InputError, match="`out` must be a new folder"):
        RunFolder(tmp_path, ASKED)


def test_only_the_same_run_is_resumed(tmp_path):
    RunFolder(tmp_path, ASKED)
    with pytest.raises(InputError, match="the folder's env is 'Counter'"):
        RunFolder(tmp_path, {**ASKED, "env": "Hopper-v5"}, resume=True)


def test_the_manifest_says_how_it_was_made(tmp_path):
    folder = RunFolder(tmp_path, ASKED)
    evaluation = evaluate(Zero(), lambda: Counter(3), PLAN, store=folder.of("plain"))
    folder.finish({"plain": evaluation}, {"anything": 1})
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["finished"]
    assert manifest["env"] == "Counter"
    assert manifest["plan"] == [[4, None], [5, None], [6, None]]
    assert manifest["weights_hash"] == {"plain": {"before": None, "after": None}}
    assert {"python", "gymnasium", "torch", "offline-eval"} <= manifest["versions"].keys()


def test_a_full_disk_is_one_clear_line(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path, ASKED)
    folder.record("plain", episode(0))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder, "_append", full)
    with pytest.raises(StorageError, match=r"`out` cannot be written: .*: No space left on device\. Episodes"):
        folder.record("plain", episode(1))


def stopped_after(monkeypatch, number):
    """From here on, a run is stopped as by Ctrl-C once so many episodes are recorded."""
    record, recorded = RunFolder.record, []

    def recording(folder, *arguments):
        record(folder, *arguments)
        recorded.append(arguments)
        if len(recorded) == number:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "record", recording)


def test_stop_and_resume_end_in_the_identical_table(tmp_path, sac_file, monkeypatch, capsys):
    words = [
        "evaluate",
        str(sac_file),
        "--env",
        "Pendulum-v1",
        "--step-limit",
        "20",
        "--episodes",
        "6",
        "--n-envs",
        "1",
    ]
    words += ["--workers", "1"]
    undisturbed, stopped = tmp_path / "undisturbed", tmp_path / "stopped"
    assert main([*words, "--out", str(undisturbed)]) == 0
    with monkeypatch.context() as patched:
        stopped_after(patched, 3)
        assert main([*words, "--out", str(stopped)]) != 0
    assert (stopped / "episodes.csv").read_text().count("\n") == 1 + 3
    assert main([*words, "--out", str(stopped), "--resume"]) == 0
    assert (stopped / "episodes.csv").read_bytes() == (undisturbed / "episodes.csv").read_bytes()


def test_kill_and_resume_end_in_the_identical_table_and_states(tmp_path, sac_file):
    words = ["evaluate", str(sac_file), "--env", "Pendulum-v1", "--episodes", "12", "--n-envs", "1", "--workers", "1"]
    words += ["--log-states"]
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert main([*words, "--out", str(undisturbed)]) == 0
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "offline_eval", *words, "--out", killed],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
    )
    table = killed / "episodes.csv"
    deadline = time.monotonic() + 60
    while child.poll() is None and time.monotonic() < deadline:
        if table.exists() and table.read_text().count("\n") > 3:
            os.kill(child.pid, signal.SIGKILL)
            break
        time.sleep(0.005)
    child.wait()
    assert child.returncode == -signal.SIGKILL, "the run ended before it could be killed: give it more episodes"
    finished = table.read_text().count("\n") - 1
    assert finished < 12
    assert main([*words, "--out", str(killed), "--resume"]) == 0
    assert table.read_bytes() == (undisturbed / "episodes.csv").read_bytes()
    logs = [open_log(folder / "states" / "plain") for folder in (undisturbed, killed)]
    returns = [{episode.key: episode.episode_return for episode in log} for log in logs]
    assert len(returns[0]) == 12
    assert returns[0] == returns[1]


def test_a_row_of_another_seed_than_the_plan_s_is_refused():
    kept = evaluate(Zero(), lambda: Counter(3), EpisodePlan.seeded(3, seed=5)).episodes
    plan = EpisodePlan.seeded(4, seed=5)
    assert evaluate(Zero(), lambda: Counter(3), plan, store=MemoryStore({"": kept})).episodes[:3] == kept
    moved = replace(kept[1], seed=9)
    with pytest.raises(InputError, match="Received entry 1 with seed 9"):
        evaluate(Zero(), lambda: Counter(3), plan, store=MemoryStore({"": [kept[0], moved]}))
    with pytest.raises(InputError, match="which has 4 entries"):
        evaluate(Zero(), lambda: Counter(3), plan, store=MemoryStore({"": [replace(kept[1], index=4)]}))
