"""The pytest plugin: which agent the tests are about, and fixtures that open it.

A project that does not use it notices nothing: every name begins with `offline_eval`, and until a test asks for a
fixture or calls an assertion, nothing is imported but pytest, the standard library and a few small modules.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from offline_eval.errors import InputError, OfflineEvalError
from offline_eval.testing.hooks import Watcher
from offline_eval.testing.settings import DEFAULT_EPISODES, MARKER, MARKER_WORDS, OPTIONS

if TYPE_CHECKING:
    from offline_eval.datasets.trajectories import Dataset
    from offline_eval.episodes import EpisodePlan
    from offline_eval.testing.given import GivenAgent
    from offline_eval.types import Critic

_WATCHER = pytest.StashKey[Watcher]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the command line, and their namesakes in the ini file."""
    group = parser.getgroup("offline-eval", "assertions about agents (offline-eval)")
    for name, (metavar, text) in OPTIONS.items():
        action = "append" if name == "agent" else "store"
        option = f"--offline-eval-{name}"
        group.addoption(option, dest=f"offline_eval_{name}", action=action, metavar=metavar, help=text)
        if name == "agent":
            parser.addini("offline_eval_agent", text, type="linelist", default=[])
        else:
            parser.addini(f"offline_eval_{name}", text, type="string", default="")
    parser.addini("offline_eval_states", "keep visited states from the first episode on", type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    """The marker, and what watches this run."""
    words = ", ".join(f"{word}=..." for word in MARKER_WORDS)
    config.addinivalue_line("markers", f"{MARKER}({words}): what a test takes instead of the --offline-eval options")
    watcher = config.stash[_WATCHER] = Watcher(config)
    config.pluginmanager.register(watcher, "offline_eval_watcher")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for an agent runs once for each of them."""
    if "offline_eval_agent" in metafunc.fixturenames:
        with _one_line():
            agents = metafunc.config.stash[_WATCHER].settings.paths("agent", metafunc.definition)
        if agents:
            metafunc.parametrize("offline_eval_agent", agents, indirect=True, ids=_names_of(agents))


@pytest.fixture
def offline_eval_agent(request: pytest.FixtureRequest) -> GivenAgent:
    """The agent under test, once for each `--offline-eval-agent`; the test is skipped where none is given."""
    from offline_eval.testing.given import GivenAgent

    watcher = _watcher(request)
    path = getattr(request, "param", None) or _path(request, "agent")
    with _one_line():
        env = watcher.settings.word("env", request.node)
        normalize = watcher.settings.word("normalize", request.node)
        if normalize != "none":
            normalize = watcher.settings.path("normalize", request.node)
        _check_exists("--offline-eval-agent", path)
    return watcher.once(("agent", path, env, normalize), lambda: GivenAgent(path, env, normalize=normalize))


@pytest.fixture
def offline_eval_env(request: pytest.FixtureRequest) -> str:
    """The id of the environment: `--offline-eval-env`."""
    with _one_line():
        return str(_or_skip(_watcher(request).settings.word("env", request.node), "env"))


@pytest.fixture
def offline_eval_critic(
    request: pytest.FixtureRequest, offline_eval_agent: GivenAgent, offline_eval_env: str
) -> Critic:
    """The critic of the agent under test, or of the file that the marker names."""
    from offline_eval.policies import critic_of, load_sb3

    watcher = _watcher(request)
    with _one_line():
        path = watcher.settings.path("critic", request.node)
        if path is None:
            return critic_of(offline_eval_agent.opened())
        return watcher.once(("critic", path, offline_eval_env), lambda: critic_of(load_sb3(path, offline_eval_env)))


@pytest.fixture
def offline_eval_dataset(request: pytest.FixtureRequest) -> Dataset:
    """The data set: `--offline-eval-dataset`."""
    from offline_eval.datasets import open_dataset

    path = _path(request, "dataset")
    with _one_line():
        return _watcher(request).once(("dataset", path), lambda: open_dataset(path))


@pytest.fixture
def offline_eval_oracle(request: pytest.FixtureRequest) -> GivenAgent:
    """The agent whose actions are right: `--offline-eval-oracle`."""
    from offline_eval.testing.given import GivenAgent

    path, watcher = _path(request, "oracle"), _watcher(request)
    with _one_line():
        env = watcher.settings.word("env", request.node)
        _check_exists("--offline-eval-oracle", path)
    return watcher.once(("oracle", path, env), lambda: GivenAgent(path, env))


@pytest.fixture
def offline_eval_plan(request: pytest.FixtureRequest) -> EpisodePlan:
    """The episodes that may be played: `--offline-eval-episodes`, from the marker's seed on."""
    from offline_eval.episodes import EpisodePlan

    settings = _watcher(request).settings
    with _one_line():
        episodes = settings.number("episodes", 1, DEFAULT_EPISODES, request.node)
        return EpisodePlan.seeded(episodes, settings.number("seed", 0, 0, request.node))


def _watcher(request: pytest.FixtureRequest) -> Watcher:
    return request.config.stash[_WATCHER]


def _path(request: pytest.FixtureRequest, name: str) -> Path:
    with _one_line():
        found: Path = _or_skip(_watcher(request).settings.path(name, request.node), name)
        return found


def _or_skip(said: Any, name: str) -> Any:
    if said is None:
        pytest.skip(f"needs --offline-eval-{name}={OPTIONS[name][0]}, or offline_eval_{name} in the ini file")
    return said


def _check_exists(argument: str, path: Path) -> None:
    if not path.exists() and not path.with_name(path.name + ".zip").exists():
        raise InputError(argument, "must be an existing file", str(path))


@contextmanager
def _one_line() -> Iterator[None]:
    """Bad input ends the test, or its collection, with its one line and no traceback."""
    try:
        yield
    except OfflineEvalError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


def _names_of(paths: list[Path]) -> list[str]:
    """Names of files for the tests' ids: as short as tells them apart."""
    for depth in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(set(paths)):
            break
    return names
