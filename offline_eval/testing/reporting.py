"""What a test run tells of its assertions: JUnit properties, a JSON file, one line an agent in the terminal.

Works on outcomes as plain data (`Outcome.to_json`), which is what a worker process can send.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any

from offline_eval.files import write_durably

OutcomeData = Mapping[str, Any]

_SCHEMA = 1
_SAID = {"holds": "held", "violated": "violated", "undecided": "undecided"}


def plain(outcome: Any) -> dict[str, Any]:
    """An outcome as data that JSON and other processes know; what is not finite becomes None."""
    data: dict[str, Any] = _finite(json.loads(json.dumps(outcome.to_json(), default=_as_number)))
    return data


def properties(outcome: OutcomeData, number: int) -> list[tuple[str, str]]:
    """Names and values for a test's JUnit `<properties>`.

    Args:
        outcome: of an assertion.
        number: which assertion of that name it is in its test, counted from 1.
    """
    prefix = f"offline_eval.{outcome['assertion']}" + (f".{number}" if number > 1 else "")
    told = [(f"{prefix}.{name}", str(outcome[name])) for name in ("agent", "env", "verdict", "episodes", "seeds")]
    rows: Sequence[Mapping[str, Any]] = outcome["rows"]
    for row in rows:
        name = prefix if len(rows) == 1 else f"{prefix}.{re.sub(r'[^a-z0-9]+', '_', row['label'].lower()).strip('_')}"
        told += [(f"{name}.value", _number(row["value"])), (f"{name}.interval", _interval(row["interval"]))]
        told += [(f"{name}.threshold", str(row["threshold"]))]
    return told


def agent_lines(outcomes: Iterable[OutcomeData]) -> list[str]:
    """One line for each agent and environment: how many assertions hold, and the first that does not."""
    groups: dict[tuple[str, str], list[OutcomeData]] = {}
    for outcome in outcomes:
        groups.setdefault((str(outcome["agent"]), str(outcome["env"])), []).append(outcome)
    lines = []
    for (agent, env), group in groups.items():
        verdicts = [outcome["verdict"] for outcome in group]
        counts = ", ".join(f"{verdicts.count(verdict)} {_SAID[verdict]}" for verdict in _SAID if verdict in verdicts)
        line = f"{agent} in {env}: {counts}; {max(outcome['episodes'] for outcome in group)} episodes"
        wrong = next((outcome for outcome in group if outcome["verdict"] != "holds"), None)
        lines.append(line if wrong is None else f"{line}; {_short(wrong)}")
    return lines


def write_json(path: Path, tests: Sequence[Mapping[str, Any]], versions: Mapping[str, str]) -> None:
    """Write the JSON file of a run: every test that asserted something, with its outcomes.

    Args:
        path: replaced as a whole.
        tests: each with `test`, `outcome` and `assertions`.
        versions: of what the numbers depend on.
    """
    content = {"schema": _SCHEMA, "versions": dict(versions), "tests": list(tests)}
    write_durably(path, (json.dumps(content, indent=2) + "\n").encode())


def _short(outcome: OutcomeData) -> str:
    rows = [f"{_number(row['value'])} {_interval(row['interval'])}, {row['threshold']}" for row in outcome["rows"][:1]]
    return ": ".join([f"{outcome['assertion']} {outcome['verdict']}", *rows])


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _interval(interval: Any) -> str:
    if interval is None:
        return ""
    low, high = (interval["low"], interval["high"]) if isinstance(interval, Mapping) else interval
    ends = _number(-inf if low is None else low), _number(inf if high is None else high)
    return f"[{ends[0]}, {ends[1]}]"


def _as_number(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and value - value != 0 else value
