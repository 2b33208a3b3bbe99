"""A run on disk: what was asked, and every finished episode; a killed run goes on and ends in the identical table.

::

    manifest.json    versions, environment, agent, plan, steering recipes, the weights' hash before and after
    episodes.csv     one row an episode, keyed by variant and plan entry, appended as they finish
    states/          every visited state, one log a variant (`offline_eval.datasets`), if asked for
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from offline_eval.episodes.plan import EpisodePlan
from offline_eval.episodes.records import Episode, Evaluation
from offline_eval.episodes.store import EpisodeStore
from offline_eval.errors import InputError, StorageError
from offline_eval.files import FolderLock, write_durably
from offline_eval.provenance import versions

_SCHEMA = 1
_LONGEST_FAILURE = 1000  # characters of a message; a table whose fields are much longer cannot be read back
_LONGEST_NAME = 100
_COLUMNS = (
    *("variant", "index", "seed", "return", "length", "terminated", "truncated", "success", "failed", "steering"),
    *("success_any", "fresh"),
)
_ASKED = ("env", "agents", "plan", "variants", "options")
"""What must agree for a run to go on."""


def plan_to_json(plan: EpisodePlan) -> list[Any]:
    """A plan as plain data."""
    return [[entry.seed, None if entry.options is None else dict(entry.options)] for entry in plan]


class RunFolder(EpisodeStore):
    """A folder that receives a run.

    Args:
        path: a new or empty folder; one that holds a run only with `resume`.
        asked: what the run is to do, as plain data with the keys env, agents, plan, variants and options.
        resume: go on with the run that the folder holds, if it was asked for the same.
        command: what was typed to start it, for the reader.
        log_states: keep every visited state, too.

    Raises:
        InputError: the folder holds a run already, or one that was asked for something else.
        StorageError: the folder cannot be written, or another process writes to it.
    """

    def __init__(
        self,
        path: str | Path,
        asked: Mapping[str, Any],
        resume: bool = False,
        command: str = "",
        log_states: bool = False,
    ) -> None:
        self.path, self._log_states = Path(path), log_states
        self._asked = json.loads(json.dumps({key: asked[key] for key in _ASKED}))
        self._manifest_path = self.path / "manifest.json"
        self._table_path = self.path / "episodes.csv"
        self._episodes: dict[str, dict[int, Episode]] = {}
        self._guard(lambda: self.path.mkdir(parents=True, exist_ok=True))
        self._lock = FolderLock(self.path)
        if self._manifest_path.exists():
            if not resume:
                raise InputError("out", "must be a new folder", str(path), "give another one, or go on with resume")
            self._check_same()
            self._read_table()
        settled = read_manifest(self._manifest_path).get("settled") if self._manifest_path.exists() else None
        self._manifest: dict[str, Any] = {"schema": _SCHEMA, "command": command, **self._asked}
        self._manifest["settled"] = settled if isinstance(settled, dict) else {}
        self._manifest |= {"versions": versions(), "finished": False}
        self._write_manifest()
        self._write_table()

    def done(self, variant: str) -> list[Episode]:
        """The finished episodes of a variant; failed ones are played again."""
        episodes = self._episodes.get(variant, {})
        return [episodes[index] for index in sorted(episodes) if episodes[index].failed is None]

    def settled(self, name: str, choose: Callable[[], dict[str, int]]) -> dict[str, int]:
        """What was chosen when the run began: now, or by the run that is resumed."""
        kept = self._manifest["settled"].get(name)
        if isinstance(kept, dict) and all(isinstance(value, int) and value > 0 for value in kept.values()):
            return kept
        self._manifest["settled"][name] = choose()
        self._write_manifest()
        return dict(self._manifest["settled"][name])

    def record(self, variant: str, episode: Episode) -> None:
        """Keep an episode; it survives whatever happens to this process from now on."""
        self._episodes.setdefault(variant, {})[episode.index] = episode
        self._guard(lambda: self._append(variant, episode))

    @property
    def directory(self) -> Path:
        """The folder itself, for further files."""
        return self.path

    def states(self, variant: str) -> Path | None:
        """Where a variant's visited states go; None where they are not asked for."""
        return self.path / "states" / folder_name(variant) if self._log_states else None

    def finish(self, evaluations: Mapping[str, Evaluation], result: Mapping[str, Any]) -> None:
        """Put the table in the plan's order and complete the manifest.

        Args:
            evaluations: by variant.
            result: what `--json` prints; its figures stand in the manifest too.
        """
        self._write_table()
        self._manifest["finished"] = True
        self._manifest["weights_hash"] = {
            variant: dict(zip(("before", "after"), evaluation.weights_hash, strict=True))
            for variant, evaluation in evaluations.items()
        }
        self._manifest["wall_time"] = {variant: evaluation.wall_time for variant, evaluation in evaluations.items()}
        self._manifest["notes"] = {variant: list(evaluation.notes) for variant, evaluation in evaluations.items()}
        self._manifest["result"] = result
        self._write_manifest()
        self._lock.release()

    def _append(self, variant: str, episode: Episode) -> None:
        with self._table_path.open("a", newline="", encoding="utf-8") as table:
            table.write(_line(variant, episode))

    def _check_same(self) -> None:
        found = read_manifest(self._manifest_path)
        for key in _ASKED:
            if found.get(key) != self._asked[key]:
                raise InputError(
                    "resume",
                    f"must go on with the same run, but the folder's {key} is {_short(found.get(key))}",
                    self._asked[key],
                    "give another folder, or the arguments of that run",
                )

    def _read_table(self) -> None:
        if self._table_path.exists():
            for variant, episode in _rows(self._table_path):
                self._episodes.setdefault(variant, {})[episode.index] = episode

    def _write_table(self) -> None:
        lines = [",".join(_COLUMNS) + "\n"]
        for variant, episodes in self._episodes.items():
            lines += [_line(variant, episodes[index]) for index in sorted(episodes)]
        self._replace(self._table_path, "".join(lines))

    def _write_manifest(self) -> None:
        self._replace(self._manifest_path, json.dumps(self._manifest, indent=2) + "\n")

    def _replace(self, path: Path, text: str) -> None:
        self._guard(lambda: write_durably(path, text.encode()))

    def _guard(self, write: Any) -> Any:
        try:
            return write()
        except OSError as error:
            raise StorageError(
                f"`out` cannot be written: {self.path}: {error.strerror or error}. Episodes written so far are kept; "
                "make room or give another folder, then resume"
            ) from error


def folder_name(name: str) -> str:
    """A name of a variant, a pair or an algorithm as the name of one folder inside of another.

    Whatever is no letter, digit, dot, plus or minus becomes a minus; a name that would leave the folder, and one that
    is too long, ends in a part of its hash, by which it differs from all others.
    """
    short = re.sub(r"[^\w.+-]+", "-", name)
    if len(short.encode()) <= _LONGEST_NAME and short.strip("."):
        return short
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{short.strip('.').encode()[:_LONGEST_NAME].decode(errors='ignore')}-{digest}".lstrip("-")


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        StorageError: it cannot be read, or is no JSON.
    """
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise StorageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a run.

    Args:
        path: of the file.

    Raises:
        StorageError: it cannot be read, or is no manifest.
    """
    found = read_json(path)
    if not isinstance(found, dict) or not isinstance(found.get("options"), dict):
        raise StorageError(f"{path} is not the manifest of a run: give another folder")
    return found


def read_episodes(path: str | Path) -> dict[str, list[Episode]]:
    """The episodes of a run folder by variant, in the plan's order."""
    table = Path(path) / "episodes.csv"
    if not table.is_file():
        raise InputError("run", "must be a run folder with an episodes.csv", str(path))
    variants: dict[str, dict[int, Episode]] = {}
    for variant, episode in _rows(table):
        variants.setdefault(variant, {})[episode.index] = episode  # the last play of an episode counts
    return {variant: [episodes[index] for index in sorted(episodes)] for variant, episodes in variants.items()}


def _rows(table: Path) -> Iterator[tuple[str, Episode]]:
    """The finished rows of a table: a kill may have torn the last one."""
    number = 1
    try:
        text = table.read_bytes().decode()
        for row in csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline="")):
            number += 1
            yield row["variant"], _episode(row)
    except OSError as error:
        raise StorageError(f"{table} cannot be read: {error.strerror or error}") from error
    except (csv.Error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StorageError(
            f"{table} is damaged at row {number} ({type(error).__name__}: {str(error)[:80]}): remove that row, and "
            "`--resume` plays its episode again"
        ) from error


def _line(variant: str, episode: Episode) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(
        [
            variant,
            episode.index,
            episode.seed,
            repr(episode.episode_return),  # repr and float are inverse: nothing is rounded
            episode.length,
            int(episode.terminated),
            int(episode.truncated),
            "" if episode.success is None else int(episode.success),
            (episode.failed or "")[:_LONGEST_FAILURE],
            json.dumps(dict(episode.steering)) if episode.steering else "",
            "" if episode.success_any is None else int(episode.success_any),
            int(episode.fresh),
        ]
    )
    return buffer.getvalue()


def _episode(row: Mapping[str, str]) -> Episode:
    if not (row["failed"] or isfinite(float(row["return"]))):
        raise ValueError(f"a return of {row['return']}")
    return Episode(
        index=int(row["index"]),
        seed=int(row["seed"]),
        episode_return=float(row["return"]),
        length=int(row["length"]),
        terminated=row["terminated"] == "1",
        truncated=row["truncated"] == "1",
        failed=row["failed"] or None,
        success=None if row["success"] == "" else row["success"] == "1",
        steering=dict(json.loads(row["steering"])) if row["steering"] else {},
        success_any=None if not row.get("success_any") else row["success_any"] == "1",
        fresh=row.get("fresh") == "1",
    )


def _short(value: object, longest: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= longest else text[: longest - 3] + "..."
