"""Steering rules as words: `opex:0.2`, `best_of:32,std=0.5`, `ttt:3e-4,reset=never`, `opex:0.8,guard=line_search`.

A rule's name, a colon and its first field; then further fields, with commas between them. A value that holds a comma is
put in double quotes. A field of a part (the `std` of best-of-N's proposal) is named alone where no other part has it.

A new rule is its own file and one line in `RULES`; its fields are those of its dataclass.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from offline_eval.errors import InputError, bare

if TYPE_CHECKING:
    from offline_eval.types import Adaptable, Critic, Rule


@dataclass(frozen=True)
class RuleWord:
    """What a word stands for.

    Attributes:
        kind: the name of the rule's class in `offline_eval.wrappers`.
        first: the field whose value follows the colon.
        preset: fields that differ on the command line from the class's own defaults, as words.
    """

    kind: str
    first: str
    preset: Mapping[str, str] = field(default_factory=dict)

    def rule_class(self) -> Any:
        """The class; imports torch."""
        from offline_eval import wrappers

        return getattr(wrappers, self.kind)


RULES = {
    "opex": RuleWord("OPEX", "step_size", {"direction": "l2"}),
    "best_of": RuleWord("BestOfN", "num_samples"),
    "ttt": RuleWord("TestTimeTraining", "learning_rate"),
    "soft": RuleWord("SoftSteer", "temperature"),
    "multiply": RuleWord("MultiplyAction", "factor"),
    "random": RuleWord("RandomDirection", "step_size"),
    "placebo": RuleWord("Placebo", "std"),
}
"""Every rule that the command line knows, by its word."""

_CHOICES = {
    "direction": {"raw": "Raw", "l2": "L2", "sign": "Sign"},
    "reduce": {"min": "Min", "mean": "Mean", "lower_bound": "LowerBound"},
    "gain": {"linear": "LinearGain", "exact": "ExactGain"},
    "parameters": {"last_layer": "LastLayer", "all": "AllParameters"},
    "optimizer": {"adam": "Adam", "gradient_descent": "GradientDescent", "normalized": "NormalizedGradient"},
    "states": {"latest": "Latest", "replay": "Replay"},
    "anchor": {"kl": "KLAnchor"},
    "reset": {"each_episode": "EachEpisode", "never": "Never"},
    "prior": {"one_hot": "OneHot"},
    "choose": {"greedy": "Greedy", "drawn": "Drawn"},
    "guard": {
        "keep_best": "KeepBest",
        "line_search": "LineSearch",
        "all_heads_gain": "AllHeadsGain",
        "agreement_gate": "AgreementGate",
        "agreement_scale": "AgreementScale",
        "gain_over_disagreement": "GainOverDisagreement",
        "trust_radius": "TrustRadius",
    },
}
"""Fields whose values are objects, and the words for these."""

_OPTIONAL = ("anchor", "guard", "prior")
"""Those that may be "none"."""

_GIVEN = ("critic", "actor", "like")
"""Fields that come from the agents, not from words."""


def split_rule(text: str) -> tuple[str, dict[str, str]]:
    """A rule's word, and its fields as words; imports nothing heavy.

    Raises:
        InputError: no rule has that word, or a field is not written `name=value`.
    """
    cells = next(csv.reader([text], skipinitialspace=True), [])
    word, _, first = (cells[0] if cells else "").partition(":")
    word = word.strip()
    if word not in RULES:
        close = get_close_matches(word, RULES, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(RULES)}"
        raise InputError("--rule", "must begin with the word of a rule", text, hint)
    words = {RULES[word].first: first.strip()} if first.strip() else {}
    for cell in cells[1:]:
        name, equals, value = (part.strip() for part in cell.partition("="))
        if not equals or not name or not value:
            raise InputError("--rule", "must have fields written name=value", bare(f"{cell!r} in {text!r}"))
        if name in words:
            raise InputError("--rule", f"must give {name} once", text)
        words[name] = value
    return word, words


def make_rule(text: str, critic: Critic | None, actor: Adaptable | None = None) -> Rule:
    """The rule that a text describes.

    Args:
        text: as typed.
        critic: what critic rules ask.
        actor: what test-time training trains.

    Raises:
        InputError: an unknown field, or a value that is none for it.
    """
    word, words = split_rule(text)
    kind = RULES[word].rule_class()
    own = {found.name: found for found in fields(kind) if found.init and found.name not in _GIVEN}
    arguments: dict[str, Any] = {}
    for name, given in (("critic", critic), ("actor", actor)):
        if any(found.name == name for found in fields(kind)):
            if given is None:
                raise InputError("--rule", f"needs an agent with {_article(name)}", text, f"`{word}` asks it")
            arguments[name] = given
    guard = _object("guard", words.pop("guard"), text) if "guard" in words and "critic" in arguments else None
    parts: dict[str, str] = {}
    for name, value in {**RULES[word].preset, **words}.items():
        if name in own:
            arguments[name] = _value(own[name], value, text)
        else:
            parts[name] = value
    missing = [name for name, found in own.items() if name not in arguments and not _has_default(found)]
    if missing:
        raise InputError("--rule", f"must give {missing[0]}", text, f"`{word}:0.2`, for example")
    rule: Rule = kind(**arguments)
    for name, value in parts.items():
        rule = _with_part(rule, name, value, text)
    if guard is None:
        return rule
    from offline_eval.wrappers import Guarded

    return Guarded(rule, guard)


def describe_rules() -> str:
    """A line for each rule and one for each of its fields, as `steer --rules` prints them."""
    lines = []
    for word, named in RULES.items():
        kind = named.rule_class()
        lines.append(f"{word}:{named.first.upper()}  {str(kind.__doc__).splitlines()[0]}")
        for found in fields(kind):
            if not found.init or found.name in (*_GIVEN, named.first):
                continue
            default = named.preset.get(found.name) or _word_of(found)
            choices = f" ({', '.join(_CHOICES[found.name])})" if found.name in _CHOICES else ""
            lines.append(f"    {found.name}={default}{choices}")
            lines += [f"    {part}={value}" for part, value in _leaves(_default(found))]
        if any(found.name == "critic" for found in fields(kind)) and word != "soft":
            lines.append(f"    guard=none ({', '.join(_CHOICES['guard'])})")
    return "\n".join(lines)


def _article(name: str) -> str:
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


def _has_default(found: Field[Any]) -> bool:
    return found.default is not MISSING or found.default_factory is not MISSING


def _default(found: Field[Any]) -> Any:
    return None if found.default is MISSING else found.default


def _word_of(found: Field[Any]) -> str:
    default = _default(found)
    by_class = {kind: word for word, kind in _CHOICES.get(found.name, {}).items()}
    return by_class.get(
        type(default).__name__, type(default).__name__ if is_dataclass(default) else str(default).lower()
    )


def _leaves(part: Any) -> Iterator[tuple[str, Any]]:
    if is_dataclass(part) and not isinstance(part, type):
        for found in fields(part):
            if isinstance(getattr(part, found.name), bool | int | float):
                yield found.name, getattr(part, found.name)


def _value(found: Field[Any], value: str, text: str) -> Any:
    if found.name in _CHOICES:
        return _object(found.name, value, text)
    return _number(found.name, value, _default(found), str(found.type), text)


def _object(name: str, value: str, text: str) -> Any:
    """The object that a word stands for, made with its first number where one follows a colon: `kl:0.1`."""
    from offline_eval import wrappers

    if value == "none" and name in _OPTIONAL:
        return None
    kinds, (word, colon, number) = _CHOICES[name], value.partition(":")
    if word not in kinds:
        raise InputError("--rule", f"must have {name} among {', '.join(kinds)}", bare(f"{value!r} in {text!r}"))
    kind = getattr(wrappers, kinds[word])
    numbers = [_number(name, number, 0.0, "float", text)] if colon else []
    try:
        return kind(*numbers)
    except TypeError as error:
        hint = f"{name}={word}" if numbers else f"{name}={word}:0.1, for example"
        takes = "no number" if numbers else "a number after a colon"
        raise InputError("--rule", f"must give {word} {takes}", bare(f"{value!r} in {text!r}"), hint) from error


def _number(name: str, value: str, default: Any, annotation: str, text: str) -> Any:
    if isinstance(default, bool) or annotation == "bool":
        if value not in ("true", "false"):
            raise InputError("--rule", f"must have {name} true or false", bare(f"{value!r} in {text!r}"))
        return value == "true"
    if value == "none" and "None" in annotation:
        return None
    whole = annotation == "int" or (isinstance(default, int) and not isinstance(default, bool))
    try:
        return int(value) if whole else float(value)
    except ValueError as error:
        rule = f"must have {name} a {'whole number' if whole else 'number'}"
        raise InputError("--rule", rule, bare(f"{value!r} in {text!r}")) from error


def _with_part(rule: Any, name: str, value: str, text: str) -> Any:
    """The rule with a field of one of its parts changed."""
    having = [found.name for found in fields(rule) if name in dict(_leaves(getattr(rule, found.name)))]
    if len(having) != 1:
        known = [found.name for found in fields(rule) if found.init and found.name not in _GIVEN]
        known += [leaf for found in fields(rule) for leaf, _ in _leaves(getattr(rule, found.name))]
        raise InputError(
            "--rule", "must name a field of the rule", bare(f"{name!r} in {text!r}"), f"it has {', '.join(known)}"
        )
    part = getattr(rule, having[0])
    number = _number(name, value, getattr(part, name), "", text)
    return replace(rule, **{having[0]: replace(part, **{name: number})})
