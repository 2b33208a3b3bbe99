"""An agent is judged in its own setting: its spaces, printed in a file or known to a live model, beside the world's."""

from collections import OrderedDict

import gymnasium as gym
import numpy as np
import pytest
from agent_files import rewritten, saved
from environments import Zero
from gymnasium import spaces
from gymnasium.wrappers import RescaleAction, RescaleObservation, TransformObservation
from stable_baselines3 import A2C, PPO, SAC

from offline_eval.cli.run import evaluation_json
from offline_eval.datasets.data_spaces import observed_space
from offline_eval.datasets.space_json import space_from_json, space_to_json
from offline_eval.episodes import EpisodePlan, evaluate
from offline_eval.errors import AgentFileError, SpaceError
from offline_eval.measurement.measurement import measure
from offline_eval.policies import load_sb3
from offline_eval.policies.printed_space import _parts
from offline_eval.report.tables import comparison_table, evaluation_table
from offline_eval.space_agreement import Outline, check_agreement
from offline_eval.steering.comparison import comparison_rows
from offline_eval.testing import assert_return_at_least

PLAN = EpisodePlan.seeded(2, seed=0)
GREATEST = np.finfo(np.float32).max


class World(gym.Env):
    """Shows what its observation space samples, takes what its action space holds, and ends after three steps."""

    def __init__(self, observation_space, action_space=None):
        self.observation_space = observation_space
        self.action_space = action_space or spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.steps += 1
        return self.observation_space.sample(), float(np.sum(action)), self.steps == 3, False, {}


def box(low, high, shape=(3,), dtype=np.float32):
    return spaces.Box(low, high, shape, dtype)


# Bounds that differ in each entry: a part in another place gives other actions.
PARTS = [
    ("zenith", box(-1, 1, (2,))),
    ("azimuth", spaces.Discrete(4)),
    ("camera", box(0, 255, (36, 36, 3), np.uint8)),
    ("mode", spaces.MultiDiscrete([2, 3])),
    ("alarm", spaces.MultiBinary(3)),
]


def dicts():
    return {
        "keywords": spaces.Dict(**dict(PARTS)),
        "ordered": spaces.Dict(OrderedDict(PARTS)),
        "sorted": spaces.Dict(dict(PARTS)),
    }


@pytest.mark.parametrize("trained", ["keywords", "ordered", "sorted"])
@pytest.mark.parametrize("played", ["keywords", "sorted"])
def test_inputs_stand_in_the_order_of_the_file(trained, played, tmp_path):
    small = {"net_arch": [4], "features_extractor_kwargs": {"cnn_output_dim": 4}}
    live = A2C("MultiInputPolicy", World(dicts()[trained]), seed=0, policy_kwargs=small, device="cpu")
    world = World(dicts()[played])
    found = load_sb3(saved(live, tmp_path), world, "cpu")
    assert list(found.observation_space) == list(dicts()[trained])
    observations = [world.observation_space.sample() for _ in range(5)]
    batch = {key: np.stack([each[key] for each in observations]) for key in observations[0]}
    np.testing.assert_array_equal(found.policy.obs_to_tensor(batch)[0]["zenith"], batch["zenith"])
    for one, other in zip(found.policy.parameters(), live.policy.parameters(), strict=True):
        np.testing.assert_array_equal(one.detach(), other.detach())
    tensors = live.policy.obs_to_tensor(batch)[0]
    features = [policy.extract_features(tensors, policy.features_extractor) for policy in (found.policy, live.policy)]
    np.testing.assert_array_equal(features[0].detach(), features[1].detach())
    np.testing.assert_array_equal(
        evaluate(saved(live, tmp_path), world, PLAN).returns, evaluate(live, world, PLAN).returns
    )


def test_a_space_keeps_its_order_through_json_and_in_data():
    space = spaces.Dict(**dict(PARTS[:2]))
    assert list(space_from_json(space_to_json(space))) == ["zenith", "azimuth"]
    assert list(observed_space({"z": np.zeros((4, 1)), "a": np.zeros((4, 2))})) == ["z", "a"]


@pytest.mark.parametrize(
    "printed",
    [
        "{'b': Box([-1. -2.], [1. 2.], (2,), float32), 'a': Discrete(3)}",
        "OrderedDict([('b', Box([-1. -2.], [1. 2.], (2,), float32)), ('a', Discrete(3))])",
        "OrderedDict({'b': Box([-1. -2.], [1. 2.], (2,), float32), 'a': Discrete(3)})",
    ],
)
def test_a_dict_as_files_print_it(printed):
    parts = _parts(printed, is_old=False, depth=3)
    assert list(parts) == ["b", "a"]
    assert parts["b"] == Outline("Box", (2,), "float32", low=(-1.0, -2.0), high=(1.0, 2.0))
    assert parts["a"] == Outline("Discrete", numbers=(3,), start=(0,))


def test_the_outline_of_a_print_is_that_of_the_space():
    nested = spaces.Dict(b=spaces.Dict(d=box(-3, 5, (2, 2)), c=spaces.MultiDiscrete([3, 4])), a=spaces.MultiBinary(3))
    parts = _parts(str(nested.spaces), is_old=False, depth=3)
    assert list(parts["b"].parts) == ["d", "c"]
    check_agreement("observation", Outline("Dict", parts=parts), Outline.of(nested), "here")
    wider = spaces.Dict(b=spaces.Dict(d=box(-3, 6, (2, 2)), c=spaces.MultiDiscrete([3, 4])), a=spaces.MultiBinary(3))
    (note,) = check_agreement("observation", Outline("Dict", parts=parts), Outline.of(wider), "here")
    assert "observation bounds of `b.d`, [-3, 5], and here has [-3, 6]" in note


def test_gym_printed_the_extremes_of_a_part():
    parts = _parts("OrderedDict([('a', Box(-8.0, 1.0, (2,), float32))])", is_old=True, depth=3)
    same = spaces.Dict(a=spaces.Box(np.array([-1, -8]), np.array([1, 1]), dtype=np.float32))
    assert check_agreement("observation", Outline("Dict", parts=parts), Outline.of(same), "here") == ()


@pytest.mark.parametrize(
    "printed", ["", "{}", "nothing", "{'a': Box(1", "{'a'}", "{" * 50 + "'a': 1", "{'a': Dict(" * 30]
)
def test_an_order_that_cannot_be_read_is_refused(printed, tmp_path):
    live = A2C("MultiInputPolicy", World(spaces.Dict(a=box(-1, 1), b=box(-1, 1))), device="cpu")
    fake = {":type:": "<class 'gymnasium.spaces.dict.Dict'>", ":serialized:": "", "spaces": printed}
    path = rewritten(saved(live, tmp_path), tmp_path / "other.zip", {"observation_space": fake})
    with pytest.raises(AgentFileError, match="must print the keys of its observation space"):
        load_sb3(path, World(live.observation_space), "cpu")


REFUSED = [
    ("kind", box(0, 1, (3,)), spaces.MultiBinary(3), r"observation space .*Box\(3,\).*MultiBinary\(3,\)"),
    ("shape", box(0, 9, (3,)), box(0, 9, (4,)), r"observation space .*Box\(3,\).*Box\(4,\)"),
    ("n", spaces.Discrete(3), spaces.Discrete(4), r"Discrete\(3\).*Discrete\(4\)"),
    ("start", spaces.Discrete(3), spaces.Discrete(3, start=1), "from"),
    ("nvec", spaces.MultiDiscrete([2, 3]), spaces.MultiDiscrete([3, 2]), r"\(2, 3\).*\(3, 2\)"),
    ("bits", spaces.MultiBinary(4), spaces.MultiBinary(3), "MultiBinary"),
    ("dtype", box(0, 200, (3,), np.uint8), box(0, 200, (3,)), "dtype .*uint8.*float32"),
    ("image", box(0, 255, (1, 36, 36), np.uint8), box(0, 1, (1, 36, 36), np.uint8), "bounds"),
    ("keys", spaces.Dict(a=box(-1, 1), b=box(-1, 1)), spaces.Dict(a=box(-1, 1), c=box(-1, 1)), "keys .*a, b.*a, c"),
    ("part", spaces.Dict(a=box(-1, 1)), spaces.Dict(a=box(-1, 1, (2,))), "space of `a`"),
    ("scaled", box(-1, 1, (3,)), box(-50, 50, (3,)), "bounds .*RescaleObservation"),
    ("too much", box(np.float32([-3, -5, 0]), np.float32([3, 5, 9]), None), box(0, 1, (3,)), "bounds .*RescaleObs"),
]


@pytest.mark.parametrize(
    ("trained", "played", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_another_setting_is_refused_for_a_file_and_for_a_live_model(trained, played, message, tmp_path):
    is_image = isinstance(trained, spaces.Box) and len(trained.shape) == 3
    policy = "MultiInputPolicy" if isinstance(trained, spaces.Dict) else "CnnPolicy" if is_image else "MlpPolicy"
    live = A2C(policy, World(trained), device="cpu", seed=0)
    for agent in (live, saved(live, tmp_path)):
        assert len(evaluate(agent, World(trained), PLAN).returns) == 2
        with pytest.raises(SpaceError, match=f"`env` must have the .*{message}"):
            evaluate(agent, World(played), PLAN)


@pytest.mark.parametrize(
    ("trained", "played"),
    [
        (spaces.Discrete(3), spaces.Discrete(2)),
        (spaces.MultiDiscrete([2, 3]), spaces.MultiDiscrete([2, 4])),
        (spaces.MultiBinary(3), spaces.MultiBinary(2)),
        (box(-1, 1), box(-1, 2)),
        (box(-1, 1), box(-1, 1, (2,))),
        (box(-1, 1, (1,)), spaces.Discrete(2)),
    ],
)
def test_other_actions_are_refused(trained, played, tmp_path):
    seen = box(-5, 5)
    live = PPO("MlpPolicy", World(seen, trained), device="cpu", seed=0, n_steps=8, batch_size=8)
    for agent in (live, saved(live, tmp_path)):
        with pytest.raises(
            SpaceError, match=r"`env` must have the action (space|bounds) that the agent was trained with"
        ):
            evaluate(agent, World(seen, played), PLAN)


@pytest.mark.parametrize(
    ("trained", "played", "number"),
    [
        (box(-5, 5), box(-5, 5), 0),
        (box(-GREATEST, GREATEST), box(-np.inf, np.inf), 0),
        (box(-np.inf, np.inf), box(-GREATEST, GREATEST), 0),
        (box(-np.inf, np.inf), box(-4, 4), 1),
        (box(-1.5, 1.5), box(-2.5, 2.5), 1),
        (box(-5, 5), box(-5, 5, dtype=np.float64), 1),
        (box(0, 9, dtype=np.int32), box(0, 9, dtype=np.int64), 1),
        (box(-5, 5, (2, 1001)), box(-5, 5, (2, 1001)), 0),
        (box(-5, 5, (2, 1001)), box(-6, 6, (2, 1001)), 1),
    ],
)
def test_what_versions_change_is_a_note(trained, played, number, tmp_path):
    live = A2C("MlpPolicy", World(trained), device="cpu", seed=0)
    notes = [evaluate(agent, World(played), PLAN).notes for agent in (live, saved(live, tmp_path))]
    assert [len(each) for each in notes] == [number, number if trained.shape == (3,) else 0]
    assert all("the agent was trained with observation" in note for each in notes for note in each)


def test_a_note_is_in_the_table_in_json_and_beside_every_verdict(tmp_path):
    def wider():
        return TransformObservation(gym.make("Pendulum-v1"), lambda seen: seen, box(-9, 9))

    agent = SAC("MlpPolicy", wider(), seed=0, device="cpu", policy_kwargs={"net_arch": [4]})
    found = evaluate(saved(agent, tmp_path), "Pendulum-v1", PLAN, step_limit=3)
    (note,) = found.notes
    assert note == (
        "the agent was trained with observation bounds, [-9, 9], and Pendulum-v1 has [-1, 1] in entry 0: "
        "another version of the environment, or a wrapper of training is missing"
    )
    assert note in evaluation_json(found)["notes"]
    assert f"note: {note}" in evaluation_table(found, "agent")
    assert f"note: agent: {note}" in comparison_table(comparison_rows({"agent": [found], "it": [found]}), "Pendulum-v1")
    bounds = (-1000.0, 0.0)
    outcome = assert_return_at_least(agent, -900.0, env=short, bounds=bounds, plan=200, undecided="fail")
    assert any("the agent was trained with observation bounds" in words for words in outcome.notes)


def short():
    """Costs at most some 50."""
    return gym.make("Pendulum-v1", max_episode_steps=3)


def test_an_oracle_of_another_setting_is_refused(tiny_sac):
    apart = SAC(
        "MlpPolicy", RescaleObservation(gym.make("Pendulum-v1"), -np.ones(3, np.float32), np.ones(3, np.float32))
    )
    with pytest.raises(SpaceError, match="`oracle` must have the observation bounds that the agent was trained with"):
        measure(tiny_sac, "Pendulum-v1", oracle=apart, quick=True)
    scaled = SAC("MlpPolicy", RescaleAction(gym.make("Pendulum-v1"), -1, 1))
    with pytest.raises(SpaceError, match="`critic` must have the action bounds that the agent was trained with"):
        measure(tiny_sac, "Pendulum-v1", critic=scaled, quick=True)


def test_an_agent_that_says_nothing_agrees_with_all():
    assert evaluate(Zero(()), World(box(-1, 1)), PLAN).notes == ()


@pytest.mark.parametrize(
    ("twins", "is_refused"),
    [
        ({"dtype": "rubbish"}, True),
        ({"dtype": None, "low": 3}, True),
        ({"low": "[1. 2.]", "high": "[[[["}, False),
        ({"_shape": [[3]]}, False),
        ({"low": "[9. 9. 9.]", "high": "[nan 0. 0.]"}, False),
    ],
)
def test_garbage_in_the_place_of_a_space_is_no_traceback(twins, is_refused, sac_file, tmp_path):
    fake = {":type:": "<class 'gymnasium.spaces.box.Box'>", ":serialized:": "", "dtype": "float32", "_shape": [3]}
    path = rewritten(sac_file, tmp_path / "other.zip", {"observation_space": fake | twins})
    if not is_refused:
        load_sb3(path, "Pendulum-v1", "cpu")
        return
    with pytest.raises(SpaceError, match="`env` must have the observation dtype"):
        load_sb3(path, "Pendulum-v1", "cpu")
