"""A regression that was planted is caught, and the agent without it passes: eight times each, on fresh episodes."""

from __future__ import annotations

import json

import pytest
from gate_agents import ENV, mean_return, trained, worsened

pytest_plugins = "pytester"

FALL, MARGIN, TIMES = 0.5, 0.25, 8
BASELINE_FALL = 0.05  # so that the baseline is another agent: an agent differs from itself on no seed


@pytest.fixture(scope="module")
def agents(tmp_path_factory):
    folder = tmp_path_factory.mktemp("agents")
    good = trained()
    worse = worsened(good, by=FALL)
    good.save(folder / "unperturbed.zip")
    worse.save(folder / "perturbed.zip")
    worsened(good, by=BASELINE_FALL).save(folder / "baseline.zip")
    return folder, mean_return(good), mean_return(worse)


def test_it_was_planted_as_deep_as_said(agents):
    _, good, worse = agents
    assert good - worse == pytest.approx(FALL, rel=0.1)
    assert good > -1.0  # it has learned: standing still pays about -4


def test_it_is_caught_and_the_unperturbed_agent_passes(agents, pytester):
    folder, good, _ = agents
    pytester.makeconftest("from offline_eval.testing.fixtures import agent")
    pytester.makepyfile(f"""
        import pytest
        from offline_eval import EpisodePlan
        from offline_eval.testing import assert_not_worse, assert_return_at_least

        pytestmark = pytest.mark.parametrize("time", range({TIMES}))
        ENV, BASELINE = {ENV!r}, {str(folder / "baseline.zip")!r}

        def fresh(time):
            return EpisodePlan.seeded(500, seed=1000 * time)

        def test_not_worse(agent, time):
            assert_not_worse(agent, than=BASELINE, env=ENV, margin={MARGIN}, plan=fresh(time))

        def test_return(agent, time):
            assert_return_at_least(agent, {good - MARGIN}, env=ENV, plan=fresh(time))
    """)
    given = [f"--offline-eval-agent={folder / name}.zip" for name in ("unperturbed", "perturbed")]
    done = pytester.runpytest_inprocess(*given, "--offline-eval-json=outcomes.json", "-q", "--tb=no")
    done.assert_outcomes(passed=2 * TIMES, failed=2 * TIMES)
    verdicts = {}
    for test in json.loads((pytester.path / "outcomes.json").read_text())["tests"]:
        (outcome,) = test["assertions"]
        verdicts.setdefault((outcome["agent"], outcome["assertion"]), []).append(outcome["verdict"])
    for assertion in ("assert_not_worse", "assert_return_at_least"):
        assert verdicts["unperturbed.zip", assertion] == ["holds"] * TIMES
        assert verdicts["perturbed.zip", assertion] == ["violated"] * TIMES
