"""Imports run one way: the house of docs/house.md, asserted."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from importlib import util
from pathlib import Path

import pytest

# Each floor may import itself (where it is a package) and the floors below it; floors of one line do not meet.
FLOORS = [
    ["types", "errors", "lazy"],
    [
        *("batching", "checks", "spaces", "space_agreement", "stats", "environments", "provenance", "simulator"),
        *("processes", "files", "masking"),
    ],
    ["configured"],
    ["datasets"],
    ["policies", "wrappers", "diagnostics"],
    ["episodes", "problems"],
    ["run_folder"],
    ["measurement", "steering", "training"],
    ["diagnosis"],
    ["report"],
    ["testing"],
    ["cli", "pytest_plugin"],
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def package_folder(name: str) -> Path:
    spec = util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def modules() -> list[tuple[str, Path]]:
    found = []
    for name in ("offline_eval", "offline_eval.wrappers", "offline_eval.policies"):
        folder = package_folder(name)
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            dotted = ".".join([name, *(part for part in parts if part != "__init__")])
            found.append((dotted, path))
    return list(dict(found).items())


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import of {node.module}"
            names.add(node.module or "")
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name for name in names if name.startswith("offline_eval.")}


def room(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: value if isinstance(value, str) else "")
def test_imports_point_down(module, path):
    if module in ("offline_eval", "offline_eval.__main__"):
        return
    mine = room(module)
    assert mine in FLOOR_OF, f"{mine} has no floor yet: give it one in this test and in docs/house.md"
    for name in imported(path):
        other = room(name)
        assert other == mine or FLOOR_OF[other] < FLOOR_OF[mine], f"{module} imports {name}"


def test_every_module_was_seen():
    seen = {module for module, _ in modules()}
    assert {"offline_eval.types", "offline_eval.wrappers.host", "offline_eval.episodes.rollout"} <= seen


def test_no_files_go_in_a_circle():
    """Imports for types and inside functions count, too: who reads one file must read the other."""
    known = dict(modules())
    graph: dict[str, set[str]] = {}
    for module, path in known.items():
        if path.name == "__init__.py":  # offers names of its files, and none of them imports it
            continue
        graph[module] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                parts = {f"{node.module}.{alias.name}" for alias in node.names} & known.keys()
                graph[module] |= parts or {node.module}
    with_room = {module: {name for name in names if name in graph} for module, names in graph.items()}
    TopologicalSorter(with_room).prepare()  # raises CycleError, which names the files
