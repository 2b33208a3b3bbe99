"""The plugin in other people's projects: agents from options, ini file and marker, one rollout, what it tells."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from offline_eval import EpisodePlan, evaluate, testing
from offline_eval.episodes import StateLog
from offline_eval.errors import InputError
from offline_eval.testing import cache
from offline_eval.testing.given import GivenAgent

pytest_plugins = "pytester"

ENV = "Pendulum-v1"
# Imported here: what an inner run imports is forgotten after it, and h5py cannot be imported a second time.
LOADED = [cache, *(getattr(testing, name) for name in testing.__all__)]


@pytest.fixture(scope="session")
def agents(tiny_sac, tiny_td3, tiny_ppo, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("agents")
    for name, model in {"sac": tiny_sac, "td3": tiny_td3, "cartpole": tiny_ppo}.items():
        model.save(folder / f"{name}.zip")
    return folder


@pytest.fixture
def project(pytester, agents):
    """A project with a few agents beside its tests."""
    for file in agents.iterdir():
        (pytester.path / file.name).write_bytes(file.read_bytes())
    pytester.makeconftest("from offline_eval.testing.fixtures import agent, critic, dataset, plan")
    return pytester


def skips(done) -> str:
    return "\n".join(line for line in done.outlines if line.startswith("SKIPPED"))


def errors(done) -> list[str]:
    """The lines that say what is wrong, without those of the summary."""
    return [line for line in done.outlines if re.match(r"E   |`", line)]


# ---- which agent


NAMES = """
    def test_name(agent):
        print("NAME", agent.name, agent.env)
"""


def names(done) -> list[str]:
    return sorted(line.split("NAME ")[1] for line in done.outlines if "NAME " in line)


def test_without_an_agent_a_test_is_skipped_and_says_which_option_is_missing(project):
    project.makepyfile("""
        def test_agent(agent): pass
        def test_critic(critic): pass
        def test_dataset(dataset): pass
        def test_oracle(offline_eval_oracle): pass
        def test_env(offline_eval_env): pass
    """)
    done = project.runpytest_inprocess("-rs")
    done.assert_outcomes(skipped=5)
    for name, stand_in in {"agent": "FILE", "dataset": "PATH", "oracle": "FILE", "env": "ID"}.items():
        assert f"needs --offline-eval-{name}={stand_in}, or offline_eval_{name} in the ini file" in skips(done)


def test_every_agent_of_the_command_line_runs_the_test(project):
    project.makepyfile(NAMES)
    options = ["--offline-eval-agent=sac.zip", "--offline-eval-agent=td3.zip", f"--offline-eval-env={ENV}"]
    done = project.runpytest_inprocess("-v", "-s", *options)
    done.assert_outcomes(passed=2)
    done.stdout.fnmatch_lines(["*test_name[[]sac.zip[]]*", "*test_name[[]td3.zip[]]*"])
    assert names(done) == [f"sac.zip {ENV}", f"td3.zip {ENV}"]


def test_files_of_one_name_are_told_apart(project):
    for folder in ("old", "new"):
        (project.mkdir(folder) / "agent.zip").write_bytes((project.path / "sac.zip").read_bytes())
    project.makepyfile(NAMES)
    done = project.runpytest_inprocess("-v", "--offline-eval-agent=old/agent.zip", "--offline-eval-agent=new/agent.zip")
    done.stdout.fnmatch_lines(["*test_name[[]old/agent.zip[]]*", "*test_name[[]new/agent.zip[]]*"])


def test_ini_then_command_line_then_marker(project, monkeypatch):
    project.makeini(f"""
        [pytest]
        offline_eval_agent =
            sac.zip
            td3.zip
        offline_eval_env = {ENV}
        offline_eval_episodes = 7
    """)
    project.makepyfile("""
        import pytest

        def test_name(agent):
            print("NAME", agent.name, agent.env)

        def test_plan(plan):
            assert (len(plan), plan[0].seed) == (7, 0)

        @pytest.mark.offline_eval(agent="cartpole.zip", env="CartPole-v1", episodes=3, seed=5)
        class TestMarked:
            def test_name(self, agent, plan, offline_eval_env):
                print("NAME", agent.name, agent.env)
                assert ([entry.seed for entry in plan], offline_eval_env) == ([5, 6, 7], "CartPole-v1")

            @pytest.mark.offline_eval(episodes=1)
            def test_closest(self, agent, plan):
                assert (agent.name, len(plan), plan[0].seed) == ("cartpole.zip", 1, 5)
    """)
    monkeypatch.chdir(project.mkdir("elsewhere"))  # files of the ini file lie beside it
    done = project.runpytest_inprocess("-s", "--strict-markers", "..")
    done.assert_outcomes(passed=5)
    assert names(done) == ["cartpole.zip CartPole-v1", f"sac.zip {ENV}", f"td3.zip {ENV}"]
    monkeypatch.chdir(project.path)
    done = project.runpytest_inprocess("-s", "--offline-eval-agent=td3.zip", "-k", "test_name and not Marked")
    assert names(done) == [f"td3.zip {ENV}"]


def test_the_long_names_need_no_import(project):
    project.makeconftest("")
    project.makepyfile("""
        def test_it(offline_eval_agent, offline_eval_plan):
            action, _ = offline_eval_agent.predict([0.0, 1.0, 0.0], deterministic=True)
            assert action.shape == (1,)
            assert len(offline_eval_plan) == 500
    """)
    done = project.runpytest_inprocess("--offline-eval-agent=sac.zip", f"--offline-eval-env={ENV}")
    done.assert_outcomes(passed=1)


def test_critic_dataset_and_oracle(project, tiny_td3):
    evaluate(tiny_td3, ENV, EpisodePlan.seeded(1), store=StateLog(project.path / "log"))
    project.makepyfile("""
        import pytest

        def test_own(agent, critic, dataset, offline_eval_oracle):
            assert (critic.gamma, dataset.num_transitions) == (agent.model.gamma, 200)
            assert (agent.name, offline_eval_oracle.name) == ("sac.zip", "td3.zip")
            assert type(offline_eval_oracle.opened()).__name__ == "TD3"

        @pytest.mark.offline_eval(critic="td3.zip")
        def test_other(critic):
            assert not critic.soft

        @pytest.mark.offline_eval(agent="cartpole.zip", env="CartPole-v1")
        def test_none(critic):
            pass
    """)
    done = project.runpytest_inprocess(
        "--offline-eval-agent=sac.zip",
        f"--offline-eval-env={ENV}",
        "--offline-eval-dataset=log",
        "--offline-eval-oracle=td3.zip",
    )
    done.assert_outcomes(passed=2, errors=1)
    (line,) = errors(done)
    assert "must have a Q(s, a). Received PPO" in line


def test_an_agent_trained_behind_a_vecnormalize(project, tiny_ppo_pendulum):
    env = VecNormalize(DummyVecEnv([lambda: gym.make(ENV)]))
    env.reset()
    env.save(project.path / "statistics.pkl")
    tiny_ppo_pendulum.save(project.path / "ppo.zip")
    project.makepyfile("""
        import pytest

        @pytest.mark.offline_eval(agent="ppo.zip", normalize="statistics.pkl")
        def test_it(agent):
            assert type(agent.model).__name__ == "Normalized"
    """)
    project.runpytest_inprocess(f"--offline-eval-env={ENV}").assert_outcomes(passed=1)


def test_a_given_agent_is_opened_once_for_each_environment(agents):
    given = GivenAgent(agents / "sac.zip")
    with pytest.raises(InputError, match="`env` must be known to open the agent"):
        given.predict(np.zeros(3))
    assert given.opened(ENV) is given.opened(ENV)
    assert given.opened(lambda: gym.make(ENV)) is not given.opened(ENV)
    assert (Path(given), given.name) == (agents / "sac.zip", "sac.zip")


# ---- one rollout


TEN = """
    import pytest
    from offline_eval.testing import assert_return_at_least

    @pytest.mark.parametrize("number", range(10))
    def test_return(agent, number):
        words = {"env": "Pendulum-v1", "bounds": (-3300.0, 0.0), "plan": 6, "undecided": "skip"}
        assert_return_at_least(agent, -3000.0 + number, **words)
"""


def seeds_played(project) -> list[int]:
    (table,) = (project.path / ".pytest_cache").glob("d/offline_eval/*/episodes.jsonl")
    return sorted(json.loads(line)["seed"] for line in table.read_text().splitlines())


@pytest.mark.parametrize("workers", [0, 2])
def test_ten_assertions_cost_one_rollout(project, workers):
    if workers:
        pytest.importorskip("xdist", reason="pytest-xdist is not installed")
    project.makepyfile(TEN)
    options = ["--offline-eval-agent=sac.zip", "--offline-eval-json=told.json", *([f"-n{workers}"] if workers else [])]
    done = project.runpytest_subprocess(*options) if workers else project.runpytest_inprocess(*options)
    outcomes = done.parseoutcomes()
    assert outcomes.get("passed", 0) + outcomes.get("skipped", 0) == 10
    assert seeds_played(project) == [0, 1, 2, 3, 4, 5]
    assert len(json.loads((project.path / "told.json").read_text())["tests"]) == 10
    done.stdout.fnmatch_lines(["*= offline-eval =*", "sac.zip in Pendulum-v1: *; 6 episodes*"])
    done = project.runpytest_inprocess(*options[:2])  # a later run plays nothing
    assert seeds_played(project) == [0, 1, 2, 3, 4, 5]


def test_assertions_about_states_share_the_rollout_too(project):
    project.makepyfile("""
        from offline_eval.testing import assert_kendall_tau, assert_return_at_least

        WORDS = {"env": "Pendulum-v1", "plan": 6, "undecided": "skip"}

        def test_return(agent):
            assert_return_at_least(agent, -3000.0, bounds=(-3300.0, 0.0), **WORDS)

        def test_rank(agent):
            assert_kendall_tau(agent, 0.0, **WORDS)
    """)
    done = project.runpytest_inprocess("--offline-eval-agent=sac.zip")
    assert "failed" not in done.parseoutcomes()
    assert seeds_played(project) == [0, 1, 2, 3, 4, 5]


def test_the_cache_can_lie_elsewhere_or_nowhere(project):
    project.makepyfile(TEN)
    project.runpytest_inprocess("--offline-eval-agent=sac.zip", "--offline-eval-cache=kept")
    assert len(list((project.path / "kept").glob("*/episodes.jsonl"))) == 1
    done = project.runpytest_inprocess("--offline-eval-agent=sac.zip", "-p", "no:cacheprovider")
    assert sum(done.parseoutcomes().values()) == 10
    assert not list((project.path / ".pytest_cache").glob("d/offline_eval/*"))


# ---- what it tells


TELLING = """
    import pytest
    from offline_eval.testing import assert_return_at_least

    BOUNDS = {"env": "Pendulum-v1", "bounds": (-3300.0, 0.0), "plan": 64}

    def test_both(agent):
        assert_return_at_least(agent, -3200.0, **BOUNDS)
        assert_return_at_least(agent, -50.0, **BOUNDS)

    @pytest.fixture
    def good_enough(agent):
        return assert_return_at_least(agent, -3200.0, **BOUNDS)

    def test_in_a_fixture(good_enough):
        assert good_enough.verdict == "holds"
"""


def test_junit_json_and_terminal_tell_value_interval_threshold_and_episodes(project):
    project.makepyfile(TELLING)
    done = project.runpytest_inprocess(
        "--offline-eval-agent=sac.zip", "--junitxml=junit.xml", "--offline-eval-json=told.json"
    )
    done.assert_outcomes(passed=1, failed=1)

    told = json.loads((project.path / "told.json").read_text())
    assert {"python", "torch", "gymnasium"} <= told["versions"].keys()
    by_test = {test["test"].split("::")[1]: test for test in told["tests"]}
    held, violated = by_test["test_both[sac.zip]"]["assertions"]
    assert (by_test["test_both[sac.zip]"]["outcome"], by_test["test_in_a_fixture[sac.zip]"]["outcome"]) == (
        "failed",
        "passed",
    )
    assert (held["verdict"], violated["verdict"], held["agent"]) == ("holds", "violated", "sac.zip")
    low, high = violated["rows"][0]["interval"]
    assert low < violated["rows"][0]["value"] < high < -50.0

    cases = {case.get("name"): case for case in ElementTree.parse(project.path / "junit.xml").iter("testcase")}
    said = {item.get("name"): item.get("value") for item in cases["test_both[sac.zip]"].iter("property")}
    second = "offline_eval.assert_return_at_least.2"
    assert said["offline_eval.assert_return_at_least.verdict"] == "holds"
    assert said[f"{second}.verdict"] == "violated"
    assert said[f"{second}.threshold"] == "at least -50"
    assert float(said[f"{second}.value"]) == pytest.approx(violated["rows"][0]["value"], rel=1e-5)
    assert said[f"{second}.interval"] == f"[{low:.6g}, {high:.6g}]"
    assert int(said[f"{second}.episodes"]) == violated["episodes"] > 0

    (line,) = [line for line in done.outlines if line.startswith("sac.zip in Pendulum-v1:")]
    assert line.startswith("sac.zip in Pendulum-v1: 2 held, 1 violated; ")
    assert line.endswith(f"{said[f'{second}.interval']}, at least -50")


def test_a_failing_assertion_shows_the_line_of_the_test_and_nothing_of_ours(project):
    project.makepyfile(TELLING)
    done = project.runpytest_inprocess("--offline-eval-agent=sac.zip", "-k", "both")
    done.stdout.fnmatch_lines(
        [">       assert_return_at_least(agent, -50.0, **BOUNDS)", "E *is violated: sac.zip in *"]
    )
    done.stdout.no_fnmatch_line("*offline_eval/testing/*")
    done = project.runpytest_inprocess("--offline-eval-agent=sac.zip", "-k", "both", "--full-trace")
    done.stdout.fnmatch_lines(["*offline_eval/testing/*"])


def test_a_run_without_assertions_says_nothing(pytester):
    pytester.makepyfile("def test_nothing(): pass")
    done = pytester.runpytest_inprocess("--offline-eval-json=told.json")
    done.stdout.no_fnmatch_line("*= offline-eval =*")
    assert json.loads((pytester.path / "told.json").read_text())["tests"] == []


# ---- bad input: one clear line


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ('assert_return_at_least(agent, 0.0, env="NoSuch-v1")', "`env` must be the id of a registered environment"),
        ('assert_return_at_least(agent, 0.0, env="nobodys_package:NoSuch-v1")', "No module named 'nobodys_package'"),
        ('assert_not_worse(agent, "cartpole.zip", env="Pendulum-v1")', "`than` must be an agent for Pendulum-v1"),
        ('assert_kendall_tau(agent, 1.5, env="Pendulum-v1")', "`at_least` must lie in [-1, 1]"),
        ('assert_covers(agent, 1.5, env="Pendulum-v1", dataset="log")', "`at_least` must lie in [0, 1]"),
        ('assert_return_at_least(agent, 5.0, env="Pendulum-v1", bounds=(-3300, 0))', "`threshold` must"),
        ('assert_return_at_least(agent, 0.0, env="Pendulum-v1", plan=0)', "`plan` must hold at least one episode"),
        ('assert_return_at_least(agent, 0.0, env="Pendulum-v1", plan=EpisodePlan(()))', "`plan` must hold"),
    ],
)
def test_bad_input_is_said_in_one_line(project, body, line):
    project.makepyfile(f"""
        from offline_eval import EpisodePlan
        from offline_eval.testing import *

        def test_it(agent):
            {body}
    """)
    done = project.runpytest_inprocess("--offline-eval-agent=sac.zip")
    done.assert_outcomes(failed=1)
    (said,) = errors(done)
    assert line in said


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--offline-eval-agent=missing.zip"], "`--offline-eval-agent` must be an existing file"),
        (["--offline-eval-agent=test_it.py"], "must be a zip"),
        (["--offline-eval-agent=cartpole.zip"], "must have the observation space that the agent was trained with"),
        (
            ["--offline-eval-agent=sac.zip", "--offline-eval-env=NoSuch-v1"],
            "must be the id of a registered environment",
        ),
    ],
)
def test_an_agent_that_cannot_be_opened_is_said_in_one_line(project, options, line):
    project.makepyfile(test_it="def test_it(critic): pass")
    done = project.runpytest_inprocess(f"--offline-eval-env={ENV}", *options)
    done.assert_outcomes(errors=1)
    (said,) = errors(done)
    assert line in said


def test_a_file_elsewhere_behind_a_space_is_refused(project, agents):
    project.makepyfile("def test_it(agent): pass")
    project.runpytest_inprocess("--offline-eval-agent", "sac.zip").assert_outcomes(passed=1)
    project.runpytest_inprocess(f"--offline-eval-agent={agents / 'sac.zip'}").assert_outcomes(passed=1)
    done = project.runpytest_inprocess("--offline-eval-agent", agents / "sac.zip")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert [line for line in done.errlines if "`--offline-eval-agent` must be joined to its value by =" in line]


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("--offline-eval-episodes=0", "`--offline-eval-episodes` must be >= 1. Received 0"),
        ("--offline-eval-episodes=many", "`--offline-eval-episodes` must be a whole number. Received 'many'"),
        ("--offline-eval-json=.", "`--offline-eval-json` must be a file in a folder"),
    ],
)
def test_options_that_cannot_be_right_stop_the_run(project, option, line):
    project.makepyfile("def test_it(): pass")
    done = project.runpytest_inprocess(option)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert [text for text in done.errlines if line in text]


def test_a_marker_with_another_word_is_refused_in_one_line(project):
    project.makepyfile("""
        import pytest

        @pytest.mark.offline_eval(agnet="sac.zip")
        def test_it(agent): pass
    """)
    done = project.runpytest_inprocess()
    done.assert_outcomes(errors=1)
    (said,) = errors(done)
    assert "`@pytest.mark.offline_eval` takes the keywords agent, env, " in said
    assert "agnet" in said
