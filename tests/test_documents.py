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


def test_the_python_of_the_readme_runs(sac_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train, block, gate = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    exec(compile(train.replace("learn(4_000)", "learn(100)"), "README.md", "exec"), {})
    assert Path("agent.zip").exists()
    code = block.replace('"agent.zip"', repr(str(sac_file)))
    exec(compile(code.replace("seeded(100,", "seeded(2,"), "README.md", "exec"), {})
    mean, record = capsys.readouterr().out.split(" ", 1)
    assert float(mean) < 0
    assert record.startswith("PairedDifference(n=2,")
    names: dict[str, object] = {}
    exec(compile(gate, "README.md", "exec"), names)  # test_pytest_plugin.py runs such a test
    assert callable(names["test_policy_holds"])


DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def names_of(text):
    """Names that a page says can be imported: dotted ones, and those of its `from ... import` lines."""
    # `offline_eval.assert_...` are properties in JUnit's XML, and not names of Python's.
    yield from re.findall(r"`(offline_eval(?:\.(?!assert_)\w+)+)", text)
    for module, names in re.findall(r"^\s*from (offline_eval[\w.]*) import ([\w, ]+)$", text, re.MULTILINE):
        yield from (f"{module}.{name.split(' as ')[0].strip()}" for name in names.split(","))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_a_name_that_a_page_mentions_exists(document):
    missing = []
    for dotted in dict.fromkeys(names_of(document.read_text())):
        package, _, name = dotted.rpartition(".")
        try:
            exec(f"from {package} import {name}", {})
        except ImportError as error:
            missing.append(str(error))
    assert not missing


@pytest.mark.parametrize("name", ["window_kendall_tau", "window_rank", "action_rank", "action_spread", "find_signs"])
def test_diagnostics_offers_what_its_modules_have(name):
    # A fresh process: what was imported before must not decide what a name is.
    words = f"""
import offline_eval.diagnostics.q_bias
import offline_eval.diagnostics.coverage
from offline_eval.diagnostics.q_bias import ValueSample
from offline_eval import diagnostics
from offline_eval.diagnostics import {name}, coverage, policy_error, q_bias, q_rank
assert callable({name}) and callable(q_bias) and callable(policy_error) and callable(coverage)
assert diagnostics.q_bias is q_bias and q_rank.window_rank and "{name}" in dir(diagnostics)
assert all(hasattr(diagnostics, other) for other in diagnostics.__all__)
"""
    done = subprocess.run([sys.executable, "-P", "-c", words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_bottleneck_is_one_of_five_words():
    from typing import get_args, get_type_hints

    from offline_eval.diagnosis.records import Verdict

    words = get_args(get_type_hints(Verdict)["bottleneck"])
    assert words == ("value", "extraction", "generalisation", "none", "unknown")


def test_links_between_documents_lead_somewhere():
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"
