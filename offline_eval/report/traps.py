"""What is said of a critic before it steers."""

from __future__ import annotations

from textwrap import wrap

from offline_eval.diagnostics.traps import Traps, TrapSign
from offline_eval.measurement.records import Skipped
from offline_eval.report.tables import columns, interval, number

_MEANT = {
    "trajectory tau": "below {:g}: it misranks the states of an episode's first half",
    "bias": "beyond {:g}: its values are not of the size of the returns",
    "disagreement": "above {:g}: its heads differ, beside how much values vary",
}


def trap_lines(traps: Traps | Skipped, num_episodes: int) -> list[str]:
    """A table of the three signs, and what they mean; 80 columns. No warning is no praise: a bias of .5 gives none."""
    if isinstance(traps, Skipped):
        return wrap(f"signs of a wrong critic: none could be looked for. {traps.reason}", 80, subsequent_indent="  ")
    cells = [(sign.name, *_value(sign)) for sign in traps.signs]
    lines = [
        f"signs of a wrong critic, on {num_episodes} episodes: its values beside the returns of",
        f"  {traps.target or 'the policy'}",
        *(f"  {line}" for line in columns(cells, "<><")),
    ]
    for sign in traps.signs:
        if sign.raised:
            lines.append(f"  {sign.name} {_MEANT[sign.name].format(sign.threshold)}")
        elif sign.raised is None:
            lines += wrap(f"{sign.name}: {sign.reason}", 80, initial_indent="  ", subsequent_indent="    ")
    if traps.raised:
        lines.append("  Steering by it may do harm; the thresholds come from few agents.")
    return lines


def _value(sign: TrapSign) -> tuple[str, str]:
    if sign.value is None:
        return "cannot be told", ""
    return f"{number(sign.value.value)} {interval(sign.value.ci95)}", "WARNS" if sign.raised else "no warning"
