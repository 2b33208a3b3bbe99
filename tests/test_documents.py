"""Examples run, and the README's Python is Python that runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_an_example_runs(example, sac_file, tmp_path):
    lines = example.read_text().splitlines()
    assert len([line for line in lines if line and not line.startswith('"""')]) < 15
    command = [sys.executable, "-P", str(example), str(sac_file), "Pendulum-v1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.match(r"return -\d+\.\d", done.stdout)


def test_the_python_of_the_readme_runs(sac_file, tmp_path, capsys):
    block, gate = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    code = block.replace('"sac-Hopper-v3.zip"', repr(str(sac_file))).replace("Hopper-v5", "Pendulum-v1")
    exec(compile(code.replace("seeded(100,", "seeded(2,"), "README.md", "exec"), {})
    mean, record = capsys.readouterr().out.split(" ", 1)
    assert float(mean) < 0
    assert record.startswith("PairedDifference(n=2,")
    names: dict[str, object] = {}
    exec(compile(gate, "README.md", "exec"), names)  # test_pytest_plugin.py runs such a test
    assert callable(names["test_policy_holds"])


def test_links_between_documents_lead_somewhere():
    for document in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
