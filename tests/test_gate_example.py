"""The gate of the documentation is the one that continuous integration runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from offline_eval.testing.settings import MARKER_WORDS, OPTIONS

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "continuous_integration.md").read_text()
CI = (ROOT / ".ci" / "run").read_text()
EXAMPLE = ROOT / "examples" / "ci_gate"


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return found


def commands(lines: str) -> list[str]:
    return [line.strip() for line in lines.splitlines() if line.strip()]


def test_the_tox_file_of_the_page_is_that_of_the_example():
    assert block("ini").removeprefix("# tox.ini\n") == (EXAMPLE / "tox.ini").read_text()


def test_both_run_what_continuous_integration_runs():
    by_tox = commands(block("ini").partition("commands =\n")[2])
    by_actions = re.findall(r"- run: (.*)", block("yaml"))
    assert len(by_tox) == 2
    assert by_actions == [by_actions[0], *by_tox]
    assert shlex.split(by_actions[0])[:2] == ["pip", "install"]
    assert set(by_tox) <= set(commands(CI))


def test_every_option_of_the_page_exists_and_every_option_is_on_it():
    assert set(re.findall(r"`--offline-eval-(\w+)", PAGE)) == set(OPTIONS)
    assert set(re.findall(r"`offline_eval_(\w+)`", PAGE)) >= {*OPTIONS, "states", "agent", "critic", "dataset", "plan"}
    for word in MARKER_WORDS:
        assert f"`{word}`" in PAGE
