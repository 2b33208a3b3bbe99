"""Damaged agents end in one line, and what asks for more memory than its weights could fill is not built."""

import importlib.util
import io
import json
import random
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
import torch as th
from agent_files import rewritten, saved
from stable_baselines3 import SAC
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from offline_eval.cli import main
from offline_eval.errors import AgentFileError
from offline_eval.policies import load_sb3

FUZZ = Path(__file__).resolve().parents[1] / "benchmarks" / "fuzz_agents.py"


@pytest.fixture(scope="module")
def fuzz():
    spec = importlib.util.spec_from_file_location("fuzz_agents", FUZZ)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def told(path, env="Pendulum-v1", **words):
    with pytest.raises(AgentFileError) as raised:
        load_sb3(path, env, device="cpu", **words)
    text = str(raised.value)
    assert "\n" not in text
    return text


def with_kwargs(source, target, **words):
    kwargs = json.loads(zipfile.ZipFile(source).read("data"))["policy_kwargs"]
    return rewritten(source, target, {"policy_kwargs": {**kwargs, **words}})


# Sizes.


@pytest.mark.parametrize(
    "words",
    [
        {"n_critics": 10**7},
        {"net_arch": [10**6, 10**6]},
        {"net_arch": [8] * 20_000},
        {"net_arch": {"pi": [8], "qf": [10**9]}},
    ],
)
def test_networks_far_larger_than_the_weights_are_not_built(words, sac_file, tmp_path):
    text = told(with_kwargs(sac_file, tmp_path / "huge.zip", **words))
    assert "must have weights of the size of the networks that its `policy_kwargs` describe" in text


def test_quantiles_are_numbers_of_that_kind_too(tiny_tqc, tmp_path):
    text = told(with_kwargs(saved(tiny_tqc, tmp_path), tmp_path / "huge.zip", n_quantiles=10**9))
    assert "weights of the size" in text


def test_a_member_that_is_a_bomb_is_not_unpacked(sac_file, tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(sac_file) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name) if name != "policy.pth" else bytes(50_000_000))
    tracemalloc.start()
    try:
        text = told(path)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
    assert "`policy.pth` would unpack to 50000000 bytes, over 100 times its size" in text


def test_a_member_that_says_it_has_gigabytes_is_refused_by_the_limit(sac_file, tmp_path):
    content = bytearray(sac_file.read_bytes())
    place = content.find(b"PK\x01\x02")
    while place >= 0:
        content[place + 20 : place + 28] = (2**31).to_bytes(4, "little") * 2  # packed and unpacked
        place = content.find(b"PK\x01\x02", place + 4)
    (tmp_path / "large.zip").write_bytes(content)
    text = told(tmp_path / "large.zip")
    assert "and 1073741824 is the limit" in text


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_methods_of_packing_are_refused(method, sac_file, tmp_path):
    with zipfile.ZipFile(sac_file) as old, zipfile.ZipFile(tmp_path / "odd.zip", "w", method) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert "packed by a method that no agent's are" in told(tmp_path / "odd.zip")


def test_a_deflated_zip_is_opened(tiny_sac, sac_file, tmp_path):
    with zipfile.ZipFile(sac_file) as old, zipfile.ZipFile(tmp_path / "small.zip", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    raw = np.ones((1, 3), np.float32)
    opened = load_sb3(tmp_path / "small.zip", "Pendulum-v1", device="cpu")
    assert np.array_equal(opened.predict(raw, deterministic=True)[0], tiny_sac.predict(raw, deterministic=True)[0])


@pytest.mark.parametrize(
    "odd",
    [
        th.zeros(1).expand(10**6, 10**6),
        th.sparse_coo_tensor([[0]], [1.0], (10**9,), check_invariants=True),
        th.empty(10**12, device="meta"),
    ],
)
def test_weights_that_are_not_all_there(odd, tiny_sac, sac_file, tmp_path):
    content = io.BytesIO()
    th.save({**tiny_sac.policy.state_dict(), "actor.mu.bias": odd}, content)
    path = rewritten(sac_file, tmp_path / "odd.zip", members={"policy.pth": content.getvalue()})
    assert "`policy.pth`" in told(path)


# Damage.


def test_a_corrupted_download(sac_file, tmp_path):
    content = bytearray(sac_file.read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / "torn.zip").write_bytes(content)
    text = told(tmp_path / "torn.zip")
    assert "must be a zip that is whole" in text
    assert "fetch a damaged one again" in text


def test_a_deeply_nested_word(sac_file, tmp_path):
    path = tmp_path / "deep.zip"
    with zipfile.ZipFile(sac_file) as old, zipfile.ZipFile(path, "w") as new:
        new.writestr("data", b"[" * 200_000)
        new.writestr("policy.pth", old.read("policy.pth"))
    assert "its `data` is not JSON" in told(path)


def test_forty_damaged_files(fuzz, tmp_path):
    generator = random.Random(7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sources = {name: path.read_bytes() for name, path in fuzz.make_sources(tmp_path).items()}
        for number in range(40):
            name = generator.choice(list(sources))
            content, kind = fuzz.damaged(name, sources[name], generator)
            path = tmp_path / f"{Path(name).stem}-{number}{Path(name).suffix}"
            path.write_bytes(content)
            assert fuzz.offence(path) == "", f"{number}: {kind} of {name}"
            path.unlink()


# Trust on the command line.


class Doubled(BaseFeaturesExtractor):
    def __init__(self, observation_space):
        super().__init__(observation_space, features_dim=3)

    def forward(self, observations):
        return observations * 2.0


@pytest.fixture
def own_agent(tmp_path):
    kwargs = {"net_arch": [8], "features_extractor_class": Doubled}
    model = SAC("MlpPolicy", "Pendulum-v1", buffer_size=10, policy_kwargs=kwargs, device="cpu", seed=0)
    return saved(model, tmp_path)


def test_the_error_names_the_option_and_the_option_works(own_agent, capsys):
    words = ["evaluate", str(own_agent), "--env", "Pendulum-v1", "--episodes", "1", "--step-limit", "3"]
    assert main(words) == 2
    assert f"--trust {own_agent}" in capsys.readouterr().err
    assert main([*words, "--trust", str(own_agent)]) == 0
    said = capsys.readouterr().err
    assert f"--trust {own_agent} runs the pickled `policy_kwargs`" in said
    assert "Doubled" in said


def test_trust_is_for_that_file_alone(own_agent, capsys, tmp_path):
    other = tmp_path / "other.zip"
    other.write_bytes(own_agent.read_bytes())
    words = ["evaluate", str(own_agent), "--env", "Pendulum-v1", "--episodes", "1", "--trust", str(other)]
    assert main(words) == 2
    assert "--trust" in capsys.readouterr().err
    both = ["--trust", str(other), "--trust", str(own_agent)[: -len(".zip")]]
    assert main([*words[:-2], "--step-limit", "3", *both]) == 0


def test_what_would_run_is_listed_before_it_runs(own_agent):
    heard = []
    load_sb3(own_agent, "Pendulum-v1", device="cpu", trust=lambda path, code: heard.append((path, code)))
    ((path, code),) = heard
    assert path == own_agent
    assert "test_damaged_agents" in code or cloudpickle.__name__ in code
