"""What holds for every steering rule: identities, then refusals."""

from copy import deepcopy
from dataclasses import FrozenInstanceError

import cloudpickle
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from steered import FunctionCritic, network_critic, same_bits, square, steer

from offline_eval.errors import CriticError, InputError, SpaceError
from offline_eval.types import Critic, Rule
from offline_eval.wrappers import (
    L2,
    OPEX,
    BestOfN,
    ExactGain,
    GaussianProposal,
    LowerBound,
    MultiplyAction,
    Placebo,
    RandomDirection,
)
from offline_eval.wrappers.host import Steering, noise_generator

RULES_THAT_DO_NOTHING = [
    lambda critic: OPEX(critic, 0),
    lambda critic: OPEX(critic, 0.0, num_steps=3, direction=L2(), keep_best=True),
    lambda critic: OPEX(critic, 0.0, max_distance=0.1, gain=ExactGain()),
    lambda critic: OPEX(critic, [0.0] * 40),
    lambda critic: RandomDirection(0.0),
    lambda critic: RandomDirection([0.0] * 40),
    lambda critic: RandomDirection(like=OPEX(critic, 0.0)),
    lambda critic: MultiplyAction(1),
    lambda critic: Placebo(0.0),
]


@pytest.mark.parametrize("make", RULES_THAT_DO_NOTHING)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_to_do_returns_the_very_same_bits(make, dtype):
    critic = FunctionCritic(dim=2, bound=2.0)
    actions = np.random.default_rng(0).uniform(-2, 2, (40, 2)).astype(dtype)
    actions[0] = [-0.0, 1e-30]
    actions[1] = [2.0000002, -2.5]  # a policy may leave its box; that is its own affair
    steering = Steering(make(critic), None, critic.action_space)
    noise = steering.draw_noise([noise_generator(seed) for seed in range(40)])
    after, metrics = steering(np.full((40, 2), 0.3, dtype=np.float32), actions, noise)
    assert same_bits(after, actions)
    assert not metrics["displacement"].any()
    assert not metrics["clipped"].any()


def test_a_vector_of_step_sizes_is_one_rule_a_row():
    critic = network_critic()
    rng = np.random.default_rng(0)
    observations = rng.standard_normal((40, 2), dtype=np.float32)
    actions = rng.uniform(-1, 1, (40, 2)).astype(np.float32)
    sizes = np.tile([0.0, 0.05, 0.2, 1.0], 10)
    for options in ({}, {"direction": L2(), "num_steps": 2}, {"keep_best": True}):
        together, of_all = Steering(OPEX(critic, sizes, **options), None, critic.action_space)(
            observations, actions, None
        )
        for size in (0.0, 0.05, 0.2, 1.0):
            alone, of_one = Steering(OPEX(critic, size, **options), None, critic.action_space)(
                observations, actions, None
            )
            mine = sizes == size
            assert same_bits(together[mine], alone[mine])
            for name, values in of_one.items():
                assert same_bits(of_all[name][mine], values[mine])
        assert same_bits(together[sizes == 0], actions[sizes == 0])


@pytest.mark.parametrize(
    "make",
    [
        lambda critic: OPEX(critic, 0.1, num_steps=2, gain=ExactGain()),
        lambda critic: OPEX(critic, 0.1, direction=L2(), reduce=LowerBound(0.5), max_distance=0.05),
        lambda critic: BestOfN(critic, 5),
        lambda critic: RandomDirection(like=OPEX(critic, 0.1, direction=L2())),
        lambda critic: RandomDirection(0.2),
        lambda critic: MultiplyAction(1.2),
        lambda critic: Placebo(),
    ],
)
def test_a_row_does_not_depend_on_the_rows_beside_it(make):
    critic = network_critic()
    steering = Steering(make(critic), None, critic.action_space)
    rng = np.random.default_rng(0)
    observations = rng.standard_normal((69, 2), dtype=np.float32)
    actions = rng.uniform(-1, 1, (69, 2)).astype(np.float32)
    noise = steering.draw_noise([noise_generator(seed) for seed in range(69)])
    together, of_all = steering(observations, actions, noise)
    assert not np.array_equal(together, actions)
    for row in (0, 31, 32, 68):
        only = slice(row, row + 1)
        alone, of_one = steering(observations[only], actions[only], None if noise is None else noise[only])
        assert same_bits(alone, together[only])
        for name, values in of_one.items():
            assert same_bits(values, of_all[name][only])


def test_some_rows_of_a_host_keep_their_own_step_size():
    critic = FunctionCritic()
    steering = Steering(OPEX(critic, [0.1, 0.2, 0.3]), None, critic.action_space)
    after, _ = steering(np.ones((2, 1)), np.zeros((2, 1), dtype=np.float32), None, rows=np.array([2, 0]))
    np.testing.assert_allclose(after, [[0.6], [0.2]], rtol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda critic: OPEX(critic, 0.1),
        lambda critic: OPEX(critic, [0.1, 0.2]),
        lambda critic: BestOfN(critic, 4),
        lambda critic: RandomDirection(0.1),
        lambda critic: RandomDirection(like=OPEX(critic, 0.1)),
        lambda critic: MultiplyAction(1.1),
        lambda critic: Placebo(),
    ],
)
def test_rules_do_not_change_and_travel(make):
    critic = FunctionCritic(dim=2)
    assert isinstance(critic, Critic)
    rule = make(critic)
    assert isinstance(rule, Rule)
    assert deepcopy(rule) is rule
    with pytest.raises(FrozenInstanceError):
        rule.step_size = 3.0
    travelled = cloudpickle.loads(cloudpickle.dumps(rule))
    observations, actions = np.full((2, 2), 0.5), np.full((2, 2), 0.1, dtype=np.float32)
    results = []
    for each in (rule, travelled):
        steering = Steering(each, critic.observation_space, critic.action_space)
        noise = steering.draw_noise([noise_generator(0), noise_generator(1)])
        results.append(steering(observations, actions, noise)[0])
    assert same_bits(*results)
    assert "FunctionCritic" not in repr(rule)


def test_steering_works_under_no_grad_and_leaves_no_gradient_behind():
    weight = th.nn.Parameter(th.ones(()))
    critic = FunctionCritic(lambda o, a: square(o, a) * weight)
    with th.no_grad():
        after, _ = steer(OPEX(critic, 0.1), [[0.5]], [[0.0]])
    assert after == pytest.approx(0.1)
    assert weight.grad is None


def test_noise_is_the_episodes_own():
    assert noise_generator(3, 1).random() == noise_generator(3, 1).random()
    numbers = {noise_generator(seed, episode).random() for seed in range(3) for episode in range(3)}
    assert len(numbers) == 9
    assert noise_generator(3).random() != np.random.default_rng(3).random()
    assert noise_generator(None).random() != noise_generator(None).random()


# Refusals


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda c: OPEX(c, -0.1), "`step_size` must be a finite number >= 0"),
        (lambda c: OPEX(c, [0.1, -0.1]), "`step_size`"),
        (lambda c: OPEX(c, [[0.1]]), "`step_size`"),
        (lambda c: OPEX(c, []), "`step_size`"),
        (lambda c: OPEX(c, float("nan")), "`step_size`"),
        (lambda c: OPEX(c, "large"), "`step_size`"),
        (lambda c: OPEX(c, 0.1, num_steps=0), "`num_steps` must be a whole number >= 1"),
        (lambda c: OPEX(c, 0.1, num_steps=1.5), "`num_steps`"),
        (lambda c: OPEX(c, 0.1, max_distance=0.0), "`max_distance` must be a finite number > 0"),
        (lambda c: OPEX(object(), 0.1), "`critic` must be a Critic. Received object: `critic_of"),
        (lambda c: BestOfN(c, 1), "`num_samples` must be a whole number >= 2"),
        (lambda c: GaussianProposal(0.0), "`std`"),
        (lambda c: LowerBound(-1.0), "`coef`"),
        (lambda c: RandomDirection(), "`step_size` or `like` must be given"),
        (lambda c: RandomDirection(0.1, like=OPEX(c, 0.1)), "`step_size` or `like` must be given, and not both"),
        (lambda c: RandomDirection(like=0.1), "`like` must be a rule that asks a critic"),
        (lambda c: RandomDirection(-1.0), "`step_size`"),
        (lambda c: MultiplyAction(float("inf")), "`factor`"),
        (lambda c: Placebo(-1e-6), "`std`"),
    ],
)
def test_constructors_name_the_argument_and_the_rule(make, words):
    with pytest.raises(InputError) as caught:
        make(FunctionCritic())
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "make", [lambda c: OPEX(c, 0.1), lambda c: BestOfN(c, 4), lambda c: RandomDirection(like=OPEX(c, 0.1))]
)
@pytest.mark.parametrize("space", [spaces.Discrete(3), spaces.MultiDiscrete([2, 2]), spaces.Box(0, 9, (1,), np.int64)])
def test_discrete_actions_are_refused_with_the_way_out(make, space):
    with pytest.raises(SpaceError, match=r"must be a Box of floats for (OPEX|BestOfN).*greedy action"):
        make(FunctionCritic(action_space=space))


@pytest.mark.parametrize("rule", [RandomDirection(0.1), MultiplyAction(1.1), Placebo()])
def test_discrete_actions_are_refused_by_the_host_of_a_control(rule):
    with pytest.raises(SpaceError, match=r"must be a Box of floats.*Discrete\(2\)"):
        Steering(rule, None, spaces.Discrete(2))


@pytest.mark.parametrize(
    ("observation_space", "action_space", "named"),
    [
        (spaces.Box(-1, 1, (1,)), spaces.Box(-1, 1, (2,)), "(2,)"),
        (spaces.Box(-1, 1, (1,)), spaces.Box(-3, 3, (1,)), "3.0"),
        (spaces.Box(-1, 1, (7,)), spaces.Box(-1, 1, (1,)), "(7,)"),
        (spaces.Dict(top=spaces.Box(-1, 1, (1,))), spaces.Box(-1, 1, (1,)), "top"),
        (spaces.Discrete(5), spaces.Box(-1, 1, (1,)), "Discrete(5)"),
    ],
)
def test_a_critic_of_other_spaces_is_refused_naming_both(observation_space, action_space, named):
    critic = FunctionCritic()
    for rule in (OPEX(critic, 0.1), BestOfN(critic, 2), RandomDirection(like=OPEX(critic, 0.1))):
        with pytest.raises(SpaceError) as caught:
            Steering(rule, observation_space, action_space)
        assert named in str(caught.value)
        own = critic.action_space if action_space != critic.action_space else critic.observation_space
        assert f"a critic for {own}" in str(caught.value)


def test_the_bounds_of_observations_do_not_matter():
    Steering(OPEX(FunctionCritic(), 0.1), spaces.Box(-5, 5, (1,), np.float64), spaces.Box(-1, 1, (1,)))


@pytest.mark.parametrize(
    ("function", "received"),
    [
        (lambda o, a: -a.square(), "shape (32, 1)"),
        (lambda o, a: -a.square().sum(-1), "shape (32,)"),
        (lambda o, a: -a.square().sum(), "shape ()"),
        (lambda o, a: a.detach().numpy(), "ndarray"),
    ],
)
@pytest.mark.parametrize("make", [lambda c: OPEX(c, 0.1), lambda c: BestOfN(c, 2)])
def test_a_critic_of_the_wrong_shape_is_named(function, received, make):
    rule = make(FunctionCritic(function))
    with pytest.raises(CriticError) as caught:
        steer(rule, [[0.0]], [[0.0]], np.ones((1, *rule.noise_shape(1))))
    if isinstance(rule, OPEX):
        assert f"must return values (n_critics, batch), here (n_critics, 32). Received {received}" in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("make", [lambda c: OPEX(c, 0.1), lambda c: BestOfN(c, 2)])
def test_a_critic_that_returns_nan_is_refused_on_the_first_batch(make, value):
    rule = make(FunctionCritic(lambda o, a: a.T + value))
    with pytest.raises(CriticError, match="must return finite values"):
        steer(rule, [[0.0]], [[0.0]], np.ones((1, *rule.noise_shape(1))))


@pytest.mark.parametrize("function", [lambda o, a: a.detach().T, lambda o, a: o.T * th.ones(1, requires_grad=True)])
def test_a_critic_without_a_gradient_in_the_actions_is_refused(function):
    with pytest.raises(CriticError, match="must be differentiable in the actions"):
        steer(OPEX(FunctionCritic(function), 0.1), [[0.0]], [[0.0]])


def test_a_reduction_of_the_wrong_shape_is_named():
    with pytest.raises(InputError, match=r"`reduce` must map \(1, 32\) to \(32,\)"):
        steer(OPEX(FunctionCritic(), 0.1, reduce=lambda q: q), [[0.0]], [[0.0]])


def test_the_host_refuses_what_does_not_fit_together():
    critic = FunctionCritic()
    steering = Steering(OPEX(critic, [0.1, 0.2]), None, critic.action_space)
    with pytest.raises(InputError, match="one entry a row, here 3"):
        steering(np.zeros((3, 1)), np.zeros((3, 1), dtype=np.float32), None)
    with pytest.raises(InputError, match="one row an action"):
        steering(np.zeros((3, 1)), np.zeros((2, 1), dtype=np.float32), None)
    with pytest.raises(InputError, match="`width`"):
        Steering(OPEX(critic, 0.1), None, critic.action_space, width="wide")
    with pytest.raises(InputError, match="`noise` must be given"):
        steer(Placebo(), [[0.0]], [[0.0]], None, critic.action_space)
