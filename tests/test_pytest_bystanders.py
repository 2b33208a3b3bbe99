"""A project that does not use the plugin runs as before: its options, its fixtures, its errors, and nothing heavy."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

pytest_plugins = "pytester"

THEIRS = """
    import pytest

    def pytest_addoption(parser):
        parser.addoption("--dataset", default="mnist")
        parser.addoption("--agent", action="append", default=[])
        parser.addini("dataset", "theirs", default="theirs")

    @pytest.fixture(scope="session")
    def dataset(request):
        return request.config.getoption("--dataset")

    @pytest.fixture(params=["one", "two"])
    def agent(request):
        return request.param
"""


def test_options_and_fixtures_of_theirs_stay_theirs(pytester):
    pytester.makeconftest(THEIRS)
    pytester.makepyfile("""
        def test_dataset(dataset, request):
            assert (dataset, request.config.getini("dataset")) == ("cifar", "theirs")

        def test_agent(agent):
            assert agent in ("one", "two")
    """)
    done = pytester.runpytest_inprocess("--dataset=cifar", "--strict-markers", "--strict-config", "-Werror")
    done.assert_outcomes(passed=3)


@pytest.mark.parametrize("name", ["agent", "critic", "dataset", "plan"])
def test_a_fixture_that_they_forgot_is_still_missing(pytester, name):
    pytester.makepyfile(f"def test_it({name}): pass")
    done = pytester.runpytest_inprocess()
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines([f"*fixture '{name}' not found*"])


def output(done) -> list[str]:
    """The lines but for times and for the lists of plugins and of fixtures."""
    lists = ("plugins:", ">       available fixtures:")
    return [re.sub(r"in [\d.]+s", "", line) for line in done.outlines if not line.startswith(lists)]


SUITE = """
    import pytest

    def test_passes(): pass
    def test_fails(): assert 1 == 2
    def test_raises(): raise ValueError("theirs") from KeyError("cause")
    @pytest.mark.xfail
    def test_xfails(): assert False
    def test_skips(): pytest.skip("no reason")
    def test_errors(missing): pass
"""


@pytest.mark.parametrize("options", [[], ["-x"], ["--no-header"], ["-q"], ["-vv", "-rA"], ["--collect-only"]], ids=str)
def test_the_output_is_that_without_the_plugin(pytester, options):
    pytester.makepyfile(SUITE)
    with_it = pytester.runpytest_inprocess(*options, "-p", "no:cacheprovider")
    without = pytester.runpytest_inprocess(*options, "-p", "no:cacheprovider", "-p", "no:offline_eval")
    assert with_it.ret == without.ret
    assert output(with_it) == output(without)


def test_last_failed_and_a_second_run(pytester):
    pytester.makepyfile(SUITE)
    for options, outcomes in (
        ([], {"passed": 1, "failed": 2, "xfailed": 1, "skipped": 1, "errors": 1}),
        ([], {"passed": 1, "failed": 2, "xfailed": 1, "skipped": 1, "errors": 1}),
        (["--lf"], {"failed": 2, "errors": 1}),
        (["--lf", "-x"], {"failed": 1}),
    ):
        pytester.runpytest_inprocess(*options).assert_outcomes(**outcomes)


def test_it_can_be_switched_off(pytester):
    pytester.makepyfile("def test_it(): pass")
    done = pytester.runpytest_inprocess("-p", "no:offline_eval")
    done.assert_outcomes(passed=1)
    done = pytester.runpytest_inprocess("-p", "no:offline_eval", "--offline-eval-env=Pendulum-v1")
    assert done.ret == pytest.ExitCode.USAGE_ERROR


def test_nothing_heavy_is_imported_and_nothing_written(pytester):
    pytester.makepyfile("""
        import sys

        def test_it():
            heavy = {"torch", "numpy", "scipy", "gymnasium", "stable_baselines3", "h5py"}
            assert not heavy & set(sys.modules)
            assert "offline_eval.pytest_plugin" in sys.modules
    """)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-Werror"],
        cwd=pytester.path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert not list(pytester.path.glob(".pytest_cache/d/*"))
