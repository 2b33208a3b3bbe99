"""Hidden critics come out as they are in the model, in the units of their training, and the model stays as it was."""

import copy

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import DQN, PPO, SAC, TD3

from offline_eval.errors import CriticError
from offline_eval.policies import critic_of, load_sb3, weights_hash
from offline_eval.policies.critics import live_view
from offline_eval.types import Critic

CONTINUOUS = ("tiny_sac", "tiny_td3", "tiny_ddpg", "tiny_tqc", "tiny_crossq")


def batch(size=5, dim=3, action_dim=1):
    generator = th.Generator().manual_seed(0)
    return th.randn(size, dim, generator=generator), th.rand(size, action_dim, generator=generator) * 2 - 1


# Numbers worked out by hand.


def test_a_critic_of_one_layer_by_hand():
    model = SAC("MlpPolicy", "Pendulum-v1", buffer_size=10, policy_kwargs={"net_arch": []}, device="cpu", seed=0)
    with th.no_grad():
        for head, bias in zip(model.critic.q_networks, (0.5, -0.5), strict=True):
            head[0].weight.copy_(th.tensor([[2.0, 0.0, 0.0, 3.0]]))
            head[0].bias.fill_(bias)
    values = critic_of(model).q(th.tensor([[5.0, 0.0, 0.0]]), th.tensor([[0.5]]))
    assert values.tolist() == [[12.0], [11.0]]  # 2 * 5 + 3 * 0.5 = 11.5, plus and minus a half


def test_entries_of_a_table_by_hand():
    model = DQN("MlpPolicy", "CartPole-v1", buffer_size=10, policy_kwargs={"net_arch": []}, device="cpu", seed=0)
    with th.no_grad():
        model.q_net.q_net[0].weight.copy_(th.tensor([[1.0, 0, 0, 0], [0, 0, 0, -1.0]]))
        model.q_net.q_net[0].bias.zero_()
    observations = th.tensor([[7.0, 0, 0, 2.0], [7.0, 0, 0, 2.0]])
    assert critic_of(model).q(observations, th.tensor([0, 1])).tolist() == [[7.0, -2.0]]
    # Hosts carry actions as floats with a last axis.
    assert critic_of(model).q(observations, th.tensor([[0.0], [1.0]])).tolist() == [[7.0, -2.0]]


# What the model itself computes.


@pytest.mark.parametrize("name", CONTINUOUS)
def test_it_is_the_model_s_own_critic(name, request):
    model = request.getfixturevalue(name)
    observations, actions = batch()
    critic = critic_of(model)
    model.policy.set_training_mode(False)
    with th.no_grad():
        heads = model.policy.critic(observations, actions)
    expected = heads.mean(2).T if isinstance(heads, th.Tensor) else th.cat(heads, dim=1).T

    assert isinstance(critic, Critic)
    assert th.equal(critic.q(observations, actions), expected)
    assert critic.q(observations, actions).shape == (1 if name == "tiny_ddpg" else 2, 5)
    assert (critic.gamma, critic.device) == (model.gamma, model.device)
    assert (critic.observation_space, critic.action_space) == (model.observation_space, model.action_space)
    assert critic.soft == (name in ("tiny_sac", "tiny_tqc", "tiny_crossq"))


def test_quantiles_are_averaged(tiny_qrdqn):
    observations, _ = batch(dim=4)
    actions = th.tensor([0, 1, 0, 1, 1])
    with th.no_grad():
        expected = [
            tiny_qrdqn.quantile_net(observations).mean(1)[row, action].item() for row, action in enumerate(actions)
        ]
    critic = critic_of(tiny_qrdqn)
    assert critic.q(observations, actions).squeeze(0).tolist() == pytest.approx(expected)
    assert not critic.soft


@pytest.mark.parametrize("name", CONTINUOUS)
def test_it_is_differentiable_in_the_actions_alone(name, request):
    model = request.getfixturevalue(name)
    before = [(p.requires_grad, None if p.grad is None else p.grad.clone()) for p in model.policy.parameters()]
    observations, actions = batch()
    critic, actions = critic_of(model), actions.requires_grad_()

    critic.q(observations, actions).min(dim=0).values.sum().backward()

    step = 1e-2
    with th.no_grad():
        ahead, behind = (critic.q(observations, actions + sign * step).min(dim=0).values for sign in (1, -1))
    # Kinks of ReLU lie between the two, so that a few differ.
    close = th.isclose(actions.grad[:, 0], (ahead - behind) / (2 * step), rtol=0.05, atol=1e-3)
    assert close.float().mean() >= 0.8
    for parameter, (required, gradient) in zip(model.policy.parameters(), before, strict=True):
        assert parameter.requires_grad == required
        assert (parameter.grad is None) == (gradient is None)
        assert gradient is None or th.equal(parameter.grad, gradient)


def test_it_leaves_a_model_in_training_mode_in_it(tiny_crossq):
    model = copy.deepcopy(tiny_crossq)
    model.policy.set_training_mode(True)
    before = weights_hash(model)
    observations, actions = batch()
    critic = critic_of(model)
    first, second = critic.q(observations, actions), critic.q(observations[:1], actions[:1])
    assert th.allclose(first[:, :1], second)  # batch statistics would make the row depend on its neighbours
    assert all(module.training for module in model.critic.modules())
    assert weights_hash(model) == before  # nor did the running statistics move


def test_it_follows_a_model_that_learns(tiny_sac):
    model = copy.deepcopy(tiny_sac)
    observations, actions = batch()
    critic = critic_of(model)
    before = critic.q(observations, actions)
    model.set_env(gym.make("Pendulum-v1"))
    model.learn(5, reset_num_timesteps=False)
    with th.no_grad():
        after = th.cat(model.critic(observations, actions), dim=1).T
    assert not th.equal(before, after)
    assert th.equal(critic.q(observations, actions), after)


def test_a_view_holds_no_second_copy_of_the_weights(tiny_sac):
    view = live_view(tiny_sac.critic)
    pairs = zip(view.parameters(), tiny_sac.critic.parameters(), strict=True)
    assert all(ours.data_ptr() == theirs.data_ptr() for ours, theirs in pairs)
    assert view.optimizer is None


@pytest.mark.parametrize("name", [*CONTINUOUS, "tiny_dqn"])
def test_it_can_be_sent_to_another_process(name, request):
    critic = critic_of(request.getfixturevalue(name))
    observations, actions = batch(dim=3 if name in CONTINUOUS else 4)
    actions = actions if name in CONTINUOUS else actions > 0
    sent = cloudpickle.loads(cloudpickle.dumps(critic))
    assert th.equal(sent.q(observations, actions), critic.q(observations, actions))


def test_a_critic_comes_back_as_it_is(tiny_sac):
    critic = critic_of(tiny_sac)
    assert critic_of(critic) is critic


def test_pendulum_s_actions_are_scaled(tiny_sac):
    # The Box is [-2, 2]: unscaled actions give other values, and no error.
    critic = critic_of(tiny_sac)
    observations, _ = batch()
    actions = th.linspace(-2, 2, 5)[:, None]
    scaled = critic.scale(actions)
    assert scaled[:, 0].tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert not th.allclose(critic.q(observations, scaled), critic.q(observations, actions), atol=1e-4)


# Observations as environments give them.


def test_double_precision_observations_are_cast(tiny_td3):
    observations, actions = batch()
    critic = critic_of(tiny_td3)
    assert th.equal(critic.q(observations.double(), actions), critic.q(observations, actions))


class Camera(gym.Env):
    """Images with their channels last, beside two numbers."""

    action_space = gym.spaces.Box(-1.0, 1.0, (1,))
    observation_space = gym.spaces.Dict(
        image=gym.spaces.Box(0, 255, (36, 40, 3), np.uint8), speed=gym.spaces.Box(-1.0, 1.0, (2,))
    )


@pytest.mark.parametrize("shared", [False, True])
def test_dict_observations_with_images_that_have_their_channels_last(shared):
    kwargs = {"net_arch": [8], "share_features_extractor": shared}
    model = TD3("MultiInputPolicy", Camera(), buffer_size=10, policy_kwargs=kwargs, device="cpu", seed=0)
    observation = {
        "image": np.random.default_rng(0).integers(0, 256, (2, 36, 40, 3), dtype=np.uint8),
        "speed": np.zeros((2, 2), dtype=np.float32),
    }
    actions = th.tensor([[0.5], [-0.5]], requires_grad=True)
    as_sb3, _ = model.policy.obs_to_tensor(observation)
    with th.no_grad():
        expected = th.cat(model.critic(as_sb3, actions), dim=1).T

    values = critic_of(model).q({key: th.as_tensor(value) for key, value in observation.items()}, actions)
    values.sum().backward()

    assert critic_of(model).observation_space is None  # the model's has its channels first
    assert th.equal(values.detach(), expected)
    assert actions.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.critic.parameters())


def test_discrete_observations_are_encoded():
    model = DQN("MlpPolicy", "Taxi-v4", buffer_size=10, policy_kwargs={"net_arch": []}, device="cpu", seed=0)
    with th.no_grad():
        expected = model.q_net(th.tensor([7]))[0, 3].item()
    assert critic_of(model).q(th.tensor([7]), th.tensor([3])).item() == expected


# Bad input.


@pytest.mark.parametrize("name", ["tiny_ppo", "tiny_ppo_pendulum", "tiny_a2c"])
def test_agents_with_a_state_value_only_say_so(name, request):
    with pytest.raises(
        CriticError, match=r"`model` must have a Q\(s, a\). Received (PPO|A2C), which has a V\(s\) only.*--critic"
    ):
        critic_of(request.getfixturevalue(name))


def test_what_the_model_knows_is_not_asked_twice(tiny_sac):
    with pytest.raises(CriticError, match=r"`gamma` must be left out where the model knows it\. Received 0\.9"):
        critic_of(tiny_sac, gamma=0.9)


def test_a_policy_without_its_algorithm_is_refused(tiny_sac):
    with pytest.raises(CriticError, match=r"`model` must be the algorithm\. Received 'SACPolicy'"):
        critic_of(tiny_sac.policy)


def test_something_else_is_refused():
    with pytest.raises(CriticError, match=r"`model` must be an SB3 algorithm, a module or a function\. Received 'int'"):
        critic_of(3)


# Real critics.


def test_the_critic_of_a_real_agent_needs_scaled_actions(shared_agents):
    agent = load_sb3(shared_agents / "sac-Pendulum-v1.zip", "Pendulum-v1", device="cpu")
    critic = critic_of(agent)
    angles = np.linspace(-np.pi, np.pi, 50, dtype=np.float32)
    states = np.stack([np.cos(angles), np.sin(angles), np.zeros_like(angles)], axis=1)
    actions, _ = agent.predict(states, deterministic=True)
    observations, actions = th.as_tensor(states), th.as_tensor(actions)
    with th.no_grad():
        error = critic.q(observations, critic.scale(actions)) - critic.q(observations, actions)
    assert error.abs().mean() > 0.5
    assert error.abs().max() > 1.0


def test_the_critic_of_a_real_agent_predicts_its_return(shared_agents):
    pytest.importorskip("mujoco")
    agent = load_sb3(shared_agents / "sac-Hopper-v3.zip", "Hopper-v5", device="cpu")
    env = gym.make("Hopper-v5")
    observation, _ = env.reset(seed=0)
    observations, actions, rewards, over = [], [], [], False
    while not over:
        action, _ = agent.predict(observation, deterministic=True)
        observations.append(observation)
        actions.append(action)
        observation, reward, terminated, truncated, _ = env.step(action)
        rewards.append(reward)
        over = terminated or truncated
    critic, returns = critic_of(agent), np.zeros(len(rewards) + 1)
    for step in reversed(range(len(rewards))):
        returns[step] = rewards[step] + critic.gamma * returns[step + 1]
    half = len(rewards) // 2
    with th.no_grad():
        values = critic.q(th.as_tensor(np.array(observations)), critic.scale(th.as_tensor(np.array(actions))))
    assert values.min(dim=0).values[:half].mean().item() == pytest.approx(returns[:half].mean(), rel=0.1)


def test_a_policy_gradient_agent_is_no_critic_after_loading(tmp_path):
    model = PPO("MlpPolicy", "CartPole-v1", device="cpu", seed=0)
    model.save(tmp_path / "ppo")
    with pytest.raises(CriticError, match="V\\(s\\) only"):
        critic_of(load_sb3(tmp_path / "ppo", "CartPole-v1", device="cpu"))


def test_actions_that_do_not_begin_at_0_are_refused():
    class Signs(gym.Env):
        observation_space, action_space = gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(3, start=-1)

    model = DQN("MlpPolicy", Signs(), buffer_size=1, policy_kwargs={"net_arch": [2]}, device="cpu")
    with pytest.raises(CriticError, match=r"counted from 0.*Discrete\(3, start=-1\)"):
        critic_of(model)
