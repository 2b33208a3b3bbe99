"""Actors of SB3's algorithms, of ours and of modules: what they say is what `predict` does, and torch can train it."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from offline_eval.errors import InputError
from offline_eval.policies import (
    RECIPES,
    Normalized,
    OfflineAlgorithm,
    Statistics,
    actor_of,
    critic_of,
    load_sb3,
    weights_hash,
)
from offline_eval.spaces import ActionScale
from offline_eval.types import Actor, Adaptable
from offline_eval.wrappers import Adam, AllParameters, LastLayer, Latest, NormalizedGradient, TestTimeTraining

PENDULUM = gym.make("Pendulum-v1")
OBSERVATIONS = np.random.default_rng(0).uniform(-1, 1, (5, 3)).astype(np.float32)
SCALE = ActionScale(PENDULUM.action_space)
AGENTS = ("tiny_sac", "tiny_td3", "tiny_ddpg", "tiny_tqc", "tiny_crossq", "tiny_ppo_pendulum", "gsde_sac", "gsde_ppo")


@pytest.fixture(scope="module")
def gsde_sac():
    return SAC("MlpPolicy", "Pendulum-v1", use_sde=True, policy_kwargs={"net_arch": [16, 16]}, seed=0, device="cpu")


@pytest.fixture(scope="module")
def gsde_ppo():
    return PPO("MlpPolicy", "Pendulum-v1", use_sde=True, policy_kwargs={"net_arch": [16, 16]}, seed=0, device="cpu")


def tensors():
    return th.as_tensor(OBSERVATIONS)


def assert_acts_like(actor, model, observations=OBSERVATIONS):
    """Mean, trunk with last layer, and the whole network by its parameters: all are the policy's own action."""
    assert isinstance(actor, Adaptable)
    assert isinstance(actor, Actor)
    predicted = th.as_tensor(SCALE.scale(model.predict(observations, deterministic=True)[0]))
    seen = th.as_tensor(observations)
    th.testing.assert_close(actor.mean(seen), predicted)
    parameters = {name: value.expand(2, *value.shape) for name, value in actor.parameters().items()}
    rows = seen.expand(2, *seen.shape)
    features = actor.features(seen)
    for locations in (
        actor.last(parameters, features.expand(2, *features.shape)),
        actor.whole(parameters, rows),
    ):
        th.testing.assert_close(actor.actions(locations), predicted.expand(2, *predicted.shape))


@pytest.mark.parametrize("name", AGENTS)
def test_an_actor_acts_like_its_model_and_can_be_trained(name, request):
    model = request.getfixturevalue(name)
    before = weights_hash(model)
    actor = actor_of(model)
    assert_acts_like(actor, model)
    critic = critic_of(model) if name not in ("tiny_ppo_pendulum", "gsde_ppo") else critic_of(model_of_td3())
    actions = th.as_tensor(SCALE.scale(model.predict(OBSERVATIONS, deterministic=True)[0]))
    for parameters, optimizer in ((LastLayer(), Adam()), (AllParameters(), NormalizedGradient())):
        training = TestTimeTraining(
            actor, critic, 0.01, parameters=parameters, optimizer=optimizer, states=Latest(), gradient_steps=2
        )
        steered = training(tensors(), actions, None)
        assert (steered.actions != actions).any(dim=1).sum() >= 4
        assert not steered.metrics["non_finite"].any()
    assert weights_hash(model) == before


def model_of_td3():
    from stable_baselines3 import TD3

    return TD3("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [16]}, buffer_size=1, seed=0, device="cpu")


def test_the_view_follows_the_model_while_it_learns():
    model = model_of_td3()
    actor = actor_of(model)
    with th.no_grad():
        model.actor.mu[-2].bias.add_(0.3)
    assert_acts_like(actor, model)


@pytest.mark.parametrize("name", ["tiny_sac", "gsde_sac", "tiny_tqc"])
def test_density_and_spread_of_a_squashed_policy_are_sb3s(name, request):
    model = request.getfixturevalue(name)
    actor, policy = actor_of(model), model.policy.actor
    with th.no_grad():
        mean, log_std, rest = policy.get_action_dist_params(tensors())
        distribution = policy.action_dist.proba_distribution(mean, log_std, **rest)
        actions = th.full((5, 1), 0.25)
        th.testing.assert_close(
            actor.log_prob(tensors(), actions), distribution.log_prob(actions), rtol=1e-3, atol=1e-3
        )
        th.testing.assert_close(actor.spread(actor.features(tensors())), distribution.distribution.stddev)
        noise = th.full((5, 1), 0.5)
        drawn = th.tanh(mean + 0.5 * distribution.distribution.stddev)
        th.testing.assert_close(actor.sample(tensors(), noise), drawn)


def test_the_gaussian_of_ppo_lives_in_the_scaled_space(tiny_ppo_pendulum):
    # Pendulum's Box is +-2: half the standard deviation, and a density twice as high.
    actor, policy = actor_of(tiny_ppo_pendulum), tiny_ppo_pendulum.policy
    with th.no_grad():
        distribution = policy.get_distribution(tensors())
        th.testing.assert_close(
            actor.spread(actor.features(tensors())).expand(5, 1), distribution.distribution.stddev / 2
        )
        actions = th.full((5, 1), 0.25)
        expected = distribution.log_prob(2 * actions) + np.log(2)
        th.testing.assert_close(actor.log_prob(tensors(), actions), expected)


def test_a_mean_outside_the_box_is_saturated(tiny_ppo_pendulum):
    actor = actor_of(tiny_ppo_pendulum)
    location = th.tensor([[0.5], [1.5]], requires_grad=True)
    actor.actions(location).sum().backward()
    assert location.grad.flatten().tolist() == [1.0, 0.0]
    assert actor.actions(location).flatten().tolist() == [0.5, 1.0]


def test_a_deterministic_policy_has_no_spread(tiny_td3):
    actor = actor_of(tiny_td3)
    assert actor.spread(actor.features(tensors())) is None
    with pytest.raises(InputError, match="must be stochastic to have a density"):
        actor.log_prob(tensors(), th.zeros(5, 1))


def test_normalised_observations_are_normalised_once(tiny_sac):
    env = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]))
    env.obs_rms.update(np.random.default_rng(1).normal(0.3, 2.0, (50, 3)))
    model = Normalized(tiny_sac, Statistics.of(env))
    actor = actor_of(model)
    assert_acts_like(actor, model)
    assert not th.allclose(actor.mean(tensors()), actor_of(tiny_sac).mean(tensors()))


@pytest.mark.parametrize("name", [name for name in RECIPES if not name.endswith("sfbc")])
def test_what_this_package_trains_has_an_actor(name):
    model = OfflineAlgorithm(
        name,
        PENDULUM,
        policy_kwargs={"net_arch": [16, 16]},
        seed=0,
        device="cpu",
    )
    if model.recipe.extraction is None or model.recipe.extraction.ranks_candidates:
        with pytest.raises(InputError, match="must be an actor that torch can differentiate"):
            actor_of(model)
        return
    actor = actor_of(model)
    assert_acts_like(actor, model)
    distribution = model.policy.distribution(tensors())
    spread = actor.spread(actor.features(tensors()))
    if spread is not None:
        th.testing.assert_close(spread, distribution.log_std.exp().expand(5, 1))


class Frames(gym.Env):
    """Images with their channels last, as environments give them."""

    observation_space = spaces.Box(0, 255, (36, 36, 3), np.uint8)
    action_space = PENDULUM.action_space


def test_images_are_turned_as_predict_turns_them():
    policy_kwargs = {"net_arch": [8], "features_extractor_kwargs": {"features_dim": 8}}
    model = SAC("CnnPolicy", Frames(), policy_kwargs=policy_kwargs, buffer_size=1, seed=0, device="cpu")
    frames = np.random.default_rng(0).integers(0, 255, (3, 36, 36, 3)).astype(np.uint8)
    assert_acts_like(actor_of(model), model, frames)


# Modules


class Behind(nn.Module):
    """A policy whose last linear layer is not the last to be registered, with a part that does not act."""

    def __init__(self):
        super().__init__()
        th.manual_seed(0)
        self.out, self.hidden, self.unused = nn.Linear(8, 1), nn.Linear(3, 8), nn.Linear(3, 1)

    def forward(self, observations):
        return self.out(self.hidden(observations).relu()).tanh()


def module_actor(module):
    return actor_of(module, action_space=PENDULUM.action_space, observation_space=PENDULUM.observation_space)


def test_any_module_is_an_actor():
    actor = module_actor(Behind())
    assert set(actor.parameters()) == {
        "inner.out.weight",
        "inner.out.bias",
        "inner.hidden.weight",
        "inner.hidden.bias",
    }
    assert actor.last_layer == ("inner.out.weight", "inner.out.bias")
    th.testing.assert_close(actor.mean(tensors()), Behind()(tensors()))
    parameters = {name: value.expand(2, *value.shape).clone() for name, value in actor.parameters().items()}
    parameters["inner.out.bias"][1] += 1.0
    locations = actor.whole(parameters, tensors().expand(2, 5, 3))
    th.testing.assert_close(locations[0], Behind()(tensors()))
    assert (locations[1] > locations[0]).all()


def test_the_trunk_of_a_sequential_is_cached_and_acts_the_same():
    th.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1), nn.Tanh())
    actor = module_actor(module)
    assert actor.features(tensors()).shape == (5, 8)
    th.testing.assert_close(actor.mean(tensors()), module(tensors()))


def test_a_module_with_a_mean_gives_that():
    class Gaussian(Behind):
        def mean(self, observations):
            return super().forward(observations)

        def forward(self, observations):
            raise AssertionError("the deterministic action is `mean`")

    th.testing.assert_close(module_actor(Gaussian()).mean(tensors()), Behind()(tensors()))


# Refusals


class Detached(Behind):
    def forward(self, observations):
        return super().forward(observations).detach()


class OnlyPredicts:
    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.zeros((len(observation), 1), np.float32), None


@pytest.mark.parametrize("make", [OnlyPredicts, lambda: lambda observations: observations])
def test_what_torch_cannot_see_is_refused(make):
    with pytest.raises(InputError, match="`model` must be an actor that torch can differentiate"):
        actor_of(make())


def test_a_policy_that_detaches_its_actions_is_refused():
    with pytest.raises(InputError, match="whose actions have no gradient in its parameters"):
        module_actor(Detached())


def test_a_policy_of_discrete_actions_is_refused(tiny_dqn, tiny_ppo):
    for model in (tiny_dqn, tiny_ppo):
        with pytest.raises(InputError, match="it lacks continuous actions"):
            actor_of(model)


def test_a_recurrent_policy_is_refused():
    algorithm = pytest.importorskip("sb3_contrib").RecurrentPPO
    policy_kwargs = {"net_arch": [4], "lstm_hidden_size": 4}
    model = algorithm("MlpLstmPolicy", "Pendulum-v1", n_steps=8, policy_kwargs=policy_kwargs, device="cpu")
    with pytest.raises(InputError, match="a recurrent one's action depends on all that came before"):
        actor_of(model)


def test_a_module_needs_its_spaces_and_the_right_shape():
    with pytest.raises(InputError, match="`action_space` must be given"):
        actor_of(Behind())
    with pytest.raises(InputError, match="`observation_space` must be given"):
        actor_of(Behind(), action_space=PENDULUM.action_space)
    with pytest.raises(InputError, match=r"must give actions \(batch, 2\)"):
        actor_of(Behind(), action_space=spaces.Box(-1, 1, (2,)), observation_space=PENDULUM.observation_space)


def test_real_agents_have_actors(shared_agents):
    for name in ("sac-Pendulum-v1", "ddpg-Pendulum-v1"):
        model = load_sb3(shared_agents / f"{name}.zip", "Pendulum-v1", device="cpu")
        assert_acts_like(actor_of(model), model)
