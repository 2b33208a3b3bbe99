"""What guards do to a step: numbers worked out by hand on parabolas, identities, refusals."""

import math

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from steered import Bang, FunctionCritic, network_critic, pendulum, pendulum_critic, same_bits, square, steer

from offline_eval.diagnostics.spread import action_spread
from offline_eval.errors import CriticError, InputError, SpaceError
from offline_eval.policies import critic_of, with_target
from offline_eval.provenance import recipe
from offline_eval.types import Rule, Steered
from offline_eval.wrappers import (
    L2,
    OPEX,
    AgreementGate,
    AgreementScale,
    AllHeadsGain,
    BestOfN,
    GainOverDisagreement,
    Guarded,
    KeepBest,
    LineSearch,
    LowerBound,
    MultiplyAction,
    RandomDirection,
    SteerAction,
    TrustRadius,
)
from offline_eval.wrappers.guards import Verdict, held_back
from offline_eval.wrappers.host import Steering, noise_generator

GUARDS = [
    KeepBest(),
    LineSearch(8),
    AllHeadsGain(),
    AgreementGate(-0.5),
    AgreementScale(),
    GainOverDisagreement(0.1),
    TrustRadius(0.1),
    TrustRadius((0.1, 0.02)),
]


def step_of(length, critic, **options):
    return OPEX(critic, length, direction=L2(), **options)


def two_heads(observations, actions):
    """A parabola, and one that is 0.5 lower."""
    q = square(observations, actions)
    return th.cat([q, q - 0.5])


def quarrel(observations, actions):
    """Slopes along 1 and along the observation: the cosine between them is the observation's first entry."""
    return th.stack([actions[:, 0], (actions * observations).sum(-1)])


# Numbers


def test_the_line_search_finds_the_maximum_of_a_parabola():
    # Points 0, 0.1, ..., 0.7 on the way from 0; the top is at 0.4.
    after, metrics = steer(Guarded(step_of(0.7, FunctionCritic()), LineSearch(8)), [[0.4]], [[0.0]])
    assert after == pytest.approx(0.4)
    assert metrics["displacement"] == pytest.approx(0.4)
    assert metrics["gated"] == pytest.approx(3 / 7)
    assert metrics["predicted_gain"] == pytest.approx(0.16)


def test_the_line_search_stays_where_every_point_is_lower_and_goes_to_the_end_where_that_is_highest():
    rule = Guarded(step_of(0.7, FunctionCritic()), LineSearch(8))
    after, metrics = steer(rule, [[0.04], [2.0]], [[0.0], [0.0]])
    np.testing.assert_array_equal(after, np.array([[0.0], [0.7]], dtype=np.float32))
    np.testing.assert_array_equal(metrics["gated"], [1.0, 0.0])


def test_keep_best_goes_up_and_never_down():
    rule = Guarded(step_of(0.5, FunctionCritic()), KeepBest())
    after, metrics = steer(rule, [[0.1], [0.9]], [[0.0], [0.0]])
    np.testing.assert_array_equal(after, np.array([[0.0], [0.5]], dtype=np.float32))
    np.testing.assert_allclose(metrics["predicted_gain"], [0.0, 0.81 - 0.16], rtol=1e-5)


def test_gain_over_disagreement_is_a_share_of_the_step():
    # The minimum rises from -1.5 to -0.5 - 0.25 = 0.75 more; the heads differ by 0.5: with coef 2 the share is 0.75.
    critic = FunctionCritic(two_heads)
    guarded = Guarded(step_of(0.5, critic), GainOverDisagreement(coef=2.0))
    after, metrics = steer(guarded, [[1.0]], [[0.0]])
    assert after == pytest.approx(0.375)
    assert metrics["gated"] == pytest.approx(0.25)
    assert metrics["predicted_gain"] == pytest.approx(0.75 * 0.75)
    for coef, expected in ((1.0, 0.5), (15.0, 0.05)):
        assert steer(Guarded(step_of(0.5, critic), GainOverDisagreement(coef)), [[1.0]], [[0.0]])[0] == pytest.approx(
            expected
        )


def test_gain_over_disagreement_takes_nothing_of_a_loss_and_all_where_heads_agree():
    over = Guarded(step_of(0.5, FunctionCritic(two_heads)), GainOverDisagreement())
    assert steer(over, [[0.1]], [[0.0]])[0] == 0.0
    agree = FunctionCritic(lambda o, a: square(o, a).repeat(2, 1))
    assert steer(Guarded(step_of(0.5, agree), GainOverDisagreement()), [[1.0]], [[0.0]])[0] == pytest.approx(0.5)


@pytest.mark.parametrize(("cosine", "gate", "scale"), [(0.8, 1.0, 0.8), (0.4, 0.0, 0.4), (-0.6, 0.0, 0.0)])
def test_the_cosine_between_the_heads_gates_or_scales(cosine, gate, scale):
    critic = FunctionCritic(quarrel, dim=2)
    seen, actions = [[cosine, math.sqrt(1 - cosine**2)]], [[0.0, 0.0]]
    for guard, share in ((AgreementGate(0.5), gate), (AgreementScale(), scale)):
        after, metrics = steer(Guarded(MultiplyAction(1.0), guard, critic=critic), seen, actions)
        assert same_bits(after, np.array(actions, dtype=np.float32))
        assert metrics["gated"] == 0.0  # the rule took no step: there was nothing to hold back
        _, metrics = steer(Guarded(step_of(0.2, critic), guard), seen, actions)
        assert metrics["displacement"] == pytest.approx(0.2 * share, abs=1e-6)
        assert metrics["gated"] == pytest.approx(1 - share, abs=1e-6)


def test_the_cosine_of_three_heads_is_the_mean_over_pairs():
    # Directions at 0, 60 and 90 degrees: (0.5 + 0 + sqrt(3) / 2) / 3.
    directions = th.tensor([[1.0, 0.0], [0.5, math.sqrt(3) / 2], [0.0, 1.0]])
    critic = FunctionCritic(lambda o, a: directions @ a.T, dim=2)
    _, metrics = steer(Guarded(step_of(0.3, critic), AgreementScale()), [[0.0, 0.0]], [[0.0, 0.0]])
    assert metrics["gated"] == pytest.approx(1 - (0.5 + math.sqrt(3) / 2) / 3, abs=1e-6)


def test_all_heads_must_gain():
    # The second head has its top at half of the observation.
    critic = FunctionCritic(lambda o, a: th.cat([square(o, a), square(0.5 * o, a)]))
    rule = Guarded(step_of(0.5, critic), AllHeadsGain())
    # To 0.5 with tops at 0.8 and 0.4: the second loses 0.16 and then 0.01. With tops at 0.4 and 0.2: 0.04, then 0.09.
    after, metrics = steer(rule, [[0.8], [0.4]], [[0.0], [0.0]])
    np.testing.assert_array_equal(after, np.array([[0.5], [0.0]], dtype=np.float32))
    np.testing.assert_allclose(metrics["predicted_gain"], [0.15, 0.0], rtol=1e-5)


def test_the_trust_radius_is_a_ball_or_an_ellipsoid():
    critic = FunctionCritic(dim=2)
    for radius, expected in ((0.25, [0.15, 0.2]), ((0.3, 0.4), [0.3 / math.sqrt(2), 0.4 / math.sqrt(2)])):
        after, metrics = steer(Guarded(step_of(1.0, critic), TrustRadius(radius)), [[0.6, 0.8]], [[0.0, 0.0]])
        np.testing.assert_allclose(after, [expected], rtol=1e-5)
        assert metrics["gated"] == pytest.approx(1 - np.linalg.norm(expected), rel=1e-5)


def test_a_lower_bound_is_a_reduction_of_a_guard():
    # Heads a and -2a: the mean falls along the first, and so does any lower bound; the first alone rises.
    critic = FunctionCritic(lambda o, a: th.stack([a[:, 0], -2 * a[:, 0]]))
    rule = MultiplyAction(2.0)
    for reduce, expected in ((LowerBound(1.0), 0.2), (lambda q: q[0], 0.4)):
        assert steer(Guarded(rule, KeepBest(reduce), critic=critic), [[0.0]], [[0.2]])[0] == pytest.approx(expected)


def test_the_box_cuts_a_step_before_the_guard_sees_it():
    # From 0.8 a step of 0.5 ends at 1; of its 0.2 a radius of 0.1 takes a half.
    after, metrics = steer(Guarded(step_of(0.5, FunctionCritic()), TrustRadius(0.1)), [[2.0]], [[0.8]])
    assert after == pytest.approx(0.9)
    assert metrics["clipped"] == 1.0
    after, metrics = steer(Guarded(MultiplyAction(10.0), KeepBest(), critic=FunctionCritic()), [[2.0]], [[0.8]])
    assert after == 1.0
    assert metrics["clipped"] == 1.0


def test_guards_stack():
    # A radius of 0.4 leaves 0.4 of 0.8, the line search half of that.
    inner = Guarded(step_of(0.8, FunctionCritic()), TrustRadius(0.4))
    after, metrics = steer(Guarded(inner, LineSearch(3)), [[0.2]], [[0.0]])
    assert after == pytest.approx(0.2)
    assert metrics["gated"] == pytest.approx(0.75)


# Identities


@pytest.mark.parametrize(
    "guard", [TrustRadius(math.inf), TrustRadius((math.inf,) * 2), lambda c, o, b, a: Verdict(th.ones(len(b)))]
)
def test_an_infinite_cap_is_the_rule_itself_bit_for_bit(guard):
    critic = network_critic()
    rng = np.random.default_rng(0)
    observations, actions = rng.standard_normal((40, 2), np.float32), rng.uniform(-1, 1, (40, 2)).astype(np.float32)
    for rule in (OPEX(critic, 0.3, num_steps=2), step_of(0.3, critic), BestOfN(critic, 4)):
        noise = rng.standard_normal((40, *rule.noise_shape(2)), np.float32) if rule.noise_shape(2) else None
        plain, of_plain = Steering(rule, None, critic.action_space)(observations, actions, noise)
        held, of_held = Steering(Guarded(rule, guard), None, critic.action_space)(observations, actions, noise)
        assert same_bits(plain, held)
        assert not of_held.pop("gated").any()
        assert of_held.keys() == of_plain.keys()
        for name, values in of_plain.items():
            assert same_bits(values, of_held[name]), name


def test_a_line_search_of_two_points_is_keep_best():
    critic = network_critic()
    rng = np.random.default_rng(0)
    observations, actions = rng.standard_normal((64, 2), np.float32), rng.uniform(-1, 1, (64, 2)).astype(np.float32)
    results = [
        Steering(Guarded(step_of(0.8, critic), guard), None, critic.action_space)(observations, actions, None)
        for guard in (LineSearch(2), KeepBest())
    ]
    assert same_bits(results[0][0], results[1][0])
    assert 0 < results[0][1]["gated"].mean() < 1


@pytest.mark.parametrize("guard", GUARDS, ids=repr)
def test_a_guard_shortens_a_step_and_never_turns_it(guard):
    critic = network_critic()
    rng = np.random.default_rng(1)
    observations, actions = rng.standard_normal((64, 2), np.float32), rng.uniform(-0.5, 0.5, (64, 2)).astype(np.float32)
    rule = step_of(0.3, critic)
    free, _ = Steering(rule, None, critic.action_space)(observations, actions, None)
    held, metrics = Steering(Guarded(rule, guard), None, critic.action_space)(observations, actions, None)
    share = (1 - metrics["gated"])[:, None]
    np.testing.assert_allclose(held - actions, share * (free - actions), atol=1e-6)
    assert np.all((share >= 0) & (share <= 1))
    assert metrics["gated"].any()


@pytest.mark.parametrize("guard", GUARDS, ids=repr)
def test_a_row_does_not_depend_on_the_rows_beside_it_and_nothing_stays_nothing(guard):
    critic = network_critic()
    rng = np.random.default_rng(0)
    observations, actions = rng.standard_normal((35, 2), np.float32), rng.uniform(-1, 1, (35, 2)).astype(np.float32)
    steering = Steering(Guarded(step_of(0.2, critic), guard), None, critic.action_space)
    together, of_all = steering(observations, actions, None)
    for row in (0, 31, 34):
        alone, of_one = steering(observations[row : row + 1], actions[row : row + 1], None)
        assert same_bits(alone[0], together[row])
        assert all(values[0] == of_all[name][row] for name, values in of_one.items())
    outside = actions * np.float32(2.5)
    nothing, metrics = Steering(Guarded(OPEX(critic, 0.0), guard), None, critic.action_space)(
        observations, outside, None
    )
    assert same_bits(nothing, outside)
    assert not any(metrics[name].any() for name in ("displacement", "gated", "clipped", "predicted_gain"))


def test_a_vector_of_step_sizes_goes_through_a_guard():
    critic = FunctionCritic()
    rule = Guarded(OPEX(critic, [0.1, 0.4, 0.0], direction=L2()), TrustRadius(0.2))
    assert rule.num_rows == 3
    steering = Steering(rule, None, critic.action_space)
    after, _ = steering(np.ones((2, 1)), np.zeros((2, 1), np.float32), None, rows=np.array([1, 0]))
    np.testing.assert_allclose(after, [[0.2], [0.1]], rtol=1e-6)


def test_the_random_control_goes_as_far_as_a_guarded_rule():
    critic = network_critic()
    rng = np.random.default_rng(0)
    observations, actions = rng.standard_normal((40, 2), np.float32), np.zeros((40, 2), np.float32)
    rule = Guarded(step_of(0.5, critic), LineSearch(5))
    control = Steering(RandomDirection(like=rule), None, critic.action_space)
    noise = control.draw_noise([noise_generator(seed) for seed in range(40)])
    _, of_rule = Steering(rule, None, critic.action_space)(observations, actions, None)
    _, of_control = control(observations, actions, noise)
    np.testing.assert_allclose(of_control["displacement"], of_rule["displacement"], atol=1e-6)


def test_a_guarded_rule_is_a_rule_and_says_what_it_is():
    rule = Guarded(step_of(0.2, FunctionCritic()), LineSearch(8))
    assert isinstance(rule, Rule)
    said = recipe(rule)
    assert (said["name"], said["rule"]["name"], said["rule"]["step_size"]) == ("Guarded", "OPEX", 0.2)
    assert said["guard"] == {"name": "LineSearch", "num_points": 8, "reduce": {"name": "Min"}}


def test_what_is_no_rule_can_be_held_back_too():
    # A proposal from elsewhere: an adapted policy's action beside the frozen one's.
    critic = FunctionCritic()
    actions, verdict = held_back(LineSearch(3), critic, th.tensor([[0.5]]), th.tensor([[0.0]]), th.tensor([[1.0]]))
    assert actions == 0.5
    assert verdict.gain == pytest.approx(0.25)


def test_a_guarded_rule_steers_an_environment():
    env = SteerAction(pendulum(), Guarded(step_of(0.3, pendulum_critic()), GainOverDisagreement(0.2)))
    observation, _ = env.reset(seed=0)
    gated = []
    for _ in range(7):
        observation, *_, info = env.step(Bang().predict(observation)[0])
        gated.append(info["steering/gated"])
    assert 0 < np.mean(gated) < 1


# What is not finite, and refusals


@pytest.mark.parametrize(
    "guard", [KeepBest(), LineSearch(3), AllHeadsGain(), GainOverDisagreement(), AgreementGate(-1.0)], ids=repr
)
def test_a_row_without_a_value_keeps_the_policys_action_and_is_counted(guard):
    critic = FunctionCritic(lambda o, a: th.cat([square(o, a), square(o, a) - 0.1]))
    steering = Steering(Guarded(MultiplyAction(2.0), guard, critic=critic), None, critic.action_space)
    seen = np.array([[np.nan], [1.0]], dtype=np.float32)
    actions = np.array([[0.2], [0.2]], dtype=np.float32)
    after, metrics = steering(seen, actions, None)
    assert same_bits(after[0], actions[0])
    assert after[1] > actions[1]
    np.testing.assert_array_equal(metrics["non_finite"], [1.0, 0.0])
    np.testing.assert_array_equal(metrics["gated"][0], 1.0)


def test_a_proposal_that_is_no_number_is_not_taken():
    class Broken(MultiplyAction):
        def __call__(self, observations, actions, noise=None):
            return Steered(actions * math.nan, {})

    for guard in (KeepBest(), TrustRadius(math.inf), lambda c, o, b, a: Verdict(th.ones(len(b)))):
        after, metrics = steer(Guarded(Broken(1.0), guard, critic=FunctionCritic()), [[0.0]], [[0.3]])
        assert after == np.float32(0.3)
        assert metrics["non_finite"] == metrics["gated"] == 1.0


def test_a_critic_that_has_no_value_for_the_policys_action_is_refused_through_a_guard():
    critic = FunctionCritic(lambda o, a: a.T + math.nan)
    for guard in (LineSearch(3), TrustRadius(0.1)):
        with pytest.raises(CriticError, match="must return finite values"):
            steer(Guarded(OPEX(critic, 0.1), guard), [[0.0]], [[0.0]])


@pytest.mark.parametrize("guard", [AllHeadsGain(), AgreementGate(), AgreementScale(), GainOverDisagreement()], ids=repr)
def test_a_single_head_cannot_agree_with_itself(guard):
    name = type(guard).__name__
    with pytest.raises(CriticError, match=rf"two heads or more for {name}.*Received 1 head: .*with_target"):
        steer(Guarded(step_of(0.1, FunctionCritic()), guard), [[0.5]], [[0.0]])


@pytest.mark.parametrize("guard", [LineSearch(), KeepBest(), TrustRadius(0.1)], ids=repr)
def test_a_single_head_is_enough_for_what_asks_for_no_agreement(guard):
    assert steer(Guarded(step_of(0.1, FunctionCritic()), guard), [[0.5]], [[0.0]])[0] == pytest.approx(0.1)


def test_gradients_that_cannot_be_had_are_named():
    critic = FunctionCritic(lambda o, a: two_heads(o, a).detach())
    with pytest.raises(CriticError, match="differentiable in the actions for AgreementGate"):
        steer(Guarded(MultiplyAction(2.0), AgreementGate(), critic=critic), [[0.5]], [[0.1]])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda c: LineSearch(1), "`num_points` must be a whole number >= 2"),
        (lambda c: AgreementGate(1.5), "`threshold` must be a cosine"),
        (lambda c: AgreementGate(math.nan), "`threshold` must be a cosine"),
        (lambda c: GainOverDisagreement(0.0), "`coef`"),
        (lambda c: TrustRadius(0.0), "`radius` must be a number > 0"),
        (lambda c: TrustRadius([]), "`radius`"),
        (lambda c: TrustRadius([0.1, math.nan]), "`radius`"),
        (lambda c: Guarded(MultiplyAction(1.1), LineSearch()), "`critic` must be given, as MultiplyAction has none"),
        (lambda c: Guarded(c, LineSearch()), "`rule` must be a steering rule. Received FunctionCritic"),
        (lambda c: Guarded(OPEX(c, 0.1), 0.3), "`guard` must be a guard. Received float"),
        (lambda c: Guarded(OPEX(c, 0.1), KeepBest(), critic=3), "`critic` must be a Critic"),
    ],
)
def test_constructors_name_the_argument_and_the_rule(make, words):
    with pytest.raises(InputError) as caught:
        make(FunctionCritic())
    assert words in str(caught.value)


def test_spaces_that_do_not_fit_are_refused():
    critic = FunctionCritic()
    with pytest.raises(SpaceError):
        Steering(Guarded(MultiplyAction(1.1), KeepBest(), critic=critic), None, spaces.Box(-1, 1, (2,)))
    with pytest.raises(InputError, match="one entry a dimension, here 1"):
        steer(Guarded(OPEX(critic, 0.1), TrustRadius((0.1, 0.2))), [[0.5]], [[0.0]])


# A second member for a single critic, and the data's spread


def test_a_target_critic_is_a_second_head():
    from stable_baselines3 import DDPG

    model = DDPG("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, seed=0, device="cpu")
    observations, actions = th.randn(5, 3), th.rand(5, 1)
    both, alone = with_target(model), critic_of(model)
    assert both.q(observations, actions).shape == (2, 5)
    th.testing.assert_close(both.q(observations, actions)[0], both.q(observations, actions)[1])  # not trained yet
    with th.no_grad():
        for weight in model.critic.parameters():
            weight.add_(0.1)
    q = both.q(observations, actions)
    th.testing.assert_close(q[:1], alone.q(observations, actions))
    assert not th.allclose(q[0], q[1])
    seen = np.zeros((1, 3), dtype=np.float32)
    _, metrics = Steering(Guarded(step_of(0.1, both), GainOverDisagreement()), None, both.action_space)(
        seen, np.zeros((1, 1), np.float32), None
    )
    assert 0 <= metrics["gated"] <= 1


def test_a_model_without_a_target_critic_is_refused():
    from stable_baselines3 import PPO

    with pytest.raises(CriticError, match="must have a Q"):
        with_target(PPO("MlpPolicy", "Pendulum-v1", device="cpu"))


def test_the_spread_is_the_standard_deviation_of_actions_at_the_same_state():
    rng = np.random.default_rng(0)
    observations = rng.uniform(-1, 1, (4000, 1)) * 1000.0
    noise = rng.standard_normal((4000, 2)) * [0.05, 0.2]
    actions = np.sin(observations / 1000.0) + noise
    np.testing.assert_allclose(action_spread(observations, actions, rng), [0.05, 0.2], rtol=0.1)
    np.testing.assert_allclose(action_spread(observations, actions - noise, rng), [1e-3, 1e-3])


def test_the_spread_refuses_a_single_state():
    with pytest.raises(InputError, match="two states or more"):
        action_spread(np.zeros((1, 2)), np.zeros((1, 1)), np.random.default_rng(0))


def test_an_adapted_policy_can_be_held_back():
    from stable_baselines3 import SAC

    from offline_eval.policies import actor_of
    from offline_eval.wrappers import TestTimeTraining

    model = SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, seed=0, device="cpu")
    rule = TestTimeTraining(actor_of(model), critic_of(model), learning_rate=0.05)
    moved = {}
    for name, steered in {
        "free": rule,
        "held": Guarded(rule, TrustRadius(0.01)),
        "same": Guarded(rule, TrustRadius(1e9)),
    }.items():
        env = SteerAction(pendulum(6), steered)
        observation, _ = env.reset(seed=0)
        moved[name] = []
        for _ in range(6):
            observation, *_, info = env.step(Bang().predict(observation)[0])
            moved[name].append(info["steering/displacement"])
    assert moved["free"] == moved["same"]
    assert max(moved["free"]) > 0.02
    assert max(moved["held"]) == pytest.approx(0.01, rel=1e-4)
