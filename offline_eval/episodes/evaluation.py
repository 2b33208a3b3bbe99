"""`evaluate`: a policy, an environment, a plan; exactly the planned episodes. `evaluate_rules`: under several rules."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from offline_eval.batching import WIDTH
from offline_eval.checks import check_kind
from offline_eval.configured import ConfiguredEnvironment
from offline_eval.environments import EnvironmentLike, environment_factory, environment_id, registered_spec
from offline_eval.episodes.checking import CheckedRollout
from offline_eval.episodes.parallelism import AUTO, Parallelism, check, choose
from offline_eval.episodes.plan import EpisodePlan, planned
from offline_eval.episodes.playing import Share
from offline_eval.episodes.records import NOT_CHECKED, Episode, Evaluation, Invariance
from offline_eval.episodes.schedule import Schedule
from offline_eval.episodes.store import EpisodeStore
from offline_eval.episodes.success import LastStep, SuccessAt, early_successes
from offline_eval.errors import InputError, bare
from offline_eval.masking import refuse_masked
from offline_eval.policies import AgentZip, find_vecnormalize, opened, weights_hash
from offline_eval.policies.normalization import normalizes
from offline_eval.policies.opening import is_file
from offline_eval.policies.playable import explores, playable
from offline_eval.provenance import recipe
from offline_eval.types import Predictor, Rule
from offline_eval.wrappers.remembering import forgets

REPLAYS = 3
"""Episodes of an evaluation that are played again to check the table."""


def evaluate(
    model: Predictor | str | Path | AgentZip,
    env: EnvironmentLike,
    plan: EpisodePlan | int | None = None,
    *,
    rule: Rule | None = None,
    n_envs: int | str = AUTO,
    workers: int | str = 1,
    device: str = "auto",
    deterministic: bool = True,
    width: int | str | None = "auto",
    step_limit: int | None = None,
    replays: int = REPLAYS,
    fresh: bool = False,
    success_at: SuccessAt | None = None,
    normalize: str | Path | None = None,
    store: EpisodeStore | None = None,
) -> Evaluation:
    """Play exactly the planned episodes, each seeded by its own entry.

    On the CPU a deterministic policy gives the same table for any `n_envs` and `workers`, to the last bit. That is
    checked: a few episodes are played again, where others were played before or in new environments. Where they differ,
    every episode is played in an environment of its own, or `invariant` is False and `invariance` says why.

    Args:
        model: anything with SB3's `predict`, or the file of an SB3 agent.
        env: an id, a spec, a factory, or a finished environment (gymnasium Env or VectorEnv, SB3 VecEnv).
        plan: the episodes, or how many of them with seeds from 0; 20 if left out.
        rule: steers the policy's actions (`offline_eval.wrappers`).
        n_envs: environments side by side in each process; "auto" takes up to as many as a padded batch has rows.
        workers: processes; "auto" takes one a core where the plan is long enough to pay for their start, by what a
            few steps cost.
        device: where an agent's file is loaded.
        deterministic: the policy's mean action, or draws from global generators (then the table depends on
            `n_envs`, and says so).
        width: rows of a padded batch, "auto" for the default, None for no padding.
        step_limit: cut episodes after so many steps; by default only where the environment has no limit. It may lie
            beyond the limit of an environment that is given by its id.
        replays: episodes that are played again to check the table; 0 for none, then `invariant` is None. Their time is
            not part of `wall_time`.
        fresh: an environment of its own for every episode from the start, for one that is known to need it.
        success_at: the step whose `is_success` or `success` says whether an episode succeeded: `LastStep()` if left
            out, or `AnyStep()`. Both are recorded for every episode.
        normalize: the file of the VecNormalize behind which the agent was trained. Left out, the agent's own is taken:
            a live model's, or the file that lies beside a zip and plainly belongs to it. "none" declines.
        store: keeps each episode as it finishes, and every visited state where it has a place for them: an interrupted
            call with the same store goes on. A `RunFolder`, or a class of your own (`EpisodeStore`).

    Raises:
        InputError: an argument breaks a rule.
        WorkerError: a worker process died.
    """
    store = _checked(store)
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
        replays=replays,
        fresh=fresh,
        success_at=success_at or LastStep(),
        normalize=normalize,
        store=store,
        states=store.states(""),
    )
    return evaluations[""]


def evaluate_rules(
    model: Predictor | str | Path | AgentZip,
    env: EnvironmentLike,
    plan: EpisodePlan | int | None,
    rules: Mapping[str, Rule | None],
    *,
    n_envs: int | str = AUTO,
    workers: int | str = 1,
    device: str = "auto",
    deterministic: bool = True,
    width: int | str | None = "auto",
    step_limit: int | None = None,
    replays: int = REPLAYS,
    fresh: bool = False,
    success_at: SuccessAt | None = None,
    normalize: str | Path | None = None,
    store: EpisodeStore | None = None,
) -> dict[str, Evaluation]:
    """Play the whole plan under each of several rules, all side by side in one rollout.

    The episodes are those of `evaluate` with one rule after the other, to the last bit; only the time differs. The
    policy is asked once for all of them, and rules that differ in their number alone share their critic calls.

    Args:
        model: as in `evaluate`, as are the arguments left out here.
        env: where to play.
        plan: the episodes of each rule.
        rules: by name; None is the unsteered policy.
        n_envs: environments side by side in each process.
        workers: processes.
        device: where an agent's file is loaded.
        deterministic: the policy's mean action, or draws.
        width: rows of a padded batch.
        step_limit: cut episodes after so many steps.
        replays: episodes, of all rules together, that are played again to check the tables.
        fresh: an environment of its own for every episode.
        success_at: the step that counts.
        normalize: statistics of a VecNormalize.
        store: keeps the episodes of each rule under its name; visited states are not logged.

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
        replays=replays,
        fresh=fresh,
        success_at=success_at or LastStep(),
        normalize=normalize,
        store=_checked(store),
        states=None,
    )


def _play(
    model: Predictor | str | Path | AgentZip,
    env: EnvironmentLike,
    plan: EpisodePlan | int | None,
    rules: Mapping[str, Rule | None],
    *,
    n_envs: int | str,
    workers: int | str,
    device: str,
    deterministic: bool,
    width: int | str | None,
    step_limit: int | None,
    replays: int,
    fresh: bool,
    success_at: SuccessAt,
    normalize: str | Path | None,
    store: EpisodeStore,
    states: Path | None,
) -> dict[str, Evaluation]:
    plan = EpisodePlan.seeded() if plan is None else planned(plan)
    check(n_envs, workers)
    if replays < 0:
        raise InputError("replays", "must be >= 0", replays)
    if step_limit is not None and step_limit < 1:
        raise InputError("step_limit", "must be >= 1", step_limit)
    if isinstance(model, type) or not (is_file(model) or callable(getattr(model, "predict", None))):
        received = bare(f"the class {model.__name__}") if isinstance(model, type) else type(model).__name__
        raise InputError("model", "must have Stable-Baselines3's `predict`", received, "an agent, or its file")
    model, setting = opened(model, env, device, normalize=normalize)
    if any(rule is not None for rule in rules.values()):
        refuse_masked(model, "model", "a rule does not know them: leave it out")
    stack = find_vecnormalize(env)
    if stack is not None and stack.norm_obs and any(map(normalizes, rules.values())):
        raise InputError(
            "env",
            "must give raw observations: what the rule asks normalises them already",
            bare("a VecNormalize in its stack"),
            "give the environment inside of it, or its id: agents get the statistics that they were trained with",
        )
    on_cpu = _device_type(model) == "cpu"
    lasting = [name for name, rule in rules.items() if not forgets(rule)]
    if lasting:
        # What is learnt goes from each episode to the next: one after the other, and all of them again on a resume.
        n_envs, workers = 1, 1
    names = list(rules)
    done = {name: () if name in lasting else store.done(name) for name in names}
    for episodes in done.values():
        _check_done(episodes, plan)
    schedule = Schedule(plan, len(names), fresh=fresh or any(e.fresh for each in done.values() for e in each))
    if schedule.fresh and environment_factory(env) is None:
        raise InputError("fresh", "must be left out for a finished environment", True, "pass an id or a factory")
    rows = {
        number * len(plan) + episode.index: episode
        for number, name in enumerate(names)
        for episode in done[name]
        if episode.fresh == schedule.fresh  # a run that went over to new environments does not mix both
    }
    policy = playable(model, deterministic)
    if not deterministic and explores(policy):
        width = 1  # one draw for all rows of a batch would tie the episodes together
    unchecked = _unchecked(env, deterministic, on_cpu, width, bool(lasting), replays)
    played_again = 0 if unchecked is not None else replays
    side_by_side = parallelism(model, env, schedule.num_planned, n_envs, workers, step_limit=step_limit)
    hash_before = weights_hash(model)
    share = Share(
        policy=policy,
        rules=tuple(rules.values()),
        env=_lasting(env, step_limit),
        schedule=schedule,
        n_envs=side_by_side.n_envs,
        width=(WIDTH if on_cpu else None) if isinstance(width, str) else width,
        deterministic=deterministic,
        step_limit=step_limit,
        log=_log_folder(states, env),
    )

    def tell(episode: Episode) -> None:
        number, index = divmod(episode.index, len(plan))
        store.record(names[number], replace(episode, index=index))

    rollout = CheckedRollout(share, rows, side_by_side.workers, tell)
    invariance = rollout.play(played_again)
    notes = rollout.notes
    if rollout.varies is not None:
        unchecked, notes = Invariance(False, reason=rollout.varies), (*notes, rollout.varies)
    if not deterministic:
        notes += ("actions were drawn from global generators: the table depends on n_envs and workers",)
    invariance = unchecked or invariance
    if invariance.note is not None and invariance.reason not in " ".join(notes):
        notes += (invariance.note,)
    hash_after = weights_hash(model)
    num_steps = sum(episode.length for episode in rollout.rows.values())

    def table_of(number: int, name: str) -> Evaluation:
        episodes = tuple(replace(rollout.rows[number * len(plan) + index], index=index) for index in range(len(plan)))
        share_of_steps = sum(episode.length for episode in episodes) / num_steps if num_steps else 1 / len(names)
        return Evaluation(
            env=environment_id(env),
            algorithm=type(getattr(model, "model", model)).__name__,  # of what a normaliser or a steering wraps
            recipe=recipe(rules[name]),
            plan=plan,
            episodes=episodes,
            wall_time=rollout.seconds * share_of_steps,
            weights_hash=(hash_before, hash_after),
            invariance=invariance,
            notes=(*setting, *notes, *_nothing_played(episodes), *early_successes(episodes, success_at)),
            success_at=success_at,
            independent=name not in lasting,
            n_envs=side_by_side.n_envs,
            workers=side_by_side.workers,
        )

    return {name: table_of(number, name) for number, name in enumerate(names)}


def _unchecked(
    env: EnvironmentLike, deterministic: bool, on_cpu: bool, width: int | str | None, lasting: bool, replays: int
) -> Invariance | None:
    """What is known without playing anything again, None where it is to be checked."""
    if not deterministic:
        return Invariance(False, reason="actions were drawn from global generators")
    if not on_cpu:
        return Invariance(False, reason="one unpadded batch on a GPU serves all environments")
    if width is None:
        return Invariance(False, reason="batches were not padded to a fixed width")
    if lasting:
        return Invariance(None, reason="the policy goes on learning from one episode to the next")
    if environment_factory(env) is None:
        return Invariance(None, reason="a finished environment cannot be made anew; pass an id or a factory")
    return NOT_CHECKED if replays == 0 else None


def parallelism(
    model: Any,
    env: EnvironmentLike,
    num_episodes: int,
    n_envs: int | str = AUTO,
    workers: int | str = AUTO,
    *,
    step_limit: int | None = None,
) -> Parallelism:
    """How many environments and processes `evaluate` takes for so many episodes; arguments as there."""
    return choose(
        playable(model),
        env,
        num_episodes,
        n_envs,
        workers,
        on_cpu=_device_type(model) == "cpu",
        limit=step_limit or step_limit_of(env),
    )


def step_limit_of(env: EnvironmentLike) -> int | None:
    """The limit that an environment's id is registered with, where there is one."""
    spec = (
        registered_spec(env)
        if isinstance(env, str)
        else env.to_spec()
        if isinstance(env, ConfiguredEnvironment)
        else env
    )
    return getattr(spec, "max_episode_steps", None)


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


def _checked(store: EpisodeStore | None) -> EpisodeStore:
    check_kind("store", store, EpisodeStore, "a RunFolder, or a subclass of EpisodeStore")
    return store or EpisodeStore()


def _check_done(episodes: Collection[Episode], plan: EpisodePlan) -> None:
    for episode in episodes:
        index = episode.index
        if not 0 <= index < len(plan) or episode.seed != plan[index].seed:
            expected = f"seed {plan[index].seed} there" if 0 <= index < len(plan) else f"{len(plan)} entries"
            raise InputError(
                "store",
                f"must hold episodes of this plan, which has {expected}",
                bare(f"entry {index} with seed {episode.seed}"),
                "the kept episodes are another run's, or were changed: begin in a new folder",
            )


def _nothing_played(episodes: Sequence[Episode]) -> Iterator[str]:
    if all(episode.failed is not None for episode in episodes):
        yield f"every episode failed: {episodes[0].failed}"


def _device_type(model: Any) -> str:
    device = getattr(model, "device", None)
    return getattr(device, "type", "cpu")


def _log_folder(folder: Path | None, env: EnvironmentLike) -> Any:
    if folder is None:
        return None
    from offline_eval.episodes.log import LogFolder

    return LogFolder(folder, environment_id(env))
