"""What is said of a critic before it steers."""

from __future__ import annotations

from offline_eval.diagnostics.traps import Traps, TrapSign
from offline_eval.report.tables import columns, interval, number
from offline_eval.studies.measurement_records import Skipped

_ASKED = {
    "trajectory tau": "warns below {:g}: the critic does not rank the states of an episode by their returns",
    "bias": "warns beyond {:g}: what the critic says is not the size of the returns",
    "disagreement": "warns above {:g}: the critic's heads differ, beside how much their values vary",
}


def trap_lines(traps: Traps | Skipped, num_episodes: int) -> list[str]:
    """A table of the three signs, and what they mean; 80 columns."""
    if isinstance(traps, Skipped):
        return [f"signs of a wrong critic: none could be looked for. {traps.reason}"]
    cells = [(sign.name, *_value(sign)) for sign in traps.signs]
    lines = [
        f"signs of a wrong critic, on the first half of {num_episodes} plain episodes",
        *(f"  {line}" for line in columns(cells, "<><")),
    ]
    lines += [f"  {sign.name} {_ASKED[sign.name].format(sign.threshold)}" for sign in traps.raised]
    lines += [f"  {sign.name}: {sign.reason}" for sign in traps.signs if sign.raised is None]
    if traps.raised:
        lines.append("  steering by this critic may do harm. The thresholds come from few agents.")
    return lines


def _value(sign: TrapSign) -> tuple[str, str]:
    if sign.value is None:
        return "cannot be told", ""
    return f"{number(sign.value.value)} {interval(sign.value.ci95)}", "WARNS" if sign.raised else "ok"
