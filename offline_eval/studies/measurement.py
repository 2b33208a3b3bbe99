"""`measure`: what can be told about one agent, each number beside its control, and what could not be told, and why."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Protocol

import numpy as np

from offline_eval.datasets.log import open_log
from offline_eval.datasets.opening import open_dataset
from offline_eval.datasets.recorder import LoggedEpisode
from offline_eval.datasets.trajectories import Dataset
from offline_eval.diagnostics.clustered import Estimate
from offline_eval.diagnostics.q_bias import q_bias
from offline_eval.environments import EnvironmentLike, environment_id
from offline_eval.episodes import Episode, EpisodePlan, Evaluation, evaluate
from offline_eval.errors import CriticError
from offline_eval.policies import critic_of, load_sb3, spaces_of, weights_hash
from offline_eval.provenance import recipe, versions
from offline_eval.studies.action_trial import ActionTrial, TriedActions, try_actions
from offline_eval.studies.candidates import Reach, StateSample
from offline_eval.studies.driving import Driver, MeanAction, NoisyAction, SoftDraws, soft_draws
from offline_eval.studies.labelling import LabelledSteps, label_steps, stacked, window_ceiling
from offline_eval.studies.measurement_records import Bias, Measurement, Performance, Ranks, Skipped, attempt
from offline_eval.studies.measurement_sets import (
    Agent,
    Sets,
    critics_optimum,
    extraction_regrets,
    policy_errors,
    state_coverage,
)
from offline_eval.studies.truth import Advance, Brancher, check_restorable, draw_episodes
from offline_eval.types import Critic, Predictor

_NUM_POINTS = 400


@dataclass(frozen=True)
class MeasurementPlan:
    """How much is measured.

    Attributes:
        episodes: played; their seeds are `seed`, `seed + 1`, ...
        seed: of the first episode, and of everything that is drawn.
        n_envs: environments side by side.
        workers: processes that play the episodes.
        step_limit: cuts episodes; by default only where the environment has no limit.
        window: of the rank along trajectories.
        tolerance: share of a steady return that a label may miss.
        longest: steps to roll on past a time limit, at most.
        ceiling_windows: windows whose steps are labelled a second time.
        trial: candidate actions at restored states.
        num_states: states a set in `regret`, and with the critic's own optimum in `policy_error`.
        num_near: the data's actions near a state.
        validation_fraction: of the data set's steps, held out by trajectory.
    """

    episodes: int = 50
    seed: int = 0
    n_envs: int = 8
    workers: int | str = "auto"
    step_limit: int | None = None
    window: int = 10
    tolerance: float = 0.01
    longest: int = 5000
    ceiling_windows: int = 100
    trial: ActionTrial = field(default_factory=ActionTrial)
    num_states: int = 2000
    num_near: int = 8
    validation_fraction: float = 0.2

    @classmethod
    def quick(cls, **changes: Any) -> MeasurementPlan:
        """Under 2 minutes on two cores for an agent on Hopper."""
        quick: dict[str, Any] = {"episodes": 10, "longest": 1000, "ceiling_windows": 30, "num_states": 500}
        return cls(**{**quick, "trial": ActionTrial(num_states=40, num_rollouts=3, num_each=1), **changes})


class Watcher(Protocol):
    """Told what is being done."""

    def begin(self, label: str, total: int) -> Advance:
        """A stage of `total` units; what is called with the units done."""
        ...


class Silent:
    """Tells nobody."""

    def begin(self, label: str, total: int) -> Advance:
        """Nothing."""
        return lambda count: None


def measure(
    model: Predictor | str | Path,
    env: EnvironmentLike,
    *,
    dataset: Dataset | str | Path | None = None,
    oracle: Predictor | str | Path | None = None,
    critic: Any = None,
    plan: MeasurementPlan | None = None,
    quick: bool = False,
    device: str = "auto",
    name: str | None = None,
    states: str | Path | None = None,
    rollouts: str | Path | None = None,
    done: Collection[Episode] = (),
    on_episode: Callable[[Episode], None] | None = None,
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
        plan: how much; `MeasurementPlan()` or, with `quick`, `MeasurementPlan.quick()` if left out.
        quick: less of everything.
        device: where files are loaded.
        name: of the agent, for the manifest.
        states: a new folder for the visited states; a temporary one if left out.
        rollouts: a folder that keeps rollouts, so that an interrupted call with the same arguments goes on from them.
        done: finished episodes of an interrupted call with the same `states`.
        on_episode: told of each episode as it finishes.
        watcher: told of the progress.

    Raises:
        InputError: an argument breaks a rule, or the data, the oracle or the critic are of another environment.
        WorkerError: a worker process died.
    """
    plan = plan or (MeasurementPlan.quick() if quick else MeasurementPlan())
    names = {"agent": name or _name(model), "dataset": _name(dataset), "oracle": _name(oracle), "critic": _name(critic)}
    model = _opened(model, env, device)
    subject = _Subject(model, env, _critic(critic, model, env, device), plan, watcher or Silent(), rollouts)
    if oracle is not None:
        subject.oracle = Agent(_opened(oracle, env, device), names["oracle"] or "an agent")
    if dataset is not None:
        observation_space, action_space = spaces_of(env)
        if isinstance(dataset, Dataset):
            dataset = dataset.for_spaces(observation_space, action_space)
        else:
            dataset = open_dataset(dataset, observation_space=observation_space, action_space=action_space)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "states" if states is None else Path(states)
        evaluation = subject.play(folder, done, on_episode)
        visited = list(open_log(folder)) if len(evaluation.failures) < len(evaluation.plan) else []
        sections = subject.measure(visited, dataset)
    manifest = {
        **names,
        "algorithm": evaluation.algorithm,
        "env": environment_id(env),
        "plan": {key: value for key, value in recipe(plan).items() if key != "name"},
        "critic_reduced_by": "min",
        "versions": versions(),
        "weights_hash": {"before": evaluation.weights_hash[0], "after": weights_hash(model)},
        "seconds": {name: round(seconds, 2) for name, seconds in subject.seconds.items()},
        "notes": subject.notes,
    }
    return Measurement(performance=Performance(evaluation), manifest=manifest, **sections)


def _name(thing: Any) -> str | None:
    if thing is None:
        return None
    if isinstance(thing, Dataset):
        return thing.source.path or "a data set in memory"
    return Path(thing).name if isinstance(thing, str | Path) else type(thing).__name__


def _opened(model: Any, env: EnvironmentLike, device: str) -> Any:
    return load_sb3(model, env, device) if isinstance(model, str | Path) else model


def _critic(critic: Any, model: Any, env: EnvironmentLike, device: str) -> Critic | Skipped:
    if critic is not None:
        found: Critic = critic_of(_opened(critic, env, device))
        return found
    try:
        own: Critic = critic_of(model)
        return own
    except CriticError as error:
        return Skipped(str(error))


class _Target(NamedTuple):
    """The steps whose labels are what the critic estimates, and the ceiling of their rank."""

    steps: LabelledSteps
    ceiling: Estimate | Skipped


class _Subject:
    """An agent being measured."""

    def __init__(
        self,
        model: Any,
        env: EnvironmentLike,
        critic: Critic | Skipped,
        plan: MeasurementPlan,
        watcher: Watcher,
        rollouts: str | Path | None,
    ) -> None:
        self.model, self.env, self.critic, self.plan, self.watcher = model, env, critic, plan, watcher
        self.rollouts = None if rollouts is None else Path(rollouts)
        self.oracle: Agent | None = None
        self.seconds: dict[str, float] = {}
        self.notes: list[str] = []

    def play(self, folder: Path, done: Collection[Episode], on_episode: Callable[[Episode], None] | None) -> Evaluation:
        """The episodes of the plan, their states logged."""
        episodes = EpisodePlan.seeded(self.plan.episodes, self.plan.seed)
        advance = self.watcher.begin("episodes", len(episodes) - len(done))

        def tell(episode: Episode) -> None:
            if on_episode is not None:
                on_episode(episode)
            advance(1)

        with self._timed("performance"):
            return evaluate(
                self.model,
                self.env,
                episodes,
                n_envs=self.plan.n_envs,
                workers=self.plan.workers,
                step_limit=self.plan.step_limit,
                log_states=folder,
                done=done,
                on_episode=tell,
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
        with ExitStack() as stack:
            brancher = attempt(lambda: stack.enter_context(self._brancher(visited)))
            if isinstance(brancher, Skipped):
                self.notes.append(f"nothing was rolled out from restored states: {brancher.reason}")
            with self._timed("labels"):
                plain = self._plain(critic, visited, brancher)
                target = self._target(critic, visited, plain, brancher)
            with self._timed("action_trial"):
                tried = brancher if isinstance(brancher, Skipped) else self._trial(critic, visited, brancher, sets)
        sections["q_bias"] = target if isinstance(target, Skipped) else attempt(lambda: self._bias(target, plain))
        sections["q_rank"] = (
            target if isinstance(target, Skipped) else attempt(lambda: self._rank(target, plain, tried))
        )
        with self._timed("regret"):
            sections["regret"] = attempt(
                lambda: extraction_regrets(
                    self.model, critic, sets, plan.num_states, plan.num_near, self._generator(4), tried
                )
            )

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

    def _brancher(self, episodes: list[LoggedEpisode]) -> Brancher:
        brancher = Brancher(self.env, episodes, kept=self._folder("visited"))
        check_restorable(brancher)
        return brancher

    def _folder(self, name: str) -> Path | None:
        return None if self.rollouts is None else self.rollouts / name

    def _plain(
        self, critic: Critic, visited: list[LoggedEpisode], brancher: Brancher | Skipped
    ) -> LabelledSteps | Skipped:
        advance = self.watcher.begin("past the time limit", len(visited))
        usable = None if isinstance(brancher, Skipped) else brancher
        options = {"tolerance": self.plan.tolerance, "longest": self.plan.longest}
        return attempt(
            lambda: label_steps(critic, MeanAction(self.model), visited, usable, advance=advance, **options)  # type: ignore[arg-type]
        )

    def _target(
        self,
        critic: Critic,
        visited: list[LoggedEpisode],
        plain: LabelledSteps | Skipped,
        brancher: Brancher | Skipped,
    ) -> _Target | Skipped:
        draws = soft_draws(self.model) if critic.soft else None
        usable = None if isinstance(brancher, Skipped) else brancher
        if draws is None:
            return plain if isinstance(plain, Skipped) else _Target(plain, self._ceiling(plain, usable))
        plan = self.plan
        drawn = attempt(
            lambda: draw_episodes(
                draws,
                self.env,
                EpisodePlan.seeded(plan.episodes, plan.seed),
                self.watcher.begin("draws with entropy", plan.episodes),
                step_limit=plan.step_limit,
            )
        )
        if isinstance(drawn, Skipped):
            return plain if isinstance(plain, Skipped) else _Target(plain, self._ceiling(plain, usable))
        episodes = [part.episode for part in drawn]
        with Brancher(self.env, episodes, kept=self._folder("drawn")) as own:
            steps = attempt(
                lambda: label_steps(
                    critic,
                    draws,
                    episodes,
                    None if usable is None else own,
                    bonuses=[part.bonuses for part in drawn],
                    tolerance=plan.tolerance,
                    longest=plan.longest,
                    advance=self.watcher.begin("draws past the time limit", len(episodes)),
                )
            )
            if isinstance(steps, Skipped):
                return steps
            return _Target(steps, self._ceiling(steps, None if usable is None else own))

    def _ceiling(self, steps: LabelledSteps, brancher: Brancher | None) -> Estimate | Skipped:
        plan = self.plan
        return attempt(
            lambda: window_ceiling(
                steps,
                brancher,
                self._generator(2),
                window=plan.window,
                num_windows=plan.ceiling_windows,
                num_steps=plan.longest,
                advance=self.watcher.begin("second labels", plan.ceiling_windows * plan.window),
            )
        )

    def _trial(
        self, critic: Critic, visited: list[LoggedEpisode], brancher: Brancher, sets: Sets
    ) -> TriedActions | Skipped:
        driver = self._continuation(critic)
        return attempt(
            lambda: try_actions(
                self.model,
                critic,
                driver,
                visited,
                brancher,
                self.plan.trial,
                self._generator(3),
                reach=None if isinstance(sets.reach, Skipped) else sets.reach,
                soft=isinstance(driver, SoftDraws),
                begin=lambda total: self.watcher.begin("candidate actions", total),
            )
        )

    def _continuation(self, critic: Critic) -> Driver:
        """What goes on after a candidate action: what the critic values, with some noise where that has none."""
        draws = soft_draws(self.model) if critic.soft else None
        if draws is not None:
            return draws
        is_box = hasattr(critic.action_space, "low")
        return NoisyAction(self.model, critic.action_space) if is_box else MeanAction(self.model)

    def _bias(self, target: _Target, plain: LabelledSteps | Skipped) -> Bias:
        generator, sample = self._generator(7), target.steps.sample
        rows = np.sort(generator.permutation(len(sample.q))[:_NUM_POINTS])
        other = None if isinstance(plain, Skipped) or plain is target.steps else q_bias(plain.sample, generator)
        points = np.stack([sample.q[rows], sample.truth[rows]], axis=1)
        return Bias(q_bias(sample, generator), target.steps.record, points, other)

    def _rank(self, target: _Target, plain: LabelledSteps | Skipped, tried: TriedActions | Skipped) -> Ranks:
        window = self.plan.window
        actions = tried if isinstance(tried, Skipped) else attempt(lambda: tried.rank(self._generator(8)))
        other = None
        if not isinstance(plain, Skipped) and plain is not target.steps:
            found = attempt(lambda: plain.rank(self._generator(9), window))
            other = None if isinstance(found, Skipped) else found
        ranks = target.steps.rank(self._generator(9), window)
        labels = None if other is None or isinstance(plain, Skipped) else plain.record
        return Ranks(ranks, target.ceiling, target.steps.record, actions, other, labels)

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
