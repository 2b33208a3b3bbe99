"""A data set in words: what is in it, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence

from offline_eval.datasets.description import Description, Spread
from offline_eval.datasets.faults import Finding
from offline_eval.errors import printable
from offline_eval.report.tables import columns, number


def description_table(description: Description) -> str:
    """What `describe` found, in 80 columns."""
    rows = [
        ("format", description.format),
        ("environment", description.env_id or "not said"),
        ("trajectories", f"{description.num_trajectories:,}, {description.terminated:.0%} end in a terminal state"),
        ("steps", f"{description.num_steps:,}, of them {description.num_transitions:,} transitions"),
        ("returns", _spread(description.returns)),
        ("lengths", _spread(description.lengths)),
        ("rewards", f"{_spread(description.rewards)}, {description.zero_rewards:.0%} are 0"),
    ]
    score = description.normalized_score
    if score is not None:
        reach = f"{number(score.minimum)} to {number(score.maximum)}"
        rows.append(("score", f"{number(score.mean)} of 100, {reach} ({score.origin})"))
    coverage = description.coverage
    if coverage is not None:
        pairs = "" if coverage.pairs is None else f", {coverage.pairs:.0%} of its pairs of dimensions"
        rows.append(("action box", f"{coverage.mean:.0%} of its dimensions visited{pairs}"))
        rows.append(("", f"{coverage.at_bounds:.1%} of the numbers at a bound or beyond"))
    if description.action_shares is not None:
        rows.append(("actions", ", ".join(f"{share:.0%}" for share in description.action_shares)))
    rows.append(("size", f"{description.num_bytes / 1e6:,.1f} MB{', memory-mapped' * description.memory_mapped}"))
    rows.append(("fingerprint", description.fingerprint[:16]))
    return "\n".join([*columns(rows, "<<"), *(f"note: {printable(note)}" for note in description.notes)])


def findings_table(findings: Sequence[Finding]) -> str:
    """What the doctor found, the errors first."""
    if not findings:
        return "no findings"
    lines: list[str] = []
    for finding in sorted(findings, key=lambda found: found.severity):
        words = f"{finding.severity}: {finding.code}", f"  where: {finding.where}", f"  fix:   {finding.fix}"
        lines += map(printable, words)
    return "\n".join(lines)


def _spread(spread: Spread) -> str:
    return f"{number(spread.minimum)} to {number(spread.maximum)}, mean {number(spread.mean)}"
