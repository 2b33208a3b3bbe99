"""Which of two agents is better: episode by episode, or training seed by training seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from offline_eval.episodes import Evaluation
from offline_eval.errors import InputError, bare
from offline_eval.stats import (
    PairedDifference,
    SeedComparison,
    Summary,
    compare_seeds,
    paired_difference,
    summarize,
)
from offline_eval.stats.summary import of_the_rest

Runs = Evaluation | Sequence[Evaluation]
"""One trained agent, or the same algorithm trained with several seeds."""


@dataclass(frozen=True)
class ComparisonRow:
    """An agent beside the first one.

    Attributes:
        name: of the agent.
        evaluations: one per training seed.
        summary: over episodes where there is one training seed, else over the seeds' means.
        difference: to the first agent; None for the first itself.
    """

    name: str
    evaluations: tuple[Evaluation, ...]
    summary: Summary
    difference: PairedDifference | SeedComparison | None


def compare(a: Runs, b: Runs) -> PairedDifference | SeedComparison:
    """`a` minus `b`, both played on the same plan.

    Two single agents are paired episode by episode. Where either was trained with several seeds, the training seed is
    the unit: episodes of one agent say nothing about the next training run, and are never pooled as if they did.

    Raises:
        InputError: the two were played on different environments or plans.
    """
    first, second = _runs(a), _runs(b)
    for evaluation in (*first, *second):
        if evaluation.plan != first[0].plan or evaluation.env != first[0].env:
            raise InputError(
                "b",
                f"must be played like `a`, on {first[0].env} with the same {len(first[0].plan)} episodes",
                bare(f"{evaluation.env}, {len(evaluation.plan)} episodes from seed {evaluation.plan[0].seed}"),
                "evaluate both with one plan",
            )
    if len(first) == len(second) == 1:
        return paired_difference(first[0].returns, second[0].returns)
    return compare_seeds([run.returns for run in first], [run.returns for run in second])


def comparison_rows(agents: Mapping[str, Runs]) -> list[ComparisonRow]:
    """Every agent beside the first."""
    runs = {name: _runs(evaluations) for name, evaluations in agents.items()}
    several = any(len(evaluations) > 1 for evaluations in runs.values())
    baseline = next(iter(runs.values()))
    return [
        ComparisonRow(
            name,
            evaluations,
            _over_seeds(evaluations) if several else evaluations[0].summary,
            None if evaluations is baseline else compare(evaluations, baseline),
        )
        for name, evaluations in runs.items()
    ]


def _over_seeds(evaluations: Sequence[Evaluation]) -> Summary:
    """Over the seeds' means, marked where episodes of a seed failed."""
    summary = summarize([run.summary.mean for run in evaluations])
    failed, total = sum(run.summary.failed for run in evaluations), sum(len(run.plan) for run in evaluations)
    return of_the_rest(summary, failed, total) if failed else summary


def _runs(runs: Runs) -> tuple[Evaluation, ...]:
    evaluations = (runs,) if isinstance(runs, Evaluation) else tuple(runs)
    if not evaluations:
        raise InputError("runs", "must hold at least one evaluation", runs)
    return evaluations
