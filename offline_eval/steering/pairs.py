"""The agents of a comparison study: which environment, whose critic, made worse on purpose or not.

A pair is written as a table in a TOML file (or an object in a JSON file) under `[[pair]]`:

    [[pair]]
    name = "sac-Pendulum weakened"
    agent = "sac-Pendulum-v1.zip"        # beside this file
    env = "Pendulum-v1"
    weaken = "halfway"                   # or a number: how much noise its actor's weights get
    episodes = 20                        # fresh ones, which are reported
    tuning = false                       # whether this pair may choose anything that others are judged by
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import isfinite
from pathlib import Path
from typing import Any

from offline_eval.episodes import EpisodePlan, evaluate
from offline_eval.errors import InputError, bare
from offline_eval.policies import load_sb3, weaken
from offline_eval.wrappers.controls import UniformAction

HALFWAY = "halfway"
_STRENGTHS = (0.03, 0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4, 0.56, 0.8)
_MOST = 2**31
_LOOKED_AT = EpisodePlan.seeded(6, seed=3000)


@dataclass(frozen=True)
class Pair:
    """An agent and its environment.

    Attributes:
        name: unique in the study, and the name of its folder.
        agent: zip of the agent.
        env: id of the environment.
        critic: zip of the agent whose critic steers; None for its own.
        normalize: file of the VecNormalize behind which it was trained; its own if left out, "none" declines.
        weaken: strength of the noise on its actor's weights, or "halfway": what brings its return nearest to the
            middle between itself and chance. None leaves it as it is.
        seed: of that noise.
        episodes: fresh ones, with seeds from 0.
        selection_episodes: with seeds from 1000.
        tuning: whether it may choose what the others are judged by.
        trap: whether its critic is known to mislead; results are given with and without such agents.
    """

    name: str
    agent: str
    env: str
    critic: str | None = None
    normalize: str | None = None
    weaken: float | str | None = None
    seed: int = 0
    episodes: int = 20
    selection_episodes: int = 10
    tuning: bool = False
    trap: bool = False

    def __post_init__(self) -> None:
        for word in ("name", "agent", "env"):
            if not isinstance(getattr(self, word), str) or not getattr(self, word):
                raise InputError(word, "must be given for every pair, as text", getattr(self, word))
        for word in ("critic", "normalize"):
            if not isinstance(getattr(self, word), str | None):
                raise InputError(word, "must be a file's name", getattr(self, word))
        for word in ("tuning", "trap"):
            if not isinstance(getattr(self, word), bool):
                raise InputError(word, "must be true or false", getattr(self, word))
        for word in ("seed", "episodes", "selection_episodes"):
            value = getattr(self, word)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _MOST:
                raise InputError(word, f"must be a whole number >= 0 and < {_MOST}", value)
        weaken = self.weaken
        number = isinstance(weaken, int | float) and not isinstance(weaken, bool) and isfinite(weaken) and weaken > 0
        if self.weaken not in (None, HALFWAY) and not number:
            raise InputError("weaken", f'must be a number > 0 or "{HALFWAY}"', self.weaken, "leave it out for neither")
        if self.episodes < 2 or self.selection_episodes < 2:
            raise InputError("episodes", "must be >= 2, and `selection_episodes` too", self.episodes)
        if self.episodes > 1000:
            raise InputError("episodes", "must be <= 1000: from there on seeds are for selection", self.episodes)

    @classmethod
    def of(cls, entry: Mapping[str, Any], folder: Path) -> Pair:
        """From a table of a file; paths are relative to the file's folder."""
        if not isinstance(entry, Mapping):
            raise InputError("pair", "must be a table", entry)
        known = {field.name for field in fields(cls)}
        for word in entry:
            if word not in known:
                raise InputError(word, f"must be one of {', '.join(sorted(known))}", bare("an unknown word of a pair"))
        given = {word: entry[word] for word in ("agent", "critic", "normalize") if entry.get(word)}
        paths = {word: str(folder / path) if isinstance(path, str) else path for word, path in given.items()}
        if given.get("normalize") == "none":
            paths["normalize"] = "none"
        worse = f" weakened {entry['weaken']}" if entry.get("weaken") else ""
        name = entry.get("name") or f"{Path(str(entry.get('agent'))).stem} on {entry.get('env')}{worse}"
        return cls(**{"agent": "", "env": "", **entry, "name": name, **paths})

    def to_json(self) -> dict[str, Any]:
        """Plain data; of paths the name alone."""
        words = {field.name: getattr(self, field.name) for field in fields(self)}
        for word in ("agent", "critic", "normalize"):
            words[word] = None if words[word] is None else Path(words[word]).name
        return words


def read_pairs(path: str | Path) -> list[Pair]:
    """The pairs of a TOML or JSON file, `[[pair]]` tables or a list under "pair".

    Raises:
        InputError: the file cannot be read, or breaks a rule.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("pairs", "must be an existing TOML or JSON file", str(path))
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError("pairs", f"must be a TOML or JSON file: {error}", str(path)) from error
    entries = content.get("pair") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise InputError("pairs", "must hold [[pair]] tables", str(path))
    return unique([Pair.of(entry, path.parent) for entry in entries])


def parse_pair(words: str) -> Pair:
    """A pair from `AGENT.zip=ENV` and further `word=value`, with commas between them."""
    first, *others = words.split(",")
    agent, _, env = first.partition("=")
    entry: dict[str, Any] = {"agent": agent, "env": env}
    for other in others:
        word, _, value = other.partition("=")
        entry[word.strip()] = _value(value.strip())
    return Pair.of(entry, Path())


def unique(pairs: list[Pair]) -> list[Pair]:
    """The pairs, each with a name of its own."""
    names = [pair.name for pair in pairs]
    for name in names:
        if names.count(name) > 1:
            raise InputError("name", "must be unique in the study", name)
    return pairs


def open_pair(pair: Pair, found: float | None = None) -> tuple[Any, Any, float | None]:
    """The agent as it plays, whoever owns the critic, and the strength with which it was weakened.

    Args:
        pair: what to open.
        found: the strength of "halfway", where it is known already.
    """
    owner = load_sb3(pair.agent, pair.env, "cpu", normalize=pair.normalize)
    strength = pair.weaken
    if isinstance(strength, str):
        strength = halfway(owner, pair.env, pair.seed) if found is None else found
    agent = owner if strength is None else weaken(owner, strength, pair.seed)
    if pair.critic is not None:
        owner = load_sb3(pair.critic, pair.env, "cpu")
    return agent, owner, strength


def halfway(model: Any, env: str, seed: int = 0) -> float:
    """The strength of `weaken` that brings the return nearest to the middle between the model and chance.

    Looked for on six episodes of their own, over strengths from .03 to .8.
    """

    def mean(agent: Any, **words: Any) -> float:
        return evaluate(agent, env, _LOOKED_AT, replays=0, **words).summary.mean

    middle = (mean(model) + mean(model, rule=UniformAction())) / 2
    return min(_STRENGTHS, key=lambda strength: abs(mean(weaken(model, strength, seed)) - middle))


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
