"""Nothing that is pickled in a file is run, unless `trust=True` says so, and then no more than it says."""

import io
import json
import pickle
import warnings
import zipfile

import numpy as np
import pytest
import torch as th
from agent_files import Touch, payload, pickled, rewritten, saved
from stable_baselines3 import SAC
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.sac.policies import SACPolicy

from offline_eval.errors import AgentFileError
from offline_eval.policies import load_sb3, weights_hash

PICKLED_KEYS = ("policy_class", "observation_space", "action_space", "lr_schedule", "replay_buffer_class", "train_freq")
MEMBERS = ("policy.pth", "pytorch_variables.pth", "actor.optimizer.pth", "critic.optimizer.pth")


@pytest.mark.parametrize("key", [*PICKLED_KEYS, "ep_info_buffer", "policy_kwargs", "invented"])
def test_a_payload_in_a_pickled_value_is_not_run(key, tiny_sac, sac_file, tmp_path):
    trace = tmp_path / "ran"
    readable = json.loads(zipfile.ZipFile(sac_file).read("data")).get(key) or {}
    evil = rewritten(sac_file, tmp_path / "evil.zip", {key: {**pickled(Touch(trace)), **readable, **payload(trace)}})
    opened = load_sb3(evil, "Pendulum-v1", device="cpu")
    assert weights_hash(opened) == weights_hash(tiny_sac)
    assert not trace.exists()


@pytest.mark.parametrize("key", ["policy_class", "policy_kwargs"])
def test_a_payload_without_anything_readable_is_refused_and_not_run(key, sac_file, tmp_path):
    trace = tmp_path / "ran"
    evil = rewritten(sac_file, tmp_path / "evil.zip", {key: pickled(Touch(trace))})
    with pytest.raises(AgentFileError):
        load_sb3(evil, "Pendulum-v1", device="cpu")
    assert not trace.exists()


def test_the_same_payload_runs_under_stable_baselines3(sac_file, tmp_path):
    # The control: without it, the tests above could pass because the payload is broken.
    trace = tmp_path / "ran"
    evil = rewritten(sac_file, tmp_path / "evil.zip", {"ep_info_buffer": pickled(Touch(trace))})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        SAC.load(evil, device="cpu")
    assert trace.exists()


@pytest.mark.parametrize("member", MEMBERS)
@pytest.mark.parametrize("container", ["pickle", "torch"])
def test_a_payload_in_a_tensor_file_is_not_run(member, container, sac_file, tmp_path):
    trace, content = tmp_path / "ran", io.BytesIO()
    if container == "torch":
        th.save({"weight": Touch(trace)}, content)
    else:
        pickle.dump({"weight": Touch(trace)}, content)
    evil = rewritten(sac_file, tmp_path / "evil.zip", members={member: content.getvalue()})
    if "optimizer" in member:  # optimiser states are not even read
        load_sb3(evil, "Pendulum-v1", device="cpu")
    else:
        with pytest.raises(
            AgentFileError, match=rf"`path` must hold tensors and nothing else in `{member}`.*not|Nothing"
        ):
            load_sb3(evil, "Pendulum-v1", device="cpu")
    assert not trace.exists()


class OwnPolicy(SACPolicy):
    """A policy class that Stable-Baselines3 does not have."""

    def reset_noise(self, batch_size=1):
        super().reset_noise(batch_size)


class OwnExtractor(BaseFeaturesExtractor):
    def __init__(self, observation_space):
        super().__init__(observation_space, features_dim=3)

    def forward(self, observations):
        return observations * 2.0


def test_a_policy_class_of_ones_own_needs_trust(tmp_path):
    agent = SAC(OwnPolicy, "Pendulum-v1", buffer_size=10, policy_kwargs={"net_arch": [8]}, device="cpu", seed=0)
    path = saved(agent, tmp_path)
    with pytest.raises(
        AgentFileError, match=r"`policy_class` is .*OwnPolicy.*`trust=True` would unpickle `policy_class`"
    ):
        load_sb3(path, "Pendulum-v1", device="cpu")
    assert isinstance(load_sb3(path, "Pendulum-v1", device="cpu", trust=True).policy, OwnPolicy)


def test_a_features_extractor_of_ones_own_needs_trust(tmp_path):
    kwargs = {"net_arch": [8], "features_extractor_class": OwnExtractor}
    agent = SAC("MlpPolicy", "Pendulum-v1", buffer_size=10, policy_kwargs=kwargs, device="cpu", seed=0)
    path = saved(agent, tmp_path)
    with pytest.raises(AgentFileError, match=r"`policy_kwargs` is features_extractor_class=.*OwnExtractor.*trust=True"):
        load_sb3(path, "Pendulum-v1", device="cpu")
    observation = np.ones(3, dtype=np.float32)
    opened = load_sb3(path, "Pendulum-v1", device="cpu", trust=True)
    assert np.array_equal(
        opened.predict(observation, deterministic=True)[0], agent.predict(observation, deterministic=True)[0]
    )


def test_a_class_is_named_even_inside_a_function(tmp_path):
    class Local(SACPolicy):
        def extra(self):
            return None

    agent = SAC(Local, "Pendulum-v1", buffer_size=10, policy_kwargs={"net_arch": [8]}, device="cpu", seed=0)
    with pytest.raises(AgentFileError, match=r"`policy_class` is test_loading_security\.Local\. "):
        load_sb3(saved(agent, tmp_path), "Pendulum-v1", device="cpu")


def test_trust_runs_no_more_than_it_says(tmp_path):
    trace = tmp_path / "ran"
    agent = SAC(OwnPolicy, "Pendulum-v1", buffer_size=10, policy_kwargs={"net_arch": [8]}, device="cpu", seed=0)
    evil = rewritten(saved(agent, tmp_path), tmp_path / "evil.zip", {"ep_info_buffer": pickled(Touch(trace))})
    load_sb3(evil, "Pendulum-v1", device="cpu", trust=True)
    assert not trace.exists()
