"""`evaluate`: a policy, an environment, a plan; exactly the planned episodes. `evaluate_rules`: under several rules."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offline_eval.batching import WIDTH
from offline_eval.configured import ConfiguredEnvironment
from offline_eval.environments import EnvironmentLike, environment_factory, environment_id, registered_spec
from offline_eval.episodes.plan import EpisodePlan, planned
from offline_eval.episodes.playing import Share
from offline_eval.episodes.records import Episode, Evaluation
from offline_eval.episodes.rollout import in_order
from offline_eval.episodes.workers import play_in_workers
from offline_eval.errors import InputError, bare
from offline_eval.policies import Normalized, find_vecnormalize, opened, weights_hash
from offline_eval.policies.finite import check_finite
from offline_eval.processes import num_cores
from offline_eval.provenance import recipe
from offline_eval.types import Predictor, Rule
from offline_eval.wrappers.remembering import forgets

if TYPE_CHECKING:
    pass

_WORTH_A_WORKER = 40_000
"""Environment steps from which starting another process pays."""


def evaluate(
    model: Predictor | str | Path,
    env: EnvironmentLike,
    plan: EpisodePlan | int | None = None,
    *,
    rule: Rule | None = None,
    n_envs: int = 8,
    workers: int | str = 1,
    device: str = "auto",
    deterministic: bool = True,
    width: int | str | None = "auto",
    step_limit: int | None = None,
    log_states: str | Path | None = None,
    done: Collection[Episode] = (),
    on_episode: Callable[[Episode], None] | None = None,
) -> Evaluation:
    """Play exactly the planned episodes, each seeded by its own entry.

    On the CPU a deterministic policy gives the same table for any `n_envs` and `workers`, to the last bit.

    Args:
        model: anything with SB3's `predict`, or the file of an SB3 agent.
        env: an id, a spec, a factory, or a finished environment (gymnasium Env or VectorEnv, SB3 VecEnv).
        plan: the episodes, or how many of them with seeds from 0; 20 if left out.
        rule: steers the policy's actions (`offline_eval.wrappers`).
        n_envs: environments side by side in each process.
        workers: processes; "auto" takes one a core where the plan is long enough to pay for their start.
        device: where an agent's file is loaded.
        deterministic: the policy's mean action, or draws from global generators (then the table depends on
            `n_envs`, and says so).
        width: rows of a padded batch, "auto" for the default, None for no padding.
        step_limit: cut episodes after so many steps; by default only where the environment has no limit. It may lie
            beyond the limit of an environment that is given by its id.
        log_states: folder that receives every visited state (`offline_eval.datasets`).
        done: finished episodes of an earlier, interrupted call; they are not played again.
        on_episode: told of each episode as it finishes.

    Raises:
        InputError: an argument breaks a rule.
        WorkerError: a worker process died.
    """
    evaluations = _play(
        model,
        env,
        plan,
        {"": rule},
        n_envs=n_envs,
        workers=workers,
        device=device,
        deterministic=deterministic,
        width=width,
        step_limit=step_limit,
        log_states=log_states,
        done={"": done},
        on_episode=None if on_episode is None else lambda _, episode: on_episode(episode),
    )
    return evaluations[""]


def evaluate_rules(
    model: Predictor | str | Path,
    env: EnvironmentLike,
    plan: EpisodePlan | int | None,
    rules: Mapping[str, Rule | None],
    *,
    n_envs: int = WIDTH,
    workers: int | str = 1,
    device: str = "auto",
    deterministic: bool = True,
    width: int | str | None = "auto",
    step_limit: int | None = None,
    done: Mapping[str, Collection[Episode]] | None = None,
    on_episode: Callable[[str, Episode], None] | None = None,
) -> dict[str, Evaluation]:
    """Play the whole plan under each of several rules, all side by side in one rollout.

    The episodes are those of `evaluate` with one rule after the other, to the last bit; only the time differs. The
    policy is asked once for all of them, and rules that differ in their number alone share their critic calls.

    Args:
        model: as in `evaluate`, as are the arguments left out here.
        env: where to play.
        plan: the episodes of each rule.
        rules: by name; None is the unsteered policy.
        n_envs: environments side by side in each process; as many as a padded batch has rows cost little more than one.
        workers: processes.
        device: where an agent's file is loaded.
        deterministic: the policy's mean action, or draws.
        width: rows of a padded batch.
        step_limit: cut episodes after so many steps.
        done: finished episodes of an interrupted call, by rule.
        on_episode: told the rule's name and each episode as it finishes.

    Returns:
        An evaluation for each rule. Its wall time is the rollout's, divided among the rules by their steps.
    """
    if not rules:
        raise InputError("rules", "must name at least one", rules, "None stands for the unsteered policy")
    return _play(
        model,
        env,
        plan,
        rules,
        n_envs=n_envs,
        workers=workers,
        device=device,
        deterministic=deterministic,
        width=width,
        step_limit=step_limit,
        log_states=None,
        done=done or {},
        on_episode=on_episode,
    )


def _play(
    model: Predictor | str | Path,
    env: EnvironmentLike,
    plan: EpisodePlan | int | None,
    rules: Mapping[str, Rule | None],
    *,
    n_envs: int,
    workers: int | str,
    device: str,
    deterministic: bool,
    width: int | str | None,
    step_limit: int | None,
    log_states: str | Path | None,
    done: Mapping[str, Collection[Episode]],
    on_episode: Callable[[str, Episode], None] | None,
) -> dict[str, Evaluation]:
    plan = EpisodePlan.seeded() if plan is None else planned(plan)
    if n_envs < 1:
        raise InputError("n_envs", "must be >= 1", n_envs)
    if step_limit is not None and step_limit < 1:
        raise InputError("step_limit", "must be >= 1", step_limit)
    if isinstance(model, type) or (not isinstance(model, str | Path) and not callable(getattr(model, "predict", None))):
        received = bare(f"the class {model.__name__}") if isinstance(model, type) else type(model).__name__
        raise InputError("model", "must have Stable-Baselines3's `predict`", received, "an agent, or its file")
    model, setting = opened(model, env, device)
    check_finite(model)
    if isinstance(model, Normalized) and find_vecnormalize(env) is not None:
        raise InputError(
            "env",
            "must not normalise where the policy does already",
            bare("a VecNormalize in its stack"),
            "drop one of the two: observations are normalised once",
        )
    on_cpu = _device_type(model) == "cpu"
    lasting = [name for name, rule in rules.items() if not forgets(rule)]
    if lasting:
        # What is learnt goes from each episode to the next: one after the other, and all of them again on a resume.
        n_envs, workers = 1, 1
        done = {name: episodes for name, episodes in done.items() if name not in lasting}
    num_workers = _num_workers(workers, len(plan) * len(rules), env, on_cpu)

    names = list(rules)
    tables: dict[str, dict[int, Episode]] = {name: {e.index: e for e in done.get(name, ())} for name in names}
    for name in names:
        _check_done(tables[name], plan)
    missing = [
        number * len(plan) + index
        for number, name in enumerate(names)
        for index in range(len(plan))
        if index not in tables[name]
    ]
    num_workers = max(1, min(num_workers, len(missing)))

    hash_before = weights_hash(model)
    share = Share(
        policy=_policy_of(model),
        rules=tuple(rules.values()),
        env=_lasting(env, step_limit),
        plan=plan,
        # No worker takes more than its share, or the first one ready would leave none to the others.
        n_envs=max(1, min(n_envs, ceil(len(missing) / num_workers))),
        width=(WIDTH if on_cpu else None) if isinstance(width, str) else width,
        deterministic=deterministic,
        step_limit=step_limit,
        log=_log_folder(log_states, env),
    )

    def tell(episode: Episode) -> None:
        number, index = divmod(episode.index, len(plan))
        episode, name = replace(episode, index=index), names[number]
        tables[name][index] = episode
        if on_episode is not None:
            on_episode(name, episode)

    clock = _Clock()
    notes: tuple[str, ...] = ()
    if missing and num_workers > 1:
        play_in_workers(share, missing, num_workers, tell, clock.start)
    elif missing:
        notes = share(in_order(missing), tell, clock.start)
    clock.stop()

    if not deterministic:
        notes += ("actions were drawn from global generators: the table depends on n_envs and workers",)
    hash_after = weights_hash(model)
    num_steps = sum(episode.length for table in tables.values() for episode in table.values())

    def table_of(name: str) -> Evaluation:
        episodes = tuple(tables[name][index] for index in range(len(plan)))
        share_of_steps = sum(episode.length for episode in episodes) / num_steps if num_steps else 1 / len(names)
        return Evaluation(
            env=environment_id(env),
            algorithm=type(getattr(model, "model", model)).__name__,  # of what a normaliser or a steering wraps
            recipe=recipe(rules[name]),
            plan=plan,
            episodes=episodes,
            wall_time=clock.seconds * share_of_steps,
            weights_hash=(hash_before, hash_after),
            invariant=deterministic and on_cpu and share.width is not None and not notes,
            notes=(*setting, *notes, *_nothing_played(episodes)),
            independent=name not in lasting,
        )

    return {name: table_of(name) for name in names}


def _lasting(env: EnvironmentLike, step_limit: int | None) -> EnvironmentLike:
    """An id whose own time limit would come before `step_limit` as a spec with the later one."""
    if step_limit is None or not isinstance(env, str | ConfiguredEnvironment):
        return env
    if isinstance(env, ConfiguredEnvironment):
        limit = env.to_spec().max_episode_steps
        return env if limit is None or limit >= step_limit else replace(env, max_episode_steps=step_limit)
    spec = registered_spec(env)
    if spec.max_episode_steps is None or spec.max_episode_steps >= step_limit:
        return env
    return replace(spec, max_episode_steps=step_limit)


def _check_done(episodes: Mapping[int, Episode], plan: EpisodePlan) -> None:
    for index, episode in episodes.items():
        if not 0 <= index < len(plan) or episode.seed != plan[index].seed:
            expected = f"seed {plan[index].seed} there" if 0 <= index < len(plan) else f"{len(plan)} entries"
            raise InputError(
                "done",
                f"must hold episodes of this plan, which has {expected}",
                bare(f"entry {index} with seed {episode.seed}"),
                "the kept episodes are another run's, or were changed: begin in a new folder",
            )


def _nothing_played(episodes: Sequence[Episode]) -> Iterator[str]:
    if all(episode.failed is not None for episode in episodes):
        yield f"every episode failed: {episodes[0].failed}"


class _Clock:
    """Wall time from the first start to the stop."""

    def __init__(self) -> None:
        self.seconds, self._began = 0.0, 0.0

    def start(self) -> None:
        self._began = time.perf_counter()

    def stop(self) -> None:
        self.seconds = time.perf_counter() - self._began if self._began else 0.0


def _num_workers(workers: int | str, num_episodes: int, env: EnvironmentLike, on_cpu: bool) -> int:
    if workers == "auto":
        if not on_cpu or environment_factory(env) is None:
            return 1
        limit = registered_spec(env).max_episode_steps if isinstance(env, str) else None
        limit = env.to_spec().max_episode_steps if isinstance(env, ConfiguredEnvironment) else limit
        affordable = num_episodes * (limit or 1000) // _WORTH_A_WORKER
        return max(1, min(affordable, num_cores(), num_episodes))
    if not isinstance(workers, int) or workers < 1:
        raise InputError("workers", 'must be a number >= 1 or "auto"', workers)
    if workers > 1 and not on_cpu:
        raise InputError("workers", "must be 1 for a policy on a GPU", workers, "one batch serves all environments")
    if workers > 1 and environment_factory(env) is None:
        raise InputError("workers", "must be 1 for a finished environment", workers, "pass an id or a factory")
    return workers


def _policy_of(model: Any) -> Predictor:
    """What is evaluated: the policy of an SB3 algorithm, which is all that `predict` uses and light to send away."""
    from stable_baselines3.common.base_class import BaseAlgorithm

    return model.policy if isinstance(model, BaseAlgorithm) else model


def _device_type(model: Any) -> str:
    device = getattr(model, "device", None)
    return getattr(device, "type", "cpu")


def _log_folder(folder: str | Path | None, env: EnvironmentLike) -> Any:
    if folder is None:
        return None
    from offline_eval.episodes.log import LogFolder

    return LogFolder(Path(folder), environment_id(env))
