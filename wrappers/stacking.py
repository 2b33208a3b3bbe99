"""Rules that differ in their number alone, as one rule with an entry a row: one call of the critic serves them all."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import fields
from typing import Any, NamedTuple

from offline_eval.types import Rule
from offline_eval.wrappers.rules import SteeringRule

__all__ = ["Place", "stack"]


class Place(NamedTuple):
    """Where a rule went.

    Attributes:
        rule: the rule itself, or one that holds several; None for the unsteered policy.
        row: its entry in a rule that holds several; None where it stands alone.
    """

    rule: Rule | None
    row: int | None = None


def stack(rules: Sequence[Rule | None]) -> list[Place]:
    """A place for each rule; neighbours and strangers alike share one where only `number_per_row` tells them apart.

    A row of the common rule is steered to the same bits as by the rule alone.
    """
    families: list[list[int]] = []
    for index, rule in enumerate(rules):
        mates = next((family for family in families if _alike(rules[family[0]], rule)), None)
        if mates is None:
            families.append([index])
        else:
            mates.append(index)
    places = [Place(rule) for rule in rules]
    for family in families:
        if len(family) > 1:
            common = _with_numbers(rules[family[0]], [_number(rules[index]) for index in family])
            for row, index in enumerate(family):
                places[index] = Place(common, row)
    return places


def _alike(one: Any, other: Any) -> bool:
    """Whether two rules with one number each are the same but for it."""
    if type(one) is not type(other) or not isinstance(one, SteeringRule):
        return False
    if not isinstance(_number(one), float) or not isinstance(_number(other), float):
        return False
    return all(
        _same(getattr(one, field.name), getattr(other, field.name))
        for field in fields(one)
        if field.init and field.name != one.number_per_row
    )


def _same(one: Any, other: Any) -> bool:
    # A rule inside a rule, what a guard holds back or a control repeats, is alike where its number alone differs.
    return one is other or _alike(one, other) or (not isinstance(one, SteeringRule) and bool(one == other))


def _number(rule: Any) -> Any:
    """The number of a rule, or of the rule inside it."""
    inner = _inner(rule)
    return getattr(rule, rule.number_per_row, None) if inner is None else _number(getattr(rule, inner))


def _with_numbers(rule: Any, numbers: Sequence[float]) -> Any:
    """The rule with one entry a row."""
    chosen, inner = copy(rule), _inner(rule)
    if inner is None:
        object.__setattr__(chosen, rule.number_per_row, tuple(numbers))
    else:
        object.__setattr__(chosen, inner, _with_numbers(getattr(rule, inner), numbers))
    return chosen


def _inner(rule: Any) -> str | None:
    """The field that holds another rule."""
    return next((field.name for field in fields(rule) if isinstance(getattr(rule, field.name), SteeringRule)), None)
