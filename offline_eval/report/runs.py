"""What a page is made of: the objects of `--json`, from run folders or straight from a command."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from offline_eval.episodes import Episode
from offline_eval.errors import InputError, OfflineEvalError
from offline_eval.run_folder import read_episodes, read_json
from offline_eval.stats import paired_difference, summarize

_LONGEST_RULE = 200


@dataclass(frozen=True)
class RunResult:
    """One run.

    Attributes:
        name: what a reader calls it: the folder's name.
        result: the object of `--json` of `evaluate`, `steer`, `compare`, `measure`, `track` or `diagnose`.
        manifest: how it was made; {} where nothing is known but the result.
    """

    name: str
    result: Mapping[str, Any]
    manifest: Mapping[str, Any] = field(default_factory=dict)

    @property
    def env(self) -> str:
        """Id of the environment."""
        return str(self.result.get("env") or self.manifest.get("env") or "an unnamed environment")

    @property
    def agents(self) -> list[str]:
        """Names of the agents, the evaluated one first."""
        agents = self.manifest.get("agents") or self.manifest.get("agent") or [self.name]
        return [agents] if isinstance(agents, str) else [str(agent) for agent in agents]

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return bool(self.manifest.get("finished", True))


def read_run(path: str | Path) -> RunResult:
    """A run folder, finished or stopped half-way, or a file with the object of `--json`.

    Raises:
        InputError: neither of them.
        StorageError: the file cannot be read as JSON.
    """
    path = Path(path)
    if not path.is_dir():
        result = _read_json(path, path)
        return _checked(RunResult(path.stem, result, result.get("manifest") or {}), path)
    manifest = _read_json(path / "manifest.json", path)
    result = manifest.pop("result", None)
    if result is None:
        with reading(str(path)):
            result = _unfinished(path, manifest)
    return _checked(RunResult(path.resolve().name, result, manifest), path)


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Whatever goes wrong while a run is read is said in one line: the file may be a stranger's, or damaged.

    Raises:
        InputError: names the run, and what was wrong.
    """
    try:
        yield
    except OfflineEvalError:
        raise
    except Exception as error:
        rule = f"must be what --json of this version writes; {type(error).__name__}: {error}"
        raise InputError("RUN", rule[:_LONGEST_RULE], name, "run the command again") from error


def _checked(run: RunResult, path: Path) -> RunResult:
    for part, words in ((run.result, "an object of --json"), (run.manifest, "an object as its manifest")):
        if not isinstance(part, Mapping):
            raise InputError("RUN", f"must hold {words}", str(path))
    return run


def read_runs(paths: Sequence[str | Path]) -> list[RunResult]:
    """Several runs, named so that they can be told apart: by their whole path where names come twice.

    Raises:
        InputError: a path is given twice, or is no run.
    """
    if len({Path(path).resolve() for path in paths}) < len(paths):
        raise InputError("RUN", "must be different runs", [str(path) for path in paths])
    runs = [read_run(path) for path in paths]
    names = [run.name for run in runs]
    return [
        replace(run, name=str(path)) if names.count(run.name) > 1 else run
        for run, path in zip(runs, paths, strict=True)
    ]


def _read_json(file: Path, asked: Path) -> dict[str, Any]:
    if not file.is_file():
        way_out = "`evaluate`, `steer`, `compare`, `measure`, `track` and `diagnose` make one with --out"
        raise InputError("RUN", "must be a run folder, or a file that --json wrote", str(asked), way_out)
    found = read_json(file)
    if not isinstance(found, dict):
        raise InputError("RUN", "must hold a JSON object", str(asked))
    return found


def _unfinished(path: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The episodes that a stopped run has finished, beside its first variant, as the object of `steer`."""
    variants = read_episodes(path)
    if not variants:
        raise InputError("RUN", "must hold a finished episode", str(path), "go on with the run: --resume")
    # What was played to choose by has seeds of its own: the page shows the plan's, and those alone where there are any.
    planned = dict(enumerate(seed for seed, _ in manifest.get("plan", ())))
    variants = {
        name: episodes
        for name, episodes in variants.items()
        if all(planned.get(episode.index) == episode.seed for episode in episodes)
    } or variants
    first = next(iter(variants))
    base = {(episode.index, episode.seed): episode.episode_return for episode in variants[first]}
    rows: Sequence[dict[str, Any]] = [
        {
            "rule": name,
            "control": None,
            "episodes": [episode.to_json() for episode in episodes],
            "summary": summarize([episode.episode_return for episode in episodes]).to_json(),
            "paired": None if name == first else _paired(episodes, base),
            "best_control": None,
            "against_control": None,
            "verdict": None,
        }
        for name, episodes in variants.items()
    ]
    return {"env": manifest.get("env"), "rows": rows}


def _paired(episodes: Sequence[Episode], base: Mapping[tuple[int, int], float]) -> dict[str, Any] | None:
    """Difference to the returns of the same plan entries; None where there are none: a trial has its own seeds."""
    places = [(episode.index, episode.seed) for episode in episodes]
    if not any(place in base for place in places):
        return None
    mine = [episode.episode_return for episode, place in zip(episodes, places, strict=True) if place in base]
    return paired_difference(mine, [base[place] for place in places if place in base]).to_json()
