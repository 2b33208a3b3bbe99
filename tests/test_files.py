"""Files under names that others know: nothing is waited for, nothing followed, nothing written elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from offline_eval.datasets.sharing import remove_abandoned
from offline_eval.episodes import Episode
from offline_eval.errors import InputError, StorageError
from offline_eval.files import FolderLock, locked, open_regular, write_durably
from offline_eval.report.page import page
from offline_eval.report.runs import read_run
from offline_eval.run_folder import RunFolder, folder_name, read_episodes
from offline_eval.steering.pairs import read_pairs

pytestmark = pytest.mark.skipif(os.name == "nt", reason="there are no FIFOs")

ASKED = {"env": "Toy-v0", "agents": {}, "plan": [[0, None]], "variants": {"plain": None}, "options": {}}
HELD = """
import sys
from pathlib import Path
from offline_eval.files import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def abandoned(place: Path, name: str) -> Path:
    folder = place / f"offline-eval-shared-{name}"
    folder.mkdir()
    return folder


def test_what_strangers_leave_for_us_is_neither_waited_for_nor_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "in-use.lock").touch()
    place = tmp_path / "shm"
    place.mkdir()
    os.mkfifo(abandoned(place, "fifo") / "in-use.lock")
    (place / "offline-eval-shared-link").symlink_to(victim)
    (abandoned(place, "inner") / "in-use.lock").symlink_to(victim / "in-use.lock")
    (abandoned(place, "folder") / "in-use.lock").mkdir()
    (place / "offline-eval-shared-file").touch()
    (abandoned(place, "ours") / "in-use.lock").touch()
    if os.getuid() == 0:
        foreign = abandoned(place, "foreign")
        (foreign / "in-use.lock").touch()
        os.chown(foreign / "in-use.lock", 12345, 12345)
    remove_abandoned(place)
    left = {path.name.rpartition("-")[2] for path in place.iterdir()}
    assert left - {"foreign"} == {"fifo", "link", "inner", "folder", "file"}
    assert ("foreign" in left) == (os.getuid() == 0)
    assert (victim / "in-use.lock").exists()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/null", path)])
def test_a_lock_is_a_regular_file(tmp_path, make):
    make(tmp_path / "lock")
    with pytest.raises(OSError, match=r".+"), locked(tmp_path / "lock"):
        pass
    with pytest.raises(OSError, match=r".+"):
        open_regular(tmp_path / "lock")


def test_a_link_that_lies_in_wait_is_not_written_through(tmp_path):
    victim, place = tmp_path / "victim", tmp_path / "result.json"
    victim.write_text("mine")
    place.symlink_to(victim)
    write_durably(place, b"{}")
    assert (victim.read_text(), place.read_text(), place.is_symlink()) == ("mine", "{}", False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result.json", "victim"]


def test_a_folder_belongs_to_one_process(tmp_path):
    other = subprocess.Popen(
        [sys.executable, "-P", "-c", HELD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StorageError, match="is being written by another process"):
            RunFolder(tmp_path, ASKED)
        assert list(tmp_path.iterdir()) == []
        other.stdin.close()
        other.wait()
    first = FolderLock(tmp_path)
    assert RunFolder(tmp_path, ASKED) is not None  # the same process may
    first.release()


@pytest.mark.parametrize("name", ["..", ".", "", "/etc", "../../x", "...", "a" * 300, "\N{SNOWMAN}" * 200])
def test_a_name_is_one_folder_inside_of_another(tmp_path, name):
    folder = (tmp_path / "runs" / folder_name(name)).resolve()
    assert folder.parent == tmp_path / "runs"
    folder.mkdir(parents=True)


def test_names_that_are_shortened_stay_different():
    assert folder_name("best of 4") == "best-of-4"
    assert folder_name("a" * 300) != folder_name("a" * 301)
    assert folder_name("..") != folder_name(".")


ROW = "plain,1,5,1.5,7,1,0,,,\n"
DAMAGED = {
    "a word for a number": b"plain,1,five,1.5,7,1,0,,,\n",
    "a short row": b"plain,1,5\n",
    "a NUL": b"plain,\x001,5,1.5,7,1,0,,,\n",
    "no UTF-8": b"pl\xff\xfe,1,5,1.5,7,1,0,,,\n",
    "a long field": b"plain,1,5,1.5,7,1,0,," + b"x" * 140_000 + b",\n",
    "a huge number": b"plain," + b"9" * 5000 + b",5,1.5,7,1,0,,,\n",
    "no object": b"plain,1,5,1.5,7,1,0,,,[1]\n",
    "deep": b'plain,1,5,1.5,7,1,0,,,"' + b"[" * 100_000 + b'"\n',
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_table_is_one_line_that_says_where(tmp_path, kind):
    RunFolder(tmp_path, ASKED).record("plain", Episode(0, 4, 1.0, 7, True, False))
    with (tmp_path / "episodes.csv").open("ab") as table:
        table.write(DAMAGED[kind] + ROW.encode())
    for read in (lambda: RunFolder(tmp_path, ASKED, resume=True), lambda: read_episodes(tmp_path)):
        with pytest.raises(StorageError, match=r"episodes\.csv is damaged at row ") as caught:
            read()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500


def test_a_failure_with_a_long_message_can_be_read_back(tmp_path):
    RunFolder(tmp_path, ASKED).record("plain", Episode(0, 4, float("nan"), 7, False, False, failed="x" * 200_000))
    (found,) = read_episodes(tmp_path)["plain"]
    assert found.failed == "x" * 1000


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[" * 100_000, b"{", b"[]", b'{"options": 1}', b""])
def test_a_damaged_manifest_is_one_line(tmp_path, content):
    RunFolder(tmp_path, ASKED)
    (tmp_path / "manifest.json").write_bytes(content)
    for read in (lambda: RunFolder(tmp_path, ASKED, resume=True), lambda: read_run(tmp_path)):
        with pytest.raises((StorageError, InputError)) as caught:
            read()
        assert "\n" not in str(caught.value)


def test_a_manifest_that_is_a_fifo_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "manifest.json")
    with pytest.raises(StorageError):
        RunFolder(tmp_path, ASKED, resume=True)


SUMMARY = {"mean": 1.0, "ci95": [0.0, 2.0], "iqm": 1.0, "iqm_ci95": [0.0, 2.0], "median": 1.0, "std": 1.0}
RESULT = {"env": "Toy-v0", "algorithm": "PPO", "episodes": [], "summary": SUMMARY, "notes": []}


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("summary", {**SUMMARY, "mean": "many"}),
        ("summary", {**SUMMARY, "ci95": [1]}),
        ("summary", {**SUMMARY, "ci95": ["a", "b"]}),
        ("manifest", {"plan": [["a", None], [1, None]]}),
        ("manifest", {"weights_hash": {"plain": 1}}),
        ("manifest", {"weights_hash": [1]}),
        ("manifest", {"wall_time": {"plain": "long"}}),
        ("manifest", {"versions": ["torch"]}),
        ("manifest", "text"),
        ("notes", 5),
    ],
)
def test_a_result_with_a_wrong_part_is_one_line(tmp_path, part, value):
    file = tmp_path / "result.json"
    file.write_text(json.dumps({**RESULT, part: value}))
    with pytest.raises(InputError, match=r"`RUN` must") as caught:
        page([read_run(file)])
    assert "\n" not in str(caught.value)


def test_the_disk_is_asked_once(tmp_path):
    """A folder that went in the meantime is said to be gone; nothing is left beside it."""
    folder = RunFolder(tmp_path / "run", ASKED)
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(StorageError, match="cannot be written"):
        folder.record("plain", Episode(0, 4, 1.0, 7, True, False))


PAIR = {"name": "one", "agent": "a.zip", "env": "Toy-v0"}


@pytest.mark.parametrize(
    ("word", "value"),
    [
        *(("name", 5), ("agent", 5), ("agent", [1]), ("env", ["Toy-v0"]), ("critic", 5), ("normalize", {"a": 1})),
        *(("weaken", True), ("weaken", [1]), ("weaken", 1e400), ("seed", -1), ("seed", 1.5), ("seed", 2**70)),
        *(("episodes", "many"), ("episodes", 2.5), ("selection_episodes", True), ("tuning", "yes"), ("trap", 1)),
        ("two\nlines\x1b[2J", 1),
    ],
)
def test_a_pair_with_a_wrong_word_is_one_line(tmp_path, word, value):
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps({"pair": [{**PAIR, word: value}]}))
    with pytest.raises(InputError) as caught:
        read_pairs(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "content", ["", "pair = 5", "[[pair]]\nname = ..", "[pair]\nx = 1", "a = " + "[" * 5000, "\0", "pair = [1]"]
)
def test_a_damaged_file_of_pairs_is_one_line(tmp_path, content):
    path = tmp_path / "pairs.toml"
    path.write_text(content)
    with pytest.raises(InputError):
        read_pairs(path)
    os.mkfifo(tmp_path / "fifo.toml")
    with pytest.raises(InputError, match="must be an existing"):
        read_pairs(tmp_path / "fifo.toml")
