"""What cannot be opened as an agent says why, in one line."""

import io
import json
import zipfile
from types import SimpleNamespace

import gymnasium as gym
import pytest
import torch as th
from agent_files import pickled, rewritten

from offline_eval.errors import AgentFileError, InputError, SpaceError
from offline_eval.policies import load_sb3


def message(error, **arguments):
    with pytest.raises(error) as raised:
        load_sb3(**{"env": "Pendulum-v1", "device": "cpu", **arguments})
    text = str(raised.value)
    assert "\n" not in text
    return text


def test_a_missing_file(sac_file):
    text = message(AgentFileError, path=sac_file.with_name("agnt.zip"))
    assert text.startswith("`path` must be an existing file. Received ")
    assert text.endswith("beside it lie agent.zip")


def test_a_folder_is_no_agent(tmp_path):
    assert "must be a file. " in message(AgentFileError, path=tmp_path)


def test_not_a_zip(tmp_path):
    (tmp_path / "agent.zip").write_bytes(b"these are no weights")
    assert "`path` must be a zip" in message(AgentFileError, path=tmp_path / "agent.zip")


def test_a_zip_of_another_library(tmp_path):
    th.save(th.nn.Linear(2, 2).state_dict(), tmp_path / "net.pt")
    text = message(AgentFileError, path=tmp_path / "net.pt")
    assert "must be a file that the `save` of a Stable-Baselines3 algorithm wrote" in text
    assert "it holds no `data`, but" in text


@pytest.mark.parametrize("data", [b"\xff\xfe", b"[1]", b"{}"])
def test_a_zip_whose_data_is_something_else(data, sac_file, tmp_path):
    path = rewritten(sac_file, tmp_path / "other.zip")
    with zipfile.ZipFile(sac_file) as old, zipfile.ZipFile(path, "w") as new:
        new.writestr("data", data)
        new.writestr("policy.pth", old.read("policy.pth"))
    assert "a Stable-Baselines3 algorithm wrote" in message(AgentFileError, path=path)


def test_numbers_that_make_no_agent(sac_file, tmp_path):
    path = rewritten(sac_file, tmp_path / "odd.zip", {"learning_rate": "fast"})
    assert "must describe a SAC that Stable-Baselines3 can build" in message(AgentFileError, path=path)


def test_an_algorithm_that_is_not_known_here(sac_file, tmp_path):
    with zipfile.ZipFile(sac_file) as archive:
        data = json.loads(archive.read("data"))
    del data["target_entropy"]  # what tells a SAC
    path = rewritten(sac_file, tmp_path / "other.zip", members={"data": json.dumps(data).encode()})
    assert "`path` must hold one of QRDQN, DQN, " in message(AgentFileError, path=path)


def test_weights_that_are_missing(tiny_sac, sac_file, tmp_path):
    state, content = tiny_sac.policy.state_dict(), io.BytesIO()
    del state["actor.mu.bias"]
    th.save(state, content)
    path = rewritten(sac_file, tmp_path / "torn.zip", members={"policy.pth": content.getvalue()})
    assert "it lacks `actor.mu.bias`" in message(AgentFileError, path=path)


def test_an_unknown_environment(sac_file):
    text = message(InputError, path=sac_file, env="Pendulm-v1")
    assert text.startswith("`env` must be the id of a registered environment. Received 'Pendulm-v1'")
    assert "Pendulum-v1" in text


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ("MountainCarContinuous-v0", "observation space that the agent was trained with, Box(3,). Received Box(2,) of"),
        ("CartPole-v1", "observation space that the agent was trained with, Box(3,). Received Box(4,) of CartPole-v1"),
    ],
)
def test_other_observations(env, told, sac_file):
    assert told in message(SpaceError, path=sac_file, env=env)


def spaces_only(observation_space, action_space):
    return SimpleNamespace(observation_space=observation_space, action_space=action_space)


@pytest.mark.parametrize(
    ("action_space", "told"),
    [
        (gym.spaces.Box(-2, 2, (2,)), "the action space that the agent was trained with, Box(1,). Received Box(2,)"),
        (gym.spaces.Discrete(5), "the action space that the agent was trained with, Box(1,). Received Discrete(5)"),
        (gym.spaces.Box(-1, 1, (1,)), "action bounds that the agent was trained with, [-2, 2]. Received [-1, 1]"),
    ],
)
def test_other_actions(action_space, told, tiny_sac, sac_file):
    env = spaces_only(tiny_sac.observation_space, action_space)
    assert told in message(SpaceError, path=sac_file, env=env)


def test_shapes_come_from_the_weights_where_the_file_does_not_tell_them(sac_file, tmp_path):
    path = rewritten(sac_file, tmp_path / "mute.zip", {"observation_space": pickled(None)})
    text = message(SpaceError, path=path, env=spaces_only(gym.spaces.Box(-1, 1, (7,)), gym.spaces.Box(-2, 2, (1,))))
    assert "`actor.latent_pi.0.weight` of shape (16, 3) in the file would be (16, 7)" in text
