"""The comparison study as tables: what each rule did on each agent, whom it harmed, what it costs, what auto kept."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import numpy as np

from offline_eval.report.tables import columns, difference, footnotes, number
from offline_eval.stats import Interval
from offline_eval.steering.scores import (
    AUTO,
    Score,
    best_control,
    kept,
    rules_of,
    score,
    tuned,
)
from offline_eval.steering.steering import PLAIN
from offline_eval.steering.study import CHANCE, PairResult

_FAMILIES = {"OPEX 0": "OPEX 0.1", "best of": "best of 32, 0.2", "TTT": "TTT 0.0003"}
"""Beginnings of names (one step up the critic, the best of candidates, training), and what stands for them untuned."""
_DEFAULT_TRAINING = "TTT 0.0003"

Cells = list[tuple[str, ...]]


def study_table(results: Sequence[PairResult], markdown: bool = False) -> str:
    """All tables of a study, as text for a terminal or for a document."""
    if not results:
        return "no pair is done yet"
    tuning = [result for result in results if result.pair["tuning"]]
    reported = [result for result in results if not result.pair["tuning"]]
    parts = [_part("agents", agent_cells(results), "<>>><<", markdown)]
    notes = [f"{result.pair['name']}: {note}" for result in results for note in result.notes]
    parts += ["\n".join(line for line in footnotes([], notes) if line)] if notes else []
    for title, some in (("agents that tune", tuning), ("agents that are reported", reported)):
        if some:
            cells, intervals = gain_cells(some, tuning)
            parts.append(_part(f"{title}: returns, and differences to plain with 95 % intervals", cells, "<", markdown))
            parts += [line for line in footnotes(intervals, ()) if line and not markdown]
            parts.append(_part(f"{title}: what the trial kept", kept_cells(some), "<<<>>>", markdown))
    judged = reported or tuning
    title = f"every rule on {len(judged)} agents; gain in % of (plain - chance)"
    parts.append(_part(title, rule_cells(judged), "<>>>>><<", markdown))
    return "\n\n".join(parts)


def study_json(results: Sequence[PairResult]) -> dict[str, Any]:
    """The same numbers as plain data."""
    rules = rules_of(results) if results else []
    return {
        "pairs": [result.to_json() for result in results],
        "choices": {str(result.pair["name"]): result.choice().to_json() for result in results},
        "scores": [score(result, rule).to_json() for result in results for rule in rules],
    }


def agent_cells(results: Sequence[PairResult]) -> Cells:
    """Who took part."""
    cells: Cells = [("agent", "plain", "chance", "fresh", "weakened by", "chooses for others")]
    for result in results:
        pair = result.pair
        mean, chance = (float(np.nanmean(result.fresh(name))) for name in (PLAIN, CHANCE))
        strength = "" if result.strength is None else f"{result.strength:g} (seed {pair['seed']})"
        chooses = "yes" if pair["tuning"] else "trap" if pair["trap"] else ""
        cells.append((str(pair["name"]), number(mean), number(chance), str(pair["episodes"]), strength, chooses))
    return cells


def gain_cells(results: Sequence[PairResult], tuning: Sequence[PairResult] = ()) -> tuple[Cells, list[Interval]]:
    """The table of the README: plain, best trivial control, the rules that were tuned elsewhere, auto."""
    fixed = _fixed(results, tuning)
    cells: Cells = [("agent", "plain", "best trivial control", *fixed, AUTO)]
    intervals: list[Interval] = []
    for result in results:
        control = best_control(result)
        scores = [score(result, rule) for rule in (control, *fixed, AUTO)]
        gains, winner = [_gain(one) for one in scores], result.choice().winner
        intervals += [one.difference.ci95 for one in (scores if winner is not None else scores[:-1])]
        gains[0] = f"{control}: {gains[0]}"
        gains[-1] = "no gain" if winner is None else f"{winner}: {gains[-1]}"
        cells.append((str(result.pair["name"]), number(float(np.nanmean(result.fresh(PLAIN)))), *gains))
    return cells, intervals


def _fixed(results: Sequence[PairResult], tuning: Sequence[PairResult]) -> list[str]:
    """One rule of each family: tuned on the agents that are there for it, else a choice made beforehand.

    The training that is this package's default stands in any case.
    """
    played = rules_of([*results, *tuning])
    rules = []
    for family, beforehand in _FAMILIES.items():
        names = [name for name in played if name.startswith(family)]
        if names:
            rules.append(tuned(tuning, family) if tuning else beforehand if beforehand in names else names[0])
    if _DEFAULT_TRAINING in played and _DEFAULT_TRAINING not in rules:
        rules.append(_DEFAULT_TRAINING)
    return rules


def kept_cells(results: Sequence[PairResult]) -> Cells:
    """What the trial kept of the best fixed candidate."""
    cells: Cells = [("agent", "the trial chose", "best afterwards", "its gain", "kept", "aim")]
    for result in results:
        row = kept(result)
        share = f"{row.share:.0%}" if row.has_gain else f"lost {row.lost:.1%}"
        gain = number(row.best_gain, signed=True) + ("" if row.has_gain else " (no gain)")
        cells.append((row.pair, row.winner or "no gain", row.best, gain, share, "met" if row.met else "missed"))
    return cells


def rule_cells(results: Sequence[PairResult]) -> Cells:
    """Every rule over all agents: cost, mean and worst gain, whom it harmed; with and without the trap.

    In the order of the rows that a critic rates a step, so that rules at the same price are neighbours.
    """
    cells: Cells = [("rule", "critic rows", "ms", "mean", "without trap", "worst", "harms", "acceptable")]
    rules = sorted(rules_of(results), key=lambda rule: inf if rule == AUTO else sum(_rows(results, rule)))
    for rule in rules:
        scores = [score(result, rule) for result in results]
        shares = np.array([one.share for one in scores])
        traps = np.array([bool(result.pair["trap"]) for result in results])
        harmed = [one.pair for one in scores if one.harms]
        outside = [one.pair for one, trap in zip(scores, traps, strict=True) if one.harms and not trap]
        verdict = "yes" if not harmed else "but for the trap" if not outside else "no"
        cells.append(
            (
                rule,
                *_cost(results, rule),
                _percent(shares),
                _percent(shares[~traps]),
                f"{100 * np.nanmin(shares):+.1f}",
                ", ".join(harmed),
                verdict,
            )
        )
    return cells


def _cost(results: Sequence[PairResult], rule: str) -> tuple[str, str]:
    if rule == AUTO:
        return "", ""
    forward, backward = _rows(results, rule)
    milliseconds = float(np.nanmedian([result.of(rule).cost.milliseconds for result in results]))
    rows = f"{forward:.0f}" + (f" + {backward:.0f} back" if backward else "")
    return rows, f"{milliseconds:.2f}"


def _rows(results: Sequence[PairResult], rule: str) -> tuple[float, float]:
    costs = [result.of(rule).cost for result in results]
    return float(np.median([cost.forward for cost in costs])), float(np.median([cost.backward for cost in costs]))


def _gain(one: Score) -> str:
    return difference(one.difference) + (" harms" if one.harms else "")


def _percent(shares: Any) -> str:
    return f"{100 * float(np.nanmean(shares)):+.1f}" if len(shares) else ""


def _part(title: str, cells: Cells, aligned: str, markdown: bool) -> str:
    aligned = aligned if len(aligned) == len(cells[0]) else "<" + ">" * (len(cells[0]) - 1)
    if not markdown:
        return "\n".join([f"{title}:" if not title.endswith(":") else title, *columns(cells, aligned)])
    rule = ["---:" if side == ">" else "---" for side in aligned]
    lines = ["| " + " | ".join(row) + " |" for row in (cells[0], tuple(rule), *cells[1:])]
    return "\n".join([f"{title[0].upper()}{title[1:]}:", "", *lines])
