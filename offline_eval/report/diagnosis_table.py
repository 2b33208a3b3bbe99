"""A diagnosis on a terminal, 80 columns wide: the verdict first, then what it stands on."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from math import nan
from typing import Any

from offline_eval.report.diagnosis_chapter import STEPS, rung_name, share_reading
from offline_eval.report.reading import Reading, bounds, summary_reading
from offline_eval.report.tables import MARK, columns, interval, number

_WIDTH = 80


def diagnosis_table(found: Mapping[str, Any]) -> str:
    """The object of `diagnose --json` as text; what was measured beside is `measurement_table`'s."""
    verdict, about, manifest = found["verdict"], found["ladder_range"], found["manifest"]
    lines = [*_wrapped(f"{manifest['agent']} on {manifest['env']}"), "", *_wrapped(verdict["sentence"]), ""]
    cells = [("bottleneck", "worth", "95 % interval")]
    for name, (title, _, _) in STEPS.items():
        share = share_reading(verdict["shares"].get(name))
        shown = interval(share.interval) if share.interval else ""
        cells.append((title, number(share.value) if share.known else "cannot tell", shown))
    lines += [*columns(cells, "<>>"), ""]
    unit = number(_float(about["range"]))
    lines += _wrapped(f"in parts of the ladder's range, {unit} of return from its worst end to its best")
    rungs = [("rung", "mean", "minus the policy", "in parts")]
    for rung in found["ladder"]:
        paired, gain = rung.get("paired"), share_reading(rung.get("gain"))
        gained = Reading(_float(paired["mean_difference"]), bounds(paired["ci95"])) if paired else None
        title = f"{rung_name(rung)} (segments)" if rung["unit"] == "segment" else rung_name(rung)
        mean = number(summary_reading(rung["summary"]).value)
        parts = number(gain.value, signed=True) if gain.known else ""
        rungs.append((title[:36], mean, gained.text(signed=True) if gained else "", parts))
    lines += ["", *columns(rungs, "<>>>"), ""]
    lines += [line for name, reason in about["missing"].items() for line in _wrapped(f"not played: {name}: {reason}")]
    if about["missing"]:
        lines.append("")
    lines += [line for words in verdict["evidence"] for line in _wrapped(f"- {words}")]
    advice = verdict["recommendation"]
    lines += ["", *_wrapped(f"next: {advice['sentence']}")]
    if advice["command"]:
        lines += ["", f"    {advice['command']}"]
    caveats = dict.fromkeys(
        share["caveat"] for share in verdict["shares"].values() if share is not None and share.get("caveat")
    )
    notes = dict.fromkeys([*found["performance"].get("notes", ()), *manifest.get("notes", ())])
    lines += [line for note in notes for line in _wrapped(f"note: {note}")]
    return "\n".join([*lines, *(line for words in caveats for line in _wrapped(f"{MARK} {words}"))])


def _wrapped(words: str) -> list[str]:
    return textwrap.wrap(words, _WIDTH, subsequent_indent="  ", break_long_words=False)


def _float(value: Any) -> float:
    return nan if value is None else float(value)
