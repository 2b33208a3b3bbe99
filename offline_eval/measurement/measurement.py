"""`measure`: what can be told about one agent, each number beside its control, and what could not be told, and why."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from offline_eval.checks import check_kind
from offline_eval.datasets.log import open_log
from offline_eval.datasets.notes import notes_of
from offline_eval.datasets.opening import open_dataset
from offline_eval.datasets.recorder import LoggedEpisode
from offline_eval.datasets.trajectories import Dataset
from offline_eval.diagnostics.q_bias import ValueSample
from offline_eval.environments import EnvironmentLike, environment_id
from offline_eval.episodes import EpisodePlan, EpisodeStore, Evaluation, StateLog, evaluate
from offline_eval.episodes.store import CountedEpisodes
from offline_eval.errors import CriticError
from offline_eval.measurement.candidates import Reach, StateSample
from offline_eval.measurement.critic import CriticMeasurement
from offline_eval.measurement.monte_carlo_returns import stacked
from offline_eval.measurement.plan import MeasurementPlan, Silent, Watcher
from offline_eval.measurement.records import Measurement, Performance, Skipped, attempt
from offline_eval.measurement.state_sets import (
    Agent,
    Sets,
    critics_optimum,
    extraction_regrets,
    policy_errors,
    state_coverage,
)
from offline_eval.policies import AgentZip, critic_of, opened, spaces_of, weights_hash
from offline_eval.policies.opening import is_file
from offline_eval.provenance import recipe, versions
from offline_eval.types import Critic, Predictor


def measure(
    model: Predictor | str | Path | AgentZip,
    env: EnvironmentLike,
    *,
    dataset: Dataset | str | Path | None = None,
    oracle: Predictor | str | Path | AgentZip | None = None,
    critic: Any = None,
    reference: Any = None,
    plan: MeasurementPlan | None = None,
    quick: bool = False,
    device: str = "auto",
    normalize: str | Path | None = None,
    name: str | None = None,
    store: EpisodeStore | None = None,
    watcher: Watcher | None = None,
) -> Measurement:
    """Measure an agent: performance, three errors, ranks, bias, regret and coverage.

    What cannot be measured is `Skipped` with its reason; nothing is guessed.

    Args:
        model: anything with SB3's `predict`, or the file of an SB3 agent.
        env: an id, a spec or a factory; a finished environment is played, but nothing is rolled out in it.
        dataset: what the policy was trained on: a file, a folder or a `Dataset`.
        oracle: whose actions are right: an agent or its file; the critic's own optimum within the data's reach if left
            out.
        critic: a `Critic`, an agent or its file; the model's own if left out.
        reference: an agent or its file, with a critic; its bias on its own episodes is subtracted in `q_bias`.
        plan: how much; `MeasurementPlan()` or, with `quick`, `MeasurementPlan.quick()` if left out.
        quick: less of everything.
        device: where files are loaded.
        normalize: the file of the model's VecNormalize; its own if left out, as in `evaluate`; "none" declines.
        name: of the agent, for the manifest.
        store: keeps each episode as it finishes and, where it has places for them, the visited states and the rollouts:
            an interrupted call with the same arguments goes on from them.
        watcher: told of the progress.

    Raises:
        InputError: an argument breaks a rule, or the data, the oracle or the critic are of another environment.
        WorkerError: a worker process died.
    """
    check_kind("plan", plan, MeasurementPlan, "MeasurementPlan(episodes=20)")
    plan = plan or (MeasurementPlan.quick() if quick else MeasurementPlan())
    names = {"agent": name or _name(model), "dataset": _name(dataset), "oracle": _name(oracle), "critic": _name(critic)}
    names["reference"] = _name(reference)
    agent, _ = opened(model, env, device, normalize=normalize)  # whose notes `evaluate` tells
    owner, of_critic = opened(critic, env, device, "critic")
    store = store or EpisodeStore()
    rollouts = None if store.directory is None else store.directory / "rollouts"
    subject = _Subject(agent, env, _critic(owner, agent), plan, watcher or Silent(), rollouts)
    subject.notes += [f"critic: {note}" for note in of_critic]
    if oracle is not None:
        teacher, notes = opened(oracle, env, device, "oracle")
        subject.oracle = Agent(teacher, names["oracle"] or "an agent")
        subject.notes += [f"oracle: {note}" for note in notes]
    if reference is not None:
        subject.reference, notes = opened(reference, env, device, "reference")
        subject.notes += [f"reference: {note}" for note in notes]
        critic_of(subject.reference)  # refused here, and not after minutes
    if dataset is not None:
        observation_space, action_space = spaces_of(env)
        if isinstance(dataset, Dataset):
            dataset = dataset.for_spaces(observation_space, action_space)
        else:
            dataset = open_dataset(dataset, observation_space=observation_space, action_space=action_space)
        subject.notes += notes_of(dataset)
    with TemporaryDirectory() as temporary:
        if (folder := store.states("")) is None:
            folder = Path(temporary) / "states"
            store = StateLog(folder, store)
        evaluation = subject.play(store)
        visited = list(open_log(folder)) if len(evaluation.failures) < len(evaluation.plan) else []
        sections = subject.measure(visited, dataset)
    manifest = {
        **names,
        "algorithm": evaluation.algorithm,
        "env": environment_id(env),
        "plan": {key: value for key, value in recipe(plan).items() if key != "name"},
        "critic_reduced_by": "min",
        "versions": versions(),
        "weights_hash": {"before": evaluation.weights_hash[0], "after": weights_hash(agent)},
        "seconds": {name: round(seconds, 2) for name, seconds in subject.seconds.items()},
        "notes": subject.notes,
    }
    return Measurement(performance=Performance(evaluation), manifest=manifest, **sections)


def _name(thing: Any) -> str | None:
    if thing is None:
        return None
    if isinstance(thing, Dataset):
        return thing.source.path or "a data set in memory"
    return Path(thing).name if is_file(thing) else type(thing).__name__


def _critic(critic: Any, model: Any) -> Critic | Skipped:
    if critic is not None:
        found: Critic = critic_of(critic)
        return found
    try:
        own: Critic = critic_of(model)
        return own
    except CriticError as error:
        return Skipped(str(error))


class _Subject:
    """An agent being measured."""

    def __init__(
        self,
        model: Any,
        env: EnvironmentLike,
        critic: Critic | Skipped,
        plan: MeasurementPlan,
        watcher: Watcher,
        rollouts: Path | None,
    ) -> None:
        self.model, self.env, self.critic, self.plan, self.watcher = model, env, critic, plan, watcher
        self.rollouts = rollouts
        self.oracle: Agent | None = None
        self.reference: Any = None
        self.seconds: dict[str, float] = {}
        self.notes: list[str] = []

    def play(self, store: EpisodeStore) -> Evaluation:
        """The episodes of the plan, their states logged in the store."""
        episodes = EpisodePlan.seeded(self.plan.episodes, self.plan.seed)
        advance = self.watcher.begin("episodes", len(episodes) - len(store.done("")))
        with self._timed("performance"):
            return evaluate(
                self.model,
                self.env,
                episodes,
                n_envs=self.plan.n_envs,
                workers=self.plan.workers,
                step_limit=self.plan.step_limit,
                store=CountedEpisodes(store, advance),
            )

    def measure(self, visited: list[LoggedEpisode], dataset: Dataset | None) -> dict[str, Any]:
        """Every section but the performance."""
        if not visited:
            names = ("policy_error", "q_rank", "q_bias", "regret", "coverage")
            return dict.fromkeys(names, Skipped("every episode failed"))
        sets = self._sets(dataset, stacked(visited))
        critic = self.critic
        sections: dict[str, Any] = {}
        if isinstance(critic, Skipped):
            sections = dict.fromkeys(("q_rank", "q_bias", "regret"), critic)
        else:
            self._measure_critic(critic, visited, sets, sections)
        with self._timed("policy_error"):
            sections["policy_error"] = attempt(lambda: self._errors(sets))
        with self._timed("coverage"):
            sections["coverage"] = attempt(lambda: state_coverage(sets, self._generator(6)))
        return sections

    def _measure_critic(
        self, critic: Critic, visited: list[LoggedEpisode], sets: Sets, sections: dict[str, Any]
    ) -> None:
        plan = self.plan
        measuring = CriticMeasurement(self.model, self.env, critic, plan, self.watcher, self.rollouts)
        with ExitStack() as stack:
            brancher = attempt(lambda: stack.enter_context(measuring.brancher(visited)))
            if isinstance(brancher, Skipped):
                self.notes.append(f"nothing was rolled out from restored states: {brancher.reason}")
            with self._timed("labels"):
                plain = measuring.plain(visited, brancher)
                target = measuring.target(visited, plain, brancher)
            with self._timed("action_trial"):
                tried = brancher if isinstance(brancher, Skipped) else measuring.trial(visited, brancher, sets)
        if isinstance(target, Skipped):
            sections["q_bias"] = sections["q_rank"] = target
        else:
            reference = self._reference_sample()
            sections["q_bias"] = attempt(lambda: measuring.bias(target, plain, reference))
            sections["q_rank"] = attempt(lambda: measuring.rank(target, plain, tried))
        with self._timed("regret"):
            sections["regret"] = attempt(
                lambda: extraction_regrets(
                    self.model, critic, sets, plan.num_states, plan.num_near, self._generator(4), tried
                )
            )

    def _reference_sample(self) -> ValueSample | None:
        """A reference agent's values beside its own truth, on its own episodes."""
        if self.reference is None:
            return None
        critic: Critic = critic_of(self.reference)
        other = _Subject(self.reference, self.env, critic, self.plan, self.watcher, None)
        plan = replace(self.plan, ceiling_windows=1)
        measuring = CriticMeasurement(self.reference, self.env, critic, plan, self.watcher)
        with self._timed("reference"), TemporaryDirectory() as temporary, ExitStack() as stack:
            other.play(StateLog(Path(temporary) / "states"))
            visited = list(open_log(Path(temporary) / "states"))
            brancher = attempt(lambda: stack.enter_context(measuring.brancher(visited)))
            target = measuring.target(visited, measuring.plain(visited, brancher), brancher)
        if isinstance(target, Skipped):
            self.notes.append(f"the reference could not be labelled: {target.reason}")
            return None
        return target.steps.sample

    def _sets(self, dataset: Dataset | None, visited: StateSample) -> Sets:
        if dataset is None:
            nothing = Skipped("no data set was given")
            return Sets(nothing, nothing, visited, nothing)
        parts = attempt(lambda: dataset.split(self.plan.validation_fraction, self.plan.seed))
        if isinstance(parts, Skipped):
            return Sets(dataset, parts, visited, attempt(lambda: Reach(dataset, self._generator(1))))
        train, validation = parts
        self.notes.append(
            f"validation: {len(validation)} of {len(dataset)} trajectories, held out here; whether the agent was "
            "trained on them is not known"
        )
        return Sets(train, validation, visited, attempt(lambda: Reach(train, self._generator(1))))

    def _errors(self, sets: Sets) -> Any:
        plan, critic, oracle = self.plan, self.critic, self.oracle
        space = spaces_of(self.env)[1]
        if oracle is not None:
            return policy_errors(self.model, space, oracle, sets, plan.num_states, self._generator(5))
        if isinstance(critic, Skipped):
            return Skipped(f"no oracle was given, and the critic cannot stand in for one: {critic.reason}")
        own = critics_optimum(critic, sets.reach, plan.num_near)
        if isinstance(own, Skipped):
            return Skipped(f"no oracle was given, and the critic's own optimum needs the data: {own.reason}")
        return policy_errors(self.model, space, own, sets, plan.num_states, self._generator(5))

    def _generator(self, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.plan.seed, stream])

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = time.perf_counter() - began
