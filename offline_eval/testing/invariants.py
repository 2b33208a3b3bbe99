"""Assertions without chance: the same seed gives the same episode, and what is evaluated is not changed by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from offline_eval.datasets.recorder import LoggedEpisode
from offline_eval.environments import EnvironmentLike, environment_id
from offline_eval.episodes import EpisodePlan, evaluate
from offline_eval.episodes.plan import planned
from offline_eval.errors import InputError, bare
from offline_eval.policies.fingerprint import weights_of
from offline_eval.testing.deciding import exactly
from offline_eval.testing.outcome import Outcome, Row
from offline_eval.testing.sources import FreshEpisodes
from offline_eval.testing.subjects import (
    AgentLike,
    Subject,
    command,
    environment_for,
    logged,
    opened,
    refuse_nobody,
    spoken,
)

if TYPE_CHECKING:
    from torch import Tensor

_SHOWN = 3


def assert_deterministic(
    agent: AgentLike, *, env: EnvironmentLike | None = None, plan: EpisodePlan | int = 3
) -> Outcome:
    """Assert that playing the same seeds again gives the same episodes, to the last bit.

    Assumes nothing and estimates nothing: it holds for the episodes that were played twice, observation by observation,
    action by action, reward by reward. They are always played afresh, never taken from a cache.

    Args:
        agent: anything with SB3's `predict`, or the file of an SB3 agent.
        env: an id or a factory; `--offline-eval-env` if left out.
        plan: the episodes that are played twice, or their number.

    Raises:
        Violated: two episodes differ; the message says where first, and whether in what the agent did.
        InputError: an argument breaks a rule, or the environment broke.
    """
    place = environment_for(agent, env)
    subject, whole = opened(agent, place), planned(plan)
    first, second = (logged(FreshEpisodes(), subject.policy, place, whole) for _ in range(2))
    found = [_difference(one, other) for one, other in zip(first, second, strict=True)]
    apart = [difference for difference in found if difference is not None]
    value = float(len(whole) - len(apart))
    return exactly(
        "assert_deterministic",
        subject,
        environment_id(place),
        Row(f"of {len(whole)} episodes repeat themselves", value, None, "every one"),
        not apart,
        episodes=len(whole),
        budget=len(whole),
        seeds=spoken(whole, len(whole)),
        command=command("evaluate", [subject], place, whole, len(whole)),
        notes=tuple(str(difference) for difference in apart[:_SHOWN]),
    )


class _Difference(NamedTuple):
    """Where two episodes of one seed part."""

    seed: int | None
    step: int
    culprit: str

    def __str__(self) -> str:
        return f"seed {self.seed}, step {self.step}: {self.culprit}"


def _difference(one: LoggedEpisode, other: LoggedEpisode) -> _Difference | None:
    steps = min(len(one), len(other))
    for step in range(steps + 1):
        if not _equal(_row(one.observations, step), _row(other.observations, step)):
            return _Difference(one.seed, step, "the environment observes something else")
        if step == steps:
            break
        if not _equal(one.policy_actions[step], other.policy_actions[step]):
            return _Difference(one.seed, step, "the agent does something else at the same observation")
        if one.rewards[step] != other.rewards[step]:
            return _Difference(one.seed, step, "the environment pays something else")
    return None if len(one) == len(other) else _Difference(one.seed, steps, "one of the two episodes is over")


def _row(observations: Any, step: int) -> Any:
    if isinstance(observations, dict):
        return {key: rows[step] for key, rows in observations.items()}
    return observations[step]


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return all(_equal(part, other[key]) for key, part in one.items())
    floating = np.asarray(one).dtype.kind == "f"
    return np.array_equal(one, other, equal_nan=floating)


def assert_unchanged(
    agent: AgentLike,
    during: Callable[[], object] | None = None,
    *,
    env: EnvironmentLike | None = None,
    plan: EpisodePlan | int = 3,
) -> Outcome:
    """Assert that an agent's weights, critics and buffers included, are the same to the last bit before and after.

    Assumes nothing and estimates nothing: every number is compared.

    Args:
        agent: an SB3 model or policy, a module, or what keeps one as `model` or `policy`; the file of an SB3 agent.
        during: what is done in between; an evaluation in `env` if left out.
        env: an id or a factory; needed for a file, or where `during` is left out.
        plan: the episodes of that evaluation, or their number.

    Raises:
        Violated: a weight changed; the message names the first ones, and by how much.
        InputError: an argument breaks a rule, or the agent has no weights.
    """
    refuse_nobody(agent)
    if env is None and (during is None or not hasattr(agent, "predict")):
        raise InputError("env", "must be given for a file, and where `during` is left out", None, 'env="Hopper-v5"')
    whole = planned(plan)
    subject = Subject(agent, type(agent).__name__, None) if env is None else opened(agent, env)  # type: ignore[arg-type]
    before = _copies(subject)
    fields: dict[str, Any] = {}
    if during is not None:
        during()
    elif env is not None:
        evaluate(subject.policy, env, whole, replays=0)
        fields = {"episodes": len(whole), "budget": len(whole), "seeds": spoken(whole, len(whole))}
        fields["command"] = command("evaluate", [subject], env, whole, len(whole))
    after = _copies(subject)
    changed = [name for name in before if name not in after or not before[name].equal(after[name])]
    changed += [name for name in after if name not in before]
    return exactly(
        "assert_unchanged",
        subject,
        "no environment" if env is None else environment_id(env),
        Row(f"of {len(before)} tensors of weights changed", float(len(changed)), None, "none"),
        not changed,
        notes=tuple(_change(name, before, after) for name in changed[:_SHOWN]),
        **fields,
    )


def _copies(subject: Subject) -> dict[str, Tensor]:
    weights = weights_of(subject.policy)
    if not weights:
        raise InputError("agent", "must have weights to compare", bare(subject.name), "an SB3 model, or a torch module")
    return {name: value.detach().cpu().clone() for name, value in weights.items()}


def _change(name: str, before: dict[str, Tensor], after: dict[str, Tensor]) -> str:
    if name not in before or name not in after or before[name].shape != after[name].shape:
        return f"`{name}` came, went or changed its shape"
    largest = float((before[name].double() - after[name].double()).abs().max())
    return f"`{name}` changed by up to {largest:.3g}"
