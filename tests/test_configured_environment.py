"""`--env-kwargs` and `--wrapper`: what they mean, where they go, and how they are said again."""

from __future__ import annotations

import json
import shlex
import sys

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest

from offline_eval.cli import main, parse
from offline_eval.configured import ConfiguredEnvironment, Wrapping, configured
from offline_eval.diagnosis.wording import Asked
from offline_eval.environments import environment_id
from offline_eval.errors import InputError

MODULE = """
import gymnasium as gym

class Scaled(gym.RewardWrapper):
    def __init__(self, env, factor=2.0):
        super().__init__(env)
        self.factor = factor

    def reward(self, reward):
        return self.factor * reward
"""


@pytest.fixture
def wrappers(tmp_path, monkeypatch):
    (tmp_path / "scaling_wrappers.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "scaling_wrappers:Scaled"
    sys.modules.pop("scaling_wrappers", None)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("g=5", 5),
        ("g=5.0", 5.0),
        ("g=-1e-3", -1e-3),
        ("g=true", True),
        ("g=False", False),
        ("g=null", None),
        ("g=None", None),
        ("g=rgb_array", "rgb_array"),
        ("g='5'", "5"),
        ("g=a=b", "a=b"),
        ("g=", ""),
        ("g=[1, (2, 3)]", [1, (2, 3)]),
        ("g={'a': 1}", {"a": 1}),
        ("g=__import__('os').abort()", "__import__('os').abort()"),
        ("g=" + "[" * 500, "[" * 500),
    ],
)
def test_a_value_is_a_literal_or_text_and_is_said_as_it_is_read(word, value):
    env = configured("Pendulum-v1", [word], [])
    assert env.kwargs == {"g": value}
    assert configured("Pendulum-v1", env.options[1:], []) == env


def test_what_is_said_of_an_environment_is_made_in_this_order(wrappers):
    """Pendulum with g = 5, its reward times -1 and then times 10; the first step of a hanging pendulum by hand."""
    env = configured("Pendulum-v1", ["g=5.0"], [f"{wrappers}(factor=-1)", f"{wrappers}(factor=10)"])
    made = pickled = None
    try:
        made, pickled = env(), cloudpickle.loads(cloudpickle.dumps(env))()
        assert [layer.factor for layer in (made, made.env)] == [10, -1]
        plain = gym.make("Pendulum-v1", g=5.0)
        for one in (plain, made, pickled):
            one.reset(seed=3)
        _, reward, *_ = plain.step(np.zeros(1, np.float32))
        assert made.step(np.zeros(1, np.float32))[1] == pickled.step(np.zeros(1, np.float32))[1] == -10 * reward
    finally:
        for one in (made, pickled):
            one.close()
    assert environment_id(env) == f"Pendulum-v1(g=5.0) + {wrappers}(factor=-1) + {wrappers}(factor=10)"


NO_CLASSES = (
    "",
    "Scaled",
    ":Scaled",
    "scaling_wrappers:",
    "scaling_wrappers:Other",
    "scaling_wrappers:M.x",
    "no.such:T",
)
NO_CALLS = ("(", "(2)", "(**a)", "(factor=f())", "(factor=2", "(factor=2) + 1", "()x")


@pytest.mark.parametrize("word", [*NO_CLASSES, *(f"scaling_wrappers:Scaled{end}" for end in NO_CALLS)])
def test_a_wrapper_that_cannot_be_had_is_refused(wrappers, word):
    with pytest.raises(InputError, match="`--wrapper` must"):
        Wrapping.parse(word)


def test_what_the_environment_does_not_know_is_refused_by_name():
    with pytest.raises(InputError, match=r"could not be made: TypeError.*gravity"):
        configured("Pendulum-v1", ["gravity=5"], [])()


def test_every_command_that_plays_takes_them_and_keeps_them(capsys, tmp_path, sac_file, wrappers):
    words = ["--env", "Pendulum-v1", "--env-kwargs", "g=5.0", "--wrapper", f"{wrappers}(factor=0.5)"]
    name = f"Pendulum-v1(g=5.0) + {wrappers}(factor=0.5)"
    few = ["--episodes", "2", "--n-envs", "2", "--workers", "1", "--step-limit", "3"]
    plain = ["evaluate", str(sac_file), "--env", "Pendulum-v1", "--env-kwargs", "g=5.0", *few, "--json"]
    assert main(plain) == 0
    returns = [row["return"] for row in json.loads(capsys.readouterr().out)["episodes"]]
    run = ["evaluate", str(sac_file), *words, *few, "--out", str(tmp_path / "run")]
    assert main([*run, "--json"]) == 0
    halves = json.loads(capsys.readouterr().out)
    assert halves["env"] == name
    assert [row["return"] for row in halves["episodes"]] == pytest.approx([value / 2 for value in returns])
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["env"] == name
    assert main([*run, "--resume"]) == 0
    assert main([word for word in run if word != "g=5.0" and word != "--env-kwargs"] + ["--resume"]) == 2
    assert "the folder's env is" in capsys.readouterr().err
    folder = str(tmp_path / "log")
    assert main(["collect", str(sac_file), *words, "--steps", "200", "--n-envs", "1", "--out", folder]) == 0
    assert main(["data", "describe", folder]) == 0
    assert name in capsys.readouterr().out


def test_a_limit_beyond_the_environments_own_is_kept(wrappers):
    env = ConfiguredEnvironment("Pendulum-v1", {}, (Wrapping(wrappers),), max_episode_steps=300)
    assert env.to_spec().max_episode_steps == 300


def test_advice_says_them_again(wrappers):
    env = configured("Pendulum-v1", ["g=5.0", "render_mode=rgb_array"], [f"{wrappers}(factor=0.5)"])
    asked = Asked("a.zip", env.env_id, "d.hdf5", env_options=env.options)
    advised = shlex.split(asked.command(*asked.steer))[1:]
    assert parse([word.replace("a.zip", sys.executable) for word in advised]).env == env
