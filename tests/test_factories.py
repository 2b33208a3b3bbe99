"""What stands where an environment or a plan is asked for: it plays, or one error says what would."""

from __future__ import annotations

import math
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from environments import Counter, Zero

from offline_eval.environments import environment_factory, environment_id
from offline_eval.episodes import EpisodePlan, evaluate
from offline_eval.errors import InputError
from offline_eval.policies import spaces_of

PLAN = EpisodePlan.seeded(2, seed=0)


class Wide(Counter):
    """Declares one space in the class, and has another."""

    def __init__(self):
        super().__init__()
        self.observation_space = gym.spaces.Box(-1, 1, (7,), np.float32)


class Titled(Counter):
    """Needs an argument."""

    def __init__(self, title):
        super().__init__()
        self.title = title


class OldGym:
    """As environments were before gymnasium."""

    def reset(self): ...

    def step(self, action): ...


def make(title="by default"):
    """A factory whose argument may be left out."""
    return Titled(title)


@pytest.mark.parametrize("env", [Counter, partial(Titled, "named"), lambda: Titled("named"), make])
def test_a_class_a_partial_a_lambda_and_a_function_play(env):
    np.testing.assert_array_equal(
        evaluate(Zero(), env, PLAN, n_envs=2).returns, evaluate(Zero(), Counter(), PLAN).returns
    )


def test_a_class_has_the_spaces_of_its_instances():
    assert spaces_of(Wide)[0].shape == (7,)


def test_names_under_which_results_are_filed():
    assert [environment_id(env) for env in (Counter, partial(Titled, "named"), make)] == ["Counter", "Titled", "make"]


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (Titled, "could not be made: TypeError.*'title'.*Received Titled.*without arguments"),
        (lambda number: Counter(), "could not be made: TypeError.*'number'.*without arguments"),
        (partial(Titled), "could not be made: TypeError.*'title'"),
        (math, "must be an environment, an id, a spec or a factory.*lambda: MyEnv"),
        ([Counter], "must be an environment, an id, a spec or a factory"),
        (lambda: None, "must make a gymnasium environment. Received 'NoneType'"),
        (lambda: Counter, "must make a gymnasium environment"),
        (lambda: "CartPole-v1", "must make a gymnasium environment. Received 'CartPole-v1': an id is passed as it is"),
        (OldGym, "must make a gymnasium environment. Received 'OldGym'.*shimmy"),
        (OldGym(), "must be a gymnasium environment. Received 'OldGym'"),
    ],
)
def test_what_makes_no_environment_is_refused(env, message):
    with pytest.raises(InputError, match=f"`env` {message}"):
        evaluate(Zero(), env, PLAN)


def test_a_factory_is_held_to_its_promise_wherever_it_is_called():
    factory = environment_factory(lambda: 3)
    assert factory is not None
    with pytest.raises(InputError, match="`env` must make a gymnasium environment"):
        factory()
    with pytest.raises(InputError, match="`env` must make a gymnasium environment"):
        spaces_of(lambda: 3)


def test_a_number_of_episodes_is_a_plan():
    assert evaluate(Zero(), Counter, 4).plan == EpisodePlan.seeded(4, seed=0)
    assert evaluate(Zero(), Counter, np.int64(3)).plan == EpisodePlan.seeded(3, seed=0)


@pytest.mark.parametrize("plan", [0, -2, True, 2.0, [0, 1], (3,), "20", Counter, PLAN.entries])
def test_anything_else_is_none(plan):
    with pytest.raises(InputError, match=r"`plan` must hold at least one episode.*EpisodePlan\.seeded"):
        evaluate(Zero(), Counter, plan)


def test_a_class_is_no_agent():
    with pytest.raises(InputError, match=r"`model` must have Stable-Baselines3's `predict`\. Received the class Zero"):
        evaluate(Zero, Counter, PLAN)
