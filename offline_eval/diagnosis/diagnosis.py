"""`diagnose`: which of the three bottlenecks holds an agent back, or that this cannot be told, and what to do next."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from gymnasium import spaces

from offline_eval.checks import check_kind
from offline_eval.datasets.log import open_log
from offline_eval.datasets.notes import notes_of
from offline_eval.datasets.opening import open_dataset
from offline_eval.datasets.recorder import LoggedEpisode
from offline_eval.datasets.trajectories import Dataset
from offline_eval.diagnosis.data_region import Surroundings
from offline_eval.diagnosis.ground_truth import seek_truth
from offline_eval.diagnosis.interventions import Option, Player
from offline_eval.diagnosis.ladder import Climb
from offline_eval.diagnosis.plan import DiagnosisPlan
from offline_eval.diagnosis.re_extraction import Extractor
from offline_eval.diagnosis.records import ADAPTED, AWR_RUNG, DDPG_BC, POLICY, Diagnosis
from offline_eval.diagnosis.verdict import verdict_of
from offline_eval.diagnosis.wording import Asked
from offline_eval.environments import EnvironmentLike, environment_factory, environment_id
from offline_eval.episodes import EpisodePlan, EpisodeStore, StateLog, evaluate
from offline_eval.errors import CriticError, InputError, NonFiniteLoss, OfflineEvalError, bare
from offline_eval.measurement.measurement import measure
from offline_eval.measurement.monte_carlo_returns import stacked
from offline_eval.measurement.plan import Silent, Watcher
from offline_eval.measurement.records import Measurement, Performance, Skipped
from offline_eval.policies import AgentZip, actor_of, critic_of, opened, spaces_of
from offline_eval.provenance import recipe, versions
from offline_eval.training.fitted_critic import fit_critic
from offline_eval.types import Critic, Predictor
from offline_eval.wrappers import TestTimeTraining

_GAMMA = 0.99
_NUM_STATES = 2000
_SECTIONS = ("policy_error", "q_rank", "q_bias", "regret", "coverage")


def diagnose(
    policy: Predictor | str | Path | AgentZip,
    env: EnvironmentLike,
    dataset: Dataset | str | Path,
    critic: Any = None,
    oracle: Predictor | str | Path | AgentZip | None = None,
    plan: DiagnosisPlan | None = None,
    quick: bool = False,
    *,
    critic_dataset: Dataset | str | Path | None = None,
    device: str = "auto",
    normalize: str | Path | None = None,
    name: str | None = None,
    asked: Asked | None = None,
    store: EpisodeStore | None = None,
    watcher: Watcher | None = None,
) -> Diagnosis:
    """Diagnose an agent: measure it, play the ladder, and say what follows.

    Args:
        policy: anything with SB3's `predict` that does not remember, or the file of an SB3 agent.
        env: an id, a spec or a factory, with a Box of actions and flat observations.
        dataset: what the policy was trained on: a file, a folder or a `Dataset`.
        critic: a `Critic`, an agent or its file; the policy's own if left out, or one that is fitted to the data where
            it has none.
        oracle: an agent that does what is right, or its file: the ladder is held against it.
        plan: how much; `DiagnosisPlan()` or, with `quick`, `DiagnosisPlan.quick()` if left out.
        quick: less of everything.
        critic_dataset: what the critic was trained on, where that is not `dataset`: its actions are what the policy
            could do, and `dataset` still says where it was trained.
        device: where files are loaded.
        normalize: the file of the policy's VecNormalize; its own if left out, as in `evaluate`; "none" declines.
        name: of the agent, for the manifest.
        asked: words for the commands that the recommendation names.
        store: keeps episodes and, in its directory, states and rollouts: an interrupted call with the same arguments
            goes on from them.
        watcher: told of the progress.

    Raises:
        InputError: an argument breaks a rule, or the data, the oracle or the critic are of another environment.
        OfflineEvalError: every episode of the policy failed.
        WorkerError: a worker process died.
    """
    check_kind("plan", plan, DiagnosisPlan)
    plan = plan or (DiagnosisPlan.quick() if quick else DiagnosisPlan())
    store, watcher = store or EpisodeStore(), watcher or Silent()
    if environment_factory(env) is None:
        raise InputError(
            "env", "must be an id, a spec or a factory, to be made anew for every rung", type(env).__name__
        )
    observation_space, action_space = spaces_of(env)
    if not (isinstance(action_space, spaces.Box) and np.issubdtype(action_space.dtype, np.floating)):
        raise InputError(
            "env",
            "must have a Box of actions to be climbed",
            action_space,
            "with discrete actions compare the agent with its critic's greedy policy",
        )
    agent, _ = opened(policy, env, device, normalize=normalize)  # what is noted, `measure` tells
    teacher, _ = opened(oracle, env, device, "oracle")
    dataset = _opened(dataset, observation_space, action_space)
    seen = dataset if critic_dataset is None else _opened(critic_dataset, observation_space, action_space)
    seen_notes = () if critic_dataset is None else notes_of(seen, "the critic's data")
    surroundings = Surroundings(dataset, plan, seen)  # refused here, and not after minutes
    began = time.perf_counter()
    with ExitStack() as stack:
        kept = store.directory or Path(stack.enter_context(TemporaryDirectory()))
        of_policy = store.of(POLICY)
        if of_policy.states("") is None or store.directory is None:
            of_policy = StateLog(kept / "states" / POLICY, of_policy, kept)
        rater, notes = _critic_for(critic, agent, seen, env, plan, kept, device, watcher)
        measurement = _measured(agent, env, dataset, rater, teacher, plan, of_policy, watcher, name, device)
        visited = _visited(measurement, of_policy)
        _refuse_without_rewards(dataset, visited)
        new_each = measurement.performance.evaluation.invariance.fresh
        player = Player(agent, env, plan, store, watcher, fresh=new_each)
        climb = Climb(player, surroundings, dataset, rater, measurement.performance.evaluation.returns)
        climb.look(stacked(visited).sample(_NUM_STATES, np.random.default_rng(plan.seed)))
        climb.behaviour()
        climb.control()
        climb.steer()
        climb.parts()
        if teacher is not None:
            climb.oracle(teacher, "the oracle")
        _extract_anew(climb, dataset, plan, watcher)
        _adapt(climb, agent, plan)
        truth = seek_truth(climb, visited, kept, watcher)
        ladder = climb.ladder(truth)
    told = [*measurement.manifest.get("notes", ()), *notes_of(dataset), *seen_notes]
    measurement = replace(measurement, manifest={**measurement.manifest, "notes": list(dict.fromkeys(told))})
    verdict = verdict_of(ladder, measurement, asked or Asked())
    manifest = {
        "plan": {key: value for key, value in recipe(plan).items() if key not in ("name", "measure")},
        "critic": notes,
        "region": {"threshold": surroundings.threshold, "num_states": len(surroundings.neighbours)},
        "seconds": {title: round(spent, 2) for title, spent in player.seconds.items()},
        "total_seconds": round(time.perf_counter() - began, 1),
    }
    return Diagnosis(measurement, ladder, verdict, manifest)


def _opened(dataset: Dataset | str | Path, observation_space: Any, action_space: Any) -> Dataset:
    """A data set, of this environment."""
    if isinstance(dataset, Dataset):
        return dataset.for_spaces(observation_space, action_space)
    if not isinstance(dataset, str | Path):
        raise InputError("dataset", "must be a Dataset, a file or a folder", type(dataset).__name__)
    return open_dataset(dataset, observation_space=observation_space, action_space=action_space)


def _critic_for(
    critic: Any,
    policy: Any,
    dataset: Dataset,
    env: EnvironmentLike,
    plan: DiagnosisPlan,
    folder: Path,
    device: str,
    watcher: Watcher,
) -> tuple[Critic | None, str]:
    """The critic to climb by, and where it comes from."""
    if critic is not None:
        owner, told = opened(critic, env, device, "critic")
        given: Critic = critic_of(owner)
        return given, "; ".join(["given", *told])
    try:
        own: Critic = critic_of(policy)
        return own, "the policy's own"
    except CriticError as error:
        if plan.fitted_steps < 1:
            return None, f"none: {error}"
    file = folder / "critic.zip"
    if not file.exists():
        advance = watcher.begin("fitting a critic", plan.fitted_steps)
        gamma = float(getattr(getattr(policy, "model", policy), "gamma", _GAMMA))
        try:
            fit_critic(
                policy,
                dataset,
                file,
                plan.fitted_steps,
                seed=plan.seed,
                words={"gamma": gamma, "policy_kwargs": {"net_arch": [128, 128]}, "device": "cpu"},
                on_steps=lambda steps, metrics: advance(steps),
            )
        except InputError as error:
            return None, f"none: {error}"
    fitted: Critic = critic_of(opened(file, env, device)[0])
    return fitted, f"fitted to the data in {plan.fitted_steps} steps: the policy has none of its own"


def _measured(
    policy: Predictor,
    env: EnvironmentLike,
    dataset: Dataset,
    critic: Critic | None,
    oracle: Predictor | None,
    plan: DiagnosisPlan,
    store: EpisodeStore,
    watcher: Watcher,
    name: str | None,
    device: str,
) -> Measurement:
    """What `measure` tells on the reporting seeds; the returns alone where nothing is to be measured."""
    if plan.measure is None:
        evaluation = evaluate(
            policy,
            env,
            EpisodePlan.seeded(plan.episodes, plan.seed),
            n_envs=plan.n_envs,
            workers=plan.workers,
            step_limit=plan.step_limit,
            store=store,
        )
        skipped = dict.fromkeys(_SECTIONS, Skipped("not asked for"))
        manifest = {"agent": name, "env": environment_id(env), "versions": versions()}
        return Measurement(Performance(evaluation), manifest=manifest, **skipped)
    measured = replace(
        plan.measure,
        episodes=plan.episodes,
        seed=plan.seed,
        n_envs=plan.n_envs,
        workers=plan.workers,
        step_limit=plan.step_limit,
        validation_fraction=plan.validation_fraction,
    )
    return measure(
        policy,
        env,
        dataset=dataset,
        oracle=oracle,
        critic=critic,
        plan=measured,
        device=device,
        name=name,
        store=store,
        watcher=watcher,
    )


def _extract_anew(climb: Climb, dataset: Dataset, plan: DiagnosisPlan, watcher: Watcher) -> None:
    """The rungs of policies that are read out of the same critic anew."""
    wanted, critic = plan.extractions, climb.critic
    if critic is None or not wanted.gradient_steps:
        for rung in (DDPG_BC, AWR_RUNG):
            climb.miss(rung, "there is no critic" if critic is None else "not asked for")
        return
    total = wanted.gradient_steps * (len(wanted.bc_coefs) + len(wanted.inverse_temperatures))
    extractor = Extractor(critic, dataset, wanted, plan.seed, watcher.begin("extracting policies", total))
    try:
        cautious = [Option({"bc_coef": c}, extractor.ddpg_bc(c), None) for c in wanted.bc_coefs]
        weighted = [Option({"inverse_temperature": t}, extractor.awr(t), None) for t in wanted.inverse_temperatures]
    except (InputError, NonFiniteLoss) as error:
        for rung in (DDPG_BC, AWR_RUNG):
            climb.miss(rung, str(error))
        return
    climb.add(DDPG_BC, "DDPG+BC from the same critic", cautious)
    climb.add(AWR_RUNG, "AWR from the same critic", weighted)


def _adapt(climb: Climb, policy: Any, plan: DiagnosisPlan) -> None:
    """The rung of test-time training."""
    if climb.critic is None or not plan.learning_rates:
        climb.miss(ADAPTED, "there is no critic" if climb.critic is None else "not asked for")
        return
    try:
        actor = actor_of(policy)
    except InputError as error:
        climb.miss(ADAPTED, str(error))
        return
    rules = [TestTimeTraining(actor, climb.critic, rate) for rate in plan.learning_rates]
    options = [Option({"learning_rate": rule.learning_rate}, climb.player.policy, rule) for rule in rules]
    climb.add(ADAPTED, "test-time training by Q", options)


def _visited(measurement: Measurement, store: EpisodeStore) -> list[LoggedEpisode]:
    """The policy's episodes in the order of the plan.

    Raises:
        OfflineEvalError: every one of them failed.
    """
    evaluation = measurement.performance.evaluation
    if len(evaluation.failures) == len(evaluation.plan):
        raise OfflineEvalError(f"every episode of the policy failed: {evaluation.failures[0].failed}")
    states = store.states("")
    assert states is not None
    return sorted(open_log(states), key=lambda episode: episode.key or 0)


def _refuse_without_rewards(dataset: Dataset, visited: list[LoggedEpisode]) -> None:
    if any(episode.rewards.any() for episode in visited) or np.any(dataset.rewards):
        return
    raise InputError(
        "env",
        "must pay rewards: a bottleneck is what keeps them away",
        bare(f"0 in every step of {len(visited)} episodes and of the data"),
        "wrap the environment so that success pays",
    )
