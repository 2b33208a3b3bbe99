"""What watches a run of pytest: episodes come from the cache, outcomes go into the reports."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from functools import partial
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from offline_eval.errors import InputError, OfflineEvalError
from offline_eval.files import write_durably
from offline_eval.testing.session import Session, using
from offline_eval.testing.settings import DEFAULT_EPISODES, Settings

if TYPE_CHECKING:
    from offline_eval.datasets.recorder import LoggedEpisode
    from offline_eval.environments import EnvironmentLike
    from offline_eval.episodes import EpisodePlan, Evaluation
    from offline_eval.testing.cache import EpisodeCache
    from offline_eval.testing.outcome import Outcome
    from offline_eval.types import Predictor, Rule


OutcomeData = Mapping[str, Any]

_SCHEMA = 1
_SAID = {"holds": "held", "violated": "violated", "undecided": "undecided"}


def plain(outcome: Any) -> dict[str, Any]:
    """An outcome as data that JSON and other processes know; what is not finite becomes None."""
    data: dict[str, Any] = _finite(json.loads(json.dumps(outcome.to_json(), default=_as_number)))
    return data


def properties(outcome: OutcomeData, number: int) -> list[tuple[str, str]]:
    """Names and values for a test's JUnit `<properties>`.

    Args:
        outcome: of an assertion.
        number: which assertion of that name it is in its test, counted from 1.
    """
    prefix = f"offline_eval.{outcome['assertion']}" + (f".{number}" if number > 1 else "")
    told = [(f"{prefix}.{name}", str(outcome[name])) for name in ("agent", "env", "verdict", "episodes", "seeds")]
    rows: Sequence[Mapping[str, Any]] = outcome["rows"]
    for row in rows:
        name = prefix if len(rows) == 1 else f"{prefix}.{re.sub(r'[^a-z0-9]+', '_', row['label'].lower()).strip('_')}"
        told += [(f"{name}.value", _number(row["value"])), (f"{name}.interval", _interval(row["interval"]))]
        told += [(f"{name}.threshold", str(row["threshold"]))]
    return told


def agent_lines(outcomes: Iterable[OutcomeData]) -> list[str]:
    """One line for each agent and environment: how many assertions hold, and the first that does not."""
    groups: dict[tuple[str, str], list[OutcomeData]] = {}
    for outcome in outcomes:
        groups.setdefault((str(outcome["agent"]), str(outcome["env"])), []).append(outcome)
    lines = []
    for (agent, env), group in groups.items():
        verdicts = [outcome["verdict"] for outcome in group]
        counts = ", ".join(f"{verdicts.count(verdict)} {_SAID[verdict]}" for verdict in _SAID if verdict in verdicts)
        line = f"{agent} in {env}: {counts}; {max(outcome['episodes'] for outcome in group)} episodes"
        wrong = next((outcome for outcome in group if outcome["verdict"] != "holds"), None)
        lines.append(line if wrong is None else f"{line}; {_short(wrong)}")
    return lines


def write_json(path: Path, tests: Sequence[Mapping[str, Any]], versions: Mapping[str, str]) -> None:
    """Write the JSON file of a run: every test that asserted something, with its outcomes.

    Args:
        path: replaced as a whole.
        tests: each with `test`, `outcome` and `assertions`.
        versions: of what the numbers depend on.
    """
    content = {"schema": _SCHEMA, "versions": dict(versions), "tests": list(tests)}
    write_durably(path, (json.dumps(content, indent=2) + "\n").encode())


def _short(outcome: OutcomeData) -> str:
    rows = [f"{_number(row['value'])} {_interval(row['interval'])}, {row['threshold']}" for row in outcome["rows"][:1]]
    return ": ".join([f"{outcome['assertion']} {outcome['verdict']}", *rows])


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _interval(interval: Any) -> str:
    if interval is None:
        return ""
    low, high = (interval["low"], interval["high"]) if isinstance(interval, Mapping) else interval
    ends = _number(-inf if low is None else low), _number(inf if high is None else high)
    return f"[{ends[0]}, {ends[1]}]"


def _as_number(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and value - value != 0 else value


Made = TypeVar("Made")

_NEED_STATES = {"assert_kendall_tau", "assert_q_bias", "assert_evaluation_mse", "assert_covers"}
"""Assertions about visited states: where tests import one, states are kept from the first episode on."""

_OUTCOMES = "offline_eval_outcomes"
"""The attribute of a report in which outcomes travel from a worker process to the one that prints."""


class Episodes:
    """An `EpisodeSource`: the cache, which is opened when the first assertion wants episodes.

    Args:
        where: tells the folder of the cache; None for one that lives as long as this run.
        states: whether to keep visited states from the start; may be changed until the first episode.
    """

    def __init__(self, where: Callable[[], Path | None], states: bool) -> None:
        self._where, self.states = where, states
        self._cache: EpisodeCache | None = None
        self._temporary: TemporaryDirectory[str] | None = None

    def evaluation(
        self, policy: Predictor, env: EnvironmentLike, plan: EpisodePlan, rule: Rule | None = None
    ) -> Evaluation:
        """The evaluation of a plan."""
        return self.cache.evaluation(policy, env, plan, rule)

    def logged(self, policy: Predictor, env: EnvironmentLike, plan: EpisodePlan) -> Sequence[LoggedEpisode]:
        """The episodes of a plan with every visited state."""
        return self.cache.logged(policy, env, plan)

    @property
    def cache(self) -> EpisodeCache:
        """The cache itself."""
        from offline_eval.testing.cache import EpisodeCache

        if self._cache is None:
            folder = self._where()
            if folder is None:
                self._temporary = TemporaryDirectory(prefix="offline-eval-")
                folder = Path(self._temporary.name)
            self._cache = EpisodeCache(folder, states=self.states)
        return self._cache

    def close(self) -> None:
        """Remove what was to live as long as this run."""
        if self._temporary is not None:
            self._temporary.cleanup()


class Watcher:
    """The hooks of one run, and what its tests share.

    Attributes:
        settings: what was said about the agent.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.settings = Settings(config)
        self._is_worker = hasattr(config, "workerinput")
        self._config = config
        self._source = Episodes(self._cache_folder, bool(config.getini("offline_eval_states")))
        self._made: dict[object, Any] = {}
        self._pending: list[dict[str, Any]] = []
        self._tests: list[dict[str, Any]] = []

    def once(self, key: object, make: Callable[[], Made]) -> Made:
        """What `make` makes; once for each key."""
        if key not in self._made:
            self._made[key] = make()
        made: Made = self._made[key]
        return made

    def pytest_sessionstart(self) -> None:
        """Options that cannot be right stop the run before a test begins."""
        if self._is_worker:
            return
        try:
            self.settings.check_joined()
            self.settings.number("episodes", 1, DEFAULT_EPISODES)
        except InputError as error:
            raise pytest.UsageError(str(error)) from None
        path = self.settings.path("json")
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise pytest.UsageError(str(InputError("--offline-eval-json", "must be a file in a folder", str(path))))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """One rollout is enough for assertions about returns and about states, if its states are kept."""
        modules = {module for item in session.items if (module := getattr(item, "module", None)) is not None}
        self._source.states |= any(_NEED_STATES & getattr(module, "__dict__", {}).keys() for module in modules)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """While a test runs, assertions take their episodes from the cache and tell their outcomes."""
        asked = partial(self._said, item)
        with using(Session(source=self._source, on_outcome=partial(self._take, item, Counter()), asked=asked)):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> Generator[None, Any, pytest.TestReport]:
        """The outcomes travel with the report; what we say to the test's author is shown without our own frames."""
        error = None if call.excinfo is None else call.excinfo.value
        # Bad input, and a property that does not hold; whatever else goes wrong may be ours to look into.
        said = isinstance(error, OfflineEvalError) and isinstance(error, ValueError | AssertionError)
        if error is not None and said and not self._config.getoption("fulltrace"):
            error.__cause__, error.__suppress_context__ = None, True  # its message holds what the cause said
            call.excinfo = pytest.ExceptionInfo.from_exception(error.with_traceback(_without_ours(error.__traceback__)))
        report: pytest.TestReport = yield
        if self._pending:
            setattr(report, _OUTCOMES, self._pending)
            self._pending = []
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect what the tests, perhaps in other processes, have told."""
        if outcomes := getattr(report, _OUTCOMES, None):
            self._tests.append({"test": report.nodeid, "outcome": report.outcome, "assertions": outcomes})

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """One line an agent."""
        if self._tests:
            terminalreporter.section("offline-eval")
            for line in agent_lines(outcome for test in self._tests for outcome in test["assertions"]):
                terminalreporter.line(line)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Write the JSON file."""
        path = self.settings.path("json")
        if path is not None and not self._is_worker:
            from offline_eval.provenance import versions

            write_json(path, self._tests, versions())

    def pytest_unconfigure(self) -> None:
        """Leave nothing behind."""
        self._source.close()

    def _said(self, item: pytest.Item, name: str) -> Any:
        """What an assertion goes by where its test gives it nothing."""
        if name == "episodes":
            return self.settings.number("episodes", 1, DEFAULT_EPISODES, item)
        return self.settings.word(name, item)

    def _take(self, item: pytest.Item, numbers: Counter[str], outcome: Outcome) -> None:
        told: Mapping[str, Any] = plain(outcome)
        numbers[outcome.assertion] += 1
        self._pending.append(dict(told))
        item.user_properties += properties(told, numbers[outcome.assertion])

    def _cache_folder(self) -> Path | None:
        named = self.settings.path("cache")
        if named is not None:
            return named
        cache: pytest.Cache | None = getattr(self._config, "cache", None)  # not with `-p no:cacheprovider`
        return None if cache is None else cache.mkdir("offline_eval")


def _without_ours(trace: TracebackType | None) -> TracebackType | None:
    """A traceback without the frames of this package; as it is where there are no others."""
    theirs: list[TracebackType] = []
    entry = trace
    while entry is not None:
        if entry.tb_frame.f_globals.get("__name__", "").partition(".")[0] != "offline_eval":
            theirs.append(entry)
        entry = entry.tb_next
    shown: TracebackType | None = None
    for entry in reversed(theirs):
        shown = TracebackType(shown, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return shown or trace
