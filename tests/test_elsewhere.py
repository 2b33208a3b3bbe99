"""Every module once on a device that refuses tensors of two devices and whatever a GPU would wait for.

Numbers are compared elsewhere; here it is where they lie, and how often they travel.
"""

import io
import warnings
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from elsewhere import NOWHERE, Elsewhere
from gymnasium import spaces
from offline_data import STANDARDIZED, pendulum_data
from sb3_contrib import QRDQN, TQC, TRPO, CrossQ
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from steered import Bang

from offline_eval.measurement.actors import SoftDraws
from offline_eval.measurement.candidates import critic_values
from offline_eval.policies import (
    RECIPES,
    Normalized,
    OfflineAlgorithm,
    Statistics,
    actor_of,
    critic_of,
    devices,
    watch,
    weaken,
    weights_hash,
)
from offline_eval.policies.normalization import Moments
from offline_eval.policies.recipes import recipe_of
from offline_eval.policies.values import FittedQ
from offline_eval.wrappers import (
    L2,
    OPEX,
    AgreementGate,
    AgreementScale,
    AllHeadsGain,
    AllParameters,
    BestNear,
    BestOfN,
    CudaGraph,
    Drawn,
    Fused,
    GainOverDisagreement,
    GradientDescent,
    Guarded,
    KeepBest,
    KLAnchor,
    Latest,
    LineSearch,
    LowerBound,
    Mean,
    Mixture,
    MultiplyAction,
    NearbyActions,
    Neighbours,
    Never,
    NormalizedGradient,
    OneHot,
    Placebo,
    PolicyPrior,
    RandomAction,
    RandomDirection,
    RandomNear,
    Raw,
    Region,
    Replay,
    ShuffledSoftSteer,
    Sign,
    SoftSteer,
    TestTimeTraining,
    TrustRadius,
    Where,
)
from offline_eval.wrappers.host import Steering, noise_generator

ROWS = 6
OFF_POLICY = (SAC, TD3, DDPG, TQC, CrossQ)
ON_POLICY = (PPO, A2C, TRPO)


class Keyed(gym.Env):
    """Observations of several kinds, by key."""

    observation_space = spaces.Dict(
        {
            "numbers": spaces.Box(-1, 1, (3,)),
            "kind": spaces.Discrete(3),
            "bytes": spaces.Box(0, 255, (2,), np.uint8),
        }
    )
    action_space = spaces.Box(-2, 2, (2,))


# CrossQ has no policy for several inputs.
PAIRS = [
    (algorithm, env)
    for algorithm in (*OFF_POLICY, *ON_POLICY)
    for env in ("Pendulum-v1", Keyed())
    if isinstance(env, str) or algorithm is not CrossQ
]


def agent(algorithm, env="Pendulum-v1"):
    words = {} if algorithm in ON_POLICY else {"buffer_size": 10}
    policy = "MlpPolicy" if isinstance(env, str) else "MultiInputPolicy"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You are trying to run", UserWarning)  # that the CPU would be faster
        return algorithm(policy, env, policy_kwargs={"net_arch": [8]}, device="meta", **words)


def normalized(model):
    keyed = isinstance(model.observation_space, spaces.Dict)
    moments = Moments(np.zeros(3), np.ones(3))
    return Normalized(model, Statistics({"numbers": moments} if keyed else moments, 1.0))


def observed(space):
    """A batch of observations on the device."""
    if isinstance(space, spaces.Dict):
        return {key: observed(part) for key, part in space.spaces.items()}
    return th.as_tensor(np.stack([space.sample() for _ in range(ROWS)])).to(NOWHERE)


# The device itself


def on_device(*shape):
    return th.zeros(*shape, device=NOWHERE)


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: on_device(3) + th.zeros(3),
        lambda: on_device(3)[th.zeros(1, dtype=th.long)],
        lambda: on_device(3).index_put_((th.zeros(1, dtype=th.long),), on_device(1)),
        lambda: on_device(3)[on_device(3) > 0],
        lambda: on_device(3).index_put_((on_device(3) > 0,), on_device(1)),
        lambda: on_device(3).nonzero(),
        lambda: on_device(1).item(),
        lambda: float(on_device(1)),
        lambda: bool(on_device(1) > 0),
        lambda: on_device(3).unique(),
        lambda: th.cat([on_device(3), th.zeros(3)]),
    ],
)
def test_the_device_refuses_what_a_gpu_refuses_or_waits_for(mistake):
    with Elsewhere(), pytest.raises(AssertionError, match=r"waits|mixes devices"):
        mistake()


def test_the_device_counts_what_travels():
    with Elsewhere() as device:
        th.as_tensor(np.zeros(3), device=NOWHERE)
        th.tensor([1.0, 2.0], device=NOWHERE)
        assert (device.sent, device.waited, device.fetched) == (2, 2, 0)
        there = th.zeros(3).to(NOWHERE, non_blocking=True)
        assert (device.sent, device.waited, device.fetched) == (3, 2, 0)
        assert there.cpu().numpy().tolist() == there.tolist() == [1.0, 1.0, 1.0]
        assert (device.sent, device.waited, device.fetched) == (3, 2, 2)
        on_device(3)[0] = 2.0  # a number of Python goes with the operation
        assert on_device(3).mul(th.tensor(2.0)).shape == (3,)  # and so does one of the CPU
        assert (device.sent, device.waited, device.fetched) == (3, 2, 2)


# Critics and actors


@pytest.mark.parametrize(("algorithm", "env"), [pair for pair in PAIRS if pair[0] in OFF_POLICY])
def test_a_critic_rates_where_it_is(algorithm, env):
    model = agent(algorithm, env)
    observations = observed(model.observation_space)
    actions = on_device(ROWS, *model.action_space.shape)
    for each in (model, normalized(model)):
        with Elsewhere() as device:
            critic = critic_of(each)
            assert device.fetched == 1  # whether its weights are numbers
        for first in (True, False):
            with Elsewhere() as device:
                asked = actions.clone().requires_grad_()
                (slope,) = th.autograd.grad(critic.q(observations, asked).sum(), asked)
                critic.unscale(critic.scale(slope))
            assert (slope.device, device.fetched) == (NOWHERE, 0)
            assert first or device.sent == 0


@pytest.mark.parametrize("algorithm", [DQN, QRDQN])
def test_a_critic_of_discrete_actions_rates_where_it_is(algorithm):
    model = agent(algorithm, "CartPole-v1")
    with Elsewhere() as device:
        critic = critic_of(model)
        for shape in ((ROWS,), (ROWS, 1)):
            values = critic.q(on_device(ROWS, 4), on_device(*shape).long())
            assert (values.device, values.shape[1]) == (NOWHERE, ROWS)
    assert (device.sent, device.fetched) == (0, 1)


@pytest.mark.parametrize(("algorithm", "env"), PAIRS)
def test_an_actor_acts_where_it_is(algorithm, env):
    model = agent(algorithm, env)
    observations = observed(model.observation_space)
    noise = on_device(ROWS, *model.action_space.shape)
    for each in (model, normalized(model)):
        with Elsewhere() as device:
            actor = actor_of(each)
            actor.mean(observations)  # sends what it needs, once
        with Elsewhere() as device:
            actor.mean(observations)
            actor.sample(observations, noise)
            if algorithm not in (TD3, DDPG):
                actor.log_prob(observations, noise)
            features = actor.features(observations)
            parameters = {name: value.expand(ROWS, *value.shape) for name, value in actor.parameters().items()}
            actor.actions(actor.last({name: parameters[name] for name in actor.last_layer}, features[:, None]))
            rows = (
                {key: value[:, None] for key, value in observations.items()}
                if isinstance(observations, dict)
                else observations[:, None]
            )
            actor.actions(actor.whole(parameters, rows))
            std = actor.spread(features)
        assert std is None or std.shape == noise.shape
        assert (device.sent, device.fetched) == (0, 0)


# Steering

MODEL, QS = agent(SAC), agent(DQN, "CartPole-v1")
PENDULUM, CARTPOLE = MODEL.action_space, QS.action_space
with Elsewhere():
    CRITIC, ACTOR, Q = critic_of(MODEL), actor_of(MODEL), critic_of(QS)
    GAUSSIAN = actor_of(agent(PPO))
_DATA = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
NEIGHBOURS = Neighbours(_DATA, _DATA[:, :1], PENDULUM, device="meta")
STEP = OPEX(CRITIC, 0.1, num_steps=3, direction=L2())
EACH = [0.1] * ROWS

RULES = {
    "opex": STEP,
    "one a row": OPEX(CRITIC, EACH),
    "keep best": OPEX(CRITIC, 0.1, num_steps=2, keep_best=True, max_distance=0.1),
    "lower bound": OPEX(CRITIC, 0.1, direction=Raw(), reduce=LowerBound(1.0)),
    "mean": OPEX(CRITIC, 0.1, direction=Sign(), reduce=Mean()),
    "best of n": BestOfN(CRITIC, 8),
    "multiply": MultiplyAction(1.1),
    "multiply one a row": MultiplyAction([1.1] * ROWS),
    "placebo": Placebo(),
    "random direction": RandomDirection(like=STEP),
    "random direction one a row": RandomDirection(like=OPEX(CRITIC, EACH)),
    "random near": RandomNear(NEIGHBOURS),
    "best near": BestNear(CRITIC, NearbyActions(NEIGHBOURS)),
    "where": Where(STEP, Region(NEIGHBOURS, 1.0)),
    "fused": Fused(ACTOR, STEP),
    "graph": CudaGraph(STEP),
    **{
        f"guarded by {type(guard).__name__}": Guarded(STEP, guard)
        for guard in (
            LineSearch(8), GainOverDisagreement(), AgreementGate(), AgreementScale(), AllHeadsGain(), KeepBest(),
            TrustRadius(0.1), TrustRadius((0.1,)),
        )
    },
}  # fmt: skip
LEARNING = {
    "replay": TestTimeTraining(ACTOR, CRITIC),
    "anchor": TestTimeTraining(ACTOR, CRITIC, anchor=KLAnchor(1.0)),
    "anchored Gaussian": TestTimeTraining(GAUSSIAN, CRITIC, anchor=KLAnchor(1.0), states=Replay(4), gradient_steps=2),
    "latest": TestTimeTraining(ACTOR, CRITIC, optimizer=GradientDescent(), states=Latest(), gradient_steps=2),
    "everything": TestTimeTraining(
        ACTOR, CRITIC, parameters=AllParameters(), optimizer=NormalizedGradient(), reset=Never(),
        states=Mixture(_DATA, num_data=2),
    ),
    "guarded": Guarded(TestTimeTraining(ACTOR, CRITIC), LineSearch(4)),
    "where": Where(TestTimeTraining(ACTOR, CRITIC), Region(NEIGHBOURS, 1.0)),
    "fused": Fused(ACTOR, TestTimeTraining(ACTOR, CRITIC)),
}  # fmt: skip
CHOOSING = {
    "soft": SoftSteer(Q, 5.0, PolicyPrior(agent(PPO, "CartPole-v1"))),
    "one a row": SoftSteer(Q, [5.0] * ROWS, OneHot(0.1), choose=Drawn()),
    "shuffled": ShuffledSoftSteer(SoftSteer(Q, 5.0, OneHot(0.1))),
    "random": RandomAction(0.1, CARTPOLE),
}


def steps(rule, actions, observation_dim, action_space, num_steps=4):
    """What travelled at each step of a host."""
    observations = np.zeros((ROWS, observation_dim), np.float32)
    rows = np.arange(ROWS)
    generators = [noise_generator(row) for row in range(ROWS)]
    counts = []
    with Elsewhere():
        steering = Steering(rule, None, action_space)
        steering.begin(rows)
    for _ in range(num_steps):
        with Elsewhere() as device:
            steering(observations, actions, steering.draw_noise(generators), rows)
        counts.append((device.sent, device.waited, device.fetched))
    return counts


@pytest.mark.parametrize("name", RULES)
def test_a_rule_travels_once_each_way_and_waits_for_its_result_alone(name):
    per_row = "row" in name  # its numbers travel too
    travelled = (1 + per_row, 0, 1) if RULES[name].device == NOWHERE else (0, 0, 0)
    assert steps(RULES[name], np.zeros((ROWS, 1), np.float32), 3, PENDULUM) == [travelled] * 4


@pytest.mark.parametrize("name", LEARNING)
def test_training_at_test_time_sends_its_places_beside_and_waits_for_its_result_alone(name):
    assert steps(LEARNING[name], np.zeros((ROWS, 1), np.float32), 3, PENDULUM) == [(2, 0, 1)] * 4


@pytest.mark.parametrize("name", CHOOSING)
def test_a_rule_of_discrete_actions_travels_once_each_way(name, monkeypatch):
    if name == "soft":  # torch looks whether the policy's logits are numbers
        monkeypatch.setattr(th.distributions.Distribution, "_validate_args", False)
    travelled = (1 + (name == "one a row"), 0, 1) if CHOOSING[name].device == NOWHERE else (0, 0, 0)
    assert steps(CHOOSING[name], np.zeros(ROWS, np.int64), 4, CARTPOLE) == [travelled] * 4


# Measurement


@pytest.mark.parametrize("algorithm", [SAC, TQC, CrossQ])
def test_what_measures_a_soft_agent_draws_and_rates_where_it_is(algorithm, monkeypatch):
    monkeypatch.setattr(th.distributions.Distribution, "_validate_args", False)  # SB3's look at numbers
    for each in (model := agent(algorithm), normalized(model)):
        with Elsewhere() as device:
            actions, bonuses = SoftDraws(each).act(_DATA[:30], _DATA[:30, :1])
        assert (actions.shape, bonuses.shape, device.fetched) == ((30, 1), (30,), 2)  # draws; the temperature
        with Elsewhere() as device:
            values = critic_values(critic_of(each), _DATA[:30], actions)
        assert (values.shape[1], device.fetched) == (30, 2)  # whether weights are numbers; the values
        with Elsewhere():
            weights_hash(each)  # copies the weights: that is its purpose
            weaken(model, 0.1)


def test_drawing_teaches_a_policy_nothing():
    model = CrossQ("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, buffer_size=10, seed=0, device="cpu")
    model.policy.set_training_mode(True)  # as `learn` leaves it
    before = weights_hash(model)
    for rows in (slice(0, 30), slice(0, 1)):
        SoftDraws(model).act(_DATA[rows], _DATA[rows, :1])
    assert weights_hash(model) == before


# Offline training

TRANSITIONS = pendulum_data(200)


@pytest.mark.parametrize("name", [*RECIPES, "standardized"])
def test_gradient_steps_wait_for_no_number(name, monkeypatch):
    monkeypatch.setattr(devices, "_KINDS", ("cpu", "meta"))
    monkeypatch.setattr(watch, "_CHECK_EVERY", 16)
    recipe = STANDARDIZED if name == "standardized" else recipe_of(name)
    if isinstance(recipe.value, FittedQ):
        recipe = replace(recipe, value=FittedQ(policy=Bang()))
    model = OfflineAlgorithm(
        recipe, "Pendulum-v1", batch_size=32, seed=0, policy_kwargs={"net_arch": [8]}, device="meta"
    )
    with Elsewhere() as device:
        model.fit(TRANSITIONS, 18)
    # Two looks at 16 and at 2 losses, and the means of the last row.
    assert device.fetched <= 3
    with Elsewhere() as device:
        model.fit(TRANSITIONS, 2, validation=TRANSITIONS)
    assert device.fetched <= 3  # losses, means, those of the validation
    if recipe.extraction is not None:
        with Elsewhere() as device:
            model.predict(np.zeros((5, 3), np.float32), deterministic=False)
        assert device.fetched == 1
    with Elsewhere() as device:
        assert model.learner.is_finite
    assert device.fetched == 1
    with Elsewhere():  # copies what it writes, tensor by tensor: that is its purpose
        model.save(io.BytesIO())
