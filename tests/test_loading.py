"""Agents come back from their files as they were saved, whoever saved them and when."""

import io
import json
import zipfile
from types import SimpleNamespace

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
import torch as th
from agent_files import pickled, rewritten, saved
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from offline_eval.policies import load_sb3, weights_hash
from offline_eval.policies.legacy import modern_net_arch, modern_weights

CONTINUOUS = ("tiny_sac", "tiny_td3", "tiny_ddpg", "tiny_tqc", "tiny_crossq", "tiny_ppo_pendulum")
DISCRETE = ("tiny_dqn", "tiny_qrdqn", "tiny_ppo", "tiny_a2c")


@pytest.mark.parametrize("name", CONTINUOUS + DISCRETE)
def test_an_agent_comes_back_as_it_was_saved(name, request, tmp_path):
    agent = request.getfixturevalue(name)
    env_id = "Pendulum-v1" if name in CONTINUOUS else "CartPole-v1"

    opened = load_sb3(saved(agent, tmp_path), env_id, device="cpu")

    observations = np.stack([agent.observation_space.sample() for _ in range(5)])
    if env_id == "CartPole-v1":  # its Box ends at 3.4e38, which overflows any network
        observations = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    expected, _ = agent.predict(observations, deterministic=True)
    assert type(opened) is type(agent)
    assert np.array_equal(opened.predict(observations, deterministic=True)[0], expected)
    assert weights_hash(opened) == weights_hash(agent)
    assert (opened.gamma, opened.learning_rate) == (agent.gamma, agent.learning_rate)


def test_a_loaded_agent_is_light_to_send_and_can_be_saved_and_evaluated(sac_file, tmp_path):
    agent = load_sb3(sac_file, "Pendulum-v1", device="cpu")
    sent = cloudpickle.loads(cloudpickle.dumps(agent))
    again = load_sb3(saved(agent, tmp_path, "again"), "Pendulum-v1", device="cpu")

    assert weights_hash(sent) == weights_hash(again) == weights_hash(agent)
    weights = sum(value.nbytes for value in agent.policy.state_dict().values())
    assert len(cloudpickle.dumps(agent)) < 2 * weights + 60_000
    mean, _ = evaluate_policy(agent, Monitor(gym.make("Pendulum-v1")), n_eval_episodes=1)
    assert -2000 < mean < 0


def test_what_was_made_small_to_open_it_is_not_lost_to_those_who_save_it_again(sac_file, tiny_ppo, tmp_path):
    sac = load_sb3(sac_file, "Pendulum-v1", device="cpu")
    ppo = load_sb3(saved(tiny_ppo, tmp_path, "ppo.zip"), "CartPole-v1", device="cpu")
    assert (sac.buffer_size, sac.seed, sac.replay_buffer.buffer_size) == (100, 0, 1)
    assert (ppo.n_steps, ppo.rollout_buffer.buffer_size) == (32, 1)


def test_the_entropy_coefficient_comes_along(tiny_sac, sac_file):
    assert load_sb3(sac_file, "Pendulum-v1", device="cpu").log_ent_coef.item() == tiny_sac.log_ent_coef.item()


def test_loading_leaves_the_global_generators_alone(sac_file):
    np.random.seed(5)
    th.manual_seed(5)
    expected = np.random.random(), th.rand(()).item()
    np.random.seed(5)
    th.manual_seed(5)
    load_sb3(sac_file, "Pendulum-v1", device="cpu")
    assert (np.random.random(), th.rand(()).item()) == expected


@pytest.mark.parametrize(
    "env",
    [
        "Pendulum-v1",
        gym.spec("Pendulum-v1"),
        lambda: gym.make("Pendulum-v1"),
        gym.make("Pendulum-v1"),
        gym.make_vec("Pendulum-v1", num_envs=2),
        DummyVecEnv([lambda: gym.make("Pendulum-v1")]),
        SimpleNamespace(
            observation_space=gym.make("Pendulum-v1").observation_space,
            action_space=gym.make("Pendulum-v1").action_space,
        ),
    ],
    ids=["id", "spec", "factory", "env", "vector", "vec_env", "spaces"],
)
def test_spaces_come_from_whatever_has_them(sac_file, env):
    agent = load_sb3(sac_file, env, device="cpu")
    assert (agent.observation_space.shape, agent.action_space.high.item()) == ((3,), 2.0)


def test_the_algorithm_is_told_from_the_file_where_classes_are_shared(tiny_td3, tiny_ddpg, tmp_path):
    assert type(load_sb3(saved(tiny_td3, tmp_path, "a"), "Pendulum-v1", device="cpu")).__name__ == "TD3"
    assert type(load_sb3(saved(tiny_ddpg, tmp_path, "b"), "Pendulum-v1", device="cpu")).__name__ == "DDPG"


def test_a_recurrent_agent_opens_too(tmp_path):
    algorithm = pytest.importorskip("sb3_contrib").RecurrentPPO
    agent = algorithm("MlpLstmPolicy", "CartPole-v1", n_steps=16, batch_size=16, device="cpu", seed=0)
    opened = load_sb3(saved(agent, tmp_path), "CartPole-v1", device="cpu")
    observation = np.zeros((1, 4), dtype=np.float32)
    _, state = opened.predict(observation, deterministic=True)
    assert np.array_equal(state[0], agent.predict(observation, deterministic=True)[1][0])


# Older files.


def test_activations_and_optimisers_are_read_by_name(tmp_path):
    kwargs = {"net_arch": [8, 4], "activation_fn": th.nn.ELU, "optimizer_class": th.optim.AdamW}
    agent = PPO("MlpPolicy", "CartPole-v1", policy_kwargs=kwargs, device="cpu", seed=0)
    opened = load_sb3(saved(agent, tmp_path), "CartPole-v1", device="cpu")
    assert opened.policy.activation_fn is th.nn.ELU
    assert isinstance(opened.policy.optimizer, th.optim.AdamW)
    assert weights_hash(opened) == weights_hash(agent)


def test_a_file_of_the_old_format_opens(tiny_sac, sac_file, tmp_path):
    data = json.loads(zipfile.ZipFile(sac_file).read("data"))
    box = {":type:": "<class 'gym.spaces.box.Box'>", ":serialized:": "bm8gcGlja2xl", "dtype": "float32"}
    data["observation_space"] = {**box, "shape": [3], "low": "[-1. -1. -8.]", "high": "[1. 1. 8.]"}
    data["action_space"] = {**box, "shape": [1], "low": "[-2.]", "high": "[2.]"}
    data["policy_kwargs"] = {**data["policy_kwargs"], "device": "cpu"}
    data |= {"train_freq": -1, "n_episodes_rollout": 1, "learning_rate": pickled(None)}
    old = tmp_path / "old.zip"
    with zipfile.ZipFile(sac_file) as source, zipfile.ZipFile(old, "w") as target:
        target.writestr("data", json.dumps(data))
        target.writestr("policy.pth", source.read("policy.pth"))
        target.writestr("tensors.pth", source.read("pytorch_variables.pth"))
    opened = load_sb3(old, "Pendulum-v1", device="cpu")
    assert weights_hash(opened) == weights_hash(tiny_sac)
    assert opened.log_ent_coef.item() == tiny_sac.log_ent_coef.item()


def test_layers_that_actor_and_value_shared_are_given_to_both(tmp_path):
    # 1.7 and before: net_arch [8, {pi: [4], vf: [6]}] is one shared layer of 8, then one of each own.
    arch = {"pi": [8, 4], "vf": [8, 6]}
    agent = A2C("MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": arch}, device="cpu", seed=0)
    state = agent.policy.state_dict()
    for part in ("weight", "bias"):
        state[f"mlp_extractor.value_net.0.{part}"].copy_(state[f"mlp_extractor.policy_net.0.{part}"])
    old = {}
    for name, value in state.items():
        if name.startswith("mlp_extractor.policy_net.0."):
            old[name.replace("policy_net", "shared_net")] = value
        elif not name.startswith("mlp_extractor.value_net.0."):
            old[name.replace("_net.2.", "_net.0.") if "mlp_extractor" in name else name] = value
    content = io.BytesIO()
    th.save(old, content)
    data = {"policy_kwargs": {"net_arch": [8, {"pi": [4], "vf": [6]}]}}
    path = rewritten(saved(agent, tmp_path), tmp_path / "old.zip", data, {"policy.pth": content.getvalue()})

    opened = load_sb3(path, "CartPole-v1", device="cpu")
    assert weights_hash(opened) == weights_hash(agent)


def test_old_names_by_hand():
    assert modern_net_arch([{"pi": [2], "vf": [3]}], shares_layers=False) == {"pi": [2], "vf": [3]}
    assert modern_net_arch([5, {"vf": [3]}], shares_layers=True) == {"pi": [5], "vf": [5, 3]}
    assert modern_net_arch([64, 64], shares_layers=False) == [64, 64]
    assert modern_net_arch([64, 64], shares_layers=True) == {"pi": [64, 64], "vf": [64, 64]}
    weights = {"features_extractor.cnn.0.weight": th.zeros(1)}
    expected = ("features_extractor.cnn.0.weight", "pi_features_extractor.cnn.0.weight", "value_net.weight")
    assert set(modern_weights(weights, expected)) == set(expected[:2])


def test_images_may_come_with_their_channels_last(tmp_path):
    class Camera(gym.Env):
        observation_space = gym.spaces.Box(0, 255, (36, 40, 3), np.uint8)
        action_space = gym.spaces.Discrete(2)

    agent = PPO("CnnPolicy", Camera(), n_steps=8, batch_size=8, device="cpu", seed=0)
    opened = load_sb3(saved(agent, tmp_path), Camera(), device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (4, 36, 40, 3), dtype=np.uint8)
    assert np.array_equal(opened.predict(image, deterministic=True)[0], agent.predict(image, deterministic=True)[0])
    assert weights_hash(opened) == weights_hash(agent)


# What others trained.

PLAYED = {
    "sac-Pendulum-v1": ("Pendulum-v1", "SAC", -170, 90),
    "ddpg-Pendulum-v1": ("Pendulum-v1", "DDPG", -178, 102),
    "tqc-MountainCarContinuous-v0": ("MountainCarContinuous-v0", "TQC", 76, 38),
    "dqn-CartPole-v1": ("CartPole-v1", "DQN", 500, 0),
    "sac-Hopper-v3": ("Hopper-v5", "SAC", 1107, 22),
    "ppo-Hopper-v3": ("Hopper-v5", "PPO", 2438, 5),
    "sac-HalfCheetah-v3": ("HalfCheetah-v5", "SAC", 9442, 76),
}


def episode_return(policy, env, seed):
    observation, _ = env.reset(seed=seed)
    total, over = 0.0, False
    while not over:
        action, _ = policy.predict(observation, deterministic=True)
        observation, reward, terminated, truncated, _ = env.step(action)
        total, over = total + float(reward), terminated or truncated
    return total


@pytest.mark.parametrize("name", PLAYED)
def test_agents_of_others_open_and_play_as_they_are_known_to(name, shared_agents):
    env_id, algorithm, mean, deviation = PLAYED[name]
    if "Hopper" in name or "Cheetah" in name:
        pytest.importorskip("mujoco")
    statistics = shared_agents / f"{name}.vecnormalize.pkl"
    agent = load_sb3(
        shared_agents / f"{name}.zip", env_id, device="cpu", normalize=statistics if statistics.exists() else None
    )
    assert type(getattr(agent, "model", agent)).__name__ == algorithm
    with gym.make(env_id) as env:
        returns = [episode_return(agent, env, 1000 + i) for i in range(3)]
    # The mean of three of the ten episodes, by four of its standard errors.
    assert np.mean(returns) == pytest.approx(mean, abs=max(4 * deviation / np.sqrt(3), 1e-9))
