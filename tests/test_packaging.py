"""The wheel holds the source tree and nothing else, imports quickly, and ignores a person's own modules."""

from __future__ import annotations

import ast
import configparser
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
IMPORT_LIMIT = 0.5  # seconds for `import offline_eval` and `offline-eval --help`, start of Python included


def run(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=cwd, capture_output=True, text=True, check=False
    )


def source_files() -> set[str]:
    files = {path.relative_to(ROOT) for path in (ROOT / "offline_eval").rglob("*")}
    mapped = {str(path) for path in files if path.suffix in {".py", ".typed", ".html", ".css"}}
    for folder in ("wrappers", "policies"):
        mapped |= {f"offline_eval/{path.relative_to(ROOT)}" for path in (ROOT / folder).rglob("*.py")}
    return mapped


def test_setup_cfg_names_every_package():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    named = set(config["options"]["packages"].split())
    packages = [Path(name).parent for name in source_files() if name.endswith("__init__.py")]
    assert named == {str(package).replace("/", ".") for package in packages}


def test_the_wheel_is_the_source_tree(tmp_path):
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, ROOT],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == source_files()


def test_import_needs_neither_torch_nor_time(tmp_path):
    done = run(
        """
        import sys, time
        start = time.perf_counter()
        import offline_eval
        from offline_eval.cli import build_parser
        build_parser().format_help()
        print(time.perf_counter() - start)
        print(sorted({"torch", "stable_baselines3", "scipy", "gymnasium", "h5py"} & set(sys.modules)))
        """,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    seconds, heavy = done.stdout.splitlines()
    assert heavy == "[]"
    assert float(seconds) < IMPORT_LIMIT


def test_names_of_the_quick_start_come_lazily(tmp_path):
    done = run(
        """
        import offline_eval
        missing = [name for name in offline_eval.__all__ if not hasattr(offline_eval, name)]
        print(missing)
        """,
        tmp_path,
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_a_persons_own_modules_change_nothing(tmp_path):
    for name in ("wrappers", "policies", "stats"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('somebody imported my module')\n")
    script = "from offline_eval import OPEX, load_sb3\nprint(OPEX.__module__, load_sb3.__module__)\n"
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["offline_eval.wrappers.steering", "offline_eval.policies.loading"]


def test_the_folders_do_not_leak_as_top_level_modules(tmp_path):
    done = run("import offline_eval, wrappers", tmp_path)
    assert "No module named 'wrappers'" in done.stderr


def lazy_packages():
    folders = [ROOT / "offline_eval", ROOT / "wrappers", ROOT / "policies"]
    return sorted(
        path
        for folder in folders
        for path in folder.rglob("__init__.py")
        if "lazy_names(" in path.read_text(encoding="utf-8")
    )


@pytest.mark.parametrize("path", lazy_packages(), ids=lambda path: path.parent.name)
def test_a_type_checker_sees_the_names_that_are_there_and_no_others(path):
    """Each lazy name is imported for type checkers, and `__getattr__`, which gives any name, is hidden from them."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    seen = {
        alias.asname
        for block in tree.body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for line in block.body
        if isinstance(line, ast.ImportFrom)
        for alias in line.names
    }
    (home,) = (
        line.value
        for line in tree.body
        if isinstance(line, ast.Assign | ast.AnnAssign) and "_HOME" in ast.unparse(line).partition("=")[0]
    )
    assert seen == {key.value for key in home.keys}
    assert "__getattr__" not in {
        ast.unparse(line).partition(",")[0] for line in tree.body if isinstance(line, ast.Assign)
    }
