"""A few of the calls of `benchmarks/fuzz_command_line.py`, and whether it would notice a fault."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "fuzz_command_line.py"

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def test_every_argument_of_every_command_is_tried():
    spec = importlib.util.spec_from_file_location("fuzz_command_line", SCRIPT)
    fuzz = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = fuzz
    spec.loader.exec_module(fuzz)
    tried = {(call.command, call.argument) for call in fuzz.all_calls()}
    from offline_eval.cli import build_parser

    wanted = {
        (command, max(action.option_strings, key=len, default="") or action.dest)
        for command, actions in fuzz.leaves(build_parser())
        for action in actions
    }
    assert {pair for pair in wanted - tried if pair[0] not in fuzz.LONG} == set()
    assert len(tried) > 150
    ending = fuzz.Ending(70, 1.0, 2 << 30, "", "Traceback (most recent call last)\n\x1b[2J")
    assert ending.faults() == ["exit code 70", "traceback", "control characters", "2.00 GB"]
    assert fuzz.Ending(-9, 1.0, 1, "", "").faults() == ["not over in time"]
    assert fuzz.Ending(2, 1.0, 1, "", "something else\n").faults() == ["no last line that says why"]


def test_some_calls_end_in_a_result_or_in_one_line():
    done = subprocess.run(
        [sys.executable, SCRIPT, "--calls", "12", "--seed", "5"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tracebacks 0, hangs 0, other faults 0" in done.stdout
