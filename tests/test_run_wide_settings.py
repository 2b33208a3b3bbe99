"""What is said once for a whole run of tests reaches every assertion; ids of other packages; unguarded scripts."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.filterwarnings("ignore")

PACKAGE = """
import gymnasium as gym, numpy as np
from gymnasium import spaces

class Pays(gym.Env):
    observation_space, action_space = spaces.Box(-1, 1, (2,), np.float32), spaces.Box(-1, 1, (1,), np.float32)
    def __init__(self, pay=1.0):
        self.pay = pay
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}
    def step(self, action):
        return np.zeros(2, np.float32), self.pay, False, False, {}

gym.register("Pays-v0", "their_package:Pays", max_episode_steps=5)
"""
TESTS = """
import numpy as np
import pytest
from offline_eval.testing import assert_deterministic, assert_return_at_least

class Zero:
    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.zeros((len(observation), 1), np.float32), state

def test_return():
    outcome = assert_return_at_least(Zero(), 4.0, bounds=(0.0, 5.0))
    assert (outcome.env, outcome.budget) == ("their_package:Pays-v0", 77)

@pytest.mark.offline_eval(episodes=66)
def test_marker():
    assert assert_return_at_least(Zero(), 4.0, bounds=(0.0, 5.0)).budget == 66

def test_own():
    assert assert_return_at_least(Zero(), 4.0, bounds=(0.0, 5.0), plan=55).budget == 55

def test_deterministic():
    assert_deterministic(Zero())
"""
INI = "[pytest]\noffline_eval_env = their_package:Pays-v0\noffline_eval_episodes = 77\n"
SCRIPT = """
import numpy as np
from offline_eval import EpisodePlan, evaluate
from their_package import Pays

class Zero:
    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.zeros((len(observation), 1), np.float32), state

def work():
    print(evaluate(Zero(), "their_package:Pays-v0", EpisodePlan.seeded(4), workers=2).returns)

{guard}work()
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "their_package.py").write_text(textwrap.dedent(PACKAGE))
    return tmp_path


def python(project, *words):
    return subprocess.run([sys.executable, *words], cwd=project, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("words", [[], ["--offline-eval-episodes=77"], ["-p", "no:cacheprovider"]])
def test_what_the_ini_file_says_reaches_the_assertions(project, words):
    (project / "pytest.ini").write_text(INI if not words or words[0] == "-p" else INI.replace("77", "99"))
    (project / "test_agent.py").write_text(TESTS)
    done = python(project, "-m", "pytest", "-q", "-p", "no:xdist", *words)
    assert done.returncode == 0, done.stdout


def test_an_assertion_without_an_environment_names_the_ways_to_say_one(project):
    (project / "test_agent.py").write_text(TESTS)
    done = python(project, "-m", "pytest", "-q", "-p", "no:xdist", "-k", "return")
    assert "--offline-eval-env" in done.stdout


@pytest.mark.parametrize(("guard", "code"), [("", 1), ("if __name__ == '__main__':\n    ", 0), ("for _ in [0]: ", 1)])
def test_a_script_without_a_guard_is_told_which_line_is_missing(project, guard, code):
    (project / "script.py").write_text(SCRIPT.format(guard=guard))
    done = python(project, "script.py")
    assert done.returncode == code, done.stderr
    assert ("[5. 5. 5. 5.]" in done.stdout) == (code == 0)
    if code:
        assert done.stderr.count("Traceback") == 1
        assert "`workers` must be 1" in done.stderr
        assert '`if __name__ == "__main__":`' in done.stderr.splitlines()[-1]
