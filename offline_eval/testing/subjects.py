"""Whom an assertion is about: an agent opened and held against its environment, and the plan of its episodes."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offline_eval.datasets.recorder import LoggedEpisode
from offline_eval.environments import EnvironmentLike, environment_id
from offline_eval.episodes import EpisodePlan, Evaluation
from offline_eval.episodes.plan import planned
from offline_eval.errors import InputError, SpaceError, bare
from offline_eval.policies import opened as opened_agent
from offline_eval.policies.opening import is_file
from offline_eval.testing.given import GivenAgent
from offline_eval.testing.session import DEFAULT_EPISODES, current
from offline_eval.testing.sources import EpisodeSource
from offline_eval.types import Predictor

AgentLike = Predictor | str | Path
"""Anything with Stable-Baselines3's `predict`, or the file of an agent."""


@dataclass(frozen=True)
class Subject:
    """An agent, opened.

    Attributes:
        policy: has `predict`.
        name: of its file, or of its class.
        path: of its file; None where it came as an object.
        role: the argument that it came as.
        notes: what a reader should know of it in its environment.
    """

    policy: Predictor
    name: str
    path: str | None
    role: str = "agent"
    notes: tuple[str, ...] = ()

    @property
    def shell(self) -> str:
        """The agent as a word of a command."""
        return f"{self.role.upper()}.zip" if self.path is None else shlex.quote(self.path)


def opened(agent: Any, env: EnvironmentLike, argument: str = "agent") -> Subject:
    """An agent for an environment.

    Raises:
        InputError: no agent, or an environment that cannot be made.
        SpaceError: the agent has other spaces than the environment.
        AgentFileError: a file that is no agent.
    """
    refuse_nobody(agent, argument)
    if env is None:
        raise InputError("env", "must be an id or a factory", None, 'name it: env="Hopper-v5"')
    path = str(Path(agent)) if is_file(agent) or isinstance(agent, GivenAgent) else None
    name = type(agent).__name__ if path is None else Path(path).name
    if path is None and not callable(getattr(agent, "predict", None)):
        raise InputError(argument, "must have Stable-Baselines3's `predict`, or be the file of an agent", agent)
    try:
        policy, notes = opened_agent(agent.opened(env) if isinstance(agent, GivenAgent) else agent, env)
    except SpaceError as error:
        rule = f"must be an agent for {environment_id(env)}"
        way_out = f"{error.argument} {error.rule}; {error.way_out}"
        raise SpaceError(argument, rule, bare(name) if path is None else name, way_out) from error
    return Subject(policy, name, path, argument, notes)


def environment_for(agent: Any, env: EnvironmentLike | None) -> EnvironmentLike:
    """The environment of an assertion: its own, that of the agent under test, or what was said for the whole run.

    Raises:
        InputError: nobody said one.
    """
    if env is None and isinstance(agent, GivenAgent):
        env = agent.env
    env = current().asked("env") if env is None else env
    if env is None:
        way_out = 'name it: env="Hopper-v5", or --offline-eval-env=Hopper-v5'
        raise InputError("env", "must be an id or a factory", None, way_out)
    return env


def allowed(plan: EpisodePlan | int | None) -> EpisodePlan:
    """The episodes that an assertion may play: its own plan, what was said for the whole run, or 500."""
    return planned(plan if plan is not None else current().asked("episodes") or DEFAULT_EPISODES)


def refuse_nobody(agent: object, argument: str = "agent") -> None:
    """Raise where there is no agent."""
    if agent is None:
        raise InputError(argument, "must be an agent", None, "anything with `predict`, or the zip of an SB3 agent")


def spoken(plan: EpisodePlan, number: int) -> str:
    """The seeds of the first so many entries, in words."""
    seeds = [entry.seed for entry in plan.entries[:number]]
    if seeds == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]}..{seeds[-1]}" if len(seeds) > 1 else f"{seeds[0]}"
    return ", ".join(str(seed) for seed in seeds[:8]) + (", ..." if len(seeds) > 8 else "")


def command(name: str, agents: list[Subject], env: EnvironmentLike, plan: EpisodePlan, number: int) -> str:
    """The shell command that plays the same episodes and shows more of them."""
    words = " ".join(subject.shell for subject in agents)
    where = shlex.quote(environment_id(env))
    return f"offline-eval {name} {words} --env {where} --episodes {number} --seed {plan[0].seed}"


def refuse_failures(evaluation: Evaluation) -> None:
    """Raise where an environment broke: an episode without a return can be left out of no test."""
    if evaluation.failures:
        failed = evaluation.failures[0]
        raise _broken(f"{failed.failed} with seed {failed.seed}")


def logged(source: EpisodeSource, policy: Predictor, env: EnvironmentLike, plan: EpisodePlan) -> list[LoggedEpisode]:
    """The planned episodes with every visited state.

    Raises:
        InputError: one of them failed.
    """
    episodes = list(source.logged(policy, env, plan))
    if len(episodes) < len(plan):
        raise _broken(f"{len(plan) - len(episodes)} of {len(plan)} episodes in which it raised")
    return episodes


def _broken(text: str) -> InputError:
    return InputError("env", "must play every episode to its end", bare(text), "mend the environment")
