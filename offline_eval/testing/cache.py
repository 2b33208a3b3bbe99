"""Episodes on disk, keyed by what decided them: ten assertions on one agent cost one rollout, also in many processes.

::

    <folder>/<name>/asked.json        what the name stands for: policy, environment, versions
    <folder>/<name>/episodes.jsonl    one line an episode, appended as they finish
    <folder>/<name>/states/<number>   visited states (`offline_eval.datasets`), where they were asked for
    <folder>/<name>/lock              held by the process that plays; the others wait for it

An episode is keyed by its plan entry, so a longer plan plays only what is new. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from offline_eval.datasets.log import open_log
from offline_eval.datasets.recorder import LoggedEpisode
from offline_eval.environments import EnvironmentLike, environment_id
from offline_eval.episodes import Episode, EpisodePlan, EpisodeStore, Evaluation, PlanEntry, evaluate
from offline_eval.errors import StorageError
from offline_eval.files import locked
from offline_eval.policies import weights_hash
from offline_eval.provenance import versions
from offline_eval.testing.identity import environment_identity, policy_identity
from offline_eval.testing.sources import FreshEpisodes
from offline_eval.types import Predictor, Rule

_FORMAT = 1


class EpisodeCache:
    """An `EpisodeSource` that plays each episode once for all processes that share a folder.

    What cannot be named (`offline_eval.testing.identity`) is played every time: policies and rules that run code of
    the user's own, finished environments and factories. Failed episodes are not kept.

    Args:
        folder: made where it is not there.
        n_envs: environments side by side.
        states: whether to keep visited states from the start; otherwise the first `logged` plays once more for them.

    Attributes:
        played: episodes that this object has played.
        found: episodes that it has taken from the folder.
    """

    def __init__(self, folder: str | Path, n_envs: int | str = "auto", states: bool = False) -> None:
        self.folder, self.n_envs, self.states = Path(folder), n_envs, states
        self._fresh = FreshEpisodes(n_envs)
        self.played = self.found = 0

    def evaluation(
        self, policy: Predictor, env: EnvironmentLike, plan: EpisodePlan, rule: Rule | None = None
    ) -> Evaluation:
        """The evaluation of a plan, as `offline_eval.evaluate` gives it.

        Raises:
            InputError: an argument breaks a rule.
            StorageError: the folder cannot be written.
        """
        return self._evaluation(
            self._run(policy, env, plan, rule), policy, env, plan, rule, self.states and rule is None
        )

    def logged(self, policy: Predictor, env: EnvironmentLike, plan: EpisodePlan) -> Sequence[LoggedEpisode]:
        """The episodes of a plan with every visited state, in its order; each `key` is the index in the plan.

        Episodes that failed are left out.

        Raises:
            InputError: an argument breaks a rule.
            StorageError: the folder cannot be written or read.
        """
        run = self._run(policy, env, plan, None)
        if run is None:
            self.played += len(plan)
            return self._fresh.logged(policy, env, plan)
        self._evaluation(run, policy, env, plan, None, True)
        return run.states()

    def _run(self, policy: Predictor, env: EnvironmentLike, plan: EpisodePlan, rule: Rule | None) -> _Run | None:
        asked = _asked(policy, env, rule)
        try:
            keys = [_key(entry) for entry in plan]
        except TypeError:  # reset options that JSON does not know
            return None
        return None if asked is None else _Run(self.folder, asked, keys)

    def _evaluation(
        self, run: _Run | None, policy: Predictor, env: EnvironmentLike, plan: EpisodePlan, rule: Rule | None, log: bool
    ) -> Evaluation:
        """The plan's episodes; those that are not there are played now, with their states where `log` says so."""
        if run is None:
            self.played += len(plan)
            return self._fresh.evaluation(policy, env, plan, rule)
        play = partial(evaluate, policy, env, plan, rule=rule, n_envs=self.n_envs, replays=0)
        done = run.read(log)
        if len(done) == len(plan):
            self.found += len(plan)
            return play(store=_Found(run, done, None))
        with run.mine():
            done = run.read(log)  # another process may have played them in the meantime
            self.found += len(done)
            self.played += len(plan) - len(done)
            states = run.new_log() if log else None
            return play(store=_Found(run, done, states))


class _Run:
    """The folder of one policy in one environment, and the keys of the plan that is asked for."""

    def __init__(self, folder: Path, asked: dict[str, Any], keys: list[str]) -> None:
        text = json.dumps(asked, sort_keys=True)
        self.folder = folder / hashlib.sha256(text.encode()).hexdigest()[:32]
        self._asked, self._keys, self._table = asked, keys, self.folder / "episodes.jsonl"

    def read(self, with_states: bool) -> list[Episode]:
        """The episodes that are there, with their index in the plan."""
        rows = self._rows(with_states)
        return [_episode(index, rows[key]) for index, key in enumerate(self._keys) if key in rows]

    def states(self) -> list[LoggedEpisode]:
        """The visited states of the episodes that are there, each with its index in the plan as `key`."""
        rows = self._rows(with_states=True)
        places = {index: rows[key]["states"] for index, key in enumerate(self._keys) if key in rows}
        logs = {name: open_log(self.folder / "states" / name) for name in {name for name, _ in places.values()}}
        positions = {name: {key: position for position, key in enumerate(log.keys)} for name, log in logs.items()}
        return [replace(logs[name][positions[name][key]], key=index) for index, (name, key) in places.items()]

    @contextmanager
    def mine(self) -> Iterator[None]:
        """Hold the lock; waits for a process that plays."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "lock").touch()
        except OSError as error:
            raise StorageError(
                f"the cache `{self.folder}` cannot be written: {error.strerror or error}. "
                "Name another folder with --offline-eval-cache"
            ) from error
        with locked(self.folder / "lock"):
            (self.folder / "asked.json").write_text(json.dumps(self._asked, indent=1) + "\n", encoding="utf-8")
            self._mend()
            yield

    def new_log(self) -> Path:
        """A folder for visited states that nobody has used."""
        number = 0
        while (folder := self.folder / "states" / str(number)).exists():
            number += 1
        return folder

    def add(self, episode: Episode, log: Path | None) -> None:
        """Keep a finished episode."""
        if episode.failed is not None:
            return
        row = {
            "entry": self._keys[episode.index],
            "seed": episode.seed,
            "return": episode.episode_return,
            "length": episode.length,
            "terminated": episode.terminated,
            "truncated": episode.truncated,
            "success": episode.success,
            "success_any": episode.success_any,
            "steering": dict(episode.steering),
            "states": None if log is None else [log.name, episode.index],
        }
        with self._table.open("a", encoding="utf-8", newline="") as table:
            table.write(json.dumps(row) + "\n")

    def _rows(self, with_states: bool) -> dict[str, dict[str, Any]]:
        try:
            text = self._table.read_text(encoding="utf-8")
            # What follows the last line end is torn, or not written yet.
            rows = [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
            return {row["entry"]: row for row in rows if row["states"] is not None or not with_states}
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageError(f"the cache `{self.folder}` cannot be read ({error!r}): remove that folder") from error

    def _mend(self) -> None:
        """Take away a line that a kill has torn."""
        if self._table.exists():
            content = self._table.read_bytes()
            if not content.endswith(b"\n"):
                self._table.write_bytes(content[: content.rfind(b"\n") + 1])


@dataclass(frozen=True)
class _Found(EpisodeStore):
    """What the cache holds of a plan; what is missing is added to it, with its states where there is a log."""

    run: _Run
    episodes: Sequence[Episode]
    log: Path | None

    def done(self, variant: str) -> Sequence[Episode]:
        return self.episodes

    def record(self, variant: str, episode: Episode) -> None:
        self.run.add(episode, self.log)

    def states(self, variant: str) -> Path | None:
        return self.log


def _asked(policy: Predictor, env: EnvironmentLike, rule: Rule | None) -> dict[str, Any] | None:
    """What an episode depends on, its plan entry apart; None where that cannot be told."""
    named, environment = policy_identity(policy, rule), environment_identity(env)
    if named is None or environment is None:
        return None
    return {
        "format": _FORMAT,
        "env": environment_id(env),
        "environment": environment,
        "weights": weights_hash(policy),
        "policy": named,
        "device": str(getattr(policy, "device", "cpu")),
        "versions": _versions(),
    }


@cache
def _versions() -> dict[str, str]:
    return versions()  # it reads a file for each package


def _key(entry: PlanEntry) -> str:
    return json.dumps([entry.seed, None if entry.options is None else dict(entry.options)], sort_keys=True)


def _episode(index: int, row: dict[str, Any]) -> Episode:
    return Episode(
        index=index,
        seed=row["seed"],
        episode_return=row["return"],
        length=row["length"],
        terminated=row["terminated"],
        truncated=row["truncated"],
        success=row["success"],
        success_any=row.get("success_any"),
        steering=row["steering"],
    )
