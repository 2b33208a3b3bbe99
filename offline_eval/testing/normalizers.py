"""The assertion that running statistics stand still while an agent is evaluated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, nullcontext
from typing import Any

import numpy as np

from offline_eval.environments import EnvironmentLike, environment_factory, environment_id
from offline_eval.errors import InputError, bare
from offline_eval.masking import refuse_masked
from offline_eval.testing.deciding import exactly
from offline_eval.testing.outcome import Outcome, Row
from offline_eval.testing.subjects import AgentLike, opened
from offline_eval.types import Array, Predictor

_RUNNING = ("obs_rms", "ret_rms", "return_rms")
_SHOWN = 3


def assert_normalizer_frozen(
    agent: AgentLike, during: Callable[[], object] | None = None, *, env: EnvironmentLike, steps: int = 100
) -> Outcome:
    """Assert that no running mean or variance moves while the agent acts.

    Looks at SB3's `VecNormalize`, gymnasium's `NormalizeObservation` and `NormalizeReward` (both kinds), wherever they
    are in the stack, and at the statistics of a `Normalized` agent. The environment is stepped as it is; `evaluate`
    would hold a `VecNormalize` still by itself.

    Assumes nothing and estimates nothing: every statistic is compared before and after, to the last bit.

    Args:
        agent: anything with SB3's `predict`, or the file of an SB3 agent.
        during: what is done in between; the agent acts in the environment if left out.
        env: a finished environment with the normaliser that is meant, or what makes one.
        steps: of the agent, where `during` is left out.

    Raises:
        Violated: a statistic moved; the message names the first ones.
        InputError: there is no normaliser, the agent asks which actions are allowed and `during` is left out, or an
            argument breaks a rule.
    """
    if steps < 1:
        raise InputError("steps", "must be >= 1", steps)
    subject = opened(agent, env)
    if during is None:
        refuse_masked(
            subject.policy, "agent", "give `during`: what plays it with masks, `lambda: evaluate(agent, env)`"
        )
    factory = environment_factory(env)
    made: Any = env if factory is None else factory()
    with nullcontext() if factory is None else closing(made):
        before = _statistics(subject.policy, made)
        if not before:
            where = bare(f"none in {environment_id(env)}, and none in {subject.name}")
            raise InputError("env", "must have a normaliser in its stack", where, "VecNormalize, NormalizeObservation")
        if during is None:
            _act(subject.policy, made, steps)
        else:
            during()
        after = _statistics(subject.policy, made)
    moved = [name for name, value in before.items() if not np.array_equal(value, after[name], equal_nan=True)]
    return exactly(
        "assert_normalizer_frozen",
        subject,
        environment_id(env),
        Row(f"of {len(before)} running statistics moved", float(len(moved)), None, "none"),
        not moved,
        notes=tuple(f"`{name}` moved: hold it still while evaluating" for name in moved[:_SHOWN]),
    )


def _statistics(policy: Any, env: Any) -> dict[str, Array]:
    """Copies of every running statistic, by name."""
    found = {}
    for part in _stack(env):
        for attribute in _RUNNING:
            running = vars(part).get(attribute)
            several = running if isinstance(running, Mapping) else {"": running}
            for key, one in several.items():
                if hasattr(one, "mean") and hasattr(one, "var"):
                    name = f"{type(part).__name__}.{attribute}" + (f"[{key!r}]" if key else "")
                    found[f"{name}.mean"], found[f"{name}.var"] = np.array(one.mean), np.array(one.var)
    held = getattr(getattr(policy, "statistics", None), "observations", None)
    for key, moments in (held if isinstance(held, Mapping) else {"": held}).items():
        if moments is not None:
            name = "statistics" + (f"[{key!r}]" if key else "")
            found[f"{name}.mean"], found[f"{name}.variance"] = moments.mean.copy(), moments.variance.copy()
    return found


def _stack(env: Any) -> Iterator[Any]:
    """The environment and everything that it is wrapped around, members of a vector included."""
    yield env
    for name in ("env", "venv"):
        inner = vars(env).get(name)
        if inner is not None:
            yield from _stack(inner)
    for member in vars(env).get("envs") or ():
        yield from _stack(member)


def _act(policy: Predictor, env: Any, steps: int) -> None:
    """Step an Env, a VectorEnv or an SB3 VecEnv with the agent's mean action."""
    state, fresh = None, np.ones(getattr(env, "num_envs", 1), dtype=bool)
    is_sb3, is_single = hasattr(env, "step_async") and hasattr(env, "env_method"), not hasattr(env, "num_envs")
    observation = env.reset() if is_sb3 else env.reset(seed=0)[0]
    for _ in range(steps):
        action, state = policy.predict(observation, state=state, episode_start=fresh, deterministic=True)
        if is_sb3:
            observation, _, fresh, _ = env.step(action)
            continue
        observation, _, terminated, truncated, _ = env.step(action)
        fresh = np.atleast_1d(terminated | truncated)
        if is_single and fresh.any():
            observation, _ = env.reset()
