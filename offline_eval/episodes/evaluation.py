"""`evaluate`: a policy, an environment, a plan; exactly the planned episodes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from math import ceil
from pathlib import Path
from typing import Any

from offline_eval.batching import WIDTH
from offline_eval.environments import EnvironmentLike, environment_factory, environment_id
from offline_eval.episodes.plan import EpisodePlan
from offline_eval.episodes.playing import Share
from offline_eval.episodes.records import Episode, Evaluation
from offline_eval.episodes.rollout import in_order
from offline_eval.episodes.workers import play_in_workers
from offline_eval.errors import InputError, bare
from offline_eval.policies import Normalized, find_vecnormalize, load_sb3, weights_hash
from offline_eval.provenance import recipe
from offline_eval.types import Predictor, Rule

_WORTH_A_WORKER = 40_000
"""Environment steps from which starting another process pays."""


def evaluate(
    model: Predictor | str | Path,
    env: EnvironmentLike,
    plan: EpisodePlan | None = None,
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
        plan: the episodes; `EpisodePlan.seeded(20, seed=0)` if left out.
        rule: steers the policy's actions (`offline_eval.wrappers`).
        n_envs: environments side by side in each process.
        workers: processes; "auto" takes one a core where the plan is long enough to pay for their start.
        device: where an agent's file is loaded.
        deterministic: the policy's mean action, or draws from global generators (then the table depends on
            `n_envs`, and says so).
        width: rows of a padded batch, "auto" for the default, None for no padding.
        step_limit: cut episodes after so many steps; by default only where the environment has no limit.
        log_states: folder that receives every visited state (`offline_eval.datasets`).
        done: finished episodes of an earlier, interrupted call; they are not played again.
        on_episode: told of each episode as it finishes.

    Raises:
        InputError: an argument breaks a rule.
        WorkerError: a worker process died.
    """
    plan = plan or EpisodePlan.seeded()
    if n_envs < 1:
        raise InputError("n_envs", "must be >= 1", n_envs)
    if step_limit is not None and step_limit < 1:
        raise InputError("step_limit", "must be >= 1", step_limit)
    if isinstance(model, str | Path):
        model = load_sb3(model, env, device=device)
    if not callable(getattr(model, "predict", None)):
        raise InputError("model", "must have Stable-Baselines3's `predict`", type(model).__name__)
    if isinstance(model, Normalized) and find_vecnormalize(env) is not None:
        raise InputError(
            "env",
            "must not normalise where the policy does already",
            bare("a VecNormalize in its stack"),
            "drop one of the two: observations are normalised once",
        )
    on_cpu = _device_type(model) == "cpu"
    num_workers = _num_workers(workers, plan, env, on_cpu, n_envs)

    table: dict[int, Episode] = {episode.index: episode for episode in done}
    missing = [index for index in range(len(plan)) if index not in table]
    num_workers = max(1, min(num_workers, len(missing)))

    hash_before = weights_hash(model)
    share = Share(
        policy=_policy_of(model),
        rule=rule,
        env=env,
        plan=plan,
        # No worker takes more than its share, or the first one ready would leave none to the others.
        n_envs=max(1, min(n_envs, ceil(len(missing) / num_workers))),
        width=(WIDTH if on_cpu else None) if isinstance(width, str) else width,
        deterministic=deterministic,
        step_limit=step_limit,
        log=_log_folder(log_states, env),
    )

    def tell(episode: Episode) -> None:
        table[episode.index] = episode
        if on_episode is not None:
            on_episode(episode)

    clock = _Clock()
    notes: tuple[str, ...] = ()
    if missing and num_workers > 1:
        import cloudpickle

        play_in_workers(cloudpickle.dumps(share), missing, num_workers, tell, clock.start)
    elif missing:
        notes = share(in_order(missing), tell, clock.start)
    clock.stop()

    if not deterministic:
        notes += ("actions were drawn from global generators: the table depends on n_envs and workers",)
    return Evaluation(
        env=environment_id(env),
        algorithm=type(getattr(model, "model", model)).__name__,  # of what a normaliser or a steering wraps
        recipe=recipe(rule),
        plan=plan,
        episodes=tuple(table[index] for index in range(len(plan))),
        wall_time=clock.seconds,
        weights_hash=(hash_before, weights_hash(model)),
        invariant=deterministic and on_cpu and share.width is not None and not notes,
        notes=notes,
    )


class _Clock:
    """Wall time from the first start to the stop."""

    def __init__(self) -> None:
        self.seconds, self._began = 0.0, 0.0

    def start(self) -> None:
        self._began = time.perf_counter()

    def stop(self) -> None:
        self.seconds = time.perf_counter() - self._began if self._began else 0.0


def _num_workers(workers: int | str, plan: EpisodePlan, env: EnvironmentLike, on_cpu: bool, n_envs: int) -> int:
    if workers == "auto":
        if not on_cpu or environment_factory(env) is None:
            return 1
        import gymnasium as gym

        limit = gym.spec(env).max_episode_steps if isinstance(env, str) else None
        affordable = len(plan) * (limit or 1000) // _WORTH_A_WORKER
        return max(1, min(affordable, _num_cores(), len(plan)))
    if not isinstance(workers, int) or workers < 1:
        raise InputError("workers", 'must be a number >= 1 or "auto"', workers)
    if workers > 1 and not on_cpu:
        raise InputError("workers", "must be 1 for a policy on a GPU", workers, "one batch serves all environments")
    if workers > 1 and environment_factory(env) is None:
        raise InputError("workers", "must be 1 for a finished environment", workers, "pass an id or a factory")
    return workers


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
