"""What a foreign environment or policy breaks is one episode: failed and counted. The others keep their bits."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch as th
from environments import Counter, DictCounter, Recurrent, Zero
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from steered import FunctionCritic

from offline_eval import EpisodePlan, evaluate
from offline_eval.datasets.log import open_log
from offline_eval.episodes import StateLog
from offline_eval.errors import InputError, SpaceError
from offline_eval.wrappers import OPEX, MultiplyAction, Raw

PLAN = EpisodePlan.of([10, 11, 12, 13, 14])


def failed_of(result):
    return {episode.index: episode.failed for episode in result.episodes if episode.failed is not None}


class Broken(Counter):
    """Does `change` to what its third step gives in the episode of seed 12."""

    def __init__(self, **change):
        super().__init__(5)
        self.change = change

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        given = {"observation": observation, "reward": reward, "terminated": terminated}
        given |= {"truncated": truncated, "info": info}
        if (self.seed, self.steps) == (12, 3):
            given |= self.change
        return tuple(given.values())


BREAKS = {
    "NaN observation": ({"observation": np.array([np.nan, 0.0])}, "the observation holds NaN"),
    "another shape": ({"observation": np.zeros(3)}, r"an observation of shape \(3,\), where the space has \(2,\)"),
    "a number for two": ({"observation": np.zeros(1)}, r"an observation of shape \(1,\), where the space has \(2,\)"),
    "objects": ({"observation": np.array([None, "x"], dtype=object)}, "(Type|Value)Error: "),
    "no observation": ({"observation": None}, "ValueError"),
    "NaN reward": ({"reward": np.nan}, "the reward of step 3 is nan"),
    "infinite reward": ({"reward": -np.inf}, "the reward of step 3 is -inf"),
    "no reward": ({"reward": None}, "TypeError"),
    "two rewards": ({"reward": np.zeros(2)}, "ValueError"),
    "two endings": ({"terminated": np.zeros(2, bool)}, "ValueError"),
    "a Monitor of NaN": (
        {"terminated": True, "info": {"episode": {"r": np.nan, "l": 3}}},
        "the Monitor's return is nan",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
@pytest.mark.parametrize("n_envs", [1, 2, 5])
def test_what_cannot_be_used_fails_its_episode(name, n_envs):
    change, words = BREAKS[name]
    result = evaluate(Zero(), lambda: Broken(**change), PLAN, n_envs=n_envs)
    assert list(failed_of(result)) == [2]
    assert np.array_equal(result.returns, [5.0, 5.0, np.nan, 5.0, 5.0], equal_nan=True)
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(result.episodes[2].failed)
    assert json.loads(json.dumps(result.episodes[2].to_json()))["return"] is None


FINE = {
    "an array of one": {"reward": np.ones(1), "terminated": np.zeros(1, bool), "truncated": np.False_},
    "arrays of none": {"reward": np.array(1.0, np.float32), "terminated": np.array(False), "truncated": 0},
    "no info": {"info": None},
    "a success of NaN": {"info": {"is_success": np.nan}},
    "an observation of one row": {"observation": np.zeros((1, 2))},
}


@pytest.mark.parametrize("name", FINE)
def test_what_can_be_read_is_read(name):
    assert evaluate(Zero(), lambda: Broken(**FINE[name]), PLAN).returns.tolist() == [5.0] * 5


def test_the_observation_after_the_last_action_is_nobody_s_business():
    change = {"observation": None, "terminated": True}
    assert evaluate(Zero(), lambda: Broken(**change), PLAN).returns.tolist() == [5.0, 5.0, 3.0, 5.0, 5.0]


class BrokenDict(DictCounter):
    """Leaves a key out, or shows NaN in one."""

    def __init__(self, change):
        super().__init__(5)
        self.change = change

    def _observation(self):
        observation = super()._observation()
        if (self.seed, self.steps) == (12, 3):
            self.change(observation)
        return observation


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda seen: seen.pop("steps"), "KeyError: 'steps'"),
        (lambda seen: seen["steps"].fill(np.nan), "ValueError: the observation 'steps' holds NaN"),
    ],
)
def test_one_part_of_a_dict(change, words):
    assert failed_of(evaluate(Zero(), lambda: BrokenDict(change), PLAN)) == {2: words}


class Unready(Counter):
    """Cannot be reset with seed 12, or shows the wrong thing then."""

    def __init__(self, show=None):
        super().__init__(5)
        self.show = show

    def reset(self, *, seed=None, options=None):
        observation, info = super().reset(seed=seed, options=options)
        if self.seed == 12 and self.show is None:
            raise OSError("no such scene")
        return (self.show if self.seed == 12 else observation), info


@pytest.mark.parametrize("show", [None, np.zeros(3), np.full(2, np.nan)])
def test_a_reset_that_breaks(show):
    result = evaluate(Zero(), lambda: Unready(show), PLAN, n_envs=2)
    assert list(failed_of(result)) == [2]
    assert result.episodes[2].length == 0


@pytest.mark.parametrize(
    "vector",
    [
        lambda make: SyncVectorEnv([make] * 3),
        lambda make: SyncVectorEnv([make] * 3, autoreset_mode=AutoresetMode.SAME_STEP),
        lambda make: SyncVectorEnv([make] * 3, autoreset_mode=AutoresetMode.DISABLED),
        lambda make: DummyVecEnv([make] * 3),
    ],
)
@pytest.mark.parametrize(
    "make",
    [
        lambda: Broken(reward=np.nan),
        lambda: Broken(observation=np.full(2, np.nan)),
        lambda: Counter(5, raise_at=(12, 3)),
        lambda: Unready(),
    ],
)
def test_in_a_vector_the_others_go_on(vector, make):
    result = evaluate(Zero(), vector(make), PLAN)
    assert list(failed_of(result)) == [2]
    assert np.array_equal(result.returns, [5.0, 5.0, np.nan, 5.0, 5.0], equal_nan=True)


class Choosy:
    """A network that raises for a batch in which someone has taken three steps in the episode of seed 12."""

    def __init__(self, answer=None):
        self.answer = answer
        generator = th.Generator().manual_seed(0)
        self.weights = th.randn(2, 64, generator=generator), th.randn(64, 1, generator=generator)

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        culprits = (observation == [12.0, 3.0]).all(axis=1)
        if culprits.any() and self.answer is None:
            raise ArithmeticError(f"no action\nfor {observation[culprits]}")
        rows = th.as_tensor(observation, dtype=th.float32)
        actions = ((rows @ self.weights[0]).tanh() @ self.weights[1]).tanh().numpy()
        if culprits.any():
            actions[culprits] = self.answer
        return actions, state


class Paying(Counter):
    """Pays its action."""

    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, float(action[0]), *rest


@pytest.mark.parametrize("answer", [None, np.nan])
@pytest.mark.parametrize("rule", [None, MultiplyAction(0.5)])
@pytest.mark.parametrize(("n_envs", "width"), [(1, "auto"), (5, "auto"), (5, 2)])
def test_a_policy_that_breaks_on_one_row_fails_that_episode_and_the_others_keep_their_bits(answer, rule, n_envs, width):
    def play(plan, **options):
        return evaluate(Choosy(answer), lambda: Paying(5), plan, rule=rule, **options)

    options = {"n_envs": n_envs, "width": width}
    broken, whole = play(PLAN, **options), play(EpisodePlan.of([10, 11, 13, 14]), **options)
    assert list(failed_of(broken)) == [2]
    assert np.delete(broken.returns, 2).tobytes() == whole.returns.tobytes()
    if answer is None:
        assert failed_of(broken)[2].startswith("ArithmeticError: no action for [[12. 3.]")


class RecurrentNan(Recurrent):
    """Its state becomes NaN in the episode of seed 12."""

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        _, (steps,) = super().predict(observation, None, episode_start)
        kept = np.zeros_like(steps) if state is None else state[0]
        steps = kept * (1.0 - np.asarray(episode_start)) + 1.0  # as a network does it: 0 times NaN is NaN
        steps[0, (observation[:, 0] == 12) & (observation[:, 1] == 2)] = np.nan
        return (steps[0][:, None] / 100).astype(np.float32), (steps,)


@pytest.mark.parametrize("n_envs", [1, 2])
def test_a_recurrent_state_of_nan_does_not_outlive_its_episode(n_envs):
    result = evaluate(RecurrentNan(), lambda: Paying(5), PLAN, n_envs=n_envs)
    assert list(failed_of(result)) == [2]
    assert np.delete(result.returns, 2) == pytest.approx(np.full(4, 0.15))


def test_a_policy_that_cannot_see_padding_is_not_shown_any():
    class Table:
        actions = {(seed, step): [0.25] for seed in range(10, 15) for step in range(5)}  # noqa: RUF012

        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return [self.actions[tuple(row)] for row in observation.tolist()], state

    assert evaluate(Table(), lambda: Paying(5), PLAN, n_envs=2).returns.tolist() == [1.25] * 5


def test_a_critic_that_breaks_on_one_row():
    def q(observations, actions):
        if (observations == 12.0).all(dim=1).any():
            raise ZeroDivisionError("at twelve")
        return -(actions - 0.5).square().sum(-1)[None]

    class Seed(Paying):
        observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)

        def _observation(self):
            return np.array([self.seed], np.float32)

    result = evaluate(Zero(), lambda: Seed(4), PLAN, rule=OPEX(FunctionCritic(q), 0.25, direction=Raw()))
    assert failed_of(result) == {2: "ZeroDivisionError: at twelve"}
    assert np.delete(result.returns, 2).tolist() == [1.0] * 4  # .25 of the gradient 1, four times


def test_a_policy_of_another_shape_fails_them_all_and_says_so():
    class One:
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            return np.zeros(1, np.float32), state

    result = evaluate(One(), lambda: Counter(5), PLAN)
    assert set(failed_of(result).values()) == {"ValueError: `predict` gave actions of shape (1,) for 32 observations"}
    assert result.notes == (f"every episode failed: {result.episodes[0].failed}",)


def test_errors_of_this_package_are_not_an_episode_s():
    class Refusing:
        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            raise SpaceError("observation", "must be something else", 1)

    with pytest.raises(SpaceError, match="must be something else"):
        evaluate(Refusing(), lambda: Counter(5), PLAN)


def test_ppo_on_nan_and_the_log_of_the_others(tmp_path):
    model = PPO("MlpPolicy", Counter(5), n_steps=8, batch_size=8, seed=0, device="cpu")
    result = evaluate(
        model, lambda: Broken(observation=np.full(2, np.nan)), PLAN, store=StateLog(tmp_path / "log"), n_envs=2
    )
    assert list(failed_of(result)) == [2]
    log = open_log(tmp_path / "log")
    assert sorted(log.keys) == [0, 1, 3, 4]
    assert all(np.isfinite(episode.observations).all() for episode in log)
    # A last observation that cannot be written fails its episode too.
    change = {"observation": np.zeros(3), "terminated": True}
    assert list(failed_of(evaluate(Zero(), lambda: Broken(**change), PLAN, store=StateLog(tmp_path / "other")))) == [2]


class Silent(VecEnv):
    """A simulator behind SB3's interface that doesn't tell the last observation; pays its number, three times."""

    def __init__(self):
        super().__init__(2, spaces.Box(-1, 1, (2,), np.float32), spaces.Box(-1, 1, (1,), np.float32))

    def reset(self):
        self.steps = 0
        return np.zeros((2, 2), np.float32)

    def step_async(self, actions):
        self.steps += 1

    def step_wait(self):
        dones = np.full(2, self.steps % 3 == 0)
        return np.zeros((2, 2), np.float32), np.array([[1.0], [2.0]]), dones, [{}, {}]

    def close(self):
        pass

    def env_is_wrapped(self, wrapper_class, indices=None):
        return [False, False]

    def env_method(self, method_name, *method_args, indices=None, **method_kwargs):
        raise NotImplementedError

    def get_attr(self, attr_name, indices=None):
        return [None, None]

    def set_attr(self, attr_name, value, indices=None):
        raise NotImplementedError


def test_a_return_needs_no_last_observation_and_a_log_asks_for_it(tmp_path):
    assert evaluate(Zero(), Silent(), PLAN).returns.tolist() == [3.0, 6.0, 3.0, 6.0, 3.0]
    with pytest.raises(InputError, match="must tell each episode's last observation"):
        evaluate(Zero(), Silent(), PLAN, store=StateLog(tmp_path))


@pytest.mark.parametrize(
    "space",
    [
        spaces.Tuple((spaces.Discrete(3), spaces.Box(0, 1, (2,)))),
        spaces.Dict({"a": spaces.Dict({"b": spaces.Discrete(2)})}),
        spaces.Text(5),
    ],
)
def test_observations_that_no_policy_takes_are_refused(space):
    class Odd(Counter):
        observation_space = space

    with pytest.raises(SpaceError, match="must be a Box, Discrete, MultiDiscrete or MultiBinary"):
        evaluate(Zero(), lambda: Odd(5), PLAN)


def test_an_environment_that_diverged_is_made_anew():
    made = []

    class Diverging(Counter):
        """Once NaN, for ever NaN."""

        def __init__(self):
            super().__init__(5)
            self.nan = False
            made.append(self)

        def _observation(self):
            self.nan |= (self.seed, self.steps) == (11, 2)
            return np.full(2, np.nan) if self.nan else super()._observation()

    assert list(failed_of(evaluate(Zero(), lambda: Diverging(), PLAN, n_envs=1, replays=0))) == [1]
    assert len(made) == 2
