"""A run on disk: what was asked, and every finished episode; a killed run goes on and ends in the identical table.

::

    manifest.json    versions, environment, agent, plan, steering recipes, the weights' hash before and after
    episodes.csv     one row an episode, keyed by variant and plan entry, appended as they finish
    states/          every visited state, one log a variant (`offline_eval.datasets`), if asked for
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from offline_eval.episodes.plan import EpisodePlan
from offline_eval.episodes.records import Episode, Evaluation
from offline_eval.errors import InputError, StorageError
from offline_eval.provenance import versions

_SCHEMA = 1
_COLUMNS = ("variant", "index", "seed", "return", "length", "terminated", "truncated", "success", "failed", "steering")
_ASKED = ("env", "agents", "plan", "variants", "options")
"""What must agree for a run to go on."""


def plan_to_json(plan: EpisodePlan) -> list[Any]:
    """A plan as plain data."""
    return [[entry.seed, None if entry.options is None else dict(entry.options)] for entry in plan]


class RunFolder:
    """A folder that receives a run.

    Args:
        path: a new or empty folder; one that holds a run only with `resume`.
        asked: what the run is to do, as plain data with the keys env, agents, plan, variants and options.
        resume: go on with the run that the folder holds, if it was asked for the same.
        command: what was typed to start it, for the reader.

    Raises:
        InputError: the folder holds a run already, or one that was asked for something else.
        StorageError: the folder cannot be written.
    """

    def __init__(self, path: str | Path, asked: Mapping[str, Any], resume: bool = False, command: str = "") -> None:
        self.path = Path(path)
        self._asked = json.loads(json.dumps({key: asked[key] for key in _ASKED}))
        self._manifest_path = self.path / "manifest.json"
        self._table_path = self.path / "episodes.csv"
        self._episodes: dict[str, dict[int, Episode]] = {}
        if self._manifest_path.exists():
            if not resume:
                raise InputError("out", "must be a new folder", str(path), "give another one, or go on with resume")
            self._check_same()
            self._read_table()
        self._guard(lambda: self.path.mkdir(parents=True, exist_ok=True))
        self._manifest: dict[str, Any] = {"schema": _SCHEMA, "command": command, **self._asked}
        self._manifest |= {"versions": versions(), "finished": False}
        self._write_manifest()
        self._write_table()

    def done(self, variant: str) -> list[Episode]:
        """The finished episodes of a variant; failed ones are played again."""
        episodes = self._episodes.get(variant, {})
        return [episodes[index] for index in sorted(episodes) if episodes[index].failed is None]

    def record(self, variant: str, episode: Episode) -> None:
        """Keep an episode; it survives whatever happens to this process from now on."""
        self._episodes.setdefault(variant, {})[episode.index] = episode
        self._guard(lambda: self._append(variant, episode))

    def states(self, variant: str) -> Path:
        """Where a variant's visited states go."""
        return self.path / "states" / re.sub(r"[^\w.]+", "-", variant)

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
        if not self._table_path.exists():
            return
        text = self._table_path.read_text(encoding="utf-8")
        complete = text[: text.rfind("\n") + 1]  # a kill may have torn the last row
        for row in csv.DictReader(io.StringIO(complete)):
            self._episodes.setdefault(row["variant"], {})[int(row["index"])] = _episode(row)

    def _write_table(self) -> None:
        lines = [",".join(_COLUMNS) + "\n"]
        for variant, episodes in self._episodes.items():
            lines += [_line(variant, episodes[index]) for index in sorted(episodes)]
        self._replace(self._table_path, "".join(lines))

    def _write_manifest(self) -> None:
        self._replace(self._manifest_path, json.dumps(self._manifest, indent=2) + "\n")

    def _replace(self, path: Path, text: str) -> None:
        def write() -> None:
            temporary = path.with_name(path.name + ".tmp")
            with temporary.open("w", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)

        self._guard(write)

    def _guard(self, write: Any) -> Any:
        try:
            return write()
        except OSError as error:
            raise StorageError(
                f"`out` cannot be written: {self.path}: {error.strerror or error}. Episodes written so far are kept; "
                "make room or give another folder, then resume"
            ) from error


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a run.

    Args:
        path: of the file.

    Raises:
        StorageError: it cannot be read, or is no manifest.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StorageError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("options"), dict):
        raise StorageError(f"{path} is not the manifest of a run: give another folder")
    return found


def read_episodes(path: str | Path) -> dict[str, list[Episode]]:
    """The episodes of a run folder by variant, in the plan's order."""
    table = Path(path) / "episodes.csv"
    if not table.exists():
        raise InputError("run", "must be a run folder with an episodes.csv", str(path))
    variants: dict[str, list[Episode]] = {}
    with table.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            variants.setdefault(row["variant"], []).append(_episode(row))
    return {variant: sorted(episodes, key=lambda e: e.index) for variant, episodes in variants.items()}


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
            episode.failed or "",
            json.dumps(dict(episode.steering)) if episode.steering else "",
        ]
    )
    return buffer.getvalue()


def _episode(row: Mapping[str, str]) -> Episode:
    return Episode(
        index=int(row["index"]),
        seed=int(row["seed"]),
        episode_return=float(row["return"]),
        length=int(row["length"]),
        terminated=row["terminated"] == "1",
        truncated=row["truncated"] == "1",
        failed=row["failed"] or None,
        success=None if row["success"] == "" else row["success"] == "1",
        steering=json.loads(row["steering"]) if row["steering"] else {},
    )


def _short(value: object, longest: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= longest else text[: longest - 3] + "..."
